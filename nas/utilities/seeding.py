"""Random numbers that are functions of named integers, whatever was drawn before.

timm's transforms draw from the global generators of `random`, numpy and torch. Seeding all three
for each sample, and putting them back afterwards, makes each sample a function of its number
alone: resuming a run, adding workers or drawing elsewhere in the program changes nothing.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


def derived_seed(purpose: str, *numbers: int) -> int:
    """A seed in [0, 2**63) for one purpose, such as `("sample", seed, draw)`.

    Seeds of different purposes or numbers are unrelated.
    """
    digest = hashlib.blake2b(repr((purpose, *numbers)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def seed_global_generators(seed: int) -> None:
    """Seed `random`, numpy and torch's CPU generator; those of accelerators are left alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


@contextmanager
def preserved_global_generators() -> Iterator[None]:
    """Put the global CPU generators back, on leaving, to where they were on entry."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])
