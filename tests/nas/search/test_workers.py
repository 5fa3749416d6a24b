import math
import os
import random
import signal
import sys
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import NANO, Fork, start, wait_for

import nas.search.ray_workers
import nas.utilities.ray_cluster
from nas.data import load_data, materialise
from nas.search.evaluation import ATTEMPTS, EvaluationSetup, Score, evaluate
from nas.search.ray_tryout import climb_on_ray
from nas.search.ray_workers import RayWorkers
from nas.search.settings import DEFAULT_TRYOUT
from nas.search.workers import InProcess, Workers
from nas.training.accuracy import Fit, SubnetEvaluator
from nas.training.ray_training import train_on_ray
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from nas.utilities.ray_cluster import Demand, RayCluster, Resources
from search_space import Architecture
from supernet import Store

CLUSTER = """
import sys, ray
context = ray.init(num_cpus=3, num_gpus=2, include_dashboard=False, object_store_memory=100 << 20,
                   log_to_driver=False, logging_level="ERROR", _temp_dir=sys.argv[1])
print("address", context.address_info["gcs_address"], flush=True)
sys.stdin.read()
"""

WITHOUT_RAY = """
import sys
import nas.cli, nas.runs.retraining, nas.runs.pipeline
sys.path[:0] = ["tests/nas", "tests/nas/search"]
from test_workers import CANDIDATES, small_setup
from nas.search.workers import InProcess
workers = InProcess(small_setup())
workers.submit(3, CANDIDATES[0])
ticket, score = workers.next_score(timeout=0.0)
assert ticket == 3 and score.accuracy is not None
print("ray" in sys.modules)
"""

*CANDIDATES, DEADLY = random.Random(0).sample(list(NANO.enumerate()), 7)


def small_setup(**changes: Any) -> EvaluationSetup:
    data = load_data("digits", image_size=32, seed=0)
    images, labels = materialise(data.search, limit=60, seed=0)
    store = Store(NANO, num_classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    for tensor in store.parameters.values():
        if tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    values: dict[str, Any] = {
        "space": NANO,
        "num_classes": 10,
        "weights": store.state_dict(),
        "images": images,
        "labels": labels,
        "mean": data.mean,
        "std": data.std,
        "device": "cpu",
        "threads": 1,
    }
    return EvaluationSetup(**values | changes)


def score_all(workers: Workers, candidates: list[Architecture]) -> dict[int, Score]:
    """The scores by ticket, from as many evaluations at once as the workers take."""
    waiting = list(enumerate(candidates, start=100))
    scores: dict[int, Score] = {}
    under_way = 0
    begin = time.monotonic()
    while waiting or under_way:
        while waiting and under_way < workers.capacity:
            workers.submit(*waiting.pop())
            under_way += 1
        assert time.monotonic() - begin < 300, f"{under_way} evaluations never came back"
        if (done := workers.next_score(timeout=5.0)) is not None:
            ticket, score = done
            assert ticket not in scores
            scores[ticket] = score
            under_way -= 1
    return scores


@pytest.fixture(scope="module")
def expected() -> dict[int, Score]:
    """The scores of the candidates, evaluated in this process."""
    scores = score_all(InProcess(small_setup()), CANDIDATES)
    assert len({score.accuracy for score in scores.values()}) > 3  # else equality says nothing
    return scores


def test_in_process_gives_the_score_of_a_subnet_of_the_same_weights(
    expected: dict[int, Score],
) -> None:
    setup = small_setup()
    store = Store(NANO, num_classes=10, weights=setup.weights)
    direct = SubnetEvaluator(
        store, setup.images, setup.labels, mean=setup.mean, std=setup.std, threads=1
    )
    for ticket, candidate in enumerate(CANDIDATES, start=100):
        assert expected[ticket] == Score(**direct.fit(candidate)._asdict())


class Flaky(SubnetEvaluator):
    """Fails so many times, then knows the answer."""

    def __init__(self, failures: int) -> None:
        self.failures, self.calls = failures, 0

    def fit(self, architecture: Architecture) -> Fit:
        self.calls += 1
        if self.calls <= self.failures:
            raise RuntimeError("out of memory")
        return Fit(accuracy=0.25, loss=1.5)


def test_an_evaluation_that_fails_is_tried_again() -> None:
    flaky = Flaky(failures=ATTEMPTS - 1)
    assert evaluate(flaky, CANDIDATES[0]) == Score(accuracy=0.25, loss=1.5)


def test_an_evaluation_that_keeps_failing_becomes_its_traceback() -> None:
    flaky = Flaky(failures=10**9)
    score = evaluate(flaky, CANDIDATES[0])
    assert score.accuracy is None
    assert score.error.startswith("Traceback")
    assert "RuntimeError: out of memory" in score.error
    assert flaky.calls == ATTEMPTS


def test_ctrl_c_is_no_failed_evaluation() -> None:
    class Interrupting(SubnetEvaluator):
        def __init__(self) -> None: ...

        def fit(self, architecture: Architecture) -> Fit:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(Interrupting(), CANDIDATES[0])


class Raising(SubnetEvaluator):
    """Raises the same in every evaluation."""

    def __init__(self, error: BaseException) -> None:
        self.error, self.calls = error, 0

    def fit(self, architecture: Architecture) -> Fit:
        self.calls += 1
        raise self.error


def test_a_stop_is_no_failed_evaluation() -> None:
    with pytest.raises(Interrupted):
        evaluate(Raising(Interrupted()), CANDIDATES[0])


def test_an_evaluation_that_leaves_the_program_has_failed() -> None:
    score = evaluate(Raising(SystemExit(3)), CANDIDATES[0])
    assert score.accuracy is None
    assert score.error.endswith("SystemExit: 3\n")


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_memory_that_stays_short_is_waited_for_neither_long_nor_for_ever(
    error: Exception,
) -> None:
    short = Raising(error)
    begin = time.monotonic()
    assert type(error).__name__ in evaluate(short, CANDIDATES[0]).error
    assert short.calls == ATTEMPTS
    assert time.monotonic() - begin < 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_class_scores_that_are_no_numbers_are_a_failed_evaluation_told_in_one_line(
    value: float,
) -> None:
    setup = small_setup()
    setup.weights["head.bias"][0] = value
    workers = InProcess(setup)
    workers.submit(1, CANDIDATES[0])
    assert workers.next_score(timeout=0.0) == (
        1,
        Score(error="class scores of the network are infinite or not a number"),
    )


@pytest.mark.slow
def test_evaluating_in_process_does_not_import_ray() -> None:
    done = Fork("-c", WITHOUT_RAY).finish()
    assert done.status == 0, done.err
    assert done.out.strip() == "False"


# --- Ray: one cluster for the file ---------------------------------------------------------------


@pytest.fixture(scope="module", autouse=True)
def _no_tokens() -> Iterator[None]:
    """Ray asks for a token or not, depending on what else was run on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        yield


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a small Ray cluster that is not ours."""
    # Ray's sockets need a short path.
    folder = Path("/tmp") / f"ray-{os.getpid()}"
    process = start("-c", CLUSTER, folder)
    assert process.stdout is not None
    try:
        yield wait_for("address", process.stdout).split()[-1]
    finally:
        process.communicate("")


@pytest.fixture(scope="module")
def joined(cluster: str) -> RayCluster:
    """That cluster, which each step joins again; only the first has to see whether it can."""
    return RayCluster(cluster)


@dataclass(frozen=True, kw_only=True)
class DeadlySetup(EvaluationSetup):
    """Asks for GPUs and evaluates without; kills its process for some, so many times each."""

    deaths: dict[str, int]
    folder: str

    def evaluator(self) -> SubnetEvaluator:
        evaluator = EvaluationSetup.evaluator(replace(self, device="cpu"))
        honest = evaluator.fit

        def deadly(architecture: Architecture) -> Fit:
            notes = Path(self.folder) / architecture.hash
            died = len(notes.read_text()) if notes.exists() else 0
            if died < self.deaths.get(architecture.hash, 0):
                notes.write_text("x" * (died + 1))
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does for want of memory
            return honest(architecture)

        evaluator.fit = deadly  # type: ignore[method-assign]
        return evaluator


@pytest.mark.slow
@pytest.mark.exhaustive
def test_three_workers_on_two_gpus_are_rebuilt_when_they_die_and_give_the_same_scores(
    joined: RayCluster,
    tmp_path: Path,
    expected: dict[int, Score],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray

    attempts = 2  # a new process takes seconds
    monkeypatch.setattr(nas.search.ray_workers, "ATTEMPTS", attempts)

    # The cluster's processes cannot import this file.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    deaths = {CANDIDATES[1].hash: 1, DEADLY.hash: 10**9}
    plain = small_setup(device="cuda")
    setup = DeadlySetup(**vars(plain), deaths=deaths, folder=str(tmp_path))
    workers = RayWorkers(setup, count=3, cluster=joined)  # on two GPUs
    try:
        scores = score_all(workers, [*CANDIDATES, DEADLY])
    finally:
        workers.close()
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    failed = scores.pop(100 + len(CANDIDATES))
    assert failed.accuracy is None
    assert f"{attempts} workers were lost" in failed.error
    assert len((tmp_path / DEADLY.hash).read_text()) == attempts
    assert scores == expected


class DyingActor:
    """Stands for a worker that starts, and dies of every evaluation."""

    class __ray_ready__:
        remote = staticmethod(lambda: ("ready", object()))

    class evaluate:
        remote = staticmethod(lambda architecture: ("evaluated", object()))


class DyingRay:
    """Stands for Ray and for the cluster, whose workers are `DyingActor`s."""

    class exceptions:
        class RayError(Exception):
            pass

    def __init__(self) -> None:
        self.killed = 0

    def start(self, demand: Demand, **bytes: int) -> tuple[Any, Resources]:
        return self, Resources(num_cpus=1, num_gpus=0)

    def look(self, **served: object) -> None: ...

    def put(self, value: object) -> None: ...

    def remote(self, **asked: object) -> Any:
        return lambda cls: Namespace(remote=lambda *setup: DyingActor)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return references[:1], references[1:]

    def get(self, reference: tuple[str, object]) -> None:
        if reference[0] == "evaluated":
            raise self.exceptions.RayError("killed")

    def kill(self, actor: object) -> None:
        self.killed += 1


def test_an_evaluation_that_kills_three_workers_is_given_up() -> None:
    ray: Any = DyingRay()
    workers = RayWorkers(small_setup(), count=1, cluster=ray)
    workers.submit(7, DEADLY)
    looks = (workers.next_score(timeout=0.0) for _ in range(100))
    ticket, score = next(look for look in looks if look is not None)
    assert (ticket, score.accuracy) == (7, None)
    assert score.error.startswith("3 workers were lost with it: it died (")
    assert ray.killed == 3


@pytest.mark.slow
def test_workers_that_no_machine_has_room_for_are_refused(joined: RayCluster) -> None:
    with pytest.raises(InputError, match=r"`workers` 2: each takes 4 CPUs of one .* has 3 CPUs"):
        RayWorkers(small_setup(threads=4), count=2, cluster=joined)


@pytest.mark.slow
def test_a_cluster_is_checked_before_anything_is_trained_for_it(cluster: str) -> None:
    told: list[str] = []
    joined = RayCluster(cluster, tell=told.append)
    evaluate = Demand(count=5, threads=1, device="cpu")
    train = Demand(flag="train_workers", count=4, threads=1, device="cpu", together=True)
    joined.check([evaluate, replace(train, count=3)])  # of the workers, two would come later
    with pytest.raises(InputError, match=r"`train_workers` 4: .* has 3 CPUs .*, room for 3$"):
        joined.check([evaluate, train])
    joined.check([replace(evaluate, device="cuda")])  # it pretends to have two GPUs
    assert told == [f"Ray: joined {cluster}, 3 CPUs and 2 GPUs"]


@pytest.mark.slow
def test_processes_that_train_do_not_share_a_gpu(joined: RayCluster) -> None:
    demand = Demand(flag="train_workers", count=3, threads=1, device="cuda", together=True)
    with pytest.raises(InputError, match=r"`train_workers` 3: .* 2 GPUs, room for 2$"):
        joined.start(demand)
    ray, resources = joined.start(replace(demand, count=2))
    ray.shutdown()
    assert resources.num_gpus == 1


@pytest.mark.slow
def test_without_an_address_a_worker_here_gives_the_same_scores_whatever_the_environment_names(
    cluster: str, monkeypatch: pytest.MonkeyPatch, expected: dict[int, Score]
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    with RayCluster() as here:
        workers = RayWorkers(small_setup(), count=1, cluster=here)
        try:
            assert workers.capacity == 1
            assert score_all(workers, CANDIDATES) == expected
        finally:
            workers.close()


class Hog:
    """Takes what a cluster has."""

    def ready(self) -> None: ...


@pytest.fixture
def busy(cluster: str) -> Iterator[RayCluster]:
    """A cluster whose CPUs are taken by someone else, and that is not waited for for long."""
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.init(cluster, namespace="others", log_to_driver=False)
    hog = ray.remote(num_cpus=3)(Hog).options(name="hog", lifetime="detached").remote()
    ray.get(hog.ready.remote())
    ray.shutdown()
    told: list[str] = []
    waited = RayCluster(cluster, wait_seconds=1.0, tell=told.append)
    yield waited
    assert [line for line in told if line.startswith("waiting for Ray: ")], told
    ray.init(cluster, namespace="others", log_to_driver=False)
    ray.kill(ray.get_actor("hog"))
    ray.shutdown()
    ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_busy_cluster_is_waited_for_with_a_word_and_an_end_in_every_step(
    busy: RayCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.utilities.ray_cluster, "_TOLD_AFTER", 0.2)
    given_up = r"^`ray_wait` 1 s: .* \(0 of 3 CPUs .* free\); the same command goes on"
    workers = RayWorkers(small_setup(), count=2, cluster=busy)
    with pytest.raises(InputError, match=given_up):
        score_all(workers, CANDIDATES)
    workers.close()
    never = {"stop": StopRequest(), "cluster": busy}
    listed: Any = Namespace(settings=DEFAULT_TRYOUT, device="cpu", done=lambda *at: None)
    with pytest.raises(InputError, match=given_up):
        climb_on_ray(
            CANDIDATES, 0, print, tryout=listed, workers=2, threads=1, on_step=print, **never
        )
    task = Namespace(state=tmp_path / "state", device="cpu")
    with pytest.raises(InputError, match=given_up):
        train_on_ray(task, count=2, threads=1, on_progress=print, **never)
