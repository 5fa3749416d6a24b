"""What Ray Train and Ray Tune are asked for; Ray itself is in the tests of whole runs."""

import os
import time
from typing import Any, NoReturn

import pytest

import nas.training.ray_tune
from nas.training.ray_training import Desk
from nas.training.ray_tune import Watch, tune_trainings
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import RayCluster, Resources


def test_a_training_that_saves_nothing_for_too_long_hangs_and_is_told_once_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.training.ray_tune, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(nas.training.ray_tune, "_BETWEEN_LOOKS", 0.0)
    moving, hanging, waiting = range(3)
    saved = {moving: 0, hanging: 0, waiting: 0}
    watch, late, begin = Watch(saved.__getitem__), [], time.monotonic()
    while time.monotonic() - begin < 1.3:
        saved[moving] += 1
        late += watch.hanging([moving, hanging])
        time.sleep(0.02)
    assert late == [hanging, hanging]  # after 0.5 and 1.0 s
    assert watch.hanging([waiting]) == []  # its time begins with its work


class Asked(Exception):
    """What Ray is asked to do."""

    def __init__(self, *parts: Any, run_config: Any, **asked: Any) -> None:
        super().__init__()
        self.restarts = run_config.failure_config.max_failures


def ask(*parts: Any, **asked: Any) -> NoReturn:
    """Stands for a `TorchTrainer` or a `Tuner`."""
    raise Asked(*parts, **asked)


def test_processes_that_train_together_are_given_up_when_they_died_three_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import ray
    import ray.train.torch

    monkeypatch.setattr(os, "environ", dict(os.environ))  # settings of Ray are left in it
    monkeypatch.setattr(ray.train.torch, "TorchTrainer", ask)
    monkeypatch.setattr(ray, "get_runtime_context", lambda: ray)
    monkeypatch.setattr(ray, "current_actor", None, raising=False)
    task: Any = None
    with pytest.raises(Asked) as asked:
        Desk().fit(task, count=2, threads=1, gpus=0.0)
    assert asked.value.restarts == 2  # after the first start


def test_a_training_of_tune_is_given_up_when_its_worker_died_three_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from ray import tune

    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(tune, "Tuner", ask)
    with pytest.raises(Asked) as asked:
        tune_trainings(
            print,
            {},
            count=1,
            workers=1,
            resources=Resources(num_cpus=1, num_gpus=0),
            cluster=RayCluster(),
            stop=StopRequest(),
            last_saved=lambda place: 0,
            missing="",
            on_report=lambda place, report: None,
            on_death=lambda place: None,
        )
    assert asked.value.restarts == 2
