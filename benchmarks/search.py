r"""How fast a search finds the front: hypervolume against evaluations, ours beside plain Optuna.

Spaces that can be listed have a front that is known. `table` evaluates every architecture of one
with the supernet of a run: `nano` whole, and a slice of `tiny` that is larger. `race` lets searches
loose on that table, under limits on multiply-adds that leave all of it, a quarter and a twentieth;
`figure` draws them. `batches` is a race of the surrogate against itself, with more and fewer
proposals at once.

    python run_search.py --space nano --budget 1GFLOPs --steps 1500 --trials 1 --short-list 0 \
        --out results/nano
    python -m benchmarks.search table results/nano --space nano \
        --out results/reference/search/nano.csv
    python -m benchmarks.search race --space nano --table results/reference/search/nano.csv \
        --out results/reference/search/nano-race.csv
    python -m benchmarks.search figure results/reference/search/nano-race.csv --out race.html
    python -m benchmarks.search batches --space slice --table results/reference/search/slice.csv \
        --out results/reference/search/slice-batches.csv

Ours is the driver with each of its samplers: what exceeds the limit is never evaluated. Rivals are
Optuna's samplers as its documentation uses them, with the limit as a soft constraint: every
proposal costs an evaluation, those over the limit and those that were made before included.

The tables hold accuracies and no losses, so that all searches go by accuracy here.

Two hypervolumes, both as shares of the true front's. That of our reports is the share of the box
from no accuracy to the limit: the first feasible point has most of it. That of the span counts
from the worst that the space has within the limit, in both objectives. What exceeds the limit
counts nothing in either.
"""

import argparse
import csv
import itertools
import tempfile
import time
import warnings
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from benchmarks.alone import data_of, rows_of
from nas.data import materialise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.runs.folder import RunFolder
from nas.runs.run import trained_store
from nas.search.driver import Search
from nas.search.evaluation import Score
from nas.search.front import hypervolume
from nas.search.samplers import SAMPLERS
from nas.search.settings import DEFAULT_SEARCH, SearchSettings
from nas.search.study import open_study
from nas.search.trials import Record
from nas.training.accuracy import SubnetEvaluator
from nas.utilities.interrupt import StopRequest
from search_space import PRESETS, Architecture, SearchSpace, StageChoices, total_cost
from search_space.parts import FullAttention, Rates

SLICE = SearchSpace(
    name="slice of tiny",
    stem=PRESETS["tiny"].stem,
    stages=(
        StageChoices(depth=(1,), width=(32,), aggregation=(Rates(rates=(8,)),), ratio=(2,)),
        StageChoices(
            depth=(1,),
            width=(64,),
            pooling=("conv", "max_pool", "deformable"),
            aggregation=(Rates(rates=(4, 2)),),
            ratio=(2,),
        ),
        StageChoices(
            depth=(1, 4),
            width=(64, 96),
            pooling=("conv", "max_pool", "deformable"),
            mixer=("local_global", "split_local_global", "depthwise", "ladder"),
            local_ratio=(0.5,),
            aggregation=(Rates(rates=(2, 1)),),
            ratio=(2,),
        ),
        StageChoices(
            depth=(1, 2),
            width=(192,),
            pooling=("conv", "max_pool", "deformable"),
            mixer=("local_global", "depthwise", "ladder"),
            aggregation=(FullAttention(),),
            ratio=(2,),
        ),
    ),
)
"""Members of `tiny` that differ in poolings, mixers and sizes: few enough to list."""

SPACES = {"nano": PRESETS["nano"], "slice": SLICE}
SHARES = {"loose": 1.0, "25 %": 0.25, "5 %": 0.05}
"""Names of the limits, and which share of the space meets them."""

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""Where journals go: writing each line of one to a disk takes longer than all else here."""

EVALUATIONS = 200
BATCHES = (1, 2, 4, 8)
MARKS = (50, 100, 200)

RIVALS: dict[str, Callable[[int], BaseSampler]] = {
    "Optuna random": lambda seed: RandomSampler(seed=seed),
    "Optuna NSGA-II": lambda seed: NSGAIISampler(population_size=20, seed=seed),
    "Optuna TPE": lambda seed: TPESampler(seed=seed),
}

COLUMNS = ("limit", "macs", "search", "seed", "evaluations", "box", "span", "seconds")
"""Of a race: `macs` is the limit; `box` and `span` are shares of the true front's hypervolume;
`seconds` of one core for the whole search, the table's lookups included."""

Point = tuple[float, float]
"""Accuracy and multiply-adds of one evaluation."""

Searches = dict[str, Callable[[], list[Point]]]
"""By name; each gives what it evaluates, in its order."""


def make_table(options: argparse.Namespace) -> None:
    """Evaluate every architecture with the supernet of a run; rows that are there stay."""
    space = SPACES[options.space]
    folder = RunFolder(options.run)
    config = folder.config
    data = data_of(config.data, config.proxy_size)
    images, labels = materialise(data.search, limit=options.images, seed=0)
    torch.set_num_threads(1)
    store = trained_store(folder, device="cpu")
    evaluator = SubnetEvaluator(store, images, labels, mean=data.mean, std=data.std, threads=1)
    done = {row["hash"] for row in rows_of(options.out)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, ("hash", "macs", "params", "accuracy", "summary"))
        if not done:
            writer.writeheader()
        for architecture in space.enumerate():
            if architecture.hash in done:
                continue
            cost = total_cost(architecture, num_classes=data.num_classes)
            writer.writerow(
                {
                    "hash": architecture.hash,
                    "macs": cost.macs,
                    "params": cost.params,
                    "accuracy": round(evaluator.fit(architecture).accuracy, 5),
                    "summary": architecture.summary,
                }
            )
    table = pd.read_csv(options.out)
    print(
        f"{len(table)} architectures, {100 * table['accuracy'].min():.1f} to "
        f"{100 * table['accuracy'].max():.1f} %"
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


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a search is let loose on: a space whose scores are known, under a limit.

    Attributes:
        space: The space.
        accuracies: Of every architecture, by hash.
        macs: Likewise.
        limit: On multiply-adds.
    """

    space: SearchSpace
    accuracies: dict[str, float]
    macs: dict[str, float]
    limit: float

    @cached_property
    def feasible(self) -> list[Point]:
        """Every architecture within the limit."""
        return [
            (accuracy, self.macs[hash_])
            for hash_, accuracy in self.accuracies.items()
            if self.macs[hash_] <= self.limit
        ]

    @cached_property
    def worst(self) -> Point:
        """The least accuracy, and the least multiply-adds, within the limit."""
        return min(a for a, _ in self.feasible), min(m for _, m in self.feasible)

    def volumes(self, points: Sequence[Point]) -> tuple[float, float]:
        """Hypervolume of the box of our reports, and of the span."""
        objectives = [o for o in Limits(macs=self.limit).objectives if o.searched]
        least, cheapest = self.worst
        within = [(a, m) for a, m in points if m <= self.limit]
        return (
            hypervolume([(a, m / self.limit) for a, m in within], objectives),
            hypervolume(
                [(a - least, (m - cheapest) / (self.limit - cheapest)) for a, m in within],
                objectives,
            ),
        )

    def ours(self, sampler: str, seed: int, batch: int = DEFAULT_SEARCH.batch) -> list[Point]:
        """What our driver evaluates, in its order, so many proposed at once."""
        constrained = ConstrainedSpace(
            space=self.space, limits=Limits(macs=self.limit), image_size=224, num_classes=10
        )
        points: list[Point] = []
        with tempfile.TemporaryDirectory(dir=IN_MEMORY) as folder:
            study = open_study(
                Path(folder) / "journal.log",
                sampler=sampler,
                seed=seed,
                trials=EVALUATIONS,
                constrained=constrained,
            )
            search = Search(
                study,
                constrained=constrained,
                workers=FromTable(self.accuracies),
                trials=EVALUATIONS,
                seed=seed,
                settings=SearchSettings(batch=batch),
            )

            def note(record: Record) -> None:
                if record.state == "evaluated" and record.accuracy is not None:
                    points.append((record.accuracy, record.costs["macs"]))

            search.run(stop=StopRequest(), on_decided=note)
        return points

    def plain(self, sampler: BaseSampler) -> list[Point]:
        """What Optuna alone evaluates, in its order."""
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        points: list[Point] = []

        def objective(trial: optuna.Trial) -> Point:
            architecture = self.space.suggest(trial)
            cost = self.macs[architecture.hash]
            trial.set_constraint("macs", cost / self.limit - 1)
            points.append((self.accuracies[architecture.hash], cost))
            return points[-1]

        study.optimize(objective, n_trials=EVALUATIONS)
        return points


def all_searches(course: Course, seed: int) -> Searches:
    """Ours with each of its samplers, and the rivals."""
    ours = {f"ours, {sampler}": partial(course.ours, sampler, seed) for sampler in SAMPLERS}
    return ours | {name: partial(course.plain, make(seed)) for name, make in RIVALS.items()}


def batches(course: Course, seed: int) -> Searches:
    """The surrogate with so many proposals at once; with one it knows all scores before each."""
    return {f"batches of {n}": partial(course.ours, "surrogate", seed, n) for n in BATCHES}


def race(options: argparse.Namespace) -> None:
    """Every search at every limit with every seed; a row for every tenth evaluation."""
    table = pd.read_csv(options.table)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    done = {(row["limit"], row["seed"], row["search"]) for row in rows_of(options.out)}
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a", newline="", buffering=1) as file:
        writer = csv.DictWriter(file, COLUMNS)
        if not done:
            writer.writeheader()
        for seed, (name, share) in itertools.product(range(options.seeds), SHARES.items()):
            course = Course(
                space=SPACES[options.space],
                accuracies=dict(zip(table["hash"], table["accuracy"], strict=True)),
                macs=dict(zip(table["hash"], table["macs"], strict=True)),
                limit=float(np.quantile(table["macs"], share, method="higher")),
            )
            best = course.volumes(course.feasible)
            for search, run in options.searches(course, seed).items():
                if (name, str(seed), search) in done or search in options.without:
                    continue
                started = time.process_time()
                points = run()
                seconds = time.process_time() - started
                for count in range(10, EVALUATIONS + 1, 10):
                    found = course.volumes(points[:count])
                    box, span = (a / b for a, b in zip(found, best, strict=True))
                    row = (name, course.limit, search, seed, count, round(box, 5), round(span, 5))
                    writer.writerow(dict(zip(COLUMNS, (*row, round(seconds, 1)), strict=True)))
            print(f"{name} ({course.limit:.3g} MACs), seed {seed} done", flush=True)
    found = pd.read_csv(options.out)
    at = found[found["evaluations"].isin(MARKS)]
    for measure in ("box", "span"):
        means = at.pivot_table(
            index=["limit", "search"], columns="evaluations", values=measure, sort=False
        )
        print(f"share of the true front's hypervolume ({measure}), mean over seeds")
        print(means.round(3).to_string())


def figure(options: argparse.Namespace) -> None:
    """Means with bands of one standard deviation, a panel for each limit, as a page."""
    import plotly.graph_objects as go
    from plotly.colors import qualitative
    from plotly.subplots import make_subplots

    found = pd.read_csv(options.race)
    limits = list(found["limit"].unique())
    titles = [f"limit: {limit}" if limit == "loose" else f"{limit} feasible" for limit in limits]
    chart = make_subplots(cols=len(limits), shared_yaxes=True, subplot_titles=titles)
    searches = found["search"].unique()
    colours = dict(zip(searches, qualitative.Dark2, strict=False))
    for column, limit in enumerate(limits, start=1):
        for search, rows in found[found["limit"] == limit].groupby("search", sort=False):
            by_count = rows.groupby("evaluations")["span"]
            mean, spread = by_count.mean(), by_count.std().fillna(0)
            colour = colours[search]
            chart.add_scatter(
                x=[*mean.index, *mean.index[::-1]],
                y=[*(mean + spread).clip(upper=1), *(mean - spread)[::-1]],
                row=1,
                col=column,
                mode="none",
                fill="toself",
                fillcolor=colour,
                opacity=0.12,
                hoverinfo="skip",
                showlegend=False,
            )
            chart.add_scatter(
                x=list(mean.index),
                y=list(mean),
                row=1,
                col=column,
                mode="lines",
                name=search,
                line={"color": colour, "dash": "solid" if search.startswith("ours") else "dot"},
                showlegend=column == 1,
            )
    chart.update_xaxes(title="evaluations")
    chart.update_yaxes(title="share of the true front's hypervolume", col=1)
    chart.update_layout(template="plotly_white", width=1200, height=420)
    go.Figure(chart).write_html(options.out, include_plotlyjs=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("table", help="evaluate everything with a run's supernet")
    made.add_argument("run", type=Path)
    made.add_argument("--images", type=int, help="of the search split; all unless it is given")
    made.set_defaults(action=make_table)
    raced = commands.add_parser("race", help="searches on that table")
    raced.add_argument("--without", nargs="*", default=[], help="searches that are left out")
    raced.set_defaults(action=race, searches=all_searches)
    batched = commands.add_parser("batches", help="the surrogate with several proposals at once")
    batched.set_defaults(action=race, searches=batches, without=[])
    drawn = commands.add_parser("figure", help="the race as a page")
    drawn.add_argument("race", type=Path)
    drawn.set_defaults(action=figure)
    for command in (made, raced, batched, drawn):
        command.add_argument("--out", type=Path, required=True)
    for command in (made, raced, batched):
        command.add_argument("--space", choices=SPACES, required=True)
    for command in (raced, batched):
        command.add_argument("--table", type=Path, required=True)
        command.add_argument("--seeds", type=int, default=8)
    options = parser.parse_args()
    options.action(options)


if __name__ == "__main__":
    main()
