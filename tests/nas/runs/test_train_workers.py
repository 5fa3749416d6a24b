"""A supernet that is trained by several processes, from the command line to the end of its run."""

import re
import signal
from pathlib import Path

import pandas as pd
import pytest
from small_runs import ROOT, SMALL, Fork, wait_for

from nas.runs.folder import RunFolder
from nas.training.checkpoint import load_checkpoint
from nas.training.curve import read_curve
from nas.training.supernet import states
from nas.utilities.devices import usable_cpus

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(usable_cpus() < 2, reason="each process that trains needs a CPU"),
]


@pytest.fixture(autouse=True)
def _no_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray asks for a token or not, depending on what else was run on this machine."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


@pytest.mark.exhaustive
def test_a_run_that_two_processes_train_is_stopped_and_goes_on_to_its_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    flags = ("--steps", "50", "--trials", "1", "--train-workers", "2", "--out", folder.path)
    arguments = (ROOT / "run_search.py", *SMALL, *flags)
    process = Fork(*arguments)
    wait_for("training the supernet ", process.stdout)
    process.send_signal(signal.SIGINT)
    status, out, err = process.finish()
    assert (status, "Traceback" in err) == (130, False)
    assert "To go on" in out
    assert not folder.checkpoint.exists()
    state, of_teacher = states(folder.training_state)
    done = load_checkpoint(state).step
    assert 0 < done < 50
    assert of_teacher.exists()

    status, out, err = Fork(*arguments).finish()
    assert status == 0, err
    assert "Traceback" not in err
    assert "training the teacher" not in out
    first = re.search(r"training the supernet (\d+)/50", out)
    assert first is not None
    assert done < int(first[1]) <= 50
    left = {path.name for path in folder.checkpoint.parent.iterdir()}
    assert left == {folder.checkpoint.name, folder.curve.name}
    steps = [point.step for point in read_curve(folder.curve) if point.part == "supernet"]
    assert steps == list(range(1, 51))
    trials = pd.read_csv(folder.path / "trials.csv")
    assert (trials["state"] == "evaluated").sum() == 1
    assert folder.best.exists()


DEADLY = """
import os
import signal
import time
from functools import partial
from pathlib import Path
from typing import Literal

from torch import distributed

import nas.training.ray_training
from nas.runs.folder import RunFolder
from nas.runs.steps import train
from nas.training.checkpoint import load_checkpoint
from nas.training.strategies import STRATEGIES, Blockwise

nas.training.ray_training.ATTEMPTS = 2  # new processes take seconds
# A state after every step.
train.SupernetTask = partial(train.SupernetTask, checkpoint_seconds=-1.0)
NOTES = Path(__file__).with_suffix(".txt")
STATE = RunFolder(Path(__file__).with_name("run")).training_state
DEATHS = tuple(map(int, os.environ["DEATHS"].split()))

class Deadly(Blockwise):
    name: Literal["deadly"] = "deadly"

    def plan(self, course, step):
        if distributed.is_initialized() and distributed.get_rank() == 1:
            deaths = NOTES.read_text().count("died") if NOTES.exists() else 0
            die = deaths < len(DEATHS) and step == DEATHS[deaths]
            with NOTES.open("a") as notes:
                notes.write(f"{step} died\\n" if die else f"{step}\\n")
            if die:
                while load_checkpoint(STATE).step < step:  # the first rank is saving
                    time.sleep(0.05)
                os.kill(os.getpid(), signal.SIGKILL)
        return super().plan(course, step)

STRATEGIES["deadly"] = Deadly
"""
"""A strategy whose second rank is killed in each of the steps that the environment names, once."""

COMMAND = """
import os
import sys

sys.path.insert(0, sys.argv[1])
os.environ["PYTHONPATH"] += os.pathsep + sys.argv.pop(1)  # for the processes that Ray starts
import deadly
from nas.cli import main

sys.exit(main())
"""


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[str | Path, ...]:
    """A search by that strategy; the number of processes that train is to be added."""
    (tmp_path / "deadly.py").write_text(DEADLY)
    flags = ("--strategy", "deadly", "--steps", "6", "--trials", "1", "--out", tmp_path / "run")
    return ("-c", COMMAND, tmp_path, "search", *SMALL, *flags, "--train-workers")


@pytest.mark.exhaustive
def test_a_process_that_dies_is_restarted_from_the_last_state(
    arguments: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", "2")
    status, out, err = Fork(*arguments, "2").finish()
    assert status == 0, (out, err)
    assert "Traceback" not in err
    planned = (tmp_path / "deadly.txt").read_text().splitlines()
    assert planned == ["0", "1", "2 died", "2", "3", "4", "5"]
    assert RunFolder(tmp_path / "run").best.exists()


@pytest.mark.exhaustive
def test_a_process_that_dies_too_often_is_given_up_and_fewer_go_on(
    arguments: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEATHS", "2 4")
    folder = RunFolder(tmp_path / "run")
    status, out, err = Fork(*arguments, "2").finish()
    assert status == 2, (out, err)
    (line,) = err.splitlines()
    assert line.startswith("error: --train-workers 2: a process that trains died 2 times")
    assert "Traceback" not in out
    planned = (tmp_path / "deadly.txt").read_text().splitlines()
    assert planned == ["0", "1", "2 died", "2", "3", "4 died"]
    assert load_checkpoint(folder.training_state).step == 4
    assert not folder.checkpoint.exists()

    # As the line says, fewer go on from there.
    status, out, err = Fork(*arguments, "1").finish()
    assert status == 0, err
    assert "Traceback" not in err
    assert "training the supernet 5/6" in out
    assert "training the teacher" not in out
    assert folder.best.exists()
