"""Samplers: who proposes architectures.

A new one is a new entry of `SAMPLERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

    from nas.objectives.constrained_space import ConstrainedSpace

MakeSampler = Callable[["ConstrainedSpace", int, int], "BaseSampler"]
"""Makes a sampler from the space under its limits, from the run's seed, and from the number of
architectures that the search will evaluate.

What it draws must depend on the seed, the trial's number and what the study holds alone, so that a
search which goes on proposes what an uninterrupted one would: see `RepeatableSampler`."""


def surrogate(constrained: ConstrainedSpace, seed: int, trials: int) -> BaseSampler:
    """Learns from the evaluations which choices are good; proposes nothing over a limit."""
    from nas.search.surrogate import SurrogateSampler

    return SurrogateSampler(constrained, seed=seed)


def nsga2(constrained: ConstrainedSpace, seed: int, trials: int) -> BaseSampler:
    """NSGA-II (Deb et al., 2002): some five generations, as far as the number of trials allows."""
    from optuna.samplers import NSGAIISampler

    from nas.search.repeatable import RepeatableSampler

    size = min(50, max(8, trials // 5))
    return RepeatableSampler(lambda s: NSGAIISampler(population_size=size, seed=s), seed=seed)


def tpe(constrained: ConstrainedSpace, seed: int, trials: int) -> BaseSampler:
    """Tree-structured Parzen estimator; what is under way counts as bad for the time being."""
    from optuna.samplers import TPESampler

    from nas.search.repeatable import RepeatableSampler

    return RepeatableSampler(lambda s: TPESampler(seed=s, constant_liar=True), seed=seed)


def uniform(constrained: ConstrainedSpace, seed: int, trials: int) -> BaseSampler:
    """Every gene uniformly at random."""
    from optuna.samplers import RandomSampler

    from nas.search.repeatable import RepeatableSampler

    return RepeatableSampler(lambda s: RandomSampler(seed=s), seed=seed)


SAMPLERS: dict[str, MakeSampler] = {
    "surrogate": surrogate,
    "nsga2": nsga2,
    "tpe": tpe,
    "random": uniform,
}
"""Every sampler by the name that the user gives."""

AUTO = "auto"
"""What a user may give instead: that of `SAMPLERS` that measures best."""

BEST = "surrogate"
"""Which that is now, by `benchmarks/search.py`."""
