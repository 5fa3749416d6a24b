import gzip
import urllib.error
from pathlib import Path

import numpy as np
import pytest
import torchvision.datasets

import nas.data.fashion
from nas.data import load_data, materialise
from nas.utilities.errors import InputError


def write_idx(path: Path, values: np.ndarray) -> None:
    header = bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes()
    path.write_bytes(gzip.compress(header + values.astype(np.uint8).tobytes()))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files as the Debian package lays them, small; an image's shade is 20 times its label."""
    for stem, count in (("train", 100), ("t10k", 30)):
        labels = np.arange(count) % 10
        write_idx(tmp_path / f"{stem}-labels-idx1-ubyte.gz", labels)
        shades = np.broadcast_to(labels[:, None, None] * 20, (count, 28, 28))
        write_idx(tmp_path / f"{stem}-images-idx3-ubyte.gz", shades)
    monkeypatch.setattr(nas.data.fashion, "DEBIAN_FOLDER", tmp_path)
    return tmp_path


@pytest.mark.usefixtures("package")
def test_search_is_cut_from_train_and_images_are_grey_in_three_channels() -> None:
    data = load_data("fashion-mnist", image_size=32, seed=0)
    assert data.num_classes == 10 and data.class_names[9] == "ankle boot"
    assert (len(data.train), len(data.search), len(data.test)) == (80, 20, 30)
    assert data.notes[0] == "no search split: 15 % of train, 20 images, chosen by seed 0"
    images, labels = materialise(data.test, limit=None, seed=0)
    assert images.shape == (30, 3, 32, 32)
    assert (images == labels.view(-1, 1, 1, 1) * 20).all()


def test_a_damaged_file_is_named(package: Path) -> None:
    path = package / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(InputError, match=f"^{path}: cannot be read"):
        load_data("fashion-mnist", image_size=32, seed=0)


def test_with_neither_package_nor_network_the_error_says_what_would_help(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(nas.data.fashion, "DEBIAN_FOLDER", tmp_path / "none")
    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", offline)
    with pytest.raises(InputError, match=r"connect to a network.*dataset-fashion-mnist"):
        load_data("fashion-mnist", image_size=32, seed=0)
