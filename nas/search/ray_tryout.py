"""The tryout on Ray Tune: asynchronous successive halving (ASHA, Li et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from nas.search.trials import Tried
from nas.search.tryout import OnStep, OnTried, Tryout
from nas.training.ray_training import ATTEMPTS
from nas.training.ray_tune import tune_trainings
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import Demand, RayCluster
from search_space import Architecture


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
    _, resources = cluster.start(Demand(count=workers, threads=threads, device=tryout.device))
    if resources.num_gpus:
        tryout = replace(tryout, device="cuda")  # a worker sees its own GPU alone
    from ray.tune.schedulers import ASHAScheduler

    def hand_on(place: int, report: Mapping[str, Any]) -> None:
        on_step(report["trained"])
        if not report["problem"]:
            on_tried(candidates[place], Tried(**report["tried"]))

    def give_up(place: int) -> None:
        error = f"its worker died {ATTEMPTS} times"
        on_tried(candidates[place], Tried(steps=0, error=error))

    milestones = tryout.settings.milestones
    tune_trainings(
        _climb,
        {"tryout": tryout, "candidates": list(candidates)},
        count=len(candidates),
        workers=workers,
        resources=resources,
        cluster=cluster,
        stop=stop,
        last_saved=lambda place: tryout.last_saved(candidates[place]),
        missing="no candidate of the short list has a worker",
        on_report=hand_on,
        on_death=give_up,
        scheduler=ASHAScheduler(
            time_attr="steps",
            metric="accuracy",
            mode="max",
            grace_period=milestones[0],
            max_t=milestones[-1],
            reduction_factor=tryout.settings.reduction,
        ),
    )


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
        tune.report(report | {"accuracy": tried.accuracy or 0.0, "tried": asdict(tried)})
        if tried.error:
            return
        trained = 0
