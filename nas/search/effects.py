"""Which choices matter: how much accuracy each gives at equal cost.

The model is additive: an accuracy is a constant, a slope times the logarithm of the MACs, and a
number for each choice of each gene. Constant and slope are fitted freely, so that a choice has no
credit for what it costs. The numbers of the choices are shrunk towards zero, since a search has too
few trials to tell them all apart, but on a scale of each gene's own, which is drawn towards what is
usual among genes (a Student's t prior): one scale for all would cut off the few that matter.
Accuracies are taken as they are: points are what one decides by, and log odds have no value for
what is always right.

An architecture says nothing of choices that would all give the same architecture: it counts in
equal parts for each. So a gene that may be without effect (sharing without attention) is compared
between the architectures where it has one, and takes nothing from the choice that left it without.

Intervals are those of the posterior, which knows that what was tried rarely may still give much;
from trials that are drawn again it might be absent. The sampler chose trials by what was found
before them, accuracies or the losses beside them. That hardly biases a posterior, but leaves wide
intervals where it soon gave up. In simulated searches (`benchmarks/effects.py`) those of 95 % hold
90 to 99 of 100 true numbers, and 70 to 93 of the large ones: these are told rather too small.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nas.search.features import features
from nas.search.front import evaluated
from search_space import Architecture, SearchSpace
from search_space.encoding import Value

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

LEAST_ARCHITECTURES = 20
"""Of fewer nothing is estimated."""

LEAST_OF_A_CHOICE = 3
"""A choice that fewer architectures made is unknown."""

FREEDOM = 4
"""Degrees of freedom of the t prior: few let some genes matter far more than others."""

ROUNDS = 20
"""Of fitting the scales of the genes; more change effects by less than 0.1 points."""

NORMAL_95 = 1.96
"""Standard deviations to each side that hold 95 % of a normal distribution."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A difference in accuracy, 0 to 1, with the standard deviation of its posterior."""

    mean: float
    deviation: float

    @property
    def interval(self) -> tuple[float, float]:
        """Which holds 95 % of the posterior."""
        reach = NORMAL_95 * self.deviation
        return self.mean - reach, self.mean + reach


@dataclass(frozen=True, kw_only=True)
class ChoiceEffect:
    """What a choice of a gene gives at equal cost.

    Attributes:
        choice: The choice.
        architectures: That made it, or one that means the same in them, where the gene has an
            effect.
        gain: In accuracy, over the mean of the gene's known choices; None where it is unknown.
    """

    choice: Value
    architectures: int
    gain: Estimate | None


@dataclass(frozen=True, kw_only=True)
class GeneEffect:
    """What the choices of a gene give at equal cost.

    Attributes:
        gene: Its name.
        choices: In the order of the space.
        lead: Of the best choice over the worst; None where fewer than two are known.
    """

    gene: str
    choices: tuple[ChoiceEffect, ...]
    lead: Estimate | None

    @property
    def ranked(self) -> list[ChoiceEffect]:
        """The known choices, the best first."""
        known = [(c.gain.mean, c) for c in self.choices if c.gain is not None]
        return [c for _, c in sorted(known, key=lambda pair: -pair[0])]


def inherited_effects(
    trials: pd.DataFrame, architectures: Mapping[str, Architecture], space: SearchSpace
) -> list[GeneEffect]:
    """The effects on inherited accuracy, by all that was evaluated within the limits.

    Args:
        trials: Of the run.
        architectures: By hash.
        space: That was searched.

    Returns:
        An entry for each gene with several choices, that with the largest lead first; none where
        fewer than `LEAST_ARCHITECTURES` were evaluated.
    """
    return _effects(evaluated(trials), architectures, space, accuracy="accuracy", held=["macs"])


def alone_effects(
    trials: pd.DataFrame, architectures: Mapping[str, Architecture], space: SearchSpace
) -> list[GeneEffect]:
    """The effects on accuracy after training alone, likewise, by what was tried.

    The steps of this training are held equal as MACs are. Since more steps were given to what did
    well after few, the effects read rather too small.
    """
    rows = evaluated(trials).dropna(subset="tried")
    return _effects(rows, architectures, space, accuracy="tried", held=["macs", "tried_steps"])


def clear(effects: Sequence[GeneEffect]) -> list[GeneEffect]:
    """Those whose lead is no matter of chance, although so many pairs of choices were looked at.

    Of all pairs in a run, chance alone gives one in twenty runs (Bonferroni's correction).
    """
    pairs = sum(math.comb(len(effect.ranked), 2) for effect in effects)
    reach = NormalDist().inv_cdf(1 - 0.025 / max(pairs, 1))
    return [e for e in effects if e.lead is not None and e.lead.mean > reach * e.lead.deviation]


def _effects(
    rows: pd.DataFrame,
    architectures: Mapping[str, Architecture],
    space: SearchSpace,
    *,
    accuracy: str,
    held: Sequence[str],
) -> list[GeneEffect]:
    rows = rows[rows["hash"].isin(architectures.keys())]
    if len(rows) < LEAST_ARCHITECTURES:
        return []
    taken = [space.equivalents(architectures[hash]) for hash in rows["hash"]]
    sizes = [len(choices) for choices in space.genes.values()]
    mean, covariance = _posterior(
        np.array([features(space, choices) for choices in taken]),
        np.repeat(np.arange(len(sizes)), sizes),
        rows[accuracy].to_numpy(dtype=float),
        np.log(rows[list(held)].to_numpy(dtype=float)),
    )
    effects, start = [], 0
    for gene, choices in space.genes.items():
        here = slice(start, start + len(choices))
        start = here.stop
        if len(choices) > 1:
            active = [each[gene] for each in taken if len(each[gene]) < len(choices)]
            counts = [sum(choice in made for made in active) for choice in choices]
            effects.append(_gene_effect(gene, choices, counts, mean[here], covariance[here, here]))
    return sorted(effects, key=lambda effect: -effect.lead.mean if effect.lead else math.inf)


def _posterior(
    choices: NDArray[np.float64],
    genes: NDArray[np.int64],
    accuracies: NDArray[np.float64],
    held: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and covariance of the choices' numbers, by what constant and slopes leave unsaid.

    Bayesian ridge regression is done again and again with each gene's features on the scale that
    the last one suggests: the expectation maximisation of Student's t prior.

    Args:
        choices: Features: shape (architectures, choices of all genes).
        genes: The gene of each choice, counted from 0.
        accuracies: Shape (architectures,).
        held: What is held equal: shape (architectures, quantities).
    """
    from sklearn.linear_model import BayesianRidge

    free = np.column_stack([np.ones(len(held)), held - held.mean(axis=0)])
    both = np.column_stack([choices, accuracies])
    unsaid = both - free @ np.linalg.lstsq(free, both)[0]
    scales = np.ones(len(genes))
    for _ in range(ROUNDS):
        model = BayesianRidge(fit_intercept=False).fit(unsaid[:, :-1] * scales, unsaid[:, -1])
        mean = scales * model.coef_
        covariance = scales[:, None] * model.sigma_ * scales
        squares = model.lambda_ * (mean**2 + covariance.diagonal())  # 1 where as usual
        of_gene = (FREEDOM + np.bincount(genes, squares)) / (FREEDOM + np.bincount(genes))
        scales = np.sqrt(of_gene)[genes]
    return mean, covariance


def _gene_effect(
    gene: str,
    choices: Sequence[Value],
    counts: Sequence[int],
    mean: NDArray[np.float64],
    covariance: NDArray[np.float64],
) -> GeneEffect:
    """The effects of a gene by the posterior of its choices' numbers."""

    def estimate(weights: NDArray[np.float64]) -> Estimate:
        variance = max(float(weights @ covariance @ weights), 0.0)
        return Estimate(mean=float(weights @ mean), deviation=math.sqrt(variance))

    known = [place for place, count in enumerate(counts) if count >= LEAST_OF_A_CHOICE]
    gains: dict[int, Estimate] = {}
    lead = None
    if len(known) > 1:  # a single one has nothing to be held against
        own = np.eye(len(choices))
        gains = {place: estimate(own[place] - own[known].mean(axis=0)) for place in known}
        worst, *_, best = sorted(known, key=mean.__getitem__)
        lead = estimate(own[best] - own[worst])
    return GeneEffect(
        gene=gene,
        choices=tuple(
            ChoiceEffect(choice=choice, architectures=count, gain=gains.get(place))
            for place, (choice, count) in enumerate(zip(choices, counts, strict=True))
        ),
        lead=lead,
    )
