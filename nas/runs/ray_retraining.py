"""Retraining on Ray Tune: several networks at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from nas.runs.one_retraining import Retrained, Retraining
from nas.training.ray_training import ATTEMPTS
from nas.training.ray_tune import tune_trainings
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import Demand, RayCluster

_BETWEEN_REPORTS = 2.0
"""Seconds between two words of a training on how far it is."""


def retrain_on_ray(
    retrainings: Sequence[Retraining],
    *,
    demand: Demand,
    stored_bytes: int,
    cluster: RayCluster,
    stop: StopRequest,
    on_step: Callable[[int, int, float], None],
    on_end: Callable[[int, Retrained | InputError], None],
) -> None:
    """Let Ray Tune do retrainings, several at a time; each gives what it would give alone.

    Args:
        retrainings: The first are begun first. All machines must see their folders.
        demand: How many at a time, and what each takes.
        stored_bytes: Of what they share.
        cluster: Where they are done.
        stop: Looked at whenever Tune does something.
        on_step: Called every few seconds with the place of a retraining, the steps that it has
            done, and the loss of the last.
        on_end: Called with the place of one that has come to its end and its result, or with what
            it failed by.

    Raises:
        Interrupted: If a stop was requested; the same call goes on from the last saved states.
        InputError: If Ray has no room, or gives none for too long, or a machine does not see the
            folders.
    """
    _, resources = cluster.start(demand, stored_bytes=stored_bytes)
    retrainings = [
        replace(job, source=job.source.resolve(), target=job.target.resolve())
        for job in retrainings
    ]

    def hand_on(place: int, report: Mapping[str, Any]) -> None:
        if report["error"]:
            on_end(place, InputError(report["error"]))
        elif report["result"]:
            on_end(place, report["result"])
        elif not report["problem"]:
            on_step(place, report["step"], report["loss"])

    tune_trainings(
        _retrain,
        {"retrainings": retrainings},
        count=len(retrainings),
        workers=demand.count,
        resources=resources,
        cluster=cluster,
        stop=stop,
        last_saved=lambda place: retrainings[place].last_saved(),
        missing="no network has a worker",
        on_report=hand_on,
        on_death=lambda place: on_end(place, InputError(f"its worker died {ATTEMPTS} times")),
    )


def _retrain(config: Mapping[str, Any], retrainings: Sequence[Retraining]) -> None:
    """Do one of the retrainings; lives in a Ray worker."""
    from ray import tune

    job, told = retrainings[config["place"]], time.monotonic()
    nothing: dict[str, Any] = {"step": 0, "loss": 0.0, "result": None, "error": "", "problem": ""}

    def tell(step: int, loss: float) -> None:
        nonlocal told
        if time.monotonic() - told > _BETWEEN_REPORTS:
            told = time.monotonic()
            tune.report({**nothing, "step": step, "loss": loss})

    if not job.source.is_dir():
        problem = f"{job.source}: a machine of the cluster does not see it; all must, to train"
        tune.report({**nothing, "problem": problem})
        return
    try:
        # A worker may have died between the end of its work and its report.
        result = job.known() or job.run(stop=StopRequest(), on_step=tell)
        tune.report({**nothing, "result": result})
    except InputError as error:
        tune.report({**nothing, "error": str(error)})
