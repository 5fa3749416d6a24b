"""The teacher from outside the space: its maps beside those of subnets, and its training."""

import math
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from small_runs import NANO, constrained_nano
from torch import Tensor, nn

from nas.data import Data, load_data, materialise, normalise
from nas.training.checkpoint import load_checkpoint
from nas.training.loop import Session
from nas.training.settings import SupernetTraining
from nas.training.strategies import Blockwise, TeacherPlan
from nas.training.supernet import Progress, SupernetTask, states
from nas.training.teacher import Teacher, trained_teacher
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import PRESETS, SearchSpace
from supernet import Store
from supernet.network import skeleton

PLAN = TeacherPlan(steps=6, rate=2.0)
SETTINGS = SupernetTraining(
    steps=4,
    batch_size=8,
    lr=1e-3,
    strategy=Blockwise(
        teacher=1.5, teacher_rate=2.0, stages=0.5, stages_rate=1.5, labels=0.5, answers=0.5
    ),
)
"""Of a training whose strategy plans `PLAN`."""


class Crash(Exception):
    """Stands for SIGKILL: training has no chance to save."""


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


def train(
    path: Path,
    data: Data,
    *,
    plan: TeacherPlan = PLAN,
    settings: SupernetTraining = SETTINGS,
    space: SearchSpace = NANO,
    stop_after: int | None = None,
    crash_after: int | None = None,
    checkpoint_seconds: float = math.inf,
) -> tuple[Teacher, list[tuple[int, float]]]:
    """A teacher, and the steps and losses that were shown."""
    stop, shown = StopRequest(), list[tuple[int, float]]()

    def on_step(step: int, loss: float) -> None:
        shown.append((step, loss))
        stop.requested = step == stop_after
        if step == crash_after:
            raise Crash

    teacher = trained_teacher(
        space,
        plan,
        Session(
            data=data,
            device=torch.device("cpu"),
            stop=stop,
            checkpoint_seconds=checkpoint_seconds,
        ),
        settings=settings,
        state=path / "teacher.safetensors",
        on_step=on_step,
    )
    return teacher, shown


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(
    digits: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Teacher, list[tuple[int, float]]]:
    return train(tmp_path_factory.mktemp("uninterrupted"), digits)


# What it gives.


@cache
def teacher_of(space: SearchSpace) -> Teacher:
    """One in evaluation; not to be changed."""
    return Teacher(space, num_classes=7).eval()


@pytest.mark.parametrize("side", [64, 50, 51])
@pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())
def test_its_maps_have_the_sizes_of_the_subnets_maps_and_the_largest_widths(
    space: SearchSpace, side: int
) -> None:
    images = torch.zeros(2, 3, side, side + 13)
    rng = random.Random(0)
    members = [member for member in (space.sample(rng) for _ in range(8)) if _is_on_a_map(member)]
    with torch.no_grad():
        scores, maps = teacher_of(space)(images)
        for member in members[:3]:
            network = skeleton(member, num_classes=7).to_empty(device="cpu").eval()
            x = network.stem(images)
            for stage, map_ in zip(network.stages, maps, strict=True):
                x = stage(x)
                assert map_.shape[:3] == x.shape[:3]
    assert len(members) > 2
    assert scores.shape == (2, 7)
    assert [map_.shape[3] for map_ in maps] == [max(choices.width) for choices in space.stages]


def _is_on_a_map(architecture: Any) -> bool:
    return not architecture.stages[0].class_token


def test_it_shares_no_weight_with_the_space() -> None:
    shared = Store(NANO, num_classes=10).state_dict().values()
    memory = {tensor.untyped_storage().data_ptr() for tensor in shared}
    own = Teacher(NANO, num_classes=10).state_dict().values()
    assert not any(tensor.untyped_storage().data_ptr() in memory for tensor in own)


def test_its_maps_learn_nothing_back_from_what_is_made_of_them() -> None:
    teacher = Teacher(NANO, num_classes=10).train()
    scores, maps = teacher(torch.randn(4, 3, 32, 32))
    assert scores.requires_grad
    assert not any(map_.requires_grad for map_ in maps)


@pytest.mark.slow
def test_its_maps_are_normalised_over_many_images(tmp_path: Path, digits: Data) -> None:
    teacher, _ = train(tmp_path, digits, plan=TeacherPlan(steps=40, rate=2.0))
    images, _ = materialise(digits.search, limit=128, seed=0)
    with torch.no_grad():
        _, maps = teacher(normalise(images, digits.mean, digits.std))
    for map_ in maps:
        std, mean = torch.std_mean(map_, dim=(0, 1, 2))
        assert float(mean.abs().mean()) < 0.25
        assert float(std.mean()) == pytest.approx(1.0, abs=0.25)


# How it is trained.


def test_it_is_frozen_and_in_eval_mode(uninterrupted: tuple[Teacher, object]) -> None:
    teacher, _ = uninterrupted
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_the_same_seed_gives_the_same_teacher_and_leaves_the_global_generators(
    tmp_path: Path, digits: Data, uninterrupted: tuple[Teacher, list[tuple[int, float]]]
) -> None:
    torch.manual_seed(99)
    follows = torch.rand(3)
    torch.manual_seed(99)
    again, shown = train(tmp_path / "again", digits)
    assert torch.equal(torch.rand(3), follows)
    teacher, their_shown = uninterrupted
    assert shown == their_shown
    assert same(again.state_dict(), teacher.state_dict())
    other, _ = train(tmp_path / "other", digits, settings=SETTINGS.model_copy(update={"seed": 1}))
    assert not torch.equal(other.get_buffer("directions0"), teacher.get_buffer("directions0"))
    assert not torch.equal(other.head.weight, teacher.head.weight)


def test_it_learns_everything_but_its_directions(
    uninterrupted: tuple[Teacher, list[tuple[int, float]]],
) -> None:
    torch.manual_seed(SETTINGS.seed)
    fresh = Teacher(NANO, num_classes=10)
    teacher, _ = uninterrupted
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(teacher.state_dict()[name], tensor) == ("directions" in name), name


@pytest.mark.parametrize("after", [2, 6])
def test_a_stopped_training_of_a_teacher_goes_on_as_if_nothing_had_been(
    tmp_path: Path,
    digits: Data,
    uninterrupted: tuple[Teacher, list[tuple[int, float]]],
    after: int,
) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=after)
    resumed, rest = train(tmp_path, digits)
    teacher, shown = uninterrupted
    assert rest == shown[after:]
    assert same(resumed.state_dict(), teacher.state_dict())


def test_a_killed_training_of_a_teacher_goes_on_from_its_last_state(
    tmp_path: Path, digits: Data, uninterrupted: tuple[Teacher, list[tuple[int, float]]]
) -> None:
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4, checkpoint_seconds=-1.0)
    resumed, rest = train(tmp_path, digits)
    teacher, shown = uninterrupted
    assert rest == shown[3:]
    assert same(resumed.state_dict(), teacher.state_dict())


def test_a_trained_teacher_is_kept_and_taken_again(tmp_path: Path, digits: Data) -> None:
    first, _ = train(tmp_path, digits)
    assert load_checkpoint(tmp_path / "teacher.safetensors").step == PLAN.steps
    second, shown = train(tmp_path, digits)
    assert shown == []
    assert same(first.state_dict(), second.state_dict())
    assert not any(module.training for module in second.modules())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"plan": TeacherPlan(steps=7, rate=2.0)}, "steps is 6 there, 7 here"),
        ({"plan": TeacherPlan(steps=6, rate=3.0)}, r"lr is 0\.002 there, 0\.003 here"),
        ({"settings": SETTINGS.model_copy(update={"seed": 1})}, "seed is 0 there, 1 here"),
        ({"settings": SETTINGS.model_copy(update={"batch_size": 4})}, "batch_size is 8 there, 4"),
        ({"space": PRESETS["tiny"]}, 'teacher_of is "nano" there, "tiny" here'),
        (
            {"space": NANO.model_copy(update={"stages": NANO.stages[:2]})},
            "has shape|lacks|unusable",
        ),
    ],
)
def test_the_state_of_another_teacher_is_refused_by_name(
    tmp_path: Path, digits: Data, changes: dict[str, Any], told: str
) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=1)
    state = tmp_path / "teacher.safetensors"
    kept = state.read_bytes()
    with pytest.raises(InputError, match=told) as raised:
        train(tmp_path, digits, **changes)
    assert str(state) in str(raised.value)
    assert state.read_bytes() == kept


@pytest.mark.parametrize("field", ["weight_decay", "warmup_share", "batch_size"])
def test_it_is_trained_by_the_settings_of_the_training_that_it_teaches_in(
    tmp_path: Path,
    digits: Data,
    uninterrupted: tuple[Teacher, list[tuple[int, float]]],
    field: str,
) -> None:
    value = {"weight_decay": 0.5, "warmup_share": 0.5, "batch_size": 4}[field]
    other, _ = train(tmp_path, digits, settings=SETTINGS.model_copy(update={field: value}))
    assert not same(other.state_dict(), uninterrupted[0].state_dict())


# Within the training of a supernet.


def train_all(
    path: Path, data: Data, *, crash_after: tuple[str, int] | None = None, **others: Any
) -> list[Progress]:
    """Train a teacher and then the supernet."""
    images, labels = materialise(data.search, limit=4, seed=0)
    task = SupernetTask(
        settings=SETTINGS,
        constrained=constrained_nano(macs=200_000_000),
        data=data,
        images=images,
        labels=labels,
        device="cpu",
        state=path / "state.safetensors",
        checkpoint=path / "checkpoint.safetensors",
        **others,
    )
    shown: list[Progress] = []

    def on_progress(progress: Progress) -> None:
        shown.append(progress)
        if (progress.part, progress.step) == crash_after:
            raise Crash

    task.train(task.new_store(), stop=StopRequest(), on_progress=on_progress)
    return shown


@pytest.mark.slow
def test_a_kill_anywhere_costs_no_more_than_the_last_state_and_changes_nothing(
    tmp_path: Path, digits: Data
) -> None:
    straight = train_all(tmp_path / "straight", digits)
    parts = [(progress.part, progress.step) for progress in straight]
    assert parts == [("teacher", n) for n in range(1, 7)] + [("supernet", n) for n in range(1, 5)]
    path = tmp_path / "killed"
    state, of_teacher = states(path / "state.safetensors")
    with pytest.raises(Crash):
        train_all(path, digits, crash_after=("teacher", 4), checkpoint_seconds=-1.0)
    assert (state.exists(), of_teacher.exists()) == (False, True)
    with pytest.raises(Crash):
        train_all(path, digits, crash_after=("supernet", 1), checkpoint_seconds=math.inf)
    assert (state.exists(), load_checkpoint(of_teacher).step) == (False, 6)
    with pytest.raises(Crash):
        train_all(path, digits, crash_after=("supernet", 3), checkpoint_seconds=-1.0)
    assert (load_checkpoint(state).step, load_checkpoint(of_teacher).step) == (2, 6)
    rest = train_all(path, digits)
    assert [(progress.part, progress.step) for progress in rest] == parts[8:]
    assert not state.exists() and not of_teacher.exists()
    ends = [load_file(tmp_path / w / "checkpoint.safetensors") for w in ("straight", "killed")]
    assert same(*ends)


def test_a_space_whose_stages_never_pool_has_a_teacher(digits: Data) -> None:
    space = NANO.model_copy(update={"stages": NANO.stages[:1]})
    teacher = Teacher(space, num_classes=10)
    assert isinstance(teacher.stem, nn.Sequential)
    _, maps = teacher.eval()(torch.zeros(1, 3, 32, 32))
    assert [tuple(map_.shape) for map_ in maps] == [(1, 8, 8, 32)]
