"""MV2-SE: MobileNetV2's inverted residual with squeeze-and-excitation (PSLT, section 3.3)."""

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import ConvNormKind
from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapLinear, SqueezeExcitation
from supernet.blocks.norms import build_conv_norm


class InvertedResidualBlock(nn.Module):
    """1×1 that expands, depthwise 3×3, 1×1, squeeze-and-excitation 1/2; GELU before each norm.

    The residual connection is there where input and output have the same shape.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        conv_norm: ConvNormKind,
        *,
        stride: int = 1,
        expansion: int = 4,
    ) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.is_residual = stride == 1 and inputs == outputs
        self.expand = MapLinear(inputs, hidden, bias=False)
        self.norm1 = build_conv_norm(conv_norm, hidden)
        self.depthwise = DepthwiseConv(hidden, stride=stride, bias=False)
        self.norm2 = build_conv_norm(conv_norm, hidden)
        self.project = MapLinear(hidden, outputs, bias=False)
        self.norm3 = build_conv_norm(conv_norm, outputs)
        self.squeeze = SqueezeExcitation(outputs, 2, nn.ReLU)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, H, W, outputs), with sides ⌈side/2⌉ at stride 2."""
        h = fast_paths.chain(
            x,
            *(self.expand, F.gelu, self.norm1),  # (B, H, W, hidden)
            *(self.depthwise, F.gelu, self.norm2),  # (B, H', W', hidden)
            *(self.project, self.norm3, self.squeeze),  # (B, H', W', outputs)
        )
        return x + h if self.is_residual else h
