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
    Architecture,
    Head,
    MeanHead,
    Stage,
    map_sizes,
    stem_size,
)
from search_space.parts import (
    LADDER_BRANCHES,
    AdaptiveWindow,
    ConvStem,
    FullAttention,
    HalfStem,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    PatchStem,
    Pooling,
    SpatialReduction,
    Stem,
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
    previous, previous_size = _after_stem(architecture.stem, (height, width))
    for stage, size in zip(architecture.stages, sizes, strict=True):
        total += stage_cost(stage, previous, previous_size, size)
        previous, previous_size = stage.width, size
    return total + head_cost(architecture.head, previous, previous_size, num_classes)


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
            stem_size(pixels, architecture.stem),
            stem_cost(architecture.stem, architecture.stages[0].width, pixels, in_chans),
        )
    ]
    previous, previous_size = _after_stem(architecture.stem, pixels)
    for index, (stage, size) in enumerate(zip(architecture.stages, sizes, strict=True)):
        name = f"stages.{index}"
        if (cost := entry_cost(stage, previous, previous_size, size)) != Cost():
            parts.append(Part(f"{name}.entry", size, cost))
        parts.extend(
            Part(f"{name}.blocks.{block}", size, block_cost(stage, block, size))
            for block in range(stage.depth)
        )
        if stage.norm:
            parts.append(Part(f"{name}.norm", size, _norm(stage.width)))
        previous, previous_size = stage.width, size
    head = head_cost(architecture.head, previous, previous_size, num_classes)
    parts.append(Part("head", (1, 1), head))
    return parts


def stem_cost(stem: Stem, width: int, pixels: Size, in_chans: int) -> Cost:
    """Cost of the stem up to the first stage of that width."""
    half = -(-pixels[0] // 2) * -(-pixels[1] // 2)
    rows, columns = stem_size(pixels, stem)
    match stem:
        case ConvStem():
            cost = _conv(in_chans, stem.width, 7, half, bias=False) + _norm(stem.width)
            for _ in range(stem.extra_convs):
                cost += _conv(stem.width, stem.width, 3, half, bias=False) + _norm(stem.width)
            return cost + _conv(stem.width, width, 2, rows * columns) + _norm(width)
        case PatchStem():
            cost = _conv(in_chans, width, stem.patch_size, rows * columns)
            return cost + _norm(width) if stem.norm else cost
        case HalfStem():
            cost, channels = Cost(), in_chans
            for index in range(stem.convs):
                outputs = stem.width // 2 if index == 0 < stem.convs - 1 else stem.width
                cost += _conv(channels, outputs, 3, half, bias=False) + _norm(outputs)
                channels = outputs
            return cost


def stage_cost(stage: Stage, previous_width: int, previous_size: Size, size: Size) -> Cost:
    """Cost of a stage on its map: entry, blocks, closing norm."""
    return entry_cost(stage, previous_width, previous_size, size) + body_cost(stage, size)


@lru_cache(maxsize=1 << 18)
def body_cost(stage: Stage, size: Size) -> Cost:
    """Cost of a stage's blocks and closing norm on its map."""
    owner = block_cost(stage, 0, size)
    cost = _norm(stage.width) if stage.norm else Cost()
    owners = -(-stage.depth // stage.sharing)
    cost += Cost(owner.params * owners, owner.macs * owners)
    if consumers := stage.depth - owners:
        consumer = block_cost(stage, 1, size)
        cost += Cost(consumer.params * consumers, consumer.macs * consumers)
    return cost


def block_cost(stage: Stage, block: int, size: Size) -> Cost:
    """Cost of one block of a stage; blocks that reuse an attention map cost less."""
    tokens = size[0] * size[1]
    match stage.mixer:
        case Ladder():
            return _ladder(stage.mixer, stage.width, size)
        case InvertedResidual():
            return _inverted_residual(
                stage.width, stage.width, stage.mixer.expansion, tokens, tokens
            )
    cost = _norm(stage.width) + _feed_forward(stage, tokens)
    if isinstance(stage.mixer, LocalGlobal):
        own = stage.owns_map(block)
        cost += _norm(stage.width) + _local_global(stage.mixer, stage.width, size, own)
    return cost


def head_cost(head: Head, width: int, size: Size, num_classes: int) -> Cost:
    """Cost of what follows the last stage, whose map has that width and size."""
    cost = Cost()
    if isinstance(head, MeanHead) and head.expansion is not None:
        cost = _conv(width, head.expansion, 3, size[0] * size[1], bias=False)
        cost += _norm(head.expansion)
        width = head.expansion
    return cost + _linear(width, num_classes, 1) if num_classes else cost


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
        case FullAttention(local_term=local_term, relative=relative):
            if relative is not None and own:
                heads = mixer.global_heads * mixer.global_split
                cost += Cost(params=(2 * relative - 1) ** 2 * heads)
            cost += _attention(width, channels, tokens, tokens, tokens * tokens, own)
            cost += _linear(channels, width, tokens, bias=False)
            if local_term:
                cost += _depthwise(channels, tokens)
        case AdaptiveWindow(window=window):
            sampled = min(window, size[0]) * min(window, size[1])
            cost += _attention(width, channels, sampled, sampled, sampled * sampled, own)
            cost += _linear(channels, width, sampled, bias=False)
        case SpatialReduction(rate=rate):
            reduced = -(-size[0] // rate) * -(-size[1] // rate)
            cost += _conv(width, width, rate, reduced) + _norm(width)
            cost += _attention(width, channels, tokens, reduced, tokens * reduced, own)
            cost += _linear(channels, width, tokens, bias=False)
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


def _feed_forward(stage: Stage, tokens: int) -> Cost:
    assert stage.feed_forward is not None
    hidden = stage.hidden
    cost = _linear(stage.width, hidden, tokens) + _linear(hidden, stage.width, tokens)
    match stage.feed_forward.kind:
        case "plain":
            return cost
        case "detail_specific":
            return cost + _depthwise(hidden, tokens)
        case "ccf":
            return cost + _depthwise(hidden, tokens) + _norm(hidden) + _norm(hidden)
        case "ccf_plus":
            response_norm = Cost(params=2 * hidden)
            concatenated = _linear(hidden, stage.width, tokens, bias=False)
            return cost + _depthwise(hidden, tokens) + response_norm + concatenated


def _ladder(mixer: Ladder, width: int, size: Size) -> Cost:
    """Three branches of attention in windows and light feed-forward, fusion, linear."""
    tokens, channels = size[0] * size[1], width // LADDER_BRANCHES
    (rows, high), (columns, wide) = (window_grid(side, mixer.window) for side in size)
    pairs = rows * high * columns * wide * high * wide
    attention = _linear(channels, channels, tokens) + Cost(macs=pairs * channels)
    branch = attention + attention  # queries and keys, both products
    branch += _linear(channels, channels, tokens)  # output projection
    branch += Cost(params=(2 * mixer.window - 1) ** 2 * mixer.heads)
    branch += _norm(channels) + _norm(channels)
    light = _linear(channels, channels, tokens) + _norm(channels)
    branch += light + _depthwise(channels, tokens) + _norm(channels) + light
    cost = branch + branch + branch + _linear(channels, channels, tokens)  # the first has values
    cost += _linear(width, width // 2, tokens) + _linear(width // 2, width, tokens)
    return cost + _linear(width, width, tokens)


def _inverted_residual(
    inputs: int, outputs: int, expansion: int, tokens_in: int, tokens: int
) -> Cost:
    hidden = inputs * expansion
    cost = _linear(inputs, hidden, tokens_in, bias=False) + _norm(hidden)
    cost += _depthwise(hidden, tokens, bias=False) + _norm(hidden)
    cost += _linear(hidden, outputs, tokens, bias=False) + _norm(outputs)
    return cost + _squeeze(outputs, 2)


def entry_cost(stage: Stage, previous_width: int, previous_size: Size, size: Size) -> Cost:
    """Cost of a stage's entry: pooling, class token and position embedding."""
    cost, width = Cost(), stage.width
    if stage.pooling is not None:
        tokens_in, tokens = previous_size[0] * previous_size[1], size[0] * size[1]
        if stage.class_token:
            tokens -= 1
        if stage.pooling == "max_pool_1d":
            cost += _linear(previous_width, width, 1)  # of the class token
            tokens_in -= 1
        cost += _pooling(stage.pooling, previous_width, width, tokens_in, tokens)
    if stage.class_token and stage.pooling != "max_pool_1d":
        cost += Cost(params=width)
    if stage.position is not None:
        cost += Cost(params=(stage.position**2 + stage.class_token) * width)
    return cost


def _pooling(pooling: Pooling, inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
    match pooling:
        case "conv":
            return _conv(inputs, outputs, 3, tokens) + _norm(outputs)
        case "patch":
            return _conv(inputs, outputs, 2, tokens) + _norm(outputs)
        case "max_pool":
            return _conv(inputs, outputs, 3, tokens_in)
        case "max_pool_1d":
            return _linear(3 * inputs, outputs, tokens_in)
        case "deformable":
            return _conv(inputs, 8, 2, tokens) + _conv(inputs, outputs, 2, tokens) + _norm(outputs)
        case "merging":
            return _norm(4 * inputs) + _linear(4 * inputs, outputs, tokens, bias=False)
        case "mv2_se":
            return _inverted_residual(inputs, outputs, 4, tokens_in, tokens)
        case "fused_mbconv":
            expanded = 4 * inputs
            cost = _conv(inputs, expanded, 3, tokens, bias=False) + _norm(expanded)
            return cost + _squeeze(expanded, 4) + _linear(expanded, outputs, tokens)
        case "light":
            cost = _linear(inputs, outputs, tokens, bias=False) + _norm(outputs)
            cost += _depthwise(outputs, tokens) + _squeeze(outputs, 8)
            return cost + _linear(outputs, outputs, tokens)


def _squeeze(channels: int, reduction: int) -> Cost:
    """Squeeze-and-excitation: two linear layers on the mean token."""
    squeezed = max(channels // reduction, 1)
    return _linear(channels, squeezed, 1) + _linear(squeezed, channels, 1)


def _after_stem(stem: Stem, pixels: Size) -> tuple[int, Size]:
    """What the first stage's pooling finds, where it has one: width and map."""
    return (stem.width if isinstance(stem, HalfStem) else 0), stem_size(pixels, stem)


def _conv(inputs: int, outputs: int, kernel: int, positions: int, *, bias: bool = True) -> Cost:
    weights = inputs * outputs * kernel * kernel
    return Cost(weights + outputs * bias, weights * positions)


def _depthwise(channels: int, positions: int, *, bias: bool = True) -> Cost:
    return Cost((9 + bias) * channels, 9 * channels * positions)


def _linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    return Cost(inputs * outputs + outputs * bias, inputs * outputs * tokens)


def _norm(width: int) -> Cost:
    return Cost(params=2 * width)


def _pixels(image_size: int | Sequence[int]) -> Size:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width
