"""What is traded off and limited, and the search space under those limits."""

from nas.objectives.limits import Limits
from nas.objectives.objective import CLOSED_FORM, Objective

__all__ = ["CLOSED_FORM", "Limits", "Objective"]
