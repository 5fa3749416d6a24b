import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits as load_scans

from nas.data import Data, load_data, materialise, train_batches
from nas.data.digits import Painter
from nas.utilities.errors import InputError


@pytest.fixture(scope="module")
def digits() -> Iterator[Data]:
    yield load_data("digits", image_size=64, seed=0)


def test_the_splits_divide_the_1797_digits_by_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[set[bytes], list[int]]] = []
    init = Painter.__init__

    def spy(self: Painter, glyphs: np.ndarray, labels: list[int], **kwargs: int) -> None:
        seen.append(({glyph.tobytes() for glyph in glyphs}, labels))
        init(self, glyphs, labels, **kwargs)

    monkeypatch.setattr(Painter, "__init__", spy)
    load_data("digits", image_size=64, seed=0)
    (train, train_labels), (search, search_labels), (test, test_labels) = seen
    assert not train & search and not train & test and not search & test
    assert len(train_labels) + len(search_labels) + len(test_labels) == 1797
    in_all = np.bincount(load_scans().target)
    for labels, share in [(train_labels, 0.6), (search_labels, 0.2), (test_labels, 0.2)]:
        assert np.abs(np.bincount(labels) - share * in_all).max() <= 1


def test_search_and_test_are_fixed_and_train_is_drawn_fresh(digits: Data) -> None:
    assert (len(digits.search), len(digits.test), digits.epoch_size) == (1000, 2000, 6400)
    for split in (digits.search, digits.test):
        assert torch.equal(split[5][0], split[5][0])
    assert not torch.equal(digits.train[5][0], digits.train[5][0])
    assert digits.train[5][1] == digits.train[5][1]


def test_canvases_are_determined_by_the_seed(digits: Data) -> None:
    images, labels = materialise(digits.search, limit=20, seed=0)
    same = load_data("digits", image_size=64, seed=0)
    other = load_data("digits", image_size=64, seed=1)
    assert torch.equal(materialise(same.search, limit=20, seed=0)[0], images)
    assert not torch.equal(materialise(other.search, limit=20, seed=0)[0], images)
    ((first, _),) = train_batches(digits, batch_size=4, seed=0, steps=1)
    ((again, _),) = train_batches(same, batch_size=4, seed=0, steps=1)
    assert torch.equal(first, again)
    assert labels.unique().numel() > 5


@pytest.mark.parametrize("size", [32, 64, 100])
def test_canvases_have_the_size_asked_for(size: int) -> None:
    image, label = load_data("digits", image_size=size, seed=0).search[0]
    assert image.shape == (3, size, size) and image.dtype == torch.uint8
    assert 0 <= label < 10


def test_mean_and_std_are_those_of_the_canvases(digits: Data) -> None:
    ((images, _),) = train_batches(digits, batch_size=1000, seed=0, steps=1)
    std, mean = torch.std_mean(images.double() / 255)
    assert abs(mean.item() - digits.mean[0]) < 0.01
    assert abs(std.item() - digits.std[0]) < 0.01


def test_clutter_never_covers_the_digit_or_comes_from_it() -> None:
    # A digit of full ink among empty ones leaves only itself on the canvas; among full ones it
    # still is the brightest thing, because clutter's ink is weaker.
    solid = np.full((8, 8), 255, np.uint8)
    alone = np.stack([solid, np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8)])
    crowd = np.stack([solid] * 3)
    for seed in range(50):
        canvases = [
            Painter(glyphs, [0, 1, 2], image_size=64)
            .paint(0, torch.Generator().manual_seed(seed))[0][0]
            .numpy()
            for glyphs in (alone, crowd)
        ]
        rows, columns = np.nonzero(canvases[0])
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert height == width and 16 <= height <= 56
        assert len(rows) == height * width
        ink = canvases[0].max()
        assert ink >= 0.8 * 255 - 1
        assert ((canvases[1] == ink) == (canvases[0] == ink)).all()
        assert canvases[1].max() == ink


def test_no_fragment_is_more_than_half_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    boxes = []

    class Spy:
        def resize(self, size: tuple[int, int], method: object, box: tuple[float, ...]) -> object:
            boxes.append(box)
            return np.zeros(size[::-1], np.uint8)

    painter = Painter(np.zeros((3, 8, 8), np.uint8), [0, 1, 2], image_size=64)
    monkeypatch.setattr(painter, "_glyphs", [Spy()] * 3)
    for seed in range(50):
        painter.paint(0, torch.Generator().manual_seed(seed))
    areas = [(right - left) * (bottom - top) for left, top, right, bottom in boxes]
    assert sorted(areas)[-50:] == [64] * 50  # the digits themselves
    assert sorted(areas)[-51] <= 32
    assert all(min(box) >= 0 and max(box) <= 8 for box in boxes)


def test_without_scikit_learn_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(InputError, match="pip install scikit-learn"):
        load_data("digits", image_size=64, seed=0)
