"""Layers from map to map: linear, convolutions, and squeeze-and-excitation.

How they are computed fast is said in `fast_paths`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.blocks import fast_paths


@fast_paths.merges
class MapLinear(nn.Linear):
    """A linear layer of a map, (B, H, W, C) → (B, H, W, C')."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C')."""
        return fast_paths.linear(x, self.weight, self.bias)


@fast_paths.merges
class MapConv(nn.Conv2d):
    """A convolution from map to map, (B, H, W, C) → (B, H', W', C'), of square kernels."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel_size: int,
        *,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
    ) -> None:
        super().__init__(inputs, outputs, kernel_size, stride=stride, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', C')."""
        stride, padding = self.stride[0], int(self.padding[0])
        return fast_paths.convolution(x, self.weight, self.bias, stride=stride, padding=padding)


@fast_paths.merges
class DepthwiseConv(nn.Conv2d):
    """Depthwise k×k convolution of a map (B, H, W, C), as large as the map at stride 1."""

    def __init__(
        self, channels: int, kernel_size: int = 3, *, stride: int = 1, bias: bool = True
    ) -> None:
        super().__init__(
            channels,
            channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=channels,
            bias=bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', C)."""
        return self._convolve(x, self.weight)

    def _convolve(self, x: Tensor, weight: Tensor) -> Tensor:
        stride, padding = self.stride[0], int(self.padding[0])
        return fast_paths.depthwise_convolution(
            x, weight, self.bias, stride=stride, padding=padding
        )


@fast_paths.merges
class ResidualDepthwiseConv(DepthwiseConv):
    """A map and its depthwise convolution, added: (B, H, W, C) → the same shape.

    The kernel adds the map itself, which saves a pass over it, and another of its gradient.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        one, rim = self.weight.new_ones(1, 1, 1, 1), self.kernel_size[0] // 2
        return self._convolve(x, self.weight + F.pad(one, (rim, rim, rim, rim)))


@fast_paths.merges
class SqueezeExcitation(nn.Module):
    """Channels scaled by what two linear layers read off their means (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int, activation: type[nn.Module]) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.fc1 = nn.Linear(channels, squeezed)
        self.activation = activation()
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        mean = x.mean(dim=(1, 2), keepdim=True)  # (B, 1, 1, C)
        scale: Tensor = self.fc2(self.activation(self.fc1(mean))).sigmoid()
        return torch.mul(x, scale)
