"""A folder of class folders, with or without a folder per split above them."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from nas.data.images import ImageSource, LabelledImages, SplitName, check_image, read_image
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed

logger = logging.getLogger(__name__)

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
CHECKED_FILES = 5000

_SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train",
    "val": "validation",
    "validation": "validation",
    "search": "search",
    "test": "test",
}


def read_folder(root: Path, *, seed: int) -> ImageSource:
    """Find the images of `root/<class>/` or `root/<split>/<class>/`, and decode them once.

    Hidden files and files that are no images are passed over. Of more than 5,000 images a sample
    is decoded, which `seed` chooses.

    Raises:
        InputError: It is no folder or not laid out so, a class has no image, there are fewer than
            two classes, splits differ in their classes, or an image is broken.
    """
    if not root.is_dir():
        raise InputError(f"{root}: not a folder; give a folder of class folders")
    try:
        folders = _split_folders(root)
        found = {split: _class_folders(folder) for split, folder in folders.items()}
    except OSError as error:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})") from error

    class_names = tuple(found["train"])
    if len(class_names) < 2:
        raise InputError(
            f"{folders['train']}: one class only ({class_names[0]}); at least two are needed"
        )
    for split, classes in found.items():
        different = sorted(set(class_names) ^ set(classes))
        if different:
            raise InputError(
                f"{folders[split]}: classes differ from those of {folders['train']}: "
                f"{', '.join(different)} in one of them only"
            )
    splits = {split: _labelled(classes, class_names) for split, classes in found.items()}
    _check([path for images in splits.values() for path in images.sources], seed)
    return ImageSource(name=root.resolve().name, splits=splits, class_names=class_names)


def _split_folders(root: Path) -> dict[SplitName, Path]:
    """The folder of each split; `root` itself holds the training images if it has none."""
    folders: dict[SplitName, Path] = {}
    # A folder called "train" that holds images rather than folders is a class (of vehicles, say).
    for folder in _visible_folders(root):
        if folder.name not in _SPLIT_FOLDERS or not _visible_folders(folder):
            continue
        split = _SPLIT_FOLDERS[folder.name]
        if split in folders:
            raise InputError(f"{root}: has both {folders[split].name} and {folder.name}; keep one")
        folders[split] = folder
    if not folders:
        return {"train": root}
    if "train" not in folders:
        raise InputError(
            f"{root}: has split folders ({', '.join(path.name for path in folders.values())}) "
            "but no train folder of class folders"
        )
    return folders


def _class_folders(folder: Path) -> dict[str, list[Path]]:
    """The images of each class of a split, both in alphabetical order."""
    classes = {path.name: _images(path) for path in _visible_folders(folder)}
    if not classes:
        raise InputError(f"{folder}: no class folders; expected {folder}/<class>/<image>.jpg")
    for name, images in classes.items():
        if not images:
            raise InputError(
                f"{folder / name}: class folder without images ({', '.join(EXTENSIONS)}); "
                "fill it or remove it"
            )
    return classes


def _visible_folders(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")
    )


def _images(folder: Path) -> list[Path]:
    """All images below a class folder, in alphabetical order."""

    def fail(error: OSError) -> None:
        raise error

    images: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=fail, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        images.extend(
            Path(parent, name)
            for name in files
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        )
    return sorted(images)


def _labelled(classes: dict[str, list[Path]], class_names: Sequence[str]) -> LabelledImages:
    paths = [path for name in class_names for path in classes[name]]
    labels = [label for label, name in enumerate(class_names) for _ in classes[name]]
    return LabelledImages(paths, labels, read_image)


def _check(paths: Sequence[Path], seed: int) -> None:
    if len(paths) > CHECKED_FILES:
        generator = np.random.default_rng(derived_seed("check", seed))
        chosen = np.sort(generator.permutation(len(paths))[:CHECKED_FILES])
        paths = [paths[index] for index in chosen]
    logger.info("decoding %d images once, to find broken ones", len(paths))
    with ThreadPoolExecutor() as pool:
        for _ in pool.map(check_image, paths):
            pass
