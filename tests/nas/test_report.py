import io
import itertools
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from nas.report import (
    TRIAL_COLUMNS,
    ModelFacts,
    RunFacts,
    best,
    hypervolume,
    hypervolume_trace,
    model_card,
    next_commands,
    pareto_figure,
    pareto_front,
    summary_table,
    write_report,
)

HOSTILE = "</script><img src=x onerror=alert(1)> | [red] & 'quoted'"


def row(number: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "number": number,
        "hash": f"{number:016x}",
        "state": "evaluated",
        "accuracy": 0.5,
        "macs": 1_000_000_000,
        "params": 12_345_678,
        "latency_ms": float("nan"),
        "latency_iqr_ms": float("nan"),
        "source": "sampler",
        "seconds": 1.5,
        "violation": "",
        "summary": "64-128 x 1-2 | conv max",
    }
    return values | changes


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows), columns=list(TRIAL_COLUMNS))


def evaluated(*points: tuple[float, ...]) -> pd.DataFrame:
    """One evaluated trial per (accuracy, macs) or (accuracy, macs, latency)."""
    names = ("accuracy", "macs", "latency_ms")
    return table(
        *(
            row(number, **dict(zip(names, point, strict=False)))
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
        rows.append(
            row(
                number,
                state=state,
                accuracy=min(accuracy, 0.95) if state == "evaluated" else float("nan"),
                macs=macs,
                latency_ms=macs / 2e8 * random.uniform(0.8, 1.2) if latency else float("nan"),
                latency_iqr_ms=0.1 if latency else float("nan"),
                source="smallest" if number == 0 else "sampler",
                violation="macs over the limit" if over else "",
            )
        )
    return table(*rows)


@pytest.fixture
def facts() -> Callable[..., RunFacts]:
    def build(*, latency_ms: float | None = None, **changes: Any) -> RunFacts:
        values: dict[str, Any] = {
            "command": "python run_search.py --budget 2GFLOPs",
            "data": "digits",
            "num_classes": 10,
            "search_images": 400,
            "space": "base",
            "space_size": 812_345_678_901_234,
            "limits": {"macs": 2e9, "params": None, "latency_ms": latency_ms},
            "smallest_macs": 400_000_000,
            "largest_macs": 5_000_000_000,
            "image_size": 224,
            "proxy_size": 64,
            "sampler": "nsga2",
            "seed": 0,
            "device": "cpu",
            "supernet_steps": 1200,
            "supernet_seconds": 312.4,
            "search_seconds": 151.0,
            "latency_conditions": "cpu, float32, batch 1" if latency_ms else "",
        }
        return RunFacts(**(values | changes))

    return build


# Front, best and hypervolume


def test_front_is_what_no_other_trial_dominates_by_pairwise_comparison() -> None:
    random = np.random.default_rng(1)
    trials = evaluated(*random.integers(1, 8, size=(60, 3)).tolist())
    points = [(-r.accuracy, r.macs, r.latency_ms) for r in trials.itertuples()]

    def beats(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
        return a != b and all(x <= y for x, y in zip(a, b, strict=True))

    expected = {p for p in points if not any(beats(q, p) for q in points)}
    front = pareto_front(trials, ("accuracy", "macs", "latency_ms"))
    found = [(-r.accuracy, r.macs, r.latency_ms) for r in front.itertuples()]
    assert set(found) == expected
    assert len(found) == len(expected)
    assert front["macs"].is_monotonic_increasing


def test_front_keeps_the_first_of_equal_trials() -> None:
    front = pareto_front(evaluated((0.8, 100), (0.8, 100), (0.7, 90)), ("accuracy", "macs"))
    assert front["number"].tolist() == [2, 0]


def test_latency_keeps_a_trial_that_accuracy_and_macs_alone_would_drop() -> None:
    trials = evaluated((0.8, 100, 9.0), (0.7, 110, 3.0))
    assert pareto_front(trials, ("accuracy", "macs"))["number"].tolist() == [0]
    assert pareto_front(trials, ("accuracy", "macs", "latency_ms"))["number"].tolist() == [0, 1]


@pytest.mark.parametrize("state", ["infeasible", "duplicate", "failed"])
def test_only_evaluated_trials_can_be_best_or_on_the_front(state: str) -> None:
    trials = table(row(0, accuracy=0.6), row(1, accuracy=0.9, macs=5, state=state))
    assert best(trials)["number"] == 0
    assert pareto_front(trials, ("accuracy", "macs"))["number"].tolist() == [0]


def test_an_architecture_evaluated_twice_is_on_the_front_once() -> None:
    trials = table(row(0, hash="a" * 16), row(1, hash="a" * 16, accuracy=0.9))
    assert pareto_front(trials, ("accuracy", "macs"))["number"].tolist() == [0]


def test_best_is_most_accurate_and_among_equals_cheapest() -> None:
    assert best(evaluated((0.7, 1), (0.9, 30), (0.9, 20)))["number"] == 2


def test_best_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no trial was evaluated"):
        best(table())


@pytest.mark.parametrize("objectives", [2, 3])
def test_hypervolume_equals_inclusion_and_exclusion(objectives: int) -> None:
    points = np.random.default_rng(2).uniform(size=(9, objectives))
    points[4] = points[3]
    gains = np.column_stack([points[:, 0], 1 - points[:, 1:]])
    expected = 0.0
    for size in range(1, len(gains) + 1):
        for chosen in itertools.combinations(gains, size):
            expected += (-1) ** (size + 1) * float(np.min(chosen, axis=0).prod())
    reference = [0.0] + [1.0] * (objectives - 1)
    assert hypervolume(points, reference) == pytest.approx(expected, rel=1e-12)


def test_hypervolume_of_known_points() -> None:
    assert hypervolume([(0.8, 0.5)], (0, 1)) == pytest.approx(0.4)
    assert hypervolume([(0.8, 0.5), (0.4, 0.25)], (0, 1)) == pytest.approx(0.4 + 0.4 * 0.25)
    assert hypervolume([(0.5, 0.5, 0.5)], (0, 1, 1)) == pytest.approx(0.125)


def test_points_beyond_the_reference_add_nothing_to_the_hypervolume() -> None:
    inside = [(0.8, 0.5)]
    outside = [(0.9, 1.2), (0.0, 0.1), (float("nan"), 0.1)]
    assert hypervolume(inside + outside, (0, 1)) == hypervolume(inside, (0, 1))
    assert hypervolume([], (0, 1, 1)) == 0.0


def test_hypervolume_trace_never_falls_and_ends_at_the_volume_of_the_front(
    facts: Callable[..., RunFacts],
) -> None:
    trials, run = mixed(latency=True), facts(latency_ms=12.0)
    trace = hypervolume_trace(trials, run)
    front = pareto_front(trials, run.objectives)
    shares = np.column_stack([front["accuracy"], front["macs"] / 2e9, front["latency_ms"] / 12.0])
    assert len(trace) == (trials["state"] == "evaluated").sum()
    assert trace == sorted(trace)
    assert trace[-1] == pytest.approx(hypervolume(shares, (0, 1, 1)))


def test_without_a_limit_on_macs_their_scale_is_the_largest_architecture(
    facts: Callable[..., RunFacts],
) -> None:
    run = facts(limits={"macs": None, "params": 1e7, "latency_ms": None})
    assert hypervolume_trace(evaluated((0.6, 2.5e9)), run) == [pytest.approx(0.6 * 0.5)]


# Figure


def traces(figure: Any, name: str) -> list[Any]:
    return [trace for trace in figure.data if (trace.name or "").startswith(name)]


def test_trials_without_accuracy_stand_in_the_strip_and_not_among_the_accuracies(
    facts: Callable[..., RunFacts],
) -> None:
    trials = mixed()
    figure = pareto_figure(trials, facts())
    (over,) = traces(figure, "over a limit")
    (failed,) = traces(figure, "failed")
    assert len(over.x) == (trials["state"] == "infeasible").sum()
    assert {over.yaxis, failed.yaxis} == {"y2"}
    accuracies = [trace for trace in figure.data if trace.yaxis == "y" and trace.mode == "markers"]
    shown = {text.split(":")[0] for trace in accuracies for text in trace.hovertext or ()}
    assert len(shown) == (trials["state"] == "evaluated").sum()
    assert figure.layout.yaxis2.domain[1] == figure.layout.yaxis.domain[0]


def test_star_is_the_best_trial_and_the_dashed_line_is_the_limit(
    facts: Callable[..., RunFacts],
) -> None:
    trials = mixed()
    figure = pareto_figure(trials, facts())
    (star,) = traces(figure, "best, ")
    assert star.x[0] == best(trials)["macs"] / 1e9
    assert star.y[0] == pytest.approx(100 * best(trials)["accuracy"])
    (line,) = figure.layout.shapes
    assert line.x0 == line.x1 == 2.0
    # plotly places a shape by value, and an annotation on a logarithmic axis by its logarithm.
    (label,) = [note for note in figure.layout.annotations if note.text == "limit 2 GMACs"]
    assert label.x == pytest.approx(np.log10(2.0))


def test_step_line_is_the_best_accuracy_up_to_each_cost_and_ends_at_the_limit(
    facts: Callable[..., RunFacts],
) -> None:
    figure = pareto_figure(evaluated((0.5, 1e9), (0.4, 1.2e9), (0.7, 1.5e9)), facts())
    (line,) = traces(figure, "best accuracy up to")
    assert list(line.x) == [1.0, 1.5, 2.0]
    assert list(line.y) == pytest.approx([50.0, 70.0, 70.0])


def test_cost_axis_is_logarithmic_only_where_costs_span_much(
    facts: Callable[..., RunFacts],
) -> None:
    assert pareto_figure(mixed(), facts()).layout.xaxis.type == "log"
    near = evaluated((0.5, 1.0e9), (0.6, 1.5e9))
    assert pareto_figure(near, facts()).layout.xaxis.type is None


def test_a_latency_limit_adds_a_panel_with_its_own_limit(facts: Callable[..., RunFacts]) -> None:
    assert "xaxis2" not in pareto_figure(mixed(), facts()).layout
    figure = pareto_figure(mixed(latency=True), facts(latency_ms=12.0))
    assert [shape.x0 for shape in figure.layout.shapes] == [2.0, 12.0]
    assert figure.layout.yaxis3.domain[1] < figure.layout.yaxis2.domain[0]


def test_hover_tells_number_accuracy_costs_architecture_and_why_it_was_not_evaluated(
    facts: Callable[..., RunFacts],
) -> None:
    trials = table(
        row(3, accuracy=0.81, latency_ms=4.2, latency_iqr_ms=0.1, source="deit"),
        row(4, state="infeasible", accuracy=float("nan"), macs=3 * 10**9, violation="1 G over"),
    )
    figure = pareto_figure(trials, facts())
    (good,) = traces(figure, "best, ")[0].hovertext
    for part in ("trial 3", "deit", "81.0 %", "1 GMACs", "12.3 M params", "4.20 ms (IQR 0.10)"):
        assert part in good
    assert good.endswith("64-128 x 1-2<br>conv max")
    (bad,) = traces(figure, "over a limit")[0].hovertext
    assert "trial 4" in bad
    assert "1 G over" in bad
    assert "%" not in bad


def test_title_says_data_space_budget_and_both_sizes(facts: Callable[..., RunFacts]) -> None:
    title = pareto_figure(mixed(), facts()).layout.title.text
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


@pytest.mark.parametrize("count", [0, 1, 60])
@pytest.mark.parametrize("latency_ms", [None, 12.0])
def test_report_is_four_files_that_agree_even_for_none_or_one_trial(
    tmp_path: Path, facts: Callable[..., RunFacts], count: int, latency_ms: float | None
) -> None:
    trials = mixed(latency=latency_ms is not None, count=count)
    run = facts(latency_ms=latency_ms)
    write_report(tmp_path, trials, run)
    names = {"trials.csv", "pareto.csv", "pareto.html", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == names
    saved = pd.read_csv(tmp_path / "trials.csv")
    assert saved.columns.tolist() == list(TRIAL_COLUMNS)
    assert len(saved) == count
    front = pd.read_csv(tmp_path / "pareto.csv")
    assert front["number"].tolist() == pareto_front(trials, run.objectives)["number"].tolist()
    text = Tags((tmp_path / "report.html").read_text()).text
    assert ("No architecture was evaluated" in text) == (count == 0)


def test_report_page_answers_first_and_says_how_it_was_measured(
    tmp_path: Path, facts: Callable[..., RunFacts]
) -> None:
    trials = mixed()
    write_report(tmp_path, trials, facts(notes=("A note to keep.",)))
    text = Tags((tmp_path / "report.html").read_text()).text
    assert f"right on {100 * best(trials)['accuracy']:.1f} % of the search split" in text
    for part in (
        "400 images at 64 px; chance 10.0 %",
        "not retrained",
        "multiply-adds of one image at 224 px",
        "python run_search.py --budget 2GFLOPs",
        "about 8.1 × 10^14 architectures, 400 MMACs to 5 GMACs",
        "1,200 steps in 5 min 12 s",
        "A note to keep.",
        f"python -m nas retrain {tmp_path} --top 3",
    ):
        assert part in text


@pytest.mark.parametrize("name", ["pareto.html", "report.html"])
def test_pages_hold_plotly_once_and_load_nothing(
    tmp_path: Path, facts: Callable[..., RunFacts], name: str
) -> None:
    write_report(tmp_path, mixed(), facts())
    page = (tmp_path / name).read_text()
    parsed = Tags(page)
    assert parsed.loads == []
    assert "default-src 'none'" in page
    assert page.count("* plotly.js v") == 1


def test_hostile_names_stay_text_in_the_pages(
    tmp_path: Path, facts: Callable[..., RunFacts]
) -> None:
    plain = mixed()
    hostile = plain.assign(summary=HOSTILE, violation=HOSTILE, source=HOSTILE)
    write_report(tmp_path, plain, facts())
    tags = {name: Tags((tmp_path / name).read_text()) for name in ("pareto.html", "report.html")}
    texts = dict.fromkeys(("command", "data", "space", "device", "sampler"), HOSTILE)
    write_report(tmp_path, hostile, facts(**texts, notes=(HOSTILE,)))
    for name, before in tags.items():
        after = Tags((tmp_path / name).read_text())
        assert after.loads == []
        assert after.tags.count("script") == before.tags.count("script")
        assert "img" not in after.tags
    figure = pareto_figure(hostile, facts(data=HOSTILE))
    assert "<img" not in str(figure.to_dict())


def test_a_failed_write_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, facts: Callable[..., RunFacts], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(tmp_path, mixed(count=1), facts())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, mixed(), facts())
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_next_commands_quote_the_folder() -> None:
    commands = [command for _, command in next_commands(Path("results/my run"))]
    assert "python -m nas retrain 'results/my run' --top 3" in commands


# Terminal


def render(trials: pd.DataFrame, run: RunFacts, width: int) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(trials, run))
    return console.export_text()


@pytest.mark.parametrize("width", [80, 200])
@pytest.mark.parametrize("latency_ms", [None, 12.0])
def test_summary_fits_the_terminal_and_a_hundred_columns(
    facts: Callable[..., RunFacts], width: int, latency_ms: float | None
) -> None:
    trials = mixed(latency=latency_ms is not None).assign(summary="x" * 200 + " | y")
    text = render(trials, facts(latency_ms=latency_ms), width)
    assert max(map(len, text.splitlines())) <= min(width, 100)


def test_summary_sets_the_best_beside_the_smallest_and_the_largest_evaluated(
    facts: Callable[..., RunFacts],
) -> None:
    trials = table(
        row(0, accuracy=0.40, macs=400_000_000),
        row(1, accuracy=0.90, macs=1_500_000_000, latency_ms=4.2, latency_iqr_ms=0.1),
        row(2, accuracy=0.80, macs=1_900_000_000),
        row(3, state="infeasible", accuracy=float("nan"), macs=4_000_000_000),
    )
    lines = render(trials, facts(latency_ms=12.0), 120).splitlines()
    cells = {line[:18].strip(): line[18:].split() for line in lines}
    assert cells["trial"] == ["1", "0", "2"]
    # One standard error of 400 images: sqrt(0.9 * 0.1 / 400) = 1.5 %.
    assert cells["accuracy at 64 px"][:4] == ["90.0", "±", "1.5", "%"]
    assert cells["MACs at 224 px"] == ["1.5", "G", "400", "M", "1.9", "G"]
    assert cells["latency"] == ["4.20", "ms", "(IQR", "0.10)", "–", "–"]
    text = "\n".join(lines)
    assert "400 images at 64 px; chance 10.0 %" in text
    assert "4 decided (3 evaluated, 1 over a limit" in text
    assert "4 G" not in text


def test_summary_names_one_trial_by_all_its_roles(facts: Callable[..., RunFacts]) -> None:
    assert "best, smallest, largest" in render(evaluated((0.5, 1e9)), facts(), 100)


def test_summary_shows_names_as_they_are(facts: Callable[..., RunFacts]) -> None:
    text = render(table(row(0, summary="[red]x[/]")), facts(data="[bold]"), 100)
    for part in ("[red]x[/]", "[bold], space base"):
        assert part in text


def test_summary_of_nothing_says_so(facts: Callable[..., RunFacts]) -> None:
    assert "no architecture was evaluated" in render(table(), facts(), 100)


# Model card


def model(**changes: Any) -> ModelFacts:
    values: dict[str, Any] = {
        "name": "best",
        "number": 26,
        "hash": "0123456789abcdef",
        "summary": "64-128 x 1-2 | conv max",
        "accuracy": 0.9,
        "macs": 1_871_234_567,
        "params": 12_345_678,
        "latency_ms": None,
        "latency_iqr_ms": None,
        "stages": [{"stage": 1, "width": 64}, {"stage": 2, "width": 128}],
        "class_names": ["zero", "one|two", "<b>_x_"],
        "mean": (0.5, 0.25, 0.5),
        "std": (0.2, 0.2, 0.2),
    }
    return ModelFacts(**(values | changes))


def test_model_card_tells_costs_accuracy_conditions_and_how_to_load(
    facts: Callable[..., RunFacts],
) -> None:
    card = model_card(model(), facts())
    for part in (
        "| MACs | 1,871,234,567 (1.87 G) | multiply-adds, at 224 px |",
        "| params | 12,345,678 (12.3 M) | with 10 classes |",
        "90.0 ± 1.5 % on the search split: 400 images",
        "**not\nretrained**",
        "| stage | width |\n| --- | --- |\n| 1 | 64 |\n| 2 | 128 |",
        'timm.create_model("subnet", architecture="architecture.json", pretrained=True)',
        "3 × 64 × 64",
        "(0.5, 0.25, 0.5)",
    ):
        assert part in card
    assert "latency" not in card


def test_model_card_gives_latency_with_its_conditions(facts: Callable[..., RunFacts]) -> None:
    card = model_card(model(latency_ms=4.2, latency_iqr_ms=0.1), facts(latency_ms=12.0))
    assert "| latency | 4.20 ms (IQR 0.10) | cpu, float32, batch 1 |" in card


def test_model_card_shows_names_as_they_are(facts: Callable[..., RunFacts]) -> None:
    card = model_card(model(stages=[{"a": "x|y\nz"}]), facts())
    assert r"zero, one\|two, &lt;b&gt;\_x\_." in card
    assert "| x\\|y z |" in card


def test_importing_the_report_imports_neither_pandas_nor_plotly_nor_torch() -> None:
    heavy = "{'pandas', 'plotly', 'torch', 'optuna', 'ray'}"
    code = f"import sys, nas.report; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
