"""How architectures within limits are looked for. Other numbers find others."""

from pydantic import BaseModel, ConfigDict

from nas.utilities.bounds import Positive, Trials


class DrawSettings(BaseModel):
    """How far a look for an architecture within the limits goes, so that none is without end.

    Attributes:
        draws: Random architectures that are drawn for one within the limits.
        walk: Steps from the smallest architecture to others within the limits, where so many draws
            find none.
        compromises: Steps from each extreme in the look for an architecture that meets all limits
            together.
        detour: Violation, as a share of the limits, by which such a step may go back now and then,
            to get around what blocks the way.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    draws: Trials = 100
    walk: Trials = 100
    compromises: Trials = 400
    detour: Positive = 0.03


DEFAULT_DRAWS = DrawSettings()
"""The settings where no others are given."""
