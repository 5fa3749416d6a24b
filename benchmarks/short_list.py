r"""By what the last candidates of a short list should be told apart: accuracy, loss, or both.

`climb` lets architectures of a truth set climb all rungs of a short list, from the weights that
they inherit from a run's supernet; it can be killed and goes on. `choose` draws short lists of
them, halves each by one rule and another, and says what training alone makes of what was chosen.
`final` trains networks whose accuracies alone are known from fresh weights, as the final of a short
list does; `agree` says how well that ranks them.

    nice python -m benchmarks.short_list climb results/RUN \
        --truth results/reference/fidelity/tiny-300M.csv --out results/reference/ties/tiny.csv
    python -m benchmarks.short_list choose results/reference/ties/tiny.csv \
        --truth results/reference/fidelity/tiny-300M.csv
    nice python -m benchmarks.short_list final results/reference/value/tiny-300M.csv ... \
        --out results/reference/ties/final.csv --work FOLDER
    python -m benchmarks.short_list agree results/reference/ties/final.csv \
        --truth results/reference/value/tiny-300M.csv ...
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import kendalltau

from benchmarks.alone import add_row, data_of, rows_of
from benchmarks.fidelity import Truth
from nas.data import materialise
from nas.runs.folder import RunFolder
from nas.runs.run import trained_store
from nas.search.settings import DEFAULT_TRYOUT, TryoutSettings
from nas.search.tryout import FreshWeights, Tryout
from nas.training.accuracy import SubnetEvaluator, fit
from nas.utilities.interrupt import StopRequest
from nas.utilities.units import accuracy_error
from search_space import Architecture
from supernet import Network

COLUMNS = ("hash", "inherited", "steps", "images", "accuracy", "loss")
"""Of the CSV: accuracy and loss on so many images of the search split after so many steps."""

FINAL_COLUMNS = ("hash", "steps", "images", "accuracy", "loss")
"""Likewise of a table of finals."""

LISTS = 4000
SIZE = 10


def climb(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    torch.set_num_threads(options.threads)
    folder, out = RunFolder(options.run), options.out
    config = folder.config
    data, store = data_of(config.data, config.proxy_size), trained_store(folder, device="cpu")
    images, labels = materialise(data.search, limit=None, seed=config.seed)
    norm = {"mean": data.mean, "std": data.std}
    few = config.search_images
    evaluator = SubnetEvaluator(store, images, labels, **norm, threads=options.threads)
    plan = Tryout(
        folder=options.work,
        settings=config.tryout,
        data=data,
        images=images,
        labels=labels,
        image_size=config.proxy_size,
        batch_size=config.batch_size,
        seed=config.seed,
        device="cpu",
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    architectures = Truth.load(options.truth, steps=540).architectures
    inherited = {}
    for architecture in architectures:
        known = [row for row in rows_of(out) if row["hash"] == architecture.hash]
        inherited[architecture.hash] = (
            float(known[0]["inherited"]) if known else evaluator.accuracy(architecture)
        )
    architectures.sort(key=lambda architecture: -inherited[architecture.hash])
    for rung, steps in enumerate(config.tryout.milestones):
        for architecture in architectures[: options.count]:
            done = {(row["hash"], row["steps"]) for row in rows_of(out)}
            if (architecture.hash, str(steps)) in done:
                continue
            plan.enter(architecture, store)
            tried = plan.climb(architecture, rung, stop=StopRequest(), on_step=lambda step: None)
            network = Network(architecture, num_classes=data.num_classes)
            network.load_state_dict(plan.weights(architecture))
            first = fit(network, images[:few], labels[:few], **norm)
            for count, found in ((few, first), (len(images), tried)):
                row = (architecture.hash, inherited[architecture.hash], steps, count)
                values = (*row, found.accuracy, found.loss)
                add_row(out, COLUMNS, dict(zip(COLUMNS, values, strict=True)))
            print(f"{architecture.summary}: {tried}", flush=True)


def known_alone(tables: Sequence[Path]) -> pd.DataFrame:
    """Networks that were trained alone for 540 steps, by hash: `architecture`, and `alone` in %."""
    rows = pd.concat([pd.read_csv(table) for table in tables])
    rows = rows[rows["steps"] == 540]
    by_hash = rows.groupby("hash", sort=False)
    return pd.DataFrame(
        {"architecture": by_hash["architecture"].first(), "alone": 100 * by_hash["test"].mean()}
    )


def final(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    torch.set_num_threads(options.threads)
    data = data_of(options.data, options.size)
    images, labels = materialise(data.search, limit=600, seed=0)
    # The rate is that of a run with batches of 16.
    settings = TryoutSettings(lr=DEFAULT_TRYOUT.lr / 2, final_steps=options.steps)
    plan = Tryout(
        folder=options.work,
        settings=settings,
        data=data,
        images=images,
        labels=labels,
        image_size=options.size,
        batch_size=16,
        seed=0,
        device="cpu",
    ).final
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    for name, text in known_alone(options.tables)["architecture"].items():
        done = {(row["hash"], row["steps"]) for row in rows_of(options.out)}
        if (name, str(options.steps)) in done or (options.only and name not in options.only):
            continue
        architecture = Architecture.from_json(text)
        plan.enter(architecture, FreshWeights(data.num_classes, seed=0))
        tried = plan.climb(architecture, 0, stop=StopRequest(), on_step=lambda step: None)
        values = (name, tried.steps, tried.images, tried.accuracy, tried.loss)
        add_row(options.out, FINAL_COLUMNS, dict(zip(FINAL_COLUMNS, values, strict=True)))
        print(f"{architecture.summary}: {tried}", flush=True)


def agree(options: argparse.Namespace) -> None:
    """Print how well finals rank what training alone gives."""
    alone = known_alone(options.truth)["alone"]
    table = pd.read_csv(options.table)
    for steps, rows in table.groupby("steps"):
        known = rows["hash"].map(alone)
        print(
            f"{steps} steps from fresh weights, {len(rows)} networks of {known.min():.1f} to "
            f"{known.max():.1f} % alone: tau-b by accuracy "
            f"{kendalltau(rows['accuracy'], known).statistic:.2f}, by loss "
            f"{kendalltau(-rows['loss'], known).statistic:.2f}"
        )
        for _, row in rows.assign(alone=known).sort_values("alone", ascending=False).iterrows():
            gave = f"final {100 * row['accuracy']:.1f} %, loss {row['loss']:.3f}"
            print(f"  {row['hash']}  alone {row['alone']:.1f} %, {gave}")


Rule = Callable[[pd.DataFrame, int], list[str]]
"""Orders candidates, by the rows of a rung and how many images they saw: hashes, best first."""


def by_accuracy(rows: pd.DataFrame, images: int) -> list[str]:
    """The most accurate first; of equals that of the smallest loss."""
    return list(rows.sort_values(["accuracy", "loss"], ascending=[False, True])["hash"])


def by_loss(rows: pd.DataFrame, images: int) -> list[str]:
    """That of the smallest loss first."""
    return list(rows.sort_values("loss")["hash"])


def ties_by_loss(rows: pd.DataFrame, images: int) -> list[str]:
    """The most accurate first, with those within its error, of which the smallest loss is first."""
    left, ordered = rows.sort_values("accuracy", ascending=False), []
    while len(left):
        most = left["accuracy"].iloc[0]
        errors = [accuracy_error(a, images) for a in left["accuracy"]]
        near = most - left["accuracy"] <= [math.hypot(errors[0], error) for error in errors]
        ordered += list(left[near].sort_values("loss")["hash"])
        left = left[~near]
    return ordered


RULES: dict[str, Rule] = {"accuracy": by_accuracy, "loss": by_loss, "ties by loss": ties_by_loss}


def halved(rungs: Sequence[pd.DataFrame], listed: Sequence[str], rule: Rule, images: int) -> str:
    """What a short list ends with."""
    left = list(listed)
    for rows in rungs:
        seen = rows[rows["hash"].isin(left)]
        left = rule(seen, images)[: math.ceil(len(left) / 3)]
    return left[0]


def choose(options: argparse.Namespace) -> None:
    """Print how each rung's accuracy and loss rank the truth, and what short lists end with."""
    truth = Truth.load(options.truth, steps=540)
    alone = dict(zip((a.hash for a in truth.architectures), 100 * truth.accuracy, strict=True))
    table = pd.read_csv(options.table)
    for images, rows in table.groupby("images"):
        print(f"{images} images of the search split: tau-b with accuracy alone by")
        by_rung = [some for _, some in rows.groupby("steps")]
        for steps, some in rows.groupby("steps"):
            known = [alone[name] for name in some["hash"]]
            print(
                f"  {steps:5} steps, {len(some)}: accuracy "
                f"{kendalltau(some['accuracy'], known).statistic:.2f}, loss "
                f"{kendalltau(-some['loss'], known).statistic:.2f}, accuracies that are equal to "
                f"another {some['accuracy'].duplicated(keep=False).mean():.0%}"
            )
        last = set(by_rung[-1]["hash"])
        names = [name for name in by_rung[0]["hash"].unique() if name in last]
        rng = random.Random(0)
        lists = [rng.sample(names, min(SIZE, len(names))) for _ in range(LISTS)]
        best = statistics.mean(max(alone[name] for name in listed) for listed in lists)
        print(f"  {LISTS} lists of {SIZE} of {len(names)}, whose best has {best:.2f} % on average:")
        for name, rule in RULES.items():
            ends = [alone[halved(by_rung, listed, rule, int(images))] for listed in lists]
            print(f"    {name:14} ends with {statistics.mean(ends):.2f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    climbing = commands.add_parser("climb", help="train a truth set as short lists are trained")
    climbing.add_argument("run", type=Path)
    climbing.add_argument("--truth", type=Path, required=True)
    climbing.add_argument("--out", type=Path, required=True)
    climbing.add_argument("--work", type=Path, required=True, help="folder for weights")
    climbing.add_argument("--count", type=int, help="so many, the best by what they inherit")
    climbing.add_argument("--threads", type=int, default=1)
    climbing.set_defaults(action=climb)
    choosing = commands.add_parser("choose", help="draw short lists of it, and halve them")
    choosing.add_argument("table", type=Path)
    choosing.add_argument("--truth", type=Path, required=True)
    choosing.set_defaults(action=choose)
    finalists = commands.add_parser("final", help="train networks as in the final")
    finalists.add_argument("tables", type=Path, nargs="+")
    finalists.add_argument("--only", nargs="+", help="those of these hashes alone")
    finalists.add_argument("--steps", type=int, default=DEFAULT_TRYOUT.final_steps)
    finalists.add_argument("--out", type=Path, required=True)
    finalists.add_argument("--work", type=Path, required=True, help="folder for weights")
    finalists.add_argument("--data", default="digits")
    finalists.add_argument("--size", type=int, default=64)
    finalists.add_argument("--threads", type=int, default=1)
    finalists.set_defaults(action=final)
    agreeing = commands.add_parser("agree", help="hold finals against what training alone gives")
    agreeing.add_argument("table", type=Path)
    agreeing.add_argument("--truth", type=Path, nargs="+", required=True)
    agreeing.set_defaults(action=agree)
    options = parser.parse_args()
    options.action(options)


if __name__ == "__main__":
    main()
