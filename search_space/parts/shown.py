"""What parts say of themselves to people: words with their meanings, and groups of channels."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

Sight = Literal["windows", "reduced map", "sampled map", "whole map", "neighbours"]
"""What a token sees of the map; of its neighbours, what lies under the kernel of a convolution."""


class Word(NamedTuple):
    """A word of a summary, and what it means; words that differ in numbers alone mean the same."""

    text: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class ChannelGroup:
    """Channels of a mixer that do the same, side by side with others.

    Attributes:
        channels: How many.
        text: What they do, for people.
        sight: What their tokens see; None where that is not known.
        heads: Attention heads that they are split into; 0 where there is no attention.
        mark: The number or word that tells them from others of the same sight, as short as can be.
        alone: Whether they are made of their own channels, not of all that the block has.
        reads_previous: Whether they work on what the group before gives.
    """

    channels: int
    text: str
    sight: Sight | None = None
    heads: int = 0
    mark: str = ""
    alone: bool = False
    reads_previous: bool = False


def told(part: type) -> str:
    """What a part is: the first line of its own docstring, without the full stop."""
    return (part.__doc__ or "").partition("\n")[0].removesuffix(".")
