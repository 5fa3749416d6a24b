"""What a training strategy says: which subnets a step trains, and what each of them learns from."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from search_space import Architecture

if TYPE_CHECKING:
    from nas.objectives.constrained_space import ConstrainedSpace

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """One subnet's part in a step: its loss is the sum of these terms, each times its weight.

    The terms are those of `nas.training.distillation`. One of weight 0 is not computed.

    Attributes:
        subnet: Who learns.
        teacher: Whose answers and maps it learns from; None where it learns from labels alone.
        labels: Weight of the cross-entropy with the labels.
        answers: Weight of the cross-entropy with the teacher's answers.
        maps: Weight of the distance from the teacher's maps.
    """

    subnet: Architecture
    teacher: Architecture | None = None
    labels: float = 1.0
    answers: float = 0.0
    maps: float = 0.0

    def __post_init__(self) -> None:
        if self.teacher is None and (self.answers or self.maps):
            raise ValueError("answers and maps to learn from need a teacher")
        if not (self.labels or self.answers or self.maps):
            raise ValueError("every weight is 0: there is nothing to learn from")


@dataclass(frozen=True, kw_only=True)
class PoolingLesson:
    """A step of poolings alone: they learn to give what a teacher's give for the same maps.

    Attributes:
        poolings: A network with the teacher's widths, whose poolings learn.
        teacher: Whose poolings they learn from.
        weight: Of their error.
    """

    poolings: Architecture
    teacher: Architecture
    weight: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Course:
    """What a strategy knows of the training that it plans.

    Attributes:
        constrained: The space under its limits: every subnet that is trained must meet them.
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

    @abstractmethod
    def plan(self, course: Course, step: int) -> Sequence[Lesson | PoolingLesson]:
        """The lessons of a step (from 0), at least one; a function of its arguments alone.

        They are given in this order. The outputs of a lesson without a teacher serve those behind
        it that learn from its subnet; any other teacher is run once more and learns nothing.
        """

    def share_done(self, step: int, steps: int) -> float:
        """The share of the work, 0 to 1, that the first `step` of `steps` are; for showing it."""
        return step / steps
