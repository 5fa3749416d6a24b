"""Training the supernet: what a strategy plans for a step is done with the shared weights."""

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.training.accuracy import SubnetEvaluator
from nas.training.checkpoint import save_checkpoint
from nas.training.distillation import Outputs, answer_loss, label_loss, stage_errors
from nas.training.loop import CHECKPOINT_SECONDS, autocast, train
from nas.training.settings import SupernetTraining
from nas.training.strategies import Course, Lesson, StageLesson
from nas.utilities.interrupt import StopRequest
from search_space import Architecture
from supernet import Network, Store, StoreAdamW

logger = logging.getLogger(__name__)

LOOKS = 12
"""How often a training looks at current accuracies."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands.

    Attributes:
        step: Steps done.
        steps: Steps to do.
        loss: Of the last subnet that learned from labels alone, in this process; NaN before that.
        accuracies: On some of the search split, by the subnet's role; from the last look.
    """

    step: int
    steps: int
    loss: float
    accuracies: Mapping[str, float]


def train_supernet(
    store: Store,
    *,
    settings: SupernetTraining,
    constrained: ConstrainedSpace,
    data: Data,
    state: Path,
    checkpoint: Path,
    monitor: SubnetEvaluator,
    stop: StopRequest,
    on_progress: Callable[[Progress], None],
    loader_workers: int = 0,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
) -> None:
    """Train the store to the end, from the last saved state if there is one.

    Args:
        store: The weights to train.
        settings: How, and by which strategy.
        constrained: The space and its limits.
        data: Whose train split to use.
        state: Where the state is kept until the end: weights, moments and step.
        checkpoint: Where the final weights go; its presence says that training is done.
        monitor: Shows current accuracies; it shares the store.
        stop: Looked at after every step.
        on_progress: Called after every step.
        loader_workers: Processes that load images.
        checkpoint_seconds: Time between two savings of the state.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the saved state is of other settings or cannot be read, or the loss is no
            longer finite.
    """
    course = Course(constrained=constrained, steps=settings.steps, seed=settings.seed)
    learner = SupernetLearner(store, settings, course)
    watched = {
        "largest": course.largest,
        "smallest": course.smallest,
        "random": constrained.sample(random.Random(settings.seed)),
    }
    accuracies: dict[str, float] = {}
    loss = math.nan

    def show(step: int, losses: Sequence[float]) -> None:
        nonlocal accuracies, loss
        for lesson, value in zip(learner.lessons, losses, strict=True):
            if isinstance(lesson, Lesson) and lesson.teacher is None:
                loss = value
        if step % max(1, settings.steps // LOOKS) == 0 or step == settings.steps:
            accuracies = {role: monitor.accuracy(a) for role, a in watched.items()}
            told = ", ".join(f"{role} {accuracy:.1%}" for role, accuracy in accuracies.items())
            logger.info("step %d/%d loss %.3f %s", step, settings.steps, loss, told)
        on_progress(Progress(step=step, steps=settings.steps, loss=loss, accuracies=accuracies))

    identity = settings.model_dump(mode="json", include=set(SupernetTraining.model_fields))
    train(
        learner,
        settings=settings,
        data=data,
        device=store.device,
        state=state,
        identity=identity,
        stop=stop,
        on_step=show,
        loader_workers=loader_workers,
        checkpoint_seconds=checkpoint_seconds,
    )
    save_checkpoint(
        checkpoint, step=settings.steps, identity=identity, tensors=store.state_of_space()
    )
    state.unlink(missing_ok=True)


class SupernetLearner:
    """Gives the lessons that a strategy plans; a `nas.training.loop.Learner`.

    Args:
        store: The shared weights.
        settings: How to step them, and the strategy.
        course: What the strategy knows of the training.
    """

    def __init__(self, store: Store, settings: SupernetTraining, course: Course) -> None:
        # Gradients are views into larger tensors by design.
        warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
        self.store, self.strategy, self.course = store, settings.strategy, course
        self.optimizer = StoreAdamW(
            store,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            eps=settings.eps,
            clip_norm=settings.clip_norm,
            most_catching_up=settings.most_catching_up,
        )
        self.lessons: list[Lesson | StageLesson] = []  # of the losses of the last step
        self._learning: list[Network] = []
        self._beside: list[tuple[str, Tensor]] = []

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The loss of each lesson of the step, in the plan's order."""
        self.lessons = []
        self._learning, self._beside = [], []
        known: dict[str, Outputs] = {}  # of teachers, by hash

        def taught_by(teacher: Architecture) -> Outputs:
            if teacher.hash not in known:
                with torch.no_grad():
                    known[teacher.hash] = self._outputs(self.store.subnet(teacher), images)
            return known[teacher.hash]

        for lesson in self.strategy.plan(self.course, step):
            # The teacher first: both run in training mode, and write the statistics of the batch.
            teacher = taught_by(lesson.teacher) if lesson.teacher is not None else None
            network = self.store.subnet(lesson.subnet)
            if isinstance(lesson, StageLesson):
                assert teacher is not None
                self._beside += network.stage_parameters()
                self.lessons.append(lesson)
                yield stage_errors(network.train(), teacher.maps)
                continue
            self._learning.append(network)
            outputs = self._outputs(network, images)
            if teacher is None:
                known[lesson.subnet.hash] = outputs.detached()
            self.lessons.append(lesson)
            yield lesson_loss(lesson, outputs, labels, teacher)

    def update(self, *, lr: float) -> None:
        """Step what the lessons used."""
        self.optimizer.step(self._learning, lr=lr, beside=self._beside)

    def state_dict(self) -> dict[str, Tensor]:
        """Shared weights and moments by name."""
        weights = {f"weights.{name}": tensor for name, tensor in self.store.state_dict().items()}
        moments = self.optimizer.state_dict().items()
        return weights | {f"optimizer.{name}": tensor for name, tensor in moments}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite weights and moments in place."""
        self.store.load_state_dict(_part(state, "weights."))
        self.optimizer.load_state_dict(_part(state, "optimizer."))

    def _outputs(self, network: Network, images: Tensor) -> Outputs:
        """What a network gives, in training mode."""
        with autocast(self.store.device):
            scores, maps = network.train().forward_with_maps(images)
        return Outputs(scores.float(), maps)


def lesson_loss(
    lesson: Lesson, outputs: Outputs, labels: Tensor, teacher: Outputs | None
) -> Tensor:
    """The weighted sum of a lesson's loss terms.

    Args:
        lesson: Says the weights.
        outputs: Of the subnet that learns.
        labels: (B,).
        teacher: What its teacher gave for the same images, if it has one.
    """
    terms = []
    if lesson.labels:
        terms.append(lesson.labels * label_loss(outputs.scores, labels))
    if lesson.answers:
        assert teacher is not None
        terms.append(lesson.answers * answer_loss(outputs.scores, teacher.scores))
    return torch.stack(terms).sum()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
