from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nas.data import OwnDataset, load_data
from nas.utilities.errors import InputError

CLASSES = ("round", "square")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 12, 10, 3), dtype=np.uint8)


class Pairs:
    """Images as somebody's dataset gives them; counts how often it is asked."""

    def __init__(self, give: Callable[[np.ndarray], Any] = Image.fromarray, size: int = 40) -> None:
        self.give, self.size, self.asked = give, size, 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Any, int]:
        self.asked += 1
        return self.give(PIXELS[index]), index % 2


class WithTargets(Pairs):
    @property
    def targets(self) -> list[int]:
        return [index % 2 for index in range(self.size)]


def own(**changes: Any) -> OwnDataset:
    return OwnDataset(**{"name": "shapes", "class_names": CLASSES, "train": Pairs()} | changes)


def first_image(dataset: OwnDataset) -> torch.Tensor:
    """The first image as a network will see it."""
    return load_data(dataset, image_size=32, seed=0).search[0][0]


def test_missing_splits_are_cut_from_train_as_from_a_folder() -> None:
    data = load_data(own(), image_size=32, seed=0)
    assert (data.name, data.class_names) == ("shapes", CLASSES)
    assert [len(split) for split in (data.train, data.search, data.test)] == [28, 6, 6]
    image, label = data.train[0]
    assert (image.dtype, tuple(image.shape)) == (torch.uint8, (3, 32, 32))
    assert label in (0, 1)


def test_given_splits_are_taken_as_they_are() -> None:
    data = load_data(own(search=Pairs(size=7), test=Pairs(size=9)), image_size=32, seed=0)
    assert [len(split) for split in (data.train, data.search, data.test)] == [40, 7, 9]


@pytest.mark.parametrize(
    "give",
    [
        lambda pixels: pixels,
        torch.from_numpy,
        lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
        lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1) / 255,
    ],
)
def test_arrays_and_tensors_give_the_images_that_pil_gives(
    give: Callable[[np.ndarray], Any],
) -> None:
    assert torch.equal(first_image(own(train=Pairs(give))), first_image(own()))


def test_grey_images_have_three_equal_channels() -> None:
    for give in (lambda p: p[..., 0], lambda p: torch.from_numpy(p[None, ..., 0]).float() / 255):
        image = first_image(own(train=Pairs(give)))
        assert torch.equal(image[0], image[1])
        assert torch.equal(image[0], image[2])


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda p: torch.zeros(4, 12, 10), r"shape \[4, 12, 10\]"),
        (lambda p: torch.full((3, 12, 10), -1.0), "between 0 and 1"),
        (lambda p: torch.zeros(3, 12, 10, dtype=torch.int64), "int64"),
        (lambda p: None, "NoneType is no image of PIL, array or tensor"),
    ],
)
def test_an_image_of_another_kind_is_refused_with_its_number(
    give: Callable[[np.ndarray], Any], message: str
) -> None:
    with pytest.raises(InputError, match=rf"image \d+ of the dataset: .*{message}"):
        first_image(own(train=Pairs(give)))


def test_an_image_that_is_decoded_late_and_broken_is_refused_with_its_number(
    tmp_path: Path,
) -> None:
    path = tmp_path / "cut.png"
    Image.effect_noise((64, 64), 50).save(path)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"image \d+ of the dataset: .*truncated"):
        first_image(own(train=Pairs(lambda p: Image.open(path))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": ("one",)}, "fewer than two"),
        ({"class_names": ("a", "b"), "train": Pairs(size=0)}, "no image"),
        ({"test": [(PIXELS[0], 2)]}, "the test split has label 2; labels go from 0 to 1"),
        ({"test": [(PIXELS[0], -1)]}, "label -1"),
        ({"test": [(PIXELS[0], 0), (PIXELS[0], "a")]}, "label 'a' of image 1 of the dataset is no"),
        ({"test": [(PIXELS[0], torch.eye(2)[0])]}, r"label tensor\(\[1., 0.\]\) of image 0"),
        ({"test": [(PIXELS[0], 0.5)]}, "label 0.5 of image 0 of the dataset is no whole number"),
        ({"test": [(PIXELS[0], None)]}, "label None"),
        ({"mean": (0.1,)}, r"mean \(0.1,\) is not three numbers"),
        ({"mean": (0.1, float("nan"), 0.1)}, "is not three numbers"),
        ({"std": (0.1, 0.0, 0.1)}, "is not above 0"),
        ({"crop": 1.2}, "crop 1.2 is not above 0 and at most 1"),
    ],
)
def test_classes_and_labels_must_agree(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_data(own(**changes), image_size=32, seed=0)


def test_labels_are_read_from_targets_where_there_are_some() -> None:
    with_targets = WithTargets()
    identity = own(train=with_targets).identity
    assert with_targets.asked == 0
    assert identity == own().identity


def test_the_identity_tells_names_sizes_classes_and_labels_apart() -> None:
    others = [
        own(),
        own(name="other"),
        own(std=(0.1, 0.1, 0.1)),
        own(crop=0.9),
        own(class_names=("a", "b")),
        own(train=Pairs(size=38)),
        own(test=Pairs(size=3)),
        own(train=[(pixels, 0) for pixels in PIXELS]),
    ]
    assert len({dataset.identity for dataset in others}) == len(others)
    assert own().identity == own().identity


def test_images_without_targets_are_read_once_for_their_labels() -> None:
    pairs = Pairs()
    dataset = own(train=pairs)
    assert "40 images to train" in dataset.identity
    load_data(dataset, image_size=32, seed=0)
    assert pairs.asked == len(pairs)
