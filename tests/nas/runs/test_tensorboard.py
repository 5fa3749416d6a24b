"""`nas search --tensorboard`."""

from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL, command, scalars

import nas.training.tensorboard
from nas.runs.folder import RunFolder

WRITING = ("search", *SMALL, "--short-list", "2", "--steps", "3", "--tensorboard")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_tensorboard_sees_the_training_the_search_and_the_short_list_also_of_a_run_that_goes_on(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    for trials in ("3", "4"):
        outcome = command(*WRITING, "--trials", trials, "--out", folder.path)
        assert outcome.status == 0, outcome.err

    teacher, supernet = (scalars(folder.tensorboard / part) for part in ("teacher", "supernet"))
    assert teacher.keys() == {"train/loss"}
    roles = ("largest", "smallest", "random")
    assert supernet.keys() == {"train/loss", *(f"accuracy/{role}" for role in roles)}
    assert [step for step, _ in supernet["train/loss"]] == [1, 2, 3]
    assert supernet["accuracy/largest"][-1][0] <= 3

    trials = pd.read_csv(folder.path / "trials.csv")
    inherited = trials.loc[trials["state"] == "evaluated", "accuracy"]
    search = scalars(folder.tensorboard / "search")
    best = search["search/best_accuracy"]
    assert [step for step, _ in best] == [1, 2, 3, 4]
    assert best[-1][1] == pytest.approx(inherited.max())
    volumes = [volume for _, volume in search["search/hypervolume"]]
    assert volumes == sorted(volumes) and volumes[-1] > 0

    tried = trials.dropna(subset="tried").drop_duplicates("hash")
    parts = folder.tensorboard / "short_list"
    assert {part.name for part in parts.iterdir()} == set(tried["hash"])
    for row in tried.itertuples():
        *_, last = scalars(parts / row.hash)["accuracy/alone"]
        assert last == (row.tried_steps, pytest.approx(row.tried))


def test_a_run_writes_nothing_for_tensorboard_unless_it_is_asked_to(small_run: Path) -> None:
    assert not RunFolder(small_run).tensorboard.exists()


def test_where_tensorboard_is_not_installed_a_search_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.training.tensorboard, "find_spec", lambda name: None)
    outcome = command(*WRITING, "--trials", "3", "--out", tmp_path / "run")
    assert outcome.status == 2
    told = "--tensorboard is not installed here; pip install 'subnet-search[tensorboard]'"
    assert outcome.err == f"error: {told}\n"
    assert not (tmp_path / "run").exists()
