"""One architecture for people: where its parameters, multiply-adds and time go, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.objectives.objective import BYTES_PER_ELEMENT, MEMORY
from nas.utilities.units import format_milliseconds
from search_space import Architecture, cost_table, total_cost
from search_space.segments import part_names, segments

if TYPE_CHECKING:
    from rich.console import Console

    from nas.latency.conditions import LatencyConditions
    from nas.latency.table import LatencyTable

BAR_WIDTH = 20
"""Characters of the longest bar."""


@dataclass(frozen=True, kw_only=True)
class PartLatency:
    """What each part of a network takes.

    Attributes:
        device: Which it is.
        milliseconds: By the name of the part, as in `search_space.cost_table`.
        how: How that is known, for people.
    """

    device: str
    milliseconds: Mapping[str, float]
    how: str

    @property
    def total_ms(self) -> float:
        """Of the whole network."""
        return sum(self.milliseconds.values())


def timed_parts(architecture: Architecture, conditions: LatencyConditions) -> PartLatency:
    """Time the parts on a device that is here, inside the whole network.

    Raises:
        InputError: If the device has not the memory.
    """
    from nas.latency.profile import time_segments

    conditions.check_room(architecture)
    times = [milliseconds for _, milliseconds in time_segments(architecture, conditions)]
    return PartLatency(
        device=conditions.device,
        milliseconds=_by_part(architecture, times),
        how=f"measured just now: {conditions}",
    )


def predicted_parts(architecture: Architecture, table: LatencyTable, source: str) -> PartLatency:
    """What a latency table says of the parts.

    Raises:
        InputError: If it lacks a segment of the architecture.
    """
    from nas.utilities.errors import InputError

    found = segments(architecture, image_size=table.conditions.image_size)
    if missing := [s.label for s in found if s.label not in table.segments]:
        raise InputError(f"{source}: lacks the segment {missing[0]!r} of the architecture")
    times = [table.time([segment]) for segment in found]
    return PartLatency(
        device=table.conditions.device,
        milliseconds=_by_part(architecture, times),
        how=f"by {source}: {table.conditions}",
    )


def described(
    architecture: Architecture, *, image_size: int, num_classes: int, latency: PartLatency | None
) -> dict[str, Any]:
    """Everything about an architecture as JSON data."""
    sizes = {"image_size": image_size, "num_classes": num_classes}
    cost = total_cost(architecture, **sizes)
    parts: list[dict[str, Any]] = [
        {
            "name": part.name,
            "map": list(part.map_size),
            "params": part.cost.params,
            "macs": part.cost.macs,
            "activations": part.cost.activations,
            "peak": part.cost.peak,
        }
        for part in cost_table(architecture, **sizes)
    ]
    whole: dict[str, Any] = {
        "hash": architecture.hash,
        **sizes,
        "params": cost.params,
        "macs": cost.macs,
        "activations": cost.activations,
        "peak": cost.peak,
        "memory_bytes": cost.memory_bytes(),
        "summary": architecture.summary,
    }
    if latency is not None:
        whole |= {"latency_ms": latency.total_ms, "latency_conditions": latency.how}
        for part in parts:
            part["latency_ms"] = latency.milliseconds[part["name"]]
    return {**whole, "parts": parts}


def print_description(whole: Mapping[str, Any], architecture: Architecture, to: Console) -> None:
    """Print what `described` gave: the stages, a table of the parts, and a drawing of shares."""
    from rich.box import SIMPLE
    from rich.table import Table

    for number, stage in enumerate(architecture.stages, start=1):
        to.print(f"stage {number}: {stage}", highlight=False, markup=False)
    timed = "latency_ms" in whole
    title = f"architecture {whole['hash']}"
    table = Table(title=title, box=SIMPLE, pad_edge=False, collapse_padding=True)
    table.add_column("part")
    for name in ("map", "params", "MACs", "activations", *(["ms"] if timed else [])):
        table.add_column(name, justify="right")
    for part in whole["parts"]:
        height, width = part["map"]
        table.add_row(part["name"], f"{height}×{width}", *_cells(part))
    table.add_section()
    table.add_row("all", "", *_cells(whole))
    table.caption = (
        f"MACs are multiply-adds of one image at {whole['image_size']} px, activations the "
        "elements that convolutions, linear layers and attention write; "
        f"{whole['num_classes']} classes"
    )
    to.print(table)
    shares = Table(title="where it goes", box=SIMPLE, pad_edge=False, collapse_padding=True)
    shares.add_column("part")
    names = {"macs": "share of MACs"} | ({"latency_ms": "share of latency"} if timed else {})
    for name in names.values():
        shares.add_column(name)
    longest = max(part[key] / whole[key] for part in whole["parts"] for key in names)
    for part in whole["parts"]:
        bars = (_bar(part[key] / whole[key], longest) for key in names)
        shares.add_row(part["name"], *bars)
    to.print(shares)
    peak = whole["memory_bytes"] - BYTES_PER_ELEMENT * whole["params"]
    to.print(
        f"memory: at least {whole['memory_bytes'] / 1e6:.1f} MB in float32, the weights and "
        f"{MEMORY.amount(peak)} of peak activation memory (what the largest operator reads and "
        f"writes, {whole['peak']:,} elements)",
    )
    if timed:
        latency = format_milliseconds(whole["latency_ms"])
        to.print(f"latency: {latency}, {whole['latency_conditions']}")


def _cells(costs: Mapping[str, Any]) -> list[str]:
    cells = [f"{costs[key]:,}" for key in ("params", "macs", "activations")]
    return cells + ([f"{costs['latency_ms']:.3f}"] if "latency_ms" in costs else [])


def _bar(share: float, longest: float) -> str:
    return f"{share:6.1%} {'█' * round(BAR_WIDTH * share / longest)}"


def _by_part(architecture: Architecture, times: list[float]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for name, milliseconds in zip(part_names(architecture), times, strict=True):
        sums[name] = sums.get(name, 0.0) + milliseconds
    return sums
