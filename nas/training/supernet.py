"""Training the supernet: what a strategy plans for a step is done with the shared weights."""

import logging
import math
import random
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.training.accuracy import SubnetEvaluator
from nas.training.checkpoint import save_checkpoint
from nas.training.distillation import (
    ANSWERS,
    TOKENS,
    answer_loss,
    label_loss,
    map_error,
    side_by_side,
    token_loss,
)
from nas.training.given_teacher import Ask, GivenTeacher
from nas.training.loop import CHECKPOINT_SECONDS, Session, autocast, check_gradient, train
from nas.training.ranks import ALONE, Ranks
from nas.training.settings import SupernetTraining
from nas.training.strategies import GIVEN, OUTSIDE, Course, Lesson
from nas.training.teacher import Knowledge, Teacher, trained_teacher
from nas.utilities.errors import Diverged
from nas.utilities.interrupt import StopRequest
from search_space import Architecture
from supernet import Network, Store, StoreAdamW

logger = logging.getLogger(__name__)

LOOKS = 12
"""How often a training looks at current accuracies."""

WATCHED = ("largest", "smallest", "random")
"""The roles of the subnets that it looks at."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where the training stands.

    Attributes:
        part: What is trained: a `teacher` from outside the space, then the `supernet`.
        step: Steps of the part that are done.
        steps: Steps of the part.
        loss: Of the first lesson of the step.
        accuracies: On some of the search split, by the subnet's role; empty but after the steps
            that are looked at.
    """

    part: Literal["teacher", "supernet"]
    step: int
    steps: int
    loss: float
    accuracies: Mapping[str, float]


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
        init: The network of a member of the space, whose weights the store begins with.
        teacher: Which the user gave: it teaches whole subnets, whatever the strategy.
        loader_workers: Processes that load images, of each process that trains.
        checkpoint_seconds: Time between two savings of the state.
    """

    settings: SupernetTraining
    constrained: ConstrainedSpace
    data: Data
    images: Tensor
    labels: Tensor
    device: str
    state: Path
    checkpoint: Path
    init: Network | None = None
    teacher: GivenTeacher | None = None
    loader_workers: int = 0
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def new_store(self) -> Store:
        """The weights to begin with; not drawn where those of a saved state take their place."""
        store = Store(
            self.constrained.space,
            num_classes=self.data.num_classes,
            device=self.device,
            seed=self.settings.seed,
            draw=not self.state.exists(),
        )
        if self.init is not None:
            store.begin_with(self.init)
        return store

    def train(
        self,
        store: Store,
        *,
        stop: StopRequest,
        on_progress: Callable[[Progress], None],
        ranks: Ranks = ALONE,
    ) -> None:
        """Train a store to the end, from the last saved state if there is one.

        In the end the final weights are saved, and the state is removed.

        Args:
            store: The weights to train.
            stop: Looked at after every step.
            on_progress: Called after every step, in the first rank.
            ranks: The processes that train together; each calls this with a store of the same
                weights.

        Raises:
            Interrupted: If a stop was requested; the state was saved.
            InputError: If the saved state is of other settings or cannot be read, or the loss is
                no longer finite.
        """
        settings = self.settings
        session = Session(
            data=self.data,
            device=store.device,
            stop=stop,
            loader_workers=self.loader_workers,
            checkpoint_seconds=self.checkpoint_seconds,
            ranks=ranks,
        )
        course = Course(constrained=self.constrained, steps=settings.steps, seed=settings.seed)
        monitor = _Monitor(self, store, course)
        teacher = self._trained_teacher(session, on_progress)
        given = self.teacher.asker(self.data, store.device) if self.teacher else None
        learner = SupernetLearner(
            store, settings, course, teacher=teacher, given=given, ranks=ranks
        )
        identity = settings.model_dump(mode="json", include=set(SupernetTraining.model_fields))

        def show(step: int, losses: Sequence[float]) -> None:
            on_progress(
                Progress(
                    part="supernet",
                    step=step,
                    steps=settings.steps,
                    loss=losses[0],
                    accuracies=monitor.accuracies(step, losses[0]),
                )
            )

        train(
            learner, session, settings=settings, state=self.state, identity=identity, on_step=show
        )
        if ranks.rank == 0:
            save_checkpoint(
                self.checkpoint,
                step=settings.steps,
                identity=identity,
                tensors=store.state_dict(),
            )
            for file in states(self.state):
                file.unlink(missing_ok=True)

    def _trained_teacher(
        self, session: Session, on_progress: Callable[[Progress], None]
    ) -> Teacher | None:
        """The teacher from outside the space, if the strategy plans one."""
        plan = self.settings.strategy.outside(self.settings.steps)
        if plan is None:
            return None

        def show(step: int, loss: float) -> None:
            on_progress(
                Progress(part="teacher", step=step, steps=plan.steps, loss=loss, accuracies={})
            )

        _, state = states(self.state)
        return trained_teacher(
            self.constrained.space,
            plan,
            session,
            settings=self.settings,
            state=state,
            on_step=show,
        )


class _Monitor:
    """Looks at the accuracies of three subnets now and then while they are trained.

    Args:
        task: The training.
        store: Its weights.
        course: Says the steps, and the largest and the smallest subnet.
    """

    def __init__(self, task: SupernetTask, store: Store, course: Course) -> None:
        self.evaluator = SubnetEvaluator(
            store,
            task.images,
            task.labels,
            mean=task.data.mean,
            std=task.data.std,
            threads=torch.get_num_threads(),
        )
        random_one = course.constrained.sample(random.Random(course.seed))
        subnets = (course.largest, course.smallest, random_one)
        self.watched = dict(zip(WATCHED, subnets, strict=True))
        self.steps = course.steps

    def accuracies(self, step: int, loss: float) -> Mapping[str, float]:
        """By the subnet's role, and logged, if a look is due; else empty.

        Of one whose class scores are not finite it is not a number; training may mend that.

        Args:
            step: Steps done.
            loss: Of the last one, for the log.
        """
        if step % max(1, self.steps // LOOKS) and step < self.steps:
            return {}
        seen = {role: self._accuracy(subnet) for role, subnet in self.watched.items()}
        told = ", ".join(f"{role} {accuracy:.1%}" for role, accuracy in seen.items())
        logger.info("step %d/%d loss %.3f %s", step, self.steps, loss, told)
        return seen

    def _accuracy(self, subnet: Architecture) -> float:
        try:
            return self.evaluator.fit(subnet).accuracy
        except Diverged:
            return math.nan


class SupernetLearner:
    """Gives the lessons that a strategy plans; a `nas.training.loop.Learner`.

    Args:
        store: The shared weights.
        settings: How to step them, and the strategy.
        course: What the strategy knows of the training.
        teacher: From outside the space, if the strategy has one; trained.
        given: The teacher that the user gave, if there is one.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        store: Store,
        settings: SupernetTraining,
        course: Course,
        *,
        teacher: Teacher | None = None,
        given: Ask | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        # Gradients are views into larger tensors by design.
        warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
        self.store, self.strategy, self.course = store, settings.strategy, course
        self.teacher, self.given = teacher, given
        self.token_labels = settings.token_labels
        self.optimizer = StoreAdamW(
            store,
            weight_decay=settings.weight_decay,
            betas=settings.betas,
            eps=settings.eps,
            clip_norm=settings.clip_norm,
            most_catching_up=settings.most_catching_up,
            combine=ranks.average,
        )
        self._restarts = self.strategy.restarts(course.steps)
        self._learning: list[Network] = []
        self._rate = 1.0  # of the step under way

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        """The loss of each lesson of the step, in the plan's order."""
        self._learning = []
        if step in self._restarts:
            self.optimizer.restart()
        lessons = self.strategy.plan(self.course, step)
        if self.given is not None:
            lessons = [by_given_teacher(lesson, tokens=self.token_labels) for lesson in lessons]
        self._rate = max(lesson.rate for lesson in lessons)
        known: dict[str, Tensor] = {}  # class scores of subnets that teach, by hash
        teachers = {lesson.teacher for lesson in lessons}
        knowledge = self._of_teacher(images) if OUTSIDE in teachers else None
        given = self.given(images) if self.given is not None and GIVEN in teachers else None
        for lesson in lessons:
            answers = places = None
            if lesson.teacher == OUTSIDE:
                assert knowledge is not None
                answers = knowledge.scores
            elif lesson.teacher == GIVEN:
                assert given is not None
                answers, places = given
            elif lesson.teacher is not None:
                # Before the pupil: both run in training mode, and write the batch's statistics.
                if lesson.teacher.hash not in known:
                    with torch.no_grad(), autocast(self.store.device):
                        taught = self.store.subnet(lesson.teacher).train()(images)
                    known[lesson.teacher.hash] = taught.float()
                answers = known[lesson.teacher.hash]
            network = self.store.subnet(lesson.subnet).train()
            self._learning.append(network)
            errors, seen = [], None
            with autocast(self.store.device):
                if lesson.side_by_side:
                    assert knowledge is not None
                    scores, maps = side_by_side(network, images, knowledge.maps)
                    errors = [map_error(*pair) for pair in zip(maps, knowledge.maps, strict=True)]
                else:
                    last = network.forward_features(images)
                    scores = network.forward_head(last)
                    seen = network.head(last) if lesson.tokens else None
            scores = scores.float()
            if lesson.teacher is None:
                known[lesson.subnet.hash] = scores.detach()
            loss = lesson_loss(lesson, scores, labels, answers)
            if seen is not None:
                assert places is not None
                loss = loss + lesson.tokens * token_loss(seen.float(), places)
            yield loss + torch.stack(errors).mean() if errors else loss

    def update(self, *, lr: float) -> None:
        """Step what the lessons used.

        Raises:
            Diverged: If the gradient is not finite; the weights are those before.
        """
        check_gradient(self.optimizer.step(self._learning, lr=self._rate * lr), lr)

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


def by_given_teacher(lesson: Lesson, *, tokens: bool) -> Lesson:
    """A lesson where the user gave a teacher, whose answers take the place of another's.

    A lesson of labels alone gets them beside the labels. One side by side stays as it is: its head
    reads the other teacher's map.

    Args:
        lesson: As the strategy planned it.
        tokens: Whether the subnet is to learn from token labels, too.
    """
    if lesson.side_by_side:
        return lesson
    lesson = replace(lesson, teacher=GIVEN, tokens=TOKENS if tokens else 0.0)
    if lesson.answers:
        return lesson
    labels = lesson.labels
    return replace(lesson, labels=(1 - ANSWERS) * labels, answers=ANSWERS * labels)


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
