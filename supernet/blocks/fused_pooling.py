"""The patch embeddings of PLG-ViT, heavy and light.

Each has two parts: a Fused-MBConv with its residual at the size and channels that it is given, then
what halves the map. The papers' texts could not be had: biases, and where the norms stand, are our
own definition.
"""

from torch import Tensor, nn

from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapConv, MapLinear, SqueezeExcitation
from supernet.blocks.norms import BranchNorm


class FusedMBConv(nn.Module):
    """Norm, depthwise 3×3, activation, squeeze-and-excitation, 1×1, added to what it is given."""

    def __init__(self, channels: int, *, reduction: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.norm = BranchNorm(channels)
        self.depthwise = DepthwiseConv(channels)
        self.activation = activation()
        self.squeeze = SqueezeExcitation(channels, reduction, activation)
        self.proj = MapLinear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        return x + fast_paths.chain(
            x, self.norm, self.depthwise, self.activation, self.squeeze, self.proj
        )


class FusedPool(nn.Module):
    """Fused-MBConv with GELU and SE 1/4, then conv 3×3 stride 2, norm (PLG-ViT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mixing = FusedMBConv(inputs, reduction=4, activation=nn.GELU)
        self.conv = MapConv(inputs, outputs, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = BranchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        return fast_paths.chain(x, self.mixing, self.conv, self.norm)


class LightPool(nn.Module):
    """Fused-MBConv with SiLU and SE 1/8, then 1×1 stride 2, depthwise 3×3, norm (LW-PLG-ViT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.mixing = FusedMBConv(inputs, reduction=8, activation=nn.SiLU)
        self.pointwise = MapLinear(inputs, outputs)
        self.depthwise = DepthwiseConv(outputs, bias=False)
        self.norm = BranchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = self.mixing(x)
        return fast_paths.chain(x[:, ::2, ::2], self.pointwise, self.depthwise, self.norm)
