"""What a head may expand: the channels of the last map."""

from torch import Tensor, nn
from torch.nn import functional as F

from supernet.blocks import fast_paths
from supernet.blocks.layers import MapConv
from supernet.blocks.norms import BranchNorm


class ExpandedFeatures(nn.Module):
    """Conv 3×3 that expands the channels of the last map, layer norm, GELU (LW-PLG-ViT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MapConv(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm = BranchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, H, W, outputs)."""
        return fast_paths.chain(x, self.conv, self.norm, F.gelu)
