"""Networks whose weights exist: exports of ours, checkpoints of authors, and what timm can get."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from nas.utilities.errors import InputError
from search_space import DESIGNS, ArchitectureError, PublishedDesign
from supernet import Network, load_exported
from supernet.authors import LAYOUTS, converted, read_checkpoint
from supernet.network import skeleton
from supernet.store import lent_weights

SOURCES = ("local-dir:", "hf-hub:", "hf_hub:")
"""What stands before the folder, or the name on Hugging Face, that timm gets a model from."""


@dataclass(frozen=True, kw_only=True)
class Pretrained:
    """A network with weights from elsewhere.

    Attributes:
        name: Of the design, of the folder that it was exported into, or as timm calls it.
        network: In eval mode, on the CPU.
    """

    name: str
    network: Network

    @property
    def digest(self) -> str:
        """Sixteen hex digits of the weights, their names and the architecture."""
        return digest_of(self.network, self.network.architecture.hash)

    def told(self, num_classes: int) -> str:
        """What a supernet for so many classes begins with, in a sentence."""
        lent = lent_weights(self.network, num_classes)
        parameters = dict(self.network.named_parameters())
        count = sum(lent[name].numel() for name in lent.keys() & parameters.keys())
        without = "" if "head.weight" in lent else ", without its classifier of other classes"
        return (
            f"the supernet begins with the weights of {self.name}{without}: {count:,} parameters, "
            f"{len(lent)} tensors; its other weights are drawn"
        )


def digest_of(model: nn.Module, built: str) -> str:
    """Sixteen hex digits of a model's weights, their names, and how it is built."""
    digest = hashlib.sha256(built.encode())
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def timm_model(name: str, **arguments: Any) -> Any:
    """A model that timm creates by its name, ours among them; in eval mode, on the CPU.

    Raises:
        InputError: If timm knows no such model, or cannot get the weights that are asked for.
    """
    try:
        return timm.create_model(name, **arguments).eval()
    except Exception as error:  # the models and the sources of weights raise their own kinds
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{name}: timm cannot make it: {why}") from None


def read_pretrained(path: str | Path) -> Pretrained:
    """The network of an export, of an authors' checkpoint, or one that timm gets.

    Of a checkpoint the design is found by the names and shapes in it.

    Args:
        path: The export's folder or `architecture.json`; the checkpoint; or what timm is to get,
            after one of `SOURCES`.

    Raises:
        InputError: If there is none, or it cannot be read.
    """
    name = str(path)
    if name.startswith(SOURCES):
        model = timm_model(name, pretrained=True)
        if not isinstance(model, Network):
            raise InputError(f"{name}: a {type(model).__name__}, and no network of ours")
        return Pretrained(name=name, network=model)
    path = Path(path)
    if path.is_dir() or path.suffix == ".json":
        try:
            network, _ = load_exported(path)
        except (ArchitectureError, ValueError) as error:
            raise InputError(str(error)) from None
        folder = path if path.is_dir() else path.parent
        return Pretrained(name=folder.resolve().name, network=network)
    return read_authors(path, [design for design in DESIGNS if design.name in LAYOUTS])


def read_authors(file: Path, designs: Iterable[PublishedDesign]) -> Pretrained:
    """The network of an authors' checkpoint, which is of one of these designs.

    Raises:
        InputError: If it cannot be read, or is of none of them.
    """
    try:
        state = read_checkpoint(file)
    except ValueError as error:
        raise InputError(str(error)) from None
    refusals = []
    for design in designs:
        try:
            weights = converted(state, design)
        except ValueError as error:
            refusals.append(str(error))
        else:
            return Pretrained(name=design.name, network=_network(design, weights))
    if len(refusals) == 1:
        raise InputError(f"{file}: {refusals[0]}")
    raise InputError(f"{file}: no checkpoint of {', '.join(LAYOUTS)}")


def _network(design: PublishedDesign, weights: Mapping[str, Tensor]) -> Network:
    classes, first = weights["head.bias"], next(iter(weights.values()))
    network = skeleton(design.architecture, num_classes=len(classes), in_chans=first.shape[1])
    network.load_state_dict(weights, assign=True)
    return network.requires_grad_(True).eval()
