"""Which runs there are, how each stands, and how one is removed."""

import csv
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from nas.objectives.objective import MACS
from nas.runs.folder import RunFolder
from nas.utilities.errors import InputError
from search_space.bounds import read_limited

DAY = 86_400
"""Seconds."""


@dataclass(frozen=True, kw_only=True)
class Listed:
    """A run as it stands on disk.

    Attributes:
        path: Its folder.
        state: `running`, `finished`, or where it was stopped.
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
        folder = _folder(path)
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
    configs = filter(_is_of_a_run, folder.glob("*/config.json"))
    found = [Listed.of(path.parent) for path in configs]
    return sorted(found, key=lambda run: -run.changed)


def remove(path: Path) -> None:
    """Remove a run's folder with all that lies in it. Weights that other runs have stay theirs.

    Raises:
        InputError: If there is no run, or a process is running in it.
    """
    folder = _folder(path)
    with folder.locked():
        shutil.rmtree(path)


def _folder(path: Path) -> RunFolder:
    """The folder of a run.

    It may be damaged, of an earlier version, or have an objective that is not known here.

    Raises:
        InputError: If there is none, or its `config.json` is another program's.
    """
    folder = RunFolder.existing(path)
    if not _is_of_a_run(folder.config_file):
        raise InputError(f"{path}: no run here (its config.json is another program's)")
    return folder


def _is_of_a_run(config_file: Path) -> bool:
    """Whether a configuration has what every run's has, or is damaged."""
    try:
        known = json.loads(read_limited(config_file))
    except (OSError, ValueError, RecursionError):
        return True
    return isinstance(known, dict) and known.keys() >= {"space", "proxy_size", "search_images"}


def _state(folder: RunFolder) -> str:
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
