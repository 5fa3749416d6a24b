"""What the result of a search depends on beside its trials. No torch, no Optuna."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from nas.training.strategies.strategy import Rate
from nas.utilities.bounds import Steps, Trials


class SearchSettings(BaseModel):
    """How many are proposed at once, when the driver steps in, and when it gives up.

    Attributes:
        batch: Architectures that are proposed before any of them is told; so many workers at most
            have something to do.
        patience: Proposals in a row that bring nothing new before the driver proposes a feasible
            one itself.
        failures: Evaluations in a row that fail before the search gives up.
        asks_per_trial: Proposals allowed for each evaluation wanted; the search ends when they are
            used up.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    batch: Trials = 8
    patience: Trials = 20
    failures: Trials = 10
    asks_per_trial: Trials = 40


class TryoutSettings(BaseModel):
    """How a short list is trained alone: by successive halving (Jamieson and Talwalkar, 2016).

    Every rung is a training of its own, with a warm-up and a cosine to zero, from the weights of
    the rung before: so the accuracy at its end is that of a finished network (SGDR, Loshchilov and
    Hutter, 2017).

    Attributes:
        first_rung: Training steps of the first rung.
        reduction: Of so many candidates one reaches the next rung, at whose end it was trained for
            so many times as many steps.
        rungs: How many rungs there are.
        final_steps: Training steps of the final, in which the first of the list begin with fresh
            weights; as many as the last rung has, if these are fewer. What 800 in batches of 16
            tell is in docs/research.md.
        lr: Peak learning rate; a run has it in proportion to the root of its batches, and this for
            batches of 64.
        drop_path: Stochastic depth of the last block.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    first_rung: Steps = 60
    reduction: Annotated[int, Field(ge=2, le=100)] = 3
    rungs: Annotated[int, Field(ge=1, le=10)] = 3
    final_steps: Steps = 800
    lr: Rate = 1e-3
    drop_path: Annotated[float, Field(ge=0, lt=1)] = 0.05

    @property
    def milestones(self) -> tuple[int, ...]:
        """Steps that a candidate was trained for at the end of each rung."""
        return tuple(self.first_rung * self.reduction**rung for rung in range(self.rungs))

    @property
    def final(self) -> "TryoutSettings":
        """Those of the final: a single rung."""
        steps = min(self.final_steps, self.milestones[-1])
        return self.model_copy(update={"first_rung": steps, "rungs": 1})


FEWEST_FINALISTS = 4
"""Architectures in the smallest final that a run has by itself: of the default list as many as come
to the second rung."""

DEFAULT_TRYOUT = TryoutSettings()
"""The settings of a tryout for which no others are given."""

DEFAULT_SEARCH = SearchSettings()
"""The settings of a search for which no others are given."""
