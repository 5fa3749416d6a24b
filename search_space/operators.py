"""Closed-form costs of the operators that parts are made of, to the unit.

One "FLOP" of the papers and of a budget is one multiply-add (MAC). Convolutions, linear layers and
attention products count, as in the papers; norms, activation functions, biases, pooling and
interpolation don't.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, assert_never

Size = tuple[int, int]
"""Height and width of a map in tokens, or of an image in pixels."""


def pixels(image_size: int | Sequence[int]) -> Size:
    """Height and width of an image, of the side of a square one or of both."""
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


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


def conv(
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


def depthwise(
    channels: int, seen: int, positions: int, *, taps: int = 9, bias: bool = True
) -> Cost:
    """A depthwise convolution, 3×3 unless its kernel has another number of taps."""
    written = channels * positions
    return Cost(
        params=(taps + bias) * channels,
        macs=taps * written,
        activations=written,
        peak=channels * seen + written,
    )


def linear(inputs: int, outputs: int, tokens: int, *, bias: bool = True) -> Cost:
    """A linear layer of so many tokens."""
    return conv(inputs, outputs, 1, tokens, tokens, bias=bias)


def norm(width: int) -> Cost:
    """A batch or layer norm: its parameters."""
    return Cost(params=2 * width)


def squeeze(channels: int, reduction: int) -> Cost:
    """Squeeze-and-excitation: two linear layers on the mean token."""
    squeezed = max(channels // reduction, 1)
    return linear(channels, squeezed, 1) + linear(squeezed, channels, 1)


def projections(width: int, channels: int, queries: int, keys: int, role: MapRole) -> Cost:
    """Of values and output, and of queries and keys unless the attention map is borrowed."""
    cost = linear(width, channels, keys) + linear(channels, width, queries, bias=False)
    if role != "borrow":
        cost += linear(width, channels, queries) + linear(width, channels, keys)
    return cost


def attention_products(
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
        case _:
            assert_never(role)


def inverted_residual(
    inputs: int, outputs: int, expansion: int, tokens_in: int, tokens: int
) -> Cost:
    """MobileNetV2's block with squeeze-and-excitation 1/2, as PSLT has it."""
    hidden = inputs * expansion
    cost = linear(inputs, hidden, tokens_in, bias=False) + norm(hidden)
    cost += depthwise(hidden, tokens_in, tokens, bias=False) + norm(hidden)
    cost += linear(hidden, outputs, tokens, bias=False) + norm(outputs)
    return cost + squeeze(outputs, 2)


def window_grid(side: int, window: int) -> tuple[int, int]:
    """Number of windows along one side of a map, and tokens along a side of each.

    A side that the window doesn't divide is cut into equal windows no larger than it, so that the
    padding stays below one token per window: 16 tokens in windows of at most 7 are 3 of 6.
    """
    count = -(-side // window)
    return count, -(-side // count)
