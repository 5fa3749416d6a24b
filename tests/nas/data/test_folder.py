import os
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import nas.data.folder
import nas.data.images
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
    assert [note.split(":")[0] for note in data.notes] == [
        *("no search split", "no test split"),
        "classes of fewer than 10 training images",
    ]
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


@pytest.mark.parametrize("name", ["val", "validation", "valid", "Dev", "VAL"])
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
    assert "passed over: 1 .txt files" in data.notes


def test_whatever_pillow_decodes_is_an_image_and_the_rest_is_counted(fill: Fill) -> None:
    root = fill()
    image = Image.new("RGB", (40, 30), COLOURS["bee"])
    for name, kind in (("a.jfif", "JPEG"), ("b.gif", "GIF"), ("c.WEBP", "WEBP"), ("d.bmp", "BMP")):
        image.save(root / "bee" / name, format=kind)
    for name in ("clip.mpg", "page.pdf", "phone.heic", "phone2.HEIC", "LICENSE"):
        (root / "bee" / name).write_bytes(b"no image that Pillow decodes")
    data = load(root)
    assert len(data.train) + len(data.search) + len(data.test) == 28
    assert (
        "passed over: 2 .heic files, 1 .mpg files, 1 .pdf files, 1 files without extension"
        in data.notes
    )


def test_each_real_file_is_one_image_whatever_links_lead_to_it(fill: Fill) -> None:
    root = fill()
    (root / "ant" / "above").symlink_to("..")
    (root / "ant" / "self").symlink_to(".")
    (root / "ant" / "bees").symlink_to(root / "bee")  # walked before the class itself
    (root / "cat" / "again.png").symlink_to(root / "cat" / "0.png")
    data = load(root)
    assert (len(data.train), len(data.search), len(data.test)) == (18, 3, 3)
    assert (
        "passed over: 2 links to a folder above, 9 links to images that are there already"
        in data.notes
    )
    images, labels = materialise(data.train, limit=None, seed=0)
    assert images.float().mean((2, 3)).argmax(1).tolist() == labels.tolist()


def test_images_and_classes_that_lie_elsewhere_are_reached_by_links(
    fill: Fill, tmp_path: Path
) -> None:
    whole = fill("whole") / "whole"
    root = tmp_path / "linked"
    (root / "bee").mkdir(parents=True)
    (root / "ant").symlink_to(whole / "ant")
    for path in (whole / "bee").iterdir():
        (root / "bee" / path.name).symlink_to(path)
    (root / "cat").mkdir()
    (root / "cat" / "more").symlink_to(whole / "cat")
    data = load(root)
    assert data.class_names == ("ant", "bee", "cat")
    assert len(data.train) + len(data.search) + len(data.test) == 24
    assert not [note for note in data.notes if "passed over" in note]


def test_classes_and_images_are_in_natural_order_as_timm_has_them(tmp_path: Path) -> None:
    from timm.data.readers.reader_image_folder import ReaderImageFolder

    for number in range(1, 13):
        folder = tmp_path / f"class{number}"
        folder.mkdir()
        for image in range(1, 12):
            Image.new("L", (8, 8), 20 * number).save(folder / f"{image}.png")
    found = nas.data.folder.read_folder(tmp_path, seed=0)
    of_timm = ReaderImageFolder(str(tmp_path))
    assert found.class_names == tuple(of_timm.class_to_idx)
    assert found.class_names[:3] == ("class1", "class2", "class3")
    images = found.splits["train"]
    assert [str(path) for path in images.sources] == [path for path, _ in of_timm.samples]
    assert list(images.labels) == [label for _, label in of_timm.samples]


def test_a_class_whose_name_is_not_utf_8_is_refused(fill: Fill) -> None:
    root = fill()
    try:
        os.rename(root / "cat", os.fsencode(root) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes only names in UTF-8")
    assert refused(root) == f"{root}: the name of the class folder caf\\xe9 is not UTF-8; rename it"


def test_images_below_a_class_folder_and_in_capitals_are_found(fill: Fill) -> None:
    root = fill()
    (root / "ant" / "2024").mkdir()
    Image.new("RGB", (40, 30), COLOURS["ant"]).save(root / "ant" / "2024" / "A.JPG")
    data = load(root)
    assert data.num_classes == 3
    assert len(data.train) + len(data.search) + len(data.test) == 25


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("training", "testing"), ("TRAIN", "eval")]
)
def test_splits_have_their_usual_names_in_capitals_or_not(
    fill: Fill, train: str, test: str
) -> None:
    fill(train, count=10)
    data = load(fill(test, count=2))
    assert data.class_names == ("ant", "bee", "cat")
    assert (len(data.train), len(data.search), len(data.test)) == (24, 6, 6)


def test_folders_beside_the_splits_are_named(fill: Fill) -> None:
    fill("train")
    root = fill("train_old")
    (root / "test").mkdir()
    Image.new("RGB", (8, 8)).save(root / "test" / "0.png")
    assert "passed over beside the splits: test, train_old" in load(root).notes


def test_a_class_may_be_called_train(fill: Fill) -> None:
    root = fill()
    (root / "bee").rename(root / "train")
    data = load(root)
    assert data.class_names == ("ant", "cat", "train")
    assert "the folder train is a class here" in data.notes


def test_splits_without_class_folders_are_no_classes(fill: Fill) -> None:
    root = fill(classes=["ant", "bee"])
    (root / "ant").rename(root / "Train")
    (root / "bee").rename(root / "test")
    assert refused(root).startswith(f"{root}: has only Train, test, which are called like splits")


def test_images_are_turned_as_their_exif_orientation_says(fill: Fill) -> None:
    root = fill()
    turned = Image.Exif()
    turned[0x0112] = 3
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20] = 200
    for number in range(4):
        path = root / "ant" / f"turned{number}.jpg"
        Image.fromarray(pixels).save(path, exif=turned, quality=95)
    assert "4 images are turned as their EXIF orientation says" in load(root).notes
    image = np.asarray(nas.data.images.read_image(root / "ant" / "turned0.jpg"))
    assert image[:15].max() < 20 and image[25:].min() > 180


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


def test_broken_images_are_named_together(fill: Fill) -> None:
    root = fill()
    broken = [root / name / "5.jpg" for name in ("ant", "bee", "cat")]
    for path in broken:
        path.write_bytes(path.read_bytes()[:300])
    first, *others = map(str, broken)
    message = refused(root)
    assert message.startswith(f"{first}: broken image")
    assert message.endswith(f"; likewise {', '.join(others)}")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_that_was_not_in_the_checked_sample_is_named_in_training(
    fill: Fill, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = fill()
    data = load(root)
    checked: list[Path] = []
    monkeypatch.setattr(nas.data.folder, "CHECKED_FILES", 10)
    monkeypatch.setattr(
        nas.data.folder, "check_image", lambda path: checked.append(path) is not None
    )
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


def test_names_that_are_equal_in_the_natural_order_have_one_all_the_same(tmp_path: Path) -> None:
    names = ["1.png", "01.png", "A.png", "a.png", "2.png"]
    for number, order in enumerate((names, names[::-1])):
        for name in ("ant", "bee"):
            folder = tmp_path / str(number) / name
            folder.mkdir(parents=True)
            for file in order:
                Image.new("RGB", (8, 8)).save(folder / file)
    first, second = (
        nas.data.folder.read_folder(tmp_path / str(n), seed=0).splits["train"] for n in (0, 1)
    )
    assert [path.name for path in first.sources] == [path.name for path in second.sources]
