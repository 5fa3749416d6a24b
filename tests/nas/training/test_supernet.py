"""Training the shared weights: what a step learns from, and resuming under every strategy."""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import NANO, constrained_nano, small_config
from torch import Tensor

from nas.data import Data, Samples, load_data, materialise, normalise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.training.accuracy import Fit, SubnetEvaluator
from nas.training.checkpoint import load_checkpoint
from nas.training.distillation import token_loss
from nas.training.given_teacher import Answers
from nas.training.loop import autocast
from nas.training.settings import SupernetTraining
from nas.training.strategies import (
    GIVEN,
    OUTSIDE,
    STRATEGIES,
    Blockwise,
    Course,
    Lesson,
    Sandwich,
    SinglePath,
    Strategy,
)
from nas.training.supernet import (
    Progress,
    SupernetLearner,
    SupernetTask,
    by_given_teacher,
    lesson_loss,
    states,
)
from nas.training.teacher import Knowledge, Teacher
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import PRESETS, Architecture, SearchSpace
from supernet import Network, Store

BUDGET = 200_000_000
CONSTRAINED = constrained_nano(macs=BUDGET)
"""It keeps what it has found of the space."""
STATE, CHECKPOINT = "state.safetensors", "checkpoint.safetensors"


QUARTER = Blockwise(
    teacher=0.5, teacher_rate=2.0, stages=0.4, stages_rate=1.5, labels=0.5, answers=0.25
)
"""The default strategy, its parts at these shares whatever the defaults are."""


class Crash(Exception):
    """Stands for SIGKILL: training has no chance to save."""


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


def small_training(**changes: Any) -> SupernetTraining:
    """A training that takes a second."""
    values: dict[str, Any] = {"steps": 6, "batch_size": 8, "strategy": QUARTER}
    return SupernetTraining(**values | changes)


def fresh_store() -> Store:
    """Weights of nano to begin with."""
    return Store(NANO, num_classes=10, seed=0)


def train(
    path: Path,
    data: Data,
    *,
    stop_after: int | None = None,
    crash_after: int | None = None,
    part: str = "supernet",
    disturb: bool = False,
    store: Store | None = None,
    settings: SupernetTraining | None = None,
    checkpoint_seconds: float = math.inf,
) -> tuple[Store, list[Progress]]:
    """Train as a process does that is interrupted or killed after a step of a part, or neither."""
    images, labels = materialise(data.search, limit=20, seed=0)
    task = SupernetTask(
        settings=settings or small_training(),
        constrained=CONSTRAINED,
        data=data,
        images=images,
        labels=labels,
        device="cpu",
        state=path / STATE,
        checkpoint=path / CHECKPOINT,
        checkpoint_seconds=checkpoint_seconds,
    )
    store = store or task.new_store()
    stop = StopRequest()
    shown: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        shown.append(progress)
        of_part = progress.step if progress.part == part else None
        stop.requested = of_part is not None and of_part == stop_after
        if of_part is not None and of_part == crash_after:
            raise Crash
        if disturb:  # a process that draws from every generator for its own ends
            torch.rand(3), np.random.rand(3), random.random()

    task.train(store, stop=stop, on_progress=on_progress)
    return store, shown


def interrupted_after(step: int, path: Path, data: Data, **others: Any) -> Path:
    """Train up to a step that saves weights and moments; the file that holds them."""
    with pytest.raises(Interrupted):
        train(path, data, stop_after=step, **others)
    return path / STATE


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The final weights of a training that nothing disturbed."""
    path = tmp_path_factory.mktemp("uninterrupted")
    train(path, digits)
    return load_file(path / CHECKPOINT)


# What a step learns from.


def learner_of(strategy: Strategy, *, steps: int = 9, space: SearchSpace = NANO) -> SupernetLearner:
    """A learner with weights far from an initialisation, where every loss term has a gradient."""
    settings = small_training(steps=steps, strategy=strategy)
    store = Store(space, num_classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    for tensor in store.parameters.values():
        if tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    constrained = CONSTRAINED
    if space != NANO:
        constrained = ConstrainedSpace(space=space, limits=Limits(), image_size=224, num_classes=10)
    course = Course(constrained=constrained, steps=steps, seed=0)
    teacher = None
    if strategy.outside(steps) is not None:
        torch.manual_seed(0)
        teacher = Teacher(space, num_classes=10).requires_grad_(False).eval()
    return SupernetLearner(store, settings, course, teacher=teacher)


def lessons(learner: SupernetLearner, step: int) -> Sequence[Lesson]:
    return learner.strategy.plan(learner.course, step)


@pytest.fixture(scope="module")
def batch(digits: Data) -> tuple[Tensor, Tensor]:
    images, labels = materialise(digits.search, limit=8, seed=0)
    return normalise(images, digits.mean, digits.std), labels


def gradients(
    learner: SupernetLearner, step: int, batch: tuple[Tensor, Tensor]
) -> dict[str, Tensor]:
    """The gradients of the store after a step's losses."""
    for loss in learner.losses(step, *batch):
        loss.backward()
    return {name: gradient.clone() for name, gradient in learner.store.gradients.items()}


class Expected:
    """Gradients by networks that stand alone, with every loss written out by hand."""

    def __init__(self, learner: SupernetLearner, batch: tuple[Tensor, Tensor]) -> None:
        self.store, self.teacher = learner.store, learner.teacher
        self.images, self.labels = batch
        self.gradients = {name: torch.zeros_like(t) for name, t in self.store.parameters.items()}

    def of_teacher(self) -> Knowledge:
        assert self.teacher is not None
        with torch.no_grad(), autocast(torch.device("cpu")):
            return self.teacher(self.images)

    def add(
        self,
        subnet: Architecture,
        teacher: Architecture | None = None,
        *,
        answering: Tensor | None = None,
        labels: float = 0.0,
        answers: float = 0.0,
    ) -> None:
        """What a whole subnet learns, from a member's answers or from given ones."""
        network = self.store.extract(subnet)
        if teacher is not None:
            with torch.no_grad():
                answering = self._scores(self.store.extract(teacher))
        self._learn(network, self._loss(self._scores(network), answering, labels, answers))

    def add_side_by_side(self, subnet: Architecture, *, labels: float, answers: float) -> None:
        """What each stage of a subnet learns behind the teacher's map before it, and the head."""
        their_scores, theirs = self.of_teacher()
        network = self.store.extract(subnet).train()
        widths = [stage.width for stage in subnet.stages]
        errors = []
        with autocast(torch.device("cpu")):
            given = network.stem(self.images)
            for stage, wanted, width in zip(network.stages, theirs, widths, strict=True):
                mine, seen = stage(given).float(), wanted[..., :width].float()
                spread = seen.flatten(1).var(dim=1)
                errors.append(((mine - seen).square().mean(dim=(1, 2, 3)) / spread).mean())
                given = wanted[..., :width]
            scores = network.head(given.mean(dim=(1, 2))).float()
        loss = self._loss(scores, their_scores.float(), labels, answers)
        self._learn(network, loss + torch.stack(errors).mean())

    def _scores(self, network: Network) -> Tensor:
        with autocast(torch.device("cpu")):
            scores: Tensor = network.train()(self.images)
        return scores.float()

    def _loss(
        self, scores: Tensor, answering: Tensor | None, labels: float, answers: float
    ) -> Tensor:
        surprise = -scores.log_softmax(dim=1)
        loss = labels * surprise[torch.arange(8), self.labels].mean()
        if answering is not None:
            theirs = answering.float().softmax(dim=1)
            loss = loss + answers * (theirs * surprise).sum(dim=1).mean()
        return loss

    def _learn(self, network: Network, loss: Tensor) -> None:
        loss.backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            self.gradients[name][tuple(map(slice, parameter.shape))] += parameter.grad


def differ(one: dict[str, Tensor], other: dict[str, Tensor], *, least: float = 1e-4) -> bool:
    """Whether tensors differ by a larger share of their squares, by default that of bf16."""
    distance = sum(float((one[name] - other[name]).square().sum()) for name in one)
    size = sum(float(tensor.square().sum()) for tensor in one.values())
    return distance > least * size


OF_STAGES, OF_WHOLE = (0, 1, 2, 3), (4, 5, 6, 7, 8)
"""Which of nine steps of the blockwise strategy are side by side, and which are of the whole."""


def test_nine_steps_of_blockwise_are_of_both_kinds_and_of_narrow_subnets() -> None:
    learner, narrower = learner_of(QUARTER), False
    for step in range(9):
        (lesson,) = lessons(learner, step)
        assert lesson.side_by_side == (step in OF_STAGES)
        widths = [stage.width for stage in lesson.subnet.stages]
        narrower |= step in OF_STAGES and widths != [max(stage.width) for stage in NANO.stages]
    assert narrower


@pytest.mark.parametrize("step", OF_STAGES[:2])
def test_a_step_side_by_side_learns_from_the_maps_of_the_teacher(
    batch: tuple[Tensor, Tensor], step: int
) -> None:
    learner = learner_of(QUARTER)
    (lesson,) = lessons(learner, step)
    found = gradients(learner, step, batch)
    expected = Expected(learner, batch)
    expected.add_side_by_side(lesson.subnet, labels=0.5, answers=0.25)
    assert not differ(expected.gradients, found)


@pytest.fixture(scope="module")
def large_batch() -> tuple[Tensor, Tensor]:
    """Images of whose maps even the coarsest keys are several: queries learn, too."""
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return images, torch.arange(8)


def all_learns(learner: SupernetLearner, step: int, batch: tuple[Tensor, Tensor]) -> bool:
    """Whether every parameter of the step's subnets has a gradient, which is then zeroed."""
    found = gradients(learner, step, batch)
    learner.update(lr=1e-3)
    return all(
        found[name].any()
        for lesson in lessons(learner, step)
        for name, _ in learner.store.subnet(lesson.subnet).named_parameters()
    )


@pytest.mark.parametrize("step", [*OF_STAGES[:2], OF_WHOLE[0]])
def test_stem_stages_and_head_of_a_subnet_all_learn(
    large_batch: tuple[Tensor, Tensor], step: int
) -> None:
    assert all_learns(learner_of(QUARTER), step, large_batch)


def test_side_by_side_no_stage_learns_from_the_weights_of_another(
    batch: tuple[Tensor, Tensor],
) -> None:
    before = gradients(learner_of(QUARTER), 0, batch)
    parts = ("stem.", "stages.0.", "stages.1.", "stages.2.", "head.")
    for changed in parts:
        learner = learner_of(QUARTER)
        for name, tensor in learner.store.parameters.items():
            if name.startswith(changed):
                tensor.mul_(1.5)
        after = gradients(learner, 0, batch)
        # The stem alone has no target of its own: it learns with the first stage, which reads it.
        joined = ("stem.", "stages.0.") if changed in ("stem.", "stages.0.") else (changed,)
        for part in parts:
            of_part = [name for name in before if name.startswith(part)]
            both = ({name: some[name] for name in of_part} for some in (before, after))
            assert same(*both) == (part not in joined), (changed, part)


def test_moments_are_forgotten_where_lessons_of_another_kind_begin(
    batch: tuple[Tensor, Tensor],
) -> None:
    learner = learner_of(QUARTER)
    (begin,) = QUARTER.restarts(9)
    counts = []
    for step in range(begin + 2):
        for loss in learner.losses(step, *batch):
            loss.backward()
        learner.update(lr=1e-4)
        counts.append(max(float(steps) for steps in learner.optimizer.steps.values()))
    assert counts == [*range(1, begin + 1), 1, 2]


@pytest.mark.parametrize("step", OF_WHOLE[:2])
def test_a_step_of_blockwise_with_a_whole_subnet_learns_from_labels_and_answers(
    batch: tuple[Tensor, Tensor], step: int
) -> None:
    learner = learner_of(QUARTER)
    (lesson,) = lessons(learner, step)
    found = gradients(learner, step, batch)
    expected = Expected(learner, batch)
    answering = expected.of_teacher().scores
    expected.add(lesson.subnet, answering=answering, labels=0.5, answers=0.25)
    assert not differ(expected.gradients, found)


def test_the_teacher_from_outside_learns_nothing_from_lessons(batch: tuple[Tensor, Tensor]) -> None:
    learner = learner_of(QUARTER)
    assert learner.teacher is not None
    before = {name: tensor.clone() for name, tensor in learner.teacher.state_dict().items()}
    for step in (OF_STAGES[0], OF_WHOLE[0]):
        gradients(learner, step, batch)
        learner.update(lr=1e-3)
    assert same(before, learner.teacher.state_dict())
    assert all(parameter.grad is None for parameter in learner.teacher.parameters())


def test_the_rate_of_a_lesson_is_a_factor_of_the_learning_rate(
    batch: tuple[Tensor, Tensor],
) -> None:
    moved = []
    for rate, lr in ((1.0, 3e-4), (3.0, 1e-4), (1.0, 1e-4)):
        learner = learner_of(QUARTER.model_copy(update={"stages_rate": rate}))
        gradients(learner, OF_STAGES[0], batch)
        learner.update(lr=lr)
        moved.append({name: t.clone() for name, t in learner.store.parameters.items()})
    assert differ(moved[0], moved[2], least=0)
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-6, atol=1e-8)


def test_of_several_lessons_of_a_step_the_largest_rate_counts(batch: tuple[Tensor, Tensor]) -> None:
    class Two(Strategy):
        name: str = "two"
        rates: tuple[float, float]

        def plan(self, course: Course, step: int) -> Sequence[Lesson]:
            some = (course.smallest, course.largest)
            return [Lesson(subnet=s, rate=r) for s, r in zip(some, self.rates, strict=True)]

    ends = []
    for rates in ((1.0, 3.0), (3.0, 1.0), (3.0, 3.0), (1.0, 1.0)):
        learner = learner_of(SinglePath())
        learner.strategy = Two(rates=rates)
        gradients(learner, 0, batch)
        learner.update(lr=1e-3)
        ends.append({name: tensor.clone() for name, tensor in learner.store.parameters.items()})
    assert same(ends[0], ends[1])
    assert same(ends[0], ends[2])
    assert not same(ends[0], ends[3])


def test_the_loss_of_a_lesson_is_the_weighted_sum_of_its_terms() -> None:
    scores = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    labels, answers = torch.tensor([0, 0]), torch.tensor([[0.0, 3.0], [1.0, 0.0]])
    surprise = -scores.log_softmax(dim=1)
    by_labels = surprise[:, 0].mean()
    by_answers = (answers.softmax(dim=1) * surprise).sum(dim=1).mean()
    subnet = NANO.scaled(0.0)
    for one, other in ((0.5, 0.25), (2.0, 0.0), (0.0, 0.75)):
        lesson = Lesson(subnet=subnet, teacher=OUTSIDE, labels=one, answers=other)
        torch.testing.assert_close(
            lesson_loss(lesson, scores, labels, answers), one * by_labels + other * by_answers
        )
    alone = lesson_loss(Lesson(subnet=subnet, labels=0.5), scores, labels, None)
    torch.testing.assert_close(alone, 0.5 * by_labels)


# A teacher that the user gave.

PLACES = torch.randn(8, 10, 4, 4, generator=torch.Generator().manual_seed(4))
ANSWERS = PLACES.mean(dim=(2, 3))


def with_given_teacher(strategy: Strategy, *, token_labels: bool = False) -> SupernetLearner:
    """A learner whose given teacher always answers the same."""
    learner = learner_of(strategy)
    learner.token_labels = token_labels
    learner.given = lambda images: Answers(ANSWERS, PLACES)
    return learner


def test_lessons_get_the_given_teachers_answers_for_anothers_or_beside_labels_alone() -> None:
    subnet, largest = NANO.scaled(0.0), NANO.scaled(1.0)
    alone = by_given_teacher(Lesson(subnet=subnet, labels=2.0), tokens=False)
    assert alone == Lesson(subnet=subnet, teacher=GIVEN, labels=1.0, answers=1.0)
    in_place = Lesson(subnet=subnet, teacher=largest, labels=0.0, answers=1.0)
    assert by_given_teacher(in_place, tokens=False) == replace(in_place, teacher=GIVEN)
    outside = Lesson(subnet=subnet, teacher=OUTSIDE, labels=0.5, answers=0.5, rate=0.3)
    taught = by_given_teacher(outside, tokens=True)
    assert taught == replace(outside, teacher=GIVEN, tokens=0.5)
    by_stage = replace(outside, side_by_side=True)
    assert by_given_teacher(by_stage, tokens=True) == by_stage


def test_with_a_given_teacher_stages_learn_what_they_learned_without(
    batch: tuple[Tensor, Tensor],
) -> None:
    step = OF_STAGES[0]
    found = gradients(with_given_teacher(QUARTER, token_labels=True), step, batch)
    assert same(found, gradients(learner_of(QUARTER), step, batch))


@pytest.mark.parametrize(
    ("strategy", "labels", "answers"),
    [(QUARTER, 0.5, 0.25), (SinglePath(), 0.5, 0.5)],
    ids=["blockwise", "single-path"],
)
def test_a_whole_subnet_learns_from_labels_and_the_given_teachers_answers(
    batch: tuple[Tensor, Tensor], strategy: Strategy, labels: float, answers: float
) -> None:
    learner = with_given_teacher(strategy)
    (lesson,) = lessons(learner, OF_WHOLE[0])
    found = gradients(learner, OF_WHOLE[0], batch)
    expected = Expected(learner, batch)
    expected.add(lesson.subnet, answering=ANSWERS, labels=labels, answers=answers)
    assert not differ(expected.gradients, found)


def test_all_subnets_of_the_sandwich_learn_from_the_given_teacher(
    batch: tuple[Tensor, Tensor],
) -> None:
    learner = with_given_teacher(Sandwich())
    largest, *others = [lesson.subnet for lesson in lessons(learner, 4)]
    found = gradients(learner, 4, batch)
    expected = Expected(learner, batch)
    expected.add(largest, answering=ANSWERS, labels=0.5, answers=0.5)
    for subnet in others:
        expected.add(subnet, answering=ANSWERS, answers=1.0)
    assert not differ(expected.gradients, found)


def test_token_labels_add_half_of_the_loss_of_places(batch: tuple[Tensor, Tensor]) -> None:
    found = []
    for token_labels in (False, True):
        learner = with_given_teacher(QUARTER, token_labels=token_labels)
        (loss,) = learner.losses(OF_WHOLE[0], *batch)
        found.append(float(loss.detach()))
    (lesson,) = lessons(learner, OF_WHOLE[0])
    network = learner.store.extract(lesson.subnet).train()
    with autocast(torch.device("cpu")):
        seen = network.head(network.forward_features(batch[0]))
    expected = float(token_loss(seen.float(), PLACES).detach())
    assert found[1] - found[0] == pytest.approx(0.5 * expected, rel=2e-2)


# Strategies without one.


def test_a_step_of_single_path_learns_from_the_labels(batch: tuple[Tensor, Tensor]) -> None:
    learner = learner_of(SinglePath())
    (lesson,) = lessons(learner, 4)
    found = gradients(learner, 4, batch)
    expected = Expected(learner, batch)
    expected.add(lesson.subnet, labels=1.0)
    assert not differ(expected.gradients, found)


def test_a_step_of_the_sandwich_adds_up_the_gradients_of_all_its_subnets(
    batch: tuple[Tensor, Tensor],
) -> None:
    learner = learner_of(Sandwich())
    found = gradients(learner, 4, batch)
    expected = Expected(learner, batch)
    largest = learner.course.largest
    expected.add(largest, labels=1.0)
    _, *taught = lessons(learner, 4)
    for lesson in taught:
        expected.add(lesson.subnet, largest, answers=1.0)
    assert len(taught) == 3
    assert not differ(expected.gradients, found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "changed"),
    [
        *((QUARTER, {weight: 0.0}) for weight in ("labels", "answers")),
        *((QUARTER, {weight: 0.75}) for weight in ("labels", "answers")),
        (Sandwich(), {"labels": 0.5}),
        (Sandwich(), {"answers": 0.5}),
        (Sandwich(), {"random_subnets": 1}),
    ],
)
def test_each_weight_of_a_loss_term_changes_the_gradients(
    batch: tuple[Tensor, Tensor], strategy: Strategy, changed: dict[str, float]
) -> None:
    other = strategy.model_copy(update=changed)
    step = OF_WHOLE[0]
    before, after = (gradients(learner_of(some), step, batch) for some in (strategy, other))
    assert differ(before, after)


@pytest.mark.parametrize("term", ["labels", "answers"])
def test_each_term_by_itself_is_what_its_paper_says(
    batch: tuple[Tensor, Tensor], term: str
) -> None:
    weights = {"labels": 0.0, "answers": 0.0, term: 0.7}
    learner = learner_of(QUARTER.model_copy(update=weights))
    found = gradients(learner, OF_WHOLE[0], batch)
    (lesson,) = lessons(learner, OF_WHOLE[0])
    expected = Expected(learner, batch)
    answering = expected.of_teacher().scores
    expected.add(lesson.subnet, answering=answering, **{term: 0.7})
    assert any(gradient.any() for gradient in found.values())
    assert not differ(expected.gradients, found)


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        *((QUARTER, steps[0]) for steps in (OF_STAGES, OF_WHOLE)),
        (SinglePath(), 0),
        (Sandwich(), 0),
    ],
    ids=lambda value: value.name if isinstance(value, Strategy) else str(value),
)
def test_what_no_lesson_of_a_step_uses_does_not_move(
    batch: tuple[Tensor, Tensor], strategy: Strategy, step: int
) -> None:
    learner = learner_of(strategy)
    before = {name: tensor.clone() for name, tensor in learner.store.parameters.items()}
    found = gradients(learner, step, batch)
    learner.update(lr=1e-3)
    moved = {n for n, t in learner.store.parameters.items() if not torch.equal(t, before[n])}
    used = {
        name
        for lesson in lessons(learner, step)
        for name, _ in learner.store.subnet(lesson.subnet).named_parameters()
    }
    learned = {name for name, gradient in found.items() if gradient.any()}
    assert learned <= moved <= used < learner.store.parameters.keys()
    assert not any(gradient.any() for gradient in learner.store.gradients.values())


def test_where_nothing_is_pooled_the_one_stage_learns_from_the_teachers(
    large_batch: tuple[Tensor, Tensor],
) -> None:
    learner = learner_of(QUARTER, space=NANO.model_copy(update={"stages": NANO.stages[:1]}))
    for step in (OF_STAGES[0], OF_WHOLE[0]):
        assert all_learns(learner, step, large_batch)


# Checkpoints, and going on from them.


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_training_equals_an_uninterrupted_one_in_weights_and_moments(
    tmp_path: Path, digits: Data, name: str
) -> None:
    strategy = QUARTER if name == QUARTER.name else name
    settings = small_training(strategy=strategy)
    interrupted_after(2, tmp_path / "resumed", digits, settings=settings, disturb=True)
    resumed = interrupted_after(5, tmp_path / "resumed", digits, settings=settings, disturb=True)
    straight = interrupted_after(5, tmp_path / "straight", digits, settings=settings)
    state = load_file(straight)
    assert same(load_file(resumed), state)
    assert any(name.startswith("optimizer.") and tensor.any() for name, tensor in state.items())
    assert any(name.endswith("running_mean") and tensor.any() for name, tensor in state.items())
    for way in ("resumed", "straight"):
        train(tmp_path / way, digits, settings=settings)
    final = [load_file(tmp_path / way / CHECKPOINT) for way in ("resumed", "straight")]
    assert same(*final)


@pytest.mark.slow
def test_training_that_was_stopped_at_its_last_step_only_has_to_be_closed(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    interrupted_after(6, tmp_path, digits)
    assert not (tmp_path / CHECKPOINT).exists()
    _, shown = train(tmp_path, digits)
    assert shown == []
    assert same(load_file(tmp_path / CHECKPOINT), uninterrupted)


@pytest.mark.slow
def test_training_that_was_killed_before_it_saved_begins_again(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4)
    # The teacher is whole, and kept.
    assert list(tmp_path.iterdir()) == [states(tmp_path / STATE)[1]]
    _, shown = train(tmp_path, digits)
    assert [progress.step for progress in shown] == [1, 2, 3, 4, 5, 6]
    assert {progress.part for progress in shown} == {"supernet"}
    assert same(load_file(tmp_path / CHECKPOINT), uninterrupted)


@pytest.mark.slow
def test_training_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4, checkpoint_seconds=-1.0)
    _, shown = train(tmp_path, digits)
    assert [progress.step for progress in shown] == [4, 5, 6]
    assert same(load_file(tmp_path / CHECKPOINT), uninterrupted)


def test_a_finished_training_leaves_its_checkpoint_and_nothing_else(
    tmp_path: Path, digits: Data
) -> None:
    store, shown = train(tmp_path, digits)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT)
    assert same(checkpoint.tensors, store.state_dict())
    assert checkpoint.step == 6
    assert checkpoint.identity == small_training().model_dump(mode="json")
    last = shown[-1]
    assert (last.step, last.steps) == (6, 6)
    assert last.accuracies.keys() == {"largest", "smallest", "random"}
    assert all(0 <= accuracy <= 1 for accuracy in last.accuracies.values())


def test_a_checkpoint_serves_the_space(tmp_path: Path, digits: Data) -> None:
    trained, _ = train(tmp_path, digits)
    store = Store(NANO, num_classes=10, seed=1)
    store.load_state_dict(load_file(tmp_path / CHECKPOINT))
    architecture, images = NANO.scaled(0.5), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        mine, theirs = (some.subnet(architecture).eval()(images) for some in (store, trained))
    assert torch.equal(mine, theirs)


def test_a_configuration_of_a_run_is_how_its_supernet_is_trained(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    config = small_config(budget=BUDGET, strategy=QUARTER)
    train(tmp_path, digits, settings=config)
    checkpoint = load_checkpoint(tmp_path / CHECKPOINT)
    assert checkpoint.identity == small_training().model_dump(mode="json")
    assert same(checkpoint.tensors, uninterrupted)


def cut_short(state: Path) -> None:
    state.write_bytes(state.read_bytes()[:-100])


def rewritten(state: Path, tensors: dict[str, Tensor]) -> None:
    """Other tensors under the metadata of a state."""
    known = load_checkpoint(state)
    identity = small_training().model_dump_json()
    save_file(tensors, state, metadata={"step": str(known.step), "identity": identity})


def of_another_space(state: Path) -> None:
    store = Store(PRESETS["tiny"], num_classes=10, draw=False)
    rewritten(state, {f"weights.{name}": tensor for name, tensor in store.state_dict().items()})


def of_other_classes(state: Path) -> None:
    rewritten(state, load_file(state) | {"weights.head.bias": torch.zeros(7)})


def without_moments(state: Path) -> None:
    rewritten(state, {n: t for n, t in load_file(state).items() if n.startswith("weights.")})


def with_moments_of_another_shape(state: Path) -> None:
    rewritten(state, load_file(state) | {"optimizer.first.head.weight": torch.zeros(1)})


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        of_another_space,
        of_other_classes,
        without_moments,
        with_moments_of_another_shape,
    ],
)
@pytest.mark.sampled(2)
def test_a_state_that_cannot_be_resumed_is_refused_by_name(
    tmp_path: Path, digits: Data, damage: Callable[[Path], None]
) -> None:
    state = interrupted_after(2, tmp_path, digits)
    damage(state)
    damaged = state.read_bytes()
    with pytest.raises(InputError, match=r"cannot be resumed from .*delete it") as raised:
        train(tmp_path, digits)
    assert str(state) in str(raised.value)
    assert state.read_bytes() == damaged
    assert not (tmp_path / CHECKPOINT).exists()


@pytest.mark.parametrize(
    ("strategy", "told"),
    [
        (Sandwich(), r'strategy\.name is "blockwise" there, "sandwich" here'),
        (QUARTER.model_copy(update={"stages": 0.5}), r"strategy\.stages is 0\.4 there, 0\.5 here"),
    ],
)
def test_the_state_of_another_strategy_is_refused(
    tmp_path: Path, digits: Data, strategy: Strategy, told: str
) -> None:
    interrupted_after(2, tmp_path, digits)
    with pytest.raises(InputError, match=told):
        train(tmp_path, digits, settings=small_training(strategy=strategy))


def test_a_loss_that_is_no_number_ends_the_training_without_a_checkpoint(
    tmp_path: Path, digits: Data
) -> None:
    store = fresh_store()
    store.parameters["head.bias"].fill_(float("nan"))
    with pytest.raises(InputError, match=r"^`lr` \S+: the loss is nan at step 1; "):
        train(tmp_path, digits, store=store)
    assert list(tmp_path.iterdir()) == [states(tmp_path / STATE)[1]]


# What the result depends on.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 7),
        ("batch_size", 4),
        ("lr", 1e-3),
        ("seed", 1),
        ("weight_decay", 0.5),
        ("betas", (0.8, 0.999)),
        ("betas", (0.9, 0.99)),
        ("eps", 1e-4),
        ("clip_norm", 1e-3),
        ("warmup_share", 0.5),
        ("most_catching_up", 1.0),
        ("strategy", QUARTER.model_copy(update={"teacher": 1.0})),
        ("strategy", QUARTER.model_copy(update={"teacher_rate": 1.0})),
        ("strategy", QUARTER.model_copy(update={"stages": 0.0})),
        ("strategy", QUARTER.model_copy(update={"stages_rate": 1.0})),
        ("strategy", QUARTER.model_copy(update={"labels": 0.75})),
        ("strategy", QUARTER.model_copy(update={"answers": 0.75})),
    ],
)
@pytest.mark.sampled(3)
def test_the_result_depends_on_every_setting(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor], field: str, value: object
) -> None:
    settings = small_training(**{field: value})
    train(tmp_path, digits, store=fresh_store(), settings=settings)
    assert not same(load_file(tmp_path / CHECKPOINT), uninterrupted)


@pytest.mark.slow
def test_the_teacher_is_shown_first_and_then_the_supernet_with_the_loss_of_each_step(
    tmp_path: Path, digits: Data
) -> None:
    _, shown = train(tmp_path, digits)
    assert [(p.part, p.step, p.steps) for p in shown] == [
        *(("teacher", step, 3) for step in (1, 2, 3)),
        *(("supernet", step, 6) for step in (1, 2, 3, 4, 5, 6)),
    ]
    assert len({progress.loss for progress in shown}) == 9
    assert not any(progress.accuracies for progress in shown[:3])
    single = small_training(strategy="single-path")
    _, shown = train(tmp_path / "single", digits, settings=single)
    assert [progress.part for progress in shown] == ["supernet"] * 6


def test_a_watched_subnet_without_an_accuracy_is_shown_without_and_ends_nothing(
    tmp_path: Path,
    digits: Data,
    uninterrupted: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def overflow(evaluator: SubnetEvaluator, architecture: Architecture) -> Fit:
        raise Diverged("class scores of the network are infinite or not a number")

    monkeypatch.setattr(SubnetEvaluator, "fit", overflow)
    store, shown = train(tmp_path, digits)
    assert same(store.state_dict(), uninterrupted)
    assert all(math.isnan(accuracy) for accuracy in shown[-1].accuracies.values())


class Greys(Samples):
    """Ten shades of grey under noise, as easy as a task can be."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % 10
        return (label * 25 + torch.randint(15, (3, 32, 32))).to(torch.uint8), label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "steps", "lr"),
    [("blockwise", 48, 2.5e-3), ("single-path", 160, 7e-4), ("sandwich", 60, 7e-4)],
)
@pytest.mark.sampled(3)
def test_the_loss_falls_and_the_watched_subnets_learn(
    tmp_path: Path, digits: Data, strategy: str, steps: int, lr: float
) -> None:
    easy = replace(digits, train=Greys(), search=Greys())
    settings = small_training(steps=steps, batch_size=20, lr=lr, strategy=strategy)
    _, shown = train(tmp_path, easy, settings=settings)
    losses = [progress.loss for progress in shown]
    assert losses[0] == pytest.approx(2.3, abs=0.3)  # ln 10: ten classes at chance
    assert sum(losses[-5:]) / 5 < 1.8
    assert all(accuracy > 0.25 for accuracy in shown[-1].accuracies.values())
