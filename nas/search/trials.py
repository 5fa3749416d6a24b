"""Trials: what is known of each, and the table of them that everything shown is drawn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from nas.utilities.units import latency_name
from search_space import Architecture

if TYPE_CHECKING:
    import pandas as pd

State = Literal["evaluated", "infeasible", "duplicate", "failed"]

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


@dataclass(frozen=True, kw_only=True)
class MeasuredLatency:
    """A latency measured on the extracted network.

    Attributes:
        median_ms: Median, in milliseconds for one forward pass.
        iqr_ms: Interquartile range.
        unstable: Whether the spread stayed too wide to be trusted.
        excess: By how much the median exceeds the limit, relative to it.
        slowdown: As in `nas.latency.measure.Latency`.
    """

    median_ms: float
    iqr_ms: float
    unstable: bool
    excess: float
    slowdown: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a decided trial.

    Attributes:
        state: How it was decided; an infeasible one is over a limit, a duplicate repeats an
            architecture that was evaluated before.
        architecture: The architecture, as JSON data.
        hash: Its hash.
        macs: Multiply-adds at the run's image size.
        params: Parameters.
        source: Who proposed it.
        accuracy: On the search split, 0 to 1.
        predicted_ms: Predicted latency of each device that has a limit.
        excess: By how much each limit is exceeded, relative to it; not positive where it is met.
        measured: Latency that was measured, by device; in the journal it stands apart.
        seconds: From proposal to decision.
        error: The traceback of a failed evaluation.
    """

    state: State
    architecture: dict[str, Any]
    hash: str
    macs: int
    params: int
    source: str
    accuracy: float | None = None
    predicted_ms: dict[str, float] = field(default_factory=dict)
    excess: dict[str, float]
    measured: dict[str, MeasuredLatency] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def latency_ms(self) -> dict[str, float]:
        """Latency by device: measured where it was, else predicted."""
        return self.predicted_ms | {d: latency.median_ms for d, latency in self.measured.items()}

    @property
    def objectives(self) -> list[float]:
        """The values that Optuna is told; the latency of each device with a limit is among them."""
        assert self.accuracy is not None
        return [self.accuracy, float(self.macs), *self.latency_ms.values()]

    @property
    def was_evaluated(self) -> bool:
        """Whether it has an accuracy of its own, even if it was found to be too slow afterwards."""
        return self.accuracy is not None and self.state != "duplicate"

    @property
    def violation(self) -> str:
        """The limits that are exceeded and by how much, for people.

        A prediction within its margin is no violation.
        """
        if self.state != "infeasible":
            return ""
        return ", ".join(
            f"{name} {excess:+.1%} over" for name, excess in self.excess.items() if excess > 0
        )


@dataclass(frozen=True)
class LatencyColumns:
    """The columns of a device with a limit on latency, in milliseconds of one forward pass.

    `value` is the measured latency where there is one, else the predicted one; `unstable` is 1
    where the spread of the measurement stayed too wide to be trusted, else 0; `slowdown` is the
    time of the latency table's reference network during the measurement, relative to the table's.
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
    def slowdown(self) -> str:
        """How much slower the device was than when its table was measured; corrected for."""
        return f"latency_{self.device}_slowdown"

    @property
    def columns(self) -> list[str]:
        """All of them, in the order of a table."""
        return [self.value, self.predicted, self.measured, self.iqr, self.unstable, self.slowdown]


def trial_columns(devices: Iterable[str]) -> list[str]:
    """All columns of a table of trials of a run with limits on these devices' latency."""
    return [
        *TRIAL_COLUMNS[:6],
        *(name for device in devices for name in LatencyColumns(device).columns),
        *TRIAL_COLUMNS[6:],
    ]


def trials_table(records: Mapping[int, Record], devices: Sequence[str]) -> pd.DataFrame:
    """One row for each decided trial, with the columns `trial_columns`.

    Args:
        records: By number.
        devices: Those with a limit on latency.
    """
    import pandas as pd

    rows = [
        {
            "number": number,
            "hash": record.hash,
            "state": record.state,
            "accuracy": record.accuracy,
            "macs": record.macs,
            "params": record.params,
            "source": record.source,
            "seconds": round(record.seconds, 3),
            "violation": record.violation,
            "summary": Architecture.model_validate(record.architecture).summary,
            **{k: v for device in devices for k, v in _latency_cells(record, device).items()},
        }
        for number, record in records.items()
    ]
    table = pd.DataFrame(rows, columns=trial_columns(devices))
    numbers = [name for name in trial_columns(devices) if name.startswith(("acc", "latency_"))]
    table[numbers] = table[numbers].astype(float)
    return table


def _latency_cells(record: Record, device: str) -> dict[str, float | None]:
    measured = record.measured.get(device)
    cells = LatencyColumns(device)
    return {
        cells.value: record.latency_ms.get(device),
        cells.predicted: record.predicted_ms.get(device),
        cells.measured: measured.median_ms if measured else None,
        cells.iqr: measured.iqr_ms if measured else None,
        cells.unstable: float(measured.unstable) if measured else None,
        cells.slowdown: measured.slowdown if measured else None,
    }
