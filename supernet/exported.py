"""A stand-alone network on disk: `architecture.json` and `weights.safetensors`."""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from search_space import Architecture
from supernet.network import Network, skeleton


@dataclass(frozen=True, kw_only=True)
class ExportedNetwork:
    """What the weights were trained for; kept in the header of `weights.safetensors`.

    Attributes:
        num_classes: Outputs of the classifier.
        in_chans: Channels of the image.
        image_size: Side in pixels of the images that the weights were trained on.
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        class_names: Names of the classes, in the order of the outputs.
    """

    num_classes: int
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    in_chans: int = 3


def save_exported(folder: Path, network: Network, about: ExportedNetwork) -> None:
    """Write a network's architecture and weights into a folder, which must exist."""
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    metadata = {name: json.dumps(value) for name, value in vars(about).items()}
    save_file(weights, folder / "weights.safetensors", metadata=metadata)
    (folder / "architecture.json").write_text(network.architecture.to_json(), encoding="utf-8")


def describe_exported(architecture_file: Path) -> ExportedNetwork | None:
    """What the weights beside an architecture file were trained for; None if there are none.

    Raises:
        ValueError: If the file beside it is no weights file of ours.
    """
    weights = architecture_file.parent / "weights.safetensors"
    if not weights.exists():
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        return ExportedNetwork(
            num_classes=metadata["num_classes"],
            in_chans=metadata["in_chans"],
            image_size=metadata["image_size"],
            mean=tuple(metadata["mean"]),
            std=tuple(metadata["std"]),
            class_names=tuple(metadata["class_names"]),
        )
    except (SafetensorError, KeyError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(f"{weights}: no weights of an exported network ({error})") from None


def load_exported(path: str | Path) -> tuple[Network, ExportedNetwork]:
    """The network of an exported folder (or of its `architecture.json`) with its weights.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        ValueError: If the weights are missing or don't fit the architecture.
    """
    path = Path(path)
    file = path / "architecture.json" if path.is_dir() else path
    architecture = Architecture.load(file)
    about = describe_exported(file)
    weights = file.parent / "weights.safetensors"
    if about is None:
        raise ValueError(f"{weights}: no such file")
    network = skeleton(architecture, num_classes=about.num_classes, in_chans=about.in_chans)
    with safe_open(weights, framework="pt") as tensors:
        state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    if expected != {name: tuple(tensor.shape) for name, tensor in state.items()}:
        raise ValueError(f"{weights}: not the weights of the architecture beside it")
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(True).eval(), about
