"""A teacher from outside the space; each stage of a subnet learns from its maps, then the whole.

Where operators that have learned nothing yet stand one behind the other, none of them learns: the
last sees noise. So they learn side by side (DNA, Li et al., 2020, arXiv 1911.13053, section 3.2,
whose blocks are stages here): every stage of a random subnet is given what the teacher's stage is
given, and learns to give what it gives. Four stages learn in one step, none waits for another, and
whatever the operators before it, a stage sees what a trained network sees.

No choice may win by having been trained first. So the teacher is no member of the space: an
inverted residual network (MobileNetV2 with squeeze-and-excitation), which learns in few steps, at
the largest widths, whose channels the subnets share by their prefix. Stem, norms of stages and head
are common to both, so that subnets begin with trained ones. (Where a space has inverted residuals
itself, those do have a head start.)

In the end random subnets learn as a whole, from the labels and from the teacher's answers: what is
compared later is their accuracy, not how well they imitate.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator

from nas.training.strategies.strategy import Course, Lesson, Share, StageLesson, Strategy
from search_space import Architecture, InvertedResidual, SearchSpace, Stage

EXPANSION = 2
"""Of the teacher's inverted residuals."""


class Blockwise(Strategy):
    """A teacher from outside the space, by which stages learn side by side, then whole subnets.

    Attributes:
        alone: Share of the steps, at the beginning, that train the teacher alone.
        stages: Share of the steps after that in which stages learn from the teacher's maps.
        round_length: Of so many steps after the beginning one trains the teacher.
        labels: Weight of the labels in what a whole subnet learns from.
        answers: Weight of the teacher's answers.
    """

    name: Literal["blockwise"] = "blockwise"
    alone: Share = 0.35
    stages: Share = 0.3
    round_length: Annotated[int, Field(ge=2)] = 6
    labels: NonNegativeFloat = 0.5
    answers: NonNegativeFloat = 0.5

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not (self.labels or self.answers):
            raise ValueError("labels and answers are both 0: whole subnets would learn nothing")
        return self

    def beside(self, space: SearchSpace) -> tuple[Architecture, ...]:
        """The teacher."""
        return (teacher_of(space),)

    def plan(self, course: Course, step: int) -> tuple[Lesson | StageLesson]:
        """The teacher from the labels, the stages of a subnet, or a whole one."""
        teacher = teacher_of(course.constrained.space)
        alone = math.ceil(self.alone * course.steps)
        if step < alone or (step - alone) % self.round_length == 0:
            return (Lesson(subnet=teacher),)
        subnet = course.constrained.sample(course.rng(step))
        on_a_map = not subnet.stages[0].class_token
        if on_a_map and step < alone + self.stages * course.steps:
            return (StageLesson(subnet=subnet, teacher=teacher),)
        return (Lesson(subnet=subnet, teacher=teacher, labels=self.labels, answers=self.answers),)


def teacher_of(space: SearchSpace) -> Architecture:
    """An inverted residual network of a space's largest widths and least depths, on a map."""
    least, largest = (space.scaled_genotype(fraction) for fraction in (0.0, 1.0))
    stages = tuple(
        Stage(
            pooling="mv2_se" if choices.pooling else None,
            width=int(largest[f"stage{number}.width"]),
            depth=int(least[f"stage{number}.depth"]),
            mixer=InvertedResidual(expansion=EXPANSION),
            feed_forward=None,
            conv_norm="layer",  # running statistics would be of whatever was trained last
            norm=choices.norm,
        ).canonical()
        for number, choices in enumerate(space.stages, start=1)
    )
    return Architecture(stem=space.stem, stages=stages)
