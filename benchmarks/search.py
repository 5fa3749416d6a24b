r"""How fast a search finds the front: hypervolume against evaluations, ours beside plain Optuna.

The space `nano` can be listed, so that its true front is known. `table` trains its supernet and
evaluates every architecture; `race` lets searches loose on that table, under limits on
multiply-adds that leave all, a quarter and a twentieth of the space; `figure` draws them.

    python -m benchmarks.search table --out results/reference/search/nano.csv
    python -m benchmarks.search race --table results/reference/search/nano.csv \
        --out results/reference/search/race.csv
    python -m benchmarks.search figure --race results/reference/search/race.csv \
        --out race.html

Ours is the driver with each of its samplers: what exceeds the limit is never evaluated. Rivals are
Optuna's samplers as its documentation uses them, with the limit as a soft constraint: every
proposal costs an evaluation, those over the limit and those that were made before included.
Hypervolume is a share of the box from no accuracy at the limit; what exceeds it counts nothing.
"""

import argparse
import tempfile
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from nas.data import load_data, materialise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.search.driver import Search
from nas.search.evaluation import Score
from nas.search.front import hypervolume
from nas.search.samplers import SAMPLERS
from nas.search.study import open_study
from nas.search.trials import Record
from nas.training.accuracy import SubnetEvaluator
from nas.training.settings import SupernetTraining
from nas.training.supernet import SupernetTask
from nas.utilities.interrupt import StopRequest
from search_space import PRESETS, Architecture, total_cost

NANO = PRESETS["nano"]
SHARES = {"loose": 1.0, "25 %": 0.25, "5 %": 0.05}
"""Names of the limits, and which share of the space meets them."""

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where journals go: writing each line of one to a disk takes longer than all else here."""

EVALUATIONS = 200
MARKS = (50, 100, 200)

RIVALS: dict[str, Callable[[int], BaseSampler]] = {
    "Optuna random": lambda seed: RandomSampler(seed=seed),
    "Optuna NSGA-II": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "Optuna TPE": lambda seed: TPESampler(seed=seed),
}

Point = tuple[float, float]
"""Accuracy and multiply-adds of one evaluation."""


def make_table(options: argparse.Namespace) -> None:
    """Train nano's supernet and evaluate every architecture on the whole search split."""
    data = load_data("digits", image_size=options.size, seed=0)
    images, labels = materialise(data.search, limit=None, seed=0)
    unlimited = Limits(macs=1e12)
    with tempfile.TemporaryDirectory() as folder:
        task = SupernetTask(
            settings=SupernetTraining(steps=options.steps, batch_size=16, lr=3e-4, seed=0),
            constrained=ConstrainedSpace(
                space=NANO, limits=unlimited, image_size=224, num_classes=10
            ),
            data=data,
            images=images[:200],
            labels=labels[:200],
            device="cpu",
            state=Path(folder) / "state.safetensors",
            checkpoint=Path(folder) / "checkpoint.safetensors",
        )
        store = task.new_store()
        task.train(store, stop=StopRequest(), on_progress=lambda progress: None)
    evaluator = SubnetEvaluator(
        store, images, labels, mean=data.mean, std=data.std, threads=torch.get_num_threads()
    )
    rows = []
    for architecture in NANO.enumerate():
        cost = total_cost(architecture, num_classes=10)
        rows.append(
            {
                "hash": architecture.hash,
                "macs": cost.macs,
                "params": cost.params,
                "accuracy": evaluator.accuracy(architecture),
                "summary": architecture.summary,
            }
        )
    table = pd.DataFrame(rows).sort_values(["macs", "hash"], ignore_index=True)
    most = table["accuracy"].cummax()
    table.insert(4, "on_front", (table["accuracy"] == most) & (most.diff() != 0))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    table.to_csv(options.out, index=False)
    print(
        f"{len(table)} architectures, {100 * table['accuracy'].min():.1f} to "
        f"{100 * table['accuracy'].max():.1f} %, {table['on_front'].sum()} on the front"
    )


class FromTable:
    """Workers that look scores up."""

    capacity = 1

    def __init__(self, accuracies: dict[str, float]) -> None:
        self._accuracies = accuracies
        self._waiting: deque[tuple[int, Architecture]] = deque()

    def submit(self, ticket: int, architecture: Architecture) -> None:
        """Begin an evaluation."""
        self._waiting.append((ticket, architecture))

    def next_score(self, timeout: float) -> tuple[int, Score]:
        """The one that was submitted."""
        ticket, architecture = self._waiting.popleft()
        return ticket, Score(accuracy=self._accuracies[architecture.hash])

    def close(self) -> None:
        """Nothing to let go of."""


def ours(sampler: str, seed: int, limit: float, accuracies: dict[str, float]) -> list[Point]:
    """What our driver evaluates, in its order."""
    constrained = ConstrainedSpace(
        space=NANO, limits=Limits(macs=limit), image_size=224, num_classes=10
    )
    points: list[Point] = []
    with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
        study = open_study(
            Path(folder) / "journal.log",
            sampler=sampler,
            seed=seed,
            trials=EVALUATIONS,
            objectives=constrained.objectives,
        )
        search = Search(
            study,
            constrained=constrained,
            workers=FromTable(accuracies),
            trials=EVALUATIONS,
            seed=seed,
        )

        def note(record: Record) -> None:
            if record.state == "evaluated" and record.accuracy is not None:
                points.append((record.accuracy, record.costs["macs"]))

        search.run(stop=StopRequest(), on_decided=note)
    return points


def plain(
    sampler: BaseSampler, limit: float, accuracies: dict[str, float], macs: dict[str, float]
) -> list[Point]:
    """What Optuna alone evaluates, in its order."""
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    points: list[Point] = []

    def objective(trial: optuna.Trial) -> Point:
        architecture = NANO.suggest(trial)
        cost = macs[architecture.hash]
        trial.set_constraint("macs", cost / limit - 1)
        points.append((accuracies[architecture.hash], cost))
        return points[-1]

    study.optimize(objective, n_trials=EVALUATIONS)
    return points


def trace(points: Sequence[Point], limit: float) -> list[float]:
    """The hypervolume after each of `EVALUATIONS`; a search that has ended stays where it was."""
    objectives = [o for o in Limits(macs=limit).objectives if o.name in ("accuracy", "macs")]
    found, values = [], []
    for accuracy, macs in points:
        if macs <= limit:
            found.append([accuracy, macs / limit])
        values.append(hypervolume(found, objectives))
    return (values + values[-1:] * EVALUATIONS)[:EVALUATIONS]


def race(options: argparse.Namespace) -> None:
    """Every search at every limit with every seed; a row for each evaluation."""
    table = pd.read_csv(options.table)
    accuracies = dict(zip(table["hash"], table["accuracy"], strict=True))
    macs = dict(zip(table["hash"], table["macs"], strict=True))
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    rows = []
    for name, share in SHARES.items():
        limit = float(np.quantile(table["macs"], share, method="higher"))
        there = [(a, m) for a, m in zip(table["accuracy"], table["macs"], strict=True)]
        best = trace([point for point in there if point[1] <= limit], limit)[-1]
        for seed in range(options.seeds):
            runs = {
                f"ours, {sampler}": ours(sampler, seed, limit, accuracies) for sampler in SAMPLERS
            }
            runs |= {
                rival: plain(make(seed), limit, accuracies, macs) for rival, make in RIVALS.items()
            }
            for search, points in runs.items():
                for count, value in enumerate(trace(points, limit), start=1):
                    rows.append(
                        {
                            "limit": name,
                            "macs": limit,
                            "search": search,
                            "seed": seed,
                            "evaluations": count,
                            "hypervolume": round(value, 5),
                            "of_true_front": round(value / best, 5),
                        }
                    )
            print(f"{name} ({limit:.3g} MACs), seed {seed} done", flush=True)
    found = pd.DataFrame(rows)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    found.to_csv(options.out, index=False)
    at = found[found["evaluations"].isin(MARKS)]
    means = at.pivot_table(
        index=["limit", "search"], columns="evaluations", values="of_true_front", sort=False
    )
    print("share of the true front's hypervolume after so many evaluations, mean over seeds")
    print(means.round(3).to_string())


def figure(options: argparse.Namespace) -> None:
    """Means with bands of one standard deviation, a panel for each limit, as a page."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    found = pd.read_csv(options.race)
    limits = list(found["limit"].unique())
    chart = make_subplots(cols=len(limits), shared_yaxes=True, subplot_titles=limits)
    for column, limit in enumerate(limits, start=1):
        some = found[found["limit"] == limit]
        for colour, (search, rows) in zip(
            qualitative.Dark2, some.groupby("search", sort=False), strict=False
        ):
            by_count = rows.groupby("evaluations")["of_true_front"]
            mean, spread = by_count.mean(), by_count.std().fillna(0)
            x = [*mean.index, *mean.index[::-1]]
            y = [*(mean + spread), *(mean - spread)[::-1]]
            band = {"fill": "toself", "fillcolor": colour, "opacity": 0.15, "hoverinfo": "skip"}
            chart.add_scatter(x=x, y=y, row=1, col=column, mode="none", showlegend=False, **band)
            line = {"color": colour, "dash": "solid" if search.startswith("ours") else "dot"}
            chart.add_scatter(
                x=list(mean.index),
                y=list(mean),
                row=1,
                col=column,
                name=search,
                line=line,
                showlegend=column == 1,
            )
    chart.update_xaxes(title="evaluations")
    chart.update_yaxes(title="share of the true front's hypervolume", col=1, range=[0.6, 1.01])
    chart.update_layout(template="plotly_white", width=1200, height=420)
    go.Figure(chart).write_html(options.out, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("table", help="train nano's supernet, evaluate everything")
    made.add_argument("--size", type=int, default=64)
    made.add_argument("--steps", type=int, default=1500)
    made.set_defaults(action=make_table)
    raced = commands.add_parser("race", help="searches on that table")
    raced.add_argument("--table", type=Path, required=True)
    raced.add_argument("--seeds", type=int, default=8)
    raced.set_defaults(action=race)
    drawn = commands.add_parser("figure", help="the race as a page")
    drawn.add_argument("--race", type=Path, required=True)
    drawn.set_defaults(action=figure)
    for command in (made, raced, drawn):
        command.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.action(options)


if __name__ == "__main__":
    main()
