"""What is held out of the train split."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nas.data import Data, OwnDataset, Samples, hold_out, load_data, materialise
from nas.utilities.errors import InputError

LABELS = [0] * 40 + [1] * 20


class Shades:
    """Grey images: image i has the shade i everywhere."""

    targets = LABELS

    def __len__(self) -> int:
        return len(LABELS)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return np.full((40, 40), index, np.uint8), LABELS[index]


@pytest.fixture
def shades() -> Data:
    own = OwnDataset(
        name="shades", class_names=("dark", "light"), train=Shades(), search=Shades(), test=Shades()
    )
    return load_data(own, image_size=32, seed=0)


def shown(samples: Samples) -> list[int]:
    """The shade of each image."""
    return materialise(samples, limit=None, seed=0)[0][:, 0, 0, 0].tolist()


def test_so_much_of_each_class_is_held_out_and_the_rest_is_trained_on(shades: Data) -> None:
    smaller, held = hold_out(shades, 0.1, seed=0)
    assert sorted(shown(smaller.train) + shown(held)) == list(range(60))
    assert [list(held.labels).count(label) for label in (0, 1)] == [4, 2]
    assert [LABELS[shade] for shade in shown(held)] == list(held.labels)
    assert [LABELS[shade] for shade in shown(smaller.train)] == list(smaller.train.labels)
    assert smaller.epoch_size == len(smaller.train) == 54
    assert smaller.test is shades.test


def test_the_seed_decides_what_is_held_out(shades: Data) -> None:
    one, again, other = (shown(hold_out(shades, 0.1, seed=seed)[1]) for seed in (0, 0, 1))
    assert one == again != other


def test_what_is_held_out_is_not_augmented() -> None:
    class Gradients(Shades):
        def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
            return np.tile(np.arange(40, dtype=np.uint8) * 6, (40, 1)), LABELS[index]

    own = OwnDataset(name="gradients", class_names=("a", "b"), train=Gradients())
    _, held = hold_out(load_data(own, image_size=32, seed=0), 0.5, seed=0)
    images, _ = materialise(held, limit=None, seed=0)
    assert all(torch.equal(image, images[0]) for image in images)


def test_digits_that_are_held_out_are_on_canvases_of_their_own() -> None:
    digits = load_data("digits", image_size=32, seed=0)
    smaller, held = hold_out(digits, 0.2, seed=0)
    assert len(smaller.train) + len(held) == len(digits.train)
    one, other = (materialise(held, limit=20, seed=3) for _ in range(2))
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_a_class_of_one_image_cannot_be_held_out_from(shades: Data) -> None:
    own = OwnDataset(
        name="few",
        class_names=("a", "b"),
        train=[(np.zeros((40, 40), np.uint8), label) for label in (0, 0, 1)],
        search=Shades(),
        test=Shades(),
    )
    told = r"`validate` 0\.1: few: class 'b' has 1 training image.*; at least 2 .* to hold some"
    with pytest.raises(InputError, match=told):
        hold_out(load_data(own, image_size=32, seed=0), 0.1, seed=0)


def test_a_split_that_does_not_know_its_labels_reads_them() -> None:
    class Three(Samples):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            return torch.zeros(3, 4, 4, dtype=torch.uint8), index % 2

    assert list(Three().labels) == [0, 1, 0]
