"""Files that are never seen half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Its name is always the same, so that what a killed process left is overwritten by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        make_readable(temporary)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` that takes its place when the block ends without an error.

    What a killed process left half-written is removed by the next.
    """
    written, old = (path.with_name(f".{path.name}.{state}") for state in ("tmp", "old"))
    for leftover in (written, old):
        shutil.rmtree(leftover, ignore_errors=True)
    written.mkdir(parents=True)
    try:
        yield written
        if path.exists():
            path.rename(old)
        written.rename(path)
    finally:
        for leftover in (written, old):
            shutil.rmtree(leftover, ignore_errors=True)


def make_readable(path: Path) -> None:
    """Give a file the permissions of any other new one; safetensors makes private files."""
    umask = os.umask(0)
    os.umask(umask)
    path.chmod(0o666 & ~umask)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, as `write_text` writes."""
    write_text(path, json.dumps(value, indent=2) + "\n")
