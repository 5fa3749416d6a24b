"""Cutting the splits that a data set lacks from its training images, and what to say of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from nas.data.dataset import ROLES, Role
from nas.data.images import ImageSource, LabelledImages, SplitName
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed
from nas.utilities.units import first_of

CUT_SHARE = 0.15

SMALL_CLASS = 10
"""Fewer training images than this are worth a word."""

UNBALANCED = 5
"""So many times as many images in the largest class as in the smallest are worth a word."""

_HELD_OUT: tuple[SplitName, ...] = ("search", "test")


def cut(
    labels: Sequence[int],
    shares: Sequence[float],
    *,
    seed: int,
    class_names: Sequence[str],
    source: str,
    purpose: str = "cut the missing splits from train",
) -> list[list[int]]:
    """Divide positions 0..len(labels)-1 at random into parts, class by class.

    Args:
        labels: The class of each position.
        shares: Size of each part as a share of each class; at least one of each class.
        seed: Decides which position goes where.
        class_names: Names of the labels, for the error.
        source: Name of the data, for the error.
        purpose: What the parts are for, for the error.

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
                f"at least {len(parts)} are needed to {purpose}"
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


def class_notes(splits: Mapping[Role, Sequence[int]], class_names: Sequence[str]) -> list[str]:
    """What a user should know of the sizes of classes before anything is trained.

    Args:
        splits: The labels of each split.
        class_names: In the order of the labels.
    """
    counts = {role: Counter(labels) for role, labels in splits.items()}
    notes = []
    for role in ROLES:
        absent = [name for label, name in enumerate(class_names) if not counts[role][label]]
        if absent:
            notes.append(f"no image in the {role} split: {first_of(absent)}")
    train = {name: counts["train"][label] for label, name in enumerate(class_names)}
    few = sorted((name for name in train if 0 < train[name] < SMALL_CLASS), key=train.__getitem__)
    if few:
        told = first_of([f"{name} ({train[name]})" for name in few])
        notes.append(f"classes of fewer than {SMALL_CLASS} training images: {told}")
    least, most = (choose(train, key=train.__getitem__) for choose in (min, max))
    if train[most] > UNBALANCED * max(1, train[least]):
        notes.append(
            f"unbalanced: {train[most]:,} training images of {most}, {train[least]:,} of {least}; "
            "accuracy counts every image alike"
        )
    return notes
