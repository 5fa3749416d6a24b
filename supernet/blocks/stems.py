"""Stems: from an image to the map of the first stage."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from search_space.parts import ConvStem, HalfStem, PatchStem, Stem
from supernet.blocks import fast_paths
from supernet.blocks.layout import to_channels_last
from supernet.blocks.norms import BranchNorm


class PatchEmbedding(nn.Module):
    """Non-overlapping patches, conv p×p stride p, and a layer norm where the stem has one."""

    def __init__(self, stem: PatchStem, in_chans: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, width, stem.patch_size, stride=stem.patch_size)
        self.norm = BranchNorm(width) if stem.norm else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → (B, H/p, W/p, width)."""
        x: Tensor = self.norm(to_channels_last(self.proj(image)).contiguous())
        return x


class ConvolutionalStem(nn.Module):
    """Conv 7×7 stride 2 and further 3×3 ones, then conv 2×2 stride 2 (Shunted, section 3.3).

    It has batch norms also where the blocks have none: all subnets of a space share one stem, and
    so see the same statistics.
    """

    def __init__(self, stem: ConvStem, in_chans: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_chans
        for index in range(1 + stem.extra_convs):
            kernel, stride = (7, 2) if index == 0 else (3, 1)
            layers += [
                nn.Conv2d(channels, stem.width, kernel, stride, kernel // 2, bias=False),
                nn.BatchNorm2d(stem.width),
                nn.ReLU(),
            ]
            channels = stem.width
        self.convs = nn.Sequential(*layers)
        self.proj = nn.Conv2d(stem.width, width, kernel_size=2, stride=2)
        self.norm = BranchNorm(width)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → (B, H/4, W/4, width)."""
        image = image.contiguous(memory_format=torch.channels_last)  # as the blocks' maps are
        x = fast_paths.chain(image, self.convs, self.proj)  # (B, width, H/4, W/4)
        y: Tensor = self.norm(to_channels_last(x))
        return y


class StrideTwoStem(nn.Module):
    """Convs 3×3, the first of stride 2, each with GELU and batch norm (PSLT, section 3.3)."""

    def __init__(self, stem: HalfStem, in_chans: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_chans
        for index in range(stem.convs):
            outputs = stem.width // 2 if index == 0 < stem.convs - 1 else stem.width
            stride = 2 if index == 0 else 1
            layers += [
                nn.Conv2d(channels, outputs, 3, stride, 1, bias=False),
                nn.GELU(),
                nn.BatchNorm2d(outputs),
            ]
            channels = outputs
        self.convs = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → (B, ⌈H/2⌉, ⌈W/2⌉, width)."""
        image = fast_paths.image_for_inverted_residuals(image)
        return to_channels_last(fast_paths.chain(image, self.convs)).contiguous()


STEMS: dict[type, Callable[[Any, int, int], nn.Module]] = {
    ConvStem: ConvolutionalStem,
    PatchStem: PatchEmbedding,
    HalfStem: lambda stem, in_chans, _: StrideTwoStem(stem, in_chans),
}
"""Makes the module of a stem, by its spec, for images of so many channels, before a first stage of
that width."""

FIRST_CONVOLUTIONS: dict[type, str] = {
    ConvStem: "convs.0",
    PatchStem: "proj",
    HalfStem: "convs.0",
}
"""The name within the module of the convolution that sees the image, by the stem's spec."""


def build_stem(stem: Stem, in_chans: int, width: int) -> nn.Module:
    """The module of a stem: (B, in_chans, H, W) → (B, H/stride, W/stride, width).

    A stem to stride 2 has a width of its own.
    """
    return STEMS[type(stem)](stem, in_chans, width)
