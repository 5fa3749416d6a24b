"""How long a stand-alone network takes, with the conditions beside the number."""

import logging
import platform
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, PositiveInt
from torch import nn

from nas.errors import InputError
from nas.runtimes import Forward, prepare, runtime_version

logger = logging.getLogger(__name__)

WARM_UP_SECONDS = 0.2
MEASURED_SECONDS = 0.6
"""Time to spend on one round of measurement, within the bounds of repeats below."""
LEAST_REPEATS, MOST_REPEATS = 10, 200

WIDEST_SPREAD = 0.1
"""Interquartile range, relative to the median, above which a round is measured again."""
MOST_ROUNDS = 3


def _chip(fields: dict[str, Any]) -> str:
    return chip_name(fields["device"])


def _version(fields: dict[str, Any]) -> str:
    return runtime_version(fields["runtime"]) if is_here(fields["device"]) else ""


class LatencyConditions(BaseModel):
    """Under which conditions networks are timed.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        chip: What the device is called by its maker. Unless given it is read off this machine, and
            empty if the device is not here.
        runtime: What runs the networks: one of `nas.config.RuntimeName` for a device that is here,
            any name for another.
        version: Of the runtime; likewise.
        dtype: Of weights and images: one of `nas.config.DtypeName` for a device that is here, any
            name for another.
        batch_size: Images in one forward pass.
        image_size: Side of the images in pixels.
        threads: CPU threads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    chip: str = Field(default_factory=_chip)
    runtime: str = "eager"
    version: str = Field(default_factory=_version)
    dtype: str = "float32"
    batch_size: PositiveInt = 1
    image_size: PositiveInt
    threads: PositiveInt

    def __str__(self) -> str:
        return (
            f"{self.chip or self.device}, {self.dtype}, batch {self.batch_size}, "
            f"{self.threads} CPU threads, {self.image_size} px, {self.runtime} ({self.version})"
        )


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measured latency.

    Attributes:
        median_ms: Median over the repeats, in milliseconds.
        iqr_ms: Interquartile range, in milliseconds.
        repeats: Timed calls, after the warm-up.
        warm_up_seconds: Spent on calls that were not counted.
        unstable: Whether the interquartile range stayed above `WIDEST_SPREAD` of the median, so
            that the number is not to be relied on.
        pace: Time of a reference network meanwhile, relative to the speed that the latency is told
            at; above 1 the device was slower. 1 where there is no reference: told as it was.
        conditions: Under which a network was timed; None for a call of anything else.
    """

    median_ms: float
    iqr_ms: float
    repeats: int
    warm_up_seconds: float = WARM_UP_SECONDS
    unstable: bool = False
    pace: float = 1.0
    conditions: LatencyConditions | None = None

    @property
    def spread(self) -> float:
        """The interquartile range relative to the median."""
        return self.iqr_ms / self.median_ms if self.median_ms else 0.0


def measure_latency(network: Forward, conditions: LatencyConditions) -> Latency:
    """Time forward passes of a network, or of any function of images, on the same random images.

    Nothing else of ours may run on the device meanwhile: the caller sees to that. The network is
    moved to the device and the data type, and set to eval mode.

    Raises:
        InputError: If the runtime cannot run the network.
    """
    with threads(conditions.threads):
        latency = time_calls(prepare(network, conditions), conditions.device)
    if latency.unstable:
        logger.warning(
            "unstable latency: %.3g ms with an interquartile range of %.0f %% (%s)",
            latency.median_ms,
            100 * latency.spread,
            conditions,
        )
    return replace(latency, conditions=conditions)


def time_calls(run: Callable[[], object], device: str) -> Latency:
    """Time calls of anything that works on a device, one by one after a warm-up.

    A round whose spread is above `WIDEST_SPREAD` is followed by another, up to `MOST_ROUNDS`; the
    one with the smallest spread counts, and is unstable if that is still above.
    """
    on = torch.device(device)
    warm_up = _repeat(run, on, seconds=WARM_UP_SECONDS, least=3)
    rounds: list[Latency] = []
    while len(rounds) < MOST_ROUNDS and not any(is_stable(r) for r in rounds):
        times = _repeat(run, on, seconds=MEASURED_SECONDS, least=LEAST_REPEATS)
        low, median, high = statistics.quantiles(times, n=4)
        rounds.append(
            Latency(
                median_ms=median * 1e3,
                iqr_ms=(high - low) * 1e3,
                repeats=len(times),
                warm_up_seconds=sum(warm_up),
            )
        )
    best = min(rounds, key=lambda r: r.spread)
    return replace(best, unstable=not is_stable(best))


def is_stable(latency: Latency) -> bool:
    """Whether the spread is narrow enough for the median to be relied on."""
    return latency.spread <= WIDEST_SPREAD


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use that many CPU threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _repeat(
    run: Callable[[], object], device: torch.device, *, seconds: float, least: int
) -> list[float]:
    """Seconds of each call, as many as fit the time and the bounds."""
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < MOST_REPEATS):
        times.append(seconds_of(run, device))
    return times


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of one call: on a GPU by events on its stream, its queue empty before and after."""
    if device.type == "cuda":
        stream = torch.cuda.current_stream(device)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize(device)
        start.record(stream)
        run()
        end.record(stream)
        torch.cuda.synchronize(device)
        return float(start.elapsed_time(end)) / 1e3
    begin = perf_counter()
    run()
    return perf_counter() - begin


def devices_here() -> list[str]:
    """Names of the devices of this machine: `cpu`, and `cuda` and `cuda:N` where there are any."""
    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *numbered]


def is_here(device: str) -> bool:
    """Whether networks can be timed on a device of that name."""
    return device in devices_here()


def check_device(name: str) -> str:
    """The name of a device that is there.

    Raises:
        InputError: If it is unknown to torch or absent, with what there is.
    """
    if not is_here(name):
        raise InputError(f"--device {name!r} is not here; available: {', '.join(devices_here())}")
    return name


def check_runtime(conditions: LatencyConditions) -> None:
    """Check that this machine can time networks under such conditions, before anything is trained.

    Raises:
        InputError: If device or runtime are not here, or the runtime doesn't know the data type.
    """
    check_device(conditions.device)
    with threads(conditions.threads):
        prepare(nn.Conv2d(3, 8, kernel_size=4, stride=4), conditions)()


def chip_name(device: str) -> str:
    """What the device is called by its maker, as far as the system tells; empty if it is not here.

    So conditions for another machine's device can be written down; `check_device` refuses them.
    """
    if not is_here(device):
        return ""
    if device != "cpu":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
