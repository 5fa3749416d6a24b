"""Trainings of a supernet by one process and by two that `multiprocessing` starts.

Those import this module by its name, which they could not do with a file of tests. They are forked
from the server of `small_runs`.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from small_runs import constrained_nano
from torch import distributed

import nas.training.supernet
import nas.training.teacher
from nas.data import load_data, materialise
from nas.training.ranks import ALONE, Ranks, TorchRanks
from nas.training.settings import SupernetTraining
from nas.training.strategies import Blockwise, Sandwich, Strategy
from nas.training.supernet import Progress, SupernetTask
from nas.utilities.interrupt import Interrupted, StopRequest

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


def be_a_rank(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'rendezvous'}", rank=rank, world_size=2
    )
    ranks = TorchRanks(torch.device("cpu"))
    found = {name: train(folder / name, case, ranks=ranks) for name, case in CASES.items()}
    torch.save({name: vars(one) for name, one in found.items()}, folder / f"{rank}.pt")
    distributed.destroy_process_group()
