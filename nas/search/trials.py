"""Trials: what is known of each, and the table of them that everything shown is drawn from."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from nas.objectives.objective import LatencyColumns, Objective
from nas.utilities.bounds import Amount, Count, Number
from search_space import Architecture

if TYPE_CHECKING:
    import pandas as pd

State = Literal["evaluated", "infeasible", "duplicate", "failed"]

RANDOM_SOURCE = "random feasible"
"""The source of what the driver drew because the sampler found nothing feasible."""

UNNAMED_SOURCES = ("sampler", RANDOM_SOURCE)
"""Sources of trials that stand for nothing in particular; the others are landmarks and designs."""

STATES = get_args(State)
"""How a decided trial ended."""

RECORD = "record"
"""The user attribute of a trial of Optuna that holds its `Record`."""

FIRST_COLUMNS = ("number", "hash", "state")
"""Columns of a table of trials before those of the objectives; `state` is one of `STATES`."""

TRIED_COLUMNS = ("tried", "tried_steps", "tried_loss", "tried_images")
"""What training alone gave: the accuracy after so many steps, from the inherited weights, where the
architecture was on the short list and its training did not fail; the mean cross-entropy beside it,
in nats; and on how many images of the search split both were measured."""

SCRATCH_COLUMNS = ("scratch", "scratch_steps", "scratch_loss")
"""Likewise what training from fresh weights gave, on the same images, where the architecture was
one of the first of the short list."""

LAST_COLUMNS = (
    "loss",
    *TRIED_COLUMNS,
    *SCRATCH_COLUMNS,
    "source",
    "seconds",
    "violation",
    "failure",
    "summary",
)
"""Columns behind those of the objectives.

`loss` is the mean cross-entropy with inherited weights, in nats, beside the accuracy;
`source` is one of `UNNAMED_SOURCES`, smallest, largest, middle or a published design's name;
`violation` says which limit was exceeded and by how much;
`failure` why there is no accuracy, or none of a training alone, in one line.
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

    median_ms: Number
    iqr_ms: Number
    unstable: bool
    excess: Number
    slowdown: Number = 1.0


@dataclass(frozen=True, kw_only=True)
class Tried:
    """What became of an architecture of the short list that was trained alone.

    Attributes:
        steps: That it was trained for.
        accuracy: On the search split then, 0 to 1; None where training failed.
        loss: Mean cross-entropy on the same images, in nats; None likewise.
        images: How many these were; None likewise.
        error: Why it failed, in one line.
    """

    steps: Count
    accuracy: Number | None = None
    loss: Number | None = None
    images: Count | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a decided trial.

    Attributes:
        state: How it was decided; an infeasible one is over a limit, a duplicate repeats an
            architecture that was evaluated before.
        architecture: The architecture, as JSON data.
        hash: Its hash.
        costs: The value of each closed-form objective, by name.
        source: Who proposed it.
        accuracy: On the search split with inherited weights, 0 to 1.
        loss: Mean cross-entropy on the same images, in nats.
        predicted: Each latency that has a limit, as predicted, by its objective's name.
        excess: By how much each limit is exceeded, relative to it; not positive where it is met.
        measured: Latencies that were measured, likewise; in the journal they stand apart.
        tried: What training alone gave, from the inherited weights, where it was on the short list;
            stands apart likewise.
        scratch: What training from fresh weights gave, where it was in the final; likewise.
        seconds: That its evaluation took; 0 where there was none.
        error: Why the evaluation failed, as in `nas.search.evaluation.Score`.
    """

    state: State
    architecture: dict[str, Any]
    hash: str
    costs: dict[str, Number]
    source: str
    accuracy: Number | None = None
    loss: Amount | None = None
    predicted: dict[str, Number] = field(default_factory=dict)
    excess: dict[str, Number]
    measured: dict[str, MeasuredLatency] = field(default_factory=dict)
    tried: Tried | None = None
    scratch: Tried | None = None
    seconds: Number = 0.0
    error: str = ""

    @property
    def values(self) -> dict[str, float]:
        """The value of every objective that has one, by name; a latency as measured if it was."""
        accuracy = {} if self.accuracy is None else {"accuracy": self.accuracy}
        measured = {name: latency.median_ms for name, latency in self.measured.items()}
        return accuracy | self.costs | self.predicted | measured

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

    @property
    def failure(self) -> str:
        """Why its evaluation, or a training alone, failed; in one line, empty if none did."""
        error = self.error or (self.tried.error if self.tried else "")
        if not error and self.scratch and self.scratch.error:
            error = f"from fresh weights: {self.scratch.error}"
        return error.strip().rpartition("\n")[-1]


def merits(accuracies: Sequence[float], losses: Sequence[float | None]) -> list[float]:
    """How good architectures look with inherited weights, each from 0 to 1, 1 for the best.

    A merit is the geometric mean of the probabilities that an architecture gives to the right
    classes. It ranks as the loss does, which tells architectures apart sooner than accuracy: it
    counts how sure a network is of each image, not only on which side of a boundary the image lies.

    Args:
        accuracies: Which are the merits of all if one has no loss, as in runs of earlier versions.
        losses: Mean cross-entropies, in nats.
    """
    known = [loss for loss in losses if loss is not None]
    return [math.exp(-loss) for loss in known] if len(known) == len(losses) else [*accuracies]


def trial_columns(objectives: Iterable[Objective]) -> list[str]:
    """All columns of a table of trials of a run with these objectives.

    Raises:
        ValueError: If an objective has the name of another column.
    """
    columns = [column for objective in objectives for column in objective.columns]
    for column in columns:
        if column in (*FIRST_COLUMNS, *LAST_COLUMNS) or columns.count(column) > 1:
            raise ValueError(f"an objective's name {column!r} is that of another column")
    return [*FIRST_COLUMNS, *columns, *LAST_COLUMNS]


def trials_table(records: Mapping[int, Record], objectives: Sequence[Objective]) -> pd.DataFrame:
    """One row for each decided trial, with the columns `trial_columns`.

    Args:
        records: By number.
        objectives: Of the run.
    """
    import pandas as pd

    rows = [
        {
            "number": number,
            "hash": record.hash,
            "state": record.state,
            **{k: v for o in objectives for k, v in _cells(record, o).items()},
            "loss": record.loss,
            **_tried_cells(TRIED_COLUMNS, record.tried),
            **_tried_cells(SCRATCH_COLUMNS, record.scratch),
            "source": record.source,
            "seconds": round(record.seconds, 3),
            "violation": record.violation,
            "failure": record.failure,
            "summary": Architecture.model_validate(record.architecture).summary,
        }
        for number, record in records.items()
    ]
    table = pd.DataFrame(rows, columns=trial_columns(objectives))
    # Closed forms keep their kind: whole numbers stay whole. Of the others, some may be missing.
    others = [column for o in objectives if o.value is None for column in o.columns]
    others += ["loss", *TRIED_COLUMNS, *SCRATCH_COLUMNS]
    table[others] = table[others].astype(float)
    return table


def tried_alone(known: Iterable[Record]) -> int:
    """How many architectures training alone gave an accuracy."""
    return len({r.hash for r in known if r.tried is not None and r.tried.accuracy is not None})


def from_scratch(known: Iterable[Record]) -> int:
    """How many architectures training from fresh weights gave an accuracy."""
    return len({r.hash for r in known if r.scratch is not None and r.scratch.accuracy is not None})


def _tried_cells(columns: Sequence[str], tried: Tried | None) -> dict[str, float | None]:
    """What a trial's row says of training alone, by column."""
    if tried is None:
        return dict.fromkeys(columns)
    values = (tried.accuracy, tried.steps, tried.loss, tried.images)
    return dict(zip(columns, values, strict=False))  # one has no column for the images


def _cells(record: Record, objective: Objective) -> dict[str, float | None]:
    """What a trial's row says of an objective, by column."""
    value = record.values.get(objective.name)
    if objective.device is None:
        return {objective.name: value}
    measured = record.measured.get(objective.name)
    cells = LatencyColumns(objective.device)
    return {
        cells.value: value,
        cells.predicted: record.predicted.get(objective.name),
        cells.measured: measured.median_ms if measured else None,
        cells.iqr: measured.iqr_ms if measured else None,
        cells.unstable: float(measured.unstable) if measured else None,
        cells.slowdown: measured.slowdown if measured else None,
    }
