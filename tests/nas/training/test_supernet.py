import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import NANO, constrained_nano, small_config
from torch import Tensor

import nas.training.supernet
from nas.data import Data, Samples, load_data, materialise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.training.accuracy import SubnetEvaluator
from nas.training.supernet import (
    ROUND,
    Landmarks,
    Progress,
    learning_rate,
    other_poolings,
    step_subnet,
    train_supernet,
)
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import PRESETS, Architecture
from supernet import Store


class Crash(Exception):
    """Stands for SIGKILL: training has no chance to save."""


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


def train(
    path: Path,
    data: Data,
    *,
    stop_after: int | None = None,
    crash_after: int | None = None,
    disturb: bool = False,
    store: Store | None = None,
    config: RunConfig | None = None,
) -> tuple[Store, list[Progress]]:
    """Train as a process does that is interrupted or killed after a step, or neither."""
    config = config or small_config()
    store = store or Store(NANO, num_classes=10, seed=config.seed)
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
        config=config,
        constrained=constrained_nano(macs=config.budget),
        data=data,
        folder=RunFolder(path),
        monitor=SubnetEvaluator(
            store, images, labels, mean=data.mean, std=data.std, threads=torch.get_num_threads()
        ),
        stop=stop,
        on_progress=on_progress,
    )
    return store, shown


def interrupted_after(step: int, path: Path, data: Data, *, disturb: bool = False) -> Path:
    """Train up to a step that saves weights and moments; the file that holds them."""
    with pytest.raises(Interrupted):
        train(path, data, stop_after=step, disturb=disturb)
    return RunFolder(path).training_state


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """The final weights of a training that nothing disturbed."""
    path = tmp_path_factory.mktemp("uninterrupted")
    train(path, digits)
    return load_file(RunFolder(path).checkpoint)


def test_a_resumed_training_equals_an_uninterrupted_one_in_weights_and_moments(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    interrupted_after(2, tmp_path / "resumed", digits, disturb=True)
    resumed = interrupted_after(5, tmp_path / "resumed", digits, disturb=True)
    straight = interrupted_after(5, tmp_path / "straight", digits)
    state = load_file(straight)
    assert same(load_file(resumed), state)
    assert any(name.startswith("optimizer.") and tensor.any() for name, tensor in state.items())
    assert any(name.endswith("running_mean") and tensor.any() for name, tensor in state.items())
    train(tmp_path / "resumed", digits)
    assert same(load_file(RunFolder(tmp_path / "resumed").checkpoint), uninterrupted)


def test_training_that_was_stopped_at_its_last_step_only_has_to_be_closed(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    interrupted_after(small_config().steps, tmp_path, digits)
    assert not RunFolder(tmp_path).checkpoint.exists()
    _, shown = train(tmp_path, digits)
    assert shown == []
    assert same(load_file(RunFolder(tmp_path).checkpoint), uninterrupted)


def test_training_that_was_killed_before_it_saved_begins_again(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    folder = RunFolder(tmp_path)
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4)
    assert not folder.checkpoint.exists()
    assert not folder.training_state.exists()
    _, shown = train(tmp_path, digits)
    assert [progress.step for progress in shown] == [1, 2, 3, 4, 5, 6]
    assert same(load_file(folder.checkpoint), uninterrupted)


def test_training_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path,
    digits: Data,
    uninterrupted: dict[str, Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.training.supernet, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4)
    _, shown = train(tmp_path, digits)
    assert [progress.step for progress in shown] == [4, 5, 6]
    assert same(load_file(RunFolder(tmp_path).checkpoint), uninterrupted)


def test_a_finished_training_leaves_its_checkpoint_and_nothing_else(
    tmp_path: Path, digits: Data
) -> None:
    store, shown = train(tmp_path, digits)
    folder = RunFolder(tmp_path)
    assert [path.name for path in folder.checkpoint.parent.iterdir()] == [folder.checkpoint.name]
    assert same(load_file(folder.checkpoint), store.state_dict())
    with safe_open(folder.checkpoint, framework="pt") as file:
        assert file.metadata() == {"steps": "6"}
    last = shown[-1]
    assert (last.step, last.steps) == (6, 6)
    assert last.accuracies.keys() == {"largest", "smallest", "random"}
    assert all(0 <= accuracy <= 1 for accuracy in last.accuracies.values())


def cut_short(state: Path) -> None:
    state.write_bytes(state.read_bytes()[:-100])


def no_safetensors(state: Path) -> None:
    state.write_text("nothing of the kind")


def empty(state: Path) -> None:
    state.write_bytes(b"")


def of_another_space(state: Path) -> None:
    store = Store(PRESETS["tiny"], num_classes=10)
    tensors = {f"store.{name}": tensor for name, tensor in store.state_dict().items()}
    save_file(tensors, state, metadata={"step": "2"})


def of_other_classes(state: Path) -> None:
    tensors = load_file(state)
    tensors["store.head.bias"] = torch.zeros(7)
    save_file(tensors, state, metadata={"step": "2"})


def without_moments(state: Path) -> None:
    tensors = {name: t for name, t in load_file(state).items() if name.startswith("store.")}
    save_file(tensors, state, metadata={"step": "2"})


def without_step(state: Path) -> None:
    save_file(load_file(state), state)


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        no_safetensors,
        empty,
        of_another_space,
        of_other_classes,
        without_moments,
        without_step,
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
    assert not RunFolder(tmp_path).checkpoint.exists()


def test_a_loss_that_is_no_number_ends_the_training_without_a_checkpoint(
    tmp_path: Path, digits: Data
) -> None:
    store = Store(NANO, num_classes=10)
    store.parameters["head.bias"].fill_(float("nan"))
    with pytest.raises(InputError, match=r"^`lr` \S+: the loss is nan after step 1; "):
        train(tmp_path, digits, store=store)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_a_step_depends_on_the_seed(
    tmp_path: Path, digits: Data, uninterrupted: dict[str, Tensor]
) -> None:
    store = Store(NANO, num_classes=10, seed=0)
    train(tmp_path, digits, store=store, config=small_config(seed=1))
    assert not same(load_file(RunFolder(tmp_path).checkpoint), uninterrupted)


def subnets(steps: int) -> list[Architecture]:
    """The subnet of every step of a training in `base` under a budget."""
    constrained = ConstrainedSpace(
        space=PRESETS["base"], limits=Limits(macs=2_000_000_000), image_size=224, num_classes=10
    )
    config = small_config(steps=steps, space=PRESETS["base"])
    marks = Landmarks(constrained.largest(), constrained.smallest(), constrained.space.scaled(0.0))
    found = [step_subnet(config, constrained, marks, step) for step in range(steps)]
    assert all(constrained.admits(one) for one in found)
    return found


def test_the_largest_is_trained_alone_and_then_one_subnet_a_step_in_rounds() -> None:
    trained = subnets(90)
    largest = trained[0]
    assert all(one is largest for one in trained[:30])
    rounds = [trained[start : start + ROUND] for start in range(30, 90, ROUND)]
    assert all(one[0] is largest for one in rounds)
    assert {one[1].hash for one in rounds} == {rounds[0][1].hash, rounds[1][1].hash}
    assert rounds[0][1].hash != rounds[1][1].hash
    random_ones = [one.hash for few in rounds for one in few[2:]]
    assert len(set(random_ones)) == len(random_ones) == 10 * (ROUND - 2)


def test_operators_are_new_in_few_places_at_first_and_everywhere_in_the_end() -> None:
    space = PRESETS["base"]
    trained = subnets(600)

    def novel(architecture: Architecture) -> float:
        genes = space.genotype(architecture)
        poolings = [gene for gene in genes if gene.endswith(".pooling")]
        return sum(genes[gene] != space.genes[gene][0] for gene in poolings) / len(poolings)

    few = [novel(one) for one in trained[200:260]]
    many = [novel(one) for i, one in enumerate(trained) if i >= 510 and (i - 200) % ROUND > 1]
    assert sum(few) / len(few) < 0.25
    assert sum(many) / len(many) == pytest.approx(0.75, abs=0.1)  # of four kinds one is the default


def test_every_pooling_that_the_largest_lacks_has_its_turn() -> None:
    space = PRESETS["base"]
    largest = space.scaled(1.0)
    turns = [other_poolings(space, largest, step) for step in range(3)]
    for stage in range(1, 4):
        kinds = [turn.stages[stage].pooling for turn in turns]
        assert {*kinds, largest.stages[stage].pooling} == set(space.stages[stage].pooling)
        sizes = {(turn.stages[stage].width, turn.stages[stage].depth) for turn in turns}
        assert sizes == {(largest.stages[stage].width, largest.stages[stage].depth)}


class Greys(Samples):
    """Ten shades of grey under noise, as easy as a task can be."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        label = index % 10
        return (label * 25 + torch.randint(15, (3, 32, 32))).to(torch.uint8), label


@pytest.mark.slow
def test_the_loss_falls_and_the_watched_subnets_learn(tmp_path: Path, digits: Data) -> None:
    easy = replace(digits, train=Greys(), search=Greys())
    config = small_config(steps=120, batch_size=20)
    _, shown = train(tmp_path, easy, config=config)
    losses = [progress.loss for progress in shown]  # of the largest
    assert losses[0] == pytest.approx(2.3, abs=0.3)  # ln 10: ten classes at chance
    assert sum(losses[-5:]) / 5 < 1.8
    assert all(accuracy > 0.25 for accuracy in shown[-1].accuracies.values())


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 300, 100_000])
def test_the_learning_rate_warms_up_to_its_peak_and_falls_towards_zero(steps: int) -> None:
    rates = [learning_rate(step, steps=steps, peak=2e-3) for step in range(steps)]
    warmup = max(1, min(500, steps // 10))
    assert rates[0] == pytest.approx(2e-3 / warmup)
    assert rates[warmup - 1] == max(rates) == pytest.approx(2e-3)
    assert rates[:warmup] == sorted(set(rates[:warmup]))
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert min(rates) > 0
    if steps >= 300:
        assert rates[-1] < 2e-3 / 1000
