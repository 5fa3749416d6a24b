"""Reading an authors' checkpoint as weights of ours."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path

from timm.models import load_state_dict
from torch import Tensor

from search_space import DESIGNS, Architecture, PublishedDesign
from supernet.authors.deit import deit
from supernet.authors.layout import Layout, Part, Take
from supernet.authors.lit import lit, lit_tiny
from supernet.authors.pslt import pslt
from supernet.authors.pvt import pvt
from supernet.authors.shunted import shunted
from supernet.network import Network, skeleton

LAYOUTS: dict[str, Layout] = {
    **dict.fromkeys(("Shunted-T", "Shunted-S", "Shunted-B"), shunted),
    "LIT-Ti": lit_tiny,
    **dict.fromkeys(("LIT-S", "LIT-M", "LIT-B"), lit),
    **dict.fromkeys(("PSLT-Tiny", "PSLT", "PSLT-Large"), pslt),
    **dict.fromkeys(("DeiT-Ti", "DeiT-S"), deit),
    "PVT-Tiny": pvt,
}
"""How the authors write checkpoints, by the design's name."""

OURS = {"stem", "stages", "expand"}
"""The parts of our networks; of theirs none is called so, but all have a `head`."""

COMPUTED = "relative_position_index", "attn_mask"
"""Last parts of the names of tensors that the authors save, and that follow from the design."""


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, out of what timm knows that authors wrap them in.

    Nothing but tensors and plain values is unpickled.

    Raises:
        ValueError: If the file cannot be read, or holds no tensors by name.
    """
    if not file.is_file():
        raise ValueError(f"{file}: no such file")
    try:
        state = load_state_dict(str(file))
    except Exception as error:  # of a damaged pickle torch may raise anything
        why = str(error).partition("\n")[0].partition(". ")[0] or type(error).__name__
        raise ValueError(f"{file}: no checkpoint that can be read ({why})") from None
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors or len(tensors) < len(state):
        raise ValueError(f"{file}: no checkpoint: it holds other things than tensors by name")
    return tensors


def checkpoint_filter_fn(state_dict: Mapping[str, Tensor], model: Network) -> dict[str, Tensor]:
    """The weights of a design in our names, from its authors'; what has our names is as it was.

    The classifier has as many classes, and the first convolution as many channels, as the
    checkpoint's: fitting them to the model is left to timm, which calls this.

    Raises:
        ValueError: If they are not the weights of the design that the model is, or if it is none
            whose checkpoints are known.
    """
    parts = {name.partition(".")[0] for name in state_dict}
    if parts & OURS or parts <= {"head"}:
        return dict(state_dict)
    design = _designs().get(model.architecture.hash)
    if design is None:
        raise ValueError("these weights are not in our names, and the network is no known design")
    return converted(state_dict, design)


def take_authors_names(model: Network, state_dict: dict[str, Tensor], *_: object) -> None:
    """Before it loads a state, a network that has this as a hook has it in our names."""
    weights = checkpoint_filter_fn(state_dict, model)
    state_dict.clear()
    state_dict.update(weights)


@cache
def _designs() -> dict[str, PublishedDesign]:
    return {design.architecture.hash: design for design in DESIGNS}


def converted(state: Mapping[str, Tensor], design: PublishedDesign) -> dict[str, Tensor]:
    """The weights of a design in our names and layouts, from its authors'.

    Raises:
        ValueError: If they are of another design; it names the first tensor that differs.
    """
    if design.name not in LAYOUTS:
        known = ", ".join(LAYOUTS)
        raise ValueError(f"{design.name}: no checkpoint of its authors is known; legal: {known}")
    sources = _sources(design.architecture, LAYOUTS[design.name])
    saved = [name for name in state if name.rpartition(".")[2] not in COMPUTED]
    wanted = {source for source, _ in sources.values()}
    for name in [name for name, _ in sources.values() if name not in state]:
        raise ValueError(f"not the weights of {design.name}: {name} is missing")
    for name in [name for name in saved if name not in wanted]:
        raise ValueError(f"not the weights of {design.name}, which has no {name}")
    classes = max(1, state[sources["head.bias"][0]].numel())
    first = next(iter(sources.values()))[0]  # convolution, (width, channels, side, side)
    in_chans = state[first].shape[1:2].numel()
    network = skeleton(design.architecture, num_classes=classes, in_chans=in_chans)
    weights = {}
    for ours, like in network.state_dict().items():
        name, take = sources[ours]
        weight = _taken(state[name], take, like)
        if weight is None:
            shape = list(state[name].shape)
            raise ValueError(f"not the weights of {design.name}: {name} has the shape {shape}")
        weights[ours] = weight
    return weights


def _sources(architecture: Architecture, layout: Layout) -> dict[str, tuple[str, Take]]:
    """For each tensor of ours the name of theirs, and what takes it from there."""
    parts = {part.ours: part for part in layout(architecture)}
    names = skeleton(architecture, num_classes=1).state_dict()
    return {name: _source(name, parts) for name in names}


def _source(name: str, parts: Mapping[str, Part]) -> tuple[str, Take]:
    """As `_sources`, of one tensor: it, or the innermost module around it, is a part."""
    around = name
    while around not in parts:
        around, dot, _ = around.rpartition(".")
        assert dot, f"the layout has no {name}"
    part = parts[around]
    return part.theirs + name.removeprefix(around), part.take


def _taken(tensor: Tensor, take: Take, like: Tensor) -> Tensor | None:
    """A copy in the shape and type of a tensor of ours; None if theirs has not that many."""
    try:
        taken = take(tensor)
    except (RuntimeError, IndexError, ValueError):
        return None
    if _sides(taken) != _sides(like):
        return None
    return taken.reshape(like.shape).to(like.dtype, copy=True).contiguous()


def _sides(tensor: Tensor) -> list[int]:
    """Its shape without dimensions of size one."""
    return [side for side in tensor.shape if side != 1]
