import random

import numpy as np
import torch

from nas.utilities.seeding import (
    derived_seed,
    preserved_global_generators,
    seed_global_generators,
)


def numbers() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_seeds_of_different_purposes_and_numbers_differ() -> None:
    seeds = [
        derived_seed(purpose, *key) for purpose in "ab" for key in [(0,), (0, 0), (0, 1), (1, 0)]
    ]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_seeds_stay_what_they_were_so_that_old_runs_can_be_resumed() -> None:
    assert derived_seed("sample", 0, 1) == 3519318957171459142


def test_all_three_generators_are_seeded_and_put_back() -> None:
    seed_global_generators(1)
    first, second = numbers(), numbers()
    seed_global_generators(1)
    assert numbers() == first
    with preserved_global_generators():
        seed_global_generators(2)
        assert len(set(numbers()) & set(first)) == 0
    assert numbers() == second
