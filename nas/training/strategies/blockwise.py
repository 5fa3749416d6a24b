"""A teacher from outside the space; each stage of a subnet learns from its maps, then the whole.

Where operators that have learned nothing yet stand one behind the other, none of them learns: the
last sees noise. So they learn side by side (DNA, Li et al., 2020, arXiv 1911.13053, section 3.2,
whose blocks are stages here): every stage of a random subnet is given what the teacher's stage
before it gives, and learns to give what the teacher's own gives. All stages learn in one step, none
waits for another, and whatever the operators before it, a stage sees what a trained network sees.

No choice may win by having been trained first. So the teacher is no member of the space and shares
no weight with one: a small residual network, which learns in few and cheap steps before all else.

In the end random subnets learn as a whole, from the labels and from the teacher's answers: what is
compared later is their accuracy, not how well they imitate.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from nas.training.strategies.strategy import (
    OUTSIDE,
    Course,
    Lesson,
    Share,
    Strategy,
    TeacherPlan,
)
from nas.utilities.bounds import Amount, Count, Positive


class Blockwise(Strategy):
    """A teacher from outside the space, by which stages learn side by side, then whole subnets.

    Attributes:
        teacher: Steps of the teacher for each step of the subnets.
        teacher_rate: Factor of the learning rate in the teacher's steps.
        stages: Share of the subnets' steps, the first, in which stages learn side by side.
        stages_limit: Most steps in which they do. It is a start; what imitates a teacher well need
            not be what learns well from labels, so that more of it ranks subnets worse.
        stages_rate: Factor of the learning rate in those steps. A stage that imitates bears a rate
            at which whole subnets forget what they knew.
        warmup: Share of the subnets' steps in which the rate rises again, once they begin to learn
            as a whole.
        labels: Weight of the labels in what a subnet learns from.
        answers: Weight of the teacher's answers.
    """

    name: Literal["blockwise"] = "blockwise"
    teacher: Annotated[float, Field(gt=0, le=100)] = 0.75
    teacher_rate: Positive = 6.0
    stages: Share = 0.35
    stages_limit: Count = 350
    stages_rate: Positive = 3.0
    warmup: Share = 0.03
    labels: Amount = 0.5
    answers: Amount = 0.5

    @model_validator(mode="after")
    def _something_is_learned(self) -> Self:
        if not (self.labels or self.answers):
            raise ValueError("labels and answers are both 0: subnets would learn nothing")
        return self

    def outside(self, steps: int) -> TeacherPlan:
        """The teacher's part."""
        return TeacherPlan(steps=math.ceil(self.teacher * steps), rate=self.teacher_rate)

    def restarts(self, steps: int) -> tuple[int, ...]:
        """Where whole subnets begin to learn, unless that is the first step."""
        begin = self._first_whole(steps)
        return (begin,) if 0 < begin < steps else ()

    def plan(self, course: Course, step: int) -> tuple[Lesson]:
        """A random subnet, its stages side by side or as a whole."""
        subnet = course.constrained.sample(course.rng(step))
        on_a_map = not subnet.stages[0].class_token
        begin = self._first_whole(course.steps)
        by_stage = on_a_map and step < begin
        if by_stage:
            rate = self.stages_rate
        elif 0 < begin <= step:
            rate = min(1.0, (step - begin + 1) / max(1, round(self.warmup * course.steps)))
        else:
            rate = 1.0
        return (
            Lesson(
                subnet=subnet,
                teacher=OUTSIDE,
                labels=self.labels,
                answers=self.answers,
                side_by_side=by_stage,
                rate=rate,
            ),
        )

    def _first_whole(self, steps: int) -> int:
        """The first step in which a subnet learns as a whole."""
        return min(math.ceil(self.stages * steps), self.stages_limit)
