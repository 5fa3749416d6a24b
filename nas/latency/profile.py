"""Profiling a space: timing its segments where they work, inside whole networks.

Every network is timed segment by segment in one forward pass, so that caches and memory are as they
are in use. Networks are drawn until each segment was seen often enough; then whole networks are
timed to learn a correction, and others to know the error.

Every pass is followed by one of a reference network and counts relative to it: see
`nas.latency.reference`.
"""

import logging
import random
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise

import torch
from torch import Tensor

from nas.latency.conditions import LatencyConditions
from nas.latency.measure import Latency
from nas.latency.reference import WARM_UP_PASSES, ReferenceMeter, blank_network
from nas.latency.regression import fit_segments
from nas.latency.table import LatencyTable, Reference, TimedNetwork
from nas.latency.timings import Timing, Timings
from nas.utilities.devices import threads
from nas.utilities.interrupt import StopRequest
from search_space import Architecture, SearchSpace, total_cost
from search_space.coverage import covering_architectures
from search_space.segments import Segment, segments
from supernet import Network

logger = logging.getLogger(__name__)

PASSES = 7
"""Timed forward passes of a network whose segments are timed, each with one of the reference."""

CANDIDATES = 32
"""Random architectures of which the one with the most segments still wanted is timed."""

MOST_ATTEMPTS = 2
"""Networks that are timed at most for each one wanted, since unstable ones are left out."""


@dataclass(frozen=True, kw_only=True)
class ProfilingEffort:
    """How thoroughly a space is profiled.

    Attributes:
        sightings: Networks that each segment is timed in.
        fitted: Networks that the correction is learned from.
        held_out: Networks that the error is known from.
    """

    sightings: int
    fitted: int
    held_out: int


THOROUGH = ProfilingEffort(sightings=3, fitted=60, held_out=30)
"""For a table that is kept: some minutes in `base`, on two CPU cores at 224 px."""

SMALL = ProfilingEffort(sightings=1, fitted=16, held_out=12)
"""For the table that a run makes for itself."""


def profile(
    space: SearchSpace,
    conditions: LatencyConditions,
    effort: ProfilingEffort,
    *,
    seed: int,
    stop: StopRequest,
    on_progress: Callable[[float, int], None],
    meter: ReferenceMeter | None = None,
    timings: Timings | None = None,
) -> LatencyTable:
    """Measure a table.

    Nothing else may run on the device meanwhile: the caller sees to that.

    Args:
        space: Whose segments to time.
        conditions: Under which; segments are timed by torch's eager runtime, whole networks by
            that of the conditions.
        effort: How thoroughly.
        seed: Of the networks drawn.
        stop: Looked at before every network.
        on_progress: Called with the share of the work that is done, and how many networks were
            left out as unstable.
        meter: To measure other networks by the same reference; a new one by default.
        timings: Those of a profile that was stopped, to go on from; for a meter of its own alone.

    Raises:
        InputError: If the runtime cannot run the networks.
        Interrupted: If a stop was requested.
    """
    timings = timings or Timings()
    identity = {"space": space.model_dump(mode="json"), "seed": seed}
    timings.begin(identity | {"conditions": conditions.model_dump(mode="json")})
    meter = meter or _meter(space.scaled(0.5), conditions, timings)
    rng = random.Random(f"profile-{seed}")
    wanted = _examples(space, conditions.image_size)
    whole = effort.fitted + effort.held_out
    segments_share = effort.sightings * len(wanted) / (effort.sightings * len(wanted) + 5 * whole)
    seen: dict[str, list[float]] = defaultdict(list)
    for architecture in _covering(space, wanted, conditions.image_size, effort.sightings, rng):
        stop.check()
        for label, milliseconds in _segment_times(architecture, conditions, meter, timings):
            seen[label].append(milliseconds)
        sightings = sum(min(len(seen[segment.label]), effort.sightings) for segment in wanted)
        on_progress(segments_share * sightings / (effort.sightings * len(wanted)), 0)
    timed: list[tuple[Architecture, Latency]] = []
    drawn: set[str] = set()
    attempts = 0
    while len(timed) < whole and attempts < MOST_ATTEMPTS * whole:
        stop.check()
        attempts += 1
        architecture = _unseen(space, drawn, rng)
        latency = _whole_time(architecture, conditions, meter, timings)
        if not latency.unstable:
            timed.append((architecture, latency))
        done = max(len(timed) / whole, attempts / (MOST_ATTEMPTS * whole))
        on_progress(segments_share + (1 - segments_share) * done, attempts - len(timed))
    if unstable := attempts - len(timed):
        logger.warning("%d of %d networks were left out as unstable", unstable, attempts)
    usual = meter.settle()
    table = LatencyTable(
        space=space.name,
        conditions=conditions,
        reference=Reference(architecture=meter.reference, milliseconds=meter.milliseconds),
        segments={
            label: usual * statistics.median(seen[label])
            for label in sorted(segment.label for segment in wanted)
        },
    )
    learned, rest = timed[: effort.fitted], timed[effort.fitted :]
    if learned:
        table = fit_segments(
            table,
            wanted,
            [architecture for architecture, _ in learned],
            [usual * latency.median_ms for _, latency in learned],
        )
    known = {architecture.hash for architecture, _ in learned}
    return table.model_copy(
        update={
            "networks": tuple(
                TimedNetwork(
                    hash=architecture.hash,
                    macs=total_cost(architecture, image_size=conditions.image_size).macs,
                    predicted_ms=table.predict(architecture),
                    measured_ms=usual * latency.median_ms,
                    iqr_ms=usual * latency.iqr_ms,
                )
                for architecture, latency in rest
                if architecture.hash not in known
            )
        }
    )


def _meter(
    reference: Architecture, conditions: LatencyConditions, timings: Timings
) -> ReferenceMeter:
    """A meter that tells times at the speed that the first process of the profile began with."""
    meters: list[ReferenceMeter] = []

    def first() -> Timing:
        meters.append(ReferenceMeter(reference, conditions))
        return {"milliseconds": meters[0].milliseconds, "passes": list(meters[0].passes)}

    known = timings.of("reference", first)
    if meters:
        return meters[0]
    meter = ReferenceMeter(reference, conditions, known["milliseconds"])
    meter.passes[:0] = known["passes"]
    return meter


def _segment_times(
    architecture: Architecture,
    conditions: LatencyConditions,
    meter: ReferenceMeter,
    timings: Timings,
) -> list[tuple[str, float]]:
    def times() -> Timing:
        return {"segments": time_segments(architecture, conditions, meter)}

    known = _timed(f"segments of {architecture.hash}", times, meter, timings)
    return [(label, milliseconds) for label, milliseconds in known["segments"]]


def _whole_time(
    architecture: Architecture,
    conditions: LatencyConditions,
    meter: ReferenceMeter,
    timings: Timings,
) -> Latency:
    def times() -> Timing:
        latency = meter.measure(blank_network(architecture, conditions))
        return {**asdict(latency), "conditions": None}

    return Latency(**_timed(architecture.hash, times, meter, timings))


def _timed(
    key: str, times: Callable[[], Timing], meter: ReferenceMeter, timings: Timings
) -> Timing:
    """What is known under a key, with the meter's passes of then."""
    now = False

    def time() -> Timing:
        nonlocal now
        now, before = True, len(meter.passes)
        return {"times": times(), "passes": meter.passes[before:]}

    known = timings.of(key, time)
    if not now:
        meter.passes += known["passes"]
    return dict(known["times"])


def _unseen(space: SearchSpace, drawn: set[str], rng: random.Random) -> Architecture:
    """A random architecture that was not drawn before, as far as a small space has more."""
    architecture = space.sample(rng)
    for _ in range(100):
        if architecture.hash not in drawn:
            break
        architecture = space.sample(rng)
    drawn.add(architecture.hash)
    return architecture


@torch.inference_mode()
def time_segments(
    architecture: Architecture, conditions: LatencyConditions, meter: ReferenceMeter | None = None
) -> list[tuple[str, float]]:
    """Label and median milliseconds of each segment, in the order of the forward pass.

    Args:
        architecture: Of the network that is timed.
        conditions: Under which; the runtime is torch's eager one.
        meter: To correct for the device's changing speed.
    """
    network = blank_network(architecture, conditions)
    clock = _Clock(torch.device(conditions.device))
    for module in network.segment_starts():
        module.register_forward_pre_hook(lambda *_: clock.mark())
    size = conditions.image_size
    dtype = getattr(torch, conditions.dtype)
    images = torch.rand(conditions.batch_size, 3, size, size).to(conditions.device, dtype)
    passes: list[list[float]] = []
    with threads(conditions.threads):
        for number in range(WARM_UP_PASSES + PASSES):
            times = _timed_pass(network, images, clock)
            if number >= WARM_UP_PASSES:
                correction = meter.correction() if meter else 1.0
                passes.append([milliseconds * correction for milliseconds in times])
    labels = [s.label for s in segments(architecture, image_size=size)]
    return [
        (label, statistics.median(times))
        for label, times in zip(labels, zip(*passes, strict=True), strict=True)
    ]


class _Clock:
    """Marks of time on a device, and the milliseconds between them."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._seconds: list[float] = []
        self._events: list[torch.cuda.Event] = []

    def mark(self) -> None:
        """Mark the present."""
        if self._device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record(torch.cuda.current_stream(self._device))
            self._events.append(event)
        else:
            self._seconds.append(time.perf_counter())

    def between(self) -> list[float]:
        """Milliseconds between one mark and the next; forgets the marks."""
        if self._events:
            torch.cuda.synchronize(self._device)
        times = [first.elapsed_time(second) for first, second in pairwise(self._events)]
        times += [1e3 * (second - first) for first, second in pairwise(self._seconds)]
        self._events, self._seconds = [], []
        return times


def _timed_pass(network: Network, images: Tensor, clock: _Clock) -> list[float]:
    network(images)
    clock.mark()
    return clock.between()


def _covering(
    space: SearchSpace,
    examples: Mapping[Segment, Architecture],
    image_size: int,
    times: int,
    rng: random.Random,
) -> Iterator[Architecture]:
    """Architectures in which every segment of the space is seen so many times."""
    seen: Counter[Segment] = Counter()

    def lacking(architecture: Architecture) -> set[Segment]:
        found = segments(architecture, image_size=image_size)
        return {segment for segment in found if seen[segment] < times}

    while missing := [segment for segment in examples if seen[segment] < times]:
        # Random architectures first, of which one lacks much; what they leave is taken singly.
        drawn = [space.sample(rng) for _ in range(CANDIDATES)] + [examples[missing[0]]]
        best = max(drawn, key=lambda architecture: len(lacking(architecture)))
        seen.update(set(segments(best, image_size=image_size)))
        yield best


def _examples(space: SearchSpace, image_size: int) -> dict[Segment, Architecture]:
    """For every segment of the space an architecture that has it."""
    found: dict[Segment, Architecture] = {}
    for architecture in covering_architectures(space):
        for segment in segments(architecture, image_size=image_size):
            found.setdefault(segment, architecture)
    return found
