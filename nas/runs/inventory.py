"""Which runs there are, how each stands, and how one is removed."""

import csv
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.objectives.objective import MACS
from nas.runs.folder import RunFolder
from nas.utilities.errors import InputError

DAY = 86_400
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as it stands on disk.

    Attributes:
        path: Its folder.
        state: `running`, `finished`, or where it was stopped; `unreadable` where what lies there is
            another program's, or a run of another version.
        best: Accuracy and MACs of the best architecture so far; empty where there is none.
        changed: When a file of it was last written, in seconds since 1970.
        files: The size in bytes of each file but locks, by device and inode: what is linked
            from several runs is one.
    """

    path: Path
    state: str
    best: str
    changed: float
    files: Mapping[tuple[int, int], int]

    @classmethod
    def of(cls, path: Path) -> "Listed":
        """The run of a folder.

        Raises:
            InputError: If there is none.
        """
        folder = RunFolder.existing(path)
        # To look whether a lock is held is to write to it.
        files = (file for file in path.rglob("*") if not file.name.startswith(".lock"))
        found = []
        for file in files:
            with suppress(FileNotFoundError):  # a run that goes on has removed it
                if not file.is_dir():
                    found.append(file.lstat())
        return cls(
            path=path,
            state=_state(folder),
            best=_best(path / "pareto.csv"),
            changed=max(status.st_mtime for status in found),
            files={(status.st_dev, status.st_ino): status.st_size for status in found},
        )

    @property
    def bytes(self) -> int:
        """On disk; what other runs have by a link counts."""
        return sum(self.files.values())


def runs_in(folder: Path) -> list[Listed]:
    """The runs in a folder, the one that was written last first.

    Raises:
        InputError: If there is no such folder.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = [Listed.of(path.parent) for path in folder.glob("*/config.json")]
    return sorted(found, key=lambda run: -run.changed)


def remove(path: Path) -> None:
    """Remove a run's folder with all that lies in it. Weights that other runs have stay theirs.

    Raises:
        InputError: If there is no run, or none of this version, or a process is running in it.
    """
    folder = RunFolder.existing(path)
    if not _readable(folder):
        raise InputError(
            f"{path}: its config.json is none of a run of this version; if it is one of another, "
            "remove the folder by hand"
        )
    with folder.locked():
        shutil.rmtree(path)


def _readable(folder: RunFolder) -> bool:
    try:
        return bool(folder.config)
    except InputError:
        return False


def _state(folder: RunFolder) -> str:
    if not _readable(folder):
        return "unreadable"
    if os.access(folder.path, os.W_OK):  # who cannot write there may look all the same
        try:
            with folder.locked():
                pass
        except InputError:
            return "running"
    if not folder.checkpoint.exists():
        return "stopped in training"
    return "finished" if folder.finished else "stopped in the search"


def _best(table: Path) -> str:
    """The best row of `pareto.csv`, for people; empty where it has none or is damaged."""
    try:
        with table.open(encoding="utf-8", newline="") as file:
            rows = [
                (int(row["standing"]), float(row["macs"]), float(row["accuracy"]))
                for row in csv.DictReader(file)
            ]
    except (OSError, KeyError, ValueError, TypeError, csv.Error):
        return ""
    if not rows:
        return ""
    _, macs, accuracy = min(rows)
    return f"{100 * accuracy:.1f} % at {MACS.amount(macs)}"
