"""Ray Tune: several trainings at a time, each in a worker of its own.

A training keeps what it has learned in files of its own, from which it goes on; Tune keeps nothing.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any

from nas.training.loop import CHECKPOINT_SECONDS
from nas.training.ray_training import ATTEMPTS
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import RayCluster, Resources

logger = logging.getLogger(__name__)

SILENT_SECONDS = 10 * CHECKPOINT_SECONDS
"""After which a training that has saved nothing is taken for one that hangs."""

_BETWEEN_LOOKS = 5.0

_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    # Before it lets us look, Tune would ask the head, for a line that is not printed. One that is
    # lost never answers, and after a minute Ray ends the process without a word.
    "TUNE_STATE_REFRESH_PERIOD": "1e9",
}


def tune_trainings(
    function: Callable[..., None],
    parameters: Mapping[str, Any],
    *,
    count: int,
    workers: int,
    resources: Resources,
    cluster: RayCluster,
    stop: StopRequest,
    last_saved: Callable[[int], int],
    missing: str,
    on_report: Callable[[int, Mapping[str, Any]], None],
    on_death: Callable[[int], None],
) -> None:
    """Let Ray Tune call a function for each training, and end those that hang.

    The function gets the place of its training as `config["place"]`, and the parameters. What it
    reports to Tune has an `error`, which ends this training, and a `problem`, which ends all; where
    there is none they are empty. A training that dies, or hangs for `SILENT_SECONDS`, is tried
    `ATTEMPTS` times.

    Args:
        function: Trains; lives in a worker.
        parameters: Of the function, the same for all.
        count: How many trainings.
        workers: How many at a time.
        resources: What each takes.
        cluster: Where; it was started, and is left in the end.
        stop: Looked at whenever Tune does something.
        last_saved: When a training, by its place, has last written a file, in nanoseconds of its
            disk's clock; 0 if it has none.
        missing: What to say where no training has a worker.
        on_report: Called with the place of a training and what it reports.
        on_death: Called with the place of one whose workers died too often.

    Raises:
        Interrupted: If a stop was requested.
        InputError: If Ray has no room for too long, or a training reports a problem.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    import ray
    from ray import tune

    class NotKept:
        """Tune writes down what it would go on with; we go on from the files of the trainings."""

        def __reduce__(self) -> tuple[Any, ...]:
            return dict, ()

    class Told(NotKept, tune.Callback):
        """Hands on what the workers report."""

        problem = ""
        watch = Watch(last_saved)

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            running = {t.config["place"]: t for t in trials if t.status == "RUNNING"}
            try:
                cluster.look(served=bool(running), missing=missing)
            except InputError as error:
                raise _GivenUp(error) from None
            for place in self.watch.hanging(running):
                logger.warning("training %d hangs; its worker is ended", place)
                ray.kill(running[place].temporary_state.ray_actor)

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **info: Any
        ) -> None:
            self.problem = self.problem or result["problem"]
            on_report(trial.config["place"], result)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            try:
                cluster.await_head()
            except InputError as error:
                raise _GivenUp(error) from None
            on_death(trial.config["place"])

    told = Told()

    class Ended(NotKept, tune.Stopper):
        """Ends everything where a stop was requested or there is a problem."""

        def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
            return bool(result["error"])

        def stop_all(self) -> bool:
            return stop.requested or bool(told.problem)

    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told by us
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(function, **parameters),
                    {"cpu": resources.num_cpus, "gpu": resources.num_gpus},
                ),
                param_space={"place": tune.grid_search(list(range(count)))},
                tune_config=tune.TuneConfig(max_concurrent_trials=workers, reuse_actors=True),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="trainings",
                    verbose=0,
                    callbacks=[told],
                    stop=Ended(),
                    failure_config=tune.FailureConfig(max_failures=ATTEMPTS - 1),
                ),
            ).fit()
    except _GivenUp as given_up:
        raise given_up.error from None
    finally:
        cluster.leave()
    stop.check()
    if told.problem:
        raise InputError(told.problem)


class _GivenUp(BaseException):
    """Ends Tune at once: its own end would wait for the head of a cluster, which may be gone.

    Args:
        error: Why.
    """

    def __init__(self, error: InputError) -> None:
        super().__init__()
        self.error = error


class Watch:
    """Looks for trainings that save nothing any more.

    Args:
        last_saved: When a training, by its place, has last written a file.
    """

    def __init__(self, last_saved: Callable[[int], int]) -> None:
        self._last_saved = last_saved
        self._looked = 0.0
        self._seen: dict[int, tuple[int, float]] = {}

    def hanging(self, at_work: Collection[int]) -> list[int]:
        """Those of the trainings at work that have been silent too long, each told once."""
        now = time.monotonic()
        if now - self._looked < _BETWEEN_LOOKS:
            return []
        self._looked = now
        self._seen = {known: seen for known, seen in self._seen.items() if known in at_work}
        late = []
        for place in at_work:
            saved = self._last_saved(place)
            before, since = self._seen.get(place, (saved, now))
            if saved != before:
                since = now
            elif now - since > SILENT_SECONDS:
                late.append(place)
                since = now
            self._seen[place] = saved, since
        return late
