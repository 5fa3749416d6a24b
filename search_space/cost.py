"""Closed-form cost: parameters, multiply-adds and memory of an architecture, to the unit.

One "FLOP" of the papers and of `--budget` is one multiply-add (MAC). Convolutions, linear layers
and attention products count, as in the papers; norms, activation functions, biases, pooling and
interpolation don't. `tests/supernet/test_cost_of_network.py` holds this against independent counts
of the built network, and `benchmarks/cost_agreement.py` does so for many architectures.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

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
    FeedForward,
    FeedForwardKind,
    FullAttention,
    HalfStem,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    Mixer,
    PatchStem,
    Pooling,
    SpatialReduction,
    Stem,
)

Size = tuple[int, int]

MapRole = Literal["own", "lend", "borrow"]
"""What a block does with attention maps: keeps its own, lends it to later blocks, borrows one."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a network or a part of it costs for one image in evaluation.

    Attributes:
        params: Parameters.
        macs: Multiply-adds of the counted operators, which are convolutions, linear layers and
            attention products.
        activations: Elements that the counted operators write, as Radosavovic et al. count them for
            convolutions ("Designing Network Design Spaces", 2020, section 4). An attention map is
            among them only where a later block borrows it; elsewhere attention is fused and writes
            its output alone.
        peak: Elements that the counted operator with the largest working set reads and writes,
            weights and attention biases left out, padding that is written out included. Fused
            attention reads queries, keys and values and writes its output.
    """

    params: int = 0
    macs: int = 0
    activations: int = 0
    peak: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        """The cost of one part and then the other."""
        return Cost(
            self.params + other.params,
            self.macs + other.macs,
            self.activations + other.activations,
            max(self.peak, other.peak),
        )

    def __mul__(self, times: int) -> "Cost":
        """The cost of that many such parts, at least one, each with weights of its own."""
        return Cost(self.params * times, self.macs * times, self.activations * times, self.peak)

    def memory_bytes(self, bytes_per_element: int = 4) -> int:
        """Bytes that a forward pass of one image needs at least: weights and largest working set.

        A lower bound such as microcontrollers are planned with (MCUNet, Lin et al. 2020), in which
        all weights are resident. What else is alive beside the operator of the largest working set
        is not in it: the residual input of a block, outputs of other head groups, lent attention
        maps. Nor are attention biases and masks, running statistics of batch norms, scratch memory
        of kernels, the framework's own buffers, and further images of a batch.
        """
        return (self.params + self.peak) * bytes_per_element


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
    pixels = _pixels(image_size)
    stem, stages = architecture.stem, architecture.stages
    costs = [stem_cost(stem, stages[0].width, pixels, in_chans)]
    previous, previous_size = _after_stem(stem, pixels)
    for stage, size in zip(stages, map_sizes(pixels, architecture), strict=True):
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


@lru_cache(maxsize=1 << 10)
def stem_cost(stem: Stem, width: int, pixels: Size, in_chans: int) -> Cost:
    """Cost of the stem up to the first stage of that width."""
    full, half = pixels[0] * pixels[1], -(-pixels[0] // 2) * -(-pixels[1] // 2)
    rows, columns = stem_size(pixels, stem)
    tokens = rows * columns
    match stem:
        case ConvStem(width=inner):
            cost = _conv(in_chans, inner, 7**2, full, half, bias=False) + _norm(inner)
            for _ in range(stem.extra_convs):
                cost += _conv(inner, inner, 3**2, half, half, bias=False) + _norm(inner)
            return cost + _conv(inner, width, 2**2, half, tokens) + _norm(width)
        case PatchStem():
            cost = _conv(in_chans, width, stem.patch_size**2, full, tokens)
            return cost + _norm(width) if stem.norm else cost
        case HalfStem():
            cost, channels, seen = Cost(), in_chans, full
            for index in range(stem.convs):
                outputs = stem.width // 2 if index == 0 < stem.convs - 1 else stem.width
                cost += _conv(channels, outputs, 3**2, seen, half, bias=False) + _norm(outputs)
                channels, seen = outputs, half
            return cost


@lru_cache(maxsize=1 << 18)
def body_cost(stage: Stage, size: Size) -> Cost:
    """Cost of a stage's blocks and closing norm on its map."""
    cost = _norm(stage.width) if stage.norm else Cost()
    for role, count in Counter(_map_role(stage, block) for block in range(stage.depth)).items():
        cost += _role_cost(stage, role, size) * count
    return cost


def block_cost(stage: Stage, block: int, size: Size) -> Cost:
    """Cost of one block of a stage; blocks that borrow an attention map cost less."""
    return _role_cost(stage, _map_role(stage, block), size)


@lru_cache(maxsize=1 << 10)
def head_cost(head: Head, width: int, size: Size, num_classes: int) -> Cost:
    """Cost of what follows the last stage, whose map has that width and size."""
    cost = Cost()
    if isinstance(head, MeanHead) and head.expansion is not None:
        tokens = size[0] * size[1]
        cost = _conv(width, head.expansion, 3**2, tokens, tokens, bias=False)
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


def _map_role(stage: Stage, block: int) -> MapRole:
    if not stage.owns_map(block):
        return "borrow"
    return "lend" if stage.lends_map(block) else "own"


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
    tokens = size[0] * size[1]
    match mixer:
        case Ladder():
            return _ladder(mixer, width, size)
        case InvertedResidual():
            return _inverted_residual(width, width, mixer.expansion, tokens, tokens)
    assert feed_forward is not None
    cost = _norm(width) + _feed_forward(feed_forward.kind, width, hidden, tokens)
    if isinstance(mixer, LocalGlobal):
        cost += _norm(width) + _local_global(mixer, width, role, size)
    return cost


def _local_global(mixer: LocalGlobal, width: int, role: MapRole, size: Size) -> Cost:
    dim, split, tokens = width // mixer.heads, mixer.global_split, size[0] * size[1]
    cost = Cost(params=width)  # bias of the output projection, one for all groups
    if heads := mixer.local_heads:
        (rows, high), (columns, wide) = (window_grid(side, mixer.window) for side in size)
        cost += _projections(width, heads * dim, tokens, tokens, role)
        cost += _products(heads, dim, high * wide, high * wide, role, sets=rows * columns)
    if not (heads := mixer.global_heads):
        return cost
    match mixer.aggregation:
        case FullAttention(local_term=local_term, relative=relative):
            if relative is not None and role != "borrow":
                cost += Cost(params=(2 * relative - 1) ** 2 * heads * split)
            cost += _projections(width, heads * dim, tokens, tokens, role)
            cost += _products(heads * split, dim // split, tokens, tokens, role)
            if local_term:
                cost += _depthwise(heads * dim, tokens, tokens)
            return cost
        case AdaptiveWindow(window=window):
            sampled = min(window, size[0]) * min(window, size[1])
            cost += _projections(width, heads * dim, sampled, sampled, role)
            return cost + _products(heads * split, dim // split, sampled, sampled, role)
        case SpatialReduction(rate=rate):
            groups, shunted = {rate: heads}, False
        case _:
            groups, shunted = mixer.heads_per_rate, True
    for rate, heads in groups.items():
        reduced = -(-size[0] // rate) * -(-size[1] // rate)
        padded = reduced * rate**2
        cost += _conv(width, width, rate**2, padded, reduced) + _norm(width)
        cost += _projections(width, heads * dim, tokens, reduced, role)
        cost += _products(heads * split, dim // split, tokens, reduced, role)
        if shunted:
            cost += _depthwise(heads * dim, reduced, reduced)
    return cost


def _projections(width: int, channels: int, queries: int, keys: int, role: MapRole) -> Cost:
    """Of values and output, and of queries and keys unless the attention map is borrowed."""
    cost = _linear(width, channels, keys) + _linear(channels, width, queries, bias=False)
    if role != "borrow":
        cost += _linear(width, channels, queries) + _linear(width, channels, keys)
    return cost


def _products(
    heads: int, dim: int, queries: int, keys: int, role: MapRole, *, sets: int = 1
) -> Cost:
    """Scores QKᵀ and weighted values AV of heads of that dim, within each of some sets of tokens.

    Where a map is lent, it is written and read again; where it is borrowed, it is read. Otherwise
    both products are one fused operator.
    """
    pairs = sets * heads * queries * keys
    of_queries, of_keys = sets * heads * dim * queries, sets * heads * dim * keys
    weighted = Cost(macs=pairs * dim, activations=of_queries, peak=pairs + of_keys + of_queries)
    match role:
        case "borrow":
            return weighted
        case "lend":
            scores = Cost(macs=pairs * dim, activations=pairs, peak=of_queries + of_keys + pairs)
            return scores + weighted
        case "own":
            return Cost(
                macs=2 * pairs * dim, activations=of_queries, peak=2 * of_queries + 2 * of_keys
            )


def _feed_forward(kind: FeedForwardKind, width: int, hidden: int, tokens: int) -> Cost:
    cost = _linear(width, hidden, tokens) + _linear(hidden, width, tokens)
    match kind:
        case "plain":
            return cost
        case "detail_specific":
            return cost + _depthwise(hidden, tokens, tokens)
        case "ccf":
            return cost + _depthwise(hidden, tokens, tokens) + _norm(hidden) + _norm(hidden)
        case "ccf_plus":
            response_norm = Cost(params=2 * hidden)
            concatenated = _linear(hidden, width, tokens, bias=False)
            return cost + _depthwise(hidden, tokens, tokens) + response_norm + concatenated


def _ladder(mixer: Ladder, width: int, size: Size) -> Cost:
    """Three branches of attention in windows and light feed-forward, fusion, linear."""
    tokens, channels = size[0] * size[1], width // LADDER_BRANCHES
    (rows, high), (columns, wide) = (window_grid(side, mixer.window) for side in size)
    linear, depthwise = _linear(channels, channels, tokens), _depthwise(channels, tokens, tokens)
    branch = linear * 3  # queries, keys, output
    branch += _products(
        mixer.heads, channels // mixer.heads, high * wide, high * wide, "own", sets=rows * columns
    )
    branch += Cost(params=(2 * mixer.window - 1) ** 2 * mixer.heads)
    branch += linear * 2 + depthwise  # light feed-forward
    branch += _norm(channels) * 5
    cost = branch * LADDER_BRANCHES + linear  # the first branch has values
    cost += _linear(width, width // 2, tokens) + _linear(width // 2, width, tokens)
    return cost + _linear(width, width, tokens)


def _inverted_residual(
    inputs: int, outputs: int, expansion: int, tokens_in: int, tokens: int
) -> Cost:
    hidden = inputs * expansion
    cost = _linear(inputs, hidden, tokens_in, bias=False) + _norm(hidden)
    cost += _depthwise(hidden, tokens_in, tokens, bias=False) + _norm(hidden)
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
            tokens_in -= 1
        cost = _pooling(stage.pooling, previous_width, width, tokens_in, tokens)
    if stage.class_token and stage.pooling != "max_pool_1d":
        cost += Cost(params=width)
    if stage.position is not None:
        cost += Cost(params=(stage.position**2 + stage.class_token) * width)
    return cost


@lru_cache(maxsize=1 << 16)
def _pooling(pooling: Pooling, inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
    padded = 4 * tokens  # of a map whose sides were made even
    match pooling:
        case "conv":
            return _conv(inputs, outputs, 3**2, tokens_in, tokens) + _norm(outputs)
        case "patch":
            return _conv(inputs, outputs, 2**2, padded, tokens) + _norm(outputs)
        case "max_pool":
            return _conv(inputs, outputs, 3**2, tokens_in, tokens_in)
        case "max_pool_1d":
            class_token = _linear(inputs, outputs, 1)
            return class_token + _conv(inputs, outputs, 3, tokens_in, tokens_in)
        case "deformable":
            offsets = _conv(inputs, 8, 2**2, padded, tokens)
            return offsets + _conv(inputs, outputs, 2**2, padded, tokens) + _norm(outputs)
        case "merging":
            return _norm(4 * inputs) + _linear(4 * inputs, outputs, tokens, bias=False)
        case "mv2_se":
            return _inverted_residual(inputs, outputs, 4, tokens_in, tokens)
        case "fused_mbconv":
            expanded = 4 * inputs
            cost = _conv(inputs, expanded, 3**2, tokens_in, tokens, bias=False) + _norm(expanded)
            return cost + _squeeze(expanded, 4) + _linear(expanded, outputs, tokens)
        case "light":
            cost = _linear(inputs, outputs, tokens, bias=False) + _norm(outputs)
            cost += _depthwise(outputs, tokens, tokens) + _squeeze(outputs, 8)
            return cost + _linear(outputs, outputs, tokens)


def _squeeze(channels: int, reduction: int) -> Cost:
    """Squeeze-and-excitation: two linear layers on the mean token."""
    squeezed = max(channels // reduction, 1)
    return _linear(channels, squeezed, 1) + _linear(squeezed, channels, 1)


def _after_stem(stem: Stem, pixels: Size) -> tuple[int, Size]:
    """What the first stage's pooling finds, where it has one: width and map."""
    return (stem.width if isinstance(stem, HalfStem) else 0), stem_size(pixels, stem)


def _conv(
    inputs: int, outputs: int, taps: int, seen: int, positions: int, *, bias: bool = True
) -> Cost:
    """A convolution whose kernel has so many taps, from the positions that it sees to others."""
    weights = inputs * outputs * taps
    written = outputs * positions
    return Cost(
        params=weights + outputs * bias,
        macs=weights * positions,
        activations=written,
        peak=inputs * seen + written,
    )


def _depthwise(channels: int, seen: int, positions: int, *, bias: bool = True) -> Cost:
    """A depthwise convolution 3×3."""
    written = channels * positions
    return Cost(
        params=(9 + bias) * channels,
        macs=9 * written,
        activations=written,
        peak=channels * seen + written,
    )


def _linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    return _conv(inputs, outputs, 1, tokens, tokens, bias=bias)


def _norm(width: int) -> Cost:
    return Cost(params=2 * width)


def _pixels(image_size: int | Sequence[int]) -> Size:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width
