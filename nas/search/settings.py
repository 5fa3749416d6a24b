"""What the result of a search depends on beside its trials. No torch, no Optuna."""

from pydantic import BaseModel, ConfigDict, PositiveInt


class SearchSettings(BaseModel):
    """When the driver steps in, and when it gives up.

    Attributes:
        patience: Proposals in a row that bring nothing new before the driver proposes a feasible
            one itself.
        failures: Evaluations in a row that fail before the search gives up.
        asks_per_trial: Proposals allowed for each evaluation wanted; the search ends when they are
            used up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    patience: PositiveInt = 20
    failures: PositiveInt = 10
    asks_per_trial: PositiveInt = 40


DEFAULT_SEARCH = SearchSettings()
"""The settings of a search for which no others are given."""
