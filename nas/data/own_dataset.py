"""A data set of the user's own: any map-style torch dataset of (image, label) pairs."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from nas.data.images import (
    DECODE_ERRORS,
    IMAGENET_MEAN,
    IMAGENET_STD,
    ImageSource,
    LabelledImages,
    SplitName,
    from_array,
    to_rgb,
)
from nas.utilities.errors import InputError

OWN_DATASET = "dataset "
"""What the identity of an own dataset begins with."""


class MapDataset(Protocol):
    """What is asked of a dataset: a length, and (image, label) for each index below it.

    An image is a PIL image, an array or tensor of uint8 (H, W) or (H, W, 3), or a tensor
    (C, H, W) of one or three channels, uint8 or with values between 0 and 1. Labels are whole
    numbers from 0. Where the dataset has `targets`, labels are read there, else item by item.
    """

    def __len__(self) -> int:
        """How many images there are."""

    def __getitem__(self, index: int, /) -> Any:
        """The image and the label of that index, the same each time."""


@dataclass(frozen=True, kw_only=True)
class OwnDataset:
    """Images for `nas.search` and `nas.retrain` that come from torch datasets.

    Crops, flips and normalisation are ours: the datasets give images as they are. A run can be
    resumed, and retrained, with a dataset of the same `identity`: the same name, class names, and
    number and labels of the images of each split. The pixels are not compared.

    Attributes:
        name: What the data are called in reports.
        class_names: One name for each label, in the labels' order.
        train: What networks are trained on.
        search: What architectures are compared on; cut from `train` if None.
        test: What retrained networks are measured on; cut from `train` if None.
        mean: Mean per channel of pixels scaled to 0..1.
        std: Standard deviation per channel of pixels scaled to 0..1.
        crop: Share of each side that the central crop of the fixed splits keeps.
    """

    name: str
    class_names: Sequence[str]
    train: MapDataset
    search: MapDataset | None = None
    test: MapDataset | None = None
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 1.0

    @property
    def identity(self) -> str:
        """What a run remembers of the data: the name, the size, and a digest of labels and norms.

        Raises:
            InputError: If a label is no class.
        """
        source = self.source
        known: dict[str, Any] = {name: list(split.labels) for name, split in source.splits.items()}
        known["class_names"] = source.class_names
        if (self.mean, self.std, self.crop) != (IMAGENET_MEAN, IMAGENET_STD, 1.0):
            known["seen"] = [*self.mean, *self.std, self.crop]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()[:6]
        return f"{OWN_DATASET}{self.name} ({len(self.train)} images to train, labels {digest})"

    @cached_property
    def source(self) -> ImageSource:
        """The data as every other source of images gives them.

        Raises:
            InputError: If there are fewer than two classes, a label is none of them, or mean, std
                or crop cannot be.
        """
        given: dict[SplitName, MapDataset | None] = {
            "train": self.train,
            "search": self.search,
            "test": self.test,
        }
        names = tuple(map(str, self.class_names))
        if len(names) < 2:
            raise InputError(f"`data` {self.name}: class_names has fewer than two classes")
        for field, numbers in {"mean": self.mean, "std": self.std}.items():
            if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
                raise InputError(f"`data` {self.name}: {field} {numbers} is not three numbers")
        if min(self.std) <= 0:
            raise InputError(f"`data` {self.name}: std {self.std} is not above 0")
        if not 0 < self.crop <= 1:
            raise InputError(f"`data` {self.name}: crop {self.crop} is not above 0 and at most 1")
        splits: dict[SplitName, LabelledImages] = {}
        for split, dataset in given.items():
            if dataset is not None:
                images = labelled_images(dataset)
                wrong = [label for label in images.labels if not 0 <= label < len(names)]
                if wrong or not images.labels:
                    found = f"label {wrong[0]}" if wrong else "no image"
                    raise InputError(
                        f"`data` {self.name}: the {split} split has {found}; labels go from 0 to "
                        f"{len(names) - 1}"
                    )
                splits[split] = images
        return ImageSource(
            name=self.name,
            splits=splits,
            class_names=names,
            mean=self.mean,
            std=self.std,
            crop=self.crop,
        )


def labelled_images(dataset: MapDataset) -> LabelledImages:
    """The images of a map-style dataset, read when they are asked for, and their labels."""
    targets = np.asarray(getattr(dataset, "targets", ()))
    given = (
        targets.tolist()
        if targets.shape == (len(dataset),)
        else (dataset[position][1] for position in range(len(dataset)))
    )
    labels = [_label(target, position) for position, target in enumerate(given)]
    return LabelledImages(range(len(dataset)), labels, partial(_read_item, dataset))


def _label(target: Any, position: int) -> int:
    """The number of a class, as a dataset may give it."""
    try:
        label = int(target)
        if label == target:
            return label
    except (TypeError, ValueError, RuntimeError):
        pass
    shown = " ".join(repr(target).split())
    shown = shown if len(shown) <= 40 else f"{shown[:39]}…"
    raise InputError(f"label {shown} of image {position} of the dataset is no whole number")


def _read_item(dataset: MapDataset, position: int) -> Image.Image:
    try:
        image = dataset[position][0]
        if isinstance(image, Image.Image):  # it may be decoded only now
            return to_rgb(image)
        return from_array(_pixels(_tensor(image)).numpy())
    except DECODE_ERRORS as error:
        raise InputError(f"image {position} of the dataset: {error}") from error


def _tensor(image: Any) -> Tensor:
    try:
        return torch.as_tensor(image)
    except (TypeError, RuntimeError):
        kind = type(image).__name__
        raise ValueError(f"{kind} is no image of PIL, array or tensor") from None


def _pixels(image: Tensor) -> Tensor:
    """Grey (H, W) or colour (H, W, 3) pixels, uint8, of an image as a dataset may give it."""
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[2] not in (1, 3):
        image = image.permute(1, 2, 0)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise ValueError(f"shape {list(image.shape)} is no (H, W), (H, W, 3) or (C, H, W)")
    if image.is_floating_point():
        if image.min() < 0 or image.max() > 1:
            raise ValueError("values of type float lie between 0 and 1; give it unnormalised")
        image = (image * 255).round().to(torch.uint8)
    if image.dtype != torch.uint8:
        raise ValueError(f"type {image.dtype} is neither uint8 nor float")
    return image.contiguous()
