r"""By what the last candidates of a short list should be told apart: accuracy, loss, or both.

`climb` lets architectures of a truth set climb all rungs of a short list, from the weights that
they inherit from a run's supernet; it can be killed and goes on. `choose` draws short lists of
them, halves each by one rule and another, and says what training alone makes of what was chosen.
`final` trains networks from fresh weights, as the final of a short list does: those of a table of
networks trained alone, or the whole short list of a run. `inherited` evaluates those of a table
with a run's supernet, on as many images as the run does and on all; `rungs` reads what a run's
short list had after each of its rungs. `agree` says how well such rows rank what is known alone.

    nice python -m benchmarks.short_list climb results/RUN \
        --truth results/reference/fidelity/tiny-300M.csv --out results/reference/ties/tiny.csv
    python -m benchmarks.short_list choose results/reference/ties/tiny.csv \
        --truth results/reference/fidelity/tiny-300M.csv
    nice python -m benchmarks.short_list final results/reference/value/tiny-300M.csv ... \
        --out results/reference/ties/final.csv --work FOLDER
    nice python -m benchmarks.short_list final --run results/RUN --out ... --work FOLDER
    python -m benchmarks.short_list inherited results/RUN results/reference/value/....csv --out ...
    python -m benchmarks.short_list rungs results/RUN --out ...
    python -m benchmarks.short_list agree results/reference/ties/final.csv \
        --truth results/reference/value/tiny-300M.csv ...
"""

import argparse
import math
import random
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch
from scipy.stats import kendalltau

import nas
from benchmarks.alone import add_row, data_of, rows_of
from benchmarks.fidelity import Truth, tau_near
from benchmarks.value import listed
from nas.data import materialise
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.runs.run import trained_store
from nas.search.settings import DEFAULT_TRYOUT, TryoutSettings
from nas.search.tryout import FreshWeights, Tryout
from nas.training.accuracy import SubnetEvaluator, fit
from nas.training.alone import SCRATCH
from nas.utilities.interrupt import StopRequest
from nas.utilities.units import accuracy_error
from search_space import Architecture
from supernet import Network

COLUMNS = ("hash", "inherited", "steps", "images", "accuracy", "loss")
"""Of the CSV: accuracy and loss on so many images of the search split after so many steps."""

FIT_COLUMNS = ("hash", "steps", "images", "accuracy", "loss")
"""Likewise of other tables: the steps are those of training alone."""

LISTS = 4000
SIZE = 10


def plan_of(config: RunConfig, folder: Path, *, limit: int | None) -> Tryout:
    """A tryout like that of a run, in another folder, on so many images of the search split."""
    data = data_of(config.data, config.proxy_size)
    images, labels = materialise(data.search, limit=limit, seed=config.seed)
    return Tryout(
        folder=folder,
        settings=config.tryout,
        data=data,
        images=images,
        labels=labels,
        image_size=config.proxy_size,
        batch_size=config.batch_size,
        seed=config.seed,
        device="cpu",
    )


def climb(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    torch.set_num_threads(options.threads)
    folder, out = RunFolder(options.run), options.out
    config, store = folder.config, trained_store(folder, device="cpu")
    plan = plan_of(config, options.work, limit=None)
    data, images, labels = plan.data, plan.images, plan.labels
    norm = {"mean": data.mean, "std": data.std}
    few = config.search_images
    evaluator = SubnetEvaluator(store, images, labels, **norm, threads=options.threads)
    out.parent.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    architectures = Truth.load(options.truth, steps=540).architectures
    inherited = {}
    for architecture in architectures:
        known = [row for row in rows_of(out) if row["hash"] == architecture.hash]
        inherited[architecture.hash] = (
            float(known[0]["inherited"]) if known else evaluator.fit(architecture).accuracy
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


def known_alone(tables: Sequence[Path], *, seeds: int = 1) -> pd.DataFrame:
    """Networks trained alone for 540 steps, by hash: `architecture`, `macs`, `alone` in %.

    Args:
        tables: Of `benchmarks/alone.py`.
        seeds: So many at least has each; `alone` is their mean.
    """
    rows = pd.concat([pd.read_csv(table) for table in tables])
    by_hash = rows[rows["steps"] == 540].groupby("hash", sort=False)
    known = pd.DataFrame(
        {
            "architecture": by_hash["architecture"].first(),
            "macs": by_hash["macs"].first(),
            "alone": 100 * by_hash["test"].mean(),
        }
    )
    return known[by_hash.size() >= seeds]


def architectures_of(tables: Sequence[Path]) -> list[Architecture]:
    """Those of tables of networks that were trained alone."""
    return [Architecture.from_json(text) for text in known_alone(tables)["architecture"]]


def add_fit(table: Path, name: str, steps: int, images: int, accuracy: float, loss: float) -> None:
    """Write a row of `FIT_COLUMNS`."""
    values = (name, steps, images, accuracy, loss)
    add_row(table, FIT_COLUMNS, dict(zip(FIT_COLUMNS, values, strict=True)))


def final(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    torch.set_num_threads(options.threads)
    architectures: Iterable[Architecture]
    if options.run:
        run = nas.open_run(options.run)
        architectures, config = listed(run), run.config
        plan = plan_of(config, options.work, limit=options.images)
    else:
        architectures = architectures_of(options.tables)
        data = data_of(options.data, options.size)
        images, labels = materialise(data.search, limit=options.images, seed=0)
        plan = Tryout(
            folder=options.work,
            # The rate is that of a run with batches of 16.
            settings=TryoutSettings(lr=DEFAULT_TRYOUT.lr / 2),
            data=data,
            images=images,
            labels=labels,
            image_size=options.size,
            batch_size=16,
            seed=0,
            device="cpu",
        )
    rungs = {"first_rung": options.steps, "rungs": options.rungs}
    plan = replace(plan, start=SCRATCH, settings=plan.settings.model_copy(update=rungs))
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.work.mkdir(parents=True, exist_ok=True)
    for architecture in architectures:
        if options.only and architecture.hash not in options.only:
            continue
        for rung, steps in enumerate(plan.settings.milestones):
            done = {(row["hash"], row["steps"]) for row in rows_of(options.out)}
            if (architecture.hash, str(steps)) in done:
                continue
            plan.enter(architecture, FreshWeights(plan.data.num_classes, seed=plan.seed))
            tried = plan.climb(architecture, rung, stop=StopRequest(), on_step=lambda step: None)
            known = (tried.steps, tried.images, tried.accuracy, tried.loss)
            add_fit(options.out, architecture.hash, *known)
            print(f"{architecture.summary}: {tried}", flush=True)


def inherited(options: argparse.Namespace) -> None:
    """Make the rows that the table lacks."""
    torch.set_num_threads(options.threads)
    folder = RunFolder(options.run)
    config, store = folder.config, trained_store(folder, device="cpu")
    data = data_of(config.data, config.proxy_size)
    images, labels = materialise(data.search, limit=None, seed=config.seed)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for architecture in architectures_of(options.tables):
        for count in (config.search_images, len(labels)):
            done = {(row["hash"], row["images"]) for row in rows_of(options.out)}
            if (architecture.hash, str(count)) in done:
                continue
            network = store.subnet(architecture)
            found = fit(network, images[:count], labels[:count], mean=data.mean, std=data.std)
            add_fit(options.out, architecture.hash, 0, count, found.accuracy, found.loss)


def rungs(options: argparse.Namespace) -> None:
    """Write down what the files of a run's short list tell."""
    run = nas.open_run(options.run)
    plan = plan_of(run.config, run.folder.tried, limit=run.config.search_images)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for architecture in listed(run):
        for rung in range(plan.settings.rungs):
            tried = plan.done(architecture, rung)
            if tried is not None:
                known = (tried.steps, tried.images, tried.accuracy, tried.loss)
                add_fit(options.out, architecture.hash, *known)


def agree(options: argparse.Namespace) -> None:
    """Print how well rows rank what training alone gives, by themselves and with MACs."""
    truth = known_alone(options.truth, seeds=options.seeds)
    alone = truth["alone"]
    table = pd.read_csv(options.table)
    for (steps, images), rows in table[table["hash"].isin(alone.index)].groupby(
        ["steps", "images"]
    ):
        known, macs = rows["hash"].map(alone), rows["hash"].map(truth["macs"])
        both = macs / macs.std() - rows["loss"] / rows["loss"].std()
        near = tau_near(-rows["loss"].to_numpy(), known.to_numpy(), macs.to_numpy())
        print(
            f"{steps} steps, {images} images, {len(rows)} networks of {known.min():.1f} to "
            f"{known.max():.1f} % alone: tau-b by accuracy "
            f"{kendalltau(rows['accuracy'], known).statistic:.2f}, by loss "
            f"{kendalltau(-rows['loss'], known).statistic:.2f}, within ±10 % MACs {near:.2f}; "
            f"by MACs {kendalltau(macs, known).statistic:.2f}, by loss and MACs in equal parts "
            f"{kendalltau(both, known).statistic:.2f}"
        )
        for _, row in rows.assign(alone=known).sort_values("alone", ascending=False).iterrows():
            gave = f"here {100 * row['accuracy']:.1f} %, loss {row['loss']:.3f}"
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
    finalists.add_argument("tables", type=Path, nargs="*", help="of networks trained alone")
    finalists.add_argument("--run", type=Path, help="its short list, data and seed instead")
    finalists.add_argument("--rungs", type=int, default=1, help="each of three times the steps")
    finalists.add_argument("--images", type=int, default=600, help="of the search split")
    finalists.add_argument("--only", nargs="+", help="those of these hashes alone")
    finalists.add_argument("--steps", type=int, default=DEFAULT_TRYOUT.final_steps)
    finalists.add_argument("--out", type=Path, required=True)
    finalists.add_argument("--work", type=Path, required=True, help="folder for weights")
    finalists.add_argument("--data", default="digits")
    finalists.add_argument("--size", type=int, default=64)
    finalists.add_argument("--threads", type=int, default=1)
    finalists.set_defaults(action=final)
    inheriting = commands.add_parser("inherited", help="evaluate networks with a run's supernet")
    inheriting.add_argument("run", type=Path)
    inheriting.add_argument("tables", type=Path, nargs="+", help="of networks trained alone")
    inheriting.add_argument("--out", type=Path, required=True)
    inheriting.add_argument("--threads", type=int, default=1)
    inheriting.set_defaults(action=inherited)
    reading = commands.add_parser("rungs", help="read what a short list had after its rungs")
    reading.add_argument("run", type=Path)
    reading.add_argument("--out", type=Path, required=True)
    reading.set_defaults(action=rungs)
    agreeing = commands.add_parser("agree", help="hold rows against what training alone gives")
    agreeing.add_argument("table", type=Path)
    agreeing.add_argument("--truth", type=Path, nargs="+", required=True)
    agreeing.add_argument("--seeds", type=int, default=1, help="that each network has alone")
    agreeing.set_defaults(action=agree)
    options = parser.parse_args()
    if options.action is final and bool(options.run) == bool(options.tables):
        parser.error("final: give tables of networks trained alone, or --run")
    options.action(options)


if __name__ == "__main__":
    main()
