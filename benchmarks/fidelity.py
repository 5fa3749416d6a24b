r"""How well a supernet's scores rank architectures: held against what training alone gives.

`truth` draws architectures under a budget, stratified over multiply-adds, and trains each alone by
the recipe of `retrain`; it can be killed and goes on. `judge` holds scores against a truth set.

    nice python -m benchmarks.fidelity truth --space tiny --budget 300MFLOPs \
        --out results/reference/fidelity/tiny-300M.csv
    python -m benchmarks.fidelity judge results/RUN ... \
        --truth results/reference/fidelity/tiny-300M.csv

`judge` takes finished runs, whose supernet it asks for inherited accuracies, and a table of scores
that were kept (`--scores`). It prints Kendall's tau-b with a bootstrap interval, Spearman's rho,
tau-b among pairs whose MACs differ by at most 10 %, and the regret: what is lost, in points, by
taking the best of 1 or of 3 by score. MACs, parameters and the number of max-poolings stand beside
as rivals that cost nothing, and one seed of the truth against another as what no score can be
expected to exceed. The table of head starts says, for each choice of a gene, its share among the
best fifth by score and by truth.
"""

import argparse
import itertools
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import kendalltau, spearmanr

from benchmarks.alone import Training, add_options, data_of, work_off
from nas.data import materialise
from nas.runs.folder import RunFolder
from nas.runs.run import trained_store
from nas.training.accuracy import SubnetEvaluator
from nas.utilities.units import parse_macs
from search_space import PRESETS, Architecture, SearchSpace, total_cost

DRAWS = 4000
"""Random architectures from which the strata are filled."""

BOOTSTRAP = 2000
NEAR = 0.1
"""Share by which the MACs of a pair may differ for it to count as equal in cost."""


def stratified(
    space: SearchSpace, *, budget: float, count: int, seed: int, num_classes: int
) -> list[Architecture]:
    """Random architectures within a budget, about as many from each part of the range of MACs.

    Uniform draws crowd around the middle. So the range of those that fit is cut into eight equal
    parts, and the architectures are taken from them in turn.
    """
    rng = random.Random(seed)
    drawn = [space.sample(rng) for _ in range(DRAWS)]
    macs = {a.hash: total_cost(a, num_classes=num_classes).macs for a in drawn}
    fitting = [a for a in drawn if macs[a.hash] <= budget]
    edges = np.linspace(min(macs.values()), budget, 9)[1:-1]
    strata: list[list[Architecture]] = [[] for _ in range(8)]
    for architecture in fitting:
        strata[int(np.searchsorted(edges, macs[architecture.hash]))].append(architecture)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*strata))
    return [architecture for architecture in turns if architecture is not None][:count]


def trainings(options: argparse.Namespace) -> list[Training]:
    """Every architecture with each seed in turn, then some for three times as long."""
    architectures = stratified(
        PRESETS[options.space],
        budget=parse_macs(options.budget),
        count=options.count,
        seed=options.seed,
        num_classes=10,
    )
    rows = [
        Training(name=str(number), architecture=a, seed=seed, steps=options.steps)
        for seed in range(options.seeds)
        for number, a in enumerate(architectures)
    ]
    rows += [
        Training(name=str(number), architecture=a, steps=3 * options.steps)
        for number, a in enumerate(architectures[: options.long])
    ]
    return rows


@dataclass(frozen=True, kw_only=True)
class Truth:
    """Architectures and what training alone gives.

    Attributes:
        architectures: In the order of the table.
        accuracy: Mean over seeds, on the test split, 0 to 1.
        seeds: Accuracy of each architecture (row) with each seed.
        macs: Of each.
        params: Of each.
    """

    architectures: list[Architecture]
    accuracy: np.ndarray
    seeds: np.ndarray
    macs: np.ndarray
    params: np.ndarray

    @classmethod
    def load(cls, path: Path, *, steps: int) -> "Truth":
        """Read a table of `truth`; architectures that lack a seed are left out.

        Where no seed has nine in ten of them, each has the mean of its own.
        """
        table = pd.read_csv(path)
        table = table[table["steps"] == steps]
        seeds = table.pivot_table(index="hash", columns="seed", values="test", sort=False)
        whole = seeds.dropna(axis=1, thresh=int(0.9 * len(seeds))).dropna()
        if whole.empty:
            whole = seeds.mean(axis=1).to_frame()
        first = table.drop_duplicates("hash").set_index("hash").loc[whole.index]
        return cls(
            architectures=[Architecture.from_json(text) for text in first["architecture"]],
            accuracy=whole.mean(axis=1).to_numpy(),
            seeds=whole.to_numpy(),
            macs=first["macs"].to_numpy(),
            params=first["params"].to_numpy(),
        )


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """How well a score ranks the architectures of a truth set; see the module's text."""

    tau: float
    low: float
    high: float
    rho: float
    tau_near: float
    regret1: float
    regret3: float

    @classmethod
    def of(cls, score: Sequence[float] | np.ndarray, truth: Truth) -> "Verdict":
        """Hold a score against the truth."""
        scores, accuracy = np.asarray(score, float), truth.accuracy
        rng = np.random.default_rng(0)
        taus = []
        for _ in range(BOOTSTRAP):
            chosen = rng.integers(0, len(scores), len(scores))
            taus.append(kendalltau(scores[chosen], accuracy[chosen]).statistic)
        low, high = np.nanquantile(taus, [0.025, 0.975])
        order = np.argsort(-scores, kind="stable")

        def regret(count: int) -> float:
            return float(100 * (accuracy.max() - accuracy[order[:count]].max()))

        return cls(
            tau=kendalltau(scores, accuracy).statistic,
            low=float(low),
            high=float(high),
            rho=spearmanr(scores, accuracy).statistic,
            tau_near=tau_near(scores, accuracy, truth.macs),
            regret1=regret(1),
            regret3=regret(3),
        )

    def __str__(self) -> str:
        return (
            f"{self.tau:6.2f}  [{self.low:5.2f}, {self.high:5.2f}]  {self.rho:6.2f}  "
            f"{self.tau_near:6.2f}  {self.regret1:8.1f}  {self.regret3:8.1f}"
        )


HEADINGS = "   tau  [95 % interval]     rho   ±10 %  regret@1  regret@3"


def tau_near(scores: np.ndarray, accuracy: np.ndarray, macs: np.ndarray) -> float:
    """Tau-b over the pairs of nearly equal MACs."""
    first, second = np.triu_indices(len(scores), 1)
    near = np.abs(macs[first] - macs[second]) <= NEAR * np.maximum(macs[first], macs[second])
    by_score = np.sign(scores[first] - scores[second])[near]
    by_truth = np.sign(accuracy[first] - accuracy[second])[near]
    scale = np.sqrt((by_score != 0).sum() * (by_truth != 0).sum())
    return float((by_score * by_truth).sum() / scale) if scale else float("nan")


def noise_floor(truth: Truth) -> float:
    """Mean tau-b of one seed of the truth against another, of two or more."""
    pairs = itertools.combinations(truth.seeds.T, 2)
    return statistics.mean(kendalltau(a, b).statistic for a, b in pairs)


def inherited(run: Path, architectures: Sequence[Architecture]) -> list[float]:
    """Accuracy of each on the search split with the weights of a run's supernet."""
    folder = RunFolder(run)
    config = folder.config
    data = data_of(config.data, config.proxy_size)
    images, labels = materialise(data.search, limit=None, seed=config.seed)
    evaluator = SubnetEvaluator(
        trained_store(folder, device="cpu"),
        images,
        labels,
        mean=data.mean,
        std=data.std,
        threads=2,
    )
    return [evaluator.fit(architecture).accuracy for architecture in architectures]


def head_starts(space: SearchSpace, truth: Truth, score: np.ndarray) -> pd.DataFrame:
    """Of each choice, its share in the best fifth by score and by truth, and in the whole set."""
    genes = pd.DataFrame([space.genotype(a) for a in truth.architectures])
    fifth = max(1, round(len(genes) / 5))
    by_score = genes.iloc[np.argsort(-score, kind="stable")[:fifth]]
    by_truth = genes.iloc[np.argsort(-truth.accuracy, kind="stable")[:fifth]]
    rows = [
        {
            "gene": gene,
            "choice": choice,
            "all": (genes[gene] == choice).mean(),
            "by score": (by_score[gene] == choice).mean(),
            "by truth": (by_truth[gene] == choice).mean(),
        }
        for gene, choices in space.genes.items()
        if len(choices) > 1
        for choice in choices
    ]
    return pd.DataFrame(rows).round(2)


def judge(options: argparse.Namespace) -> None:
    """Print how well each run's supernet, and what costs nothing, ranks a truth set."""
    truth = Truth.load(options.truth, steps=options.steps)
    points = 100 * truth.accuracy
    seeds = truth.seeds.shape[1]
    floor = f"; one seed ranks another with tau-b {noise_floor(truth):.2f}" if seeds > 1 else ""
    print(
        f"{len(points)} architectures, seeds: {seeds}; {points.min():.1f} to {points.max():.1f} %, "
        f"median {np.median(points):.1f}, best tenth from {np.quantile(points, 0.9):.1f}{floor}"
    )
    print(f"{'score':24}{HEADINGS}")
    print(f"{'MACs':24}{Verdict.of(truth.macs, truth)}")
    print(f"{'parameters':24}{Verdict.of(truth.params, truth)}")
    convolving = [[s.pooling for s in a.stages].count("max_pool") for a in truth.architectures]
    print(f"{'poolings max_pool':24}{Verdict.of(convolving, truth)}")
    if options.scores is not None:
        hashes = [architecture.hash for architecture in truth.architectures]
        for name, column in pd.read_csv(options.scores, index_col="hash").loc[hashes].items():
            print(name)
            print(f"{'':24}{Verdict.of(column.to_numpy(), truth)}", flush=True)
    for run in options.runs:
        scores = np.array(inherited(run, truth.architectures))
        print(f"{run.name[:23]:24}{Verdict.of(scores, truth)}", flush=True)
        gap = 100 * (truth.accuracy - scores).mean()
        print(f"{'':24}inherited {100 * scores.mean():.1f} %, alone {gap:+.1f} points")
        if options.head_starts:
            table = head_starts(RunFolder(run).config.space, truth, scores)
            print(table.to_string(index=False))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    truth = commands.add_parser("truth", help="train architectures alone")
    truth.add_argument("--space", choices=PRESETS, default="tiny")
    truth.add_argument("--budget", default="300MFLOPs")
    truth.add_argument("--count", type=int, default=40)
    truth.add_argument("--seeds", type=int, default=2)
    truth.add_argument("--steps", type=int, default=540)
    truth.add_argument("--long", type=int, default=8, help="so many also three times as long")
    truth.add_argument("--seed", type=int, default=0, help="of the architectures")
    truth.add_argument("--out", type=Path, required=True)
    add_options(truth)
    truth.set_defaults(action=lambda options: work_off(trainings(options), options.out, options))
    judged = commands.add_parser("judge", help="hold supernets against a truth set")
    judged.add_argument("runs", type=Path, nargs="*")
    judged.add_argument("--truth", type=Path, required=True)
    judged.add_argument("--steps", type=int, default=540)
    judged.add_argument("--scores", type=Path, help="CSV with a hash and a column for each score")
    judged.add_argument("--head-starts", action="store_true")
    judged.set_defaults(action=judge)
    options = parser.parse_args()
    options.action(options)


if __name__ == "__main__":
    main()
