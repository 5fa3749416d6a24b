"""Local heads: attention within windows (the local part of PLG-ViT)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from search_space.cost import window_grid
from supernet.blocks.sharing import HeadGroup, MapRole


class WindowHeads(HeadGroup):
    """Heads that attend within non-overlapping windows of at most `window`² tokens.

    A map that the windows don't fill is padded after the projections; padded tokens are hidden
    from every query.
    """

    def __init__(
        self, width: int, heads: int, head_dim: int, role: MapRole, *, window: int
    ) -> None:
        super().__init__(width, heads, head_dim, role)
        self.window = window

    def forward(
        self, x: Tensor, borrowed: Tensor | None, bias: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) → this group's part of the output (B, H, W, C), and the map if lent."""
        batch, height, width, _ = x.shape
        grid = (*window_grid(height, self.window), *window_grid(width, self.window))
        v = self._to_windows(self.v(x), grid)
        if self.role is MapRole.BORROW:
            y, attention = self.attend(v, v, v, borrowed)
        else:
            q, k = self._to_windows(self.q(x), grid), self._to_windows(self.k(x), grid)
            mask = self._visible(x, grid)
            y, attention = self.attend(q, k, v, None, mask)
        rows, high, columns, wide = grid
        y = y.view(batch, rows, columns, high, wide, -1).transpose(2, 3)
        y = y.reshape(batch, rows * high, columns * wide, -1)[:, :height, :width]
        return F.linear(y, self.proj.weight, bias), attention

    def _to_windows(self, x: Tensor, grid: tuple[int, int, int, int]) -> Tensor:
        """(B, H, W, c) → (B·windows, tokens of a window, c)."""
        batch, height, width, channels = x.shape
        rows, high, columns, wide = grid
        if (height, width) != (rows * high, columns * wide):
            x = F.pad(x, (0, 0, 0, columns * wide - width, 0, rows * high - height))
        x = x.view(batch, rows, high, columns, wide, channels).transpose(2, 3)
        return x.reshape(-1, high * wide, channels)

    def _visible(self, x: Tensor, grid: tuple[int, int, int, int]) -> Tensor | None:
        """Mask (B·windows, 1, 1, keys), False on padding; None where nothing is padded."""
        batch, height, width, _ = x.shape
        rows, high, columns, wide = grid
        if (height, width) == (rows * high, columns * wide):
            return None
        down = torch.arange(rows * high, device=x.device) < height
        right = torch.arange(columns * wide, device=x.device) < width
        inside = down[:, None] & right[None, :]
        inside = inside.view(rows, high, columns, wide).transpose(1, 2).reshape(rows * columns, -1)
        return inside.repeat(batch, 1)[:, None, None, :]
