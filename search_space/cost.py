"""Closed-form cost: parameters and multiply-adds of an architecture, to the unit.

One "FLOP" of the papers and of `--budget` is one multiply-add (MAC). Convolutions, linear layers
and attention products count, as in the papers; norms, activations, biases, pooling and
interpolation don't. `tests/supernet/test_cost_of_network.py` holds this against independent counts
of the built network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_space.architecture import (
    AdaptiveWindow,
    Architecture,
    ConvStem,
    FullAttention,
    LocalGlobal,
    Stage,
    Stem,
    map_sizes,
)

Size = tuple[int, int]


@dataclass(frozen=True)
class Cost:
    """Parameters and multiply-adds (MACs) for one image."""

    params: int = 0
    macs: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.params + other.params, self.macs + other.macs)


@dataclass(frozen=True)
class Part:
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
    height, width = _pixels(image_size)
    sizes = map_sizes((height, width), architecture)
    total = stem_cost(architecture.stem, architecture.stages[0].width, (height, width), in_chans)
    previous, previous_size = 0, sizes[0]
    for stage, size in zip(architecture.stages, sizes, strict=True):
        total += stage_cost(stage, previous, previous_size, size)
        previous, previous_size = stage.width, size
    return total + head_cost(previous, num_classes)


def cost_table(
    architecture: Architecture,
    *,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
    in_chans: int = 3,
) -> list[Part]:
    """Cost of each part, in the order of the forward pass; the rows add up to `total_cost`."""
    pixels = _pixels(image_size)
    sizes = map_sizes(pixels, architecture)
    parts = [
        Part(
            "stem",
            sizes[0],
            stem_cost(architecture.stem, architecture.stages[0].width, pixels, in_chans),
        )
    ]
    previous, previous_size = 0, sizes[0]
    for index, (stage, size) in enumerate(zip(architecture.stages, sizes, strict=True)):
        name = f"stages.{index}"
        if stage.pooling is not None:
            cost = _pooling(stage.pooling, previous, stage.width, previous_size, size)
            parts.append(Part(f"{name}.pooling", size, cost))
        parts.extend(
            Part(f"{name}.blocks.{block}", size, block_cost(stage, block, size))
            for block in range(stage.depth)
        )
        parts.append(Part(f"{name}.norm", size, _norm(stage.width)))
        previous, previous_size = stage.width, size
    parts.append(Part("head", (1, 1), head_cost(previous, num_classes)))
    return parts


def stem_cost(stem: Stem, width: int, pixels: Size, in_chans: int) -> Cost:
    """Cost of the stem up to the first stage of that width."""
    if isinstance(stem, ConvStem):
        half = (-(-pixels[0] // 2), -(-pixels[1] // 2))
        tokens = (half[0] // 2) * (half[1] // 2)
        first = _conv(in_chans, stem.width, 7, half[0] * half[1], bias=False)
        extra = _conv(stem.width, stem.width, 3, half[0] * half[1], bias=False)
        cost = first + Cost(params=2 * stem.width)
        for _ in range(stem.extra_convs):
            cost += extra + Cost(params=2 * stem.width)
        return cost + _conv(stem.width, width, 2, tokens) + _norm(width)
    side = stem.patch_size
    tokens = (pixels[0] // side) * (pixels[1] // side)
    return _conv(in_chans, width, side, tokens) + _norm(width)


@lru_cache(maxsize=1 << 18)
def stage_cost(stage: Stage, previous_width: int, previous_size: Size, size: Size) -> Cost:
    """Cost of a stage on its map: pooling on entry, blocks, closing norm."""
    owner = block_cost(stage, 0, size)
    cost = _norm(stage.width)
    if stage.pooling is not None:
        cost += _pooling(stage.pooling, previous_width, stage.width, previous_size, size)
    owners = -(-stage.depth // stage.sharing)
    cost += Cost(owner.params * owners, owner.macs * owners)
    if consumers := stage.depth - owners:
        consumer = block_cost(stage, 1, size)
        cost += Cost(consumer.params * consumers, consumer.macs * consumers)
    return cost


def block_cost(stage: Stage, block: int, size: Size) -> Cost:
    """Cost of one block of a stage; blocks that reuse an attention map cost less."""
    cost = _norm(stage.width) + _feed_forward(stage, size)
    if isinstance(stage.mixer, LocalGlobal):
        own = stage.owns_map(block)
        cost += _norm(stage.width) + _local_global(stage.mixer, stage.width, size, own)
    return cost


def head_cost(width: int, num_classes: int) -> Cost:
    """Cost of the linear classifier on one mean token; none where there are no classes."""
    return _linear(width, num_classes, 1) if num_classes else Cost()


def window_grid(side: int, window: int) -> tuple[int, int]:
    """Number of windows along one side of a map, and tokens along a side of each.

    A side that the window doesn't divide is cut into equal windows no larger than it, so that the
    padding stays below one token per window: 16 tokens in windows of at most 7 are 3 of 6.
    """
    count = -(-side // window)
    return count, -(-side // count)


def _local_global(mixer: LocalGlobal, width: int, size: Size, own: bool) -> Cost:
    dim, tokens = width // mixer.heads, size[0] * size[1]
    cost = Cost(params=width)  # bias of the output projection, one for all groups
    if mixer.local_heads:
        channels = mixer.local_heads * dim
        (rows, high), (columns, wide) = (window_grid(side, mixer.window) for side in size)
        padded, seen = rows * high * columns * wide, high * wide
        cost += _attention(width, channels, tokens, tokens, padded * seen, own)
        cost += _linear(channels, width, tokens, bias=False)
    if not mixer.global_heads:
        return cost
    channels = mixer.global_heads * dim
    match mixer.aggregation:
        case FullAttention(local_term=local_term):
            cost += _attention(width, channels, tokens, tokens, tokens * tokens, own)
            cost += _linear(channels, width, tokens, bias=False)
            if local_term:
                cost += _depthwise(channels, tokens)
        case AdaptiveWindow(window=window):
            sampled = min(window, size[0]) * min(window, size[1])
            cost += _attention(width, channels, sampled, sampled, sampled * sampled, own)
            cost += _linear(channels, width, sampled, bias=False)
        case _:
            for rate, heads in mixer.heads_per_rate.items():
                channels = heads * dim
                reduced = -(-size[0] // rate) * -(-size[1] // rate)
                cost += _conv(width, width, rate, reduced) + _norm(width)
                cost += _attention(width, channels, tokens, reduced, tokens * reduced, own)
                cost += _depthwise(channels, reduced)
                cost += _linear(channels, width, tokens, bias=False)
    return cost


def _attention(width: int, channels: int, queries: int, keys: int, pairs: int, own: bool) -> Cost:
    """Query, key and value projections and both products; without own map only values and A·V."""
    cost = _linear(width, channels, keys) + Cost(macs=pairs * channels)
    if own:
        cost += _linear(width, channels, queries) + _linear(width, channels, keys)
        cost += Cost(macs=pairs * channels)
    return cost


def _feed_forward(stage: Stage, size: Size) -> Cost:
    tokens = size[0] * size[1]
    cost = _linear(stage.width, stage.hidden, tokens) + _linear(stage.hidden, stage.width, tokens)
    if stage.feed_forward.kind == "detail_specific":
        cost += _depthwise(stage.hidden, tokens)
    return cost


def _pooling(
    pooling: str, previous_width: int, width: int, previous_size: Size, size: Size
) -> Cost:
    if pooling == "conv":
        return _conv(previous_width, width, 3, size[0] * size[1]) + _norm(width)
    return _conv(previous_width, width, 3, previous_size[0] * previous_size[1])


def _conv(inputs: int, outputs: int, kernel: int, positions: int, *, bias: bool = True) -> Cost:
    weights = inputs * outputs * kernel * kernel
    return Cost(weights + outputs * bias, weights * positions)


def _depthwise(channels: int, positions: int) -> Cost:
    return Cost(10 * channels, 9 * channels * positions)


def _linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    return Cost(inputs * outputs + outputs * bias, inputs * outputs * tokens)


def _norm(width: int) -> Cost:
    return Cost(params=2 * width)


def _pixels(image_size: int | Sequence[int]) -> Size:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width
