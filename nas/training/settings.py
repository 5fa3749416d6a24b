"""What the result of a training depends on. No torch here: configurations are read without it."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.training.strategies import DEFAULT_STRATEGY, AnyStrategy
from nas.training.strategies.strategy import Rate, Share
from nas.utilities.bounds import Amount, Batch, Count, Positive, Steps

Seed = Annotated[int, Field(ge=0, lt=1 << 32)]


class TrainingSettings(BaseModel):
    """What every training needs: how long, on how much at a time, and how weights are stepped.

    The optimizer is AdamW (Loshchilov and Hutter, 2019, algorithm 2); the learning rate is that of
    `nas.training.schedule`.

    Attributes:
        steps: Training steps.
        batch_size: Images in a step.
        lr: Peak learning rate.
        seed: Of everything random.
        weight_decay: Decoupled weight decay of matrices and kernels.
        betas: Decay rates of the optimizer's two moments.
        eps: What the optimizer adds to the root of the second moment.
        clip_norm: Largest norm of the gradient of a step over all weights; what exceeds it is
            scaled down.
        warmup_share: Share of the steps in which the learning rate rises to its peak.
        warmup_limit: Most steps in which it does.
        teacher: The classifier that the user gave as a teacher: its name and the digest of its
            weights; None without one.
        token_labels: Whether its answers for each place of its last map are learned from, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: Steps
    batch_size: Batch
    lr: Rate
    seed: Seed
    weight_decay: Amount = 0.05
    betas: tuple[Share, Share] = (0.9, 0.999)
    eps: Positive = 1e-8
    clip_norm: Positive = 5.0
    warmup_share: Share = 0.1
    warmup_limit: Count = 500
    teacher: str | None = None
    token_labels: bool = False


class SupernetTraining(TrainingSettings):
    """How the shared weights of a space are trained.

    Attributes:
        most_catching_up: Largest factor of the learning rate of a weight that was trained in few
            of the steps so far, as `StoreAdamW` explains.
        strategy: Which subnets a step trains, and what they learn from; with its own numbers.
    """

    batch_size: Batch = 64
    lr: Rate = 6e-4
    seed: Seed = 0
    warmup_share: Share = 0.03
    most_catching_up: Annotated[Positive, Field(ge=1)] = 3.0
    strategy: AnyStrategy = DEFAULT_STRATEGY

    @model_validator(mode="after")
    def _the_teacher_has_a_rate(self) -> Self:
        plan = self.strategy.outside(self.steps)
        if plan is not None and plan.rate * self.lr >= 1:
            raise ValueError(
                f"`lr` {self.lr:g}: the strategy's teacher learns at {plan.rate:g} times that, "
                "which must be below 1"
            )
        return self
