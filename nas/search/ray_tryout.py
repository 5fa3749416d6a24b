"""The tryout on Ray Tune: asynchronous successive halving (ASHA, Li et al., 2020)."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.search.evaluation import ATTEMPTS
from nas.search.trials import Tried
from nas.search.tryout import OnStep, OnTried, Tryout
from nas.training.loop import CHECKPOINT_SECONDS
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import Demand, RayCluster
from search_space import Architecture

logger = logging.getLogger(__name__)

SILENT_SECONDS = 10 * CHECKPOINT_SECONDS
"""After which a training that has saved nothing is taken for one that hangs."""

_BETWEEN_LOOKS = 5.0

_SETTINGS = {
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # Ctrl-C is ours
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


def halve_on_ray(
    tryout: Tryout,
    candidates: Sequence[Architecture],
    *,
    workers: int,
    threads: int,
    cluster: RayCluster,
    stop: StopRequest,
    on_step: OnStep,
    on_tried: OnTried,
) -> None:
    """Let Ray Tune train the candidates, several at a time.

    A training that dies, or hangs for `SILENT_SECONDS`, is tried `ATTEMPTS` times.

    A candidate goes on to the next rung if it is among the best of those that came to the end of
    this one so far. So which of them are trained how long may depend on the number of workers; what
    a rung gives does not.

    Args:
        tryout: Which the candidates have entered. All machines must see its folder.
        candidates: The first are trained first.
        workers: How many are trained at a time.
        threads: CPU threads of each training.
        cluster: Where they are trained.
        stop: Looked at whenever Tune does something.
        on_step: See `OnStep`; called after every rung.
        on_tried: See `OnTried`.

    Raises:
        Interrupted: If a stop was requested; the same call goes on.
        InputError: If Ray has no room, or gives none for too long, or a file of the tryout cannot
            be read.
    """
    for name, value in _SETTINGS.items():
        os.environ.setdefault(name, value)
    ray, resources = cluster.start(Demand(count=workers, threads=threads, device=tryout.device))
    if resources.num_gpus:
        tryout = replace(tryout, device="cuda")  # a worker sees its own GPU alone
    from ray import tune

    class NotKept:
        """Tune writes down what it would go on with; we go on from the files of the tryout."""

        def __reduce__(self) -> tuple[Any, ...]:
            return dict, ()

    class Told(NotKept, tune.Callback):
        """Hands on what the workers report."""

        problem = ""
        watch = _Watch(tryout)

        def on_step_begin(self, iteration: int, trials: Any, **info: Any) -> None:
            running = [trial for trial in trials if trial.status == "RUNNING"]
            missing = "no candidate of the short list has a worker"
            try:
                cluster.look(served=bool(running), missing=missing)
            except InputError as error:
                raise _GivenUp(error) from None
            at_work = {candidates[trial.config["place"]]: trial for trial in running}
            for candidate in self.watch.hanging(at_work):
                logger.warning("the training of %s hangs; its worker is ended", candidate.hash)
                ray.kill(at_work[candidate].temporary_state.ray_actor)

        def on_trial_result(
            self, iteration: int, trials: Any, trial: Any, result: Mapping[str, Any], **info: Any
        ) -> None:
            candidate = candidates[trial.config["place"]]
            self.problem = self.problem or result["problem"]
            on_step(result["trained"])
            if not result["problem"]:
                tried = Tried(
                    steps=result["steps"],
                    accuracy=None if result["error"] else result["accuracy"],
                    error=result["error"],
                )
                on_tried(candidate, tried)

        def on_trial_error(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            error = f"its worker died {ATTEMPTS} times"
            on_tried(candidates[trial.config["place"]], Tried(steps=0, error=error))

    told = Told()

    class Ended(NotKept, tune.Stopper):
        """Ends everything where a stop was requested or a file is damaged."""

        def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
            return bool(result["error"])

        def stop_all(self) -> bool:
            return stop.requested or bool(told.problem)

    milestones = tryout.settings.milestones
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what fails is told by us
    try:
        with tempfile.TemporaryDirectory() as scratch:
            tune.Tuner(
                tune.with_resources(
                    tune.with_parameters(_climb, tryout=tryout, candidates=list(candidates)),
                    {"cpu": resources.num_cpus, "gpu": resources.num_gpus},
                ),
                param_space={"place": tune.grid_search(list(range(len(candidates))))},
                tune_config=tune.TuneConfig(
                    metric="accuracy",
                    mode="max",
                    scheduler=tune.schedulers.ASHAScheduler(
                        time_attr="steps",
                        grace_period=milestones[0],
                        max_t=milestones[-1],
                        reduction_factor=tryout.settings.reduction,
                    ),
                    max_concurrent_trials=workers,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    storage_path=scratch,
                    name="tryout",
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


class _Watch:
    """Looks for trainings that save nothing any more."""

    def __init__(self, tryout: Tryout) -> None:
        self._tryout = tryout
        self._looked = 0.0
        self._seen: dict[Architecture, tuple[int, float]] = {}

    def hanging(self, at_work: Collection[Architecture]) -> list[Architecture]:
        """Those of the candidates at work that have been silent too long, each told once."""
        now = time.monotonic()
        if now - self._looked < _BETWEEN_LOOKS:
            return []
        self._looked = now
        self._seen = {known: seen for known, seen in self._seen.items() if known in at_work}
        late = []
        for candidate in at_work:
            saved = self._tryout.last_saved(candidate)
            before, since = self._seen.get(candidate, (saved, now))
            if saved != before:
                since = now
            elif now - since > SILENT_SECONDS:
                late.append(candidate)
                since = now
            self._seen[candidate] = saved, since
        return late


def _climb(config: Mapping[str, Any], tryout: Tryout, candidates: Sequence[Architecture]) -> None:
    """Train one candidate until Tune stops it; lives in a Ray worker."""
    from ray import tune

    candidate, trained = candidates[config["place"]], 0

    def count(steps: int) -> None:
        nonlocal trained
        trained += steps

    for rung in range(tryout.settings.rungs):
        report: dict[str, Any] = {"accuracy": 0.0, "error": "", "problem": ""}
        report["steps"] = tryout.settings.milestones[rung]
        if not tryout.folder.is_dir():
            told = f"{tryout.folder}: a machine of the cluster does not see it; all must, to train"
            tune.report({**report, "problem": told, "trained": 0})
            return
        try:
            tried = tryout.climb(candidate, rung, stop=StopRequest(), on_step=count)
        except InputError as error:
            tune.report({**report, "problem": str(error), "trained": 0})
            return
        report |= {"steps": tried.steps or 1, "error": tried.error, "trained": trained}
        tune.report(report | {"accuracy": tried.accuracy or 0.0})
        if tried.error:
            return
        trained = 0
