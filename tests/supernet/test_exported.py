import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from samples import NANO, UNUSUAL, randomise

from search_space import Architecture, ArchitectureError
from supernet import ExportedNetwork, Network, load_exported, save_exported
from supernet.exported import describe_exported

TASK = ExportedNetwork(
    num_classes=4,
    in_chans=1,
    image_size=48,
    mean=(0.25,),
    std=(0.125,),
    class_names=("zero", "one", "zwei \u2265 \u96f6", ""),
)


def random_network(architecture: Architecture, task: ExportedNetwork = TASK) -> Network:
    network = Network(architecture, num_classes=task.num_classes, in_chans=task.in_chans)
    randomise(network.state_dict())
    return network.eval()


@pytest.fixture
def network() -> Network:
    return random_network(NANO.scaled(0.0))


@pytest.fixture
def folder(tmp_path: Path, network: Network) -> Path:
    save_exported(tmp_path, network, TASK)
    return tmp_path


def test_folder_holds_json_and_safetensors_and_nothing_else(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"architecture.json", "weights.safetensors"}


@pytest.mark.parametrize("architecture", [NANO.scaled(1.0), UNUSUAL.scaled(1.0)])
@pytest.mark.parametrize(
    "task", [TASK, TASK.model_copy(update={"num_classes": 0, "class_names": ()})]
)
def test_round_trip_keeps_architecture_weights_and_what_they_are_for(
    architecture: Architecture, task: ExportedNetwork, tmp_path: Path
) -> None:
    network = random_network(architecture, task)
    save_exported(tmp_path, network, task)
    for path in (tmp_path, str(tmp_path), tmp_path / "architecture.json"):
        loaded, about = load_exported(path)
        assert about == task
        assert loaded.architecture == network.architecture
        assert (loaded.num_classes, loaded.in_chans) == (task.num_classes, task.in_chans)
        torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
        images = torch.randn(2, 1, 48, 48)
        torch.testing.assert_close(loaded(images), network(images))


def test_loaded_network_is_in_eval_mode_and_can_be_trained(folder: Path) -> None:
    network, _ = load_exported(folder)
    assert not network.training
    network.train()(torch.randn(2, 1, 32, 32)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_saving_does_not_change_the_network_and_saving_again_overwrites(
    folder: Path, network: Network
) -> None:
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    save_exported(folder, network, TASK)
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)
    other = random_network(NANO.scaled(1.0))
    save_exported(folder, other, TASK)
    assert load_exported(folder)[0].architecture == other.architecture


def test_description_is_read_without_the_weights_and_is_none_where_there_are_none(
    folder: Path,
) -> None:
    assert describe_exported(folder / "architecture.json") == TASK
    (folder / "weights.safetensors").unlink()
    assert describe_exported(folder / "architecture.json") is None
    with pytest.raises(ValueError, match=r"weights\.safetensors: no such file"):
        load_exported(folder)


def test_missing_or_broken_architecture_is_named(folder: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"elsewhere: cannot be read \(No such file"):
        load_exported(folder / "elsewhere")
    (folder / "architecture.json").write_text("{}")
    with pytest.raises(ArchitectureError, match=r"architecture\.json: stem: Field required"):
        load_exported(folder)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08" + bytes(7) + b"not json"])
def test_a_file_that_is_no_safetensors_is_named(folder: Path, content: bytes) -> None:
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"weights\.safetensors: no weights of an exported"):
        load_exported(folder)


def test_a_folder_in_the_place_of_the_weights_is_named(folder: Path) -> None:
    (folder / "weights.safetensors").unlink()
    (folder / "weights.safetensors").mkdir()
    with pytest.raises(ValueError, match=r"weights\.safetensors: no weights of an exported"):
        load_exported(folder)


def test_truncated_weights_are_named(folder: Path) -> None:
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"weights\.safetensors: no weights of an exported"):
        load_exported(folder)


def described(**changes: object) -> dict[str, str]:
    return {name: json.dumps(value) for name, value in (TASK.model_dump() | changes).items()}


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        {"num_classes": "4"},
        {"num_classes": "four"},
        {"num_classes": "[" * 100_000},
        described(num_classes=4.5),
        described(num_classes=10**12, class_names=[]),
        described(class_names="four"),
        described(mean=[0.25, 0.5]),
        described(std=[0.0]),
        described(std=[float("nan")]),
    ],
    ids=lambda metadata: str(metadata)[:60],
)
def test_weights_without_a_description_are_named(
    folder: Path, network: Network, metadata: dict[str, str] | None
) -> None:
    save_file(network.state_dict(), folder / "weights.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match=r"weights\.safetensors: no weights of an exported"):
        load_exported(folder)


def test_weights_of_another_architecture_are_refused(folder: Path) -> None:
    (folder / "architecture.json").write_text(NANO.scaled(1.0).to_json())
    with pytest.raises(ValueError, match="not the weights of the architecture beside it"):
        load_exported(folder)


def test_weights_that_lack_a_tensor_are_refused(folder: Path) -> None:
    file = folder / "weights.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    weights = {name: tensor for name, tensor in load_file(file).items() if name != "head.bias"}
    save_file(weights, file, metadata=metadata)
    with pytest.raises(ValueError, match="not the weights of the architecture beside it"):
        load_exported(folder)


def test_weights_of_another_type_are_refused(folder: Path) -> None:
    file = folder / "weights.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    weights = {name: tensor.to(torch.int32) for name, tensor in load_file(file).items()}
    save_file(weights, file, metadata=metadata)
    with pytest.raises(ValueError, match="not the weights of the architecture beside it"):
        load_exported(folder)
