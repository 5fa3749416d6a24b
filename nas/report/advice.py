"""What to do next: what was seen in a run, each with the command that acts on it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nas.objectives.objective import MACS
from nas.report.run_summary import RunSummary
from nas.search.front import best, hypervolume_trace, judged, ranked_front
from nas.utilities.commands import typed
from nas.utilities.units import accuracy_error

if TYPE_CHECKING:
    import pandas as pd

AT_THE_LIMIT = 0.97
"""Share of a limit from which on an architecture stands at it."""

FAR_BELOW = 0.5
"""Share of the budget up to which an architecture leaves most of it unused."""

LAST_PART = 0.2
"""Share of the evaluations, the last ones, in which a search should have found little."""

RISING = 0.02
"""By how much, relative to what it was, the hypervolume may rise in that part."""

LEAST_EVALUATIONS = 20
"""With fewer the hypervolume rises by chance."""


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do and why, in a phrase, and the command that does it."""

    why: str
    command: str


def advice(folder: Path, trials: pd.DataFrame, run: RunSummary) -> list[Advice]:
    """What to do after a search, what was seen in it first; nothing if nothing was evaluated.

    Args:
        folder: Of the run.
        trials: All that were decided.
        run: What was asked.
    """
    chosen = judged(trials)
    if chosen.empty:
        return []
    if run.warning(trials):
        seen = [learn_more(run)]
    else:
        winner = best(chosen, run.objectives)
        trace = hypervolume_trace(trials, run.objectives, run.reachable)
        seen = [raise_limit(winner, run), use_budget(chosen, run), search_on(trace, run)]
    spec = folder / "best" / "architecture.json"
    return [
        *(step for step in seen if step is not None),
        export_retrained(folder) or retrain(chosen, run, folder, told=not run.warning(trials)),
        Advice(why="look at the best one, block by block", command=typed("describe", spec)),
        Advice(why="redraw this report", command=typed("plot", folder)),
    ]


def learn_more(run: RunSummary) -> Advice | None:
    """Train the supernet longer, where accuracies are near chance.

    Nothing where another run trained it.
    """
    if run.supernet_run:
        return None
    return Advice(
        why="train the supernet four times as long",
        command=changed_command(run, {"steps": 4 * run.supernet_steps}),
    )


def raise_limit(winner: pd.Series, run: RunSummary) -> Advice | None:
    """Raise a limit that the best architecture stands at, where the space has larger ones."""
    for objective in run.costs:
        if objective.limit is None or objective.device is not None:
            continue
        most = run.reachable[objective.name][1]
        if AT_THE_LIMIT * objective.limit <= winner[objective.name] and objective.limit < most:
            larger = objective.amount(min(1.5 * objective.limit, most)).replace(" ", "")
            return Advice(
                why=f"the best stands at the limit of {objective.named_amount(objective.limit)}, "
                "where the front ends; see what a larger one gives",
                command=changed_command(run, {objective.field: larger}),
            )
    return None


def use_budget(chosen: pd.DataFrame, run: RunSummary) -> Advice | None:
    """Train the supernet longer, where larger architectures were no more accurate.

    Nothing without a limit on MACs, or where another run trained the supernet.

    Args:
        chosen: What is judged, at least one trial.
        run: What was asked.
    """
    limit = run.limits.get(MACS.name)
    needed = float(best(chosen, run.objectives)[MACS.name])
    if limit is None or run.supernet_run or chosen[MACS.name].max() <= needed:
        return None
    budget = min(limit, run.reachable[MACS.name][1])
    if needed > FAR_BELOW * budget:
        return None
    return Advice(
        why=f"the best needs {MACS.amount(needed)} of {MACS.amount(budget)}, and larger ones "
        "stood no higher; a smaller budget would do, or the supernet needs a longer training",
        command=changed_command(run, {"steps": 2 * run.supernet_steps}),
    )


def search_on(trace: Sequence[float], run: RunSummary) -> Advice | None:
    """Evaluate more, where the search was still finding better architectures.

    Nothing where it ended before it had evaluated as many as were asked for: it would end again.

    Args:
        trace: The hypervolume after each evaluation.
        run: What was asked.
    """
    count = len(trace)
    if count < run.trials or not LEAST_EVALUATIONS <= count < run.space_size:
        return None
    before = trace[math.ceil((1 - LAST_PART) * count) - 1]
    if trace[-1] <= (1 + RISING) * before:
        return None
    return Advice(
        why=f"the hypervolume still rose in the last fifth of {count} evaluations, from "
        f"{before:.3f} to {trace[-1]:.3f}; let this run go on",
        command=changed_command(run, {"trials": 2 * count}, keeps_folder=True),
    )


def export_retrained(folder: Path) -> Advice | None:
    """Take what was retrained elsewhere, if that was done as it is advised.

    Args:
        folder: Of the run.
    """
    first = folder / "retrain" / "1"
    if not (first / "metrics.json").exists():
        return None
    return Advice(why="write what was retrained for ONNX Runtime", command=typed("export", first))


def retrain(chosen: pd.DataFrame, run: RunSummary, folder: Path, *, told: bool = True) -> Advice:
    """Train the best architectures alone: all of the short list that may be the best.

    For a run from Python it is the call, whose data may be there alone.

    Args:
        chosen: What is judged, at least one trial.
        run: What was asked.
        folder: Of the run.
        told: Whether accuracies tell anything, so that which of them are equal does.
    """
    ranked = ranked_front(chosen, run.objectives)
    why, top = "train the best architectures alone", min(3, len(ranked))
    if run.short_list and told:
        if run.finalists and not math.isnan(ranked["scratch"].iloc[0]):
            accuracies = [float(a) for a in ranked["scratch"].dropna()]
        else:
            accuracies = [float(a) for a in ranked["accuracy"]]
        errors = [accuracy_error(accuracy, run.search_images) for accuracy in accuracies]
        tied = sum(
            accuracies[0] - accuracy <= math.hypot(errors[0], error)
            for accuracy, error in zip(accuracies, errors, strict=True)
        )
        if tied > 1:
            why, top = (
                f"the best {tied} of the front lie within their standard errors; train each alone "
                "for longer",
                tied,
            )
    command = typed("retrain", folder, "--top", str(top))
    if run.command.startswith("nas."):
        data = ", data=..." if "data=" in run.command else ""
        command = f"nas.retrain({str(folder)!r}, top={top}{data})"
    return Advice(why=why, command=command)


def changed_command(
    run: RunSummary, changes: Mapping[str, int | str], *, keeps_folder: bool = False
) -> str:
    """The command of a run with other values of some flags.

    Another configuration needs another folder, so `--out` and `--name` go unless the run keeps its
    own. For a run from Python it is the call, of which only the changes are shown.

    Args:
        run: What was asked.
        changes: The new values, by the names of their fields.
        keeps_folder: Whether the run goes on, in its folder.
    """
    if run.command.startswith("nas."):
        return f"nas.search(..., {', '.join(f'{name}={v!r}' for name, v in changes.items())})"
    gone = {*changes} | (set() if keeps_folder else {"out", "name"})
    gone |= {"epochs"} if "steps" in changes else set()
    command = run.command
    for name in gone:
        command = re.sub(rf" {_flag(name)}[ =](?:'[^']*'|\S)+", "", command)
    return " ".join([command, *(f"{_flag(name)} {value}" for name, value in changes.items())])


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
