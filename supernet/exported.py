"""A stand-alone network on disk: `architecture.json` and `weights.safetensors`."""

import json
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, PositiveFloat, ValidationError, model_validator
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from search_space import Architecture
from search_space.architecture import ARCHITECTURE, architecture_file, first_error
from search_space.bounds import Channels, Classes, Pixels
from search_space.parts import Spec
from supernet.network import Network, skeleton

WEIGHTS = "weights.safetensors"
"""The file beside that of the architecture."""


class ExportedNetwork(Spec):
    """What the weights were trained for; kept in the header of `weights.safetensors`.

    Attributes:
        num_classes: Outputs of the classifier.
        in_chans: Channels of the image.
        image_size: Side in pixels of the images that the weights were trained on.
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        class_names: Names of the classes, in the order of the outputs.
        crop_pct: Share of the shorter side that the crop of evaluation keeps.
        crop_mode: Where that crop lies.
        interpolation: How images are resized before it.
    """

    num_classes: Classes
    image_size: Pixels
    mean: tuple[float, ...]
    std: tuple[PositiveFloat, ...]
    class_names: tuple[str, ...]
    in_chans: Channels = 3
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    crop_mode: Literal["center"] = "center"
    interpolation: Literal["bicubic"] = "bicubic"

    @model_validator(mode="after")
    def _numbers_agree(self) -> Self:
        if {len(self.mean), len(self.std)} != {self.in_chans}:
            raise ValueError(f"mean and std must have one number for each of {self.in_chans} chans")
        if len(self.class_names) != self.num_classes:
            raise ValueError(f"{len(self.class_names)} names of {self.num_classes} classes")
        return self


def save_exported(folder: Path, network: Network, about: ExportedNetwork) -> None:
    """Write a network's architecture and weights into a folder, which must exist."""
    weights = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    metadata = {name: json.dumps(value) for name, value in vars(about).items()}
    save_file(weights, folder / WEIGHTS, metadata=metadata)
    (folder / ARCHITECTURE).write_text(network.architecture.to_json(), encoding="utf-8")


def describe_exported(architecture_file: Path) -> ExportedNetwork | None:
    """What the weights beside an architecture file were trained for; None if there are none.

    Raises:
        ValueError: If the file beside it is no weights file of ours.
    """
    weights = architecture_file.parent / WEIGHTS
    if not weights.exists():
        return None
    try:
        with safe_open(weights, framework="pt") as file:
            header = file.metadata() or {}
        metadata = {name: json.loads(text) for name, text in header.items()}
        return ExportedNetwork.model_validate(metadata)
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        why = first_error(error) if isinstance(error, ValidationError) else error
        raise ValueError(f"{weights}: no weights of an exported network ({why})") from None


def load_exported(path: str | Path) -> tuple[Network, ExportedNetwork]:
    """The network of an exported folder (or of its `architecture.json`) with its weights.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        ValueError: If the weights are missing or don't fit the architecture.
    """
    file = architecture_file(path)
    architecture = Architecture.load(file)
    about = describe_exported(file)
    weights = file.parent / WEIGHTS
    if about is None:
        raise ValueError(f"{weights}: no such file")
    network = skeleton(architecture, num_classes=about.num_classes, in_chans=about.in_chans)
    with safe_open(weights, framework="pt") as tensors:
        state = {name: tensors.get_tensor(name) for name in tensors.keys()}  # noqa: SIM118
    expected = {name: (t.shape, t.dtype) for name, t in network.state_dict().items()}
    if expected != {name: (t.shape, t.dtype) for name, t in state.items()}:
        raise ValueError(f"{weights}: not the weights of the architecture beside it")
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(True).eval(), about
