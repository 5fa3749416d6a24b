"""Views between the two layouts of a map, and its padding to even sides."""

from torch import Tensor
from torch.nn import functional as F


def to_channels_first(x: Tensor) -> Tensor:
    """A view (B, H, W, C) → (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def to_channels_last(x: Tensor) -> Tensor:
    """A view (B, C, H, W) → (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def pad_to_even(x: Tensor) -> Tensor:
    """(B, H, W, C) → the same with a row or column of zeros behind an odd side."""
    down, right = x.shape[1] % 2, x.shape[2] % 2
    return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
