"""The architecture of a space whose costliest part costs least, or most: exact, like sums are."""

from collections.abc import Callable, Sequence

from search_space.architecture import Architecture
from search_space.cost import Cost
from search_space.space import SearchSpace


def least_bottleneck(
    space: SearchSpace,
    key: Callable[[Cost], float],
    *,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
) -> Architecture:
    """The architecture with the smallest `key(cost)` where that is the largest of its parts.

    The peak of activations is such a key: of one part and then another it is the larger of both,
    not their sum.

    Args:
        space: The search space.
        key: Not negative.
        image_size: Side of a square image, or (height, width), in pixels.
        num_classes: Outputs of the classifier.
    """
    return space.extreme(
        lambda cost: _Largest(key(cost)), image_size=image_size, num_classes=num_classes
    )


def greatest_bottleneck(
    space: SearchSpace,
    key: Callable[[Cost], float],
    *,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
) -> Architecture:
    """The architecture with the largest `key(cost)` where that is the largest of its parts.

    Takes what `least_bottleneck` takes.
    """
    return space.extreme(
        lambda cost: _Smallest(-key(cost)), image_size=image_size, num_classes=num_classes
    )


# The search of `SearchSpace.extreme`, stage by stage, is exact for whatever grows with each of its
# parts, such as the largest of them; all that it does with values is to add and to compare them.


class _Largest(float):
    """A number whose sum with another is the larger of the two."""

    def __add__(self, other: float) -> "_Largest":
        return _Largest(max(self, other))

    __radd__ = __add__


class _Smallest(float):
    """A number whose sum with another is the smaller of the two."""

    def __add__(self, other: float) -> "_Smallest":
        return _Smallest(min(self, other))

    __radd__ = __add__
