"""Training the supernet: the largest subnet first, then one subnet a step, taught by the largest.

The first third of the steps trains the largest architecture under the limits alone, as
Once-for-All begins (Cai et al., 2020): everything later shares what it learns. From then on every
step trains one subnet, in rounds of `ROUND`: the largest, the smallest, and random ones, half of
them from the band just under the budget, where the search will end. So the sandwich (Yu and Huang,
2019, "Universally Slimmable Networks", section 3.1) is spread over a round: for the same time it
makes two to three times as many steps as all of a sandwich in each.

All but the largest learn from the labels, from the largest one's answers (in-place distillation,
section 3.2 there), and from its maps: a subnet's map after each stage is compared with the same
channels of the largest one's, which the shared prefix gives one meaning (after DNA, Li et al.,
2020, who train blocks by a teacher's maps).

Where operators that have learned nothing yet stand one behind the other, none of them learns: the
last sees noise. So a random subnet has new operators in few places at first, and in all of them in
the end (Once-for-All's progressive shrinking, applied to operators). And poolings, which nothing
bypasses, learn beside: in every step one of those that the largest does not use learns to give what
the largest's gives, from what the largest's gets.

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

from nas.data import Data, normalise, train_batches
from nas.objectives.constrained_space import ConstrainedSpace
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.training.accuracy import SubnetEvaluator
from nas.utilities.errors import InputError
from nas.utilities.files import replacing
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import Architecture, SearchSpace
from supernet import Network, Store, StoreAdamW
from supernet.network import NetworkStage, StageMaps

logger = logging.getLogger(__name__)

LARGEST_ALONE = 1 / 3
"""Share of the steps, at the beginning, that train the largest architecture alone."""

ROUND = 6
"""Steps of which one trains the largest, one the smallest, and the others random subnets."""

BAND = 0.8
"""Lower end of the band under the budget, as a share of it."""

FIRST_NOVELTY, ALL_NOVEL = 0.2, 0.85
"""The chance that a gene which is no size is drawn at all and not its default rises from the first
number, after the largest was trained alone, to 1 at this share of the steps."""

MAPS_WEIGHT = 1.0
"""Weight of the distance between maps beside the loss of the class scores."""

CHECKPOINT_SECONDS = 60.0
SUBNET_TIME = 1.3
"""Time of a step with a teacher over that of the largest alone, in `base`; for the ETA only."""

MONITOR_EVERY = 50
"""Steps between looks at current accuracies."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands.

    Attributes:
        step: Steps done.
        steps: Steps to do.
        loss: Cross-entropy of the largest subnet, from the last step of this process that trained
            it; NaN before that.
        accuracies: On some of the search split, by the subnet's role; from the last look.
    """

    step: int
    steps: int
    loss: float
    accuracies: Mapping[str, float]

    @property
    def share(self) -> float:
        """Share of the work that is done: later steps have a teacher."""

        def work(steps: float) -> float:
            alone = min(steps, LARGEST_ALONE * self.steps)
            return alone + SUBNET_TIME * (steps - alone)

        return work(self.step) / work(self.steps)


def train_supernet(
    store: Store,
    *,
    config: RunConfig,
    constrained: ConstrainedSpace,
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
        constrained: The space and its limits.
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
    largest, smallest = constrained.largest(), constrained.smallest()
    landmarks = Landmarks(largest, smallest, constrained.space.scaled(0.0))
    watched = {
        "largest": largest,
        "smallest": smallest,
        "random": constrained.sample(random.Random(config.seed)),
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
    saved_at, loss = time.monotonic(), math.nan
    for images, labels in batches:
        subnet = step_subnet(config, constrained, landmarks, step)
        last = _train_step(
            store,
            optimizer,
            subnet,
            largest,
            other_poolings(constrained.space, largest, step),
            normalise(images.to(store.device), data.mean, data.std),
            labels.to(store.device),
            lr=learning_rate(step, steps=config.steps, peak=config.lr),
        )
        step += 1
        if not math.isfinite(last):
            raise InputError(
                f"`lr` {config.lr:g}: the loss is {last} after step {step}; try a lower rate"
            )
        loss = last if subnet is largest else loss
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


@dataclass(frozen=True)
class Landmarks:
    """The subnets that every round trains."""

    largest: Architecture
    cheapest: Architecture
    narrowest: Architecture
    """The smallest sizes with every other gene at its default, which the largest has, too."""


def step_subnet(
    config: RunConfig, constrained: ConstrainedSpace, landmarks: Landmarks, step: int
) -> Architecture:
    """Which subnet a step trains; a function of the step alone."""
    alone = math.ceil(LARGEST_ALONE * config.steps)
    number, place = divmod(step - alone, ROUND)
    if step < alone or place == 0:
        return landmarks.largest
    if place == 1:
        narrowest = landmarks.narrowest
        return landmarks.cheapest if number % 2 or not constrained.admits(narrowest) else narrowest
    rng = random.Random(f"subnets-{config.seed}-{step}")
    released = (step - alone) / max(1.0, ALL_NOVEL * config.steps - alone)
    return constrained.sample(
        rng,
        at_least=BAND if rng.random() < 0.5 else 0.0,
        novelty=FIRST_NOVELTY + (1 - FIRST_NOVELTY) * min(1.0, released),
    )


def other_poolings(space: SearchSpace, largest: Architecture, step: int) -> Architecture:
    """The largest with another pooling where there is one; over the steps each has its turn."""
    genes = dict(space.genotype(largest))
    for number, (gene, choices) in enumerate(space.genes.items()):
        others = [choice for choice in choices if choice != genes[gene]]
        if gene.endswith(".pooling") and others:
            genes[gene] = others[(step + number) % len(others)]
    return space.decode(genes)


def _train_step(
    store: Store,
    optimizer: StoreAdamW,
    subnet: Architecture,
    teacher: Architecture,
    poolings: Architecture,
    images: Tensor,
    labels: Tensor,
    *,
    lr: float,
) -> float:
    """One step of the store on one batch; returns the cross-entropy on the labels."""
    beside: list[tuple[str, Tensor]] = []
    taught = subnet is not teacher
    if taught:
        with torch.no_grad():
            answers, theirs = _run(store, teacher, images)
    scores, passed = _run(store, subnet, images)
    on_labels = loss = F.cross_entropy(scores, labels)
    if taught:
        loss = 0.5 * (loss + F.cross_entropy(scores, answers.softmax(dim=1)))
        loss = loss + MAPS_WEIGHT * _distance(passed, theirs)
        others = store.subnet(poolings).train()
        loss = loss + _pooling_error(others, theirs)
        beside += others.entry_parameters()
    loss.backward()
    optimizer.step([store.subnet(subnet)], lr=lr, beside=beside)
    return float(on_labels.detach())


def _run(
    store: Store, architecture: Architecture, images: Tensor
) -> tuple[Tensor, list[StageMaps]]:
    """Class scores and what passes each stage, in training mode and bf16 autocast."""
    network = store.subnet(architecture).train()
    with torch.autocast(store.device.type, torch.bfloat16):
        scores, passed = network.forward_with_maps(images)
    return scores.float(), passed


def _distance(passed: list[StageMaps], others: list[StageMaps]) -> Tensor:
    """Mean square distance of the channels that two networks' maps share, normalised per token."""
    distances = []
    for one, other in zip(passed, others, strict=True):
        if one.mixed.shape[:3] == other.mixed.shape[:3]:  # not so between a map and a sequence
            shared = (min(one.mixed.shape[3], other.mixed.shape[3]),)
            mine, theirs = (m.mixed[..., : shared[0]].float() for m in (one, other))
            distances.append(F.mse_loss(F.layer_norm(mine, shared), F.layer_norm(theirs, shared)))
    return torch.stack(distances).mean() if distances else passed[0].mixed.new_zeros(())


def _pooling_error(network: Network, teacher: list[StageMaps]) -> Tensor:
    """How far entries are from what a teacher's give for the same maps, relative to its variance.

    `network` has the teacher's widths; the mean is over the stages that begin with a pooling.
    """
    errors = []
    with torch.autocast(teacher[0].given.device.type, torch.bfloat16):
        for stage, spec, maps in zip(
            network.stages, network.architecture.stages, teacher, strict=True
        ):
            if spec.pooling is not None:
                assert isinstance(stage, NetworkStage)
                wanted = maps.entered.float()
                error = F.mse_loss(stage.enter(maps.given).float(), wanted)
                errors.append(error / wanted.var().clamp(min=1e-6))
    return torch.stack(errors).mean() if errors else teacher[0].given.new_zeros(())


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
