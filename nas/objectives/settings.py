"""How architectures within limits are looked for. Other numbers find others."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class DrawSettings(BaseModel):
    """How far a look for an architecture within the limits goes, so that none is without end.

    Attributes:
        draws: Random architectures that are drawn for one within the limits.
        walk: Steps from the smallest architecture to others within the limits, where the draws
            found none.
        compromises: Steps from each extreme in the look for an architecture that meets all limits
            together.
        detour: Violation, as a share of the limits, by which such a step may go back now and then,
            to get around what blocks the way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    draws: PositiveInt = 100
    walk: PositiveInt = 100
    compromises: PositiveInt = 400
    detour: Annotated[float, Field(gt=0)] = 0.03


DEFAULT_DRAWS = DrawSettings()
"""The settings where no others are given."""
