"""Networks as single files: what they take and give, and that it is what torch gives."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open
from shortened import random_network
from small_runs import NANO, command
from torch import Tensor

import nas
import nas.export.file
import nas.export.onnx
from nas.cli.export import DTYPES, FORMATS
from nas.export.file import FileSettings, Format, write_file
from nas.export.onnx import INPUT, OUTPUT, onnx_session
from nas.utilities.errors import InputError
from search_space import Architecture
from supernet import ExportedNetwork, load_exported, save_exported

ABOUT = ExportedNetwork(
    num_classes=5,
    image_size=64,
    mean=(0.5, 0.25, 0.125),
    std=(0.2, 0.2, 0.2),
    class_names=tuple("abcde"),
)
SMALLEST = NANO.scaled(0.0)
ONE_STAGE = SMALLEST.model_copy(update={"stages": SMALLEST.stages[:1]})
PIXELS = torch.randint(
    0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(3)
)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    save_exported(folder, random_network(ONE_STAGE), ABOUT)
    return folder


def expected(exported: Path, pixels: Tensor) -> Tensor:
    """Class scores, as the text that the command prints says to come by them."""
    network, about = load_exported(exported)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (about.mean, about.std))
    with torch.no_grad():
        scores: Tensor = network((pixels / 255 - mean) / std)
    return scores


def run(path: Path) -> Callable[[Tensor], Tensor]:
    """What a file computes."""
    if path.suffix == ".onnx":
        session = onnx_session(path)
        return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
    module: Any = torch.export.load(path).module()
    return lambda images: module(images).detach()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "torch-export"])
@pytest.mark.sampled(2)
def test_a_file_may_take_pixels_and_give_probabilities_of_any_batch(
    exported: Path, tmp_path: Path, name: Any
) -> None:
    suffix = nas.export.file.SUFFIXES[name]
    settings = FileSettings(format=name, pixels=True, softmax=True)
    file = write_file(exported, tmp_path / f"a{suffix}", settings, PIXELS)
    assert (file.agreeing, file.images) == ((3,), 3)
    assert file.difference is not None and file.difference < 1e-5
    wanted = expected(exported, PIXELS).softmax(dim=1)
    for count in (1, 3):
        torch.testing.assert_close(run(file.path)(PIXELS[:count]), wanted[:count])


@pytest.mark.slow
def test_a_file_of_half_precision_and_a_fixed_batch_names_the_same_classes(
    exported: Path, tmp_path: Path
) -> None:
    settings = FileSettings(dtype="float16", batch=2, opset=18, pixels=True, image_size=(32, 96))
    file = write_file(exported, tmp_path / "a.onnx", settings)
    assert file.images == 4
    assert file.agreeing == (4,)
    model = onnx.load(file.path)
    assert next(entry.version for entry in model.opset_import if not entry.domain) == 18
    (taken,), (given,) = model.graph.input, model.graph.output
    assert [side.dim_value for side in taken.type.tensor_type.shape.dim] == [2, 3, 32, 96]
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert given.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16


@pytest.mark.slow
@pytest.mark.exhaustive
def test_a_flexible_file_takes_other_multiples_of_32(exported: Path, tmp_path: Path) -> None:
    file = write_file(exported, tmp_path / "a.onnx", FileSettings(flexible=True))
    assert (file.agreeing, file.images) == ((4, 4), 4)  # of two sizes
    network, _ = load_exported(exported)
    images = torch.randn(2, 3, 128, 32)
    with torch.no_grad():
        torch.testing.assert_close(run(file.path)(images), network(images), rtol=1e-4, atol=1e-4)


def test_weights_alone_carry_their_architecture(exported: Path, tmp_path: Path) -> None:
    settings = FileSettings(format="safetensors", dtype="float16")
    path = write_file(exported, tmp_path / "a.safetensors", settings).path
    network, _ = load_exported(exported)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert Architecture.from_json(metadata["architecture"]) == network.architecture
    assert json.loads(metadata["class_names"]) == list("abcde")
    for name, tensor in network.half().state_dict().items():
        assert torch.equal(weights[name], tensor)


def test_the_command_offers_all_formats_and_types() -> None:
    assert get_args(Format) == FORMATS
    assert get_args(FileSettings.model_fields["dtype"].annotation) == DTYPES


class Wrong:
    """A runtime that gives other scores."""

    def run(self, outputs: list[str], inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        return [np.ones((len(inputs[INPUT]), 5), np.float32)]


def test_a_file_with_other_outputs_is_refused(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.export.file, "export_onnx", lambda *_, **__: None)
    monkeypatch.setattr(nas.export.file, "onnx_session", lambda _: Wrong())
    with pytest.raises(InputError, match=r"^onnx: the file's output differs from torch's by \d"):
        write_file(exported, tmp_path / "a.onnx", FileSettings())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_command_says_what_the_file_takes_and_how_fast_it_is(
    exported: Path, tmp_path: Path
) -> None:
    out = tmp_path / "deep" / "network.onnx"
    outcome = command("export", exported, "--format", "onnx", "--out", out)
    assert (outcome.status, outcome.err) == (0, "")
    for part in (
        "network.onnx: input images (batch, 3, 64, 64), float32",
        "mean (0.5, 0.25, 0.125)",
        "images: the shorter side to 64 px (bicubic), then the middle",
        "output scores (batch, 5), float32, class scores; classes a, b, c, d, e",
        "on random images: the class of torch's float32 for 4 of 4",
        "ms for 1 image in ONNX Runtime",
    ):
        assert part in outcome.out
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert taken.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["std"] == [0.2, 0.2, 0.2]
    assert metadata["class_names"] == list("abcde")
    assert str(Path(nas.__file__).parents[1]).encode() not in out.read_bytes()


def test_bad_input_is_one_line_and_leaves_nothing(
    exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = set(exported.iterdir())
    weights = exported / "weights.safetensors"
    for arguments, message in (
        ((exported / "elsewhere",), "elsewhere: cannot be read"),
        ((exported, "--out", exported), "is a folder; give the name of a file"),
        ((exported, "--out", exported / "architecture.json"), "the name must end in .onnx"),
        ((exported, "--out", exported / "architecture.json" / "x.onnx"), "cannot be written"),
        ((exported, "--format", "safetensors", "--out", weights), "none of the export's"),
        (
            (exported, "--format", "safetensors", "--softmax"),
            "error: format safetensors holds weights: it has",
        ),
        ((exported, "--format", "safetensors", "--data", "digits"), "--data: safetensors holds"),
        ((exported, "--format", "torch-export", "--opset", "18"), "opset is ONNX's"),
        ((exported, "--format", "torch-export", "--flexible"), "flexible is for ONNX alone"),
        ((exported, "--format", "coreml"), "--format"),
        ((exported, "--opset", "11"), "greater than or equal to 18"),
        ((exported, "--image-size", "7"), "--image-size"),
        ((exported, "--image-size", "64x"), "--image-size"),
        ((exported, "--data", "nowhere"), "nowhere"),
    ):
        outcome = command("export", *arguments)
        assert outcome.status == 2, message
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    monkeypatch.setattr(nas.export.onnx, "find_spec", lambda name: None)
    outcome = command("export", exported)
    assert outcome.err == (
        "error: export to ONNX is not installed; pip install 'subnet-search[onnx]'\n"
    )
    assert set(exported.iterdir()) == files


def test_another_programs_config_around_an_export_is_no_run(exported: Path, tmp_path: Path) -> None:
    model = tmp_path / "web" / "model"
    shutil.copytree(exported, model)
    (model.parent / "config.json").write_text('{"model_type": "bert"}')
    outcome = command("export", model, "--format", "torch-export", "--data", "digits")
    assert outcome.status == 0, outcome.err
    assert "64 images of digits" in outcome.out
