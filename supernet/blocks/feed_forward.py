"""Feed-forwards: the channel-mixing half of a block."""

import torch
from torch import Tensor, nn

from search_space.parts import FeedForwardKind
from supernet.blocks.layout import (
    BranchNorm,
    DepthwiseConv,
    MapLinear,
    ResidualDepthwiseConv,
    add,
    gelu,
)


def build_feed_forward(kind: FeedForwardKind, width: int, hidden: int) -> nn.Module:
    """The module of a feed-forward: (B, H, W, width) → the same shape."""
    match kind:
        case "plain":
            return FeedForward(width, hidden)
        case "detail_specific":
            return DetailSpecificFeedForward(width, hidden)
        case "ccf":
            return ConvolutionalFeedForward(width, hidden)
        case "ccf_plus":
            return ConcatenatingFeedForward(width, hidden)


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = MapLinear(width, hidden)
        self.fc2 = MapLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        x = self.fc2(gelu(self.fc1(x)))
        return x


class DetailSpecificFeedForward(FeedForward):
    """Linear, a depthwise 3×3 added to its input, GELU, Linear (Shunted, section 3.2)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.detail = ResidualDepthwiseConv(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        x = self.fc2(gelu(self.detail(self.fc1(x))))
        return x


class ConvolutionalFeedForward(FeedForward):
    """CCF: linear, norm, GELU, depthwise 3×3, norm, GELU, linear (PLG-ViT)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.norm1 = BranchNorm(hidden)
        self.depthwise = DepthwiseConv(hidden)
        self.norm2 = BranchNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        h = gelu(self.norm1(self.fc1(x)))
        x = self.fc2(gelu(self.norm2(self.depthwise(h))))
        return x


class GlobalResponseNorm(nn.Module):
    """x + γ·x·N + β, with N the norm of a channel over the map relative to the mean of all.

    Nothing but x at initialisation (ConvNeXt V2, section 4; LW-PLG-ViT).
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        norm = torch.linalg.vector_norm(x, dim=(1, 2), keepdim=True, dtype=dtype)
        relative = (norm / (norm.mean(dim=-1, keepdim=True) + 1e-6)).to(x.dtype)
        return torch.addcmul(self.beta.to(x.dtype), x, 1 + self.gamma.to(x.dtype) * relative)


class ConcatenatingFeedForward(FeedForward):
    """CCF-FFN+: pointwise features beside their depthwise 3×3 with GRN, then linear (LW-PLG-ViT).

    The linear layer of the concatenation is the sum of a layer for each half, so that a narrower
    one is a prefix of a wider one. Where the activations stand is our own definition.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.depthwise = DepthwiseConv(hidden)
        self.response_norm = GlobalResponseNorm(hidden)
        self.fc3 = MapLinear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        h = gelu(self.fc1(x))
        x = add(self.fc2(h), self.fc3(self.response_norm(gelu(self.depthwise(h)))))
        return x
