"""What was asked of a run and how it was measured, and the words for it.

Every page, table and card takes its numbers' wording from here, so that they agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Any

from nas.search.trials import STATES, LatencyColumns
from nas.utilities.units import format_count

if TYPE_CHECKING:
    import pandas as pd

NOTABLE_SLOWDOWN = 0.05
"""How far a device's slowdown lies from its latency table's where people are told."""


@dataclass(frozen=True, kw_only=True)
class LatencyFacts:
    """How the latency of a device was predicted and measured.

    `conditions` and `error` are for people; `measured` says whether the device is here, so that
    what reaches the front was measured; `networks` are the held-out networks of the table, each
    with `macs`, `predicted_ms` and `measured_ms`.
    """

    conditions: str
    error: str
    measured: bool
    networks: Sequence[Mapping[str, float]] = ()


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was asked of a run and how it was measured.

    `limits` holds every limit by name: `macs`, `params`, `latency_DEVICE_ms`. `search_images` is
    the number of images of the search split, `latency` says of each device with a limit how its
    latency was found, `notes` what else a reader must know, one sentence each.
    """

    command: str
    data: str
    num_classes: int
    search_images: int
    space: str
    space_size: int
    limits: Mapping[str, float]
    smallest_macs: int
    largest_macs: int
    image_size: int
    proxy_size: int
    sampler: str
    seed: int
    device: str
    supernet_steps: int
    supernet_seconds: float
    search_seconds: float
    latency: Mapping[str, LatencyFacts] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: str | bytes) -> RunFacts:
        """Read what `json.dumps(asdict(facts))` wrote."""
        data = json.loads(text)
        latency = {device: LatencyFacts(**facts) for device, facts in data["latency"].items()}
        return cls(**{**data, "notes": tuple(data["notes"]), "latency": latency})

    @property
    def latency_columns(self) -> list[LatencyColumns]:
        """The columns of each device with a limit on latency."""
        return [LatencyColumns(device) for device in self.latency]

    @property
    def full_costs(self) -> dict[str, float]:
        """The cost objectives' scales: their limits, or the largest reachable MACs."""
        costs = ["macs", *(columns.value for columns in self.latency_columns)]
        return {cost: self.limits.get(cost, self.largest_macs) for cost in costs}

    @property
    def objectives(self) -> tuple[str, ...]:
        """Columns that the search trades off: accuracy is maximised, the others are minimised."""
        return ("accuracy", *self.full_costs)

    @property
    def chance(self) -> float:
        """Accuracy of guessing, as a share."""
        return 1 / self.num_classes

    @property
    def budget_text(self) -> str:
        """The limits in one line, as in `2 GMACs, 15 ms`."""
        return ", ".join(starmap(limit_text, self.limits.items())) or "no limit"

    @property
    def cost_text(self) -> str:
        """How the costs were counted, in one line."""
        text = f"MACs are multiply-adds of one image at {self.image_size} px"
        for device, latency in self.latency.items():
            how = (
                "median of repeats on what reached the front, at the speed of the latency table "
                "(slowdown: the device's time for a reference network then, over the table's), "
                "else predicted"
            )
            text += f"; latency on {device}: {how if latency.measured else 'predicted'}"
        return text

    @property
    def accuracy_text(self) -> str:
        """How the accuracy was measured, in one line."""
        return (
            f"accuracy on the search split ({self.search_images:,} images at {self.proxy_size} px; "
            f"chance {percent(self.chance)}), weights inherited from the supernet, not retrained"
        )

    def accuracy_with_error(self, accuracy: float) -> str:
        """An accuracy with the standard error that comes of the number of images."""
        error = math.sqrt(accuracy * (1 - accuracy) / self.search_images)
        return f"{100 * accuracy:.1f} ± {100 * error:.1f} %"


def limit_text(name: str, limit: float) -> str:
    """A limit of `RunFacts.limits`, as in `2 GMACs`, `10 M params` or `15 ms`."""
    if name in ("macs", "params"):
        return macs_text(limit) if name == "macs" else params_text(limit)
    return f"{limit:g} ms on {name.removeprefix('latency_').removesuffix('_ms')}"


def macs_text(macs: float) -> str:
    """Multiply-adds, as in `1.87 GMACs`."""
    return f"{format_count(macs)}MACs"


def params_text(params: float) -> str:
    """Parameters, as in `12.3 M params`."""
    return f"{format_count(params).rstrip()} params"


def percent(share: float) -> str:
    """A share (0 to 1) as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def latency_text(row: pd.Series | Mapping[str, Any], columns: LatencyColumns) -> str:
    """The latency of a trial on a device: predicted, and measured with its interquartile range."""
    predicted, measured = row[columns.predicted], row[columns.measured]
    if math.isnan(measured):
        return f"{predicted:.2f} ms predicted"
    return f"{measured:.2f} ms ({spread_text(row, columns)}), {predicted:.2f} predicted"


def spread_text(row: pd.Series | Mapping[str, Any], columns: LatencyColumns) -> str:
    """How far a measured latency may be relied on, as in `IQR 0.25, unstable, slowdown 1.30`."""
    unstable = ", unstable" if row[columns.unstable] else ""
    slowdown = row[columns.slowdown]
    drifted = f", slowdown {slowdown:.2f}" if abs(slowdown - 1) > NOTABLE_SLOWDOWN else ""
    return f"IQR {row[columns.iqr]:.2f}{unstable}{drifted}"


def count_text(trials: pd.DataFrame) -> str:
    """How many trials ended how, in one line; duplicates and failures have no feasible share."""
    counts = trials["state"].value_counts()
    n = {state: int(counts.get(state, 0)) for state in STATES}
    tried = n["evaluated"] + n["infeasible"]
    share = f", feasible share {n['evaluated'] / tried:.0%}" if tried else ""
    return (
        f"{len(trials)} decided ({n['evaluated']} evaluated, {n['infeasible']} over a limit, "
        f"{n['duplicate']} duplicate, {n['failed']} failed){share}"
    )
