"""Deformable token merging (LIT, section 3.3)."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import ConvNormKind
from supernet.blocks import fast_paths
from supernet.blocks.layers import MapConv
from supernet.blocks.layout import pad_to_even, to_channels_first, to_channels_last
from supernet.blocks.norms import build_conv_norm
from supernet.blocks.parameter_settings import ParameterSetting

TAPS = 4
"""Of the 2×2 kernel."""


class OffsetConv(MapConv):
    """Conv 2×2 stride 2 that says where the taps are read; zero at initialisation.

    It trains at a hundredth of the learning rate (LIT, section 4.1).
    """

    own_settings: ClassVar = {
        "weight": ParameterSetting(lr_scale=0.01),
        "bias": ParameterSetting(decayed=False, lr_scale=0.01),
    }

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 2 * TAPS, kernel_size=2, stride=2)

    def draw_weights(self) -> None:
        """Zero, with which every tap is read in its place."""
        for parameter in self.parameters():
            nn.init.zeros_(parameter)


class DeformableTokenMerging(nn.Module):
    """Deformable conv 2×2 stride 2 (v1: without modulation), norm, GELU.

    A 2×2 convolution says for each of the four taps of an output where on the map it is read,
    relative to its place. It is zero at initialisation, so that the operator begins as an ordinary
    2×2 convolution.

    The taps are read by bilinear sampling, zero beyond the map, and the rest is one matrix product:
    every runtime and counter knows both, which is not so of a deformable convolution.
    """

    def __init__(self, inputs: int, outputs: int, conv_norm: ConvNormKind) -> None:
        super().__init__()
        self.offset = OffsetConv(inputs)
        self.conv = MapConv(inputs, outputs, kernel_size=2, stride=2)
        self.norm = build_conv_norm(conv_norm, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = pad_to_even(x)
        taps = self._read(x, self.offset(x))  # (B, H, W, inputs), each token a tap
        return fast_paths.chain(taps, self.conv, self.norm, F.gelu).contiguous()

    def _read(self, x: Tensor, offset: Tensor) -> Tensor:
        """Sample (B, H, W, C) at offsets (B, H/2, W/2, taps · (y, x)), tap by tap in its place."""
        batch, height, width, _ = x.shape
        dtype = torch.promote_types(x.dtype, torch.float32)  # places need more than half precision
        offset = offset.to(dtype).view(batch, height // 2, width // 2, 2, 2, 2)
        offset = offset.transpose(2, 3).reshape(batch, height, width, 2)
        rows = torch.arange(height, device=x.device).view(-1, 1) + offset[..., 0]
        columns = torch.arange(width, device=x.device) + offset[..., 1]
        # The sampler's coordinates: -1 and 1 are the outer edges of the map.
        grid = torch.stack(((2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1), dim=-1)
        sampled = F.grid_sample(
            to_channels_first(x).to(dtype), grid, padding_mode="zeros", align_corners=False
        )
        return to_channels_last(sampled).to(x.dtype)
