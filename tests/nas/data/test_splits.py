from pathlib import Path

import pytest
from PIL import Image

from nas.data.images import ImageSource, LabelledImages, SplitName
from nas.data.splits import arrange, class_notes, cut
from nas.utilities.errors import InputError

LABELS = [0] * 40 + [1] * 20 + [2] * 3
NAMES = ("ant", "bee", "cat")


def source(**sizes: list[int]) -> ImageSource:
    def images(split: str, labels: list[int]) -> LabelledImages:
        return LabelledImages([f"{split}{i}" for i in range(len(labels))], labels, unread)

    splits: dict[SplitName, LabelledImages] = {
        split: images(split, labels)  # type: ignore[misc]
        for split, labels in sizes.items()
    }
    return ImageSource(name="bugs", splits=splits, class_names=NAMES)


def unread(path: Path) -> Image.Image:
    raise AssertionError("arranging splits reads no image")


def test_a_cut_has_its_share_of_each_class_and_at_least_one() -> None:
    rest, search, test = cut(LABELS, [0.15, 0.15], seed=0, class_names=NAMES, source="bugs")
    assert sorted([*rest, *search, *test]) == list(range(63))
    for part in (search, test):
        assert [[LABELS[i] for i in part].count(label) for label in range(3)] == [6, 3, 1]


def test_a_cut_is_decided_by_its_seed() -> None:
    def cuts(seed: int) -> list[list[int]]:
        return cut(LABELS, [0.2], seed=seed, class_names=NAMES, source="bugs")

    assert cuts(0) == cuts(0) != cuts(1)


def test_a_class_too_small_to_cut_is_named() -> None:
    with pytest.raises(InputError, match=r"bugs: class 'cat' has 2 training image\(s\).* 3 "):
        cut(LABELS[:-1], [0.15, 0.15], seed=0, class_names=NAMES, source="bugs")


def test_with_train_alone_search_and_test_are_cut_from_it_and_said() -> None:
    train, search, test, notes = arrange(source(train=LABELS), seed=5)
    assert (len(train), len(search), len(test)) == (43, 10, 10)
    assert len({*train.sources, *search.sources, *test.sources}) == 63
    assert notes == (
        "no search split: 15 % of train, 10 images, chosen by seed 5",
        "no test split: 15 % of train, 10 images, chosen by seed 5",
    )
    assert [LABELS[int(name.removeprefix("train"))] for name in test.sources] == test.labels


def test_validation_is_the_test_split_where_there_is_none() -> None:
    train, search, test, notes = arrange(source(train=LABELS, validation=[0, 1, 2]), seed=0)
    assert test.sources[0] == "validation0"
    assert (len(train), len(search), len(test)) == (53, 10, 3)
    assert "the validation split, 3 images, serves as test split" in notes


def test_validation_is_the_search_split_beside_a_test_split() -> None:
    train, search, test, notes = arrange(
        source(train=LABELS, validation=[0, 1, 2], test=[0, 1, 2]), seed=0
    )
    assert (search.sources[0], test.sources[0]) == ("validation0", "test0")
    assert len(train) == 63
    assert notes == ("the validation split, 3 images, serves as search split",)


def test_a_search_split_of_its_own_leaves_only_test_to_be_cut() -> None:
    train, search, _, notes = arrange(source(train=LABELS, search=[0, 1, 2]), seed=0)
    assert search.sources[0] == "search0"
    assert len(train) == 53
    assert len(notes) == 1 and notes[0].startswith("no test split")


def test_more_held_out_splits_than_roles_are_refused() -> None:
    three = source(train=LABELS, validation=[0, 1, 2], search=[0, 1, 2], test=[0, 1, 2])
    with pytest.raises(InputError, match="bugs: has validation, search and test"):
        arrange(three, seed=0)


def test_small_unbalanced_and_absent_classes_are_told() -> None:
    labels = [0] * 100 + [1] * 8
    notes = class_notes({"train": labels, "search": [0, 1], "test": [0, 1]}, NAMES)
    assert notes == [
        "no image in the train split: cat",
        "no image in the search split: cat",
        "no image in the test split: cat",
        "classes of fewer than 10 training images: bee (8)",
        "unbalanced: 100 training images of ant, 0 of cat; accuracy counts every image alike",
    ]
    balanced = [0] * 20 + [1] * 20 + [2] * 20
    assert class_notes({"train": balanced, "search": [0, 1, 2], "test": [0, 1, 2]}, NAMES) == []
