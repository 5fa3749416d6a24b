"""Images on their way from a file or an array to a uint8 tensor."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from nas.data.dataset import Augment, Samples
from nas.utilities.errors import InputError

SplitName = Literal["train", "validation", "search", "test"]
Transform = Callable[[Image.Image], Tensor]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# What Pillow's parsers raise on damaged files; an unidentified file is an OSError.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    TypeError,
    struct.error,
    Image.DecompressionBombError,
)


@dataclass(frozen=True)
class LabelledImages:
    """Images that are decoded when they are asked for, and their labels.

    Attributes:
        sources: What `read` turns into an image: paths, arrays, row numbers.
        labels: One label per source.
        read: Decodes a source into an RGB image. Picklable, for the loader's workers.
    """

    sources: Sequence[Any]
    labels: Sequence[int]
    read: Callable[[Any], Image.Image]

    def __len__(self) -> int:
        return len(self.sources)

    def subset(self, indices: Sequence[int]) -> LabelledImages:
        """The images at these positions."""
        return LabelledImages(
            [self.sources[index] for index in indices],
            [self.labels[index] for index in indices],
            self.read,
        )


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """A data set as it was found, before missing splits are cut and images transformed.

    Attributes:
        name: What the user called it.
        splits: The splits it came with; `train` is always there.
        class_names: One name per label.
        mean: Mean per channel of pixels scaled to 0..1.
        std: Standard deviation per channel of pixels scaled to 0..1.
        crop: Share of each side that the central crop of fixed splits keeps.
        notes: Sentences for the user.
        root: As in `nas.data.dataset.Data`.
    """

    name: str
    splits: Mapping[SplitName, LabelledImages]
    class_names: tuple[str, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    crop: float = 0.95
    notes: tuple[str, ...] = ()
    root: Path | None = None


class TransformedImages(Samples):
    """Labelled images, decoded and transformed item by item.

    Args:
        images: In their order.
        transform: From a decoded image to uint8 (3, S, S).
    """

    def __init__(self, images: LabelledImages, transform: Transform) -> None:
        self.images = images
        self._transform = transform

    @property
    def labels(self) -> Sequence[int]:
        """Of the images."""
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.images.read(self.images.sources[index])
        return self._transform(image), self.images.labels[index]


def read_image(file: Path | BinaryIO, name: str | None = None) -> Image.Image:
    """Decode a file into an RGB image, turned as its EXIF orientation says.

    Args:
        file: A path, or a file opened for reading.
        name: What an error calls the file; its path if not given.

    Raises:
        InputError: The file is broken.
    """
    try:
        with Image.open(file) as image:
            return to_rgb(ImageOps.exif_transpose(image))
    except DECODE_ERRORS as error:
        raise _broken(name or str(file), error) from error


def check_image(path: Path) -> bool:
    """Decode a file and throw the pixels away; whether its EXIF orientation turns it.

    Raises:
        InputError: The file is broken.
    """
    try:
        with Image.open(path) as image:
            # A JPEG decoded at an eighth of its size is read to its end all the same, in a
            # fraction of the time.
            image.draft("RGB", (1, 1))
            to_rgb(image)
            return bool(image.getexif().get(ExifTags.Base.Orientation, 1) != 1)
    except DECODE_ERRORS as error:
        raise _broken(str(path), error) from error


def to_rgb(image: Image.Image) -> Image.Image:
    """Three channels of 8 bits from grey, palette, transparent, deep and other images.

    Pillow's own conversion clips what is deeper than 8 bits. Here the range decides: of integers
    the fewest of 8, 10, 12, 14, 16 or 32 bits that hold the image's largest value, so that 12 bits
    in a 16-bit file keep their shades; of floating-point numbers 0 to 1, else 0 to 255, else from
    the image's smallest to its largest.

    Raises:
        ValueError: If there is no way from the image's mode to RGB, or a value is not finite.
    """
    if image.mode.startswith("I"):
        levels = np.asarray(image).astype(np.int64).clip(0)
        bits = next(b for b in (8, 10, 12, 14, 16, 32) if int(levels.max()) < 2**b)
        return from_array((levels >> (bits - 8)).astype(np.uint8))
    if image.mode == "F":
        return from_array(_bytes_of_floats(np.asarray(image)))
    if image.mode == "P":
        # Pillow warns where a palette with transparency goes to RGB at once.
        image = image.convert("RGBA")
    return image.convert("RGB")


def _bytes_of_floats(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    if not np.isfinite(values).all():
        raise ValueError("a pixel is not a finite number")
    low, high = float(values.min()), float(values.max())
    if low >= 0 and high <= 1:
        low, high = 0.0, 1.0
    elif low >= 0 and high <= 255:
        low, high = 0.0, 255.0
    scaled = (values - low) / max(high - low, 1e-12) * 255
    return scaled.round().astype(np.uint8)


def from_array(pixels: NDArray[np.uint8]) -> Image.Image:
    """An RGB image from grey (H, W) or colour (H, W, 3) pixels."""
    return Image.fromarray(pixels).convert("RGB")


def train_transform(image_size: int, augment: Augment) -> Transform:
    """Random crops and flips; with `full` also RandAugment, as in DeiT's recipe.

    Random erasing, mixup and cutmix of that recipe work on batches and are the trainer's.
    """
    from timm.data.transforms_factory import create_transform

    recipe: dict[str, Any] = (
        {"auto_augment": "rand-m9-mstd0.5-inc1"}
        if augment == "full"
        else {"scale": (0.5, 1.0), "color_jitter": None}
    )
    transform: Transform = create_transform(
        image_size, is_training=True, interpolation="bicubic", normalize=False, **recipe
    )
    return transform


def eval_transform(image_size: int, crop: float) -> Transform:
    """Resize the shorter side to `image_size / crop`, then crop the centre."""
    from timm.data.transforms_factory import create_transform

    transform: Transform = create_transform(
        image_size, crop_pct=crop, interpolation="bicubic", normalize=False
    )
    return transform


def _broken(name: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{name}: broken image ({reason}); repair or remove the file")
