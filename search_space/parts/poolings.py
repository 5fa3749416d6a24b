"""Token pooling: how a stage's entry halves the map (⌈side / 2⌉).

A new one is a class here with its row in `POOLINGS`, and a module with its row in
`supernet.blocks.pooling.POOLINGS`. In an architecture a pooling is named by its kind.
"""

from typing import Annotated, ClassVar

from search_space.operators import Cost, conv, depthwise, inverted_residual, linear, norm, squeeze
from search_space.parts.shown import Word, told
from search_space.parts.spec import KeyOf


class PoolingOperator:
    """What an architecture needs to know of a pooling.

    Attributes:
        kind: Its name in an architecture.
        short: Its name in a summary.
        has_conv_norm: Whether it has norms of the stage's `conv_norm`.
        pools_sequences: Whether it pools a sequence behind a class token, and no map.
    """

    kind: ClassVar[str]
    short: ClassVar[str]
    has_conv_norm: ClassVar[bool] = False
    pools_sequences: ClassVar[bool] = False

    @classmethod
    def word(cls) -> Word:
        """In a summary."""
        return Word(cls.short, f"Pooling: {told(cls)}")

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost.

        Args:
            inputs: Channels of the map that it is given.
            outputs: Channels of the map that it gives.
            tokens_in: Tokens of the map that it is given; a class token is not counted.
            tokens: Tokens of the map that it gives, likewise.
        """
        raise NotImplementedError


class ConvPooling(PoolingOperator):
    """Conv 3×3 stride 2 and a layer norm (Shunted Transformer)."""

    kind = short = "conv"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        return conv(inputs, outputs, 3**2, tokens_in, tokens) + norm(outputs)


class PatchPooling(PoolingOperator):
    """Conv 2×2 stride 2 and a layer norm (PVT)."""

    kind = short = "patch"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`. Sides are padded to even ones."""
        return conv(inputs, outputs, 2**2, 4 * tokens, tokens) + norm(outputs)


class MaxPooling(PoolingOperator):
    """Conv 3×3, then max-pool 3×3 stride 2 (PSViT 2D; our own definition)."""

    kind, short = "max_pool", "max"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        return conv(inputs, outputs, 3**2, tokens_in, tokens_in)


class SequenceMaxPooling(PoolingOperator):
    """Conv of 3, then max-pool of 3 stride 2 of a sequence (PSViT 1D; our own definition)."""

    kind, short = "max_pool_1d", "max-1d"
    pools_sequences = True

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`. The class token has a layer of its own."""
        return linear(inputs, outputs, 1) + conv(inputs, outputs, 3, tokens_in, tokens_in)


class DeformableMerging(PoolingOperator):
    """Deformable conv 2×2 stride 2, norm, GELU (LIT, deformable token merging)."""

    kind = short = "deformable"
    has_conv_norm = True

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`. Sides are padded to even ones."""
        offsets = conv(inputs, 8, 2**2, 4 * tokens, tokens)
        return offsets + conv(inputs, outputs, 2**2, 4 * tokens, tokens) + norm(outputs)


class PatchMerging(PoolingOperator):
    """2×2 tokens concatenated, layer norm, linear (PSLT, after Swin)."""

    kind = short = "merging"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        return norm(4 * inputs) + linear(4 * inputs, outputs, tokens, bias=False)


class InvertedResidualPooling(PoolingOperator):
    """Inverted residual 3×3 stride 2 with squeeze-and-excitation (PSLT)."""

    kind = short = "mv2_se"
    has_conv_norm = True

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        return inverted_residual(inputs, outputs, 4, tokens_in, tokens)


class FusedPooling(PoolingOperator):
    """Residual Fused-MBConv at full size, then conv 3×3 stride 2 and a layer norm (PLG-ViT).

    The second of the paper's two parts halves the map; the first lets neighbours mix before. Which
    layers have biases is our own definition.
    """

    kind = short = "fused_mbconv"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        mixed = _fused_mbconv(inputs, tokens_in, reduction=4)
        return mixed + conv(inputs, outputs, 3**2, tokens_in, tokens, bias=False) + norm(outputs)


class LightPooling(PoolingOperator):
    """Residual Fused-MBConv at full size, then 1×1 stride 2, depthwise 3×3, norm (LW-PLG-ViT)."""

    kind = short = "light"

    @staticmethod
    def cost(inputs: int, outputs: int, tokens_in: int, tokens: int) -> Cost:
        """Closed-form cost; see `PoolingOperator.cost`."""
        cost = _fused_mbconv(inputs, tokens_in, reduction=8)
        cost += linear(inputs, outputs, tokens)
        return cost + depthwise(outputs, tokens, tokens, bias=False) + norm(outputs)


def _fused_mbconv(channels: int, tokens: int, *, reduction: int) -> Cost:
    """Norm, depthwise 3×3, squeeze-and-excitation, 1×1: what is added to a map of its own size."""
    cost = norm(channels) + depthwise(channels, tokens, tokens)
    return cost + squeeze(channels, reduction) + linear(channels, channels, tokens)


POOLINGS: dict[str, type[PoolingOperator]] = {
    pooling.kind: pooling
    for pooling in (
        ConvPooling,
        PatchPooling,
        MaxPooling,
        SequenceMaxPooling,
        DeformableMerging,
        PatchMerging,
        InvertedResidualPooling,
        FusedPooling,
        LightPooling,
    )
}
"""Every pooling by its kind."""

SEQUENCE_POOLING = SequenceMaxPooling.kind
"""What pools the sequences of a space whose layout they are."""

Pooling = Annotated[str, KeyOf(POOLINGS)]
"""The kind of a pooling."""
