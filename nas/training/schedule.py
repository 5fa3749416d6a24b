"""The learning rate of a step."""

import math

from nas.training.settings import TrainingSettings


def learning_rate(step: int, settings: TrainingSettings) -> float:
    """Linear warm-up to the peak, then a cosine to zero (SGDR, Loshchilov and Hutter, 2017).

    The warm-up takes `warmup_share` of the steps, at most `warmup_limit` and at least one. It rises
    from the first step on, so that the last step of the warm-up has the peak. timm's
    `CosineLRScheduler` has the peak one step later, and writes into the groups of a
    `torch.optim.Optimizer`, which the optimizer of the shared weights is not.

    Args:
        step: Steps done before this one, from 0.
        settings: Of the training.
    """
    warmup = max(1, min(settings.warmup_limit, int(settings.warmup_share * settings.steps)))
    if step < warmup:
        return settings.lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, settings.steps - warmup)
    return settings.lr * 0.5 * (1 + math.cos(math.pi * progress))
