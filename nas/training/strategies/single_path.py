"""Single path one-shot with uniform sampling (Guo et al., 2020, arXiv 1904.00420, section 3).

Every step trains one subnet, drawn uniformly, from the labels alone. All operators are so trained
alike and none waits for another; the search is what tells them apart.
"""

from __future__ import annotations

from typing import Literal

from nas.training.strategies.strategy import Course, Lesson, Strategy


class SinglePath(Strategy):
    """One random subnet a step. The paper's method has no numbers of its own."""

    name: Literal["single-path"] = "single-path"

    def plan(self, course: Course, step: int) -> tuple[Lesson, ...]:
        """A subnet within the limits, every gene drawn uniformly, from the labels."""
        return (Lesson(subnet=course.constrained.sample(course.rng(step))),)
