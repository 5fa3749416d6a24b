"""The summary that the terminal shows at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import zip_longest
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from nas.objectives.objective import LatencyColumns
from nas.report.run_summary import RunSummary, count_text, spread_text, value_text
from nas.search.front import anchors

if TYPE_CHECKING:
    import pandas as pd


def summary_table(trials: pd.DataFrame, run: RunSummary) -> Table:
    """The best architecture beside the smallest and the largest evaluated, 100 columns at most.

    Costs are at the run's image size, accuracies on its search split; the caption says so. Without
    an evaluated trial, the table says so and the caption counts what happened.
    """
    compared = anchors(trials, run.objectives)
    table = Table(
        title=Text(f"{run.data}, space {run.space}, budget {run.budget_text}", "table.title"),
        caption=Text("\n").join(_caption(trials, run)),
        caption_justify="left",
        box=SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
    )
    if not compared:
        table.add_column("no architecture was evaluated", min_width=60)
        return table
    table.add_column("", max_width=18)
    for name, _ in compared:
        style = "bold" if "best" in name else ""
        table.add_column(name, overflow="fold", max_width=24, style=style)
    for label, show in _rows(run).items():
        table.add_row(Text(label), *(Text(show(row)) for _, row in compared))
    table.add_section()
    stages = [str(row["summary"]).split(" | ") for _, row in compared]
    for number, row in enumerate(zip_longest(*stages, fillvalue=""), start=1):
        table.add_row(f"stage {number}", *map(Text, row))
    return table


def _rows(run: RunSummary) -> dict[str, Callable[[pd.Series], str]]:
    """What is told of each architecture: a label, and how to read it off a trial."""
    rows: dict[str, Callable[[pd.Series], str]] = {"trial": lambda row: str(row["number"])}
    for label in run.accuracy_labels:
        title = label if label == "steps alone" else f"{label} at {run.proxy_size} px"
        rows[title] = partial(_accuracy, run, label)
    for objective in run.costs:
        if objective.device is None:
            title = objective.title(run.image_size)
            rows[title] = partial(value_text, objective=objective)
        else:
            columns = LatencyColumns(objective.device)
            rows[f"ms on {columns.device}"] = partial(_measured, columns)
            rows[f"  predicted, {columns.device}"] = partial(_predicted, columns)
    return rows


def _accuracy(run: RunSummary, label: str, row: pd.Series) -> str:
    return run.accuracies(row)[label]


def _predicted(columns: LatencyColumns, row: pd.Series) -> str:
    return f"{row[columns.predicted]:.2f}"


def _measured(columns: LatencyColumns, row: pd.Series) -> str:
    if math.isnan(row[columns.measured]):
        return "not measured"
    return f"{row[columns.measured]:.2f} ({spread_text(row, columns)})"


def _caption(trials: pd.DataFrame, run: RunSummary) -> list[Text]:
    """How the numbers were measured and how many trials there were, in lines."""
    accuracy = f"{run.accuracy_text}; ± is one standard error"
    cost = f"{run.cost_text}; smallest and largest are of those evaluated"
    errors = [f"latency on {d}: {x.conditions}; {x.error}" for d, x in run.latency.items()]
    ranking = [text] if (text := run.ranking_text(trials)) else []
    lines = [accuracy, *ranking, cost, *errors, f"trials: {count_text(trials)}"]
    warning = run.warning(trials)
    return [
        *([Text(warning, "bold red")] if warning else []),
        *(Text(line, "table.caption") for line in lines),
    ]
