"""One trained supernet answers many questions: more trials of a run."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from small_runs import SMALL, command

from nas import open_run
from nas.runs.folder import RunFolder

FLAGS = ("search", *SMALL, "--steps", "4")
"""Of the fixture `eight`, but for trials, short list and folder; of flags that come twice the last
counts."""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of eight trials, a batch; not to be changed."""
    folder = tmp_path_factory.mktemp("reuse") / "eight"
    outcome = command(*FLAGS, "--trials", "8", "--short-list", "2", "--out", folder)
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def copy(eight: Path, tmp_path: Path) -> Path:
    """A copy of that run, that may be changed."""
    return Path(shutil.copytree(eight, tmp_path / "run"))


def proposed(run: Path) -> pd.DataFrame:
    """What was proposed and what became of it, before anything was trained alone."""
    return open_run(run).trials.drop(columns=["seconds", "tried", "tried_steps"])


@pytest.mark.slow
def test_more_trials_give_what_a_run_that_was_begun_with_so_many_gives(
    copy: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    assert command(*FLAGS, "--trials", "16", "--short-list", "3", "--out", whole).status == 0
    stamp = RunFolder(copy).checkpoint.stat().st_mtime_ns
    outcome = command(*FLAGS, "--trials", "16", "--short-list", "3", "--out", copy)
    assert outcome.status == 0, outcome.err
    assert "supernet: trained already" in outcome.out
    assert RunFolder(copy).checkpoint.stat().st_mtime_ns == stamp
    assert RunFolder(copy).config == RunFolder(whole).config
    pd.testing.assert_frame_equal(proposed(copy), proposed(whole))
    listed = set(open_run(whole).trials.dropna(subset="tried")["hash"])
    assert listed <= set(open_run(copy).trials.dropna(subset="tried")["hash"])


def test_what_was_tried_before_there_were_more_trials_is_not_tried_again_and_may_still_be_best(
    copy: Path,
) -> None:
    before = open_run(copy).trials.dropna(subset="tried").set_index("hash")
    outcome = command(*FLAGS, "--trials", "16", "--short-list", "4", "--out", copy)
    assert outcome.status == 0, outcome.err
    after = open_run(copy).trials.dropna(subset="tried").set_index("hash")
    assert len(after) > len(before) == 2
    kept = after.loc[before.index]
    assert (kept["tried_steps"] >= before["tried_steps"]).all()
    same = kept["tried_steps"] == before["tried_steps"]
    assert (kept["tried"] == before["tried"])[same].all()
    assert open_run(copy).best["accuracy"] == after["tried"].max()
    summary = json.loads(RunFolder(copy).summary.read_text())
    assert summary["short_list"] == len(after)
    assert f"{len(after)} trained alone" in (copy / "report.html").read_text()
    assert "16 evaluated" in " ".join(outcome.out.split())


def test_fewer_trials_than_before_are_refused_in_one_line_and_change_nothing(copy: Path) -> None:
    before = RunFolder(copy).config_file.read_bytes()
    outcome = command(*FLAGS, "--trials", "7", "--short-list", "2", "--out", copy)
    assert (outcome.status, outcome.err) == (
        2,
        f"error: {copy}: its --trials can only grow, from 8, not shrink to 7; "
        "give 8 or more, or another folder as --out\n",
    )
    assert RunFolder(copy).config_file.read_bytes() == before
