"""What the tryout on Ray sees of its trainings; Ray itself is in the tests of whole runs."""

import os
import random
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

import nas.search.ray_tryout
from nas.search.ray_tryout import _Watch
from nas.search.tryout import Tryout
from search_space import PRESETS

RNG = random.Random(5)
MOVING, HANGING, WAITING = (PRESETS["tiny"].sample(RNG) for _ in range(3))


def test_a_training_that_saves_nothing_for_too_long_hangs_and_is_told_once_each_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.search.ray_tryout, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(nas.search.ray_tryout, "_BETWEEN_LOOKS", 0.0)
    tryout: Any = Namespace(folder=tmp_path)
    tryout.last_saved = lambda candidate: Tryout.last_saved(tryout, candidate)
    for candidate in (MOVING, HANGING, WAITING):
        (tmp_path / f"{candidate.hash}.safetensors").touch()
    watch, late, begin = _Watch(tryout), [], time.monotonic()
    state = tmp_path / f".{MOVING.hash}.40.state.safetensors"
    while time.monotonic() - begin < 1.3:
        state.touch()
        os.utime(state, ns=(0, time.time_ns()))
        late += watch.hanging([MOVING, HANGING])
        time.sleep(0.02)
    assert late == [HANGING, HANGING]  # after 0.5 and 1.0 s
    assert watch.hanging([WAITING]) == []  # its time begins with its work


def test_files_that_vanish_are_no_sign_of_a_training(tmp_path: Path) -> None:
    tryout: Any = Namespace(folder=tmp_path)
    assert Tryout.last_saved(tryout, MOVING) == 0
