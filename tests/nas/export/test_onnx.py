import json
from pathlib import Path

import onnx
import pytest
import torch
from shortened import SHORTENED, random_network
from small_runs import NANO, command
from torch import Tensor, nn
from torch.nn import functional as F

import nas.export.onnx
from nas.export.onnx import export_onnx, onnx_difference
from nas.utilities.errors import InputError
from supernet import ExportedNetwork, Network, save_exported
from supernet.blocks.global_attention import adaptive_max_pool


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    about = ExportedNetwork(
        num_classes=5,
        image_size=64,
        mean=(0.5, 0.25, 0.125),
        std=(0.2, 0.2, 0.2),
        class_names=tuple("abcde"),
    )
    save_exported(tmp_path, random_network(NANO.scaled(0.0)), about)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORTENED)
def test_every_kind_of_block_gives_the_outputs_of_torch_at_an_odd_size(
    name: str, tmp_path: Path
) -> None:
    network, path = random_network(SHORTENED[name]), tmp_path / "model.onnx"
    images = torch.randn(2, 3, 97, 97, generator=torch.Generator().manual_seed(1))
    export_onnx(network, images, path, any_batch=False, tidy=False)
    assert onnx_difference(path, network, images) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("sides", [(9, 9), (13, 10), (7, 5)])
def test_adaptive_pooling_of_any_sides_has_a_form_in_onnx(
    sides: tuple[int, int], tmp_path: Path
) -> None:
    class Pool(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return adaptive_max_pool(x, (3, 5))

    images = torch.randn(2, 4, *sides)
    torch.testing.assert_close(Pool()(images), F.adaptive_max_pool2d(images, (3, 5)))
    export_onnx(Pool(), images, tmp_path / "model.onnx", any_batch=False)
    assert onnx_difference(tmp_path / "model.onnx", Pool(), images) == 0


def test_a_block_without_a_form_in_onnx_is_named(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.AdaptiveMaxPool2d(3))).eval()
    path = tmp_path / "model.onnx"
    with pytest.raises(InputError, match=r"block '1\.0' can't be exported: .*adaptive_max_pool2d"):
        export_onnx(network, torch.randn(2, 3, 8, 8), path, any_batch=True)
    assert not path.exists()


def test_a_file_with_other_outputs_is_refused(tmp_path: Path) -> None:
    network, images = nn.Conv2d(3, 2, 4), torch.randn(2, 3, 8, 8)
    export_onnx(network, images, tmp_path / "model.onnx", any_batch=True)
    with torch.no_grad():
        network.weight *= 1.01
    with pytest.raises(InputError, match=r"output differs from torch's by 0\.0"):
        onnx_difference(tmp_path / "model.onnx", network, images)


@pytest.mark.slow
def test_the_command_writes_one_file_that_says_what_it_takes(folder: Path) -> None:
    outcome = command("export", folder, "--format", "onnx")
    assert (outcome.status, outcome.err) == (0, "")
    for part in ("model.onnx", "images (batch, 3, 64, 64)", "any batch", "(0.5, 0.25, 0.125)"):
        assert part in outcome.out
    assert "largest relative difference to torch's output" in outcome.out
    names = {"architecture.json", "weights.safetensors", "model.onnx"}
    assert {file.name for file in folder.iterdir()} == names
    model = onnx.load(folder / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    (taken,), (given,) = model.graph.input, model.graph.output
    assert taken.type.tensor_type.shape.dim[0].dim_param == "batch"
    assert given.type.tensor_type.shape.dim[0].dim_param == "batch"
    metadata = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert metadata["std"] == [0.2, 0.2, 0.2]
    assert metadata["class_names"] == list("abcde")
    assert str(Path(nas.__file__).parents[1]).encode() not in (folder / "model.onnx").read_bytes()


def test_the_command_takes_a_size_and_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Path, int]] = []

    def export(network: Network, images: Tensor, path: Path, **how: object) -> None:
        asked.append((path, images.shape[-1]))
        path.touch()

    monkeypatch.setattr(nas.export.onnx, "export_onnx", export)
    monkeypatch.setattr(nas.export.onnx, "onnx_difference", lambda *_: 1.25e-7)
    out = folder / "deep" / "network.onnx"
    outcome = command("export", folder / "architecture.json", "--image-size", "45", "--out", out)
    assert outcome.status == 0, outcome.err
    assert "(batch, 3, 45, 45)" in outcome.out
    assert "1.2e-07" in outcome.out
    assert out.exists()
    ((path, size),) = asked
    assert (path.name, size) == (out.name, 45)
    assert path != out  # it takes its place once it is whole


def test_bad_input_of_the_command_is_one_line_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = set(folder.iterdir())
    for arguments, message in (
        ((folder / "elsewhere",), "elsewhere: cannot be read"),
        ((folder, "--out", folder), "is a folder; give the name of a file"),
        ((folder, "--out", folder / "architecture.json"), "the name must end in .onnx"),
        ((folder, "--out", folder / "architecture.json" / "x.onnx"), "cannot be written"),
        ((folder, "--format", "coreml"), "--format"),
        ((folder, "--image-size", "7"), "--image-size"),
    ):
        outcome = command("export", *arguments)
        assert outcome.status == 2
        assert message in outcome.err
        assert outcome.err.count("\n") == 1
    monkeypatch.setattr(nas.export.onnx, "find_spec", lambda name: None)
    outcome = command("export", folder)
    assert outcome.err == (
        "error: export to ONNX is not installed; pip install 'subnet-search[onnx]'\n"
    )
    assert set(folder.iterdir()) == files
