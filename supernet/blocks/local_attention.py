"""Local heads: attention within windows (the local part of PLG-ViT)."""

from torch import Tensor

from search_space.operators import MapRole
from supernet.blocks.sharing import HeadGroup
from supernet.blocks.windows import Windows


class WindowHeads(HeadGroup):
    """Heads that attend within non-overlapping windows of at most `window`² tokens."""

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
        windows = Windows(height, width, self.window)
        v = windows.cut(self.v(x))
        if self.role == "borrow":
            y, attention = self.attend(v, v, v, borrowed)
        else:
            mask = windows.visible(x.device)
            if mask is not None:
                mask = mask.repeat(batch, 1, 1, 1)
            y, attention = self.attend(
                windows.cut(self.q(x)), windows.cut(self.k(x)), v, None, mask
            )
        return self.proj(windows.join(y), bias), attention
