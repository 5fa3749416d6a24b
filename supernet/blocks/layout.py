"""Views between the two layouts, and the two layer norms of the field."""

from functools import partial

from torch import Tensor, nn

BlockNorm = partial(nn.LayerNorm, eps=1e-6)
"""Norm of blocks and stages."""

BranchNorm = partial(nn.LayerNorm, eps=1e-5)
"""Norm inside reduction branches and after patch embeddings."""


def to_channels_first(x: Tensor) -> Tensor:
    """A view (B, H, W, C) → (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def to_channels_last(x: Tensor) -> Tensor:
    """A view (B, C, H, W) → (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


class MapConv(nn.Conv2d):
    """A convolution from map to map, (B, H, W, C) → (B, H', W', C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a channels-last map."""
        return to_channels_last(super().forward(to_channels_first(x)))


class DepthwiseConv(MapConv):
    """Depthwise 3×3 convolution with bias of a map (B, H, W, C)."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, kernel_size=3, padding=1, groups=channels)
