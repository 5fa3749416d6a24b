"""Global heads: the ways to see the whole map, one class each."""

import torch
from torch import Tensor
from torch.nn import functional as F

from search_space.operators import MapRole
from supernet.blocks.layers import DepthwiseConv, MapConv, ResidualDepthwiseConv
from supernet.blocks.layout import to_channels_first, to_channels_last
from supernet.blocks.norms import BranchNorm
from supernet.blocks.positions import RelativePositionBias
from supernet.blocks.sharing import HeadGroup


class ReducedHeads(HeadGroup):
    """Heads whose keys and values are reduced by one rate.

    `shunted` (Shunted Transformer, section 3.1): T = GELU(LN(conv r×r stride r)) sees all channels;
    K and V are projections of T, and a depthwise 3×3 of V on its own small map is added to V.
    Otherwise (PVT, spatial reduction attention): T has no GELU and V nothing added.

    A map that the rate doesn't divide is padded with zeros to the next multiple, so that no token
    goes unseen. A layer that borrows its attention map keeps the reduction, since its values need
    it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        role: MapRole,
        *,
        rate: int,
        shunted: bool = True,
    ) -> None:
        super().__init__(width, heads, head_dim, role)
        self.rate = rate
        self.reduce = MapConv(width, width, kernel_size=rate, stride=rate)
        self.norm = BranchNorm(width)
        self.value_conv = ResidualDepthwiseConv(heads * head_dim) if shunted else None

    def forward(
        self, x: Tensor, borrowed: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) → this group's part of the output (B, H, W, C), and the map if lent."""
        down, right = -x.shape[1] % self.rate, -x.shape[2] % self.rate
        padded = F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
        reduced = self.norm(self.reduce(padded))
        if self.value_conv is not None:
            reduced = F.gelu(reduced)
        v = self.v(reduced)
        if self.value_conv is not None:
            v = self.value_conv(v)
        v, reduced = v.flatten(1, 2), reduced.flatten(1, 2)
        if self.role == "borrow":
            y, attention = self.attend(v, v, v, borrowed)
        else:
            y, attention = self.attend(self.q(x).flatten(1, 2), self.k(reduced), v, None)
        return self.proj(y.view(*x.shape[:3], -1), bias), attention


class FullHeads(HeadGroup):
    """Heads that see every token.

    With the local term, a depthwise 3×3 of the values is added after attention: the last stage of
    the Shunted Transformer. With `relative`, a learned bias for each relative position of a map of
    that side is added to the scores; on a map of another size the table is interpolated (LIT-S).
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        role: MapRole,
        *,
        local_term: bool,
        relative: int | None = None,
    ) -> None:
        super().__init__(width, heads, head_dim, role)
        self.value_conv = DepthwiseConv(heads * head_dim) if local_term else None
        self.position_bias: RelativePositionBias | None = None
        if relative is not None and role != "borrow":
            self.position_bias = RelativePositionBias(relative, heads)

    def forward(
        self, x: Tensor, borrowed: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) → this group's part of the output (B, H, W, C), and the map if lent."""
        v = self.v(x)
        values = v.flatten(1, 2)
        if self.role == "borrow":
            y, attention = self.attend(values, values, values, borrowed)
        else:
            places = self.position_bias(*x.shape[1:3]) if self.position_bias is not None else None
            y, attention = self.attend(
                self.q(x).flatten(1, 2), self.k(x).flatten(1, 2), values, None, places
            )
        y = y.view(*x.shape[:3], -1)
        if self.value_conv is not None:
            y = self.value_conv(v) + y
        return self.proj(y, bias), attention


class AdaptiveHeads(HeadGroup):
    """Heads that attend on a pooled map of fixed size (PLG-ViT, adaptive patch sampling).

    The map is sampled to `window`² tokens by adaptive max-pooling, or by the sum of adaptive max-
    and average-pooling; these tokens attend to each other and are projected and upsampled
    bilinearly. The projection stands before the upsampling, which it commutes with, because there
    are fewer tokens.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        head_dim: int,
        role: MapRole,
        *,
        window: int,
        average: bool,
    ) -> None:
        super().__init__(width, heads, head_dim, role)
        self.window, self.average = window, average

    def forward(
        self, x: Tensor, borrowed: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) → this group's part of the output (B, H, W, C), and the map if lent."""
        batch, height, width, _ = x.shape
        high, wide = min(self.window, height), min(self.window, width)
        sampled = self._sample(x, high, wide).flatten(1, 2)
        v = self.v(sampled)
        if self.role == "borrow":
            y, attention = self.attend(v, v, v, borrowed)
        else:
            y, attention = self.attend(self.q(sampled), self.k(sampled), v, None)
        y = self.proj(y, bias).view(batch, high, wide, -1)
        if (high, wide) != (height, width):
            y = to_channels_first(y)
            y = F.interpolate(y, size=(height, width), mode="bilinear", align_corners=False)
            y = to_channels_last(y)
        return y, attention

    def _sample(self, x: Tensor, high: int, wide: int) -> Tensor:
        x = to_channels_first(x)
        sampled = adaptive_max_pool(x, (high, wide))
        if self.average:
            sampled = sampled + F.adaptive_avg_pool2d(x, (high, wide))
        return to_channels_last(sampled)


def adaptive_max_pool(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Adaptive max-pooling, (B, C, H, W) → (B, C, *size).

    ONNX knows it only where all windows are of one size. In an exported program, of which ONNX is
    made, it is otherwise the maximum over rows, then over columns.
    """
    if not torch.compiler.is_exporting():
        return F.adaptive_max_pool2d(x, size)
    sides = x.shape[2:]
    if all(side % cells == 0 for side, cells in zip(sides, size, strict=True)):
        return F.max_pool2d(x, (sides[0] // size[0], sides[1] // size[1]))
    for dim, cells in ((2, size[0]), (3, size[1])):
        side = x.shape[dim]
        spans = ((i * side // cells, -(-(i + 1) * side // cells)) for i in range(cells))
        x = torch.stack([x.narrow(dim, a, b - a).amax(dim) for a, b in spans], dim)
    return x
