"""`fashion-mnist`: 70,000 grey images of garments, 28x28 pixels (Xiao et al., 2017)."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nas.data.images import ImageSource, LabelledImages, from_array
from nas.data.timm_dataset import cache_folder
from nas.utilities.errors import InputError

# Where the Debian package dataset-fashion-mnist puts its files.
DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")

CLASS_NAMES = (
    "t-shirt/top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)

# Of the 60,000 training images.
_MEAN = 0.2860
_STD = 0.3530


def read_fashion_mnist() -> ImageSource:
    """The Debian package's files where they are installed, else torchvision's download.

    Raises:
        InputError: There is neither the package nor a network.
    """
    read = _read_debian if DEBIAN_FOLDER.is_dir() else _read_download
    return ImageSource(
        name="fashion-mnist",
        splits={"train": read(train=True), "test": read(train=False)},
        class_names=CLASS_NAMES,
        mean=(_MEAN, _MEAN, _MEAN),
        std=(_STD, _STD, _STD),
        crop=1.0,
    )


def _read_debian(*, train: bool) -> LabelledImages:
    stem = "train" if train else "t10k"
    images = _read_idx(DEBIAN_FOLDER / f"{stem}-images-idx3-ubyte.gz")
    labels = _read_idx(DEBIAN_FOLDER / f"{stem}-labels-idx1-ubyte.gz")
    return LabelledImages(list(images), labels.tolist(), from_array)


def _read_idx(path: Path) -> NDArray[np.uint8]:
    """An array from an IDX file: its number of axes in byte 3, then their sizes, then bytes."""
    try:
        content = gzip.decompress(path.read_bytes())
        axes = content[3]
        shape = np.frombuffer(content, ">u4", count=axes, offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
    except (OSError, EOFError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}); reinstall the Debian package dataset-fashion-mnist"
        ) from error


def _read_download(*, train: bool) -> LabelledImages:
    from torchvision.datasets import FashionMNIST

    try:
        dataset = FashionMNIST(str(cache_folder()), train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            "`data` fashion-mnist: cannot be downloaded; connect to a network, or install the "
            "Debian package dataset-fashion-mnist"
        ) from error
    return LabelledImages(list(dataset.data.numpy()), dataset.targets.tolist(), from_array)
