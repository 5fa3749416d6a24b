"""The figures of a run: accuracy against cost, hypervolume over evaluations, latency.

Colours are Okabe and Ito's, which colour-blind readers tell apart; shapes differ as well, so the
figures survive a black-and-white print.
"""

from __future__ import annotations

import html
import itertools
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.objectives.objective import ACCURACY, LatencyColumns, Objective
from nas.report.comparison import Comparable
from nas.report.effects import RunEffects, choice_text, gain_text, gene_text
from nas.report.look import BLUE, GREEN, GREY, INK, ORANGE, RUN_COLORS
from nas.report.look import axis as _axis
from nas.report.look import layout as _layout
from nas.report.run_summary import RunSummary, latency_text, percent
from nas.search.effects import NORMAL_95, GeneEffect
from nas.search.front import best, evaluated, hypervolume_trace, judged, pareto_front
from nas.search.trials import UNNAMED_SOURCES
from nas.utilities.units import accuracy_error

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

RUN_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross")
"""Of the runs in a figure of several; they begin anew where there are more."""

PANEL_HEIGHT = 540  # px, of one panel with its strip and the gap to the next
HEAD_HEIGHT, TITLE_LINE = 89, 24  # px, buttons and title, and each line below the title
FOOT_HEIGHT = 115  # px, title of the last axis and legend
GENES_SHOWN = 8
"""In the figure of what choices give, those of the largest leads."""

ROW_HEIGHT = 20  # px, of a choice there

LINE_LETTERS = 44
"""Letters of a line that a window of 400 px has room for."""

LANDMARKS = {"smallest": "triangle-down", "middle": "diamond", "largest": "triangle-up"}
DESIGNS = ("square", "hexagon", "cross", "pentagon", "star-diamond")
"""Symbols around the trials that no sampler proposed: by their names, and of designs by turns."""


@dataclass(frozen=True)
class _Panel:
    """One cost axis: accuracy above, and a strip below for what has a cost but no accuracy.

    `told` are the costs that hovering tells, `images` how many every accuracy is of.
    """

    index: int
    objective: Objective
    title: str
    told: Sequence[Objective]
    images: int
    bottom: float
    top: float

    @property
    def column(self) -> str:
        return self.objective.name

    @property
    def factor(self) -> float:
        return self.objective.factor

    @property
    def limit(self) -> float | None:
        return self.objective.limit

    @property
    def x(self) -> str:
        return "x" if self.index == 1 else f"x{self.index}"

    @property
    def y(self) -> str:
        return "y" if self.index == 1 else f"y{2 * self.index - 1}"

    @property
    def strip(self) -> str:
        return f"y{2 * self.index}"

    @property
    def floor(self) -> float:
        """Where the strip ends and the accuracies begin."""
        return self.bottom + 0.13 * (self.top - self.bottom)


def pareto_figure(
    trials: pd.DataFrame, run: RunSummary, retrained: pd.DataFrame | None = None
) -> go.Figure:
    """Accuracy against each cost that is searched for, in panels one below the other.

    Trials without an accuracy (over a limit, or failed) stand in a strip of their own. The stepped
    line is the best accuracy up to each cost; with three objectives the front also holds trials
    that lie under it, since they win on the other cost. Bars are one standard error up and down.
    Hovering tells what a trial is.

    Args:
        trials: All that were decided.
        run: What was asked.
        retrained: What was retrained, as `nas.report.trainings.retrained_table` has it; a thin line
            joins each to the accuracy that it inherited.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    panels = _panels(run)
    for panel in panels:
        _draw_panel(figure, panel, trials, run)
        if retrained is not None:
            _retrained(figure, panel, retrained)
    lines = [
        *textwrap.wrap(f"space {run.space} · budget {run.budget_text}", LINE_LETTERS),
        f"costs at {run.image_size} px · accuracy at {run.proxy_size} px",
        f"bars: ± one standard error of {run.search_images:,} images",
    ]
    title = (
        f"<b>{html.escape(run.data)}: accuracy against cost</b><br>"
        f"<span style='font-size:13px;color:{GREY}'>{'<br>'.join(map(html.escape, lines))}</span>"
    )
    head, inner = HEAD_HEIGHT + TITLE_LINE * len(lines), PANEL_HEIGHT * len(panels)
    height = head + inner + FOOT_HEIGHT
    figure.update_layout(
        _layout(height),
        title={"text": title, "x": 0, "xanchor": "left", "y": 1 - 48 / height, "yanchor": "top"},
        # Below the last axis: there it may wrap in a narrow window without covering anything.
        legend={"orientation": "h", "x": 0, "y": -76 / inner, "yanchor": "top"},
        margin={"t": head, "b": FOOT_HEIGHT},
    )
    return figure


def hypervolume_figure(trials: pd.DataFrame, run: RunSummary) -> go.Figure:
    """Share of the reachable volume that the front covers, after each evaluation."""
    import plotly.graph_objects as go

    trace = hypervolume_trace(trials, run.objectives, run.reachable)
    figure = go.Figure(
        go.Scatter(
            x=list(range(1, len(trace) + 1)),
            y=trace,
            mode="lines" if len(trace) > 1 else "markers",
            line={"color": BLUE, "width": 2.5, "shape": "hv"},
            hovertemplate="after %{x} evaluations: %{y:.4f}<extra></extra>",
        )
    )
    figure.update_layout(_layout(320), margin={"t": 36})
    figure.update_xaxes(_axis("architectures evaluated"), rangemode="tozero")
    if len(trace) <= 12:
        figure.update_xaxes(dtick=1)
    figure.update_yaxes(_axis("hypervolume"), rangemode="tozero")
    return figure


def prediction_figure(trials: pd.DataFrame, run: RunSummary, device: str) -> go.Figure:
    """Predicted against measured latency on a device: the table's networks, and this run's."""
    import plotly.graph_objects as go

    columns = LatencyColumns(device)
    held_out = run.latency[device].networks
    figure = go.Figure()
    timed = trials.dropna(subset=[columns.measured]).drop_duplicates("hash")
    series = [
        (
            "held out when the table was made",
            [network.measured_ms for network in held_out],
            [network.predicted_ms for network in held_out],
            GREY,
        ),
        (
            "measured in this search",
            [float(value) for value in timed[columns.measured]],
            [float(value) for value in timed[columns.predicted]],
            BLUE,
        ),
    ]
    for name, measured, predicted, color in series:
        _scatter(
            figure, measured, predicted, name, color, "measured %{x:.2f} ms, predicted %{y:.2f}"
        )
    values = [value for _, x, y, _ in series for value in (*x, *y)]
    if values:
        ends = [min(values), max(values)]
        line = {"color": INK, "width": 1, "dash": "dash"}
        figure.add_scatter(
            x=ends, y=ends, mode="lines", line=line, name="as measured", hoverinfo="skip"
        )
    figure.update_layout(_layout(420), legend=_LEGEND_BELOW, margin={"t": 24, "b": 96})
    figure.update_xaxes(_axis(f"measured on {device} (ms)"))
    figure.update_yaxes(_axis("predicted (ms)"))
    return figure


def macs_latency_figure(trials: pd.DataFrame, run: RunSummary, device: str) -> go.Figure:
    """Latency on a device against MACs, where people see how far MACs mislead."""
    import plotly.graph_objects as go

    columns = LatencyColumns(device)
    held_out = run.latency[device].networks
    figure = go.Figure()
    told = [o for o in run.costs if o.device in (None, device)]
    hover = "%{x:.2f} GMACs, %{y:.2f} ms"
    _scatter(
        figure,
        [network.macs / 1e9 for network in held_out],
        [network.measured_ms for network in held_out],
        "random, measured",
        GREY,
        hover,
    )
    rows = trials[trials["state"].isin(["evaluated", "infeasible"])].drop_duplicates("hash")
    timed = rows[columns.measured].notna()
    for name, chosen, color in (
        ("of this search, predicted", rows[~timed], ORANGE),
        ("of this search, measured", rows[timed], BLUE),
    ):
        macs = [float(value) / 1e9 for value in chosen["macs"]]
        latency = [float(value) for value in chosen[columns.value]]
        texts = [_hover(row, told) for row in chosen.to_dict("records")]
        _scatter(figure, macs, latency, name, color, "%{text}", texts)
    figure.update_layout(_layout(420), legend=_LEGEND_BELOW, margin={"t": 24, "b": 96})
    figure.update_xaxes(_axis(f"MACs at {run.image_size} px (G)"), rangemode="tozero")
    figure.update_yaxes(_axis(f"latency on {device} (ms)"), rangemode="tozero")
    return figure


def effects_figure(effects: RunEffects) -> go.Figure:
    """What each choice gives at equal cost: a row for each, below the name of its gene.

    Bars are intervals of 95 %. The genes are those of the largest leads; of an unknown choice the
    row says so.
    """
    import plotly.graph_objects as go

    figure, labels = go.Figure(), list[str]()
    told = {effect.gene for effect in effects.clear}
    alone = {effect.gene: effect for effect in effects.alone}
    for effect in effects.inherited[:GENES_SHOWN]:
        labels.append(f"<b>{html.escape(gene_text(effect.gene))}</b>")
        first = len(labels)
        labels += [html.escape(choice_text(each.choice)) for each in effect.choices]
        color = BLUE if effect.gene in told else GREY
        _gains(figure, effect, first, "inherited", color, "circle")
        if effect.gene in alone:
            _gains(figure, alone[effect.gene], first + 0.3, "alone", ORANGE, "square")
        for row, each in enumerate(effect.choices, start=first):
            if each.gain is None:
                figure.add_annotation(
                    text="unknown",
                    x=0,
                    y=row,
                    showarrow=False,
                    bgcolor="#FFFFFF",
                    font={"size": 11, "color": GREY},
                )
    figure.update_layout(_layout(ROW_HEIGHT * len(labels) + 96), margin={"t": 36}, showlegend=False)
    figure.add_vline(x=0, line={"color": INK, "width": 1})
    figure.update_xaxes(_axis("points at equal MACs"))
    figure.update_yaxes(
        _axis(""),
        tickvals=list(range(len(labels))),
        ticktext=labels,
        range=[len(labels) - 0.4, -0.6],
        ticks="",
        showgrid=False,
        fixedrange=True,
    )
    return figure


def fronts_figure(group: Comparable) -> go.Figure:
    """The fronts of several runs: accuracy against each cost that all of them traded off.

    A front is that of what was tried alone, where there was a short list; small marks are what was
    evaluated, by inherited accuracies. The stepped line is the best accuracy up to each cost.
    """
    from plotly.subplots import make_subplots

    costs = [o for o in group.objectives if o.name != ACCURACY.name]
    figure = make_subplots(rows=len(costs), cols=1, vertical_spacing=0.18 / len(costs))
    for place, objective in enumerate(costs, start=1):
        for number, compared in enumerate(group.runs):
            color = RUN_COLORS[number % len(RUN_COLORS)]
            rows, chosen = evaluated(compared.trials), judged(compared.trials)
            upper = pareto_front(chosen.drop(columns="standing"), (ACCURACY, objective))
            front = upper.sort_values(objective.name)
            shared = {"legendgroup": compared.name, "hoverinfo": "text", "row": place, "col": 1}
            figure.add_scatter(
                x=rows[objective.name].astype(float) / objective.factor,
                y=100 * rows["accuracy"].astype(float),
                mode="markers",
                marker={"color": color, "size": 6, "opacity": 0.35},
                hovertext=[_hover(row, compared.run.costs) for row in rows.to_dict("records")],
                showlegend=False,
                **shared,
            )
            figure.add_scatter(
                x=front[objective.name].astype(float) / objective.factor,
                y=100 * front["accuracy"].astype(float),
                mode="lines+markers",
                line={"color": color, "width": 2, "shape": "hv"},
                marker={"size": 10, "symbol": RUN_SYMBOLS[number % len(RUN_SYMBOLS)]},
                hovertext=[_hover(row, compared.run.costs) for row in front.to_dict("records")],
                name=html.escape(compared.name),
                showlegend=place == 1,
                **shared,
            )
        title = objective.axis(group.runs[0].run.image_size)
        figure.update_xaxes(_axis(title), row=place, col=1)
        figure.update_yaxes(_axis("accuracy on the search split (%)"), row=place, col=1)
    height = 440 * len(costs) + 80
    figure.update_layout(_layout(height), margin={"t": 56})
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    return figure


def hypervolumes_figure(group: Comparable) -> go.Figure:
    """The hypervolume of several runs after each evaluation, up to where all have evaluated."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for number, (compared, trace) in enumerate(zip(group.runs, group.traces, strict=True)):
        figure.add_scatter(
            x=list(range(1, len(trace) + 1)),
            y=trace,
            mode="lines" if len(trace) > 1 else "markers",
            line={"color": RUN_COLORS[number % len(RUN_COLORS)], "width": 2.5, "shape": "hv"},
            name=html.escape(compared.name),
            hovertemplate="after %{x} evaluations: %{y:.4f}",
        )
    figure.add_vline(x=group.evaluations, line={"color": INK, "width": 1, "dash": "dash"})
    figure.update_layout(_layout(360), margin={"t": 56}, showlegend=True)
    figure.update_layout(legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"})
    figure.update_xaxes(_axis("architectures evaluated"), rangemode="tozero")
    figure.update_yaxes(_axis("hypervolume"), rangemode="tozero")
    return figure


def _gains(
    figure: go.Figure, effect: GeneEffect, first: float, name: str, color: str, symbol: str
) -> None:
    """Draw what the known choices of a gene give, the first choice at that row."""
    known = [(first + n, c, c.gain) for n, c in enumerate(effect.choices) if c.gain is not None]
    if not known:
        return
    figure.add_scatter(
        x=[100 * gain.mean for _, _, gain in known],
        y=[row for row, _, _ in known],
        mode="markers",
        name=name,
        marker={"color": color, "size": 8, "symbol": symbol},
        error_x={
            "array": [100 * NORMAL_95 * gain.deviation for _, _, gain in known],
            "color": color,
            "thickness": 1.5,
            "width": 0,
        },
        hovertext=[
            html.escape(
                f"{choice_text(choice.choice)}, {name}: {gain_text(gain)}, "
                f"{choice.architectures} architectures"
            )
            for _, choice, gain in known
        ],
        hoverinfo="text",
    )


_LEGEND_BELOW = {"orientation": "h", "x": 0, "y": -0.2, "yanchor": "top"}


def _scatter(
    figure: go.Figure,
    x: Sequence[float],
    y: Sequence[float],
    name: str,
    color: str,
    hover: str,
    texts: Sequence[str] | None = None,
) -> None:
    if not len(x):
        return
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=name,
        marker={"color": color, "size": 8, "opacity": 0.8},
        text=texts,
        hovertemplate=f"{hover}<extra></extra>",
    )


def _panels(run: RunSummary) -> list[_Panel]:
    """One for each cost that is searched for, MACs on top."""
    searched = run.searched_costs
    half_gap = 0.12 / len(searched)  # room for the title of an axis and the limit below it
    share = 1 / len(searched)
    return [
        _Panel(
            number,
            objective,
            title=objective.axis(run.image_size),
            told=run.costs,
            images=run.search_images,
            bottom=1 - number * share + (half_gap if number < len(searched) else 0.0),
            top=1 - (number - 1) * share - (half_gap if number > 1 else 0.0),
        )
        for number, objective in enumerate(searched, start=1)
    ]


def _draw_panel(figure: go.Figure, panel: _Panel, trials: pd.DataFrame, run: RunSummary) -> None:
    for axis in (panel.y, panel.strip):
        # plotly draws no frame where there is no trace.
        figure.add_scatter(x=[None], y=[None], xaxis=panel.x, yaxis=axis, showlegend=False)
    rows, chosen = evaluated(trials), judged(trials)
    front = pareto_front(chosen, run.objectives)
    others = rows[~rows["hash"].isin(front["hash"])]
    tried = chosen.dropna(subset="tried")
    over = trials[trials["state"] == "infeasible"]
    failed = trials[trials["state"] == "failed"]

    inherited = "evaluated, inherited accuracy" if len(tried) else "evaluated"
    _points(figure, panel, others, inherited, size=10, color="#FFFFFF", edge=GREY)
    _links(figure, panel, tried)
    _points(figure, panel, tried, "trained alone", size=10, color="#FFFFFF", edge=BLUE)
    _envelope(figure, panel, chosen.drop(columns="standing"))
    searched = [ACCURACY, *run.searched_costs]
    of = f" ({', '.join(o.label for o in searched)})" if len(searched) > 2 else ""
    name = f"Pareto front{of}"
    _points(figure, panel, front, name, size=11, color=BLUE, edge=BLUE)
    if not rows.empty:
        star = best(chosen, run.objectives).to_frame().T
        accuracy = percent(float(star["accuracy"].iloc[0]))
        _points(
            figure,
            panel,
            star,
            f"best, {accuracy}",
            size=17,
            color=ORANGE,
            edge=ORANGE,
            symbol="star",
            cap=5,
        )
    _landmarks(figure, panel, rows[~rows["source"].isin(UNNAMED_SOURCES)])
    too_slow = over.dropna(subset=["accuracy"])
    _points(figure, panel, too_slow, "too slow when measured", size=9, color="#FFFFFF", edge=ORANGE)
    over = over[over["accuracy"].isna()]
    _ticks(figure, panel, over, "over a limit, not evaluated", symbol="line-ns-open", color=ORANGE)
    _ticks(figure, panel, failed, "failed", symbol="x-thin-open", color=INK)

    shown = trials[trials["state"].isin(["evaluated", "infeasible", "failed"])]
    costs = shown[panel.column].astype(float).dropna() / panel.factor
    figure.update_layout({f"xaxis{panel.index}": _cost_axis(panel, [float(c) for c in costs])})
    figure.update_layout(
        {
            f"yaxis{panel.y[1:]}": {
                **_axis("accuracy on the search split (%)"),
                "domain": [panel.floor, panel.top],
                "anchor": panel.x,
                **({"range": [0, 100]} if rows.empty else {}),
            },
            f"yaxis{panel.strip[1:]}": {
                "domain": [panel.bottom, panel.floor],
                "anchor": panel.x,
                "range": [0, 1],
                "fixedrange": True,
                "showticklabels": False,
                "showgrid": False,
                "zeroline": False,
                "showline": True,
                "linecolor": INK,
                "mirror": True,
            },
        }
    )
    figure.add_annotation(
        text="no accuracy",
        x=0.006,
        xref=f"{panel.x} domain",
        y=0.97,
        yref=f"{panel.strip} domain",
        xanchor="left",
        yanchor="top",
        showarrow=False,
        font={"size": 11, "color": GREY},
    )
    if panel.limit is not None:
        _limit_line(figure, panel, panel.limit)


def _points(
    figure: go.Figure,
    panel: _Panel,
    rows: pd.DataFrame,
    name: str,
    *,
    size: float,
    color: str,
    edge: str,
    symbol: str = "circle",
    cap: float = 0,
) -> None:
    """Draw rows as markers at their accuracies, with the errors of these.

    A marker that hides its bar wants a cap at the bar's ends, so wide to either side.
    """
    line = {"color": edge, "width": 1.5}
    marker = {"symbol": symbol, "size": size, "color": color, "line": line}
    accuracies = [float(accuracy) for accuracy in rows["accuracy"]]
    errors = [100 * accuracy_error(accuracy, panel.images) for accuracy in accuracies]
    heights = [100 * accuracy for accuracy in accuracies]
    bars = {"array": errors, "color": edge, "thickness": 1, "width": cap}
    _markers(figure, panel, panel.y, rows, heights, name, marker, error_y=bars)


def _ticks(
    figure: go.Figure, panel: _Panel, rows: pd.DataFrame, name: str, *, symbol: str, color: str
) -> None:
    """Draw rows that have no accuracy, in the strip; those without this cost are left out."""
    placed = rows.dropna(subset=[panel.column])
    marker = {"symbol": symbol, "size": 13, "color": color, "line": {"width": 1.3}}
    _markers(figure, panel, panel.strip, placed, [0.3] * len(placed), name, marker)


def _markers(
    figure: go.Figure,
    panel: _Panel,
    axis: str,
    rows: pd.DataFrame,
    heights: list[float],
    name: str,
    marker: dict[str, Any],
    **look: Any,
) -> None:
    if rows.empty:
        return
    figure.add_scatter(
        x=rows[panel.column].astype(float) / panel.factor,
        y=heights,
        xaxis=panel.x,
        yaxis=axis,
        mode="markers",
        name=name,
        legendgroup=name,
        showlegend=panel.index == 1,
        marker=marker,
        hoverinfo="text",
        hovertext=[_hover(row, panel.told) for row in rows.to_dict("records")],
        cliponaxis=False,
        **look,
    )


def _links(figure: go.Figure, panel: _Panel, tried: pd.DataFrame) -> None:
    """Join what each of the short list inherited to what it reached alone."""
    if tried.empty:
        return
    line = {"color": BLUE, "width": 1, "dash": "dot"}
    _joined(figure, panel, tried, ("inherited", "accuracy"), line)


def _joined(
    figure: go.Figure,
    panel: _Panel,
    rows: pd.DataFrame,
    columns: tuple[str, str],
    line: dict[str, Any],
) -> None:
    """Join two accuracies of each row by a line."""
    costs = rows[panel.column].astype(float) / panel.factor
    ends = zip(costs, *(100 * rows[column] for column in columns), strict=True)
    points = [point for c, a, b in ends for point in ((c, a), (c, b), (c, None))]
    x, y = zip(*points, strict=True)
    figure.add_scatter(
        x=x,
        y=y,
        xaxis=panel.x,
        yaxis=panel.y,
        mode="lines",
        line=line,
        hoverinfo="skip",
        showlegend=False,
    )


def _retrained(figure: go.Figure, panel: _Panel, rows: pd.DataFrame) -> None:
    """Draw what was retrained at its accuracy on the test split, joined to what it inherited."""
    rows = rows.dropna(subset=[panel.column])
    if rows.empty:
        return
    line = {"color": GREEN, "width": 1}
    _joined(figure, panel, rows, ("inherited", "retrained"), line)
    figure.add_scatter(
        x=rows[panel.column].astype(float) / panel.factor,
        y=100 * rows["retrained"],
        xaxis=panel.x,
        yaxis=panel.y,
        mode="markers",
        name="retrained, test split",
        legendgroup="retrained",
        showlegend=panel.index == 1,
        marker={"symbol": "hourglass", "size": 11, "color": GREEN, "line": line},
        error_y={
            "array": [
                100 * accuracy_error(float(accuracy), int(images))
                for accuracy, images in zip(rows["retrained"], rows["test_images"], strict=True)
            ],
            "color": GREEN,
            "thickness": 1,
            "width": 3,
        },
        hoverinfo="text",
        hovertext=[_retrained_hover(row) for row in rows.to_dict("records")],
        cliponaxis=False,
    )


def _retrained_hover(row: dict[Any, Any]) -> str:
    """What a retrained network is, beside its trial."""
    lines = [
        f"<b>{html.escape(str(row['folder']))}</b>: {percent(row['retrained'])} of the test split",
        f"after {row['steps']:,} steps alone, from {html.escape(str(row['start']))}",
        f"trial {row['number']}, inherited {percent(row['inherited'])} of the search split",
    ]
    return "<br>".join(lines)


def _landmarks(figure: go.Figure, panel: _Panel, rows: pd.DataFrame) -> None:
    """Frame the trials that no sampler proposed, the extremes and the published designs.

    Their names are in the legend, where they cover nothing.
    """
    others = itertools.cycle(DESIGNS)
    for _, row in rows.iterrows():
        symbol = LANDMARKS.get(str(row["source"])) or next(others)
        framed = row.to_frame().T
        line = {"color": INK, "width": 1.3}
        marker = {"symbol": f"{symbol}-open", "size": 17, "color": INK, "line": line}
        height, name = 100 * float(row["accuracy"]), html.escape(str(row["source"]))
        _markers(figure, panel, panel.y, framed, [height], name, marker)


def _envelope(figure: go.Figure, panel: _Panel, rows: pd.DataFrame) -> None:
    """The best accuracy up to each cost, as steps that run on to the limit."""
    upper = pareto_front(rows, (ACCURACY, panel.objective)).sort_values(panel.column)
    if upper.empty:
        return
    x = [float(cost) / panel.factor for cost in upper[panel.column]]
    y = [100 * float(accuracy) for accuracy in upper["accuracy"]]
    end = max(x[-1], 0.0 if panel.limit is None else panel.limit / panel.factor)
    figure.add_scatter(
        x=[*x, end],
        y=[*y, y[-1]],
        xaxis=panel.x,
        yaxis=panel.y,
        mode="lines",
        line={"color": BLUE, "width": 2, "shape": "hv"},
        name="best accuracy up to this cost",
        legendgroup="envelope",
        showlegend=panel.index == 1,
        hoverinfo="skip",
    )


def _limit_line(figure: go.Figure, panel: _Panel, limit: float) -> None:
    """A dashed vertical line at the panel's limit, named above the panel."""
    x = limit / panel.factor
    axis = figure.layout[f"xaxis{panel.index}"]
    place = math.log10(x) if axis.type == "log" else x
    figure.add_shape(
        type="line",
        x0=x,
        x1=x,
        xref=panel.x,
        y0=panel.bottom,
        y1=panel.top,
        yref="paper",
        line={"color": INK, "width": 1.5, "dash": "dash"},
    )
    left, right = axis.range or (place, place)
    figure.add_annotation(
        text=f"limit {panel.objective.amount(limit)}",
        x=place,
        # Towards the middle, so that a narrow window does not cut it off.
        xanchor="right" if place > (left + right) / 2 else "left",
        xref=panel.x,
        y=panel.top,
        yref="paper",
        yanchor="bottom",
        showarrow=False,
        font={"size": 12, "color": INK},
    )


def _cost_axis(panel: _Panel, costs: list[float]) -> dict[str, Any]:
    """The horizontal axis: logarithmic where the costs span more than a factor of eight."""
    if panel.limit is not None:
        costs = [*costs, panel.limit / panel.factor]
    axis = {**_axis(panel.title), "anchor": panel.strip, "domain": [0, 1]}
    if not costs:
        return axis
    low, high = min(costs), max(costs)
    if low > 0 and high / low > 8:
        pad = 0.04 * math.log10(high / low)
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 2, 5) if high / low > 50 else (1, 1.5, 2, 3, 4, 5, 7)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        axis["type"] = "log"
        axis["range"] = [math.log10(low) - pad, math.log10(high) + pad]
        axis["tickvals"] = ticks
        axis["ticktext"] = [f"{tick:g}" for tick in ticks]
    else:
        pad = 0.05 * (high - low) or 0.1 * high
        axis["range"] = [max(0.0, low - pad), high + pad]
    return axis


def _hover(row: dict[Any, Any], costs: Sequence[Objective]) -> str:
    """What a trial is, in the little markup that plotly reads; its own strings are escaped."""
    head = f"<b>trial {row['number']}</b>"
    if row["source"] != "sampler":
        head += f" ({html.escape(str(row['source']))})"
    if not math.isnan(row["accuracy"]):
        head += f": {percent(row['accuracy'])}"
    if not math.isnan(row["scratch"]):
        head += f" ({percent(row['scratch'])} from fresh weights)"
    counted = (o.named_amount(row[o.name]) for o in costs if o.device is None)
    devices = (o.device for o in costs if o.device is not None)
    lines = [head, f"architecture {row['hash']}"]
    timed = (f"{device}: {latency_text(row, LatencyColumns(device))}" for device in devices)
    told = (str(row["violation"]), str(row["failure"]), *str(row["summary"]).split(" | "))
    for text in (", ".join(counted), *timed, *told):
        lines += [html.escape(line) for line in textwrap.wrap(text, LINE_LETTERS)]
    return "<br>".join(lines)
