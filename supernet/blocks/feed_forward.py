"""Feed-forwards: the channel-mixing half of a block."""

from torch import Tensor, nn
from torch.nn import functional as F

from search_space.architecture import FeedForwardKind
from supernet.blocks.layout import DepthwiseConv


def build_feed_forward(kind: FeedForwardKind, width: int, hidden: int) -> nn.Module:
    """The module of a feed-forward: (B, H, W, width) → the same shape."""
    match kind:
        case "plain":
            return FeedForward(width, hidden)
        case "detail_specific":
            return DetailSpecificFeedForward(width, hidden)


class FeedForward(nn.Module):
    """Linear, GELU, Linear."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        x = self.fc2(F.gelu(self.fc1(x)))
        return x


class DetailSpecificFeedForward(FeedForward):
    """Linear, a depthwise 3×3 added to its input, GELU, Linear (Shunted, section 3.2)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden)
        self.detail = DepthwiseConv(hidden)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        h = self.fc1(x)
        x = self.fc2(F.gelu(h + self.detail(h)))
        return x
