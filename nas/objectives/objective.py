"""A quantity that is limited or traded off, as one `Objective`; everything iterates over these.

The study's directions, the limits, the tables, figures, cards and the command line's flags are made
from the objectives of a run. So a new one is one entry of `CLOSED_FORM`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nas.utilities.units import (
    format_count,
    format_milliseconds,
    parse_amount,
    parse_macs,
    parse_memory,
    parse_params,
)
from search_space import Cost

Direction = Literal["minimize", "maximize"]

BYTES_PER_ELEMENT = 4
"""Of activations in float32."""

_FACTORS = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


@dataclass(frozen=True, kw_only=True)
class Objective:
    """A quantity of an architecture that a run limits, trades off, or just tells.

    Its value is had in one of three ways: by a closed form of the network's cost (`value`); by the
    prediction of a latency table, until it is measured on the extracted network (`device`); or,
    where it has neither, by evaluating the network. The last is accuracy alone.

    Attributes:
        name: Names it among limits, values of a trial and columns of tables, such as `macs`.
        label: What people read at the head of a column and on an axis, such as `MACs`.
        unit: What follows a number and its prefix, as in `2 GMACs`; a word of its own begins with a
            space, as in `10 M params`.
        definition: What exactly is counted, for people; `{image_size}` and `{num_classes}` in it
            stand for those of the run.
        direction: Whether the search makes it small or large. What has a limit is made small.
        value: Its closed form.
        over_parts: Whether the value of a network is the sum of its parts' values or the largest of
            them. The cheapest network is exact for both.
        device: Whose latency it is.
        searched: Whether it is an objective of the study; else it is limited alone.
        always: Whether a run has it without a limit on it, too.
        limit: Upper limit in this run; None does not limit.
        field: The field of `RunConfig` and, with dashes, the flag that limits it; `name` by
            default.
        parse: Reads a limit as the user types it; by default a number, a prefix and the unit.
        examples: Of limits, for help.
        prefix: Of the unit on the axes of figures: k, M, G or none.
    """

    name: str
    label: str
    unit: str
    definition: str
    direction: Direction = "minimize"
    value: Callable[[Cost], float] | None = None
    over_parts: Literal["sum", "max"] = "sum"
    device: str | None = None
    searched: bool = True
    always: bool = False
    limit: float | None = None
    field: str = ""
    parse: Callable[[str], float] | None = None
    examples: str = ""
    prefix: Literal["", "k", "M", "G"] = ""

    def __post_init__(self) -> None:
        if not self.field:
            object.__setattr__(self, "field", self.name)
        if self.limit is not None and self.direction == "maximize":
            raise ValueError(f"{self.name} is maximised, so that an upper limit makes no sense")

    @property
    def columns(self) -> list[str]:
        """The columns of a table of trials that hold it; the first is named like it."""
        return [self.name] if self.device is None else LatencyColumns(self.device).columns

    @property
    def factor(self) -> float:
        """What values are divided by on the axes of figures."""
        return _FACTORS[self.prefix]

    def excess(self, value: float) -> float:
        """By how much a value exceeds the limit, relative to it; negative where there is room."""
        assert self.limit is not None
        return value / self.limit - 1

    def parse_limit(self, text: str) -> float:
        """A limit as the user types it.

        Raises:
            InputError: If it is no positive number, or has an unknown unit.
        """
        if self.parse is not None:
            return self.parse(text)
        return parse_amount(text, self.field, self.unit)

    def amount(self, value: float) -> str:
        """A value with its unit, as in `1.87 GMACs`, `10 M params`, `64 MB` or `15 ms on cpu`."""
        if self.device is not None:
            return f"{format_milliseconds(value)} on {self.device}"
        return " ".join(f"{format_count(value)}{self.unit}".split())

    def named_amount(self, value: float) -> str:
        """The same where nothing around says what it is an amount of: `64 MB of memory`."""
        plain = self.amount(value)
        return (
            plain if self._unit_says_it or self.device is not None else f"{plain} of {self.label}"
        )

    def cell(self, value: float) -> str:
        """A closed-form value below its label at the head of a table: `1.87 G`, `64 MB`."""
        return format_count(value).rstrip() if self._unit_says_it else self.amount(value)

    def exact(self, value: float) -> str:
        """A closed-form value to the last digit, below its label: `1,871,234,567`, `600 B`."""
        number = f"{int(value):,}" if value == int(value) else f"{value:,.4g}"
        return number if self._unit_says_it else f"{number} {self.unit}".rstrip()

    def title(self, image_size: int) -> str:
        """The label, with the size of the images where the value depends on it."""
        sized = "{image_size}" in self.definition
        return f"{self.label} at {image_size} px" if sized else self.label

    def axis(self, image_size: int) -> str:
        """The title of an axis of figures: `MACs at 224 px (G)`, `latency on cpu (ms)`."""
        unit = self.prefix if self._unit_says_it else f"{self.prefix}{self.unit.strip()}"
        title = self.title(image_size)
        return f"{title} ({unit})" if unit else title

    def defined(self, *, image_size: object, num_classes: object) -> str:
        """The definition with these for the run's image size and number of classes."""
        sized = self.definition.replace("{image_size}", str(image_size))
        return sized.replace("{num_classes}", str(num_classes))

    @property
    def _unit_says_it(self) -> bool:
        """Whether the unit is what the label says."""
        return self.unit.strip() == self.label


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


ACCURACY = Objective(
    name="accuracy",
    label="accuracy",
    unit="",
    definition="share of the search split that is classified rightly",
    direction="maximize",
    always=True,
)
"""Of the subnet with the supernet's weights, from 0 to 1."""

MACS = Objective(
    name="macs",
    label="MACs",
    unit="MACs",
    definition="multiply-adds of one image at {image_size} px",
    value=lambda cost: cost.macs,
    always=True,
    field="budget",
    parse=parse_macs,
    examples="2GFLOPs, 600MFLOPs, 2GMACs, 2e9; a FLOP is a multiply-add, as in the papers",
    prefix="G",
)
"""Multiply-adds."""

PARAMS = Objective(
    name="params",
    label="params",
    unit=" params",
    definition="parameters with {num_classes} classes",
    value=lambda cost: cost.params,
    searched=False,
    always=True,
    parse=parse_params,
    examples="10M",
    prefix="M",
)
"""Parameters."""

MEMORY = Objective(
    name="memory",
    label="memory",
    unit="B",
    definition="peak activation memory (what the largest operator reads and writes, weights aside; "
    "float32, one image at {image_size} px)",
    value=lambda cost: cost.peak * BYTES_PER_ELEMENT,
    over_parts="max",
    parse=parse_memory,
    examples="64MB, 48MiB, 900kB",
    prefix="M",
)
"""Peak activation memory in bytes, by which memory beside the weights is planned on small devices
(MCUNet, Lin et al., 2020, section 3). A lower bound, as `search_space.Cost.peak` says."""

CLOSED_FORM: dict[str, Objective] = {entry.name: entry for entry in (MACS, PARAMS, MEMORY)}
"""Every objective that is a function of a network's cost, by name. A new one is a new entry."""


def latency_name(device: str) -> str:
    """What the latency on a device is called among limits, objectives and columns."""
    return f"latency_{device}_ms"


def latency_on(device: str, *, limit: float | None = None) -> Objective:
    """The latency of one forward pass on a device, in milliseconds."""
    return Objective(
        name=latency_name(device),
        label=f"latency on {device}",
        unit="ms",
        definition="milliseconds of one forward pass",
        device=device,
        limit=limit,
        field="latency",
    )
