"""The sandwich with in-place distillation of BigNAS.

Yu et al., 2020, arXiv 2003.11142, section 3.1. Every step trains the largest subnet, the smallest,
and some random ones between them, and moves the weights once by the sum of their gradients: what
bounds the accuracies of all others from above and from below is trained in every step. The largest
learns from the labels, the others from its answers alone (in-place distillation).

A step takes about as many times as long as it has subnets; for the same time there are as many
times fewer of them. What else the paper does, such as regularising the largest alone, is not done
here: strategies differ in subnets and losses only, so that a comparison compares those.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nas.training.strategies.strategy import Course, Lesson, Strategy
from nas.utilities.bounds import Amount, Positive


class Sandwich(Strategy):
    """Largest, smallest and random subnets in one step.

    Attributes:
        random_subnets: Random subnets in a step; the paper has 2.
        labels: Weight of the labels in what the smallest and the random ones learn from; none in
            the paper.
        answers: Weight of the largest one's answers.
    """

    name: Literal["sandwich"] = "sandwich"
    random_subnets: Annotated[int, Field(ge=0, le=100)] = 2
    labels: Amount = 0.0
    answers: Positive = 1.0

    def plan(self, course: Course, step: int) -> tuple[Lesson, ...]:
        """The largest from the labels, then the smallest and random ones from its answers."""
        rng = course.rng(step)
        taught = [
            course.smallest,
            *(course.constrained.sample(rng) for _ in range(self.random_subnets)),
        ]
        return (
            Lesson(subnet=course.largest),
            *(
                Lesson(
                    subnet=subnet, teacher=course.largest, labels=self.labels, answers=self.answers
                )
                for subnet in taught
            ),
        )
