"""Training one network alone, by the recipe that the designs of the field share.

It is DeiT's (Touvron et al., 2021, section 6 and table 9): AdamW, a cosine with warm-up, label
smoothing, stochastic depth, clipping; with `augment="full"` also RandAugment, mixup, cutmix and
random erasing, which pay off in long trainings.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field
from timm.data.mixup import Mixup, mixup_target
from timm.data.random_erasing import RandomErasing
from timm.optim import create_optimizer_v2
from timm.utils import ModelEmaV3
from torch import Tensor

from nas.data import Augment, Data
from nas.training.accuracy import fit, nobody
from nas.training.distillation import (
    TOKENS,
    check_places,
    mixed_targets,
    token_loss,
    weighted_cross_entropy,
)
from nas.training.given_teacher import Ask, GivenTeacher
from nas.training.loop import CHECKPOINT_SECONDS, Session, autocast, train
from nas.training.module_learner import ModuleLearner
from nas.training.schedule import learning_rate
from nas.training.settings import TrainingSettings
from nas.training.strategies.strategy import Share
from nas.utilities.bounds import Amount, Batch
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.seeding import derived_seed, seed_global_generators
from search_space import Architecture
from search_space.bounds import Pixels
from supernet import Network, parameter_groups

SCRATCH, SUPERNET = "scratch", "supernet"
"""Where weights come from that are no earlier retraining's."""

ClassWeights = Literal["none", "balanced"]

LARGEST_HELD_OUT = 0.5
"""Share of the train split."""

VALIDATIONS = 20
"""The most times that held-out images are looked at in a training."""


class Recipe(TrainingSettings):
    """How a network is trained alone.

    Attributes:
        start: From what weights: `scratch` for fresh ones, `supernet` for those that the search
            exported, else the name of the earlier retraining whose they are.
        weights: Their digest, where they are not fresh and a run's folder has them.
        drop_path: Stochastic depth of the last block.
        augment: `full` for DeiT's augmentation, `light` for crops and flips alone.
        image_size: Side in pixels.
        device: Where to train.
        label_smoothing: Share of the target probability that is spread over all classes.
        mixup: Parameter of the distribution of mixup's shares; 0 for no mixup. This and the
            following have an effect with `augment` `full` alone.
        cutmix: Likewise of cutmix. Where both are used each has half of the batches.
        erasing: Chance that a part of an image is erased.
        ema: Decay of the exponential moving average of the weights, which is then what is measured
            and exported; 0 for none. In the first steps the decay is smaller, so that the average
            forgets the weights that the training began with.
        layer_decay: Learning rate of a layer relative to the one behind it; below 1 the layers near
            the image keep more of what they began with (as in BEiT, Bao et al., 2022).
        held_out: Share of each class of the train split that is held out; the weights that are most
            accurate on it are the result then. 0 for none.
        class_weights: `balanced` weighs classes in the loss by one over their number of training
            images, so that a rare one counts as much as a frequent one.
        accumulate: In how many parts, one after the other, a batch goes through the network, whose
            gradients add up; memory is needed for one part.
        repeats: How often in a row an image is drawn, augmented anew each time (repeated
            augmentation, Hoffer et al., 2020); an epoch sees so many times fewer images.
        clip_norm: As in all trainings; 0 for no limit.
    """

    start: Annotated[str, Field(min_length=1)]
    weights: str = ""
    drop_path: Annotated[float, Field(ge=0, lt=1)]
    augment: Augment
    image_size: Pixels
    device: str
    label_smoothing: Share = 0.1
    mixup: Amount = 0.8
    cutmix: Amount = 1.0
    erasing: Share = 0.25
    ema: Annotated[float, Field(ge=0, lt=1)] = 0.0
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    held_out: Annotated[float, Field(ge=0, le=LARGEST_HELD_OUT)] = 0.0
    class_weights: ClassWeights = "none"
    accumulate: Batch = 1
    repeats: Batch = 1
    clip_norm: Amount = 5.0


class Point(NamedTuple):
    """One step of a training's curve.

    Attributes:
        step: Its number, from 1.
        loss: Of its batch, before the step was taken.
        lr: The learning rate that it was taken with.
        accuracy: After it, on the images that are held out; None where it was not measured.
    """

    step: int
    loss: float
    lr: float
    accuracy: float | None


def new_network(
    architecture: Architecture, recipe: Recipe, *, num_classes: int, given: Network
) -> Network:
    """The network that a recipe begins with, on the recipe's device.

    Args:
        architecture: What to build.
        recipe: Says from which weights, how deep stochastically, and the seed of fresh weights.
        num_classes: Outputs of its classifier.
        given: A network of that architecture with the weights that it begins with, if they are
            not fresh ones.
    """
    torch.manual_seed(recipe.seed)
    network = Network(architecture, num_classes=num_classes, drop_path_rate=recipe.drop_path)
    if recipe.start != SCRATCH:
        network.load_state_dict(given.state_dict())
    return network.to(recipe.device)


def identity_of(architecture: Architecture, recipe: Recipe) -> dict[str, Any]:
    """Everything that the result depends on but the data, as JSON holds it."""
    return {"architecture": architecture.hash, **recipe.model_dump(mode="json")}


def train_alone(
    network: Network,
    *,
    data: Data,
    recipe: Recipe,
    state: Path,
    stop: StopRequest,
    on_progress: Callable[[Point], None],
    validation: tuple[Tensor, Tensor] | None = None,
    teacher: GivenTeacher | None = None,
    loader_workers: int = 0,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    alive: Callable[[], object] = nobody,
) -> list[Point]:
    """Train a network in place, from the last saved state if there is one.

    In the end it has the weights that are to be measured: the averaged ones, if the recipe says so,
    and with a validation those of the step after which they were most accurate on it.

    Args:
        network: On the recipe's device, with the weights to begin with.
        data: Whose train split to use.
        recipe: How.
        state: Where the state is kept. The caller removes it, once the result is safe.
        stop: Looked at after every step.
        on_progress: Called after every step, with its point of the curve.
        validation: Images, uint8 (N, 3, S, S), and labels, int64 (N,), that the train split lacks;
            the accuracy on them is measured after every twentieth of the steps, and after the last.
        teacher: That which the recipe names.
        loader_workers: Processes that load images.
        checkpoint_seconds: Time between two savings of the state.
        alive: Called now and then while images are measured, when nothing is saved.

    Returns:
        The curve of the whole training, steps of earlier processes included.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the recipe cannot mix the batches, or the network has no places for its token
            labels; if the saved state is of another training or cannot be read; or if the loss is
            no longer finite.
    """
    if recipe.token_labels:
        check_places(network.architecture, recipe.image_size)
    weights = None
    if recipe.class_weights == "balanced":
        weights = balanced_weights(data.train.labels, num_classes=data.num_classes)
    learner = NetworkLearner(
        network,
        recipe,
        num_classes=data.num_classes,
        class_weights=weights,
        teacher=teacher.asker(data, torch.device(recipe.device)) if teacher else None,
    )

    interval = math.ceil(recipe.steps / VALIDATIONS)

    def show(step: int, losses: Sequence[float]) -> None:
        accuracy = math.nan
        if validation is not None and (step % interval == 0 or step == recipe.steps):
            accuracy = learner.validate(*validation, mean=data.mean, std=data.std, alive=alive)
        learner.curve.append((sum(losses), accuracy))
        on_progress(learner.point(step))

    session = Session(
        data=data,
        device=torch.device(recipe.device),
        stop=stop,
        loader_workers=loader_workers,
        checkpoint_seconds=checkpoint_seconds,
        repeats=recipe.repeats,
    )
    train(
        learner,
        session,
        settings=recipe,
        state=state,
        identity=identity_of(network.architecture, recipe),
        on_step=show,
    )
    network.load_state_dict(learner.learned())
    return [learner.point(step) for step in range(1, recipe.steps + 1)]


def balanced_weights(labels: Sequence[int], *, num_classes: int) -> Tensor:
    """What each class weighs in the loss, float32 (C,), so that all weigh the same in sum.

    An image weighs 1 on average; a class without images weighs nothing.

    Args:
        labels: Of the training images.
        num_classes: C.
    """
    counts = torch.bincount(torch.tensor(labels), minlength=num_classes)
    present = counts > 0
    return torch.where(present, len(labels) / (present.sum() * counts.clamp(min=1)), 0.0)


class NetworkLearner(ModuleLearner):
    """A network that learns alone; a `nas.training.loop.Learner`.

    Args:
        network: Who learns.
        recipe: How.
        num_classes: Of the data.
        class_weights: What each class weighs in the loss, (C,); None for 1 each.
        teacher: Whose answers it learns from beside the labels, if there is one.

    Attributes:
        average: The network with the moving average of the weights; None without `ema`.
        curve: The loss of each step so far, and the accuracy after it on what is held out, NaN
            where it was not measured; a part of the state.
        best: The most accurate of the weights that were measured; None before any were.

    Raises:
        InputError: If the recipe mixes pairs and the batch is odd.
    """

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        *,
        num_classes: int,
        class_weights: Tensor | None = None,
        teacher: Ask | None = None,
    ) -> None:
        self.network, self.recipe, self.teacher = network.train(), recipe, teacher
        self.augment = BatchAugmentation(recipe, num_classes)
        self.class_weights = None if class_weights is None else class_weights.to(recipe.device)
        optimizer = create_optimizer_v2(
            parameter_groups(
                network, weight_decay=recipe.weight_decay, layer_decay=recipe.layer_decay
            ),
            opt="adamw",
            lr=recipe.lr,
            betas=recipe.betas,
            eps=recipe.eps,
        )
        super().__init__(network, optimizer, clip_norm=recipe.clip_norm)
        self.average = (
            ModelEmaV3(network, decay=recipe.ema, use_warmup=True) if recipe.ema else None
        )
        self.curve: list[tuple[float, float]] = []
        self.best: dict[str, Tensor] | None = None
        self._step = 0

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The cross-entropy with the augmented batch's target probabilities, part by part.

        Of these a teacher's answers for the augmented images are a share; token labels come beside.
        """
        # Stochastic depth and mixing draw from the step alone, so that a resumed training gives the
        # result of an uninterrupted one.
        self._step = step
        seed = derived_seed("retrain", self.recipe.seed, step)
        seed_global_generators(seed)
        torch.manual_seed(seed)  # the GPUs' generators, too
        images, targets = self.augment(images, labels)
        parts = self.recipe.accumulate
        for some, wanted in zip(images.chunk(parts), targets.chunk(parts), strict=True):
            answers = None if self.teacher is None else self.teacher(some)
            with autocast(images.device):
                last = self.network.forward_features(some)
                scores = self.network.forward_head(last)
                places = self.network.head(last) if self.recipe.token_labels else None
            # It is images that weigh: targets that weighed would make rare classes of all images,
            # by the share of them that smoothing and a teacher give to each.
            weights = None if self.class_weights is None else wanted @ self.class_weights
            if answers is not None:
                wanted = mixed_targets(wanted, answers.scores)
            loss = weighted_cross_entropy(scores.float(), wanted, weights)
            if places is not None:
                assert answers is not None and answers.places is not None
                tokens = token_loss(places.float(), answers.places, weights)
                loss = loss + TOKENS * tokens
            yield loss * (len(some) / len(images))

    def update(self, *, lr: float) -> None:
        """Clip, step and zero, and take the new weights into their average."""
        super().update(lr=lr)
        if self.average is not None:
            self.average.update(self.network, step=self._step + 1)

    def validate(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        alive: Callable[[], object],
    ) -> float:
        """Accuracy on images that are held out; keeps the weights if none before were better.

        Raises:
            Diverged: If a class score is not finite.
        """
        measured = self._measured
        try:
            found = fit(measured, images, labels, mean=mean, std=std, on_batch=alive)
        except Diverged as error:
            raise Diverged(f"`lr` {self.recipe.lr:g}: {error}; try a lower rate") from None
        self.network.train()
        accuracy = found.accuracy
        if not any(before > accuracy for _, before in self.curve):
            self.best = {name: tensor.clone() for name, tensor in measured.state_dict().items()}
        return accuracy

    def point(self, step: int) -> Point:
        """The point of the curve after so many steps."""
        loss, accuracy = self.curve[step - 1]
        return Point(
            step=step,
            loss=loss,
            lr=learning_rate(step - 1, self.recipe),
            accuracy=None if math.isnan(accuracy) else accuracy,
        )

    def learned(self) -> dict[str, Tensor]:
        """The weights that the training is for: the best ones, the averaged ones, or the last."""
        if self.best is not None:
            return self.best
        return self._measured.state_dict()

    @property
    def _measured(self) -> Network:
        """The network with the averaged weights, or the one that is trained."""
        return self.network if self.average is None else self.average.module

    def state_dict(self) -> dict[str, Tensor]:
        """That of the network and the optimizer, the curve, the averaged and the best weights."""
        curve = {"curve": torch.tensor(self.curve, dtype=torch.float64)} if self.curve else {}
        best = {f"best.{name}": tensor for name, tensor in (self.best or {}).items()}
        return super().state_dict() | curve | self._averaged() | best

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite weights, moments, curve, averaged and best weights.

        Raises:
            KeyError: If an averaged or a best weight is missing.
            ValueError: If weights or moments are of another network, or the curve is missing.
        """
        rest = dict(state)
        curve = rest.pop("curve", None)
        best = {name: rest.pop(name) for name in state if name.startswith("best.")}
        for name, tensor in self._averaged().items():
            tensor.copy_(rest.pop(name))
        super().load_state_dict(rest)
        if curve is None or curve.ndim != 2 or curve.shape[1] != 2:
            raise ValueError("it lacks the curve")
        self.curve = [(loss, accuracy) for loss, accuracy in curve.tolist()]
        if not curve[:, 1].isnan().all():
            weights = self.network.state_dict()
            self.best = {name: best[f"best.{name}"].to(weights[name]) for name in weights}
            if any(tensor.shape != weights[name].shape for name, tensor in self.best.items()):
                raise ValueError("its best weights are of another network")

    def _averaged(self) -> dict[str, Tensor]:
        """The averaged weights by their names in the state: the tensors themselves."""
        if self.average is None:
            return {}
        weights = self.average.module.state_dict()
        return {f"average.{name}": tensor for name, tensor in weights.items()}


class BatchAugmentation:
    """What is done to whole batches: label smoothing always, mixing and erasing with `full`.

    Draws from the global generators.

    Args:
        recipe: Says how much of each.
        num_classes: Of the data.

    Raises:
        InputError: If pairs are to be mixed and the batch is odd.
    """

    def __init__(self, recipe: Recipe, num_classes: int) -> None:
        self.recipe, self.num_classes = recipe, num_classes
        full = recipe.augment == "full"
        self.mixup: Mixup | None = None
        self.erase: RandomErasing | None = None
        if full and (recipe.mixup or recipe.cutmix):
            if recipe.batch_size % 2:
                raise InputError(
                    f"`batch_size` {recipe.batch_size}: mixing pairs needs an even one"
                )
            self.mixup = Mixup(
                mixup_alpha=recipe.mixup,
                cutmix_alpha=recipe.cutmix,
                label_smoothing=recipe.label_smoothing,
                num_classes=num_classes,
            )
        if full and recipe.erasing:
            self.erase = RandomErasing(recipe.erasing, mode="pixel", device=recipe.device)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) and labels (B,) → images and target probabilities (B, classes)."""
        if self.mixup is not None:
            images, targets = self.mixup(images, labels)
        else:
            smoothing = self.recipe.label_smoothing
            targets = mixup_target(labels, self.num_classes, smoothing=smoothing)
        return images if self.erase is None else self.erase(images), targets
