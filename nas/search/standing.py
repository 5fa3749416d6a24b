"""Who stands before whom of what was trained alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from nas.search.trials import Tried
from nas.utilities.units import accuracy_error


def standings(tried: Sequence[Tried]) -> list[int]:
    """The place of each, 1 for the best: by accuracy, and by loss where that says nothing.

    What lies within the standard error of its difference to the most accurate one may be as
    accurate. So these come first, the one of the smallest loss before all; then likewise the rest.

    Args:
        tried: Which all have an accuracy and a loss; of equals the earlier stands first.
    """
    places = [0] * len(tried)
    left = sorted(range(len(tried)), key=lambda one: -_accuracy(tried[one]))
    while left:
        most, error = _accuracy(tried[left[0]]), _error(tried[left[0]])
        near = [
            one
            for one in left
            if most - _accuracy(tried[one]) <= math.hypot(error, _error(tried[one]))
        ]
        for one in sorted(near, key=lambda one: _loss(tried[one])):
            places[one] = max(places) + 1
        left = [one for one in left if one not in near]
    return places


def _accuracy(tried: Tried) -> float:
    assert tried.accuracy is not None
    return tried.accuracy


def _loss(tried: Tried) -> float:
    assert tried.loss is not None
    return tried.loss


def _error(tried: Tried) -> float:
    assert tried.images is not None
    return accuracy_error(_accuracy(tried), tried.images)
