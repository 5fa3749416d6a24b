"""timm gives an exported network the images, and calls its classes, as our evaluation does."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from nas.data import Data, OwnDataset, load_data, normalise
from nas.data.images import TransformedImages, from_array
from nas.export.network import export_network
from search_space import PRESETS
from supernet import Network

SIZE = 40
RNG = np.random.default_rng(0)


def image(height: int, width: int) -> Image.Image:
    return from_array(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def from_folder(folder: Path) -> Data:
    """Twelve classes whose natural order is not that of their letters; images of any shape."""
    for number in range(1, 13):
        (folder / f"class{number}").mkdir(parents=True)
        for index in range(6):
            image(50 + 7 * index, 61).save(folder / f"class{number}" / f"{index}.png")
    return load_data(str(folder), image_size=SIZE, seed=0)


def from_own_datasets(folder: Path) -> Data:
    pairs = [(image(44, 90), index % 2) for index in range(40)]
    own = OwnDataset(
        name="own",
        class_names=("round", "square"),
        train=pairs,
        mean=(0.2, 0.3, 0.4),
        std=(0.3, 0.2, 0.1),
        crop=0.8,
    )
    return load_data(own, image_size=SIZE, seed=0)


def from_digits(folder: Path) -> Data:
    return load_data("digits", image_size=SIZE, seed=0)


@pytest.fixture(params=[from_folder, from_own_datasets, from_digits])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    source: Callable[[Path], Data] = request.param
    return source(tmp_path / "images")


@pytest.fixture
def folder(data: Data, tmp_path: Path) -> Path:
    network = Network(PRESETS["nano"].scaled(0.0), num_classes=data.num_classes)
    texts = {"card": "a card", "picture": "<svg/>"}
    export_network(tmp_path / "best", network, data, image_size=SIZE, **texts)
    return tmp_path / "best"


def images_of(data: Data) -> list[Image.Image]:
    """Some images of the search split before they were transformed."""
    split = data.search
    if isinstance(split, TransformedImages):
        return [split.images.read(source) for source in split.images.sources[:4]]
    return [Image.fromarray(split[index][0].permute(1, 2, 0).numpy()) for index in range(4)]


def models(folder: Path) -> list[nn.Module]:
    return [
        timm.create_model("subnet", architecture=folder, pretrained=True, **options)
        for options in ({}, {"features_only": True}, {"num_classes": 7})
    ]


def test_timms_transform_gives_what_accuracy_was_measured_on(data: Data, folder: Path) -> None:
    expected = [
        normalise(data.search[index][0].unsqueeze(0), data.mean, data.std)[0] for index in range(4)
    ]
    for model in models(folder):
        config = timm.data.resolve_model_data_config(model)
        transform = timm.data.create_transform(**config)
        found = [transform(given) for given in images_of(data)]
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_names_of_classes_travel_in_the_order_of_the_outputs(data: Data, folder: Path) -> None:
    model, _, other = models(folder)
    assert model.pretrained_cfg["label_names"] == data.class_names
    assert "label_names" not in other.pretrained_cfg  # its classifier is a fresh one
    with safe_open(folder / "weights.safetensors", framework="pt") as file:
        header = file.metadata()
    assert {"crop_pct", "crop_mode", "interpolation", "mean", "std", "image_size"} <= set(header)


def test_a_folder_has_the_classes_in_timms_order(tmp_path: Path) -> None:
    data = from_folder(tmp_path / "images")
    dataset = timm.data.create_dataset("", root=str(tmp_path / "images"))
    order = dataset.reader.class_to_idx
    assert data.class_names == tuple(sorted(order, key=order.__getitem__))
    assert data.class_names[:3] == ("class1", "class2", "class3")
