import io

import pytest
from rich.console import Console

import nas.utilities.progress
from nas.utilities.progress import LiveLine


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(nas.utilities.progress.time, "monotonic", lambda: now[0])
    return now


def test_the_remaining_time_counts_from_the_first_update(clock: list[float]) -> None:
    out = io.StringIO()
    line = LiveLine(Console(file=out, width=80), "training", total=300)
    line.update(201, "resumed")  # after 200 steps of an earlier process
    clock[0] += 20
    line.update(211, "later")
    assert out.getvalue().splitlines() == [
        "training 201/300 resumed",
        "training 211/300 later ETA 2:58",
    ]


def test_the_remaining_time_counts_work_where_units_differ_in_it(clock: list[float]) -> None:
    out = io.StringIO()
    line = LiveLine(Console(file=out, width=80), "training", total=10)
    line.update(0, "", share=0.0)
    clock[0] += 60
    line.update(5, "", share=0.25)
    assert out.getvalue().splitlines()[-1] == "training 5/10  ETA 3:00"


def test_a_log_gets_a_line_every_ten_seconds_and_the_last_one(clock: list[float]) -> None:
    out = io.StringIO()
    line = LiveLine(Console(file=out, width=80), "searching", total=40)
    for done in range(1, 41):
        line.update(done, "")
        clock[0] += 1
    shown = [text.split()[1] for text in out.getvalue().splitlines()]
    assert shown == ["1/40", "11/40", "21/40", "31/40", "40/40"]
