"""Closed-form cost of an architecture: the sum over its parts, to the unit.

Each part knows its own cost (`search_space.parts`). `tests/supernet/test_cost_of_network.py` holds
this against independent counts of the built network, and `benchmarks/cost_agreement.py` does so for
many architectures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_space.architecture import Architecture, Stage, map_sizes, stem_size
from search_space.operators import Cost, MapRole, Size, norm, pixels
from search_space.parts import POOLINGS, FeedForward, Head, Mixer, Pooling, Stem


@dataclass(frozen=True)
class CostRow:
    """One row of the table of costs: a named part of the network and the map that it works on."""

    name: str
    map_size: Size
    cost: Cost


def total_cost(
    architecture: Architecture,
    *,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> Cost:
    """Cost of the whole network.

    Args:
        architecture: What to cost.
        image_size: Side of a square image, or (height, width), in pixels.
        num_classes: Outputs of the classifier.
        in_chans: Channels of the image.
    """
    image = pixels(image_size)
    stem, stages = architecture.stem, architecture.stages
    costs = [stem_cost(stem, stages[0].width, image, in_chans)]
    previous, previous_size = _after_stem(stem, stages[0].width, image)
    for stage, size in zip(stages, map_sizes(image, architecture), strict=True):
        costs.append(entry_cost(stage, previous, previous_size, size))
        costs.append(body_cost(stage, size))
        previous, previous_size = stage.width, size
    costs.append(head_cost(architecture.head, previous, previous_size, num_classes))
    # At once: sums of two at a time would be a third of the whole time.
    return Cost(
        sum([cost.params for cost in costs]),
        sum([cost.macs for cost in costs]),
        sum([cost.activations for cost in costs]),
        max([cost.peak for cost in costs]),
    )


def cost_table(
    architecture: Architecture,
    *,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> list[CostRow]:
    """Cost of each part, in the order of the forward pass; the rows add up to `total_cost`."""
    image = pixels(image_size)
    sizes = map_sizes(image, architecture)
    rows = [
        CostRow(
            "stem",
            stem_size(image, architecture.stem),
            stem_cost(architecture.stem, architecture.stages[0].width, image, in_chans),
        )
    ]
    previous, previous_size = _after_stem(architecture.stem, architecture.stages[0].width, image)
    for index, (stage, size) in enumerate(zip(architecture.stages, sizes, strict=True)):
        name = f"stages.{index}"
        if (cost := entry_cost(stage, previous, previous_size, size)) != Cost():
            rows.append(CostRow(f"{name}.entry", size, cost))
        rows.extend(
            CostRow(f"{name}.blocks.{block}", size, block_cost(stage, block, size))
            for block in range(stage.depth)
        )
        if stage.norm:
            rows.append(CostRow(f"{name}.norm", size, norm(stage.width)))
        previous, previous_size = stage.width, size
    head = head_cost(architecture.head, previous, previous_size, num_classes)
    rows.append(CostRow("head", (1, 1), head))
    return rows


@lru_cache(maxsize=1 << 10)
def stem_cost(stem: Stem, width: int, image: Size, in_chans: int) -> Cost:
    """Cost of the stem up to the first stage of that width."""
    return stem.cost(width, image, in_chans)


@lru_cache(maxsize=1 << 18)
def body_cost(stage: Stage, size: Size) -> Cost:
    """Cost of a stage's blocks and closing norm on its map."""
    cost = norm(stage.width) if stage.norm else Cost()
    for role, count in Counter(stage.map_role(block) for block in range(stage.depth)).items():
        cost += _role_cost(stage, role, size) * count
    return cost


def block_cost(stage: Stage, block: int, size: Size) -> Cost:
    """Cost of one block of a stage; blocks that borrow an attention map cost less."""
    return _role_cost(stage, stage.map_role(block), size)


@lru_cache(maxsize=1 << 10)
def head_cost(head: Head, width: int, size: Size, num_classes: int) -> Cost:
    """Cost of what follows the last stage, whose map has that width and size."""
    return head.cost(width, size, num_classes)


def _role_cost(stage: Stage, role: MapRole, size: Size) -> Cost:
    return _block(stage.mixer, stage.feed_forward, stage.width, stage.hidden, role, size)


@lru_cache(maxsize=1 << 17)
def _block(
    mixer: Mixer,
    feed_forward: FeedForward | None,
    width: int,
    hidden: int,
    role: MapRole,
    size: Size,
) -> Cost:
    mixed = mixer.cost(width, role, size)
    if mixer.is_whole_block:
        return mixed
    assert feed_forward is not None
    cost = norm(width) + feed_forward.operator.cost(width, hidden, size[0] * size[1])
    return cost + norm(width) + mixed if mixer.mixes else cost


def entry_cost(stage: Stage, previous_width: int, previous_size: Size, size: Size) -> Cost:
    """Cost of a stage's entry: pooling, class token and position embedding."""
    cost, width = Cost(), stage.width
    if stage.pooling is not None:
        tokens_in, tokens = previous_size[0] * previous_size[1], size[0] * size[1]
        if stage.class_token:
            tokens -= 1
        if POOLINGS[stage.pooling].pools_sequences:
            tokens_in -= 1
        cost = _pooling(stage.pooling, previous_width, width, tokens_in, tokens)
    if stage.adds_class_token:
        cost += Cost(params=width)
    if stage.position is not None:
        cost += Cost(params=(stage.position**2 + stage.class_token) * width)
    return cost


@lru_cache(maxsize=1 << 16)
def _pooling(pooling: Pooling, inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
    return POOLINGS[pooling].cost(inputs, outputs, tokens_in, tokens)


def _after_stem(stem: Stem, first: int, image: Size) -> tuple[int, Size]:
    """What the first stage, of that width, finds: width and map."""
    return stem.width_of(first), stem_size(image, stem)
