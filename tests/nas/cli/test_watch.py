"""`nas watch`."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL, Fork, Outcome, command

import nas.runs.watching
from nas.runs.folder import RunFolder

RELOAD = '<meta http-equiv="refresh"'


@pytest.fixture
def folder(small_run: Path, tmp_path: Path) -> RunFolder:
    """A copy of the finished run as it was before its end."""
    folder = RunFolder(shutil.copytree(small_run, tmp_path / "run"))
    folder.summary.rename(folder.summary_so_far)
    shutil.rmtree(folder.best)
    return folder


def report(folder: RunFolder) -> str:
    return (folder.path / "report.html").read_text(encoding="utf-8")


@pytest.fixture
def watch(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[[], None]], Outcome]:
    """What watches the run, and does something instead of each wait."""

    def watching(meanwhile: Callable[[], None]) -> Outcome:
        monkeypatch.setattr(time, "sleep", lambda seconds: meanwhile())
        return command("watch", folder.path)

    return watching


def test_the_report_of_a_run_that_goes_on_is_drawn_until_it_is_finished(
    folder: RunFolder, watch: Callable[[Callable[[], None]], Outcome]
) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
    del before["report.html"]

    def finish() -> None:
        assert RELOAD in report(folder)
        assert "This run is not finished." in report(folder)
        assert "The best architecture is right on" in report(folder)
        assert "--top 3" not in report(folder)  # nothing is exported yet
        after = {path.name: path.stat().st_mtime_ns for path in folder.path.iterdir()}
        assert {name: after[name] for name in before} == before
        assert after.keys() == {*before, "report.html"}
        folder.summary_so_far.rename(folder.summary)

    outcome = watch(finish)
    assert (outcome.status, outcome.err) == (0, "")
    assert f"report: {folder.path}/report.html" in outcome.out
    assert "the run is finished" in outcome.out


def test_the_report_is_drawn_again_when_the_run_has_written_something_and_only_then(
    folder: RunFolder,
    watch: Callable[[Callable[[], None]], Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lines = folder.journal.read_bytes().splitlines(keepends=True)
    folder.journal.write_bytes(b"".join(lines[:2]))  # no trials yet
    waits, drawn = 0, []

    def meanwhile() -> None:
        nonlocal waits
        waits += 1
        assert waits < 4
        drawn.append(report(folder))
        if waits == 2:
            folder.journal.write_bytes(b"".join(lines))
        if waits == 3:
            folder.summary_so_far.rename(folder.summary)

    assert watch(meanwhile).status == 0
    first, second, third = drawn
    assert "No architecture was evaluated" in first
    assert second == first
    assert "6 evaluated" in third


def test_before_the_first_trial_the_page_shows_the_end_of_the_log(
    folder: RunFolder, watch: Callable[[Callable[[], None]], Outcome]
) -> None:
    folder.journal.unlink()
    with folder.log.open("a", encoding="utf-8") as log:
        log.write("step 7/9 <b> loss 2.1\n")

    def finish() -> None:
        assert RELOAD in report(folder)
        assert "step 7/9 &lt;b&gt; loss 2.1" in report(folder)
        folder.summary_so_far.rename(folder.summary)

    assert watch(finish).status == 0


def test_a_page_that_is_drawn_while_the_run_comes_to_its_end_does_not_take_the_place_of_its_own(
    folder: RunFolder,
    watch: Callable[[Callable[[], None]], Outcome],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    draw = nas.runs.watching.write_pages

    def draw_too_late(*given: Any, **named: Any) -> None:
        draw(*given, **named)
        shutil.copy(folder.summary_so_far, folder.summary)
        (folder.path / "report.html").write_text("the run's own")

    monkeypatch.setattr(nas.runs.watching, "write_pages", draw_too_late)
    assert watch(folder.summary_so_far.unlink).status == 0
    assert report(folder) == "the run's own"


def test_ctrl_c_ends_the_watching(
    folder: RunFolder, watch: Callable[[Callable[[], None]], Outcome]
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    outcome = watch(interrupt)
    assert (outcome.status, outcome.err) == (130, "stopped\n")


def test_a_run_that_is_removed_meanwhile_is_told_in_one_line(
    folder: RunFolder, watch: Callable[[Callable[[], None]], Outcome]
) -> None:
    outcome = watch(lambda: shutil.rmtree(folder.path))
    assert (outcome.status, outcome.err) == (
        2,
        f"error: {folder.path}: no run here (it has no config.json)\n",
    )


@pytest.mark.slow
def test_a_run_in_another_process_is_watched_to_its_end_and_has_the_last_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "run")
    seen = []

    def wait(seconds: float) -> None:
        seen.append(report(folder) if (folder.path / "report.html").exists() else "")
        really(0.1)

    flags = (*SMALL, "--steps", "20", "--trials", "20", "--out", folder.path)
    run = Fork("-m", "nas", "search", *flags)
    while not folder.log.exists():
        time.sleep(0.05)
    really = time.sleep
    monkeypatch.setattr(nas.runs.watching.time, "sleep", wait)
    outcome = command("watch", folder.path)
    assert (outcome.status, outcome.err) == (0, "")
    assert run.finish().status == 0
    assert any("/20 loss" in page and RELOAD in page for page in seen)
    assert any("Pareto front" in page and RELOAD in page for page in seen)
    assert RELOAD not in report(folder)
    assert not list(folder.path.glob(".watch-*"))
    assert not folder.summary_so_far.exists()
    assert json.loads(folder.summary.read_text())["supernet_steps"] == 20
