"""A depthwise convolution in the place of local attention (Han et al., 2021)."""

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import ConvNormKind, DepthwiseConvolution
from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapLinear
from supernet.blocks.norms import build_conv_norm


class DepthwiseMixer(nn.Module):
    """1×1, norm, ReLU, depthwise k×k, norm, ReLU, 1×1, norm.

    The block of DWNet ("Demystifying local vision transformer", section 3.3). No convolution has a
    bias, since a norm follows each. It computes no attention map, and passes none on.
    """

    def __init__(self, mixer: DepthwiseConvolution, width: int, conv_norm: ConvNormKind) -> None:
        super().__init__()
        self.pointwise1 = MapLinear(width, width, bias=False)
        self.norm1 = build_conv_norm(conv_norm, width)
        self.depthwise = DepthwiseConv(width, mixer.kernel_size, bias=False)
        self.norm2 = build_conv_norm(conv_norm, width)
        self.pointwise2 = MapLinear(width, width, bias=False)
        self.norm3 = build_conv_norm(conv_norm, width)

    def forward(self, x: Tensor, maps: None) -> tuple[Tensor, None]:
        """(B, H, W, C) → the same shape; there are no maps."""
        x = fast_paths.chain(
            x,
            *(self.pointwise1, self.norm1, F.relu),
            *(self.depthwise, self.norm2, F.relu),
            *(self.pointwise2, self.norm3),
        )
        return x, None
