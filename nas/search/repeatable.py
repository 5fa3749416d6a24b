"""Optuna's samplers made repeatable: a proposal depends on what is known, a seed and its number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler

from nas.utilities.seeding import derived_seed

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial, TrialState


class RepeatableSampler(BaseSampler):
    """Makes a sampler anew for whatever is drawn, with a seed of the trial's number.

    A sampler of Optuna's keeps what it has learned in the study, and in itself a running generator
    alone. Without that a process that reopens the study proposes what the one before would have.

    Args:
        make: Makes the sampler from a seed.
        seed: Of the run.
    """

    def __init__(self, make: Callable[[int], BaseSampler], *, seed: int) -> None:
        self._make, self._seed = make, seed

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """What is chosen together; Optuna asks for it right before it asks for the values."""
        self._together = self._sampler(trial)
        return self._together.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The values of what is chosen together."""
        return self._together.sample_relative(study, trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """The value of one gene; it does not depend on which others this process has drawn."""
        sampler = self._sampler(trial, param_name)
        return sampler.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """What the sampler does before a trial."""
        self._sampler(trial).before_trial(study, trial)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """What the sampler does after a trial."""
        self._sampler(trial).after_trial(study, trial, state, values)

    def _sampler(self, trial: FrozenTrial, drawn: str = "together") -> BaseSampler:
        return self._make(derived_seed(drawn, self._seed, trial.number) % 2**32)
