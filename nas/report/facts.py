"""What was asked of a run and how it was measured, and the words for it.

Every page, table and card takes its numbers' wording from here, so that they agree.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import starmap

from nas.units import format_count

STATES = ("evaluated", "infeasible", "duplicate", "failed")
"""How a decided trial ended."""

TRIAL_COLUMNS = (
    "number",
    "hash",
    "state",
    "accuracy",
    "macs",
    "params",
    "latency_ms",
    "latency_iqr_ms",
    "source",
    "seconds",
    "violation",
    "summary",
)
"""Columns of a table of trials: one row for each trial that was decided.

`state` is one of `STATES`; `accuracy` is a share (0 to 1), NaN where
there is none; `macs` counts multiply-adds at the run's image size; `latency_ms` is NaN where it was
not measured; `source` is sampler, smallest, largest, middle or a published design's name;
`violation` says which limit was exceeded and by how much.
"""

NOT_MEASURED = "–"
"""What stands in place of a number that nobody measured."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What was asked of a run and how it was measured.

    `limits` has the keys `macs`, `params` and `latency_ms`, None where there is no limit.
    `search_images` is the number of images of the search split, `latency_conditions` the device,
    dtype, batch and threads of the latency measurement, `notes` what else a reader must know, one
    sentence each.
    """

    command: str
    data: str
    num_classes: int
    search_images: int
    space: str
    space_size: int
    limits: Mapping[str, float | None]
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
    latency_conditions: str = ""
    notes: tuple[str, ...] = ()

    @property
    def full_costs(self) -> dict[str, float]:
        """The cost objectives' scales: their limits, or the largest reachable MACs."""
        scales: dict[str, float] = {"macs": self.limits["macs"] or self.largest_macs}
        if (latency := self.limits["latency_ms"]) is not None:
            scales["latency_ms"] = latency
        return scales

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
        given = {name: limit for name, limit in self.limits.items() if limit is not None}
        return ", ".join(starmap(limit_text, given.items())) or "no limit"

    @property
    def cost_text(self) -> str:
        """How the costs were counted, in one line."""
        text = f"MACs are multiply-adds of one image at {self.image_size} px"
        if self.latency_conditions:
            text += f"; latency is the median of repeats: {self.latency_conditions}"
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
    if name == "latency_ms":
        return f"{limit:g} ms"
    return macs_text(limit) if name == "macs" else params_text(limit)


def macs_text(macs: float) -> str:
    """Multiply-adds, as in `1.87 GMACs`."""
    return f"{format_count(macs)}MACs"


def params_text(params: float) -> str:
    """Parameters, as in `12.3 M params`."""
    return f"{format_count(params).rstrip()} params"


def percent(share: float) -> str:
    """A share (0 to 1) as a percentage with one decimal."""
    return f"{100 * share:.1f} %"


def milliseconds(median: float | None, iqr: float | None) -> str:
    """A latency with its interquartile range, or `NOT_MEASURED`."""
    if median is None or math.isnan(median):
        return NOT_MEASURED
    if iqr is None or math.isnan(iqr):
        return f"{median:.2f} ms"
    return f"{median:.2f} ms (IQR {iqr:.2f})"
