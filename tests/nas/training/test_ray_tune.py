"""What Ray Tune sees of its trainings; Ray itself is in the tests of whole runs."""

import time

import pytest

import nas.training.ray_tune
from nas.training.ray_tune import Watch


def test_a_training_that_saves_nothing_for_too_long_hangs_and_is_told_once_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.training.ray_tune, "SILENT_SECONDS", 0.5)
    monkeypatch.setattr(nas.training.ray_tune, "_BETWEEN_LOOKS", 0.0)
    moving, hanging, waiting = range(3)
    saved = {moving: 0, hanging: 0, waiting: 0}
    watch, late, begin = Watch(saved.__getitem__), [], time.monotonic()
    while time.monotonic() - begin < 1.3:
        saved[moving] += 1
        late += watch.hanging([moving, hanging])
        time.sleep(0.02)
    assert late == [hanging, hanging]  # after 0.5 and 1.0 s
    assert watch.hanging([waiting]) == []  # its time begins with its work
