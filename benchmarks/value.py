r"""What a user gets for the same time: our command, its rivals, and what costs nothing.

Each one's choice is trained alone by the recipe of `retrain`, with three seeds, and measured on the
test split; a random architecture under the budget is the median of a truth set (`fidelity.py`).

    python -m benchmarks.value ours results/RUN --out results/reference/value/tiny-300M.csv
    python -m benchmarks.value listed results/RUN --seeds 1 --out ...
    python -m benchmarks.value asha --space tiny --budget 300MFLOPs --seconds 870 --out ...
    python -m benchmarks.value given --space tiny --budget 300MFLOPs --out ...
    python -m benchmarks.value table --truth results/reference/fidelity/tiny-300M.csv --out ...

`ours` takes the best of a finished run, `listed` all of its short list. `asha` is what who has Ray
and Optuna writes without us: Optuna proposes architectures of the same space, Ray Tune trains two
at a time (`--cpus`) from nothing, each on a thread of its own, and stops the worse ones early
(ASHA), until the ends of their rungs tell that they have had as many processor seconds as our
command took. It has the recipe of our tryout, in the same small batches.
`given` are the largest default and the published designs within the budget. Lists are worked off
as `benchmarks/alone.py` says: rows that are there are not made again.
"""

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

import nas
from benchmarks.alone import Training, add_options, data_of, work_off
from benchmarks.fidelity import Truth
from nas.data import materialise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.search.settings import TryoutSettings
from nas.search.tryout import FreshWeights, Tryout
from nas.utilities.interrupt import StopRequest
from nas.utilities.units import parse_macs
from search_space import PRESETS, Architecture, SearchSpace, total_cost
from search_space.designs import DESIGNS

BATCH = 16
RUNGS = TryoutSettings(first_rung=40, reduction=3, rungs=4, lr=5e-4)
"""Of the rival: 40, 120, 360 and 1,080 steps of 16 images; the rate is our tryout's."""

REPORTS = "reports.jsonl"


def asha(options: argparse.Namespace) -> Architecture:
    """What Ray Tune and Optuna find without a supernet, with a budget of processor time."""
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
    import ray
    from ray import tune
    from ray.tune.search.optuna import OptunaSearch

    class Spent(tune.Stopper):
        """Ends the search when its trainings have used up their processor time."""

        left = options.seconds

        def __call__(self, trial_id: str, result: Mapping[str, Any]) -> bool:
            if not result.get("done"):  # else Tune shows the last report once more
                self.left -= result["seconds"]
            return False

        def stop_all(self) -> bool:
            return bool(self.left <= 0)

    space, budget = PRESETS[options.space], parse_macs(options.budget)
    data = data_of(options.data, options.size)
    images, labels = materialise(data.search, limit=600, seed=0)

    with tempfile.TemporaryDirectory() as scratch:
        tryout = Tryout(
            folder=Path(scratch) / "tried",
            settings=RUNGS,
            data=data,
            images=images,
            labels=labels,
            image_size=options.size,
            batch_size=BATCH,
            seed=options.seed,
            device="cpu",
        )
        tryout.folder.mkdir()
        ray.init(num_cpus=options.cpus, include_dashboard=False, log_to_driver=False)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
        tune.Tuner(
            tune.with_parameters(_train, tryout=tryout, space=space, budget=budget),
            tune_config=tune.TuneConfig(
                metric="accuracy",
                mode="max",
                search_alg=OptunaSearch(
                    partial(_suggest, space), metric="accuracy", mode="max", seed=options.seed
                ),
                scheduler=tune.schedulers.ASHAScheduler(
                    time_attr="steps",
                    grace_period=RUNGS.milestones[0],
                    max_t=RUNGS.milestones[-1],
                    reduction_factor=RUNGS.reduction,
                ),
                num_samples=-1,
                max_concurrent_trials=options.cpus,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(storage_path=scratch, name="asha", verbose=0, stop=Spent()),
        ).fit()
        ray.shutdown()
        found = pd.read_json(tryout.folder / REPORTS, lines=True)
    proposed = found["architecture"].nunique()
    trained = found[found["accuracy"] > 0]
    best = trained.sort_values("accuracy").iloc[-1]
    print(
        f"asha, seed {options.seed}: {proposed} proposed, "
        f"{trained['architecture'].nunique()} within the budget, "
        f"{(trained['steps'] == RUNGS.milestones[-1]).sum()} trained to the end; best "
        f"{100 * best['accuracy']:.1f} % after {best['steps']:.0f} steps; "
        f"{found['seconds'].sum():.0f} s of the processor",
        flush=True,
    )
    return Architecture.from_json(best["architecture"])


def _suggest(space: SearchSpace, trial: Any) -> None:
    for gene, choices in space.genes.items():
        trial.suggest_categorical(gene, choices)


def _train(config: Mapping[str, Any], tryout: Tryout, space: SearchSpace, budget: float) -> None:
    """One architecture until Tune stops it; one over the budget only says by how much."""
    from ray import tune

    torch.set_num_threads(1)
    architecture = space.decode(dict(config))
    text = architecture.to_json()
    macs = total_cost(architecture, num_classes=10).macs
    before = time.process_time()

    def report(accuracy: float, steps: int) -> None:
        nonlocal before
        now = time.process_time()
        row = {"accuracy": accuracy, "steps": steps, "architecture": text, "seconds": now - before}
        before = now
        with (tryout.folder / REPORTS).open("a") as reports:  # Tune's own are gone at its end
            reports.write(json.dumps(row) + "\n")
        tune.report(row)

    if macs > budget:
        report(-macs / budget, 1)
        return
    tryout.enter(architecture, FreshWeights(10, tryout.seed))
    for rung, steps in enumerate(tryout.settings.milestones):
        tried = tryout.climb(architecture, rung, stop=StopRequest(), on_step=lambda _: None)
        report(tried.accuracy or 0.0, steps)


def given(options: argparse.Namespace) -> Iterator[tuple[str, Architecture]]:
    """The largest default, and the published designs that fit."""
    space, budget = PRESETS[options.space], parse_macs(options.budget)
    constrained = ConstrainedSpace(
        space=space, limits=Limits(macs=budget), image_size=224, num_classes=10
    )
    yield "largest default", constrained.largest()
    for design in DESIGNS:
        if total_cost(design.architecture, num_classes=10).macs <= budget:
            yield design.name, design.architecture


def listed(run: nas.Run) -> Iterator[Architecture]:
    """The short list of a run, in the order in which it was evaluated."""
    space, trials = run.config.space, run.trials
    for _, genes in trials.loc[trials["tried"].notna(), list(space.genes)].iterrows():
        yield space.decode(genes.to_dict())


def table(options: argparse.Namespace) -> None:
    """Print each choice's mean over seeds, and how many of the truth set it beats."""
    truth = Truth.load(options.truth, steps=options.steps)
    rows = pd.read_csv(options.out)
    print(f"{'choice':28}{'MMACs':>7}{'M params':>10}{'seeds':>7}{'test %':>8}{'beats':>8}")
    print(f"{'random, median':28}{'':>7}{'':>10}{'':>7}{100 * np.median(truth.accuracy):8.1f}")
    for name, some in rows.groupby("name", sort=False):
        mean = some["test"].mean()
        beaten = 100 * (truth.accuracy < mean).mean()
        first = some.iloc[0]
        print(
            f"{name:28}{first['macs'] / 1e6:7.0f}{first['params'] / 1e6:10.2f}{len(some):7}"
            f"{100 * mean:8.1f}{beaten:7.0f}%"
        )


def train(options: argparse.Namespace, name: str, architecture: Architecture) -> None:
    """Train a choice alone with each seed."""
    trainings = [
        Training(name=name, architecture=architecture, seed=seed, steps=options.steps)
        for seed in range(options.seeds)
    ]
    work_off(trainings, options.out, options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("who", choices=("ours", "listed", "asha", "given", "table"))
    parser.add_argument("run", type=Path, nargs="?", help="of `ours` and `listed`: a finished run")
    parser.add_argument("--space", choices=PRESETS, default="tiny")
    parser.add_argument("--budget", default="300MFLOPs")
    parser.add_argument("--only", nargs="+", help="of `listed`: those of these hashes alone")
    parser.add_argument(
        "--seconds", type=float, default=870.0, help="of the processor, of `asha` as a whole"
    )
    parser.add_argument("--seed", type=int, default=0, help="of `asha`")
    parser.add_argument("--cpus", type=int, default=2, help="of `asha`: trainings at a time")
    parser.add_argument("--seeds", type=int, default=3, help="of the training of each choice")
    parser.add_argument("--steps", type=int, default=540)
    parser.add_argument("--truth", type=Path, help="of `table`")
    parser.add_argument("--out", type=Path, required=True)
    add_options(parser)
    options = parser.parse_args()
    match options.who:
        case "ours":
            train(options, f"ours, {options.run.name}", nas.open_run(options.run).architecture())
        case "listed":
            for architecture in listed(nas.open_run(options.run)):
                if not options.only or architecture.hash in options.only:
                    train(options, f"listed, {options.run.name}", architecture)
        case "asha":
            chosen = options.out.with_name(f"{options.out.stem}-asha-{options.seed}.json")
            if not chosen.exists():
                start, architecture = time.monotonic(), asha(options)
                print(f"in {time.monotonic() - start:.0f} s", flush=True)
                chosen.parent.mkdir(parents=True, exist_ok=True)
                chosen.write_text(architecture.to_json())
            train(options, f"ASHA alone, seed {options.seed}", Architecture.load(chosen))
        case "given":
            for name, architecture in given(options):
                train(options, name, architecture)
        case "table":
            table(options)


if __name__ == "__main__":
    main()
