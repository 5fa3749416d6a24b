"""Training the shared weights: what a step learns from, and resuming under every strategy."""

import math
import random
from collections.abc import Callable
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
from nas.training.accuracy import SubnetEvaluator
from nas.training.checkpoint import load_checkpoint
from nas.training.settings import SupernetTraining
from nas.training.strategies import (
    STRATEGIES,
    Blockwise,
    Course,
    Lesson,
    Sandwich,
    SinglePath,
    StageLesson,
    Strategy,
)
from nas.training.supernet import Progress, SupernetLearner, train_supernet
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import PRESETS, Architecture
from supernet import Network, Store
from supernet.network import StageMaps

BUDGET = 200_000_000
STATE, CHECKPOINT = "state.safetensors", "checkpoint.safetensors"


QUARTER = Blockwise(alone=0.25, stages=0.35)
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


def store_of(strategy: Strategy, *, seed: int = 0) -> Store:
    """Fresh weights of nano, and of what the strategy has beside it."""
    return Store(NANO, num_classes=10, seed=seed, beside=strategy.beside(NANO))


def train(
    path: Path,
    data: Data,
    *,
    stop_after: int | None = None,
    crash_after: int | None = None,
    disturb: bool = False,
    store: Store | None = None,
    settings: SupernetTraining | None = None,
    checkpoint_seconds: float = math.inf,
) -> tuple[Store, list[Progress]]:
    """Train as a process does that is interrupted or killed after a step, or neither."""
    settings = settings or small_training()
    store = store or store_of(settings.strategy, seed=settings.seed)
    images, labels = materialise(data.search, limit=20, seed=0)
    stop = StopRequest()
    shown: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        shown.append(progress)
        stop.requested = progress.step == stop_after
        if progress.step == crash_after:
            raise Crash
        if disturb:  # a process that draws from every generator for its own ends
            torch.rand(3), np.random.rand(3), random.random()

    train_supernet(
        store,
        settings=settings,
        constrained=constrained_nano(macs=BUDGET),
        data=data,
        state=path / STATE,
        checkpoint=path / CHECKPOINT,
        monitor=SubnetEvaluator(
            store, images, labels, mean=data.mean, std=data.std, threads=torch.get_num_threads()
        ),
        stop=stop,
        on_progress=on_progress,
        checkpoint_seconds=checkpoint_seconds,
    )
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


def learner_of(strategy: Strategy, *, steps: int = 9) -> SupernetLearner:
    """A learner with weights far from an initialisation, where every loss term has a gradient."""
    settings = small_training(steps=steps, strategy=strategy)
    store = store_of(strategy)
    generator = torch.Generator().manual_seed(0)
    for tensor in store.parameters.values():
        if tensor.ndim > 1:
            tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
    course = Course(constrained=constrained_nano(macs=BUDGET), steps=steps, seed=0)
    return SupernetLearner(store, settings, course)


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

    def __init__(self, store: Store, batch: tuple[Tensor, Tensor]) -> None:
        self.store, (self.images, self.labels) = store, batch
        self.gradients = {name: torch.zeros_like(t) for name, t in store.parameters.items()}

    def outputs(self, network: Network) -> tuple[Tensor, list[StageMaps]]:
        with torch.autocast("cpu", torch.bfloat16):
            scores, maps = network.train().forward_with_maps(self.images)
        return scores.float(), maps

    def add(
        self,
        subnet: Architecture,
        teacher: Architecture | None = None,
        *,
        labels: float = 0.0,
        answers: float = 0.0,
    ) -> None:
        """What a whole subnet learns."""
        network = self.store.extract(subnet)
        scores, _ = self.outputs(network)
        surprise = -scores.log_softmax(dim=1)
        loss = labels * surprise[torch.arange(8), self.labels].mean()
        if teacher is not None:
            with torch.no_grad():
                their_scores, _ = self.outputs(self.store.extract(teacher))
            loss = loss + answers * (their_scores.softmax(dim=1) * surprise).sum(dim=1).mean()
        self._learn(network, loss)

    def add_stages(self, subnet: Architecture, teacher: Architecture) -> None:
        """What each stage of a subnet learns, behind the teacher's map before it."""
        with torch.no_grad():
            _, theirs = self.outputs(self.store.extract(teacher))
        network = self.store.extract(subnet).train()
        widths = [stage.width for stage in subnet.stages]
        taken = [widths[0], *widths[:-1]]  # the stem of nano is as wide as the first stage
        before = [theirs[0].given, *(maps.mixed for maps in theirs[:-1])]
        errors = []
        for index, stage in enumerate(network.stages):
            with torch.autocast("cpu", torch.bfloat16):
                mine = stage(before[index][..., : taken[index]].contiguous()).float()
            wanted = theirs[index].mixed[..., : widths[index]].float()
            errors.append((mine - wanted).square().mean() / wanted.var())
        self._learn(network, torch.stack(errors).mean())

    def _learn(self, network: Network, loss: Tensor) -> None:
        loss.backward()
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:
                self.gradients[name][tuple(map(slice, parameter.shape))] += parameter.grad


def differ(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether gradients differ by more than the rounding of bf16."""
    distance = sum(float((one[name] - other[name]).square().sum()) for name in one)
    size = sum(float(tensor.square().sum()) for tensor in one.values())
    return distance > 1e-4 * size


TEACHER = QUARTER.beside(NANO)[0]
OF_TEACHER, OF_STAGES, OF_WHOLE = (0, 3), (4, 5, 6), (7, 8)
"""Which of nine steps of the blockwise strategy train whom."""


def test_nine_steps_of_blockwise_are_of_every_kind() -> None:
    course = Course(constrained=constrained_nano(macs=BUDGET), steps=9, seed=0)
    plans = [QUARTER.plan(course, step) for step in range(9)]
    assert all(plans[step] == (Lesson(subnet=TEACHER),) for step in OF_TEACHER)
    for kind, steps in ((StageLesson, OF_STAGES), (Lesson, OF_WHOLE)):
        taught = [lesson for step in steps for lesson in plans[step]]
        assert all(type(lesson) is kind and lesson.teacher == TEACHER for lesson in taught)


@pytest.mark.parametrize("step", OF_TEACHER)
def test_a_step_of_blockwise_with_the_teacher_learns_from_the_labels(
    batch: tuple[Tensor, Tensor], step: int
) -> None:
    learner = learner_of(QUARTER)
    found = gradients(learner, step, batch)
    expected = Expected(learner.store, batch)
    expected.add(TEACHER, labels=1.0)
    assert not differ(expected.gradients, found)


@pytest.mark.parametrize("step", OF_STAGES)
def test_a_step_of_blockwise_with_stages_learns_from_the_maps_of_the_teacher(
    batch: tuple[Tensor, Tensor], step: int
) -> None:
    learner = learner_of(QUARTER)
    found = gradients(learner, step, batch)
    (lesson,) = learner.lessons
    assert isinstance(lesson, StageLesson)
    expected = Expected(learner.store, batch)
    expected.add_stages(lesson.subnet, TEACHER)
    assert not differ(expected.gradients, found)
    learned = {name for name, gradient in found.items() if gradient.any()}
    for index in range(3):
        assert any(name.startswith(f"stages.{index}.") for name in learned)
    assert all(name.startswith("stages.") and "mv2_se" not in name for name in learned)


def test_steps_of_blockwise_with_stages_include_a_subnet_narrower_than_the_teacher() -> None:
    learner = learner_of(QUARTER)
    widths = {
        tuple(stage.width for stage in lesson.subnet.stages)
        for step in OF_STAGES
        for lesson in learner.strategy.plan(learner.course, step)
    }
    assert any(some != tuple(stage.width for stage in TEACHER.stages) for some in widths)


@pytest.mark.parametrize("step", OF_WHOLE)
def test_a_step_of_blockwise_with_a_whole_subnet_learns_from_labels_and_answers(
    batch: tuple[Tensor, Tensor], step: int
) -> None:
    learner = learner_of(QUARTER)
    found = gradients(learner, step, batch)
    (lesson,) = learner.lessons
    assert isinstance(lesson, Lesson)
    expected = Expected(learner.store, batch)
    expected.add(lesson.subnet, TEACHER, labels=0.5, answers=0.5)
    assert not differ(expected.gradients, found)
    assert not any(gradient.any() for name, gradient in found.items() if "mv2_se" in name)


def test_a_step_of_single_path_learns_from_the_labels(batch: tuple[Tensor, Tensor]) -> None:
    learner = learner_of(SinglePath())
    found = gradients(learner, 4, batch)
    (lesson,) = learner.lessons
    assert isinstance(lesson, Lesson)
    expected = Expected(learner.store, batch)
    expected.add(lesson.subnet, labels=1.0)
    assert not differ(expected.gradients, found)


def test_a_step_of_the_sandwich_adds_up_the_gradients_of_all_its_subnets(
    batch: tuple[Tensor, Tensor],
) -> None:
    learner = learner_of(Sandwich())
    found = gradients(learner, 4, batch)
    expected = Expected(learner.store, batch)
    largest = learner.course.largest
    expected.add(largest, labels=1.0)
    _, *taught = learner.lessons
    for lesson in taught:
        assert isinstance(lesson, Lesson)
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


@pytest.mark.slow
@pytest.mark.parametrize("term", ["labels", "answers"])
def test_each_term_by_itself_is_what_its_paper_says(
    batch: tuple[Tensor, Tensor], term: str
) -> None:
    weights = {"labels": 0.0, "answers": 0.0, term: 0.7}
    learner = learner_of(Blockwise.model_validate(weights))
    found = gradients(learner, OF_WHOLE[0], batch)
    (lesson,) = learner.lessons
    assert isinstance(lesson, Lesson)
    expected = Expected(learner.store, batch)
    expected.add(lesson.subnet, TEACHER, **{term: 0.7})
    assert any(gradient.any() for gradient in found.values())
    assert not differ(expected.gradients, found)


@pytest.mark.parametrize(
    ("strategy", "step"),
    [
        *((QUARTER, steps[0]) for steps in (OF_TEACHER, OF_STAGES, OF_WHOLE)),
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
    used: set[str] = set()
    for lesson in learner.lessons:
        names = {name for name, _ in learner.store.subnet(lesson.subnet).named_parameters()}
        whole = isinstance(lesson, Lesson)
        used |= {name for name in names if whole or name.startswith("stages.")}
    learned = {name for name, gradient in found.items() if gradient.any()}
    assert learned <= moved <= used
    assert not any(gradient.any() for gradient in learner.store.gradients.values())


def test_where_nothing_is_pooled_the_one_stage_learns_from_the_teachers(
    batch: tuple[Tensor, Tensor],
) -> None:
    space = NANO.model_copy(update={"stages": NANO.stages[:1]})
    constrained = ConstrainedSpace(space=space, limits=Limits(), image_size=224, num_classes=10)
    course = Course(constrained=constrained, steps=9, seed=0)
    store = Store(space, num_classes=10, beside=QUARTER.beside(space))
    learner = SupernetLearner(store, small_training(steps=9), course)
    for step, kind in ((3, Lesson), (4, StageLesson)):
        losses = []
        for loss in learner.losses(step, *batch):
            loss.backward()
            losses.append(float(loss.detach()))
        assert [type(lesson) for lesson in learner.lessons] == [kind]
        assert len(losses) == 1
        assert losses[0] > 0
        learner.update(lr=1e-3)


# Checkpoints, and going on from them.


@pytest.mark.slow
@pytest.mark.parametrize("name", STRATEGIES)
def test_a_resumed_training_equals_an_uninterrupted_one_in_weights_and_moments(
    tmp_path: Path, digits: Data, name: str
) -> None:
    settings = small_training(strategy=name)
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
    assert list(tmp_path.iterdir()) == []
    _, shown = train(tmp_path, digits)
    assert [progress.step for progress in shown] == [1, 2, 3, 4, 5, 6]
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
    assert same(checkpoint.tensors, store.state_of_space())
    assert checkpoint.step == 6
    assert checkpoint.identity == small_training().model_dump(mode="json")
    last = shown[-1]
    assert (last.step, last.steps) == (6, 6)
    assert last.accuracies.keys() == {"largest", "smallest", "random"}
    assert all(0 <= accuracy <= 1 for accuracy in last.accuracies.values())


def test_a_checkpoint_has_nothing_of_the_teacher_and_serves_the_space_alone(
    tmp_path: Path, digits: Data
) -> None:
    state = load_file(interrupted_after(2, tmp_path, digits))
    for kind in ("weights.", "optimizer.first."):  # while it trains, the teacher is needed
        assert any(name.startswith(kind) and "mv2_se" in name for name in state)
    trained, _ = train(tmp_path, digits)
    final = load_file(tmp_path / CHECKPOINT)
    assert not any("mv2_se" in name for name in final)
    store = Store(NANO, num_classes=10, seed=1)
    store.load_state_dict(final)
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
    store = Store(PRESETS["tiny"], num_classes=10)
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
        (QUARTER.model_copy(update={"stages": 0.5}), r"strategy\.stages is 0\.35 there, 0\.5 here"),
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
    store = store_of(QUARTER)
    store.parameters["head.bias"].fill_(float("nan"))
    with pytest.raises(InputError, match=r"^`lr` \S+: the loss is nan at step 1; "):
        train(tmp_path, digits, store=store)
    assert list(tmp_path.iterdir()) == []


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
        ("strategy", QUARTER.model_copy(update={"alone": 0.5})),
        ("strategy", QUARTER.model_copy(update={"stages": 0.0})),
        ("strategy", QUARTER.model_copy(update={"round_length": 2})),
        ("strategy", QUARTER.model_copy(update={"labels": 0.75})),
        ("strategy", QUARTER.model_copy(update={"answers": 0.75})),
    ],
)
def test_the_result_depends_on_every_setting(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor], field: str, value: object
) -> None:
    settings = small_training(**{field: value})
    train(tmp_path, digits, store=store_of(settings.strategy), settings=settings)
    assert not same(load_file(tmp_path / CHECKPOINT), uninterrupted)


@pytest.mark.slow
def test_the_loss_that_is_shown_is_of_what_learns_from_labels_alone(
    tmp_path: Path, digits: Data
) -> None:
    _, blockwise = train(tmp_path / "blockwise", digits)
    losses = [progress.loss for progress in blockwise]
    assert len(set(losses[:3])) == 3  # the first three steps train the teacher
    assert len(set(losses[2:])) == 1  # and in the others it teaches
    _, single = train(tmp_path / "single", digits, settings=small_training(strategy="single-path"))
    assert len({progress.loss for progress in single}) == 6


class Greys(Samples):
    """Ten shades of grey under noise, as easy as a task can be."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % 10
        return (label * 25 + torch.randint(15, (3, 32, 32))).to(torch.uint8), label


@pytest.mark.slow
@pytest.mark.parametrize(
    ("strategy", "steps"), [("blockwise", 120), ("single-path", 160), ("sandwich", 60)]
)
def test_the_loss_falls_and_the_watched_subnets_learn(
    tmp_path: Path, digits: Data, strategy: str, steps: int
) -> None:
    easy = replace(digits, train=Greys(), search=Greys())
    settings = small_training(steps=steps, batch_size=20, lr=7e-4, strategy=strategy)
    _, shown = train(tmp_path, easy, settings=settings)
    losses = [progress.loss for progress in shown]
    assert losses[0] == pytest.approx(2.3, abs=0.3)  # ln 10: ten classes at chance
    assert sum(losses[-5:]) / 5 < 1.8
    assert all(accuracy > 0.25 for accuracy in shown[-1].accuracies.values())
