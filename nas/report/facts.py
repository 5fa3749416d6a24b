"""What was asked of a run and how it was measured, and the words for it.

Every page, table and card takes its numbers' wording from here, so that they agree.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import starmap
from typing import TYPE_CHECKING, Any

from nas.units import format_count, latency_name

if TYPE_CHECKING:
    import pandas as pd

RANDOM_SOURCE = "random feasible"
"""The source of what the driver drew because the sampler found nothing feasible."""

UNNAMED_SOURCES = ("sampler", RANDOM_SOURCE)
"""Sources of trials that stand for nothing in particular; the others are landmarks and designs."""

STATES = ("evaluated", "infeasible", "duplicate", "failed")
"""How a decided trial ended."""

TRIAL_COLUMNS = (
    "number",
    "hash",
    "state",
    "accuracy",
    "macs",
    "params",
    "source",
    "seconds",
    "violation",
    "summary",
)
"""Columns of a table of trials, beside those of latency: one row for each decided trial.

`state` is one of `STATES`; `accuracy` is a share (0 to 1), NaN where there is none; `macs` counts
multiply-adds at the run's image size; `source` is one of `UNNAMED_SOURCES`, smallest, largest,
middle or a published design's name; `violation` says which limit was exceeded and by how much.
"""

NOTABLE_DRIFT = 0.05
"""How far a device's pace lies from its latency table's where people are told."""


@dataclass(frozen=True)
class LatencyColumns:
    """The columns of a device with a limit on latency, in milliseconds of one forward pass.

    `value` is the measured latency where there is one, else the predicted one; `unstable` is 1
    where the spread of the measurement stayed too wide to be trusted, else 0; `pace` is the time of
    the latency table's reference network during the measurement, relative to the table's.
    """

    device: str

    @property
    def value(self) -> str:
        """What counts."""
        return latency_name(self.device)

    @property
    def predicted(self) -> str:
        """By the latency table."""
        return f"latency_{self.device}_predicted_ms"

    @property
    def measured(self) -> str:
        """Median of the extracted network; NaN where not measured."""
        return f"latency_{self.device}_measured_ms"

    @property
    def iqr(self) -> str:
        """Interquartile range of the measurement."""
        return f"latency_{self.device}_iqr_ms"

    @property
    def unstable(self) -> str:
        """Whether the measurement is unstable."""
        return f"latency_{self.device}_unstable"

    @property
    def pace(self) -> str:
        """How much slower the device was than when its table was measured; corrected for."""
        return f"latency_{self.device}_pace"

    @property
    def columns(self) -> list[str]:
        """All of them, in the order of a table."""
        return [self.value, self.predicted, self.measured, self.iqr, self.unstable, self.pace]


def trial_columns(devices: Iterable[str]) -> list[str]:
    """All columns of a table of trials of a run with limits on these devices' latency."""
    return [
        *TRIAL_COLUMNS[:6],
        *(name for device in devices for name in LatencyColumns(device).columns),
        *TRIAL_COLUMNS[6:],
    ]


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
                "(pace: the device's time for a reference network then, relative to the table's), "
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
    """How far a measured latency may be relied on, as in `IQR 0.25, unstable, pace 1.30`."""
    unstable = ", unstable" if row[columns.unstable] else ""
    pace = row[columns.pace]
    drifted = f", pace {pace:.2f}" if abs(pace - 1) > NOTABLE_DRIFT else ""
    return f"IQR {row[columns.iqr]:.2f}{unstable}{drifted}"
