"""What the data of a run are, image by image, so that they stay what they were."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from filecmp import cmp as same_content
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.data.dataset import ROLES, Data, Role, Samples
from nas.data.images import TransformedImages
from nas.utilities.errors import InputError
from nas.utilities.files import write_text
from nas.utilities.units import first_of

_PIECE = 16 << 10
_WHOLE = 4 * _PIECE  # files up to this size are read to their end


class ImageFile(NamedTuple):
    """One image that is a file.

    Attributes:
        path: From the root of the data, with forward slashes; bytes that are not UTF-8 escaped.
        size: In bytes.
        changed: When the file system last saw a change of it, in nanoseconds.
        digest: Of its content, 16 hex digits: of all of it up to 64 KiB; of larger files the first,
            the middle and the last 16 KiB, and the size.
    """

    path: str
    size: Annotated[int, Field(ge=0)]
    changed: int
    digest: str


class SplitManifest(BaseModel):
    """One split.

    Attributes:
        images: How many images there are.
        labels: Digest of their labels, where the images are no files.
        files: Where they are: of each class, by its name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    images: int
    labels: str = ""
    files: dict[str, list[ImageFile]] = Field(default_factory=dict)


class Manifest(BaseModel):
    """What `data.json` of a run holds.

    Attributes:
        name: What the data are called.
        class_names: In the order of the labels.
        splits: By what they are for.
        notes: How the splits came about, and what was passed over and why.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    name: str
    class_names: list[str]
    splits: dict[Role, SplitManifest]
    notes: list[str]

    @classmethod
    def of(cls, data: Data, known: Manifest | None = None) -> Manifest:
        """The manifest of data.

        Args:
            data: As they are now.
            known: As they were; files that did not change since are not read again.

        Raises:
            InputError: If a file cannot be read.
        """
        before = known.files if known else {}
        return cls(
            name=data.name,
            class_names=list(data.class_names),
            splits={role: _split(getattr(data, role), data, before) for role in ROLES},
            notes=list(data.notes),
        )

    @classmethod
    def load(cls, path: Path) -> Manifest:
        """Read a manifest.

        Raises:
            InputError: If the file is damaged.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the file"
            raise InputError(
                f"{path}: damaged ({where}: {first['msg']}); delete it if the data are still those "
                "of the run"
            ) from None

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_text(path, self.model_dump_json(indent=1) + "\n")

    @property
    def files(self) -> dict[str, ImageFile]:
        """All images that are files, by path."""
        return {
            file.path: file
            for split in self.splits.values()
            for files in split.files.values()
            for file in files
        }

    def difference(self, now: Manifest) -> str | None:
        """How the data have changed, in words; None if they have not.

        The name does not count: a folder may be moved.
        """
        before, after = self.files, now.files
        gone = [path for path in before if path not in after]
        come = [path for path in after if path not in before]
        other = [
            path
            for path in before.keys() & after.keys()
            if before[path].digest != after[path].digest
        ]
        renamed = _renamed([before[path] for path in gone], [after[path] for path in come])
        gone = [path for path in gone if path not in renamed]
        come = [path for path in come if path not in renamed.values()]
        changes = [
            *_told(gone, "gone"),
            *_told(come, "new"),
            *_told(sorted(other), "changed"),
            *_told([f"{old} to {path}" for old, path in renamed.items()], "renamed"),
        ]
        if changes:
            return "; ".join(changes)
        if self.class_names != now.class_names:
            here, there = first_of(now.class_names), first_of(self.class_names)
            return f"the classes are {here}, and were {there}"
        for role in ROLES:
            old, new = self.splits[role], now.splits[role]
            if old.images != new.images:
                return f"the {role} split has {new.images:,} images, and had {old.images:,}"
            if old.labels != new.labels or _paths(old) != _paths(new):
                return f"the {role} split has other images or labels"
        return None

    def leaks(self, root: Path) -> list[str]:
        """A sentence for each two splits that have an image in common, under whatever names.

        Args:
            root: Of the data. Files with the same digest are compared to their ends.
        """
        paths: dict[Role, dict[str, str]] = {
            role: {file.digest: file.path for some in split.files.values() for file in some}
            for role, split in self.splits.items()
        }
        sentences = []
        for first, second in combinations(ROLES, 2):
            one, other = paths[first], paths[second]
            both = [
                (one[digest], other[digest])
                for digest in one.keys() & other.keys()
                if _same_content(root / one[digest], root / other[digest])
            ]
            if both:
                examples = first_of([f"{a} = {b}" for a, b in sorted(both)])
                sentences.append(
                    f"leak: {len(both):,} images of {second} are in {first}, too ({examples})"
                )
        return sentences


def _same_content(one: Path, other: Path) -> bool:
    """Whether two files of the same digest are equal to their ends.

    Where the name of one is no text, it is not found by what stands for it here, and the digest
    decides.
    """
    try:
        return same_content(one, other, shallow=False)
    except FileNotFoundError:
        return True


def content_digest(path: Path, size: int) -> str:
    """The digest of a file's content, as `ImageFile` says.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.blake2b(str(size).encode(), digest_size=8)
    with path.open("rb") as file:
        if size <= _WHOLE:
            digest.update(file.read())
        else:
            for start in (0, (size - _PIECE) // 2, size - _PIECE):
                file.seek(start)
                digest.update(file.read(_PIECE))
    return digest.hexdigest()


def _split(samples: Samples, data: Data, known: Mapping[str, ImageFile]) -> SplitManifest:
    if not isinstance(samples, TransformedImages):  # drawn, by the seed of the run
        return SplitManifest(images=len(samples))
    images = samples.images
    if data.root is None:
        labels = hashlib.blake2b(repr(list(images.labels)).encode(), digest_size=8).hexdigest()
        return SplitManifest(images=len(images), labels=labels)
    files: dict[str, list[ImageFile]] = {name: [] for name in data.class_names}
    with ThreadPoolExecutor() as pool:
        looked_at = pool.map(partial(_look_at, root=data.root, known=known), images.sources)
        for file, label in zip(looked_at, images.labels, strict=True):
            files[data.class_names[label]].append(file)
    return SplitManifest(images=len(images), files=files)


def _look_at(path: Path, *, root: Path, known: Mapping[str, ImageFile]) -> ImageFile:
    name = os.fsencode(path.relative_to(root).as_posix())
    relative = name.decode(errors="backslashreplace")
    try:
        status = path.stat()
        before = known.get(relative)
        if before and (before.size, before.changed) == (status.st_size, status.st_ctime_ns):
            return before
        digest = content_digest(path, status.st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    return ImageFile(relative, status.st_size, status.st_ctime_ns, digest)


def _paths(split: SplitManifest) -> dict[str, list[str]]:
    return {name: [file.path for file in files] for name, files in split.files.items()}


def _renamed(gone: Sequence[ImageFile], new: Sequence[ImageFile]) -> dict[str, str]:
    """New paths by old ones, of files that are there under another name."""
    waiting: dict[str, list[str]] = {}
    for file in new:
        waiting.setdefault(file.digest, []).append(file.path)
    return {file.path: waiting[file.digest].pop(0) for file in gone if waiting.get(file.digest)}


def _told(paths: Sequence[str], what: str) -> Iterator[str]:
    if paths:
        yield f"{len(paths):,} {what} ({first_of(paths)})"
