"""Costs that anyone can verify: the closed form beside two counts of the built network."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from nas.utilities.devices import check_memory
from nas.utilities.errors import Disagreement
from search_space import Architecture, Cost, cost_table, total_cost
from supernet import Network
from supernet.counting import counted_cost, counted_parts, fvcore_macs, fvcore_parts
from supernet.network import skeleton

if TYPE_CHECKING:
    from rich.table import Table


WHOLE = "all"
"""What a whole network is called among its parts."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A part of a network, or all of it: in closed form, and counted while it runs.

    Attributes:
        name: As in `search_space.cost_table`, or what the whole is called.
        closed: The closed form.
        torch: Multiply-adds as torch counts them, the rest as `supernet.counting` does.
        fvcore_macs: Multiply-adds as fvcore counts them.
    """

    name: str
    closed: Cost
    torch: Cost
    fvcore_macs: int

    @property
    def differences(self) -> list[str]:
        """Each number in which a count differs from the closed form, a line each."""
        closed, counted = asdict(self.closed), asdict(self.torch)
        pairs = [(what, closed[what], counted[what], "torch") for what in closed]
        pairs.append(("macs", self.closed.macs, self.fvcore_macs, "fvcore"))
        return [
            f"{self.name}: {what} {expected:,} in closed form, {found:,} by {counter}"
            for what, expected, found, counter in pairs
            if expected != found
        ]

    def as_json(self) -> dict[str, Any]:
        """The counts as JSON data."""
        return {"torch": asdict(self.torch), "fvcore_macs": self.fvcore_macs}


def count_whole(
    architecture: Architecture, *, name: str = WHOLE, image_size: int, num_classes: int
) -> Counted:
    """Build a network and count it as a whole.

    Raises:
        InputError: If this machine has not the memory.
    """
    closed = total_cost(architecture, image_size=image_size, num_classes=num_classes)
    simulated, network = _built(architecture, closed, image_size, num_classes)
    with _silent_trace():
        macs = fvcore_macs(network, _image(image_size, "cpu"))
    counted = counted_cost(simulated, _image(image_size, "meta"))
    return Counted(name=name, closed=closed, torch=counted, fvcore_macs=macs)


def count_parts(architecture: Architecture, *, image_size: int, num_classes: int) -> list[Counted]:
    """Build a network and count each part of it, in their order; the whole comes last.

    Raises:
        InputError: If this machine has not the memory.
    """
    closed = total_cost(architecture, image_size=image_size, num_classes=num_classes)
    simulated, network = _built(architecture, closed, image_size, num_classes)
    by_torch = counted_parts(simulated, _image(image_size, "meta"))
    with _silent_trace():
        by_fvcore = fvcore_parts(network, _image(image_size, "cpu"))
    parts = [
        Counted(
            name=part.name,
            closed=part.cost,
            torch=by_torch.get(part.name, Cost()),
            fvcore_macs=by_fvcore.get(part.name, 0),
        )
        for part in cost_table(architecture, image_size=image_size, num_classes=num_classes)
    ]
    whole = Counted(
        name=WHOLE,
        closed=closed,
        torch=counted_cost(simulated, _image(image_size, "meta")),
        fvcore_macs=by_fvcore[""],
    )
    return [*parts, whole]


def check_agreement(counted: Sequence[Counted]) -> None:
    """See that every count is what the closed form says.

    Raises:
        Disagreement: If not; with the first difference.
    """
    differences = [line for row in counted for line in row.differences]
    if differences:
        more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
        raise Disagreement(f"costs differ from what was counted: {differences[0]}{more}")


def verification_table(
    counted: Sequence[Counted], *, title: str, milliseconds: Mapping[str, float]
) -> Table:
    """Counts side by side, a row each, in 80 columns; with times where there are any."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("", no_wrap=True)
    heads = ("MACs\nclosed form", "\nby torch", "\nby fvcore", *(["\nms"] if milliseconds else []))
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in counted:
        numbers = row.closed.macs, row.torch.macs, row.fvcore_macs
        cells = [*(f"{number:,}" for number in numbers)]
        cells += [f"{milliseconds[row.name]:.3f}"] if milliseconds else []
        wrong = " ≠" if row.differences else ""
        table.add_row(f"{row.name}{wrong}", *cells, style="bold red" if wrong else "")
    agreeing = sum(not row.differences for row in counted)
    table.caption = (
        f"{agreeing} of {len(counted)} agree to the unit, in multiply-adds and in parameters, "
        "activations and peak, which were counted as well"
    )
    return table


def _built(
    architecture: Architecture, cost: Cost, image_size: int, num_classes: int
) -> tuple[Network, Network]:
    """The network without storage, and of zeros on the CPU; both in evaluation."""
    check_memory(f"a network at {image_size} px", cost.memory_bytes(), "cpu")
    simulated = skeleton(architecture, num_classes=num_classes).eval()
    network = skeleton(architecture, num_classes=num_classes).eval().to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    return simulated, network


def _image(size: int, device: str) -> torch.Tensor:
    return torch.zeros(1, 3, size, size, device=device)


@contextmanager
def _silent_trace() -> Iterator[None]:
    """Without gradients, and without torch's warning that tracing, fvcore's means, is old."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield
