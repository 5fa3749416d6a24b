"""Latency tables: what each segment of a space takes on a device, and what networks take by that.

A table is a JSON file. `nas profile` measures one; one for a device that does not run
Python may come from any tool, with nothing but `conditions` and `segments` in it.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from nas.latency.conditions import LatencyConditions
from nas.utilities.bounds import LARGEST, Amount, Positive, PositiveCount
from nas.utilities.errors import InputError
from search_space import Architecture, SearchSpace
from search_space.architecture import first_error
from search_space.bounds import read_limited
from search_space.segments import Segment, segments, space_segments

UNKNOWN_MARGIN = 0.1
"""Relative error that is assumed of a table without networks to know it from."""

MARGIN_COVERS = 0.9
"""Share of the networks whose relative error the margin covers."""


class Reference(BaseModel):
    """A network that tells how fast the device was when the table was measured.

    Attributes:
        architecture: Of the network.
        milliseconds: Its median over the whole of that time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Architecture
    milliseconds: Positive


class TimedNetwork(BaseModel):
    """A whole network that was measured, and what the table said before.

    Attributes:
        hash: Of its architecture.
        macs: Multiply-adds for one image.
        predicted_ms: By the table, in milliseconds for one forward pass.
        measured_ms: Median.
        iqr_ms: Interquartile range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash: str
    macs: PositiveCount
    predicted_ms: Amount
    measured_ms: Positive
    iqr_ms: Amount = 0.0


@dataclass(frozen=True, kw_only=True)
class PredictionError:
    """How far predictions lie from measurements of networks that they were not fitted to.

    Attributes:
        networks: How many.
        mape: Mean absolute error, relative to the measurement.
        within_5: Share of the networks within 5 %.
        within_10: Share within 10 %.
        spearman: Rank correlation.
        covers: The relative error that 90 % of the networks stay below.
    """

    networks: int
    mape: float
    within_5: float
    within_10: float
    spearman: float
    covers: float

    def __str__(self) -> str:
        return (
            f"MAPE {self.mape:.1%}, {self.within_5:.0%} within 5 %, {self.within_10:.0%} within "
            f"10 %, Spearman {self.spearman:.3f} on {self.networks} held-out networks"
        )


def prediction_error(predicted: Sequence[float], measured: Sequence[float]) -> PredictionError:
    """The error of predictions, in the order of the measurements; both in the same unit."""
    p, m = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
    relative = np.abs(p / m - 1)
    return PredictionError(
        networks=len(m),
        mape=float(relative.mean()),
        within_5=float((relative <= 0.05).mean()),
        within_10=float((relative <= 0.10).mean()),
        spearman=_correlation(_ranks(p), _ranks(m)),
        covers=float(np.quantile(relative, MARGIN_COVERS)),
    )


class LatencyTable(BaseModel):
    """What the segments of a space take under stated conditions.

    The predicted latency of a network is `overhead_ms` and the sum of its segments' times.

    Attributes:
        schema_version: Of this format.
        space: Name of the space that was profiled.
        conditions: Device, data type, batch, image size, threads, runtime.
        reference: What measurements of other hours are corrected by; they are told as they are
            where there is none.
        segments: Milliseconds by label; `search_space.segments` says what a label stands for.
        overhead_ms: What every network takes beside its segments.
        networks: Networks that nothing above was fitted to, so that the error is known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    space: str
    conditions: LatencyConditions
    reference: Reference | None = None
    segments: dict[str, Amount] = Field(min_length=1)
    overhead_ms: Annotated[float, Field(ge=-LARGEST, le=LARGEST, allow_inf_nan=False)] = 0.0
    networks: tuple[TimedNetwork, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> "LatencyTable":
        """Read a table from its JSON file.

        Raises:
            InputError: If the file cannot be read or a field is missing, unknown or illegal.
        """
        try:
            return cls.model_validate_json(read_limited(path))
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise InputError(f"{path}: {first_error(error)}") from None

    def to_json(self) -> str:
        """The table as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @property
    def digest(self) -> str:
        """Six hex digits that tell tables apart."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:6]

    def check_covers(self, space: SearchSpace, source: str) -> None:
        """Check that the table knows every segment of a space.

        Args:
            space: The space to predict for.
            source: What to call the table in errors.

        Raises:
            InputError: If segments are missing; it names the first of them.
        """
        needed = space_segments(space, image_size=self.conditions.image_size)
        missing = sorted(s.label for s in needed if s.label not in self.segments)
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(
                f"{source}: a table of space {self.space!r} that lacks segments of space "
                f"{space.name!r}: {missing[0]!r}{more}"
            )

    def predict(self, architecture: Architecture) -> float:
        """Milliseconds of one forward pass.

        Raises:
            KeyError: If a segment is not in the table.
        """
        found = segments(architecture, image_size=self.conditions.image_size)
        return self.overhead_ms + self.time(found)

    def time(self, found: Iterable[Segment]) -> float:
        """Milliseconds of some segments."""
        return sum(self.segments[segment.label] for segment in found)

    @cached_property
    def error(self) -> PredictionError | None:
        """The error on the held-out networks; None where there are too few to tell."""
        if len(self.networks) < 5:
            return None
        return prediction_error(
            [network.predicted_ms for network in self.networks],
            [network.measured_ms for network in self.networks],
        )

    @property
    def error_text(self) -> str:
        """The error, for people."""
        known = f"unknown, since the table holds {len(self.networks)} measured networks"
        return str(self.error) if self.error else known

    @property
    def margin(self) -> float:
        """Relative error to allow for: a network predicted further over a limit is over it."""
        return self.error.covers if self.error else UNKNOWN_MARGIN


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson's; NaN where one of the two does not vary."""
    if not one.std() or not other.std():
        return math.nan
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 0, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]
