"""What befalls the machines and processes of a cluster, on several raylets of this machine."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from ray_clusters import cluster_of_one
from small_runs import NANO

import nas.search.ray_workers
import nas.utilities.ray_cluster
from nas.search.evaluation import EvaluationSetup, Score
from nas.search.ray_workers import RayWorkers
from nas.training.accuracy import Fit, SubnetEvaluator
from nas.utilities.ray_cluster import RayCluster
from search_space import Architecture

pytestmark = pytest.mark.slow

CANDIDATES = list(NANO.enumerate())[:6]


def known_fit(architecture: Architecture) -> Fit:
    """One that differs between architectures."""
    return Fit(
        accuracy=int(architecture.hash, 16) % 1000 / 1000,
        loss=int(architecture.hash, 16) % 777 / 100,
    )


EXPECTED = {n: Score(**known_fit(c)._asdict()) for n, c in enumerate(CANDIDATES)}


class Noting(SubnetEvaluator):
    """Knows the answer after a while, and notes which process was asked."""

    def __init__(self, notes: Path, seconds: float) -> None:
        self.notes, self.seconds = notes, seconds

    def fit(self, architecture: Architecture) -> Fit:
        with self.notes.open("a") as notes:
            notes.write(f"{os.getpid()}\n")
        time.sleep(self.seconds)
        return known_fit(architecture)


@dataclass(frozen=True, kw_only=True)
class NotingSetup(EvaluationSetup):
    """Evaluators that need no supernet."""

    notes: Path
    seconds: float

    def evaluator(self) -> SubnetEvaluator:
        return Noting(self.notes, self.seconds)


@pytest.fixture(scope="module")
def machines() -> Iterator[Any]:
    """A cluster of one machine, which has room for one worker; tests let another join."""
    import ray

    with cluster_of_one() as (cluster, _):
        # Its processes cannot import this file.
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        yield cluster
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("notes") / "notes.txt"


@pytest.fixture(scope="module")
def workers(machines: Any, notes: Path) -> Iterator[RayWorkers]:
    """Two workers on a cluster that has room for one."""
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
        seconds=0.5,
    )
    workers = RayWorkers(setup, count=2, cluster=RayCluster(machines.address))
    yield workers
    workers.close()


def processes(notes: Path) -> list[int]:
    """Who was asked for an evaluation, in that order."""
    return [int(line) for line in notes.read_text().splitlines()] if notes.exists() else []


def scores_with(
    mischief: Callable[[], object], workers: RayWorkers, notes: Path, *, busy: int
) -> dict[int, Score]:
    """The scores of all candidates; something happens while so many processes evaluate."""
    scores: dict[int, Score] = {}
    before = len(processes(notes))
    done = False
    for ticket, candidate in enumerate(CANDIDATES):
        workers.submit(ticket, candidate)
    begin = time.monotonic()
    while len(scores) < len(CANDIDATES):
        assert time.monotonic() - begin < 90, f"only {sorted(scores)} came back"
        if (score := workers.next_score(timeout=0.1)) is not None:
            scores |= [score]
        if not done and len(set(processes(notes)[before:])) >= busy:
            mischief()
            done = True
    assert done
    return scores


def test_when_its_process_is_killed_an_evaluation_is_done_by_another(
    workers: RayWorkers, notes: Path
) -> None:
    def kill() -> None:
        os.kill(processes(notes)[-1], signal.SIGKILL)

    assert scores_with(kill, workers, notes, busy=1) == EXPECTED


def test_an_evaluation_that_gives_no_answer_is_done_by_another(
    workers: RayWorkers, notes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.search.ray_workers, "SHORTEST_LIMIT", 3.0)
    monkeypatch.setattr(nas.search.ray_workers, "TIMES_THE_MEDIAN", 2.0)

    def stop() -> None:
        os.kill(processes(notes)[-1], signal.SIGSTOP)

    assert scores_with(stop, workers, notes, busy=1) == EXPECTED


def test_a_machine_that_joins_is_used_and_when_it_is_lost_others_do_what_it_was_at(
    workers: RayWorkers, notes: Path, machines: Any
) -> None:
    joined = machines.add_node(num_cpus=1, object_store_memory=80 << 20)
    begin, before, under_way = time.monotonic(), len(processes(notes)), 0
    while under_way or len(set(processes(notes)[before:])) < 2:
        assert time.monotonic() - begin < 60, "the machine that joined was given nothing"
        while under_way < 2 and len(set(processes(notes)[before:])) < 2:
            workers.submit(under_way, CANDIDATES[under_way])
            under_way += 1
        under_way -= workers.next_score(timeout=0.5) is not None

    def lose() -> None:
        machines.remove_node(joined, allow_graceful=False)

    assert scores_with(lose, workers, notes, busy=2) == EXPECTED
