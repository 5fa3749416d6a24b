"""Feed-forwards: the channel-mixing half of a block."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import FeedForwardKind
from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapLinear, ResidualDepthwiseConv
from supernet.blocks.norms import BranchNorm, GlobalResponseNorm


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = MapLinear(width, hidden)
        self.fc2 = MapLinear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        return fast_paths.chain(x, self.fc1, F.gelu, self.fc2)


class DetailSpecificFeedForward(FeedForward):
    """Linear, a depthwise 3×3 added to its input, GELU, Linear (Shunted, section 3.2)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.detail = ResidualDepthwiseConv(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        return fast_paths.chain(x, self.fc1, self.detail, F.gelu, self.fc2)


class ConvolutionalFeedForward(FeedForward):
    """CCF: linear, norm, GELU, depthwise 3×3, norm, GELU, linear (PLG-ViT)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.norm1 = BranchNorm(hidden)
        self.depthwise = DepthwiseConv(hidden)
        self.norm2 = BranchNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        h = fast_paths.chain(x, self.fc1, self.norm1, F.gelu)  # (B, H, W, hidden)
        return fast_paths.chain(h, self.depthwise, self.norm2, F.gelu, self.fc2)


class ConcatenatingFeedForward(FeedForward):
    """CCF-FFN+: pointwise features beside their depthwise 3×3 with GRN, then linear (LW-PLG-ViT).

    Norm and GELU behind the pointwise layer are those of CCF-FFN, of which the paper names what it
    changes; behind the depthwise one GRN stands in the norm's place. The paper's text could not be
    had: this is our reading. Without that norm the features are a tenth as large at first, GELU
    hardly bends them, and a network took half as many steps more for the same loss.

    The linear layer of the concatenation is the sum of a layer for each half, so that a narrower
    one is a prefix of a wider one.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.norm1 = BranchNorm(hidden)
        self.depthwise = DepthwiseConv(hidden)
        self.response_norm = GlobalResponseNorm(hidden)
        self.fc3 = MapLinear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        h = fast_paths.chain(x, self.fc1, self.norm1, F.gelu)  # (B, H, W, hidden)
        deep = fast_paths.chain(h, self.depthwise, F.gelu, self.response_norm, self.fc3)
        y: Tensor = self.fc2(h)
        return y + deep


FEED_FORWARDS: dict[str, Callable[[int, int], nn.Module]] = {
    "plain": FeedForward,
    "detail_specific": DetailSpecificFeedForward,
    "ccf": ConvolutionalFeedForward,
    "ccf_plus": ConcatenatingFeedForward,
}
"""Makes the module of a feed-forward of that width and so many hidden channels, by its kind."""


def build_feed_forward(kind: FeedForwardKind, width: int, hidden: int) -> nn.Module:
    """The module of a feed-forward: (B, H, W, width) → the same shape."""
    return FEED_FORWARDS[kind](width, hidden)
