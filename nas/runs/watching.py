"""A run's report, drawn again and again by another process while the run goes on."""

import dataclasses
import os
import tempfile
import time
from pathlib import Path

from rich.console import Console

from nas.report.pages import RELOAD_SECONDS, write_progress
from nas.report.run_summary import RunSummary
from nas.runs.drawing import kept_trainings, write_pages
from nas.runs.folder import RunFolder

LAST_LINES = 20
"""Of the log, which are shown while there are no trials."""


def watch(path: Path, console: Console) -> None:
    """Draw a run's `report.html` anew whenever the run has written something, until it is finished.

    The page loads itself again every `RELOAD_SECONDS`. The last one is the run's own.

    Args:
        path: The run's folder.
        console: Where it is told.

    Raises:
        InputError: If there is no run, or what it wrote is damaged.
    """
    folder = RunFolder.existing(path)
    console.print(f"report: {folder.path / 'report.html'}", soft_wrap=True)
    seen: list[int] = []
    while not folder.finished:
        files = [file for file in (folder.log, folder.journal) if file.exists()]
        written = [file.stat().st_mtime_ns for file in files]
        if written and written != seen:
            _draw(folder)
            seen = written
        time.sleep(RELOAD_SECONDS)
        folder = RunFolder.existing(path)  # it may have been removed
    console.print("the run is finished")


def _draw(folder: RunFolder) -> None:
    """Draw the report of a run that goes on, in a folder apart: the run may be writing its own.

    Networks that were retrained before it went on are left out until it is finished.
    """
    told = f"This run is not finished. Drawn at {time.strftime('%H:%M:%S')}."
    with tempfile.TemporaryDirectory(dir=folder.path, prefix=".watch-") as apart:
        page = Path(apart) / "report.html"
        begun = folder.journal.exists() and folder.journal.stat().st_size > 0
        if begun and folder.summary_so_far.exists():
            summary = RunSummary.load(folder.summary_so_far)
            trainings = dataclasses.replace(kept_trainings(folder), retrained=())
            write_pages(folder, page.parent, summary, trainings, under_way=told)
        else:
            lines = folder.log.read_text(encoding="utf-8", errors="replace").splitlines()
            title = f"Architecture search: {folder.path.name}"
            write_progress(page, title, told, lines[-LAST_LINES:])
        if not folder.searched:
            os.replace(page, folder.path / page.name)
