"""Training the supernet: what a strategy plans for a step is done with the shared weights."""

import logging
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.training.accuracy import SubnetEvaluator
from nas.training.checkpoint import save_checkpoint
from nas.training.distillation import answer_loss, label_loss, map_error, side_by_side
from nas.training.loop import CHECKPOINT_SECONDS, autocast, train
from nas.training.ranks import ALONE, Ranks
from nas.training.settings import SupernetTraining
from nas.training.strategies import OUTSIDE, Course, Lesson
from nas.training.teacher import Knowledge, Teacher, trained_teacher
from nas.utilities.interrupt import StopRequest
from supernet import Network, Store, StoreAdamW

logger = logging.getLogger(__name__)

LOOKS = 12
"""How often a training looks at current accuracies."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands.

    Attributes:
        part: What is trained: a `teacher` from outside the space, then the `supernet`.
        step: Steps of the part that are done.
        steps: Steps of the part.
        loss: Of the first lesson of the step.
        accuracies: On some of the search split, by the subnet's role; from the last look.
    """

    part: Literal["teacher", "supernet"]
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
    ranks: Ranks = ALONE,
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
        on_progress: Called after every step, in the first rank.
        loader_workers: Processes that load images.
        checkpoint_seconds: Time between two savings of the state.
        ranks: The processes that train together; each calls this with a store of the same weights.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If the saved state is of other settings or cannot be read, or the loss is no
            longer finite.
    """
    course = Course(constrained=constrained, steps=settings.steps, seed=settings.seed)
    plan, teacher = settings.strategy.outside(settings.steps), None
    _, teachers_state = states(state)
    watched = {
        "largest": course.largest,
        "smallest": course.smallest,
        "random": constrained.sample(random.Random(settings.seed)),
    }
    accuracies: dict[str, float] = {}

    def show_teacher(step: int, loss: float) -> None:
        assert plan is not None
        on_progress(Progress(part="teacher", step=step, steps=plan.steps, loss=loss, accuracies={}))

    def show(step: int, losses: Sequence[float]) -> None:
        nonlocal accuracies
        loss = losses[0]
        if step % max(1, settings.steps // LOOKS) == 0 or step == settings.steps:
            accuracies = {role: monitor.accuracy(a) for role, a in watched.items()}
            told = ", ".join(f"{role} {accuracy:.1%}" for role, accuracy in accuracies.items())
            logger.info("step %d/%d loss %.3f %s", step, settings.steps, loss, told)
        on_progress(
            Progress(
                part="supernet",
                step=step,
                steps=settings.steps,
                loss=loss,
                accuracies=accuracies,
            )
        )

    if plan is not None:
        teacher = trained_teacher(
            space=store.space,
            plan=plan,
            settings=settings,
            data=data,
            device=store.device,
            state=teachers_state,
            stop=stop,
            on_step=show_teacher if ranks.rank == 0 else lambda step, loss: None,
            loader_workers=loader_workers,
            checkpoint_seconds=checkpoint_seconds,
            ranks=ranks,
        )
    learner = SupernetLearner(store, settings, course, teacher=teacher, ranks=ranks)
    identity = settings.model_dump(mode="json", include=set(SupernetTraining.model_fields))
    train(
        learner,
        settings=settings,
        data=data,
        device=store.device,
        state=state,
        identity=identity,
        stop=stop,
        on_step=show if ranks.rank == 0 else lambda step, losses: None,
        loader_workers=loader_workers,
        checkpoint_seconds=checkpoint_seconds,
        ranks=ranks,
    )
    if ranks.rank == 0:
        save_checkpoint(
            checkpoint, step=settings.steps, identity=identity, tensors=store.state_dict()
        )
        for file in states(state):
            file.unlink(missing_ok=True)


def states(state: Path) -> tuple[Path, Path]:
    """The files in which a training keeps its state: that of the supernet, and its teacher's."""
    return state, state.with_name(f"teacher_{state.name}")


@dataclass(frozen=True, kw_only=True)
class SupernetTask:
    """A training of a supernet as it is handed to whichever processes do it.

    Attributes:
        settings: How, and by which strategy.
        constrained: The space and its limits.
        data: Whose train split to use.
        images: To show current accuracies on, uint8 (N, 3, S, S).
        labels: Likewise, int64 (N,).
        device: Where.
        state: Where the state is kept until the end.
        checkpoint: Where the final weights go.
        loader_workers: Processes that load images, of each process that trains.
    """

    settings: SupernetTraining
    constrained: ConstrainedSpace
    data: Data
    images: Tensor
    labels: Tensor
    device: str
    state: Path
    checkpoint: Path
    loader_workers: int = 0

    def new_store(self) -> Store:
        """The weights to begin with."""
        space = self.constrained.space
        return Store(
            space,
            num_classes=self.data.num_classes,
            device=self.device,
            seed=self.settings.seed,
        )

    def train(
        self,
        store: Store,
        *,
        stop: StopRequest,
        on_progress: Callable[[Progress], None],
        ranks: Ranks = ALONE,
    ) -> None:
        """Train such weights; see `train_supernet`."""
        monitor = SubnetEvaluator(
            store,
            self.images,
            self.labels,
            mean=self.data.mean,
            std=self.data.std,
            threads=torch.get_num_threads(),
        )
        train_supernet(
            store,
            settings=self.settings,
            constrained=self.constrained,
            data=self.data,
            state=self.state,
            checkpoint=self.checkpoint,
            monitor=monitor,
            stop=stop,
            on_progress=on_progress,
            loader_workers=self.loader_workers,
            ranks=ranks,
        )


class SupernetLearner:
    """Gives the lessons that a strategy plans; a `nas.training.loop.Learner`.

    Args:
        store: The shared weights.
        settings: How to step them, and the strategy.
        course: What the strategy knows of the training.
        teacher: From outside the space, if the strategy has one; trained.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        store: Store,
        settings: SupernetTraining,
        course: Course,
        *,
        teacher: Teacher | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        # Gradients are views into larger tensors by design.
        warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
        self.store, self.strategy, self.course = store, settings.strategy, course
        self.teacher = teacher
        self.optimizer = StoreAdamW(
            store,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            eps=settings.eps,
            clip_norm=settings.clip_norm,
            most_catching_up=settings.most_catching_up,
            combine=ranks.average,
        )
        self._learning: list[Network] = []
        self._rate = 1.0  # of the step under way

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The loss of each lesson of the step, in the plan's order."""
        self._learning = []
        lessons = self.strategy.plan(self.course, step)
        self._rate = max(lesson.rate for lesson in lessons)
        known: dict[str, Tensor] = {}  # class scores of subnets that teach, by hash
        knowledge = self._of_teacher(images) if self.teacher is not None else None
        for lesson in lessons:
            answers = None
            if lesson.teacher == OUTSIDE:
                assert knowledge is not None
                answers = knowledge.scores
            elif lesson.teacher is not None:
                # Before the pupil: both run in training mode, and write the batch's statistics.
                if lesson.teacher.hash not in known:
                    with torch.no_grad(), autocast(self.store.device):
                        taught = self.store.subnet(lesson.teacher).train()(images)
                    known[lesson.teacher.hash] = taught.float()
                answers = known[lesson.teacher.hash]
            network = self.store.subnet(lesson.subnet).train()
            self._learning.append(network)
            errors = []
            with autocast(self.store.device):
                if lesson.side_by_side:
                    assert knowledge is not None
                    scores, maps = side_by_side(network, images, knowledge.maps)
                    errors = [map_error(*pair) for pair in zip(maps, knowledge.maps, strict=True)]
                else:
                    scores = network(images)
            scores = scores.float()
            if lesson.teacher is None:
                known[lesson.subnet.hash] = scores.detach()
            loss = lesson_loss(lesson, scores, labels, answers)
            yield loss + torch.stack(errors).mean() if errors else loss

    def update(self, *, lr: float) -> None:
        """Step what the lessons used."""
        self.optimizer.step(self._learning, lr=self._rate * lr)

    def state_dict(self) -> dict[str, Tensor]:
        """Shared weights and moments by name."""
        weights = {f"weights.{name}": tensor for name, tensor in self.store.state_dict().items()}
        moments = self.optimizer.state_dict().items()
        return weights | {f"optimizer.{name}": tensor for name, tensor in moments}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite weights and moments in place."""
        self.store.load_state_dict(_part(state, "weights."))
        self.optimizer.load_state_dict(_part(state, "optimizer."))

    def _of_teacher(self, images: Tensor) -> Knowledge:
        """What the teacher from outside knows of the images."""
        assert self.teacher is not None
        with torch.no_grad(), autocast(self.store.device):
            scores, maps = self.teacher(images)
        return Knowledge(scores.float(), maps)


def lesson_loss(lesson: Lesson, scores: Tensor, labels: Tensor, answers: Tensor | None) -> Tensor:
    """The weighted sum of a lesson's terms on class scores.

    Args:
        lesson: Says the weights.
        scores: Of the subnet that learns, (B, classes).
        labels: (B,).
        answers: Its teacher's class scores, if it has one.
    """
    terms = []
    if lesson.labels:
        terms.append(lesson.labels * label_loss(scores, labels))
    if lesson.answers:
        assert answers is not None
        terms.append(lesson.answers * answer_loss(scores, answers))
    return torch.stack(terms).sum()


def _part(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in state.items()
        if name.startswith(prefix)
    }
