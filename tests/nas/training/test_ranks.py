"""Several processes that train one supernet, against one process that trains it alone."""

import math
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import NANO, constrained_nano
from torch import distributed, multiprocessing

import nas.training.supernet
import nas.training.teacher
from nas.data import load_data, materialise
from nas.training.checkpoint import load_checkpoint
from nas.training.ranks import ALONE, Ranks, TorchRanks
from nas.training.settings import SupernetTraining
from nas.training.strategies import Blockwise, Sandwich, Strategy
from nas.training.supernet import Progress, SupernetTask, states
from nas.utilities.interrupt import Interrupted, StopRequest
from supernet import Store

STEPS, BATCH = 6, 8
BLOCKWISE = Blockwise(
    teacher=0.5, teacher_rate=2.0, stages=0.5, stages_rate=1.5, labels=0.5, answers=0.5
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A training: by which strategy, and after which step of the supernet's it is stopped."""

    strategy: Strategy
    stop_after: int | None = None


CASES = {
    "blockwise": Case(strategy=BLOCKWISE),
    "sandwich": Case(strategy=Sandwich()),
    "stopped": Case(strategy=BLOCKWISE, stop_after=3),
}


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a training showed, and the weights at its end."""

    shown: list[Progress]
    weights: dict[str, torch.Tensor]

    @property
    def losses(self) -> list[float]:
        return [progress.loss for progress in self.shown]


def task(folder: Path, strategy: Strategy) -> SupernetTask:
    data = load_data("digits", image_size=32, seed=0)
    images, labels = materialise(data.search, limit=20, seed=0)
    return SupernetTask(
        settings=SupernetTraining(steps=STEPS, batch_size=BATCH, lr=1e-3, strategy=strategy),
        constrained=constrained_nano(macs=200_000_000),
        data=data,
        images=images,
        labels=labels,
        device="cpu",
        state=folder / "state.safetensors",
        checkpoint=folder / "checkpoint.safetensors",
    )


@contextmanager
def in_float32() -> Iterator[None]:
    """In the block, trainings don't round to bf16: what is left is the order of sums."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (nas.training.supernet, nas.training.teacher):
            patch.setattr(module, "autocast", lambda device: nullcontext())
        yield


def train(folder: Path, case: Case, *, ranks: Ranks = ALONE) -> Found:
    folder.mkdir(exist_ok=True)
    shown: list[Progress] = []
    todo, stop = task(folder, case.strategy), StopRequest()
    store = todo.new_store()

    def note(progress: Progress) -> None:
        shown.append(progress)
        # Only the first rank hears of it; all have to stop.
        stop.requested = progress.part == "supernet" and progress.step == case.stop_after

    with in_float32():
        try:
            todo.train(store, stop=stop, on_progress=note, ranks=ranks)
        except Interrupted:
            assert case.stop_after is not None
    return Found(shown=shown, weights={n: t.clone() for n, t in store.state_dict().items()})


def _be_a_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    ranks = TorchRanks(torch.device("cpu"))
    found = {name: train(folder / name, case, ranks=ranks) for name, case in CASES.items()}
    torch.save({name: vars(one) for name, one in found.items()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have gone through all cases; starting them takes long."""
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.spawn(_be_a_rank, (folder,), nprocs=2)
    return folder


def found_by(rank: int, case: str, folder: Path) -> Found:
    return Found(**torch.load(folder / f"{rank}.pt", weights_only=False)[case])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["blockwise", "sandwich"])
def test_two_ranks_learn_what_one_learns_from_the_same_batches(
    tmp_path: Path, together: Path, name: str
) -> None:
    one = train(tmp_path, CASES[name])
    first, second = (found_by(rank, name, together) for rank in range(2))
    assert not second.shown
    assert [(p.part, p.step) for p in first.shown] == [(p.part, p.step) for p in one.shown]
    # The order of sums differs; a rank that saw other images would be far off.
    assert first.losses == pytest.approx(one.losses, rel=1e-5)
    for weight_name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[weight_name]), weight_name
    statistics = [n for n in one.weights if n.endswith(("running_mean", "running_var"))]
    assert statistics
    for weight_name in statistics:
        torch.testing.assert_close(first.weights[weight_name], one.weights[weight_name])
    saved = load_checkpoint(together / name / "checkpoint.safetensors")
    assert all(torch.equal(saved.tensors[n], weight) for n, weight in first.weights.items())


@pytest.mark.slow
def test_a_stop_that_one_rank_hears_of_stops_both_and_one_process_goes_on(
    tmp_path: Path, together: Path
) -> None:
    folder = shutil.copytree(together / "stopped", tmp_path / "stopped")
    first, whole = (found_by(0, name, together) for name in ("stopped", "blockwise"))
    todo = task(folder, BLOCKWISE)
    assert load_checkpoint(todo.state).step == 3
    rest = train(folder, CASES["blockwise"])
    shown = [*first.shown, *rest.shown]
    assert [(p.part, p.step) for p in shown] == [(p.part, p.step) for p in whole.shown]
    assert [p.loss for p in shown] == pytest.approx(whole.losses, rel=1e-5)
    assert todo.checkpoint.exists()
    assert not any(file.exists() for file in states(todo.state))


def test_one_process_alone_changes_nothing() -> None:
    tensor = torch.tensor([1.0, math.nan])
    ALONE.average([tensor])
    assert tensor[0] == 1
    assert ALONE.any([True, False]) == [True, False]
    assert (ALONE.rank, ALONE.count) == (0, 1)


def test_the_store_is_the_same_in_every_process(tmp_path: Path) -> None:
    first, second = (task(tmp_path, BLOCKWISE).new_store() for _ in range(2))
    assert isinstance(first, Store)
    assert first.space == NANO
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
