"""Data sets by the names that `timm.data.create_dataset` gives them, such as `torch/cifar10`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nas.data.images import (
    ImageSource,
    LabelledImages,
    SplitName,
    from_array,
    read_image,
)
from nas.data.own_dataset import labelled_images
from nas.utilities.errors import InputError

PREFIXES = ("torch", "hfds", "hfids", "tfds", "wds")

STREAM_LIMIT = 8 * 2**30  # bytes of pixels

# Streams are kept a little larger than they are used, so that random crops have room.
_STREAM_SCALE = 1.25

_SPLIT_NAMES: dict[SplitName, tuple[str, ...]] = {
    "validation": ("validation", "val", "valid"),
    "test": ("test",),
}


def read_timm_dataset(source: str, *, image_size: int) -> ImageSource:
    """Open the splits of a data set that timm knows, downloading it where its library can.

    Data sets with random access (`torch/`, `hfds/`) are read image by image. Streams (`hfids/`,
    `tfds/`, `wds/` and a folder of shards) are read into memory once, since resuming exactly needs
    any image at any time.

    Args:
        source: Prefix and name.
        image_size: Side of the images that are asked for; streams are shrunk towards it.

    Raises:
        InputError: The data set cannot be opened, or a stream is too large for memory.
    """
    prefix = source.partition("/")[0]
    try:
        return _open(source, prefix, image_size)
    except InputError:
        raise
    # Five libraries, each with errors of its own kinds: assertions, HTTP, missing packages.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "")
        raise InputError(
            f"`data` {source}: cannot be opened ({type(error).__name__}: {reason})"
        ) from error


def cache_folder() -> Path:
    """Where downloads are kept between runs."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "nas"


def _open(source: str, prefix: str, image_size: int) -> ImageSource:
    datasets: dict[SplitName, Any] = {"train": _create(source, prefix, "train")}
    if prefix == "torch":
        # torchvision's other half, its test images for the most part, which timm calls so.
        datasets["test"] = _create(source, prefix, "validation")
    else:
        there = _split_names(datasets["train"].reader, prefix)
        for split, names in _SPLIT_NAMES.items():
            for name in names:
                if name in there:
                    datasets[split] = _create(source, prefix, name)
                    break

    notes = []
    splits: dict[SplitName, LabelledImages] = {}
    for split, dataset in datasets.items():
        images = _labelled(dataset, source, image_size)
        if len(images) > 0 and min(images.labels) >= 0:
            splits[split] = images
        elif split == "train":
            raise InputError(f"`data` {source}: the train split has no labelled images")
        else:
            notes.append(f"the {split} split has no labels and is left aside")
    return ImageSource(
        name=source,
        splits=splits,
        class_names=_class_names(datasets["train"], splits),
        notes=tuple(notes),
    )


def _create(source: str, prefix: str, split: str) -> Any:
    from timm.data.dataset_factory import create_dataset

    root: str | None = None  # the library's own cache
    if prefix == "torch":
        root = str(cache_folder())
    elif prefix == "wds":
        root = source.partition("/")[2]
    return create_dataset(source, root=root, split=split, download=prefix != "wds")


def _split_names(reader: Any, prefix: str) -> Mapping[str, Any]:
    if prefix == "wds":
        splits = reader.info.get("splits")
    elif prefix == "hfds":
        splits = reader.dataset.info.splits
    else:
        splits = reader.builder.info.splits
    return splits or {}


def _class_names(dataset: Any, splits: Mapping[SplitName, LabelledImages]) -> tuple[str, ...]:
    names = getattr(dataset, "classes", None)
    if names is None and hasattr(dataset, "reader"):
        class_to_index: dict[str, int] = dataset.reader.class_to_idx
        names = sorted(class_to_index, key=class_to_index.__getitem__)
    if not names:
        names = range(1 + max(max(images.labels) for images in splits.values()))
    return tuple(str(name) for name in names)


def _labelled(dataset: Any, source: str, image_size: int) -> LabelledImages:
    from timm.data.dataset import IterableImageDataset

    if isinstance(dataset, IterableImageDataset):
        return _read_stream(dataset, source, image_size)
    positions = range(len(dataset))
    if hasattr(dataset, "reader"):
        # timm's own data set would pass over a broken image and give its neighbour instead.
        labels = [int(label) for label in dataset.reader.dataset[dataset.reader.label_key]]
        return LabelledImages(positions, labels, partial(_read_record, dataset.reader, source))
    return labelled_images(dataset)


def _read_record(reader: Any, source: str, position: int) -> Image.Image:
    return read_image(reader[position][0], f"{source}, image {position}")


def _read_stream(dataset: Any, source: str, image_size: int) -> LabelledImages:
    # Every rank of a distributed run needs the whole stream, of which timm would give it a part.
    dataset.reader.dist_rank, dataset.reader.dist_num_replicas = 0, 1
    shorter = math.ceil(image_size * _STREAM_SCALE)
    arrays = []
    labels = []
    size = 0
    for image, label in dataset:
        scale = shorter / min(image.size)
        if scale < 1:
            width, height = (round(side * scale) for side in image.size)
            image = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        arrays.append(np.asarray(image))
        labels.append(int(label))
        size += arrays[-1].nbytes
        if size > STREAM_LIMIT:
            raise InputError(
                f"`data` {source}: a stream of more than {STREAM_LIMIT / 2**30:.0f} GiB at "
                f"{shorter} px; give it as a folder of class folders"
            )
    if len(labels) < len(dataset):
        raise InputError(
            f"`data` {source}: {len(dataset) - len(labels)} of {len(dataset)} images "
            "could not be read"
        )
    return LabelledImages(arrays, labels, from_array)
