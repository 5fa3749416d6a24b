"""A folder of class folders, with or without a folder per split above them."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nas.data.images import ImageSource, LabelledImages, SplitName, check_image, read_image
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed
from nas.utilities.units import first_of

logger = logging.getLogger(__name__)

CHECKED_FILES = 5000

_SPLIT_NAMES: Mapping[SplitName, tuple[str, ...]] = {
    "train": ("train", "training"),
    "validation": ("val", "valid", "validation", "dev"),
    "search": ("search",),
    "test": ("test", "testing", "eval", "evaluation"),
}
"""What folders of splits are called, in capitals or not."""

_NOT_DECODED = ("BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF")
"""Formats that Pillow tells apart but hands on to other programs."""


def read_folder(root: Path, *, seed: int) -> ImageSource:
    """Find the images of `root/<class>/` or `root/<split>/<class>/`, and decode them once.

    Classes are in natural order (`class2` before `class10`), as timm has them. Every file that
    Pillow decodes is an image, and each real file is one image, whatever links lead to it. What is
    passed over is counted in the notes, hidden files aside. Of more than 5,000 images a sample is
    decoded, which `seed` chooses.

    Raises:
        InputError: It is no folder or not laid out so, a class has no image, there are fewer than
            two classes, splits differ in their classes, a class's name is not UTF-8, or an image
            is broken.
    """
    if not root.is_dir():
        raise InputError(f"{root}: not a folder; give a folder of class folders")
    try:
        folders, notes = _split_folders(root)
        classes = {split: _class_folders(folder) for split, folder in folders.items()}
        found, passed_over = _images_of(classes)
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    class_names = tuple(found["train"])
    if len(class_names) < 2:
        raise InputError(
            f"{folders['train']}: one class only ({class_names[0]}); at least two are needed"
        )
    for split, images_of in found.items():
        different = sorted(set(class_names) ^ set(images_of))
        if different:
            raise InputError(
                f"{folders[split]}: classes differ from those of {folders['train']}: "
                f"{', '.join(different)} in one of them only"
            )
    splits = {split: _labelled(images_of, class_names) for split, images_of in found.items()}
    turned = _check([path for images in splits.values() for path in images.sources], seed)
    if passed_over:
        counted = (f"{count:,} {kind}" for kind, count in sorted(passed_over.items()))
        notes = [*notes, f"passed over: {', '.join(counted)}"]
    if turned:
        notes = [*notes, f"{turned:,} images are turned as their EXIF orientation says"]
    return ImageSource(
        name=root.resolve().name,
        splits=splits,
        class_names=class_names,
        notes=tuple(notes),
        root=root,
    )


@cache
def image_extensions() -> frozenset[str]:
    """The extensions, in small letters and with their dot, of what Pillow decodes."""
    return frozenset(
        extension
        for extension, kind in Image.registered_extensions().items()
        if kind in Image.OPEN and kind not in _NOT_DECODED
    )


def _split_folders(root: Path) -> tuple[dict[SplitName, Path], list[str]]:
    """The folder of each split, and notes; `root` itself holds the training images without any."""
    named: dict[SplitName, Path] = {}
    classes: list[str] = []  # called like splits, but images lie in them
    others: list[str] = []
    visible = _visible_folders(root)
    for folder in visible:
        split = next(
            (s for s, names in _SPLIT_NAMES.items() if folder.name.casefold() in names), None
        )
        if split is None:
            others.append(folder.name)
        elif not _visible_folders(folder):
            # A folder "train" of images rather than folders is a class (of vehicles, say).
            classes.append(folder.name)
        elif split in named:
            raise InputError(f"{root}: has both {named[split].name} and {folder.name}; keep one")
        else:
            named[split] = folder
    if not named:
        if classes and not others:
            raise InputError(
                f"{root}: has only {', '.join(classes)}, which are called like splits but hold no "
                f"class folders; expected {root}/{classes[0]}/<class>/<image>.jpg"
            )
        return {"train": root}, [f"the folder {name} is a class here" for name in classes]
    if "train" not in named:
        raise InputError(
            f"{root}: has split folders ({', '.join(path.name for path in named.values())}) "
            "but no train folder of class folders"
        )
    unused = [*classes, *others]
    return named, [f"passed over beside the splits: {', '.join(unused)}"] if unused else []


def _class_folders(folder: Path) -> dict[str, Path]:
    """The folder of each class of a split, in natural order."""
    classes = {path.name: path for path in _visible_folders(folder)}
    if not classes:
        raise InputError(f"{folder}: no class folders; expected {folder}/<class>/<image>.jpg")
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError:
            told = os.fsencode(name).decode(errors="backslashreplace")
            raise InputError(
                f"{folder}: the name of the class folder {told} is not UTF-8; rename it"
            ) from None
    return {name: classes[name] for name in sorted(classes, key=_place)}


class _File(NamedTuple):
    """An image: by which path it was found, where it really lies, whether a link led there."""

    path: Path
    real: str
    linked: bool


def _images_of(
    classes: Mapping[SplitName, Mapping[str, Path]],
) -> tuple[dict[SplitName, dict[str, list[Path]]], Counter[str]]:
    """The images of each class of each split in natural order, and what was passed over."""
    passed_over: Counter[str] = Counter()
    files = {
        (split, name): list(_files(folder, passed_over))
        for split, folders in classes.items()
        for name, folder in folders.items()
    }
    # What is reached by a link may be another class's own: that one keeps it.
    taken = {file.real for some in files.values() for file in some if not file.linked}
    found: dict[SplitName, dict[str, list[Path]]] = {split: {} for split in classes}
    for (split, name), some in files.items():
        images = []
        for file in some:
            if file.linked and file.real in taken:
                passed_over["links to images that are there already"] += 1
                continue
            taken.add(file.real)
            images.append(file.path)
        if not images:
            raise InputError(
                f"{classes[split][name]}: class folder without images (.jpg, .png and what else "
                "Pillow reads); fill it or remove it"
            )
        found[split][name] = sorted(images, key=lambda path: _place(str(path)))
    return found, passed_over


def _place(name: str) -> tuple[object, str]:
    """What names are ordered by; the natural order alone has equals, such as `1.png` and `01.png`.

    timm takes a second to import.
    """
    from timm.utils import natural_key

    return natural_key(name), name


def _files(folder: Path, passed_over: Counter[str]) -> Iterator[_File]:
    """Every image below a class folder; counts what else lies there."""

    def fail(error: OSError) -> None:
        raise error

    extensions, top = image_extensions(), os.path.realpath(folder)
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        real = os.path.realpath(parent)
        linked = real != os.path.normpath(os.path.join(top, os.path.relpath(parent, folder)))
        kept = []
        for name in folders:
            target = os.path.realpath(os.path.join(parent, name))
            if name.startswith("."):
                continue
            if os.path.islink(os.path.join(parent, name)) and _lies_in(real, target):
                passed_over["links to a folder above"] += 1
            else:
                kept.append(name)
        folders[:] = kept
        for name in names:
            extension = os.path.splitext(name)[1].lower()
            if name.startswith("."):
                continue
            path = os.path.join(parent, name)
            if extension not in extensions:
                passed_over[f"{extension} files" if extension else "files without extension"] += 1
            elif os.path.islink(path):
                yield _File(Path(path), os.path.realpath(path), linked=True)
            else:
                yield _File(Path(path), os.path.join(real, name), linked)


def _lies_in(path: str, folder: str) -> bool:
    return os.path.commonpath([path, folder]) == folder


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _labelled(images_of: Mapping[str, list[Path]], class_names: Sequence[str]) -> LabelledImages:
    paths = [path for name in class_names for path in images_of[name]]
    labels = [label for label, name in enumerate(class_names) for _ in images_of[name]]
    return LabelledImages(paths, labels, read_image)


def _check(paths: Sequence[Path], seed: int) -> int:
    """Decode images once; how many of them have an EXIF orientation."""
    if len(paths) > CHECKED_FILES:
        generator = np.random.default_rng(derived_seed("check", seed))
        chosen = np.sort(generator.permutation(len(paths))[:CHECKED_FILES])
        paths = [paths[index] for index in chosen]
    logger.info("decoding %d images once, to find broken ones", len(paths))
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_turned, paths))
    broken = [place for place, turned in enumerate(found) if isinstance(turned, InputError)]
    if broken:
        first, *others = broken
        named = first_of([str(paths[place]) for place in others], most=10)
        raise InputError(f"{found[first]}" + (f"; likewise {named}" if others else ""))
    return found.count(True)


def _turned(path: Path) -> bool | InputError:
    """Whether an image's EXIF orientation turns it, or what is wrong with it."""
    try:
        return check_image(path)
    except InputError as error:
        return error
