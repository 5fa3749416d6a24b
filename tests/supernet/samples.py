"""Architectures and weights that the suites of this folder share."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from search_space import (
    PRESETS,
    AdaptiveWindow,
    Architecture,
    ConvStem,
    FullAttention,
    PatchStem,
    Rates,
    SearchSpace,
    StageChoices,
)
from search_space.space import Value

NANO, TINY, BASE = PRESETS["nano"], PRESETS["tiny"], PRESETS["base"]

MINIATURE = BASE.model_copy(
    update={
        "name": "miniature of base",
        "stem": ConvStem(width=8, extra_convs=1),
        "head_dim": 4,
        "stages": tuple(
            stage.model_copy(
                update={
                    "width": tuple(width // 8 for width in stage.width),
                    "depth": (1, 2, 3),
                }
            )
            for stage in BASE.stages
        ),
    }
)
"""The choices of `base` in networks that take milliseconds."""

UNUSUAL = SearchSpace(
    name="unusual",
    stem=PatchStem(),
    head_dim=8,
    window=3,
    stages=(
        StageChoices(
            depth=(1, 3),
            width=(16, 32),
            mixer=("local_global", "none"),
            sharing=(1, 2),
            local_ratio=(0.0, 0.5),
            aggregation=(
                AdaptiveWindow(window=3, sampling="max_avg"),
                Rates(rates=(5, 3, 1)),
                FullAttention(),
            ),
            feed_forward=("plain", "detail_specific"),
            ratio=(1, 2.5),
        ),
        StageChoices(
            depth=(2,),
            width=(24, 32),
            pooling=("max_pool", "conv"),
            sharing=(1, 2),
            local_ratio=(0.0, 0.75, 1.0),
            aggregation=(FullAttention(local_term=False), AdaptiveWindow(window=4)),
            ratio=(1, 2),
        ),
    ),
)
"""What a space can hold and no preset has."""


def one_per_choice(space: SearchSpace) -> list[Architecture]:
    """One architecture for every choice of every gene, all others of its genes as in one centre.

    The centre is the middle of the space, but so that every choice has an effect and every kind of
    attention both lends and borrows its map: as wide as can be, two blocks deep, shared by two.
    """
    centre = space.genotype(space.scaled(0.5))
    for gene, choices in space.genes.items():
        match gene.split(".")[1]:
            case "width":
                centre[gene] = choices[-1]
            case "depth" | "sharing":
                centre[gene] = _at_least(2, choices)
    chosen = {}
    for gene, choices in space.genes.items():
        for choice in choices:
            genotype = {**centre, gene: choice}
            if gene.endswith(".sharing"):  # has no effect beyond the depth
                depth = gene.replace("sharing", "depth")
                genotype[depth] = _at_least(max(2, int(choice)), space.genes[depth])
            architecture = space.decode(genotype)
            chosen[architecture.hash] = architecture
    assert len(chosen) == 1 + sum(len(choices) - 1 for choices in space.genes.values())
    return list(chosen.values())


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
            tensor.normal_(0, 2 / math.sqrt(tensor[0].numel()), generator=generator)
