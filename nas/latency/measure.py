"""How long a stand-alone network takes, with the conditions beside the number."""

import logging
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from time import perf_counter

import torch

from nas.latency.conditions import LatencyConditions
from nas.latency.runtimes import Forward, prepare
from nas.utilities.devices import threads

logger = logging.getLogger(__name__)

WARM_UP_SECONDS = 0.2
MEASURED_SECONDS = 0.6
"""Time to spend on one round of measurement, within the bounds of repeats below."""
LEAST_REPEATS, MOST_REPEATS = 10, 200

WIDEST_SPREAD = 0.1
"""Interquartile range, relative to the median, above which a round is measured again."""
MOST_ROUNDS = 3


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
        slowdown: Time of a reference network meanwhile, relative to the speed that the latency is
            told at; above 1 the device was slower. 1 where there is no reference: told as it was.
        conditions: Under which a network was timed; None for a call of anything else.
    """

    median_ms: float
    iqr_ms: float
    repeats: int
    warm_up_seconds: float = WARM_UP_SECONDS
    unstable: bool = False
    slowdown: float = 1.0
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
    """Time calls of anything that works on a device, one by one after a warm-up, as `steadiest`."""
    on = torch.device(device)
    warm_up = _repeat(run, on, seconds=WARM_UP_SECONDS, least=3)

    def time_round() -> Latency:
        times = _repeat(run, on, seconds=MEASURED_SECONDS, least=LEAST_REPEATS)
        latency = from_times([1e3 * seconds for seconds in times])
        return replace(latency, warm_up_seconds=sum(warm_up))

    return steadiest(time_round)


def steadiest(time_round: Callable[[], Latency]) -> Latency:
    """The steadiest of some rounds of measurement.

    A round whose spread is above `WIDEST_SPREAD` is followed by another, up to `MOST_ROUNDS`; the
    one with the smallest spread counts, and is unstable if that is still above.
    """
    best = time_round()
    for _ in range(1, MOST_ROUNDS):
        if best.spread <= WIDEST_SPREAD:
            break
        best = min(best, time_round(), key=lambda latency: latency.spread)
    return replace(best, unstable=best.spread > WIDEST_SPREAD)


def from_times(milliseconds: Sequence[float]) -> Latency:
    """The latency that timed calls, at least two, tell."""
    low, median, high = statistics.quantiles(milliseconds, n=4)
    return Latency(median_ms=median, iqr_ms=high - low, repeats=len(milliseconds))


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
