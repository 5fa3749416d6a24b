"""The patch embeddings of PLG-ViT, heavy and light.

The papers' texts could not be had: which layers there are follows their summaries, how they are put
together is our own definition.
"""

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapConv, MapLinear, SqueezeExcitation
from supernet.blocks.norms import BranchNorm


class FusedPool(nn.Module):
    """Fused-MBConv: conv 3×3 stride 2 to four times the channels, norm, GELU, SE 1/4, 1×1."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        expanded = 4 * inputs
        self.conv = MapConv(inputs, expanded, kernel_size=3, stride=2, padding=1, bias=False)
        self.norm = BranchNorm(expanded)
        self.squeeze = SqueezeExcitation(expanded, 4, nn.GELU)
        self.proj = MapLinear(expanded, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        return fast_paths.chain(x, self.conv, self.norm, F.gelu, self.squeeze, self.proj)


class LightPool(nn.Module):
    """1×1 of stride 2, norm, SiLU, depthwise 3×3, SE 1/8, 1×1 (LW-PLG-ViT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.pointwise = MapLinear(inputs, outputs, bias=False)
        self.norm = BranchNorm(outputs)
        self.depthwise = DepthwiseConv(outputs)
        self.squeeze = SqueezeExcitation(outputs, 8, nn.SiLU)
        self.proj = MapLinear(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = fast_paths.chain(x[:, ::2, ::2], self.pointwise, self.norm, F.silu)
        return fast_paths.chain(x, self.depthwise, self.squeeze, self.proj)
