"""The curve of a supernet's training: a table on disk that grows by a line with every step."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from nas.training.supernet import WATCHED, Progress
from nas.utilities.files import naming, read_csv, write_csv

_PARTS = ("teacher", "supernet")
_COLUMNS = ("part", "step", "loss", *WATCHED)


class CurvePoint(NamedTuple):
    """One step of a training.

    Attributes:
        part: `teacher` or `supernet`.
        step: Its number in the part, from 1.
        loss: Of its first lesson.
        accuracies: After it, of the subnets `WATCHED`, 0 to 1; None where there was no look.
    """

    part: str
    step: int
    loss: float
    accuracies: Sequence[float | None]

    @property
    def place(self) -> tuple[int, int]:
        """Of the step among all of the training: the teacher learns before the supernet."""
        return _PARTS.index(self.part), self.step


def read_curve(path: Path) -> list[CurvePoint]:
    """The steps that a table holds, in their order; none where there is no table.

    Raises:
        InputError: If it is damaged. A last line that a killed process began is passed over.
    """
    if not path.exists():
        return []
    return read_csv(path, _point, remedy="delete it, and pages go without the curve")


def _point(cells: Sequence[str]) -> CurvePoint:
    part, step, loss, *accuracies = cells
    _PARTS.index(part)
    return CurvePoint(part, int(step), float(loss), [float(a) if a else None for a in accuracies])


@contextmanager
def curve_written(path: Path) -> Iterator["CurveWriter"]:
    """What writes the progress of a training into a table, which may hold some of it already."""
    with ExitStack() as closing:
        yield CurveWriter(path, closing)


class CurveWriter:
    """Adds a line for each step.

    A training goes on from its last saved state, which is of an earlier step than the process
    before came to: the lines of steps that are done again give way to the new ones. So every step
    is in the table once, as in one of a training that nobody interrupted.

    Args:
        path: Of the table.
        closing: Closes the file in the end.
    """

    def __init__(self, path: Path, closing: ExitStack) -> None:
        self._path, self._closing = path, closing
        self._file: BinaryIO | None = None
        self._last = (0, 0)

    def add(self, progress: Progress) -> None:
        """Write down a step.

        Raises:
            InputError: If the table is damaged.
            OSError: If it cannot be written; it names the table.
        """
        accuracies = [progress.accuracies.get(role) for role in WATCHED]
        point = CurvePoint(progress.part, progress.step, progress.loss, accuracies)
        if self._file is None or point.place <= self._last:
            self._file = self._cut_before(point)
        with naming(self._path):
            self._file.write((",".join(_cells(point)) + "\n").encode())
        self._last = point.place

    def _cut_before(self, point: CurvePoint) -> BinaryIO:
        """The table without this step and later ones, open at its end."""
        self._closing.close()
        kept = [known for known in read_curve(self._path) if known.place < point.place]
        write_csv(self._path, _COLUMNS, map(_cells, kept))
        # Without a buffer, so that a killed process leaves every step that it has done.
        return self._closing.enter_context(self._path.open("ab", buffering=0))


def _cells(point: CurvePoint) -> list[str]:
    accuracies = ("" if a is None or math.isnan(a) else f"{a:.4f}" for a in point.accuracies)
    return [point.part, str(point.step), f"{point.loss:.5g}", *accuracies]
