"""How large the numbers of a run may be, on the command line and wherever one is read.

Like those of `search_space.bounds` they lie far beyond what is sensible. What is below them and
cannot work all the same, since a machine is too small for it, is found out where it is asked for.
"""

from typing import Annotated

from pydantic import Field, PlainValidator

MOST_STEPS = 1_000_000_000
"""Training steps, and passes over the data."""

MOST_IMAGES = 65_536
"""Images in a batch."""

MOST_TRIALS = 1_000_000
"""Architectures that are evaluated, drawn or chosen."""

MOST_PROCESSES = 1_024
"""Processes or threads that share a piece of work."""

LARGEST = 10**18
"""Anything else: a limit, a number of images, seconds, milliseconds."""


def _number(value: object) -> object:
    if isinstance(value, int | float) and abs(value) <= LARGEST:
        return value
    raise ValueError(f"Input should be a number between {-LARGEST:g} and {LARGEST:g}")


Number = Annotated[float, PlainValidator(_number)]
"""Whole numbers stay whole."""

Steps = Annotated[int, Field(ge=1, le=MOST_STEPS)]
Batch = Annotated[int, Field(ge=1, le=MOST_IMAGES)]
Trials = Annotated[int, Field(ge=1, le=MOST_TRIALS)]
ShortList = Annotated[int, Field(ge=0, le=MOST_TRIALS)]
Processes = Annotated[int, Field(ge=1, le=MOST_PROCESSES)]
Count = Annotated[int, Field(ge=0, le=LARGEST)]
PositiveCount = Annotated[int, Field(ge=1, le=LARGEST)]
Amount = Annotated[float, Field(ge=0, le=LARGEST, allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, le=LARGEST, allow_inf_nan=False)]
