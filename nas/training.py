"""Training the supernet: the largest subnet first, then the sandwich rule with distillation.

The first third of the steps trains the largest architecture under the limits alone, as
Once-for-All begins (Cai et al., 2020): such a step costs less than half, and everything later
shares what it learns. Every further step trains, on one batch, the largest on the labels, and the
smallest and some random ones on the labels and on the largest one's answers (Yu and Huang, 2019,
"Universally Slimmable Networks", sections 3.1 and 3.2; Yu et al., 2020, "BigNAS"). Half of the
random ones come from the band just under the budget, where the search will end.

A step is a function of (configuration, step number, weights and moments) alone, so that a resumed
training gives the result of an uninterrupted one.
"""

import logging
import math
import random
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from nas.config import RunConfig
from nas.data import Data, normalise, train_batches
from nas.errors import InputError
from nas.evaluation import SubnetEvaluator
from nas.interrupt import Interrupted, StopRequest
from nas.limits import Problem
from nas.run_folder import RunFolder, replacing
from search_space import Architecture
from supernet import Network, Store, StoreAdamW

logger = logging.getLogger(__name__)

LARGEST_ALONE = 1 / 3
"""Share of the steps, at the beginning, that train the largest architecture alone."""

BAND = 0.8
"""Lower end of the band under the budget, as a share of it."""

CHECKPOINT_SECONDS = 60.0
SANDWICH_TIME = 2.8
"""Time of a sandwich over that of the largest alone, as measured in `base`; for the ETA only."""

MONITOR_EVERY = 50
"""Steps between looks at current accuracies."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands.

    Attributes:
        step: Steps done.
        steps: Steps to do.
        loss: Cross-entropy of the largest subnet in the last step.
        accuracies: On some of the search split, by the subnet's role; from the last look.
    """

    step: int
    steps: int
    loss: float
    accuracies: Mapping[str, float]

    @property
    def share(self) -> float:
        """Share of the work that is done: later steps train more subnets."""

        def work(steps: float) -> float:
            alone = min(steps, LARGEST_ALONE * self.steps)
            return alone + SANDWICH_TIME * (steps - alone)

        return work(self.step) / work(self.steps)


def train_supernet(
    store: Store,
    *,
    config: RunConfig,
    problem: Problem,
    data: Data,
    folder: RunFolder,
    monitor: SubnetEvaluator,
    stop: StopRequest,
    on_progress: Callable[[Progress], None],
    loader_workers: int = 0,
) -> None:
    """Train the store to the end, from the last checkpoint if there is one.

    Leaves `supernet/checkpoint.safetensors`; its presence says that training is done.

    Args:
        store: The weights to train.
        config: Steps, batch size, learning rate, seed, device.
        problem: The space and its limits.
        data: Whose train split to use.
        folder: Where checkpoints go.
        monitor: Shows current accuracies; it shares the store.
        stop: Looked at after every step.
        on_progress: Called after every step.
        loader_workers: Processes that load images.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the saved state is of another configuration or cannot be read, or the loss
            is no longer finite.
    """
    # Gradients are views into larger tensors by design.
    warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
    optimizer = StoreAdamW(store)
    step = _load_state(folder, store, optimizer) if folder.training_state.exists() else 0
    if step:
        logger.info("training goes on after step %d of %d", step, config.steps)
    largest, smallest = problem.largest(), problem.smallest()
    watched = {
        "largest": largest,
        "smallest": smallest,
        "random": problem.sample(random.Random(config.seed)),
    }
    accuracies: dict[str, float] = {}
    batches = train_batches(
        data,
        batch_size=config.batch_size,
        seed=config.seed,
        first_step=step,
        steps=config.steps - step,
        workers=loader_workers,
    )
    saved_at = time.monotonic()
    for images, labels in batches:
        subnets = [largest]
        if step >= LARGEST_ALONE * config.steps:
            subnets += [smallest, *_random_subnets(config, problem, step)]
        lr = learning_rate(step, steps=config.steps, peak=config.lr)
        loss = _sandwich_step(
            store,
            optimizer,
            subnets,
            normalise(images.to(store.device), data.mean, data.std),
            labels.to(store.device),
            lr=lr,
        )
        step += 1
        if not math.isfinite(loss):
            raise InputError(
                f"--lr {config.lr:g}: the loss is {loss} after step {step}; try a lower rate"
            )
        if step % MONITOR_EVERY == 0 or step == config.steps:
            accuracies = {role: monitor.accuracy(a) for role, a in watched.items()}
            logger.info("step %d/%d loss %.3f %s", step, config.steps, loss, _text(accuracies))
        on_progress(Progress(step=step, steps=config.steps, loss=loss, accuracies=accuracies))
        if stop.requested or time.monotonic() - saved_at > CHECKPOINT_SECONDS:
            _save_state(folder, store, optimizer, step)
            saved_at = time.monotonic()
        if stop.requested:
            raise Interrupted
    with replacing(folder.checkpoint) as path:
        save_file(store.state_dict(), path, metadata={"steps": str(step)})
    folder.training_state.unlink(missing_ok=True)


def learning_rate(step: int, *, steps: int, peak: float) -> float:
    """Linear warm-up over the first tenth of the steps (at most 500), then a cosine to zero."""
    warmup = max(1, min(500, steps // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - warmup)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def _random_subnets(config: RunConfig, problem: Problem, step: int) -> list[Architecture]:
    rng = random.Random(f"subnets-{config.seed}-{step}")
    return [
        problem.sample(rng, at_least=BAND if rng.random() < 0.5 else 0.0)
        for _ in range(config.random_subnets)
    ]


def _sandwich_step(
    store: Store,
    optimizer: StoreAdamW,
    subnets: list[Architecture],
    images: Tensor,
    labels: Tensor,
    *,
    lr: float,
) -> float:
    """One step of the store on one batch; the first subnet teaches the others. Returns its loss."""
    teacher: Tensor | None = None
    largest_loss = torch.zeros(())
    networks: list[Network] = []
    for architecture in subnets:
        network = store.subnet(architecture).train()
        with torch.autocast(store.device.type, torch.bfloat16):
            logits = network(images)
        logits = logits.float()
        loss = F.cross_entropy(logits, labels)
        if teacher is None:
            teacher, largest_loss = logits.detach().softmax(dim=1), loss.detach()
        else:
            loss = 0.5 * (loss + F.cross_entropy(logits, teacher))
        loss.backward()
        networks.append(network)
    optimizer.step(networks, lr=lr)
    return float(largest_loss)


def _save_state(folder: RunFolder, store: Store, optimizer: StoreAdamW, step: int) -> None:
    """Weights, moments and step in one file, so that they can never be of different steps."""
    tensors = {f"store.{name}": tensor for name, tensor in store.state_dict().items()}
    tensors |= {f"optimizer.{name}": t for name, t in optimizer.state_dict().items()}
    with replacing(folder.training_state) as path:
        save_file(tensors, path, metadata={"step": str(step)})
    logger.info("saved the state of training after step %d", step)


def _load_state(folder: RunFolder, store: Store, optimizer: StoreAdamW) -> int:
    path = folder.training_state
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            step = int((file.metadata() or {})["step"])
        store.load_state_dict(_part(state, "store."))
        optimizer.load_state_dict(_part(state, "optimizer."))
    except (SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be resumed from ({error}); delete it to train from the beginning"
        ) from None
    return step


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }


def _text(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{role} {accuracy:.1%}" for role, accuracy in accuracies.items())
