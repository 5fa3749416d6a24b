"""The training loop: one for the shared weights of a space and for a network alone.

A step is a function of (settings, step number, weights and moments) alone, so that a resumed
training gives the result of an uninterrupted one.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from nas.data import Data, normalise, train_batches
from nas.training.checkpoint import (
    check_fits,
    check_same,
    load_checkpoint,
    save_checkpoint,
    unusable,
)
from nas.training.ranks import ALONE, Ranks
from nas.training.schedule import learning_rate
from nas.training.settings import TrainingSettings
from nas.utilities.devices import missing_memory_told, training_dtype
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import Interrupted, StopRequest

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
"""Between two checkpoints: what a killed process loses at most. Results don't depend on it."""


class Learner(Protocol):
    """What a loop trains."""

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The losses of a step (from 0) on normalised images (B, 3, S, S) and labels (B,).

        The loop goes backward through each before it asks for the next, so that only one graph is
        in memory at a time. Gradients add up.
        """

    def update(self, *, lr: float) -> None:
        """Clip the gradients, step the weights by them, and zero them."""

    def state_dict(self) -> Mapping[str, Tensor]:
        """Weights and moments by name; the tensors themselves."""

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from such a state.

        Raises:
            KeyError: If something is missing.
            ValueError: If something does not fit.
        """


@dataclass(frozen=True, kw_only=True)
class Session:
    """On what a process trains, where, and until when: the same for all that it trains in turn.

    Results depend on the data alone, but for rounding. A training that was stopped goes on in
    another session.

    Attributes:
        data: Whose train split to use.
        device: Where the learners are.
        stop: Looked at after every step, and while images are waited for; a request in one rank
            stops all.
        loader_workers: Processes that load images.
        checkpoint_seconds: Time between two checkpoints.
        ranks: The processes that train together; each has its part of every batch, and the first
            shows progress and writes the checkpoints, which all must see.
        repeats: How often in a row an image is drawn.
    """

    data: Data
    device: torch.device
    stop: StopRequest
    loader_workers: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    ranks: Ranks = ALONE
    repeats: int = 1


def train(
    learner: Learner,
    session: Session,
    *,
    settings: TrainingSettings,
    state: Path,
    identity: Mapping[str, Any],
    on_step: Callable[[int, Sequence[float]], None],
) -> None:
    """Train to the end, from the last checkpoint if there is one.

    Args:
        learner: Who learns.
        session: On what, where, and until when.
        settings: How long, on how much at a time, how fast.
        state: Where the checkpoint is kept. The caller removes it, once the result is safe.
        identity: What the result depends on, as JSON holds it; a checkpoint of another is refused.
        on_step: Called after every step, in the first rank, with the number of steps done and the
            losses of this one.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the checkpoint cannot be gone on from, or a loss is no longer finite: then
            the weights are those before that step.
    """
    data, device, ranks, stop = session.data, session.device, session.ranks, session.stop
    step = _resume(learner, state, identity, steps=settings.steps)
    if step:
        logger.info("training goes on after step %d of %d", step, settings.steps)
    batches = train_batches(
        data,
        batch_size=settings.batch_size,
        seed=settings.seed,
        first_step=step,
        steps=settings.steps - step,
        workers=session.loader_workers,
        part=(ranks.rank, ranks.count),
        repeats=session.repeats,
        stop=stop,
    )

    def save() -> None:
        if step and ranks.rank == 0:  # before the first step there is nothing to go on from
            save_checkpoint(state, step=step, identity=identity, tensors=learner.state_dict())
            logger.info("saved the state of training after step %d", step)

    saved_at = time.monotonic()
    try:
        with told_of_the_batch(settings.batch_size, device):
            for images, labels in batches:
                images = normalise(images.to(device), data.mean, data.std)
                losses = []
                with ranks.on_one_batch():
                    for loss in learner.losses(step, images, labels.to(device)):
                        loss.backward()
                        losses.append(loss.detach())
                means = torch.stack(losses)
                ranks.average([means])
                # Read all at once and after everything was queued: reading waits for the device.
                values = means.tolist()
                _check_finite(values, step, settings.lr)
                learner.update(lr=learning_rate(step, settings))
                step += 1
                if ranks.rank == 0:
                    on_step(step, values)
                due = time.monotonic() - saved_at > session.checkpoint_seconds
                stop.requested, due = ranks.any([stop.requested, due])
                stop.check()
                if due:
                    save()
                    saved_at = time.monotonic()
    except Interrupted:
        save()
        raise


@contextmanager
def told_of_the_batch(size: int, device: object) -> Iterator[None]:
    """Let a batch with which a network cannot be trained be told in one line.

    Args:
        size: Images in it.
        device: Where.

    Raises:
        InputError: If it has no room in memory, or is a single image whose last map is one pixel,
            of which batch norm has no variance.
    """
    try:
        with missing_memory_told(f"`batch_size` {size}", device):
            yield
    except ValueError as error:
        if "more than 1 value per channel" in str(error):
            raise InputError(
                f"`batch_size` {size}: too few for the batch norms of images this small; give 2 or "
                "more"
            ) from error
        raise


def autocast(device: torch.device) -> torch.autocast:
    """In what every network is trained and evaluated: `training_dtype` of the device.

    Where that is bfloat16, it is float32 still for what torch's autocast does not take for safe.
    """
    half = training_dtype(device.type) == torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=half)


def _resume(learner: Learner, state: Path, identity: Mapping[str, Any], *, steps: int) -> int:
    """Take up the training that a checkpoint holds; the steps that it has done."""
    if not state.exists():
        return 0
    checkpoint = load_checkpoint(state)
    check_same(state, checkpoint, identity)
    check_fits(state, checkpoint, learner.state_dict())
    if checkpoint.step > steps:
        raise unusable(state, f"it has done {checkpoint.step} of {steps} steps")
    try:
        learner.load_state_dict(checkpoint.tensors)
    except (KeyError, ValueError) as error:
        raise unusable(state, error) from None
    return checkpoint.step


def check_gradient(norm: float, lr: float) -> None:
    """See that a step with a gradient of that norm would leave numbers.

    Args:
        norm: Over all weights.
        lr: Of the step.

    Raises:
        Diverged: If it is infinite or not a number.
    """
    if not math.isfinite(norm):
        raise Diverged(f"`lr`: the gradient is {norm} at a rate of {lr:g}; try a lower rate")


def _check_finite(losses: Sequence[float], step: int, lr: float) -> None:
    for loss in losses:
        if not math.isfinite(loss):
            raise Diverged(f"`lr` {lr:g}: the loss is {loss} at step {step + 1}; try a lower rate")
