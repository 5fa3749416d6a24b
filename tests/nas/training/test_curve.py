"""The table of a supernet's training, which a killed process leaves and another goes on with."""

from pathlib import Path

import pytest

from nas.training.curve import CurvePoint, curve_written, read_curve
from nas.training.supernet import Progress
from nas.utilities.errors import InputError


def step(number: int, part: str = "supernet", *, loss: float = 1.0, **seen: float) -> Progress:
    assert part in ("teacher", "supernet")
    kind = "teacher" if part == "teacher" else "supernet"
    return Progress(part=kind, step=number, steps=9, loss=loss, accuracies=seen)


def train(path: Path, *steps: Progress) -> None:
    """What one process writes."""
    with curve_written(path) as curve:
        for progress in steps:
            curve.add(progress)


def places(path: Path) -> list[tuple[str, int]]:
    return [(point.part, point.step) for point in read_curve(path)]


def test_every_step_is_a_line_with_the_accuracies_that_were_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "supernet" / "curve.csv"
    looked = step(2, loss=0.5, largest=0.75, smallest=float("nan"), random=0.5)
    train(path, step(1, "teacher"), step(1), looked)
    assert read_curve(path) == [
        CurvePoint("teacher", 1, 1.0, [None, None, None]),
        CurvePoint("supernet", 1, 1.0, [None, None, None]),
        CurvePoint("supernet", 2, 0.5, [0.75, None, 0.5]),
    ]


def test_steps_that_are_done_again_after_a_kill_are_in_the_table_once(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    train(path, step(1, "teacher"), *(step(number) for number in (1, 2, 3, 4)))
    train(path, *(step(number, loss=2.0) for number in (3, 4, 5)))
    assert places(path) == [("teacher", 1), *(("supernet", number) for number in (1, 2, 3, 4, 5))]
    assert [point.loss for point in read_curve(path)] == [1, 1, 1, 2, 2, 2]


def test_a_training_that_begins_anew_within_a_process_begins_its_table_anew(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    train(path, step(1, "teacher"), step(1), step(2), step(1, "teacher"))
    assert places(path) == [("teacher", 1)]


def test_steps_are_on_disk_as_soon_as_they_are_told(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    with curve_written(path) as curve:
        curve.add(step(1))
        curve.add(step(2))
        assert places(path) == [("supernet", 1), ("supernet", 2)]


def test_a_line_that_a_killed_process_began_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "curve.csv"
    train(path, step(1), step(2))
    path.write_text(path.read_text() + "supernet,3,0.")
    assert places(path) == [("supernet", 1), ("supernet", 2)]
    train(path, step(3))
    assert places(path) == [("supernet", 1), ("supernet", 2), ("supernet", 3)]


@pytest.mark.parametrize("line", ["supernet,one,1,,,", "pupil,3,1,,,", "supernet,3", "\x00"])
def test_a_damaged_table_is_named_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "curve.csv"
    train(path, step(1))
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InputError, match=r"curve.csv: line 3 is damaged .*; delete it"):
        read_curve(path)


def test_without_a_table_there_are_no_steps(tmp_path: Path) -> None:
    assert read_curve(tmp_path / "curve.csv") == []
