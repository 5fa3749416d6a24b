"""Token pooling: how the map is halved on entry to a stage."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import ConvNormKind, Pooling
from supernet.blocks.deformable_merging import DeformableTokenMerging
from supernet.blocks.fused_pooling import FusedPool, LightPool
from supernet.blocks.inverted_residual import InvertedResidualBlock
from supernet.blocks.layers import MapConv, MapLinear
from supernet.blocks.layout import pad_to_even, to_channels_first, to_channels_last
from supernet.blocks.norms import BranchNorm
from supernet.blocks.sequence import SequencePool


class ConvPool(nn.Module):
    """Conv of stride 2 and a layer norm: 3×3 in the Shunted Transformer, 2×2 in PVT."""

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int) -> None:
        super().__init__()
        self.conv = MapConv(inputs, outputs, kernel_size, stride=2, padding=kernel_size // 3)
        self.norm = BranchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        if not self.conv.padding[0]:
            x = pad_to_even(x)
        x = self.norm(self.conv(x))
        return x


class TokenMaxPool(nn.Module):
    """Conv 3×3 on the full map, then max-pool 3×3 stride 2 (PSViT 2D; our own definition)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MapConv(inputs, outputs, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = to_channels_first(self.conv(x))
        return to_channels_last(F.max_pool2d(x, kernel_size=3, stride=2, padding=1))


class PatchMerging(nn.Module):
    """Four neighbouring tokens concatenated, layer norm, linear without bias (PSLT, after Swin).

    The channels are interleaved, all four tokens of the first channel first, so that fewer channels
    are a prefix of more.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.norm = BranchNorm(4 * inputs)
        self.reduction = MapLinear(4 * inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
        x = pad_to_even(x)
        batch, height, width, channels = x.shape
        x = x.view(batch, height // 2, 2, width // 2, 2, channels)
        x = x.permute(0, 1, 3, 5, 2, 4).flatten(3)
        x = self.reduction(self.norm(x))
        return x


POOLINGS: dict[str, Callable[[int, int, ConvNormKind], nn.Module]] = {
    "conv": lambda inputs, outputs, _: ConvPool(inputs, outputs, kernel_size=3),
    "patch": lambda inputs, outputs, _: ConvPool(inputs, outputs, kernel_size=2),
    "max_pool": lambda inputs, outputs, _: TokenMaxPool(inputs, outputs),
    "max_pool_1d": lambda inputs, outputs, _: SequencePool(inputs, outputs),
    "deformable": DeformableTokenMerging,
    "merging": lambda inputs, outputs, _: PatchMerging(inputs, outputs),
    "mv2_se": lambda inputs, outputs, norm: InvertedResidualBlock(inputs, outputs, norm, stride=2),
    "fused_mbconv": lambda inputs, outputs, _: FusedPool(inputs, outputs),
    "light": lambda inputs, outputs, _: LightPool(inputs, outputs),
}
"""Makes the module of a pooling, by its kind."""


def build_pooling(
    pooling: Pooling, inputs: int, outputs: int, conv_norm: ConvNormKind
) -> nn.Module:
    """The module of a pooling operator: (B, H, W, inputs) → (B, ⌈H/2⌉, ⌈W/2⌉, outputs)."""
    return POOLINGS[pooling](inputs, outputs, conv_norm)
