"""The largest subnet first, then one subnet a step, taught by the largest; operators in time.

The first third of the steps trains the largest architecture under the limits alone, as
Once-for-All begins (Cai et al., 2020, section 3.3): everything later shares what it learns. From
then on every step trains one subnet, in rounds: the largest, the smallest, and random ones, half of
them from the band just under the budget, where the search will end. So the sandwich (Yu and Huang,
2019, "Universally Slimmable Networks", section 3.1) is spread over a round: for the same time it
makes two to three times as many steps as all of a sandwich in each.

All but the largest learn from the labels, from the largest one's answers (in-place distillation,
section 3.2 there), and from its maps: a subnet's map after each stage is compared with the same
channels of the largest one's, which the shared prefix gives one meaning (after DNA, Li et al.,
2020, who train blocks by a teacher's maps).

Where operators that have learned nothing yet stand one behind the other, none of them learns: the
last sees noise. So a random subnet has new operators in few places at first, and in all of them in
the end (Once-for-All's progressive shrinking, applied to operators). And poolings, which nothing
bypasses, learn beside: in every step one of those that the largest does not use learns to give what
the largest's gives, from what the largest's gets.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat

from nas.training.strategies.strategy import Course, Lesson, PoolingLesson, Share, Strategy
from search_space import Architecture, SearchSpace

SUBNET_TIME = 1.3
"""Time of a step with a teacher over that of the largest alone, in `base`; for the ETA only."""


class Progressive(Strategy):
    """The largest alone, then rounds in which it teaches.

    Attributes:
        alone: Share of the steps, at the beginning, that train the largest alone.
        round_length: Steps of which one trains the largest, one the smallest, and the others
            random subnets.
        band: Lower end of the band just under the budget, as a share of the budget.
        band_chance: Share of the random subnets that are drawn from the band.
        first_new: After the largest was trained alone, the chance that a gene which is no size is
            drawn at all and not its default. It rises in proportion to the steps.
        all_new_by: Share of the steps at which that chance is 1.
        labels: Weight of the labels in what a taught subnet learns from.
        answers: Weight of the largest one's answers.
        maps: Weight of the distance from the largest one's maps.
        poolings: Weight of the error of the poolings that learn beside.
    """

    name: Literal["progressive"] = "progressive"
    alone: Share = 1 / 3
    round_length: Annotated[int, Field(ge=2)] = 6
    band: Share = 0.8
    band_chance: Share = 0.5
    first_new: Share = 0.2
    all_new_by: Share = 0.85
    labels: NonNegativeFloat = 0.5
    answers: NonNegativeFloat = 0.5
    maps: NonNegativeFloat = 1.0
    poolings: NonNegativeFloat = 1.0

    def plan(self, course: Course, step: int) -> tuple[Lesson | PoolingLesson, ...]:
        """The largest from labels alone, or another subnet taught by it and poolings beside."""
        subnet = self._taught(course, step)
        if subnet is None:
            return (Lesson(subnet=course.largest),)
        taught = Lesson(
            subnet=subnet,
            teacher=course.largest,
            labels=self.labels,
            answers=self.answers,
            maps=self.maps,
        )
        poolings = other_poolings(course.constrained.space, course.largest, step)
        return taught, PoolingLesson(
            poolings=poolings, teacher=course.largest, weight=self.poolings
        )

    def share_done(self, step: int, steps: int) -> float:
        """Later steps have a teacher, which takes time."""

        def work(count: float) -> float:
            alone = min(count, self.alone * steps)
            return alone + SUBNET_TIME * (count - alone)

        return work(step) / work(steps)

    def _taught(self, course: Course, step: int) -> Architecture | None:
        """The subnet that the largest teaches in a step; None where it learns itself."""
        constrained = course.constrained
        alone = math.ceil(self.alone * course.steps)
        number, place = divmod(step - alone, self.round_length)
        if step < alone or place == 0:
            return None
        if place == 1:
            # The smallest sizes, but with the operators that the largest has learned, in turn with
            # the cheapest, whose operators are new.
            narrowest = constrained.space.scaled(0.0)
            return course.smallest if number % 2 or not constrained.admits(narrowest) else narrowest
        rng = course.rng(step)
        released = (step - alone) / max(1.0, self.all_new_by * course.steps - alone)
        return constrained.sample(
            rng,
            at_least=self.band if rng.random() < self.band_chance else 0.0,
            operator_chance=self.first_new + (1 - self.first_new) * min(1.0, released),
        )


def other_poolings(space: SearchSpace, largest: Architecture, step: int) -> Architecture:
    """The largest with another pooling where there is one; over the steps each has its turn."""
    genes = dict(space.genotype(largest))
    for number, (gene, choices) in enumerate(space.genes.items()):
        others = [choice for choice in choices if choice != genes[gene]]
        if gene.endswith(".pooling") and others:
            genes[gene] = others[(step + number) % len(others)]
    return space.decode(genes)
