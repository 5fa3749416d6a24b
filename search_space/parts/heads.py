"""Heads: from the last map to class scores.

`supernet.Network` builds them: these two, by whether they read the class token.
"""

from typing import Annotated, ClassVar, Literal

from search_space.bounds import Channels
from search_space.operators import Cost, Size, conv, linear, norm
from search_space.parts.shown import Word, told
from search_space.parts.spec import OneOf, Spec, by_kind


class HeadSpec(Spec):
    """What an architecture needs to know of a head.

    Attributes:
        kind: Its name.
        reads_class_token: Whether it reads the class token alone, or else the mean of all tokens.
    """

    kind: str
    reads_class_token: ClassVar[bool] = False

    @property
    def expanded(self) -> int | None:
        """Channels that the last map is expanded to before; None where it is not."""
        return None

    def label(self, width: int) -> str:
        """All that its latency depends on behind a last stage of that width."""
        return f"{self.kind} {width}" + (f" to {self.expanded}" if self.expanded else "")

    def word(self, width: int) -> Word:
        """In a picture, behind a last stage of that width."""
        return Word(f"head {self.label(width)}", told(type(self)))

    def cost(self, width: int, size: Size, num_classes: int) -> Cost:
        """Closed-form cost behind a last stage of that width and map; 0 classes: no classifier."""
        cost = Cost()
        if self.expanded is not None:
            tokens = size[0] * size[1]
            cost = conv(width, self.expanded, 3**2, tokens, tokens, bias=False)
            cost += norm(self.expanded)
            width = self.expanded
        return cost + linear(width, num_classes, 1) if num_classes else cost


class MeanHead(HeadSpec):
    """Mean over the last stage's tokens and a linear classifier.

    `expansion` is the number of channels that a 3×3 convolution with layer norm and GELU expands
    the last map to (LW-PLG; its norm and activation are our own definition).
    """

    kind: Literal["mean"] = "mean"
    expansion: Channels | None = None

    @property
    def expanded(self) -> int | None:
        """The expansion."""
        return self.expansion


class ClassTokenHead(HeadSpec):
    """The class token of the last stage and a linear classifier (DeiT, PVT, LIT-Ti)."""

    kind: Literal["class_token"] = "class_token"
    reads_class_token: ClassVar[bool] = True


HEADS: dict[str, type[HeadSpec]] = by_kind(MeanHead, ClassTokenHead)
"""Every head by its kind."""

Head = Annotated[HeadSpec, OneOf(HEADS)]
"""Any head, told by its `kind` where it is read."""
