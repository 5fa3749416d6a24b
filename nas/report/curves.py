"""The figures of what training did: losses, accuracies, and what is mistaken for what."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.report.look import BLUE, GREY, ORANGE, RUN_COLORS, axis, layout
from nas.report.trainings import RetrainedNetwork, Trainings
from nas.training.supernet import WATCHED

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from nas.report.cards import ClassAccuracy

POINTS = 200
"""The most points of a loss that are drawn; each is the mean of the steps around it."""

MOST_WRITTEN = 12
"""Classes up to which the counts stand in the squares of a confusion matrix."""

_NAMED: dict[str, Any] = {
    "showlegend": True,
    "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
    "margin": {"t": 72},
}
"""What a figure has whose names stand above it, in two lines where it is narrow."""


def supernet_figure(trainings: Trainings) -> go.Figure:
    """The losses of the supernet and its teacher, and the accuracies that were seen on the way."""
    figure = _panels("loss", "accuracy (%)")
    for part, color in (("teacher", GREY), ("supernet", BLUE)):
        points = [point for point in trainings.supernet if point.part == part]
        _loss(figure, [p.step for p in points], [p.loss for p in points], f"loss, {part}", color)
    for place, (role, color) in enumerate(zip(WATCHED, RUN_COLORS[1:], strict=False)):
        seen = [
            (point.step, accuracy)
            for point in trainings.supernet
            if (accuracy := point.accuracies[place]) is not None
        ]
        _accuracy(figure, seen, f"{role} subnet", color)
    return figure


def rungs_figure(trainings: Trainings, trials: pd.DataFrame) -> go.Figure:
    """The accuracies of the short list, from what was inherited to the last rung of each."""
    import plotly.graph_objects as go

    evaluated = trials[trials["accuracy"].notna()].drop_duplicates("hash")
    rows = {row["hash"]: row for row in evaluated.to_dict("records")}
    figure = go.Figure()
    listed = [(hash, seen) for hash, seen in trainings.rungs.items() if seen and hash in rows]
    listed.sort(key=lambda pair: max(pair[1].items()))
    for place, (hash, seen) in enumerate(listed, start=1):
        steps = [0, *sorted(seen)]
        heights = [rows[hash]["accuracy"], *(seen[step] for step in sorted(seen))]
        trial, last = rows[hash]["number"], place == len(listed)
        figure.add_scatter(
            x=steps,
            y=[100 * height for height in heights],
            mode="lines+markers",
            line={"color": ORANGE if last else BLUE, "width": 2.5 if last else 1.2},
            marker={"size": 8},
            name="the most accurate after the last rung" if last else "the others",
            legendgroup=str(last),
            showlegend=last or place == 1,
            hovertemplate=f"trial {trial}, %{{x:,}} steps alone: %{{y:.1f}} %<extra></extra>",
        )
    figure.update_layout(layout(340), **_NAMED)
    figure.update_xaxes(
        axis("steps of training alone"), rangemode="tozero", tickvals=_rungs(listed)
    )
    figure.update_yaxes(axis("accuracy (%)"))
    return figure


def _rungs(listed: Sequence[tuple[str, Mapping[int, float]]]) -> list[int]:
    """Where the rungs end, as marks of the axis."""
    return sorted({0, *(step for _, seen in listed for step in seen)})


def retrained_figure(retrained: Sequence[RetrainedNetwork]) -> go.Figure:
    """The losses of networks that were trained alone, and accuracies where these were measured."""
    measured = any(point.accuracy is not None for one in retrained for point in one.curve)
    figure = _panels("loss", *(["accuracy, held out (%)"] if measured else []))
    for number, one in enumerate(retrained):
        color, name = RUN_COLORS[number % len(RUN_COLORS)], html.escape(one.name)
        _loss(figure, [p.step for p in one.curve], [p.loss for p in one.curve], name, color)
        seen = [(p.step, p.accuracy) for p in one.curve if p.accuracy is not None]
        _accuracy(figure, seen, name, color, named=False)
    return figure


def confusion_figure(
    classes: Sequence[ClassAccuracy], taken: Sequence[str], counts: Sequence[Sequence[int]]
) -> go.Figure:
    """What the images of each class were taken for, as shares of the class.

    Args:
        classes: Of the rows.
        taken: Names of the classes of the columns.
        counts: Images of each (rows) that were taken for each (columns).
    """
    import plotly.graph_objects as go

    names = [html.escape(known.name) for known in classes]
    columns = [html.escape(name) for name in taken]
    shares = [
        [100 * count / known.images if known.images else 0.0 for count in row]
        for known, row in zip(classes, counts, strict=True)
    ]
    written = {"texttemplate": "%{text}"} if len(names) <= MOST_WRITTEN else {}
    figure = go.Figure(
        go.Heatmap(
            x=list(range(len(columns))),
            y=list(range(len(names))),
            z=shares,
            text=counts,
            customdata=[[f"{true}, taken for {taken}" for taken in columns] for true in names],
            zmin=0,
            zmax=100,
            colorscale=[(0, "#FFFFFF"), (0.02, "#DCEBF5"), (1, BLUE)],
            colorbar={"title": {"text": "%"}, "thickness": 12},
            xgap=1,
            ygap=1,
            hovertemplate="%{customdata}: %{text} (%{z:.1f} %)<extra></extra>",
            **written,
        )
    )
    figure.update_layout(layout(max(360, min(900, 140 + 26 * len(names)))), margin={"t": 36})
    across, down = _ticks(columns), _ticks(names)
    upright = max(map(len, across["ticktext"])) > 2
    figure.update_xaxes({**axis("taken for"), **across}, tickangle=-90 if upright else 0)
    figure.update_yaxes({**axis("true class"), **down}, autorange="reversed")
    return figure


def _ticks(names: Sequence[str]) -> dict[str, Any]:
    """Of an axis that has a name, cut short, at each place from 0 on."""
    short = [name if len(name) <= 14 else f"{name[:13]}…" for name in names]
    return {"tickvals": list(range(len(names))), "ticktext": short, "gridcolor": "#FFFFFF"}


def _panels(*titles: str) -> go.Figure:
    """A figure with a panel for each, one below the other, that share the axis of steps."""
    from plotly.subplots import make_subplots

    figure = make_subplots(rows=len(titles), shared_xaxes=True, vertical_spacing=0.06)
    figure.update_layout(layout(120 + 240 * len(titles)), **_NAMED)
    for row, title in enumerate(titles, start=1):
        figure.update_xaxes(axis("step" if row == len(titles) else ""), rangemode="tozero", row=row)
        figure.update_yaxes(axis(title), row=row)
    return figure


def _loss(
    figure: go.Figure, steps: Sequence[int], losses: Sequence[float], name: str, color: str
) -> None:
    """Draw a loss as the means of as many steps as leave `POINTS` points."""
    if not steps:
        return
    width = math.ceil(len(steps) / POINTS)
    parts = [slice(start, start + width) for start in range(0, len(steps), width)]
    x = [steps[part][-1] for part in parts]
    y = [sum(losses[part]) / len(losses[part]) for part in parts]
    of = f", mean of {width} steps" if width > 1 else ""
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines" if len(x) > 1 else "markers",
        line={"color": color, "width": 1.8},
        name=name,
        hovertemplate=f"{name}: %{{y:.3f}} at step %{{x:,}}{of}<extra></extra>",
        row=1,
        col=1,
    )


def _accuracy(
    figure: go.Figure,
    seen: Sequence[tuple[int, float]],
    name: str,
    color: str,
    *,
    named: bool = True,
) -> None:
    """Draw accuracies, 0 to 1, at their steps."""
    if not seen:
        return
    figure.add_scatter(
        x=[step for step, _ in seen],
        y=[100 * accuracy for _, accuracy in seen],
        mode="lines+markers",
        line={"color": color, "width": 1.8},
        marker={"size": 7},
        name=name,
        showlegend=named,
        hovertemplate=f"{name}: %{{y:.1f}} % at step %{{x:,}}<extra></extra>",
        row=2,
        col=1,
    )
