"""A rung of the tryout on Ray Tune: several candidates at a time."""

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


def climb_on_ray(
    candidates: Sequence[Architecture],
    rung: int,
    on_tried: OnTried,
    *,
    tryout: Tryout,
    workers: int,
    threads: int,
    cluster: RayCluster,
    stop: StopRequest,
    on_step: OnStep,
) -> None:
    """Let Ray Tune have candidates climb a rung, several at a time.

    Args:
        candidates: See `nas.search.tryout.Climb`; the first are trained first.
        rung: Its number, from 0.
        on_tried: See `OnTried`.
        tryout: Which the candidates have entered. All machines must see its folder.
        workers: How many are trained at a time.
        threads: CPU threads of each training.
        cluster: Where they are trained.
        stop: Looked at whenever Tune does something.
        on_step: See `OnStep`; called when one has come to the end of the rung.

    Raises:
        Interrupted: If a stop was requested; the same call goes on.
        InputError: If Ray has no room, or gives none for too long, or a file of the tryout cannot
            be read.
    """
    climbing = []
    for candidate in candidates:
        done = tryout.done(candidate, rung)
        if done is None:
            climbing.append(candidate)
        else:
            on_tried(candidate, done)
    if not climbing:
        return
    at_once = min(workers, len(climbing))
    _, resources = cluster.start(Demand(count=at_once, threads=threads, device=tryout.device))
    if resources.num_gpus:
        tryout = replace(tryout, device="cuda")  # a worker sees its own GPU alone

    def hand_on(place: int, report: Mapping[str, Any]) -> None:
        if not report["problem"]:
            on_step(report["trained"])
            on_tried(climbing[place], Tried(**report["tried"]))

    def give_up(place: int) -> None:
        error = f"its worker died {ATTEMPTS} times"
        on_tried(climbing[place], Tried(steps=0, error=error))

    tune_trainings(
        _climb,
        {"tryout": tryout, "candidates": climbing, "rung": rung},
        count=len(climbing),
        workers=at_once,
        resources=resources,
        cluster=cluster,
        stop=stop,
        last_saved=lambda place: tryout.last_saved(climbing[place]),
        missing="no candidate of the short list has a worker",
        on_report=hand_on,
        on_death=give_up,
    )


def _climb(
    config: Mapping[str, Any], tryout: Tryout, candidates: Sequence[Architecture], rung: int
) -> None:
    """Train one candidate; lives in a Ray worker."""
    from ray import tune

    trained = 0

    def count(steps: int) -> None:
        nonlocal trained
        trained += steps

    if not tryout.folder.is_dir():
        problem = f"{tryout.folder}: a machine of the cluster does not see it; all must, to train"
        tune.report({"problem": problem, "error": ""})
        return
    candidate = candidates[config["place"]]
    try:
        tried = tryout.climb(candidate, rung, stop=StopRequest(), on_step=count)
    except InputError as error:
        tune.report({"problem": str(error), "error": ""})
        return
    tune.report({"tried": asdict(tried), "trained": trained, "error": tried.error, "problem": ""})
