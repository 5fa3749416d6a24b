import io
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import timm.data.dataset_factory
import torch
from PIL import Image
from timm.data.dataset import ImageDataset, IterableImageDataset

import nas.data.timm_dataset
from nas.data import load_data, materialise
from nas.utilities.errors import InputError


def picture(label: int, side: int) -> Image.Image:
    return Image.new("RGB", (side, 2 * side), (100 * label,) * 3)


class Stream:
    """What timm's reader of shards offers: images in one order only."""

    class_to_idx: dict[str, int] = {}  # noqa: RUF012

    def __init__(self, names: list[str], labels: list[int], unreadable: int) -> None:
        self.info = {"splits": dict.fromkeys(names)}
        self.labels = labels
        self.unreadable = unreadable

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        readable = self.labels[: len(self.labels) - self.unreadable]
        return ((picture(label, 200), label) for label in readable)

    def __len__(self) -> int:
        return len(self.labels)


class Table:
    """What timm's reader of a Hugging Face data set offers: any record, and whole columns."""

    class_to_idx = {"odd": 1, "even": 0}  # noqa: RUF012
    label_key = "label"

    def __init__(self, names: list[str], labels: list[int], unreadable: int) -> None:
        self.labels = labels
        self.unreadable = unreadable
        self.dataset = Columns({"label": labels})
        self.dataset.info = SimpleNamespace(splits=dict.fromkeys(names))

    def __getitem__(self, index: int) -> tuple[io.BytesIO, int]:
        file = io.BytesIO()
        if index >= self.unreadable:
            picture(self.labels[index], 20).save(file, "PNG")
        file.seek(0)
        return file, self.labels[index]

    def __len__(self) -> int:
        return len(self.labels)


class Columns(dict[str, list[int]]):
    info: SimpleNamespace


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """Labels of each split of the one data set that timm knows; "unreadable" counts bad images."""
    labels: dict[str, list[int]] = {}

    def create(name: str, *, split: str, **kwargs: Any) -> ImageDataset | IterableImageDataset:
        names = [name for name in labels if name != "unreadable"]
        unreadable = len(labels.get("unreadable", ()))
        if name.startswith("wds/"):
            assert kwargs["root"] == "shards"
            return IterableImageDataset("", Stream(names, labels[split], unreadable))
        return ImageDataset("", Table(names, labels[split], unreadable))

    monkeypatch.setattr(timm.data.dataset_factory, "create_dataset", create)
    return labels


SOURCES = ["wds/shards", "hfds/numbers"]


@pytest.mark.parametrize("source", SOURCES)
def test_splits_that_exist_are_used(source: str, library: dict[str, list[int]]) -> None:
    library |= {"train": [0, 1] * 20, "val": [0, 1] * 4, "test": [1, 0] * 3}
    data = load_data(source, image_size=16, seed=0)
    assert (len(data.train), len(data.search), len(data.test)) == (40, 8, 6)
    assert data.class_names == (("0", "1") if source == "wds/shards" else ("even", "odd"))
    images, labels = materialise(data.test, limit=None, seed=0)
    assert images.shape == (6, 3, 16, 16)
    assert (images == labels.view(-1, 1, 1, 1) * 100).all()
    assert labels.tolist() == [1, 0] * 3


@pytest.mark.parametrize("source", SOURCES)
def test_splits_that_are_missing_are_cut_from_train(
    source: str, library: dict[str, list[int]]
) -> None:
    library |= {"train": [0, 1] * 20}
    data = load_data(source, image_size=16, seed=0)
    assert (len(data.train), len(data.search), len(data.test)) == (28, 6, 6)
    assert [note.split(":")[0] for note in data.notes] == ["no search split", "no test split"]


def test_a_test_split_without_labels_is_left_aside_and_said(library: dict[str, list[int]]) -> None:
    library |= {"train": [0, 1] * 20, "validation": [0, 1] * 4, "test": [-1] * 6}
    data = load_data("hfds/numbers", image_size=16, seed=0)
    assert (len(data.train), len(data.search), len(data.test)) == (34, 6, 8)
    assert "the test split has no labels and is left aside" in data.notes


def test_a_broken_record_is_named_and_not_replaced_by_its_neighbour(
    library: dict[str, list[int]],
) -> None:
    library |= {"train": [0, 1] * 20, "test": [0, 1], "unreadable": [0]}
    data = load_data("hfds/numbers", image_size=16, seed=0)
    with pytest.raises(InputError, match=r"^hfds/numbers, image 0: broken image"):
        materialise(data.test, limit=None, seed=0)


def test_a_stream_that_skips_images_is_refused(library: dict[str, list[int]]) -> None:
    library |= {"train": [0, 1] * 20, "unreadable": [0, 0]}
    with pytest.raises(InputError, match="2 of 40 images could not be read"):
        load_data("wds/shards", image_size=16, seed=0)


def test_a_stream_larger_than_memory_is_refused(
    library: dict[str, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    library |= {"train": [0, 1] * 20}
    monkeypatch.setattr(nas.data.timm_dataset, "STREAM_LIMIT", 20_000)
    with pytest.raises(InputError, match="give it as a folder of class folders"):
        load_data("wds/shards", image_size=16, seed=0)


def test_torchvision_data_sets_bring_their_own_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    raw = tmp_path / "nas" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for stem, count in (("train", 100), ("t10k", 30)):
        labels = np.arange(count, dtype=np.uint8) % 10
        shades = np.broadcast_to(labels[:, None, None] * np.uint8(20), (count, 28, 28))
        for kind, values in (("images", shades), ("labels", labels)):
            header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
            path = raw / f"{stem}-{kind}-idx{values.ndim}-ubyte"
            path.write_bytes(header + values.tobytes())
    data = load_data("torch/mnist", image_size=32, seed=0)
    assert (len(data.train), len(data.search), len(data.test)) == (80, 20, 30)
    assert data.class_names[3].startswith("3")
    images, labels = materialise(data.test, limit=None, seed=0)
    assert torch.equal(images, (labels.view(-1, 1, 1, 1) * 20).expand(-1, 3, 32, 32))


def test_an_unknown_name_is_an_input_error_in_one_line() -> None:
    with pytest.raises(InputError, match=r"^`data` torch/nothing: .*Unknown torchvision dataset"):
        load_data("torch/nothing", image_size=32, seed=0)


@pytest.mark.parametrize(
    "error", [OSError("no route\nto host"), AssertionError(), ImportError("x")]
)
def test_a_failed_download_is_an_input_error_in_one_line(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(timm.data.dataset_factory, "create_dataset", fail)
    with pytest.raises(InputError) as caught:
        load_data("tfds/mnist", image_size=32, seed=0)
    message = str(caught.value)
    assert message.startswith(f"`data` tfds/mnist: cannot be opened ({type(error).__name__}")
    assert "\n" not in message
