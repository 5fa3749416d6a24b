"""Cutting the splits that a data set lacks from its training images, by seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.data.images import ImageSource, LabelledImages, SplitName
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed

CUT_SHARE = 0.15

_HELD_OUT: tuple[SplitName, ...] = ("search", "test")


def cut(
    labels: Sequence[int],
    shares: Sequence[float],
    *,
    seed: int,
    class_names: Sequence[str],
    source: str,
) -> list[list[int]]:
    """Divide positions 0..len(labels)-1 at random into parts, class by class.

    Args:
        labels: The class of each position.
        shares: Size of each part as a share of each class; at least one of each class.
        seed: Decides which position goes where.
        class_names: Names of the labels, for the error.
        source: Name of the data, for the error.

    Returns:
        What is left, then one list of positions per share; each in ascending order.

    Raises:
        InputError: A class has too few members to be in every part.
    """
    generator = np.random.default_rng(derived_seed("cut", seed))
    targets = np.asarray(labels)
    parts: list[list[int]] = [[] for _ in range(len(shares) + 1)]
    for label, name in enumerate(class_names):
        members = generator.permutation(np.flatnonzero(targets == label))
        if len(members) < len(parts):
            raise InputError(
                f"{source}: class {name!r} has {len(members)} training image(s); "
                f"at least {len(parts)} are needed to cut the missing splits from train"
            )
        sizes = [max(1, round(share * len(members))) for share in shares]
        *pieces, rest = np.split(members, np.cumsum(sizes))
        for part, piece in zip(parts, [rest, *pieces], strict=True):
            part.extend(piece.tolist())
    return [sorted(part) for part in parts]


def arrange(
    source: ImageSource, *, seed: int
) -> tuple[LabelledImages, LabelledImages, LabelledImages, tuple[str, ...]]:
    """Train, search and test images of a source, and notes on how they came about.

    A validation split is the test split where there is none, else the search split. A split that
    is still missing is cut from train: 15 % of each class, at least one image.

    Raises:
        InputError: More splits than roles, or a class too small to cut.
    """
    given = dict(source.splits)
    train = given.pop("train")
    validation = given.pop("validation", None)
    notes = list(source.notes)
    if validation is not None:
        role = next((name for name in reversed(_HELD_OUT) if name not in given), None)
        if role is None:
            raise InputError(
                f"{source.name}: has validation, search and test splits; "
                "validation stands for one of the other two, so remove one"
            )
        given[role] = validation
        notes.append(f"the validation split, {len(validation)} images, serves as {role} split")
    missing = [name for name in _HELD_OUT if name not in given]
    if missing:
        rest, *pieces = cut(
            train.labels,
            [CUT_SHARE] * len(missing),
            seed=seed,
            class_names=source.class_names,
            source=source.name,
        )
        for name, indices in zip(missing, pieces, strict=True):
            given[name] = train.subset(indices)
            notes.append(
                f"no {name} split: {CUT_SHARE * 100:.0f} % of train, {len(indices)} images, "
                f"chosen by seed {seed}"
            )
        train = train.subset(rest)
    return train, given["search"], given["test"], tuple(notes)
