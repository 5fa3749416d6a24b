"""A sampler that learns which choices are good, and knows what each costs.

How good an architecture is (its merit, `nas.search.trials.merits`) is not known before it is
evaluated, but its costs are: they have closed forms. So only merit is modelled, by a linear
function of the genes with a Gaussian posterior (Bayesian ridge regression), which smooths the noise
of single evaluations. For every proposal one function is drawn from the posterior (Thompson
sampling), and of candidates that meet the limits one is proposed that would be best, were that
function the truth. So the proposals of a batch, which know the same evaluations, differ; and none
is made twice.

Which is best? For trials of an even number, the one that would add most to the hypervolume.
Inherited weights make large architectures look little better than small ones, so that this alone
would mostly propose small ones; trained alone they differ. So for trials of an odd number a floor
is drawn, anywhere from the smallest to the largest that was evaluated, and the best is proposed of
what has at least so many multiply-adds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence, Set
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState
from sklearn.linear_model import BayesianRidge

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.objective import ACCURACY, Objective
from nas.search.features import features
from nas.search.front import hypervolume, losses, non_dominated
from nas.search.trials import RECORD, merits
from nas.utilities.seeding import derived_seed
from search_space import Architecture

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from optuna.study import Study

FIRST = 10
"""Evaluations before the model has a say; what is proposed until then is random."""

RANDOM = 16
"""Candidates of each proposal that are drawn at random."""

MUTANTS = 64
"""Candidates of each proposal that are mutants of the front."""


class SurrogateSampler(BaseSampler):
    """Thompson sampling over the genes of a space under limits.

    Args:
        constrained: Whose architectures are proposed; none over a limit.
        seed: Of the candidates, and of the functions that are drawn; with the trial's number.
    """

    def __init__(self, constrained: ConstrainedSpace, *, seed: int) -> None:
        self._constrained = constrained
        self._seed = seed
        self._objectives = [o for o in constrained.objectives if o.searched]
        self._decoded: dict[int, Architecture] = {}
        self._features, self._costs = cache(self._features_of), cache(self._costs_of)
        self._macs = cache(self._macs_of)

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All genes are chosen together."""
        genes = self._constrained.space.genes
        return {gene: CategoricalDistribution(choices) for gene, choices in genes.items()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The genes of the next proposal."""
        trials = study.get_trials(deepcopy=False)
        trials = [t for t in trials if t.params.keys() >= search_space.keys()]
        for t in trials:
            if t.number not in self._decoded:
                self._decoded[t.number] = self._constrained.space.decode(t.params)
        done = [t for t in trials if t.state == TrialState.COMPLETE]
        found = merits([t.values[0] for t in done], [_loss(t) for t in done])
        evaluated = {self._decoded[t.number]: merit for t, merit in zip(done, found, strict=True)}
        known = {self._decoded[t.number] for t in trials}
        rng = random.Random(derived_seed("candidates", self._seed, trial.number))
        drawn = [self._constrained.sample(rng) for _ in range(RANDOM)]
        if len(evaluated) < FIRST:
            chosen = next((a for a in drawn if a not in known), drawn[0])
        else:
            macs = [self._macs(architecture) for architecture in evaluated]
            floor = rng.uniform(min(macs), max(macs)) if trial.number % 2 else 0.0
            chosen = self._most_promising(evaluated, known, drawn, rng, floor=floor)
        return dict(self._constrained.space.genotype(chosen))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """What is no gene of the space."""
        sampler = RandomSampler(seed=derived_seed(param_name, self._seed, trial.number) % 2**32)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def _most_promising(
        self,
        evaluated: Mapping[Architecture, float],
        known: Set[Architecture],
        drawn: Sequence[Architecture],
        rng: random.Random,
        *,
        floor: float = 0.0,
    ) -> Architecture:
        """Of the candidates, the one that is best by a function drawn from the posterior.

        That is the one that adds most hypervolume or, above a floor, the one of the highest merit.

        Args:
            evaluated: The merit of each architecture so far.
            known: All that were proposed: none of them again.
            drawn: Random architectures, which are candidates beside mutants of the front.
            rng: Draws the mutants and the function.
            floor: Multiply-adds that what is proposed has at least, if there is such.
        """
        above = {a: merit for a, merit in evaluated.items() if self._macs(a) >= floor}
        values = np.array([[merit, *self._costs(a)] for a, merit in above.items()])
        on_front = non_dominated(losses(values, self._objectives))
        front = [a for a, best in zip(above, on_front, strict=True) if best]
        space = self._constrained.space
        mutants = (space.mutate(rng.choice(front), rng) for _ in range(MUTANTS))
        candidates = [
            a
            for a in dict.fromkeys((*drawn, *mutants))
            if a not in known and self._constrained.admits(a) and self._macs(a) >= floor
        ]
        if not candidates:
            return self._most_promising(evaluated, known, drawn, rng) if floor else drawn[0]
        drawn_merits = self._draw([*evaluated], np.array([*evaluated.values()]), candidates, rng)
        if floor:
            return candidates[int(drawn_merits.argmax())]
        promised = np.array(
            [[y, *self._costs(a)] for a, y in zip(candidates, drawn_merits, strict=True)]
        )
        worths = _worths(promised, values[on_front], values, self._objectives)
        return candidates[max(range(len(candidates)), key=worths.__getitem__)]

    def _draw(
        self,
        evaluated: Sequence[Architecture],
        known: NDArray[np.float64],
        candidates: Sequence[Architecture],
        rng: random.Random,
    ) -> NDArray[np.float64]:
        """Merits of the candidates by one function drawn from the posterior."""
        features = np.array([self._features(a) for a in evaluated])
        origin, mean = features.mean(axis=0), known.mean()
        scale = known.std() or 1.0  # else a prior of the model's would count that has a scale
        model = BayesianRidge(fit_intercept=False).fit(features - origin, (known - mean) / scale)
        weights = np.random.default_rng(rng.getrandbits(64)).multivariate_normal(
            model.coef_, model.sigma_, method="eigh", check_valid="ignore"
        )
        drawn: NDArray[np.float64] = (
            np.array([self._features(a) for a in candidates]) - origin
        ) @ (scale * weights) + mean
        return drawn

    def _macs_of(self, architecture: Architecture) -> float:
        return self._constrained.cost(architecture).macs

    def _features_of(self, architecture: Architecture) -> list[float]:
        space = self._constrained.space
        genotype = space.genotype(architecture)
        return features(space, {gene: (choice,) for gene, choice in genotype.items()})

    def _costs_of(self, architecture: Architecture) -> list[float]:
        """Every objective but accuracy, which is the first, in the order of the study."""
        costs = self._constrained.costs(architecture) | self._constrained.predict(architecture)
        return [costs[o.name] for o in self._objectives if o.name != ACCURACY.name]


def _loss(trial: FrozenTrial) -> float | None:
    """The loss that its record holds, if it has one."""
    loss: float | None = trial.user_attrs.get(RECORD, {}).get("loss")
    return loss


def _worths(
    promised: NDArray[np.float64],
    front: NDArray[np.float64],
    evaluated: NDArray[np.float64],
    objectives: Sequence[Objective],
) -> list[tuple[float, float]]:
    """What each candidate would add to the hypervolume, and its lead in merit over the front.

    The hypervolume is what is won over the worst that was evaluated. The lead, over what costs no
    more, decides where nothing is added.

    Args:
        promised: Objectives of the candidates, merit first, in the place of accuracy: shape
            (candidates, objectives).
        front: Of the best that were evaluated, likewise.
        evaluated: Of all, likewise.
        objectives: The columns.
    """
    least, span = evaluated.min(axis=0), np.ptp(evaluated, axis=0)
    span[span == 0] = 1.0
    shares, there = (promised - least) / span, (front - least) / span
    before = hypervolume(there, objectives)
    cheaper = losses(front, objectives)[None, :, 1:] <= losses(promised, objectives)[:, None, 1:]
    worths = []
    for candidate, row in zip(shares, cheaper, strict=True):
        no_dearer = row.all(axis=1)
        lead = float(candidate[0] - there[no_dearer, 0].max(initial=0.0))
        after = hypervolume([*there, candidate], objectives) if lead > 0 else before
        worths.append((after - before, lead))
    return worths
