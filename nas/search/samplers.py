"""Samplers: who proposes architectures.

A new one is a new entry of `SAMPLERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

MakeSampler = Callable[[int, int], "BaseSampler"]
"""Makes a sampler from its seed and the number of architectures that the search will evaluate."""


def nsga2(seed: int, trials: int) -> BaseSampler:
    """NSGA-II (Deb et al., 2002): some five generations, as far as the number of trials allows."""
    from optuna.samplers import NSGAIISampler

    return NSGAIISampler(population_size=min(50, max(8, trials // 5)), seed=seed)


def tpe(seed: int, trials: int) -> BaseSampler:
    """Tree-structured Parzen estimator; what is under way counts as bad for the time being."""
    from optuna.samplers import TPESampler

    return TPESampler(seed=seed, constant_liar=True)


def uniform(seed: int, trials: int) -> BaseSampler:
    """Every gene uniformly at random."""
    from optuna.samplers import RandomSampler

    return RandomSampler(seed=seed)


SAMPLERS: dict[str, MakeSampler] = {"nsga2": nsga2, "tpe": tpe, "random": uniform}
"""Every sampler by the name that the user gives."""
