"""Several runs beside each other: what may be compared, and the numbers of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from nas.objectives.objective import Objective
from nas.report.run_summary import RunSummary
from nas.search.front import anchors, evaluated, hypervolume_trace, judged, pareto_front

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Compared:
    """A run that is compared.

    Attributes:
        name: What it is called here.
        trials: Its table of trials.
        run: What was asked of it.
        settings: Its configuration, as text by the paths of its fields.
    """

    name: str
    trials: pd.DataFrame
    run: RunSummary
    settings: Mapping[str, str]

    @property
    def best(self) -> pd.Series | None:
        """The row of the best architecture, whose `accuracy` is the inherited one."""
        named = anchors(self.trials, self.run.objectives)
        return named[0][1] if named else None


@dataclass(frozen=True, kw_only=True)
class Comparable:
    """Runs whose numbers may be held against each other.

    They have the same data, the same size of images in training and evaluation, and the same size
    at which costs are counted.

    Attributes:
        runs: One or more.
    """

    runs: Sequence[Compared]

    @property
    def title(self) -> str:
        """What they have in common."""
        run = self.runs[0].run
        return f"{run.data} at {run.proxy_size} px, costs at {run.image_size} px"

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What all of them traded off, under the loosest of their limits."""
        searched = [{o.name: o for o in other.run.objectives if o.searched} for other in self.runs]
        common = []
        for name, objective in searched[0].items():
            if all(name in others for others in searched):
                limits = [others[name].limit for others in searched]
                known = [limit for limit in limits if limit is not None]
                loosest = max(known) if len(known) == len(limits) else None
                common.append(replace(objective, limit=loosest))
        return tuple(common)

    @cached_property
    def evaluations(self) -> int:
        """What the run with the fewest evaluations has."""
        return min(len(evaluated(run.trials)) for run in self.runs)

    @cached_property
    def traces(self) -> list[list[float]]:
        """The hypervolume of each run after each evaluation, by inherited accuracies.

        As shares of the same room for all: see `objectives`.
        """
        reachable = {
            name: (0.0, max(run.run.reachable[name][1] for run in self.runs))
            for name in (o.name for o in self.objectives if o.value is not None)
        }
        return [hypervolume_trace(run.trials, self.objectives, reachable) for run in self.runs]

    def rows(self) -> list[dict[str, Any]]:
        """The numbers of each run, by the names of their columns in `runs.csv`."""
        return [
            {
                "run": compared.name,
                "data": compared.run.data,
                "proxy_size": compared.run.proxy_size,
                "image_size": compared.run.image_size,
                "space": compared.run.space,
                "limits": compared.run.budget_text,
                "sampler": compared.run.sampler,
                "seed": compared.run.seed,
                "evaluated": len(trace),
                "hypervolume": trace[-1] if trace else 0.0,
                "equal_evaluations": self.evaluations,
                "hypervolume_at_equal_evaluations": (
                    trace[self.evaluations - 1] if self.evaluations else 0.0
                ),
                "supernet_seconds": compared.run.supernet_seconds,
                "supernet_run": compared.run.supernet_run,
                "search_seconds": compared.run.search_seconds,
                "tryout_seconds": compared.run.tryout_seconds,
                **_of_best(compared),
            }
            for compared, trace in zip(self.runs, self.traces, strict=True)
        ]


def _of_best(compared: Compared) -> dict[str, Any]:
    """The numbers of the best architecture; none where nothing was evaluated."""
    row = compared.best
    if row is None:
        return {}
    accuracies = ["scratch", "tried", "tried_steps", "accuracy"]
    columns = ["hash", *accuracies, *(o.name for o in compared.run.costs)]
    return {f"best_{column}": row[column] for column in columns}


def runs_table(groups: Sequence[Comparable]) -> pd.DataFrame:
    """A row for each run; the first column says in which group it is, from 1."""
    import pandas as pd

    return pd.DataFrame(
        {"group": number, **row}
        for number, group in enumerate(groups, start=1)
        for row in group.rows()
    )


def fronts_table(groups: Sequence[Comparable]) -> pd.DataFrame:
    """The rows of `pareto.csv` of all runs, behind the number of the group and the run's name."""
    import pandas as pd

    tables = []
    for number, group in enumerate(groups, start=1):
        for compared in group.runs:
            front = pareto_front(judged(compared.trials), compared.run.objectives)
            front.insert(0, "run", compared.name)
            front.insert(0, "group", number)
            tables.append(front)
    return pd.concat(tables, ignore_index=True)


def differing(runs: Sequence[Compared]) -> list[tuple[str, list[str]]]:
    """The settings in which runs differ: paths of fields, each with the values of the runs."""
    fields = dict.fromkeys(field for run in runs for field in run.settings)
    values = {field: [run.settings.get(field, "–") for run in runs] for field in fields}
    return [(field, told) for field, told in values.items() if len(set(told)) > 1]
