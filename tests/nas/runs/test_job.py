import json
import time
from pathlib import Path

import pytest

from nas.runs.job import Clock


def test_time_is_known_before_a_part_ends_and_goes_on_from_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.runs.job.KEPT_SECONDS", 0.01)
    file = tmp_path / "seconds.json"
    file.write_text('{"training": 100.0, "search": 7.0}')
    with Clock(file).measuring("training"):
        while Clock(file).seconds("training") == 100:
            time.sleep(0.01)
        killed = json.loads(file.read_text())  # what a process that is killed now leaves
    assert 100 < killed["training"] < 200
    assert killed["training"] < Clock(file).seconds("training") < 200
    assert Clock(file).seconds("search") == 7


def test_a_disk_that_is_full_now_and_then_is_no_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas.runs.job.KEPT_SECONDS", 0.01)
    clock = Clock(tmp_path / "gone" / "seconds.json")
    (tmp_path / "gone").write_text("a file where a folder should be")
    with clock.measuring("training"):
        time.sleep(0.1)
        (tmp_path / "gone").unlink()
    assert clock.seconds("training") >= 0.1
