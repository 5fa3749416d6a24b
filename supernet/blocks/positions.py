"""Learned positions: absolute, added to the tokens, and relative, added to attention scores."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.blocks.layout import to_channels_first, to_channels_last
from supernet.blocks.parameter_settings import ParameterSetting
from supernet.blocks.windows import relative_places


class PositionEmbedding(nn.Module):
    """A learned embedding of each place of a map, added to it (DeiT, PVT, LIT-Ti).

    On a map of another size than it was made for it is interpolated.

    Args:
        side: Of the map that it is made for.
        width: Channels.
        bilinear: Whether linearly, as pyramids do it that have positions in every stage (PVT,
            LIT-Ti); else bicubically with antialiasing, as timm does it for ViTs.
    """

    own_settings: ClassVar = {"table": ParameterSetting(decayed=False)}

    def __init__(self, side: int, width: int, *, bilinear: bool) -> None:
        super().__init__()
        self.side, self.bilinear = side, bilinear
        self.table = nn.Parameter(torch.zeros(side * side, width))

    def draw_weights(self) -> None:
        """A truncated normal."""
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        table = self.table.view(1, self.side, self.side, -1)
        if x.shape[1:3] != table.shape[1:3]:
            mode = "bilinear" if self.bilinear else "bicubic"
            # A CPU cannot interpolate in half precision with antialiasing.
            precise = table.to(torch.promote_types(table.dtype, torch.float32))
            resized = F.interpolate(
                to_channels_first(precise),
                size=x.shape[1:3],
                mode=mode,
                antialias=not self.bilinear,
            )
            table = to_channels_last(resized).to(table.dtype)  # (1, H, W, C)
        return x + table


class RelativePositionBias(nn.Module):
    """A learned bias for each relative position of two tokens of a map (Swin; LIT, PSLT).

    Args:
        side: Of the map or window that the table is made for.
        heads: Each has biases of its own.
    """

    own_settings: ClassVar = {"table": ParameterSetting(decayed=False)}

    def __init__(self, side: int, heads: int) -> None:
        super().__init__()
        self.side = side
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))

    def draw_weights(self) -> None:
        """A truncated normal."""
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, height: int, width: int, *, interpolate: bool = True) -> Tensor:
        """The bias (1, heads, H·W, H·W) for a map of that size.

        Where the size differs from the table's, the table is resized along each side to that size;
        without `interpolate` a smaller map reads the middle of the table.
        """
        table: Tensor = self.table
        high = wide = self.side
        if interpolate and (height, width) != (high, wide):
            square = table.view(1, 2 * high - 1, 2 * wide - 1, -1).permute(0, 3, 1, 2)
            resized = F.interpolate(square, size=(2 * height - 1, 2 * width - 1), mode="bicubic")
            table, high, wide = resized.flatten(2)[0].T, height, width
        places = relative_places(height, width, high, wide).to(table.device)
        return table[places.flatten()].view(*places.shape, -1).permute(2, 0, 1).unsqueeze(0)
