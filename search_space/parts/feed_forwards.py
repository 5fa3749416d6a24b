"""Feed-forwards: the channel-mixing half of a block.

A new one is a class here with its row in `FEED_FORWARDS`, and a module with its row in
`supernet.blocks.feed_forward.FEED_FORWARDS`. In an architecture it is named by its kind.
"""

from typing import Annotated, ClassVar

from pydantic import Field

from search_space.operators import Cost, depthwise, linear, norm
from search_space.parts.shown import Word, told
from search_space.parts.spec import KeyOf, Spec


class FeedForwardOperator:
    """What an architecture needs to know of a kind of feed-forward.

    Attributes:
        kind: Its name in an architecture.
        short: Its name in a summary.
        suits_sequences: Whether it treats every token alike, so that tokens need not be a map.
    """

    kind: ClassVar[str]
    short: ClassVar[str]
    suits_sequences: ClassVar[bool] = False

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        """Closed-form cost, that of the norm before it left out.

        Args:
            width: Channels of the block.
            hidden: Channels between the layers.
            tokens: Tokens of the map.
        """
        raise NotImplementedError


class PlainFeedForward(FeedForwardOperator):
    """Linear, GELU, linear."""

    kind, short = "plain", "ff"
    suits_sequences = True

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        """Closed-form cost; see `FeedForwardOperator.cost`."""
        return linear(width, hidden, tokens) + linear(hidden, width, tokens)


class DetailSpecificFeedForward(FeedForwardOperator):
    """Linear, a depthwise 3×3 of the hidden features is added, GELU, linear (Shunted, 3.2)."""

    kind, short = "detail_specific", "dsff"

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        """Closed-form cost; see `FeedForwardOperator.cost`."""
        return PlainFeedForward.cost(width, hidden, tokens) + depthwise(hidden, tokens, tokens)


class ConvolutionalFeedForward(FeedForwardOperator):
    """CCF: linear, norm, GELU, depthwise 3×3, norm, GELU, linear (PLG-ViT)."""

    kind = short = "ccf"

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        """Closed-form cost; see `FeedForwardOperator.cost`."""
        return DetailSpecificFeedForward.cost(width, hidden, tokens) + norm(hidden) + norm(hidden)


class ConcatenatingFeedForward(FeedForwardOperator):
    """CCF-FFN+: linear, norm, GELU; beside it its depthwise 3×3 with GRN; linear (LW-PLG-ViT)."""

    kind, short = "ccf_plus", "ccf+"

    @staticmethod
    def cost(width: int, hidden: int, tokens: int) -> Cost:
        """Closed-form cost; see `FeedForwardOperator.cost`."""
        response_norm = Cost(params=2 * hidden)
        concatenated = linear(hidden, width, tokens, bias=False)
        plain = DetailSpecificFeedForward.cost(width, hidden, tokens)
        return plain + norm(hidden) + response_norm + concatenated


FEED_FORWARDS: dict[str, type[FeedForwardOperator]] = {
    operator.kind: operator
    for operator in (
        PlainFeedForward,
        DetailSpecificFeedForward,
        ConvolutionalFeedForward,
        ConcatenatingFeedForward,
    )
}
"""Every feed-forward by its kind."""

FeedForwardKind = Annotated[str, KeyOf(FEED_FORWARDS)]
"""The kind of a feed-forward."""


Ratio = Annotated[float, Field(gt=0, le=64)]
"""Hidden channels over width."""


class FeedForward(Spec):
    """The feed-forward of a block.

    Attributes:
        kind: One of `FEED_FORWARDS`.
        ratio: Hidden channels over width.
    """

    kind: FeedForwardKind = "plain"
    ratio: Ratio = 4.0

    @property
    def operator(self) -> type[FeedForwardOperator]:
        """What is known of its kind."""
        return FEED_FORWARDS[self.kind]

    @property
    def word(self) -> Word:
        """In a summary, such as `dsff 4`."""
        meaning = f"Feed-forward of so many times the channels: {told(self.operator)}"
        return Word(f"{self.operator.short} {self.ratio:g}", meaning)
