"""What whole networks teach a latency table about its segments.

Segments are timed by torch's eager runtime, between marks; a network runs without those, maybe in
another runtime. So each segment's time is multiplied by a factor, a sum of three effects: one of
all segments, one of its operator, one of that operator on that map. They are learned together, each
drawn towards none: what few networks have falls back on what many have (a multilevel model in
Gelman and Hill's sense, fitted as one ridge regression).
"""

from collections.abc import Collection, Sequence

import numpy as np

from nas.latency.table import LatencyTable
from search_space import Architecture
from search_space.segments import Segment, segments

SHRINKAGE = 0.01
"""How strongly effects are drawn towards none: the relative error of a measurement to that of an
effect. Chosen by cross-validation on `base` under two runtimes."""

OVERHEAD_UNIT = 0.02
"""The overhead of a network that is drawn towards none as strongly as an effect of 1, relative to
the mean network."""

LEAST_FACTOR = 0.05
"""Of a segment, so that none takes no time at all or less."""

ALL = ""
"""The group of all segments."""


def fit_segments(
    table: LatencyTable,
    found: Collection[Segment],
    architectures: Sequence[Architecture],
    measured_ms: Sequence[float],
) -> LatencyTable:
    """The table with segment times and an overhead that suit measured networks.

    Least squares of the relative error, with large residuals weighed down (Huber), since some
    measurements of a busy machine are wrong.

    Args:
        table: With the segments as they were timed.
        found: The segments of the table.
        architectures: Of the networks, one or more.
        measured_ms: Their latencies, in the same order.
    """
    groups = sorted({group for segment in found for group in _groups(segment)})
    column = {group: number for number, group in enumerate(groups)}
    y = np.asarray(measured_ms, dtype=float)
    x = np.zeros((len(y), len(groups) + 1))
    for row, architecture in zip(x, architectures, strict=True):
        for segment in segments(architecture, image_size=table.conditions.image_size):
            for group in _groups(segment):
                row[column[group]] += table.segments[segment.label]
    x[:, -1] = OVERHEAD_UNIT * y.mean()
    x /= y[:, None]  # relative: the target is 1
    neutral = np.zeros(len(groups) + 1)
    neutral[column[ALL]] = 1 / np.median(x[:, column[ALL]])
    *effects, overhead = _robust_ridge(x, neutral)
    factors = {
        segment: max(float(sum(effects[column[group]] for group in _groups(segment))), LEAST_FACTOR)
        for segment in found
    }
    return table.model_copy(
        update={
            "segments": {
                segment.label: factors[segment] * table.segments[segment.label]
                for segment in sorted(found, key=lambda segment: segment.label)
            },
            "overhead_ms": OVERHEAD_UNIT * float(y.mean() * overhead),
        }
    )


def _groups(segment: Segment) -> tuple[str, ...]:
    """What a segment has effects in common with, from all segments to the closest."""
    return ALL, segment.operator, f"{segment.operator} {segment.size}"


def _robust_ridge(x: np.ndarray, neutral: np.ndarray) -> np.ndarray:
    """The solution of `x @ solution = 1` near the neutral one."""
    shrinkage = SHRINKAGE * np.eye(len(neutral))
    weights = np.ones(len(x))
    solution = neutral
    for _ in range(5):
        rows = np.vstack([x * weights[:, None], shrinkage])
        target = np.concatenate([weights, shrinkage @ neutral])
        solution = np.linalg.lstsq(rows, target, rcond=None)[0]
        residual = np.abs(x @ solution - 1)
        typical = max(float(np.median(residual)), 1e-3)
        weights = np.sqrt(np.minimum(1.0, 2 * typical / np.maximum(residual, 1e-9)))
    return solution
