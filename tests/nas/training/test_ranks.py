"""Several processes that train one supernet, against one process that trains it alone."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from small_ranks import BLOCKWISE, CASES, Found, be_a_rank, task, train
from small_runs import NANO
from torch import multiprocessing

from nas.training.checkpoint import load_checkpoint
from nas.training.ranks import ALONE
from nas.training.supernet import states
from supernet import Store


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which two processes have gone through all cases; starting them takes long."""
    folder = tmp_path_factory.mktemp("together")
    multiprocessing.start_processes(be_a_rank, (folder,), nprocs=2, start_method="forkserver")
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
