import dataclasses
import html
import io
import itertools
import math
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from small_runs import NANO, evaluated_nano

from nas.latency.conditions import LatencyConditions
from nas.latency.table import LatencyTable, TimedNetwork
from nas.objectives.limits import Limits
from nas.objectives.objective import ACCURACY, MACS, LatencyColumns, Objective, latency_on
from nas.report.cards import ModelSummary, class_accuracies, model_card
from nas.report.effects import RunEffects
from nas.report.figures import (
    GENES_SHOWN,
    effects_figure,
    macs_latency_figure,
    pareto_figure,
    prediction_figure,
)
from nas.report.pages import write_report
from nas.report.run_summary import LatencySummary, RunSummary, latency_text
from nas.report.summary import summary_table
from nas.search.front import (
    anchors,
    best,
    hypervolume,
    hypervolume_trace,
    judged,
    pareto_front,
    ranked_front,
)
from nas.search.trials import RANDOM_SOURCE, SCRATCH_COLUMNS, TRIED_COLUMNS, trial_columns
from nas.utilities.commands import typed
from search_space import PRESETS, total_cost
from search_space.segments import segments

CPU, PHONE = LatencyColumns("cpu"), LatencyColumns("phone")
BY_MACS = (ACCURACY, MACS)
BY_LATENCY = (ACCURACY, MACS, latency_on("cpu"))

HOSTILE = "</script><img src=x onerror=alert(1)> | [red] & 'quoted'"


def row(number: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "number": number,
        "hash": f"{number:016x}",
        "state": "evaluated",
        "accuracy": 0.5,
        "macs": 1_000_000_000,
        "params": 12_345_678,
        **dict.fromkeys((*TRIED_COLUMNS, *SCRATCH_COLUMNS), math.nan),
        "source": "sampler",
        "seconds": 1.5,
        "violation": "",
        "failure": "",
        "summary": "64-128 x 1-2 | conv max",
    }
    return values | changes


def timed(
    predicted: float,
    measured: float = float("nan"),
    iqr: float = float("nan"),
    *,
    unstable: bool = False,
    slowdown: float = 1.0,
    on: LatencyColumns = CPU,
) -> dict[str, float]:
    """The columns of a latency, that was measured or was not."""
    known = not np.isnan(measured)
    return {
        on.value: measured if known else predicted,
        on.predicted: predicted,
        on.measured: measured,
        on.iqr: iqr,
        on.unstable: float(unstable) if known else float("nan"),
        on.slowdown: slowdown if known else float("nan"),
    }


def objectives_with(*limited: str) -> tuple[Objective, ...]:
    """The objectives of a run with limits on these."""
    return Limits(**dict.fromkeys(limited, 1.0)).objectives


def table(*rows: dict[str, Any], limited: Sequence[str] = (CPU.value,)) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=trial_columns(objectives_with(*limited)))


def evaluated(*points: tuple[float, ...]) -> pd.DataFrame:
    """One evaluated trial per (accuracy, macs) or (accuracy, macs, predicted latency)."""
    return table(
        *(
            row(number, accuracy=point[0], macs=point[1], **timed(*point[2:]) if point[2:] else {})
            for number, point in enumerate(points)
        )
    )


def mixed(*, latency: bool = False, count: int = 60) -> pd.DataFrame:
    """A run as it looks: all states, published designs, costs over a factor of ten."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        macs = int(10 ** random.uniform(8.6, 9.7))
        over = macs > 2e9
        state = "infeasible" if over else ("failed" if number % 17 == 5 else "evaluated")
        accuracy = 0.3 + 0.5 * macs / 2e9 + random.normal(0, 0.05)
        predicted = macs / 2e8 * random.uniform(0.8, 1.2)
        measured = (1.05 * predicted, 0.1) if number % 7 == 1 and not over else ()
        rows.append(
            row(
                number,
                state=state,
                accuracy=min(accuracy, 0.95) if state == "evaluated" else float("nan"),
                macs=macs,
                source="smallest" if number == 0 else "sampler",
                violation="macs over the limit" if over else "",
                failure="RuntimeError: out of memory" if state == "failed" else "",
                **timed(predicted, *measured) if latency else {},
            )
        )
    return table(*rows, limited=[CPU.value] if latency else [])


NETWORKS = [
    TimedNetwork(hash=f"{n}", macs=10**9 + n, predicted_ms=5.0 + n, measured_ms=5.5 + n)
    for n in range(6)
]


def latency_summary(**changes: Any) -> LatencySummary:
    values: dict[str, Any] = {
        "conditions": "Some Chip, float32, batch 1",
        "error": "MAPE 3.1% on 6 held-out networks",
        "measured": True,
        "networks": NETWORKS,
    }
    return LatencySummary(**values | changes)


@pytest.fixture
def summary_of() -> Callable[..., RunSummary]:
    def build(*, latency_ms: float | None = None, **changes: Any) -> RunSummary:
        values: dict[str, Any] = {
            "command": "nas search --budget 2GFLOPs",
            "data": "digits",
            "num_classes": 10,
            "search_images": 400,
            "space": "base",
            "space_size": 812_345_678_901_234,
            "limits": {"macs": 2e9} | ({CPU.value: latency_ms} if latency_ms else {}),
            "reachable": {
                "macs": (400_000_000, 5_000_000_000),
                "params": (1_000_000, 30_000_000),
                "memory": (3_000_000, 9_000_000),
            },
            "image_size": 224,
            "proxy_size": 64,
            "sampler": "nsga2",
            "seed": 0,
            "device": "cpu",
            "supernet_steps": 1200,
            "supernet_seconds": 312.4,
            "search_seconds": 151.0,
            "latency": {"cpu": latency_summary()} if latency_ms else {},
        }
        return RunSummary(**(values | changes))

    return build


# Front, best and hypervolume


def test_front_is_what_no_other_trial_dominates_by_pairwise_comparison() -> None:
    random = np.random.default_rng(1)
    trials = evaluated(*random.integers(1, 8, size=(60, 3)).tolist())
    points = [(-r.accuracy, r.macs, r.latency_cpu_ms) for r in trials.itertuples()]

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    expected = {p for p in points if not any(beats(q, p) for q in points)}
    front = pareto_front(trials, BY_LATENCY)
    found = [(-r.accuracy, r.macs, r.latency_cpu_ms) for r in front.itertuples()]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert front["macs"].is_monotonic_increasing


def test_front_keeps_the_first_of_equal_trials() -> None:
    front = pareto_front(evaluated((0.8, 100), (0.8, 100), (0.7, 90)), BY_MACS)
    assert front["number"].tolist() == [2, 0]


def test_latency_keeps_a_trial_that_accuracy_and_macs_alone_would_drop() -> None:
    trials = evaluated((0.8, 100, 9.0), (0.7, 110, 3.0))
    assert pareto_front(trials, BY_MACS)["number"].tolist() == [0]
    assert pareto_front(trials, BY_LATENCY)["number"].tolist() == [0, 1]


@pytest.mark.parametrize("state", ["infeasible", "duplicate", "failed"])
def test_only_evaluated_trials_can_be_best_or_on_the_front(state: str) -> None:
    trials = table(row(0, accuracy=0.6), row(1, accuracy=0.9, macs=5, state=state))
    assert best(trials, BY_MACS)["number"] == 0
    assert pareto_front(trials, BY_MACS)["number"].tolist() == [0]


def test_an_architecture_evaluated_twice_is_on_the_front_once() -> None:
    trials = table(row(0, hash="a" * 16), row(1, hash="a" * 16, accuracy=0.9))
    assert pareto_front(trials, BY_MACS)["number"].tolist() == [0]


def test_best_is_most_accurate_and_among_equals_cheapest() -> None:
    assert best(evaluated((0.7, 1), (0.9, 30), (0.9, 20)), BY_MACS)["number"] == 2


def test_best_is_on_the_front_where_equals_differ_in_what_is_not_counted() -> None:
    trials = evaluated((0.9, 20, 9.0), (0.9, 20, 3.0), (0.8, 10, 5.0))
    assert best(trials, BY_LATENCY)["number"] == 1
    assert ranked_front(trials, BY_LATENCY)["number"].tolist() == [1, 2]


def test_best_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trial was evaluated"):
        best(table(), BY_MACS)


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_equals_inclusion_and_exclusion(objectives: int) -> None:
    points = np.random.default_rng(2).uniform(size=(9, objectives))
    points[4] = points[3]
    gains = np.column_stack([points[:, 0], 1 - points[:, 1:]])
    expected = 0.0
    for size in range(1, len(gains) + 1):
        for chosen in itertools.combinations(gains, size):
            expected += (-1) ** (size + 1) * float(np.min(chosen, axis=0).prod())
    assert hypervolume(points, BY_LATENCY[:objectives]) == pytest.approx(expected, rel=1e-12)


def test_hypervolume_of_known_points() -> None:
    assert hypervolume([(0.8, 0.5)], BY_MACS) == pytest.approx(0.4)
    assert hypervolume([(0.8, 0.5), (0.4, 0.25)], BY_MACS) == pytest.approx(0.4 + 0.4 * 0.25)
    assert hypervolume([(0.5, 0.5, 0.5)], BY_LATENCY) == pytest.approx(0.125)


def test_points_beyond_the_reference_add_nothing_to_the_hypervolume() -> None:
    inside = [(0.8, 0.5)]
    outside = [(0.9, 1.2), (0.0, 0.1), (float("nan"), 0.1)]
    assert hypervolume(inside + outside, BY_MACS) == hypervolume(inside, BY_MACS)
    assert hypervolume([], BY_LATENCY) == 0.0


def test_an_objective_that_is_maximised_counts_upwards_in_front_and_hypervolume() -> None:
    robust = Objective(
        name="robustness", label="robustness", unit="", definition="", direction="maximize"
    )
    assert hypervolume([(0.5, 0.5)], (ACCURACY, robust)) == pytest.approx(0.25)
    assert hypervolume([(0.5, 0.8)], (ACCURACY, robust)) == pytest.approx(0.4)
    trials = evaluated((0.5, 1e9), (0.6, 1e9), (0.4, 1e9)).assign(robustness=[0.5, 0.4, 0.3])
    front = pareto_front(trials, (ACCURACY, robust))
    assert front["number"].tolist() == [0, 1]


def test_what_is_not_searched_for_keeps_nothing_on_the_front() -> None:
    trials = evaluated((0.8, 100), (0.7, 110)).assign(params=[9, 1])
    front = pareto_front(trials, objectives_with("params"))
    assert front["number"].tolist() == [0]


def test_hypervolume_trace_never_falls_and_ends_at_the_volume_of_the_front(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials, run = mixed(latency=True), summary_of(latency_ms=12.0)
    trace = hypervolume_trace(trials, run.objectives, run.reachable)
    front = pareto_front(trials, run.objectives)
    shares = np.column_stack([front["accuracy"], front["macs"] / 2e9, front[CPU.value] / 12.0])
    assert len(trace) == (trials["state"] == "evaluated").sum()
    assert trace == sorted(trace)
    assert trace[-1] == pytest.approx(hypervolume(shares, BY_LATENCY))


def test_without_a_limit_on_macs_their_scale_is_the_largest_architecture(
    summary_of: Callable[..., RunSummary],
) -> None:
    run = summary_of(limits={"params": 1e7})
    trace = hypervolume_trace(evaluated((0.6, 2.5e9)), run.objectives, run.reachable)
    assert trace == [pytest.approx(0.6 * 0.5)]


# Figure


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if (trace.name or "").startswith(name)]


def test_trials_without_accuracy_stand_in_the_strip_and_not_among_the_accuracies(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = mixed()
    figure = pareto_figure(trials, summary_of())
    (over,) = traces(figure, "over a limit")
    (failed,) = traces(figure, "failed")
    assert len(over.x) == (trials["state"] == "infeasible").sum()
    assert {over.yaxis, failed.yaxis} == {"y2"}
    accuracies = [trace for trace in figure.data if trace.yaxis == "y" and trace.mode == "markers"]
    shown = {text.split(":")[0] for trace in accuracies for text in trace.hovertext or ()}
    assert len(shown) == (trials["state"] == "evaluated").sum()
    assert figure.layout.yaxis2.domain[1] == figure.layout.yaxis.domain[0]


def test_star_is_the_best_trial_and_the_dashed_line_is_the_limit(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = mixed()
    figure = pareto_figure(trials, summary_of())
    (star,) = traces(figure, "best, ")
    assert star.x[0] == best(trials, BY_MACS)["macs"] / 1e9
    assert star.y[0] == pytest.approx(100 * best(trials, BY_MACS)["accuracy"])
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == 2.0
    # plotly places a shape by value, and an annotation on a logarithmic axis by its logarithm.
    (label,) = [note for note in figure.layout.annotations if note.text == "limit 2 GMACs"]
    assert label.x == pytest.approx(np.log10(2.0))


def test_step_line_is_the_best_accuracy_up_to_each_cost_and_ends_at_the_limit(
    summary_of: Callable[..., RunSummary],
) -> None:
    figure = pareto_figure(evaluated((0.5, 1e9), (0.4, 1.2e9), (0.7, 1.5e9)), summary_of())
    (line,) = traces(figure, "best accuracy up to")
    assert list(line.x) == [1.0, 1.5, 2.0]
    assert list(line.y) == pytest.approx([50.0, 70.0, 70.0])


def test_every_accuracy_has_the_error_of_its_images_as_a_bar(
    summary_of: Callable[..., RunSummary],
) -> None:
    figure = pareto_figure(mixed(), summary_of(search_images=400))
    shown = [trace for trace in figure.data if trace.hovertext and trace.yaxis == "y"]
    for trace in (trace for trace in shown if not trace.marker.symbol.endswith("-open")):
        shares = np.array(trace.y) / 100
        errors = 100 * np.sqrt(shares * (1 - shares) / 400)
        assert np.allclose(trace.error_y.array, errors, rtol=0.05)
    assert "± one standard error of 400 images" in figure.layout.title.text


def test_the_name_of_a_limit_reaches_towards_the_middle_of_its_axis(
    summary_of: Callable[..., RunSummary],
) -> None:
    def anchor(budget: float) -> str:
        trials = evaluated((0.5, 1.0e9), (0.6, 3e9))
        figure = pareto_figure(trials, summary_of(limits={"macs": budget}))
        (label,) = [note for note in figure.layout.annotations if note.text.startswith("limit")]
        return str(label.xanchor)

    assert (anchor(1.1e9), anchor(2.9e9)) == ("left", "right")


def test_titles_and_hover_texts_are_broken_so_that_a_narrow_window_shows_them(
    summary_of: Callable[..., RunSummary],
) -> None:
    shaky = timed(3.9, 4.2, 0.1, unstable=True, slowdown=1.3)
    trials = table(row(0, summary=f"64x2 {'rates-8-4 ' * 9}", **shaky))
    run = summary_of(latency_ms=15.0, space="a space of my own with a long name")
    figure = pareto_figure(trials, run)
    texts = [figure.layout.title.text, *traces(figure, "best, ")[0].hovertext]
    for line in "<br>".join(texts).split("<br>"):
        assert len(html.unescape(re.sub("<[^>]*>", "", line))) <= 44


def test_cost_axis_is_logarithmic_only_where_costs_span_much(
    summary_of: Callable[..., RunSummary],
) -> None:
    assert pareto_figure(mixed(), summary_of()).layout.xaxis.type == "log"
    near = evaluated((0.5, 1.0e9), (0.6, 1.5e9))
    assert pareto_figure(near, summary_of()).layout.xaxis.type is None


def test_a_latency_limit_adds_a_panel_with_its_own_limit(
    summary_of: Callable[..., RunSummary],
) -> None:
    assert "xaxis2" not in pareto_figure(mixed(), summary_of()).layout
    figure = pareto_figure(mixed(latency=True), summary_of(latency_ms=12.0))
    assert [shape.x0 for shape in figure.layout.shapes] == [2.0, 12.0]
    assert figure.layout.yaxis3.domain[1] < figure.layout.yaxis2.domain[0]
    notes = [note.text for note in figure.layout.annotations]
    assert [text for text in notes if text.startswith("limit")] == [
        "limit 2 GMACs",
        "limit 12 ms on cpu",
    ]


def test_two_devices_add_two_panels_that_do_not_overlap(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(0, **timed(5.0, 5.5, 0.1), **timed(30.0, on=PHONE)),
        row(1, accuracy=0.6, macs=2e9, **timed(6.0), **timed(20.0, on=PHONE)),
        limited=[CPU.value, PHONE.value],
    )
    run = summary_of(
        limits={"macs": 2e9, CPU.value: 12.0, PHONE.value: 40.0},
        latency={"cpu": latency_summary(), "phone": latency_summary(measured=False)},
    )
    assert [o.name for o in run.searched_costs] == ["macs", "latency_cpu_ms", "latency_phone_ms"]
    figure = pareto_figure(trials, run)
    assert [shape.x0 for shape in figure.layout.shapes] == [2.0, 12.0, 40.0]
    axes = ("yaxis", "yaxis2", "yaxis3", "yaxis4", "yaxis5", "yaxis6")
    domains = [tuple(figure.layout[axis].domain) for axis in axes]
    assert all(upper[0] >= lower[1] for upper, lower in itertools.pairwise(domains))
    starred = {trace.xaxis: trace.x[0] for trace in traces(figure, "best, ")}
    assert starred == {"x": 2.0, "x2": 6.0, "x3": 20.0}


def test_hover_tells_number_accuracy_costs_architecture_and_why_it_was_not_evaluated(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(3, accuracy=0.81, source="deit", **timed(3.9, 4.2, 0.1)),
        row(
            4,
            state="infeasible",
            accuracy=float("nan"),
            macs=3 * 10**9,
            violation="1 G over",
            **timed(7.5),
        ),
    )
    figure = pareto_figure(trials, summary_of(latency_ms=12.0))
    (good,) = traces(figure, "best, ")[0].hovertext
    for part in ("trial 3", f"architecture {3:016x}", "deit", "81.0 %", "1 GMACs", "12.3 M params"):
        assert part in good
    assert "cpu: 4.20 ms (IQR 0.10), 3.90 predicted" in good
    assert good.endswith("64-128 x 1-2<br>conv max")
    (bad,) = traces(figure, "over a limit")[0].hovertext
    assert "trial 4" in bad
    assert "1 G over" in bad
    assert "cpu: 7.50 ms predicted" in bad
    assert "%" not in bad


def test_what_was_measured_to_be_too_slow_stands_at_its_accuracy_under_a_name_of_its_own(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(0, accuracy=0.6, **timed(9.0, 9.5, 0.1)),
        row(
            1,
            state="infeasible",
            accuracy=0.8,
            violation="latency_cpu_ms +25.0% over",
            **timed(11.0, 15.0, 0.2),
        ),
        row(2, state="infeasible", accuracy=float("nan"), macs=3e9, **timed(30.0)),
    )
    figure = pareto_figure(trials, summary_of(latency_ms=12.0))
    on_macs, on_latency = traces(figure, "too slow when measured")
    assert (on_macs.yaxis, on_latency.yaxis) == ("y", "y3")
    assert [list(trace.x) for trace in (on_macs, on_latency)] == [[1.0], [15.0]]
    assert list(on_latency.y) == [pytest.approx(80.0)]
    assert "latency_cpu_ms +25.0% over" in on_latency.hovertext[0]
    assert "15.00 ms (IQR 0.20), 11.00 predicted" in on_latency.hovertext[0]
    assert "<b>trial 1</b>: 80.0 %" in on_latency.hovertext[0]
    for over in traces(figure, "over a limit"):
        (text,) = over.hovertext
        assert "trial 2" in text
    for star in traces(figure, "best, "):
        assert "trial 0" in star.hovertext[0]
    for front in traces(figure, "Pareto front"):
        (text,) = front.hovertext
        assert "trial 0" in text
    for line in traces(figure, "best accuracy up to"):
        assert max(line.y) == pytest.approx(60.0)


def test_only_landmarks_and_designs_are_named_in_the_figure(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    sources = ("sampler", RANDOM_SOURCE, "smallest", "Shunted-T")
    trials = table(*(row(i, hash=str(i), source=s) for i, s in enumerate(sources)))
    figure = pareto_figure(trials, summary_of())
    framed = [trace for trace in figure.data if (trace.marker.symbol or "").endswith("-open")]
    write_report(tmp_path, trials, summary_of())
    page = Tags((tmp_path / "report.html").read_text()).text
    assert [trace.name for trace in framed] == ["smallest", "Shunted-T"]
    assert len({trace.marker.symbol for trace in framed}) == 2
    assert not [trace for trace in figure.data if "text" in (trace.mode or "")]
    assert "smallest, Shunted-T" in page


def test_a_run_without_a_limit_on_latency_speaks_of_none(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    assert not traces(pareto_figure(mixed(), summary_of()), "too slow")
    write_report(tmp_path, mixed(), summary_of())
    assert "atency" not in Tags((tmp_path / "report.html").read_text()).text


# Latency


def test_columns_are_those_of_the_objectives_between_state_and_source() -> None:
    always = trial_columns(objectives_with())
    assert always == [
        *("number", "hash", "state", "accuracy", "macs", "params"),
        *("loss", "tried", "tried_steps", "tried_loss", "tried_images"),
        *("scratch", "scratch_steps", "scratch_loss"),
        *("source", "seconds", "violation", "failure", "summary"),
    ]
    assert trial_columns(objectives_with("memory", "macs")) == [*always[:6], "memory", *always[6:]]
    assert trial_columns(objectives_with("latency_cuda:1_ms")) == [
        *always[:6],
        "latency_cuda:1_ms",
        "latency_cuda:1_predicted_ms",
        "latency_cuda:1_measured_ms",
        "latency_cuda:1_iqr_ms",
        "latency_cuda:1_unstable",
        "latency_cuda:1_slowdown",
        *always[6:],
    ]
    both = trial_columns(objectives_with(CPU.value, PHONE.value))
    assert len(set(both)) == len(always) + 12


def test_latency_is_told_as_predicted_until_it_is_measured() -> None:
    assert latency_text(timed(4.234), CPU) == "4.23 ms predicted"
    assert latency_text(timed(4.0, 4.5, 0.1), CPU) == "4.50 ms (IQR 0.10), 4.00 predicted"
    shaky = timed(4.0, 4.5, 2.0, unstable=True)
    assert latency_text(shaky, CPU) == "4.50 ms (IQR 2.00, unstable), 4.00 predicted"


def test_a_device_s_pace_is_told_where_it_is_not_that_of_its_table() -> None:
    assert "slowdown" not in latency_text(timed(4.0, 4.5, 0.1, slowdown=1.04), CPU)
    slower = timed(4.0, 4.5, 0.1, slowdown=1.3)
    assert latency_text(slower, CPU) == "4.50 ms (IQR 0.10, slowdown 1.30), 4.00 predicted"


def test_a_summary_survives_its_file(summary_of: Callable[..., RunSummary], tmp_path: Path) -> None:
    run = summary_of(latency_ms=12.0, notes=("one", "two"))
    run.save(tmp_path / "summary.json")
    assert RunSummary.load(tmp_path / "summary.json") == run


def test_budget_and_costs_say_how_each_latency_was_found(
    summary_of: Callable[..., RunSummary],
) -> None:
    run = summary_of(
        limits={"macs": 2e9, CPU.value: 12.0, PHONE.value: 40.0},
        latency={"cpu": latency_summary(), "phone": latency_summary(measured=False)},
    )
    assert run.budget_text == "2 GMACs, 12 ms on cpu, 40 ms on phone"
    assert "latency on cpu: median of repeats on the short list" in run.cost_text
    assert run.cost_text.endswith("latency on phone: predicted")


def test_predictions_stand_against_measurements_of_the_table_and_of_the_run(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(0, hash="a" * 16, **timed(9.0, 9.5, 0.1)),
        row(1, hash="a" * 16, state="duplicate", **timed(9.0, 9.5, 0.1)),
        row(2, state="infeasible", accuracy=0.7, **timed(11.0, 15.0, 0.1)),
        row(3, **timed(8.0)),
    )
    figure = prediction_figure(trials, summary_of(latency_ms=12.0), "cpu")
    (held_out,) = traces(figure, "held out")
    assert list(held_out.x) == [network.measured_ms for network in NETWORKS]
    assert list(held_out.y) == [network.predicted_ms for network in NETWORKS]
    (searched,) = traces(figure, "measured in this search")
    assert list(zip(searched.x, searched.y, strict=True)) == [(9.5, 9.0), (15.0, 11.0)]
    (diagonal,) = traces(figure, "as measured")
    assert list(diagonal.x) == list(diagonal.y) == [5.0, 15.0]


def test_predictions_without_any_measurement_are_an_empty_figure(
    summary_of: Callable[..., RunSummary],
) -> None:
    run = summary_of(latency_ms=12.0, latency={"cpu": latency_summary(networks=())})
    assert not prediction_figure(evaluated((0.5, 1e9, 4.0)), run, "cpu").data


def test_latency_stands_against_macs_measured_apart_from_predicted(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(0, macs=1e9, **timed(9.0, 9.5, 0.1)),
        row(1, macs=1.5e9, **timed(8.0)),
        row(2, macs=4e9, state="infeasible", accuracy=float("nan"), **timed(30.0)),
        row(3, macs=1e9, state="failed", accuracy=float("nan"), **timed(7.0)),
    )
    figure = macs_latency_figure(trials, summary_of(latency_ms=12.0), "cpu")
    points = {trace.name: list(zip(trace.x, trace.y, strict=True)) for trace in figure.data}
    assert points == {
        "random, measured": [(n.macs / 1e9, n.measured_ms) for n in NETWORKS],
        "of this search, predicted": [(1.5, 8.0), (4.0, 30.0)],
        "of this search, measured": [(1.0, 9.5)],
    }
    (measured,) = traces(figure, "of this search, measured")
    assert "trial 0" in measured.text[0]
    assert "9.50 ms (IQR 0.10), 9.00 predicted" in measured.text[0]


def test_title_says_data_space_budget_and_both_sizes(summary_of: Callable[..., RunSummary]) -> None:
    title = pareto_figure(mixed(), summary_of()).layout.title.text
    for part in ("digits", "base", "2 GMACs", "224 px", "64 px"):
        assert part in title


# Pages


class Tags(HTMLParser):
    """Counts tags and remembers what they would load and what a reader sees."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "onerror")]

    def handle_data(self, data: str) -> None:
        if self.lasttag not in ("script", "style"):
            self.text += data


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 60])
@pytest.mark.parametrize("latency_ms", [None, 12.0])
def test_report_is_four_files_that_agree_even_for_none_or_one_trial(
    tmp_path: Path, summary_of: Callable[..., RunSummary], count: int, latency_ms: float | None
) -> None:
    trials = mixed(latency=latency_ms is not None, count=count)
    run = summary_of(latency_ms=latency_ms)
    write_report(tmp_path, trials, run)
    names = {"trials.csv", "pareto.csv", "pareto.html", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    saved = pd.read_csv(tmp_path / "trials.csv")
    assert saved.columns.tolist() == trial_columns(run.objectives)
    assert len(saved) == count
    front = pd.read_csv(tmp_path / "pareto.csv")
    assert front["number"].tolist() == pareto_front(trials, run.objectives)["number"].tolist()
    text = Tags((tmp_path / "report.html").read_text()).text
    assert ("No architecture was evaluated" in text) == (count == 0)


def test_report_page_answers_first_and_says_how_it_was_measured(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    trials = mixed()
    write_report(tmp_path, trials, summary_of(notes=("A note to keep.",)))
    text = Tags((tmp_path / "report.html").read_text()).text
    assert f"right on {100 * best(trials, BY_MACS)['accuracy']:.1f} % of the search split" in text
    for part in (
        "400 images at 64 px; chance 10.0 %",
        "not retrained",
        "multiply-adds of one image at 224 px",
        "nas search --budget 2GFLOPs",
        "about 8.1 × 10^14 architectures, 400 MMACs to 5 GMACs, 1 M params to 30 M params",
        "1,200 steps in 5 min 12 s",
        "A note to keep.",
        typed("retrain", tmp_path, "--top", "3"),
    ):
        assert part in text


@pytest.mark.parametrize("measured", [True, False])
def test_report_page_shows_each_device_s_latency_and_whether_it_was_measured(
    tmp_path: Path, summary_of: Callable[..., RunSummary], measured: bool
) -> None:
    trials = mixed(latency=True)
    run = summary_of(latency_ms=12.0, latency={"cpu": latency_summary(measured=measured)})
    write_report(tmp_path, trials, run)
    page = (tmp_path / "report.html").read_text()
    text = Tags(page).text
    for part in (
        f"{best(trials, BY_MACS)[CPU.value]:.3g} ms on cpu.",
        "Latency on cpu",
        "Some Chip, float32, batch 1",
        "MAPE 3.1% on 6 held-out networks",
        latency_text(best(trials, BY_MACS), CPU),
    ):
        assert part in text
    assert ("The device is not here" in text) == (not measured)
    for name in ("latency-cpu-prediction", "latency-cpu-macs"):
        assert f'id="{name}"' in page


@pytest.mark.parametrize("name", ["pareto.html", "report.html"])
def test_pages_hold_plotly_once_and_load_nothing(
    tmp_path: Path, summary_of: Callable[..., RunSummary], name: str
) -> None:
    write_report(tmp_path, mixed(), summary_of())
    page = (tmp_path / name).read_text()
    parsed = Tags(page)
    assert parsed.loads == []
    assert "default-src 'none'" in page
    assert page.count("* plotly.js v") == 1


def test_the_report_draws_the_front_and_says_what_its_words_mean(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    tiny = [PRESETS["tiny"].scaled(size) for size in (0.0, 0.5, 1.0)]
    known = {architecture.hash: architecture for architecture in tiny}
    costs = [total_cost(architecture).macs for architecture in tiny]
    rows = [
        row(n, hash=hash, macs=macs, accuracy=accuracy)
        for n, (hash, macs, accuracy) in enumerate(zip(known, costs, (0.6, 0.7, 0.5), strict=True))
    ]
    write_report(tmp_path, table(*rows, limited=()), summary_of(), architectures=known)
    page = (tmp_path / "report.html").read_text()
    parsed = Tags(page)
    assert parsed.tags.count("svg") == 2  # the third is on no front
    assert parsed.tags.count("details") == 1
    assert page.index("The best</b>, trial 1: 70.0 %") < page.index("<summary>trial 0: 60.0 %")
    assert parsed.loads == []
    for word in {word for architecture in tiny for word in architecture.words}:
        assert f"<code>{word.text}</code>" in page
        assert html.escape(word.meaning) in page
    labels = {s.label for architecture in tiny for s in segments(architecture)}
    conditions = LatencyConditions(device="phone", image_size=224, threads=1)
    times = LatencyTable(space="tiny", conditions=conditions, segments=dict.fromkeys(labels, 1.0))
    drawn = {"architectures": known, "tables": {"phone": times}}
    write_report(tmp_path, table(*rows, limited=()), summary_of(), **drawn)
    assert (tmp_path / "report.html").read_text().count(">time on phone</text>") == 2
    write_report(tmp_path, table(*rows, limited=()), summary_of())
    assert "svg" not in Tags((tmp_path / "report.html").read_text()).tags


def test_the_report_page_says_why_evaluations_failed(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    lost = {"state": "failed", "accuracy": float("nan")}
    trials = table(
        row(0),
        row(1, **lost, failure="RuntimeError: out of memory"),
        row(2, **lost, failure="RuntimeError: out of memory"),
        row(3, **lost, failure="class scores are not finite"),
    )
    write_report(tmp_path, trials, summary_of())
    text = Tags((tmp_path / "report.html").read_text()).text
    assert "2 failedRuntimeError: out of memory" in text
    assert "1 failedclass scores are not finite" in text


def test_hostile_names_stay_text_in_the_pages(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    plain = mixed()
    hostile = plain.assign(summary=HOSTILE, violation=HOSTILE, failure=HOSTILE, source=HOSTILE)
    write_report(tmp_path, plain, summary_of())
    tags = {name: Tags((tmp_path / name).read_text()) for name in ("pareto.html", "report.html")}
    texts = dict.fromkeys(("command", "data", "space", "device", "sampler"), HOSTILE)
    write_report(tmp_path, hostile, summary_of(**texts, notes=(HOSTILE,)))
    for name, before in tags.items():
        after = Tags((tmp_path / name).read_text())
        assert after.loads == []
        assert after.tags.count("script") == before.tags.count("script")
        assert "img" not in after.tags
    figure = pareto_figure(hostile, summary_of(data=HOSTILE))
    assert "<img" not in str(figure.to_dict())


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, summary_of: Callable[..., RunSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, mixed(count=1), summary_of())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, mixed(), summary_of())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Which choices matter


def pooled() -> tuple[pd.DataFrame, dict[str, Any]]:
    """Sixty architectures of nano, of which those with max pooling are 20 points better."""
    trials, known = evaluated_nano(60)
    better = trials["hash"].map(lambda hash: known[hash].stages[1].pooling == "max_pool")
    noise = np.random.default_rng(0).normal(0, 0.02, len(trials))
    return trials.assign(accuracy=0.4 + 0.2 * better + noise), known


def test_the_report_says_which_choices_matter_in_words_a_figure_and_a_table(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    trials, known = pooled()
    write_report(tmp_path, trials, summary_of(), architectures=known, space=NANO)
    page = (tmp_path / "report.html").read_text()
    text = Tags(page).text
    lead = re.search(r"stage 2, pooling: max_pool has ([\d.]+) points more than conv", text)
    assert lead is not None
    assert float(lead[1]) == pytest.approx(20, abs=2)
    assert text.index("Which choices matter, at equal MACs") < text.index("What to do next")
    assert "This is what the supernet says" in text
    assert 'id="effects"' in page
    saved = pd.read_csv(tmp_path / "effects.csv")
    assert list(saved) == [
        *("accuracy", "gene", "choice", "architectures", "points", "low", "high"),
    ]
    best = saved[(saved["gene"] == "stage2.pooling") & (saved["choice"] == "max_pool")].iloc[0]
    assert best["low"] < best["points"] < best["high"]
    assert f"max_pool{best['architectures']}{best['points']:+.1f}" in text
    assert set(saved["accuracy"]) == {"inherited"}


def test_the_figure_of_choices_has_a_row_for_each_below_its_gene_and_says_what_is_unknown() -> None:
    trials, known = pooled()
    rare = trials["hash"].map(lambda hash: known[hash].stages[0].feed_forward.ratio == 4)
    trials = pd.concat([trials[~rare], trials[rare][:1]])
    effects = RunEffects.of(trials, known, NANO)
    figure = effects_figure(effects)
    assert len(figure.data) == GENES_SHOWN
    first = figure.data[0]
    assert list(figure.layout.yaxis.ticktext)[:3] == ["<b>stage 2, pooling</b>", "conv", "max_pool"]
    assert list(first.y) == [1, 2]
    assert first.x[1] == pytest.approx(10, abs=2)
    gain = effects.inherited[0].choices[1].gain
    assert gain is not None
    assert 2 * first.error_x.array[1] == pytest.approx(100 * (gain.interval[1] - gain.interval[0]))
    assert first.marker.color != figure.data[-1].marker.color
    last = dataclasses.replace(effects, inherited=effects.inherited[-1:])
    assert [note.text for note in effects_figure(last).layout.annotations] == ["unknown"] * 2


def test_what_training_alone_says_of_choices_stands_beside_what_was_inherited(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    trials, known = pooled()
    run = summary_of(short_list=10)
    few = trials.assign(tried=trials["accuracy"].where(trials.index < 10), tried_steps=90.0)
    write_report(tmp_path, few, run, architectures=known, space=NANO)
    text = Tags((tmp_path / "report.html").read_text()).text
    assert "10 were trained alone, too few to say the same" in text
    many = trials.assign(tried=1 - trials["accuracy"], tried_steps=90.0)
    write_report(tmp_path, many, run, architectures=known, space=NANO)
    text = Tags((tmp_path / "report.html").read_text()).text
    assert "points, alone (95 %)" in text
    assert re.search(r"max_pool\d+\+\d+\.\d \([^)]*\)-\d", text)
    figure = effects_figure(RunEffects.of(many, known, NANO))
    assert {trace.name for trace in figure.data} == {"inherited", "alone"}
    saved = pd.read_csv(tmp_path / "effects.csv")
    assert set(saved["accuracy"]) == {"inherited", "alone"}


def test_too_few_trials_to_say_which_choices_matter_are_one_sentence(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    trials, known = evaluated_nano(6)
    write_report(tmp_path, trials, summary_of(), architectures=known, space=NANO)
    page = (tmp_path / "report.html").read_text()
    assert "6 evaluated architectures are too few to say (20 are needed)." in Tags(page).text
    assert 'id="effects"' not in page
    assert not (tmp_path / "effects.csv").exists()


def test_a_run_without_clear_choices_says_so(
    tmp_path: Path, summary_of: Callable[..., RunSummary]
) -> None:
    trials, known = evaluated_nano(30)
    write_report(tmp_path, trials, summary_of(), architectures=known, space=NANO)
    text = Tags((tmp_path / "report.html").read_text()).text
    assert "None of the 9 genes shows a clear difference at equal MACs" in text


# Terminal


def render(trials: pd.DataFrame, run: RunSummary, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(trials, run))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("latency_ms", [None, 12.0])
def test_summary_fits_the_terminal_and_a_hundred_columns(
    summary_of: Callable[..., RunSummary], width: int, latency_ms: float | None
) -> None:
    trials = mixed(latency=latency_ms is not None).assign(summary="x" * 200 + " | y")
    text = render(trials, summary_of(latency_ms=latency_ms), width)
    assert max(map(len, text.splitlines())) <= min(width, 100)


def test_summary_sets_the_best_beside_the_smallest_and_the_largest_evaluated(
    summary_of: Callable[..., RunSummary],
) -> None:
    trials = table(
        row(0, accuracy=0.40, macs=400_000_000, **timed(1.25)),
        row(1, accuracy=0.90, macs=1_500_000_000, **timed(4.0, 4.2, 0.1)),
        row(2, accuracy=0.80, macs=1_900_000_000, **timed(6.0)),
        row(3, state="infeasible", accuracy=float("nan"), macs=4_000_000_000),
    )
    lines = render(trials, summary_of(latency_ms=12.0), 120).splitlines()
    cells = {line[:18].strip(): line[18:].split() for line in lines}
    assert cells["trial"] == ["1", "0", "2"]
    # One standard error of 400 images: sqrt(0.9 * 0.1 / 400) = 1.5 %.
    assert cells["accuracy at 64 px"][:4] == ["90.0", "±", "1.5", "%"]
    assert cells["MACs at 224 px"] == ["1.5", "G", "400", "M", "1.9", "G"]
    assert cells["ms on cpu"] == ["4.20", "(IQR", "0.10)", *2 * ["not", "measured"]]
    assert cells["predicted, cpu"] == ["4.00", "1.25", "6.00"]
    text = " ".join(" ".join(lines).split())
    assert "400 images at 64 px; chance 10.0 %" in text
    assert "4 decided (3 evaluated, 1 over a limit" in text
    assert "4 G" not in text
    assert "latency on cpu: Some Chip, float32, batch 1" in text


def test_summary_names_one_trial_by_all_its_roles(summary_of: Callable[..., RunSummary]) -> None:
    assert "best, smallest, largest" in render(evaluated((0.5, 1e9)), summary_of(), 100)


def test_summary_shows_names_as_they_are(summary_of: Callable[..., RunSummary]) -> None:
    text = render(table(row(0, summary="[red]x[/]")), summary_of(data="[bold]"), 100)
    for part in ("[red]x[/]", "[bold], space base"):
        assert part in text


def test_summary_of_nothing_says_so(summary_of: Callable[..., RunSummary]) -> None:
    assert "no architecture was evaluated" in render(table(), summary_of(), 100)


# Model card


def model(**changes: Any) -> ModelSummary:
    values: dict[str, Any] = {
        "name": "best",
        "trial": row(26, hash="0123456789abcdef", accuracy=0.9, macs=1_871_234_567),
        "stages": [{"stage": 1, "width": 64}, {"stage": 2, "width": 128}],
        "words": [(["ff 2", "ff 4"], "Linear, GELU, linear")],
        "class_names": ["zero", "one|two", "<b>_x_"],
        "mean": (0.5, 0.25, 0.5),
        "std": (0.2, 0.2, 0.2),
        "crop": 0.95,
    }
    return ModelSummary(**(values | changes))


TRIED = [
    row(0, hash="a", accuracy=0.6, macs=2e9, tried=0.8, tried_steps=180),
    row(1, hash="b", accuracy=0.7, macs=1e9, tried=0.75, tried_steps=60),
    row(2, hash="c", accuracy=0.9, macs=1.5e9),
    row(3, hash="d", accuracy=0.5, macs=1.8e9, tried=0.7, tried_steps=60),
]
"""Of which the short list was all but the one with the highest inherited accuracy."""


def test_what_was_tried_is_judged_by_that_and_alone() -> None:
    trials = table(*TRIED, limited=())
    chosen = judged(trials)
    assert list(chosen["hash"]) == ["a", "b", "d"]
    assert list(chosen["accuracy"]) == [0.8, 0.75, 0.7]
    assert list(chosen["inherited"]) == [0.6, 0.7, 0.5]
    assert list(ranked_front(chosen, BY_MACS)["hash"]) == ["a", "b"]
    assert [(name, row["hash"]) for name, row in anchors(trials, BY_MACS)] == [
        ("best, largest", "a"),
        ("smallest", "b"),
    ]
    untried = table(row(0), row(1, hash="b", accuracy=0.6), limited=())
    assert list(judged(untried)["accuracy"]) == list(judged(untried)["inherited"]) == [0.5, 0.6]


def test_of_what_lies_within_its_errors_the_smallest_loss_stands_first() -> None:
    def tried(number: int, accuracy: float, loss: float, macs: float) -> dict[str, Any]:
        alone = {"tried": accuracy, "tried_loss": loss, "tried_steps": 90.0, "tried_images": 600.0}
        return row(number, hash=str(number), accuracy=0.5, macs=macs, **alone)

    rows = [
        tried(0, 0.982, 0.156, 1.9e9),  # the most accurate, by two images
        tried(1, 0.978, 0.153, 2.0e9),
        tried(2, 0.979, 0.170, 1.8e9),
        tried(3, 0.960, 0.100, 1.7e9),  # surer of its answers, but two standard errors behind
        tried(4, 0.955, 0.090, 1.6e9),  # within the error of that one
    ]
    chosen = judged(table(*rows, limited=()))
    assert dict(zip(chosen["number"], chosen["standing"], strict=True)) == {
        **{0: 2, 1: 1, 2: 3},
        **{3: 5, 4: 4},
    }
    assert best(chosen, BY_MACS)["number"] == 1
    # All but the last but one: what stands before it is cheaper, too.
    front = ranked_front(chosen, BY_MACS)
    assert list(front["number"]) == [1, 0, 2, 4]
    assert list(front.index) == [1, 2, 3, 4]
    unknown = judged(table(*({**some, "tried_loss": math.nan} for some in rows), limited=()))
    assert best(unknown, BY_MACS)["number"] == 0  # as in a run that noted no losses
    assert list(unknown["standing"]) == [1, 3, 2, 4, 5]


def test_those_that_were_in_the_final_stand_first_by_what_fresh_weights_gave() -> None:
    def tried(number: int, accuracy: float, **final: float) -> dict[str, Any]:
        alone = {"tried": accuracy, "tried_loss": 0.5, "tried_steps": 90.0, "tried_images": 600.0}
        return row(number, hash=str(number), macs=1e9 + number, **alone, **final)

    rows = [
        tried(0, 0.98, scratch=0.60, scratch_loss=1.1),
        tried(1, 0.96, scratch=0.80, scratch_loss=0.7),
        tried(2, 0.95, scratch=0.79, scratch_loss=0.6),  # as accurate, within errors
        tried(3, 0.97),  # whose training from fresh weights failed
        tried(4, 0.90),
    ]
    for final in rows[:3]:
        final["scratch_steps"] = 800.0
    chosen = judged(table(*rows, limited=()))
    standing = dict(zip(chosen["number"], chosen["standing"], strict=True))
    assert standing == {2: 1, 1: 2, 0: 3, 3: 4, 4: 5}
    assert list(chosen.sort_values("number")["accuracy"]) == [0.98, 0.96, 0.95, 0.97, 0.90]
    # Where the others have failed nothing was compared: the most accurate stands first.
    left = judged(table(rows[1], rows[3], rows[4], limited=()))
    assert best(left, BY_MACS)["number"] == 3


def test_a_final_says_how_well_the_supernet_had_ranked_it(
    summary_of: Callable[..., RunSummary], tmp_path: Path
) -> None:
    def finalist(number: int, loss: float, scratch: float) -> dict[str, Any]:
        alone = {"tried": 0.9, "tried_loss": 0.5, "tried_steps": 90.0, "tried_images": 600.0}
        final = {"scratch": scratch, "scratch_steps": 800.0, "scratch_loss": 0.9}
        return row(number, hash=str(number), loss=loss, **alone, **final)

    run = summary_of(short_list=6, finalists=6)
    # By loss 1, 2, 3, 4, 5; of the ten pairs, two stand the other way round alone.
    rows = [finalist(n, 1.0 + n, s) for n, s in enumerate((0.7, 0.8, 0.6, 0.4, 0.5))]
    text = run.ranking_text(table(*rows, limited=()))
    assert "the 5 finalists: Kendall's tau-b 0.60 between" in text
    assert "(1: the same order; chance: 0 ± 0.41)" in text
    beside = {**finalist(9, 0.5, math.nan), "scratch_loss": math.nan}
    assert run.ranking_text(table(*rows, beside, limited=())) == text
    assert run.ranking_text(table(*rows[:4], limited=())) == ""
    equal = [finalist(n, 1.0 + n, 0.5) for n in range(5)]
    assert run.ranking_text(table(*equal, limited=())) == ""
    assert text in " ".join(render(table(*rows, limited=()), run, 400).split())
    write_report(tmp_path, table(*rows, limited=()), run)
    told = f" H{html.escape(text[1:])}."
    assert told in (tmp_path / "report.html").read_text()


def test_tables_pages_and_cards_say_what_the_final_gave(
    summary_of: Callable[..., RunSummary], tmp_path: Path
) -> None:
    final = {"scratch": 0.65, "scratch_steps": 800.0, "scratch_loss": 0.9}
    known = {"tried_loss": 0.5, "tried_images": 400.0}
    rows = [{**TRIED[0], **known, **final}, {**TRIED[1], **known}]
    run, trials = summary_of(short_list=2, finalists=1), table(*rows, limited=())
    shown = render(trials, run, 200)
    assert re.search(r"scratch at 64 px +65.0 ± 2.4 % ", shown)
    write_report(tmp_path, trials, run)
    page = (tmp_path / "report.html").read_text()
    assert "(65.0 % after 800 from fresh weights, by which it was chosen)" in page
    assert "2 trained alone, 1 of them also from fresh weights, in" in page
    (_, best_row), *_ = judged(trials).iterrows()
    card = model_card(model(trial=best_row.to_dict()), run)
    assert "fresh ones, gave 65.0 % after 800 steps; by that it was ranked" in " ".join(
        card.split()
    )


def test_tables_pages_and_cards_say_which_accuracy_is_which(
    summary_of: Callable[..., RunSummary], tmp_path: Path
) -> None:
    run, trials = summary_of(short_list=3), table(*TRIED, limited=())
    shown = render(trials, run, 200)
    assert re.search(r"alone at 64 px +80.0 ± 2.0 % +75.0 ± 2.2 %", shown)
    assert re.search(r"steps alone +180 +60 ", shown)
    assert re.search(r"inherited at 64 px +60.0 ± 2.4 % +70.0 ± 2.3 %", shown)
    write_report(tmp_path, trials, run)
    page = (tmp_path / "report.html").read_text()
    assert "right on <b>80.0 %</b> of the search split after 180 steps of training alone" in page
    assert "3 trained alone in" in page
    front = pd.read_csv(tmp_path / "pareto.csv")
    assert list(front["accuracy"]) == [0.75, 0.8]
    assert list(front["inherited"]) == [0.7, 0.6]
    (_, best_row), *_ = judged(trials).iterrows()
    card = model_card(model(trial=best_row.to_dict()), run)
    assert "80.0 ± 2.0 % on the search split" in card
    assert "then trained alone for 180 steps; inherited, they gave 60.0 %" in card
    names = {trace.name for trace in pareto_figure(trials, run).data}
    assert {"trained alone", "evaluated, inherited accuracy", "best, 80.0 %"} <= names


def test_a_run_that_learned_nothing_says_so_and_what_to_raise(
    summary_of: Callable[..., RunSummary], tmp_path: Path
) -> None:
    run = summary_of()  # 400 images of ten classes: one standard error is 1.5 points
    near = table(*(row(n, hash=str(n), accuracy=0.1 + 0.002 * n) for n in range(20)), limited=())
    assert "within noise of chance" in run.warning(near)
    assert "--steps" in run.warning(near) and "--proxy-size" in run.warning(near)
    assert "within noise of chance" in render(near, run, 200).replace("\n", " ")
    write_report(tmp_path, near, run)
    page = (tmp_path / "report.html").read_text()
    assert page.index("within noise of chance") < page.index("The best architecture")
    assert not run.warning(table(row(0, accuracy=0.3), limited=()))


def test_who_always_names_the_largest_class_has_learned_nothing(
    summary_of: Callable[..., RunSummary],
) -> None:
    near = table(*(row(n, hash=str(n), accuracy=0.9) for n in range(20)), limited=())
    run = summary_of(num_classes=2, largest_class=0.9)
    assert run.warning(near).startswith("The accuracies are within noise of chance: the best has")
    assert "always naming the largest class gives 90.0 %" in run.warning(near)
    assert "px; always naming the largest class gives 90.0 %)" in run.accuracy_text
    assert not summary_of(num_classes=2, largest_class=0.6).warning(near)
    by_luck = summary_of(num_classes=2, largest_class=0.54)  # of 400 images
    assert "chance 50.0 %" in by_luck.accuracy_text
    assert (
        "naming the largest class gives 60.0 %"
        in summary_of(num_classes=2, largest_class=0.6).accuracy_text
    )


def test_a_short_list_that_was_drawn_from_noise_is_called_so(
    summary_of: Callable[..., RunSummary],
) -> None:
    run = summary_of(short_list=2)
    noise = [row(n, hash=str(n), accuracy=0.1 + 0.002 * n) for n in range(18)]
    tried = [
        row(n, hash=str(n), accuracy=0.11, tried=accuracy, tried_steps=60)
        for n, accuracy in ((18, 0.8), (19, 0.3))
    ]
    warning = run.warning(table(*noise, *tried, limited=()))
    assert "inherited accuracies are within noise of chance" in warning
    assert "nearly at random" in warning and "--steps" in warning
    better = row(20, hash="20", accuracy=0.3)
    assert not run.warning(table(*noise, *tried, better, limited=()))


def test_model_card_tells_costs_accuracy_conditions_and_how_to_load(
    summary_of: Callable[..., RunSummary],
) -> None:
    card = model_card(model(), summary_of())
    for part in (
        "Trial 26 of the run,\narchitecture `0123456789abcdef`",
        "| MACs | 1,871,234,567 (1.87 G) | multiply-adds of one image at 224 px |",
        "| params | 12,345,678 (12.3 M) | parameters with 10 classes |",
        "90.0 ± 1.5 % on the search split: 400 images",
        "**not retrained**",
        "](architecture.svg)",
        "| stage | width |\n| --- | --- |\n| 1 | 64 |\n| 2 | 128 |",
        "| ff 2, ff 4 | Linear, GELU, linear |",
        'timm.create_model("subnet", architecture="architecture.json", pretrained=True)',
        "its shorter side is resized\nto 67 px (bicubic)",
        "the middle 64 × 64 are kept (crop_pct\n0.95)",
        "(0.5, 0.25, 0.5)",
    ):
        assert part in card
    assert "latency" not in card


def test_model_card_gives_each_latency_with_its_conditions(
    summary_of: Callable[..., RunSummary],
) -> None:
    run = summary_of(
        limits={CPU.value: 12.0, PHONE.value: 40.0},
        latency={"cpu": latency_summary(), "phone": latency_summary(conditions="phone, float16")},
    )
    trial = row(26, **timed(4.0, 4.2, 0.1), **timed(30.0, on=PHONE))
    card = model_card(model(trial=trial), run)
    told = "4.20 ms (IQR 0.10), 4.00 predicted"
    assert f"| latency on cpu | {told} | Some Chip, float32, batch 1 |" in card
    assert "| latency on phone | 30.00 ms predicted | phone, float16 |" in card
    assert "under the budget 12 ms on cpu, 40 ms on phone" in card


def test_model_card_shows_names_as_they_are(summary_of: Callable[..., RunSummary]) -> None:
    card = model_card(model(stages=[{"a": "x|y\nz"}]), summary_of())
    assert r"zero, one\|two, &lt;b&gt;\_x\_." in card
    assert "| x\\|y z |" in card


def test_importing_the_report_imports_neither_pandas_nor_plotly_nor_torch() -> None:
    heavy = "{'pandas', 'plotly', 'torch', 'optuna', 'ray'}"
    code = f"import sys, nas.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_of_each_class_it_is_said_how_accurate_it_is_and_what_it_is_taken_for() -> None:
    cat, dog, eel, fox = class_accuracies(
        [[8, 0, 2, 0], [3, 5, 1, 1], [0, 0, 0, 0], [0, 0, 0, 4]], ["cat", "dog", "eel", "fox"]
    )
    assert (cat.name, cat.images, cat.accuracy, cat.mistaken_for) == ("cat", 10, 0.8, "eel")
    assert (dog.accuracy, dog.mistaken_for) == (0.5, "cat")
    assert (eel.images, eel.accuracy, eel.mistaken_for) == (0, None, None)
    assert (fox.accuracy, fox.mistaken_for) == (1.0, None)
