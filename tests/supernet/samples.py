"""Architectures and weights that the suites of this folder share."""

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from search_space import (
    PRESETS,
    AdaptiveWindow,
    Architecture,
    ConvStem,
    FullAttention,
    HalfStem,
    Ladder,
    Rates,
    SearchSpace,
    SpatialReduction,
    Stage,
    StageChoices,
)
from search_space.encoding import Value

NANO, TINY, BASE, PSVIT = (PRESETS[name] for name in ("nano", "tiny", "base", "psvit"))

MINIATURE = BASE.model_copy(
    update={
        "name": "miniature of base",
        "stem": ConvStem(width=8, extra_convs=1),
        "head_dim": 4,
        "ladder_head_dim": 2,
        "stages": tuple(
            stage.model_copy(
                update={
                    "width": tuple(width // 8 for width in stage.width),
                    "depth": (1, 2, 3),
                }
            )
            for stage in (BASE.stages[0], BASE.stages[-1])
        ),
    }
)
"""The kinds of part that `base` has, in networks of two stages that take milliseconds."""

UNUSUAL = SearchSpace(
    name="unusual",
    stem=HalfStem(width=12, convs=2),
    head_dim=8,
    ladder_head_dim=4,
    window=3,
    conv_norm="batch",
    stages=(
        StageChoices(
            depth=(1, 3),
            width=(16, 32),
            pooling=("mv2_se", "fused_mbconv", "patch"),
            mixer=("local_global", "none", "depthwise"),
            sharing=(1, 2),
            local_ratio=(0.0, 0.5),
            aggregation=(
                AdaptiveWindow(window=3, sampling="max_avg"),
                Rates(rates=(5, 3, 1)),
                SpatialReduction(rate=3),
                FullAttention(relative=5),
            ),
            feed_forward=("plain", "ccf"),
            position=6,
            norm=False,
            ratio=(1, 2.5),
        ),
        StageChoices(
            depth=(2,),
            width=(24, 32),
            pooling=("merging", "light"),
            mixer=("ladder", "local_global", "split_local_global", "depthwise"),
            sharing=(1, 2),
            local_ratio=(0.0, 0.75, 1.0),
            aggregation=(FullAttention(local_term=False), AdaptiveWindow(window=4)),
            ratio=(1, 2),
        ),
    ),
)
"""What a space can hold and no preset has."""

SMALL_PSVIT = PSVIT.model_copy(
    update={
        "name": "small psvit",
        "head_dim": 16,
        "stages": tuple(
            stage.model_copy(
                update={"width": tuple(w // 4 for w in stage.width), "depth": (1, 2, 3)}
            )
            for stage in PSVIT.stages
        ),
    }
)

LARGER = (
    *("Shunted-S", "Shunted-B", "LIT-M", "LIT-B", "PSLT", "PSLT-Large", "DeiT-S"),
    *("PSViT-1D-S", "PSViT-2D-S"),
)
"""Designs that are built of the same blocks as a smaller one."""


def larger_exhaustive(names: Iterable[str]) -> list[Any]:
    """Names as parameters of a test, those of larger designs for `--exhaustive` alone."""
    marks = pytest.mark.exhaustive
    return [pytest.param(name, marks=marks if name in LARGER else ()) for name in names]


@cache
def one_per_choice(space: SearchSpace) -> tuple[Architecture, ...]:
    """Architectures that together have every choice of every gene.

    In each, every stage differs in one gene from one centre. The centre is the middle of the space,
    but so that every choice has an effect and every kind of attention lends, borrows and owns its
    map: as wide as can be, three blocks deep where possible, maps shared by two.
    """
    variants = [_stage_variants(space, i) for i in range(len(space.stages))]
    architectures = _together(space, variants)
    for index in range(len(variants)):
        reached = {one.stages[index] for one in architectures}
        assert len(reached) == len(space.layout) * len(_distinct(space, variants[index], index))
    return architectures


@cache
def few_per_choice(space: SearchSpace) -> tuple[Architecture, ...]:
    """The same choices in half as many architectures, of whose stages several genes differ."""
    return _together(space, [_merged(space, i) for i in range(len(space.stages))])


per_choice = pytest.mark.parametrize(
    "per_choice",
    [few_per_choice, pytest.param(one_per_choice, marks=pytest.mark.exhaustive)],
    ids=["few", "one"],
    scope="module",
)
"""A test of every choice of every gene; with `--exhaustive` also of each by itself."""


def _together(
    space: SearchSpace, variants: list[list[dict[str, Value]]]
) -> tuple[Architecture, ...]:
    """Architectures that have all those stages."""
    return tuple(
        space.decode(
            {
                "layout": layout,
                **{gene: v for stage in variants for gene, v in stage[i % len(stage)].items()},
            }
        )
        for layout in space.layout
        for i in range(max(map(len, variants)))
    )


BLOCKS, ATTENTION = {"depth", "sharing"}, {"mixer", "aggregation", "local_ratio"}


def _merged(space: SearchSpace, index: int) -> list[dict[str, Value]]:
    """The variants of a stage, as many in one as do not hide each other.

    Attentions that are changed still lend and borrow, and so does that of the first.
    """
    centre, *others = _stage_variants(space, index)
    merged = [centre]
    for other in others:
        for i, stage in enumerate(merged):
            both = stage | _changes(centre, other)
            genes = {gene.partition(".")[2] for gene in _changes(centre, both)}
            kinds = bool(genes & BLOCKS) + bool(genes & ATTENTION)
            without = [both | {gene: centre[gene]} for gene in _changes(centre, both)]
            if (
                _changes(centre, stage).keys().isdisjoint(_changes(centre, other))
                and kinds <= min(i, 1)
                and len(_distinct(space, [both, *without], index)) == 1 + len(without)
            ):
                merged[i] = both
                break
        else:
            merged.append(other)
    return merged


def _changes(centre: dict[str, Value], stage: dict[str, Value]) -> dict[str, Value]:
    return {gene: choice for gene, choice in stage.items() if choice != centre[gene]}


def _distinct(space: SearchSpace, variants: list[dict[str, Value]], index: int) -> set[Stage]:
    """The different stages that these genes of one stage describe."""
    rest = space.genotype(space.scaled(0.5))
    return {space.decode({**rest, **genes}).stages[index] for genes in variants}


def _stage_variants(space: SearchSpace, index: int) -> list[dict[str, Value]]:
    """The genes of one stage at the centre, and with each other choice of each gene."""
    prefix = f"stage{index + 1}."
    genes = {gene: choices for gene, choices in space.genes.items() if gene.startswith(prefix)}
    depth, sharing = prefix + "depth", prefix + "sharing"
    middle = space.genotype(space.scaled(0.5))
    centre = {gene: middle[gene] for gene in genes}
    centre[prefix + "width"] = genes[prefix + "width"][-1]
    centre[depth], centre[sharing] = _at_least(3, genes[depth]), _at_least(2, genes[sharing])
    centre[prefix + "mixer"] = "local_global"
    others = [
        {**centre, gene: choice}
        for gene, choices in genes.items()
        for choice in choices
        if choice != centre[gene]
    ]
    if "ladder" in genes[prefix + "mixer"]:  # at its widest
        width = max(w for w in genes[prefix + "width"] if Ladder.fits(space, int(w)))
        others.append({**centre, prefix + "mixer": "ladder", prefix + "width": width})
    return [centre, *others]


def _at_least(size: int, choices: tuple[Value, ...]) -> Value:
    """The smallest choice of that size, or else the largest of all."""
    return next((choice for choice in choices if int(choice) >= size), choices[-1])


@torch.no_grad()
def randomise(state: Mapping[str, Tensor], seed: int = 0) -> None:
    """Overwrite weights and statistics in place: those of an initialisation hide errors."""
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in state.items():
        if not tensor.is_floating_point():
            continue
        if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5, generator=generator)
        elif tensor.ndim <= 1:
            tensor.normal_(0, 0.5, generator=generator)
        else:
            tensor.normal_(0, 1 / math.sqrt(tensor[0].numel()), generator=generator)
