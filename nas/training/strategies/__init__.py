"""Training strategies: which subnets a step trains, and with which losses. A file for each.

A new one is a class with a name and a new entry:

    class LargestAlone(Strategy):
        name: Literal["largest-alone"] = "largest-alone"

        def plan(self, course: Course, step: int) -> Sequence[Lesson]:
            return [Lesson(subnet=course.largest)]

    STRATEGIES["largest-alone"] = LargestAlone

From then on it is known by name to configurations and the command line. Nothing here imports torch:
a strategy plans, and `nas.training.supernet` does what it planned.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny, ValidationError

from nas.training.strategies.blockwise import Blockwise
from nas.training.strategies.sandwich import Sandwich
from nas.training.strategies.single_path import SinglePath
from nas.training.strategies.strategy import (
    GIVEN,
    OUTSIDE,
    Course,
    Lesson,
    Strategy,
    TeacherPlan,
)
from search_space.architecture import first_error

STRATEGIES: dict[str, type[Strategy]] = {
    "blockwise": Blockwise,
    "single-path": SinglePath,
    "sandwich": Sandwich,
}
"""Every strategy by the name that the user gives."""

DEFAULT_STRATEGY = Blockwise()


def strategy_of(value: object) -> Strategy:
    """The strategy that a configuration names.

    Args:
        value: A strategy; its name, for one with its defaults; or its name and others of its
            fields, as JSON holds them.

    Raises:
        ValueError: If there is none of that name, or a field is wrong.
    """
    if isinstance(value, Strategy):
        return value
    fields = {"name": value} if isinstance(value, str) else value
    name = fields.get("name") if isinstance(fields, dict) else None
    if not isinstance(name, str) or name not in STRATEGIES:
        raise ValueError(f"{name!r} is none of {', '.join(STRATEGIES)}")
    try:
        return STRATEGIES[name].model_validate(fields)
    except ValidationError as error:
        raise ValueError(first_error(error)) from None


AnyStrategy = Annotated[SerializeAsAny[Strategy], BeforeValidator(strategy_of)]
"""The type of a field that holds a strategy, whole, and is read back from JSON by its name."""

__all__ = [
    "DEFAULT_STRATEGY",
    "GIVEN",
    "OUTSIDE",
    "STRATEGIES",
    "AnyStrategy",
    "Blockwise",
    "Course",
    "Lesson",
    "Sandwich",
    "SinglePath",
    "Strategy",
    "TeacherPlan",
    "strategy_of",
]
