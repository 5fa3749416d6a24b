"""What befalls the machines and processes of a cluster, on several raylets of this machine."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import NANO

import nas.search.ray_workers
import nas.utilities.ray_cluster
from nas.search.evaluation import EvaluationSetup, Score
from nas.search.ray_workers import RayWorkers
from nas.training.accuracy import SubnetEvaluator
from nas.utilities.ray_cluster import RayCluster
from search_space import Architecture

pytestmark = pytest.mark.slow

CANDIDATES = list(NANO.enumerate())[:6]


def known_accuracy(architecture: Architecture) -> float:
    """One that differs between architectures."""
    return int(architecture.hash, 16) % 1000 / 1000


EXPECTED = {n: Score(accuracy=known_accuracy(c)) for n, c in enumerate(CANDIDATES)}


class Noting(SubnetEvaluator):
    """Knows the answer after a while, and notes which process was asked."""

    def __init__(self, notes: Path, seconds: float) -> None:
        self.notes, self.seconds = notes, seconds

    def accuracy(self, architecture: Architecture) -> float:
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return known_accuracy(architecture)


@dataclass(frozen=True, kw_only=True)
class NotingSetup(EvaluationSetup):
    """Evaluators that need no supernet."""

    notes: Path
    seconds: float

    def evaluator(self) -> SubnetEvaluator:
        return Noting(self.notes, self.seconds)


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster whose head has no CPUs; tests add machines to it."""
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_health_check_period_ms", "500")
        folder = f"/tmp/ray-{os.getpid()}"  # Ray's sockets need a short path
        cluster = Cluster()
        cluster.add_node(num_cpus=0, object_store_memory=80 << 20, temp_dir=folder)
        # Its processes cannot import this file.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield cluster
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
        cluster.shutdown()


@contextmanager
def machine(machines: Any, *, cpus: int) -> Iterator[Any]:
    """One that joins, and leaves in the end if it is still there."""
    node = machines.add_node(num_cpus=cpus, object_store_memory=80 << 20)
    try:
        yield node
    finally:
        if node in machines.worker_nodes:
            machines.remove_node(node)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    return tmp_path / "notes.txt"


def workers_on(machines: Any, notes: Path, *, count: int, seconds: float = 0.3) -> RayWorkers:
    setup = NotingSetup(
        space=NANO,
        num_classes=10,
        weights={},
        images=torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
        labels=torch.zeros(1, dtype=torch.int64),
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        device="cpu",
        threads=1,
        notes=notes,
        seconds=seconds,
    )
    return RayWorkers(setup, count=count, cluster=RayCluster(machines.address))


def scores_of(
    workers: RayWorkers, *, after_first: Callable[[], object] = lambda: None
) -> dict[int, Score]:
    """The scores of all candidates, submitted at once; something happens after the first."""
    scores: dict[int, Score] = {}
    try:
        for ticket, candidate in enumerate(CANDIDATES):
            workers.submit(ticket, candidate)
        begin = time.monotonic()
        while len(scores) < len(CANDIDATES):
            assert time.monotonic() - begin < 90, f"only {sorted(scores)} came back"
            if (done := workers.next_score(timeout=0.5)) is not None:
                scores |= [done]
                if len(scores) == 1:
                    after_first()
    finally:
        workers.close()
    return scores


def processes(notes: Path) -> list[int]:
    """Who was asked, in that order."""
    return [int(line) for line in notes.read_text().splitlines()]


def test_what_a_lost_machine_was_at_is_done_by_others(machines: Any, notes: Path) -> None:
    with machine(machines, cpus=1), machine(machines, cpus=1) as lost:
        workers = workers_on(machines, notes, count=2)

        def lose() -> None:
            machines.remove_node(lost, allow_graceful=False)

        assert scores_of(workers, after_first=lose) == EXPECTED


def test_a_machine_that_joins_later_is_used(machines: Any, notes: Path) -> None:
    with machine(machines, cpus=1):
        workers = workers_on(machines, notes, count=2, seconds=2.0)
        joined: list[Any] = []

        def join() -> None:
            joined.append(machines.add_node(num_cpus=1, object_store_memory=80 << 20))

        assert scores_of(workers, after_first=join) == EXPECTED
        machines.remove_node(joined[0])
    assert len(set(processes(notes))) == 2


def test_when_all_processes_are_killed_others_take_their_place(machines: Any, notes: Path) -> None:
    with machine(machines, cpus=2):
        workers = workers_on(machines, notes, count=2)

        def kill() -> None:
            for process in set(processes(notes)):
                os.kill(process, signal.SIGKILL)

        assert scores_of(workers, after_first=kill) == EXPECTED


def test_an_evaluation_that_takes_too_long_is_given_to_another(
    machines: Any, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.search.ray_workers, "SHORTEST_LIMIT", 3.0)
    with machine(machines, cpus=2):
        workers = workers_on(machines, notes, count=2)

        def stop() -> None:
            os.kill(processes(notes)[-1], signal.SIGSTOP)

        assert scores_of(workers, after_first=stop) == EXPECTED
