"""What the person at the terminal sees while a run goes on."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

PLAIN_SECONDS = 10.0
"""Seconds between lines where the output is no terminal, such as a file or a job's log."""


def terminal(*, quiet: bool = False) -> Console:
    """Where the commands print: text as it is, square brackets and all.

    Args:
        quiet: Print nothing.
    """
    return Console(quiet=quiet, markup=False, highlight=False)


class LiveLine:
    """A bar with a count, a remaining time and a changing text; plain lines in a log.

    Args:
        console: Where to show it.
        title: What is going on.
        total: Units of work.
        done: Units that are done already.
    """

    def __init__(self, console: Console, title: str, *, total: int, done: int = 0) -> None:
        self.console, self.title, self.total = console, title, total
        self._first: tuple[float, float] | None = None  # share and time of the first update
        self._shown = 0.0
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            TextColumn("{task.fields[eta]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=total, completed=done, text="", eta="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def update_share(self, share: float, text: str) -> None:
        """Show what share of the work is done, where its units tell nothing, and the text."""
        self.update(round(share * self.total), text, share=share)

    def update(self, done: int, text: str, *, share: float | None = None) -> None:
        """Show how many units are done, and the text.

        The pace is counted from the first update on: what was done before it, an earlier process
        may have done.

        Args:
            done: Units that are done.
            text: Whatever changes.
            share: Share of the work that is done, where units differ in work.
        """
        share = done / self.total if share is None else share
        now = time.monotonic()
        if self._first is None:
            self._first = share, now
        eta = ""
        if share > self._first[0]:
            left = round((now - self._first[1]) * (1 - share) / (share - self._first[0]))
            eta = f"ETA {left // 60}:{left % 60:02d}"
        self._progress.update(self._task, completed=done, text=text, eta=eta)
        due = now - self._shown >= PLAIN_SECONDS or done >= self.total
        if not self.console.is_terminal and due:
            self._shown = now
            self.console.print(
                f"{self.title} {done}/{self.total} {text} {eta}".rstrip(),
                soft_wrap=True,
            )
