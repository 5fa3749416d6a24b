"""Token pooling: how the map is halved between stages."""

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.architecture import Pooling
from supernet.blocks.layout import BranchNorm, MapConv, to_channels_first, to_channels_last


def build_pooling(pooling: Pooling, inputs: int, outputs: int) -> nn.Module:
    """The module of a pooling operator: (B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
    match pooling:
        case "conv":
            return nn.Sequential(
                MapConv(inputs, outputs, kernel_size=3, stride=2, padding=1), BranchNorm(outputs)
            )
        case "max_pool":
            return TokenMaxPool(inputs, outputs)


class TokenMaxPool(nn.Module):
    """Conv 3×3 on the full map, then max-pool 3×3 stride 2 (PSViT 2D; our own definition)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MapConv(inputs, outputs, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = to_channels_first(self.conv(x))
        return to_channels_last(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))
