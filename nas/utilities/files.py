"""Files that are never seen half-written, and files that are read back whatever they hold."""

import csv
import errno
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError

from nas.utilities.errors import InputError
from search_space.architecture import first_error
from search_space.bounds import read_limited

T = TypeVar("T")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path that takes the place of `path` when the block ends without an error.

    It lies in a hidden folder beside `path`, whose name is always the same: what a killed process
    left there, be it a temporary file of the library that writes, is removed by the next.

    Raises:
        OSError: If it cannot be written; it names the path.
    """
    with naming(path), _scratch_folder(path) as folder:
        temporary = folder / path.name
        yield temporary
        _replace(temporary, path)


@contextmanager
def replacing_files(folder: Path, *, last: str) -> Iterator[Path]:
    """A new folder whose files take their places in `folder` when the block ends without an error.

    What else is in `folder` stays there.

    Args:
        folder: Where they go; created if needed.
        last: The file that is gone before the first is replaced, and put in its place after all
            others: where it is, they belong together.

    Raises:
        OSError: If something cannot be written; it names the folder.
    """
    with naming(folder), _scratch_folder(folder) as written:
        yield written
        folder.mkdir(exist_ok=True)
        (folder / last).unlink(missing_ok=True)
        for file in sorted(written.iterdir(), key=lambda file: file.name == last):
            _replace(file, folder / file.name)


def _replace(temporary: Path, path: Path) -> None:
    """Move a whole file to its place, with the permissions of any other new one.

    safetensors makes private files.
    """
    umask = os.umask(0)
    os.umask(umask)
    temporary.chmod(0o666 & ~umask)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def _scratch_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path`, whose folders are created; gone in the end."""
    folder = path.with_name(f".{path.name}.new")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let errors of writing name the path; those of safetensors are OSErrors, too."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error
    except SafetensorError as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def check_room(folder: Path, needed: float) -> None:
    """See that so many bytes can be written into a folder.

    Raises:
        InputError: If its disk has not so many free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: some {needed / 1e6:,.0f} MB will be written here, and {free / 1e6:,.0f} MB "
            "are free; give an `out` with more room"
        )


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old or the new one, never a part."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a table below a line of names, as `write_text` writes; None is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_csv(path: Path, row: Callable[[list[str]], T], *, remedy: str) -> list[T]:
    """What the lines of a table hold; one at the end that a killed process began is left out.

    Args:
        path: The file.
        row: What the cells of a line hold; raises ValueError if they are wrong.
        remedy: What to do where the table cannot be read, or holds anything else.

    Raises:
        InputError: Then; it names the file and the first line that is wrong.
    """
    rows: list[T] = []
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        names, *lines = list(csv.reader(io.StringIO(whole), strict=True)) or [[]]
        for cells in lines:
            if len(cells) != len(names):
                raise ValueError(f"{len(cells)} cells of {len(names)}")
            rows.append(row(cells))
        return rows
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path}: line {len(rows) + 2} is damaged ({error}); {remedy}") from None


def write_json(path: Path, value: object) -> None:
    """Write indented JSON, as `write_text` writes."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def read_json(path: Path, kind: type[T], *, remedy: str) -> T:
    """What a JSON file of a run holds.

    Args:
        path: The file.
        kind: What it should hold.
        remedy: What to do where it cannot be read, or holds anything else.

    Raises:
        InputError: Then; it names the file and the first field that is wrong.
    """
    try:
        return TypeAdapter(kind).validate_json(read_limited(path))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {remedy}") from None
    except ValidationError as error:
        raise InputError(f"{path}: {first_error(error)}; {remedy}") from None
