"""Encoding: what the genes of a stage mean, and which genes mean a stage."""

from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import TYPE_CHECKING

from search_space.architecture import Stage
from search_space.parts import (
    FEED_FORWARDS,
    MIXERS,
    SEQUENCE_POOLING,
    ClassTokenHead,
    Head,
    LocalGlobal,
    MeanHead,
    Mixer,
    Pooling,
)
from search_space.parts.mixers import MixerSpec

if TYPE_CHECKING:
    from search_space.space import SearchSpace, StageChoices

Value = str | int | float
Genotype = Mapping[str, Value]
"""A value for every gene, by name, such as `{"stage1.width": 64, ...}`."""

SIZES = ("depth", "width", "ratio")
"""The genes whose choices are sizes, listed from small to large."""


MEANINGS = {
    "layout": "whether tokens lie on a map, or in a sequence behind a class token (PSViT 2D, 1D)",
    "depth": "blocks; those of all stages together decide where tokens are pooled (PSViT)",
    "width": "channels of every token",
    "pooling": "how the stage is entered with fewer tokens",
    "mixer": "how the tokens of a block exchange what they know",
    "sharing": "layers that share an attention map (PSViT)",
    "local_ratio": "share of the heads that attend in windows (PLG-ViT)",
    "aggregation": "how the other heads see the whole map (Shunted Transformer, PLG-ViT)",
    "feed_forward": "what is computed of each token between mixers",
    "ratio": "hidden channels of the feed-forward, over the width",
}
"""What the choices of each gene decide, by its name without the stage."""


def is_size(gene: str) -> bool:
    """Whether the choices of a gene are sizes."""
    return gene.rpartition(".")[2] in SIZES


def suits_sequences(space: "SearchSpace", choices: "StageChoices") -> bool:
    """Whether every choice of a stage treats all tokens alike, as a sequence needs it."""
    mixers = (
        _fitting(space, kind, width).chosen(space, width, ratio, aggregation)
        for kind in choices.mixer
        for width in choices.width
        for ratio in choices.local_ratio
        for aggregation in choices.aggregation
    )
    operators = (FEED_FORWARDS[kind] for kind in choices.feed_forward)
    return all(mixer.suits_sequences for mixer in mixers) and all(
        operator.suits_sequences for operator in operators
    )


def stage(space: "SearchSpace", index: int, layout: str, genes: Mapping[str, Value]) -> Stage:
    """The canonical stage that the values of one stage's genes describe."""
    choices = space.stages[index]
    width, depth = int(genes["width"]), int(genes["depth"])
    pooling = genes.get("pooling") or None
    if layout == "sequence" and index > 0:
        pooling = SEQUENCE_POOLING
    chosen = mixer(space, choices, genes)
    feed_forward = {"kind": genes["feed_forward"], "ratio": genes["ratio"]}
    return Stage.model_validate(
        {
            "pooling": pooling,
            "width": width,
            "depth": depth,
            "sharing": min(int(genes["sharing"]), depth),
            "mixer": chosen,
            "feed_forward": None if chosen.is_whole_block else feed_forward,
            "conv_norm": space.conv_norm,
            "position": choices.position,
            "class_token": layout == "sequence",
            "norm": choices.norm,
        }
    ).canonical()


def mixer(space: "SearchSpace", choices: "StageChoices", genes: Mapping[str, Value]) -> Mixer:
    """The mixer that the values of one stage's genes describe."""
    width = int(genes["width"])
    kind = _fitting(space, str(genes["mixer"]), width)
    labels = [choice.label for choice in choices.aggregation]
    aggregation = choices.aggregation[labels.index(str(genes["aggregation"]))]
    return kind.chosen(space, width, float(genes["local_ratio"]), aggregation)


def _fitting(space: "SearchSpace", kind: str, width: int) -> type[MixerSpec]:
    """The mixer that a kind means at a width: local–global where it does not fit."""
    spec = MIXERS[kind]
    return spec if spec.fits(space, width) else LocalGlobal


@lru_cache(maxsize=64)
def bodies(space: "SearchSpace", index: int, layout: str) -> dict[Stage, dict[str, Value]]:
    """Every different stage at that index but for its pooling, with the first genes that say so.

    How a stage is entered changes nothing in it, so `poolings` needs no stages of its own.
    """
    genes = {g: values for g, values in space.stages[index].genes().items() if g != "pooling"}
    bodies: dict[Stage, dict[str, Value]] = {}
    for values in product(*genes.values()):
        chosen = dict(zip(genes, values, strict=True))
        bodies.setdefault(_body(stage(space, index, layout, chosen)), chosen)
    return bodies


def poolings(space: "SearchSpace", index: int, layout: str) -> tuple[Pooling | None, ...]:
    """The ways to enter the stage at that index; None where the stem does it all."""
    if layout == "sequence" and index > 0:
        return (SEQUENCE_POOLING,)
    return space.stages[index].pooling or (None,)


def _body(stage: Stage) -> Stage:
    """A stage without its pooling."""
    return stage.model_copy(update={"pooling": None}).canonical()


def entered(space: "SearchSpace", body: Stage, pooling: Pooling | None) -> Stage:
    """The stage of a body that is entered so."""
    changes = {"pooling": pooling, "conv_norm": space.conv_norm}
    return body.model_copy(update=changes).canonical()


def genes_of(
    space: "SearchSpace", index: int, layout: str, stage: Stage
) -> dict[str, Value] | None:
    """The first genes that describe a stage at that index; None if there are none."""
    body = _body(stage)
    genes = bodies(space, index, layout).get(body)
    known = stage.pooling in poolings(space, index, layout)
    if genes is None or not known or stage != entered(space, body, stage.pooling):
        return None
    choices = space.stages[index].pooling
    if not choices:
        return genes
    return {"pooling": stage.pooling if stage.pooling in choices else choices[0], **genes}


def equivalents(
    space: "SearchSpace", index: int, layout: str, genes: Mapping[str, Value]
) -> dict[str, tuple[Value, ...]]:
    """For each gene of a stage the choices that give the same stage, the other genes held."""
    same = stage(space, index, layout, genes)
    return {
        gene: tuple(
            choice
            for choice in choices
            if choice == genes[gene] or stage(space, index, layout, {**genes, gene: choice}) == same
        )
        for gene, choices in space.stages[index].genes().items()
    }


def head_behind(last: Stage) -> Head:
    """The head of an architecture of a space, behind that last stage."""
    return ClassTokenHead() if last.class_token else MeanHead()
