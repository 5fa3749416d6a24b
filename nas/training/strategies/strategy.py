"""What a training strategy says: which subnets a step trains, and what each of them learns from."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from search_space import Architecture, SearchSpace

if TYPE_CHECKING:
    from nas.objectives.constrained_space import ConstrainedSpace

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One subnet's part in a step: its loss is the sum of these terms, each times its weight.

    The terms are those of `nas.training.distillation`. One of weight 0 is not computed.

    Attributes:
        subnet: Who learns.
        teacher: Whose answers it learns from; None where it learns from labels alone.
        labels: Weight of the cross-entropy with the labels.
        answers: Weight of the cross-entropy with the teacher's answers.
    """

    subnet: Architecture
    teacher: Architecture | None = None
    labels: float = 1.0
    answers: float = 0.0

    def __post_init__(self) -> None:
        if self.teacher is None and self.answers:
            raise ValueError("answers to learn from need a teacher")
        if not (self.labels or self.answers):
            raise ValueError("every weight is 0: there is nothing to learn from")


@dataclass(frozen=True, kw_only=True)
class StageLesson:
    """A step in which each stage of a subnet learns from a teacher by itself.

    It is given what the teacher's stage is given, and learns to give what that gives, as far as the
    two share channels. Stem and head learn nothing.

    Attributes:
        subnet: Whose stages learn; on a map, as the teacher is, with as many stages.
        teacher: Whose maps they learn.
    """

    subnet: Architecture
    teacher: Architecture


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

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str

    def beside(self, space: SearchSpace) -> Sequence[Architecture]:
        """Networks that are no members of the space but take part in training its weights.

        Their stages, where they have the kinds of parts that the space has, share its weights.
        """
        return ()

    @abstractmethod
    def plan(self, course: Course, step: int) -> Sequence[Lesson | StageLesson]:
        """The lessons of a step (from 0), at least one; a function of its arguments alone.

        They are given in this order. The outputs of a lesson without a teacher serve those behind
        it that learn from its subnet; any other teacher is run once more and learns nothing.
        """
