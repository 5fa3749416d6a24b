import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas.data.folder
from nas.data import load_data, materialise, train_batches
from nas.utilities.errors import InputError

COLOURS = {"ant": (250, 0, 0), "bee": (0, 250, 0), "cat": (0, 0, 250)}

Fill = Callable[..., Path]


@pytest.fixture
def fill(tmp_path: Path) -> Fill:
    """Makes `count` plain images of each class in a split's folder ("" for none)."""

    def make(split: str = "", classes: Iterable[str] = COLOURS, count: int = 8) -> Path:
        for name in classes:
            folder = tmp_path / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in range(count):
                image = Image.new("RGB", (40, 30), COLOURS[name])
                image.save(folder / f"{number}.{'jpg' if number % 2 else 'png'}")
        return tmp_path

    return make


def load(root: Path, **changes: int) -> nas.data.Data:
    return load_data(str(root), image_size=32, **{"seed": 0, **changes})


def test_a_folder_of_class_folders_becomes_three_splits(fill: Fill) -> None:
    root = fill()
    data = load(root)
    assert data.name == root.name
    assert data.class_names == ("ant", "bee", "cat") and data.num_classes == 3
    assert (len(data.train), len(data.search), len(data.test)) == (18, 3, 3)
    assert data.epoch_size == 18
    assert [note.split(":")[0] for note in data.notes] == ["no search split", "no test split"]
    assert data.mean == (0.485, 0.456, 0.406) and data.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_belong_to_their_images(fill: Fill, workers: int) -> None:
    data = load(fill())
    images, labels = materialise(data.search, limit=None, seed=0, workers=workers)
    assert images.float().mean((2, 3)).argmax(1).tolist() == labels.tolist() == [0, 1, 2]
    for images, labels in train_batches(data, batch_size=6, seed=0, steps=3, workers=workers):
        assert images.shape == (6, 3, 32, 32) and images.dtype == torch.uint8
        assert images.float().mean((2, 3)).argmax(1).tolist() == labels.tolist()


def test_the_seed_decides_what_is_cut(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        for shade in range(40):
            Image.new("L", (8, 8), shade * 6).save(tmp_path / name / f"{shade}.png")

    def shades(seed: int) -> list[int]:
        images, _ = materialise(load(tmp_path, seed=seed).test, limit=None, seed=0)
        return images[:, 0, 0, 0].tolist()

    assert shades(0) == shades(0) != shades(1)


@pytest.mark.parametrize("name", ["val", "validation"])
def test_split_folders_keep_their_parts(fill: Fill, name: str) -> None:
    fill("train")
    root = fill(name, count=2)
    data = load(root)
    assert (len(data.train), len(data.search), len(data.test)) == (21, 3, 6)
    fill("test", count=3)
    data = load(root)
    assert (len(data.train), len(data.search), len(data.test)) == (24, 6, 9)


def test_hidden_files_other_files_and_hidden_folders_are_passed_over(fill: Fill) -> None:
    root = fill()
    (root / "ant" / "._0.jpg").write_bytes(b"resource fork")
    (root / "ant" / "notes.txt").write_text("no image")
    (root / "ant" / ".cache").mkdir()
    (root / "ant" / ".cache" / "0.jpg").write_bytes(b"")
    (root / ".hidden").mkdir()
    (root / "README.md").write_text("no class")
    data = load(root)
    assert data.num_classes == 3
    assert len(data.train) + len(data.search) + len(data.test) == 24


def test_images_below_a_class_folder_and_in_capitals_are_found(fill: Fill) -> None:
    root = fill()
    (root / "ant" / "2024").mkdir()
    Image.new("RGB", (40, 30), COLOURS["ant"]).save(root / "ant" / "2024" / "A.JPG")
    data = load(root)
    assert data.num_classes == 3
    assert len(data.train) + len(data.search) + len(data.test) == 25


def test_a_class_may_be_called_train(fill: Fill) -> None:
    root = fill()
    (root / "bee").rename(root / "train")
    assert load(root).class_names == ("ant", "cat", "train")


def test_grey_palette_transparent_and_16_bit_images_are_read_as_rgb(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        plain = Image.new("RGB", (40, 30), (90, 90, 90))
        plain.quantize(4).save(tmp_path / name / "palette.png")
        for mode in ("L", "RGBA", "LA"):
            plain.convert(mode).save(tmp_path / name / f"{mode}.png")
        sixteen = np.full((30, 40), 90 << 8, np.uint16)
        Image.fromarray(sixteen).save(tmp_path / name / "16.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        data = load(tmp_path)
        for split in (data.train, data.search, data.test):
            images, _ = materialise(split, limit=None, seed=0)
            assert (images.float() - 90).abs().max() <= 1


def refused(root: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_data(str(root), image_size=32, seed=0)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_missing_folder_is_refused_with_what_is_accepted(tmp_path: Path) -> None:
    message = refused(tmp_path / "none")
    assert message.startswith(f"`data` {tmp_path / 'none'}: ")
    for accepted in ("folder of class folders", "digits", "fashion-mnist", "torch/NAME", "wds/"):
        assert accepted in message
    assert refused("cifar10").startswith("`data` cifar10: ")


def test_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"")
    assert refused(tmp_path / "a.zip").startswith(f"{tmp_path / 'a.zip'}: not a folder")


def test_a_folder_without_class_folders_is_refused(tmp_path: Path) -> None:
    assert "no class folders; expected" in refused(tmp_path)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert refused(tmp_path).startswith(f"{tmp_path}: no class folders; expected")


def test_a_class_folder_without_images_is_named(fill: Fill) -> None:
    root = fill()
    (root / "dog").mkdir()
    assert refused(root).startswith(f"{root / 'dog'}: class folder without images")


def test_one_class_is_refused(fill: Fill) -> None:
    root = fill(classes=["ant"])
    assert refused(root).startswith(f"{root}: one class only (ant)")


def test_classes_that_differ_between_splits_are_named(fill: Fill) -> None:
    fill("train")
    root = fill("val", classes=["ant", "bee"])
    message = refused(root)
    assert message.startswith(f"{root / 'val'}: classes differ from those of {root / 'train'}: cat")


def test_a_class_too_small_to_cut_is_named(fill: Fill) -> None:
    fill()
    root = fill(classes=["cat"], count=0)
    for path in list((root / "cat").iterdir())[2:]:
        path.unlink()
    assert "class 'cat' has 2 training image(s)" in refused(root)


def test_split_folders_without_train_or_with_two_names_are_refused(fill: Fill) -> None:
    root = fill("val")
    assert f"{root}: has split folders (val) but no train folder" in refused(root)
    fill("train")
    fill("validation")
    assert "has both val and validation" in refused(root)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_broken_image_in_any_split_is_found_on_loading(fill: Fill, split: str) -> None:
    fill("train")
    root = fill("test")
    broken = root / split / "bee" / "5.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    assert refused(root).startswith(f"{broken}: broken image")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_that_was_not_in_the_checked_sample_is_named_in_training(
    fill: Fill, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill()
    data = load(root)
    checked: list[Path] = []
    monkeypatch.setattr(nas.data.folder, "CHECKED_FILES", 10)
    monkeypatch.setattr(nas.data.folder, "check_image", checked.append)
    load(root)
    load(root)
    assert len(set(checked)) == 10  # a sample, and the same one for the same seed

    for path in (root / "bee").iterdir():
        path.write_bytes(b"damaged since")
    with pytest.raises(InputError) as caught:
        list(train_batches(data, batch_size=9, seed=0, steps=2, workers=workers))
    message = str(caught.value)
    assert message.startswith(f"{root / 'bee'}") and "broken image" in message
    assert "\n" not in message
