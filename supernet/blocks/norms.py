"""The norms of maps."""

from functools import partial

import torch
from torch import Tensor, nn

from search_space.parts import ConvNormKind
from supernet.blocks.layout import to_channels_first, to_channels_last

BranchNorm = partial(nn.LayerNorm, eps=1e-5)
"""Norm inside reduction branches and after patch embeddings."""


class MapBatchNorm(nn.BatchNorm2d):
    """Batch norm of a map (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        x = x.contiguous()  # in another layout, torch's compiler mistakes that of the result
        return to_channels_last(super().forward(to_channels_first(x)))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C) of each channel by the running statistics, as in evaluation."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, torch.addcmul(self.bias, self.running_mean, scale, value=-1)


class GlobalResponseNorm(nn.Module):
    """x + γ·x·N + β, with N the norm of a channel over the map relative to the mean of all.

    Nothing but x at initialisation (ConvNeXt V2, section 4; LW-PLG-ViT).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def draw_weights(self) -> None:
        """Zero, with which it gives what it is given."""
        nn.init.zeros_(self.gamma)
        nn.init.zeros_(self.beta)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=dtype)
        relative = (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)
        return torch.addcmul(self.beta.to(x.dtype), x, 1 + self.gamma.to(x.dtype) * relative)


def build_conv_norm(kind: ConvNormKind, channels: int) -> nn.Module:
    """The norm of a part that works with convolutions: (B, H, W, C) → the same shape."""
    return MapBatchNorm(channels) if kind == "batch" else BranchNorm(channels)
