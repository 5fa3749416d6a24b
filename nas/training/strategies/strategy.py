"""What a training strategy says: which subnets a step trains, and what each of them learns from."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from search_space import Architecture

if TYPE_CHECKING:
    from nas.objectives.constrained_space import ConstrainedSpace

Share = Annotated[float, Field(ge=0, le=1)]
Rate = Annotated[float, Field(gt=0, lt=1)]

Outside = Literal["outside"]
OUTSIDE: Outside = "outside"
"""The teacher that is no member of the space: `nas.training.teacher`."""

Given = Literal["given"]
GIVEN: Given = "given"
"""The teacher that the user gave: `nas.training.given_teacher`. No strategy plans it."""


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One subnet's part in a step: its loss is the sum of these terms, each times its weight.

    The terms are those of `nas.training.distillation`. One of weight 0 is not computed.

    Attributes:
        subnet: Who learns.
        teacher: Whose answers it learns from: an architecture of the space, `OUTSIDE` for the
            teacher that is none, `GIVEN` for the user's, or None where it learns from labels alone.
        labels: Weight of the cross-entropy with the labels.
        answers: Weight of the cross-entropy with the teacher's answers.
        tokens: Weight of that of each place of the last map with the given teacher's.
        side_by_side: Whether each stage is given what the outside teacher's stage before it gives,
            and learns to give what the teacher's gives, as far as the two share channels; the head
            reads the teacher's last map. Only on a map, as the teacher is.
        rate: Factor of the learning rate in the step; of several lessons the largest counts.
    """

    subnet: Architecture
    teacher: Architecture | Outside | Given | None = None
    labels: float = 1.0
    answers: float = 0.0
    tokens: float = 0.0
    side_by_side: bool = False
    rate: float = 1.0

    def __post_init__(self) -> None:
        if self.teacher is None and self.answers:
            raise ValueError("answers to learn from need a teacher")
        if self.side_by_side and self.teacher != OUTSIDE:
            raise ValueError("stages learn side by side from the outside teacher alone")
        if not (self.labels or self.answers):
            raise ValueError("every weight is 0: there is nothing to learn from")


@dataclass(frozen=True, kw_only=True)
class TeacherPlan:
    """How the teacher from outside the space is trained.

    Attributes:
        steps: Training steps.
        rate: Factor of the peak learning rate of the shared weights.
    """

    steps: int
    rate: float


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a strategy knows of the training that it plans.

    Attributes:
        constrained: The space under its limits: every subnet that is trained must meet them, but
            for those that only teach.
        steps: Of the whole training.
        seed: Of everything random.
    """

    constrained: ConstrainedSpace
    steps: int
    seed: int

    @cached_property
    def largest(self) -> Architecture:
        """A large architecture within the limits, evenly scaled where such a one is."""
        return self.constrained.largest()

    @cached_property
    def smallest(self) -> Architecture:
        """The cheapest architecture within the limits."""
        return self.constrained.smallest()

    def rng(self, step: int) -> random.Random:
        """A step's own generator: what it draws depends on the seed and the step alone."""
        return random.Random(f"subnets-{self.seed}-{step}")


class Strategy(BaseModel, ABC):
    """A way to train shared weights. Its fields are the numbers that its results depend on.

    Gradients of all the lessons of a step are summed before the weights move once.

    Attributes:
        name: What the user calls it, and its key in `STRATEGIES`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str

    def outside(self, steps: int) -> TeacherPlan | None:
        """The teacher from outside the space that is trained before all else, if there is one.

        Args:
            steps: Of the training of the shared weights.
        """
        return None

    def restarts(self, steps: int) -> Collection[int]:
        """Steps (from 0) before which the optimizer forgets its moments.

        That is where lessons of another kind begin: their gradients may be many times as large,
        and Adam would divide them by the root of the small ones before.

        Args:
            steps: Of the training of the shared weights.
        """
        return ()

    @abstractmethod
    def plan(self, course: Course, step: int) -> Sequence[Lesson]:
        """The lessons of a step (from 0), at least one; a function of its arguments alone.

        They are given in this order. The outputs of a lesson without a teacher serve those behind
        it that learn from its subnet; any other subnet that teaches is run once more and learns
        nothing.
        """
