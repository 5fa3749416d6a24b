"""`digits`: real handwritten digits to be found and read among clutter, with no download.

scikit-learn carries 1,797 digits of 8x8 pixels (UCI, Optical Recognition of Handwritten Digits).
A canvas shows one of them, at a random size and place, over fragments of others. They are divided
among train, search and test before any canvas is drawn, so no split shows a digit, or a piece of
one, of another split.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from nas.data.dataset import Data, Samples
from nas.data.splits import cut
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed

EPOCH_SIZE = 6400
SEARCH_CANVASES = 1000
TEST_CANVASES = 2000

_GLYPH = 8  # pixels per side of a digit as it was scanned
_SIZES = (1 / 4, 7 / 8)  # of a digit, as shares of the canvas's side
_FRAGMENTS = 6
# Sides of a fragment in pixels of the scan. At most half a digit: a whole one would be a second
# right answer.
_SHORT_SIDE = (2.5, 4.0)
_LONG_SIDE = (4.0, 5.5)
_DIGIT_INK = (0.8, 1.0)
_FRAGMENT_INK = (0.2, 0.5)

# Measured over 2,000 training canvases of 64 px.
_MEAN = 0.144
_STD = 0.233


class Painter:
    """Draws canvases of one split's digits.

    Args:
        glyphs: Scanned digits, uint8 (n, 8, 8).
        labels: The digit that each shows.
        image_size: Side of a canvas in pixels.
    """

    def __init__(
        self, glyphs: NDArray[np.uint8], labels: Sequence[int], *, image_size: int
    ) -> None:
        self.labels = labels
        self._glyphs = [Image.fromarray(glyph) for glyph in glyphs]
        self._side = image_size

    def paint(self, index: int, generator: torch.Generator | None) -> tuple[Tensor, int]:
        """A canvas of digit `index`, uint8 (3, S, S), and its label.

        Args:
            index: Which digit.
            generator: Decides everything else; torch's global one if None.
        """
        drawn: list[float] = torch.rand(4 + 10 * _FRAGMENTS, generator=generator).tolist()
        numbers = iter(drawn)

        def between(low: float, high: float) -> float:
            return low + (high - low) * next(numbers)

        canvas = np.zeros((self._side, self._side), np.uint8)

        def place(glyph: Image.Image, box: tuple[float, float, float, float], ink: float) -> None:
            scale = self._side * between(*_SIZES) / _GLYPH
            width = round((box[2] - box[0]) * scale)
            height = round((box[3] - box[1]) * scale)
            patch = glyph.resize((width, height), Image.Resampling.BICUBIC, box=box)
            x = int(between(0, self._side - width + 1))
            y = int(between(0, self._side - height + 1))
            region = canvas[y : y + height, x : x + width]
            np.maximum(region, (np.asarray(patch) * np.float32(ink)).astype(np.uint8), out=region)

        for _ in range(_FRAGMENTS):
            # An offset of 1..n-1 never comes back to the digit itself.
            other = (index + 1 + int(between(0, len(self._glyphs) - 1))) % len(self._glyphs)
            width, height = between(*_SHORT_SIDE), between(*_LONG_SIDE)
            if between(0, 1) < 0.5:
                width, height = height, width
            left, top = between(0, _GLYPH - width), between(0, _GLYPH - height)
            box = (left, top, left + width, top + height)
            place(self._glyphs[other], box, between(*_FRAGMENT_INK))
        place(self._glyphs[index], (0, 0, _GLYPH, _GLYPH), between(*_DIGIT_INK))
        return torch.from_numpy(canvas).expand(3, -1, -1), self.labels[index]


class FreshCanvases(Samples):
    """One item per digit; each time it is asked for, the digit is on another canvas."""

    def __init__(self, painter: Painter) -> None:
        self._painter = painter

    def __len__(self) -> int:
        return len(self._painter.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._painter.paint(index, None)

    @property
    def labels(self) -> Sequence[int]:
        """Of the digits."""
        return self._painter.labels


class FixedCanvases(Samples):
    """`count` canvases that are always the same; the digits take turns."""

    def __init__(self, painter: Painter, *, count: int, seed: int) -> None:
        self._painter = painter
        self._count = count
        self._seed = seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(derived_seed("canvas", self._seed, index))
        return self._painter.paint(index % len(self._painter.labels), generator)


def load_digits(*, image_size: int, seed: int) -> Data:
    """The `digits` data; training canvases are drawn fresh, which is all their augmentation.

    Raises:
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        raise InputError(
            "`data` digits: the digits come with scikit-learn, which is not installed; "
            "run `pip install scikit-learn` or give a folder of class folders"
        ) from error
    digits = datasets.load_digits()
    glyphs = (digits.images * (255 / 16)).astype(np.uint8)
    labels: list[int] = digits.target.tolist()
    class_names = tuple(str(name) for name in digits.target_names)

    train, search, test = (
        Painter(glyphs[indices], [labels[index] for index in indices], image_size=image_size)
        for indices in cut(labels, [0.2, 0.2], seed=seed, class_names=class_names, source="digits")
    )
    return Data(
        name="digits",
        train=FreshCanvases(train),
        search=FixedCanvases(
            search, count=SEARCH_CANVASES, seed=derived_seed("search canvases", seed)
        ),
        test=FixedCanvases(test, count=TEST_CANVASES, seed=derived_seed("test canvases", seed)),
        class_names=class_names,
        mean=(_MEAN, _MEAN, _MEAN),
        std=(_STD, _STD, _STD),
        epoch_size=EPOCH_SIZE,
        notes=(
            f"{len(labels)} handwritten digits divided by seed {seed} before canvases are drawn: "
            f"{len(train.labels)} train, {len(search.labels)} search, {len(test.labels)} test",
        ),
    )
