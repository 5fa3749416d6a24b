"""Profiling: what is timed, how often, and what is made of it."""

import itertools
import random
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import NANO

import nas.latency.profile
import nas.latency.reference
from nas.latency.conditions import LatencyConditions
from nas.latency.measure import Latency
from nas.latency.profile import (
    MOST_ATTEMPTS,
    ProfilingEffort,
    _meter,
    profile,
    time_segments,
)
from nas.latency.reference import ReferenceMeter
from nas.latency.table import LatencyTable
from nas.latency.timings import Timings
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import DESIGNS, PRESETS, Architecture
from search_space.segments import Segment, segments, space_segments
from supernet import Network

AT_64 = LatencyConditions(device="cpu", image_size=64, threads=1)
EFFORT = ProfilingEffort(sightings=2, fitted=6, held_out=5)


class Bench(ReferenceMeter):
    """Stands for the clock: a segment takes 1 ms, a network half a millisecond more.

    Keeps what was timed; asks for a stop after so many networks; each so-manieth is unstable.
    """

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        *,
        stops_after: int = 10**9,
        stable: int = 1,
        settled: float = 1.0,
    ) -> None:
        self.reference, self.milliseconds, self.settled = NANO.scaled(0.5), 8.0, settled
        self.passes: list[float] = []
        self.stop, self.stops_after, self.stable = StopRequest(), stops_after, stable
        self.segmented: list[Architecture] = []
        self.whole: list[Architecture] = []
        monkeypatch.setattr(nas.latency.profile, "time_segments", self.time_segments)
        monkeypatch.setattr(
            nas.latency.profile, "blank_network", lambda architecture, _: architecture
        )

    def time_segments(
        self, architecture: Architecture, conditions: LatencyConditions, meter: ReferenceMeter
    ) -> list[tuple[str, float]]:
        assert meter is self
        self.segmented.append(architecture)
        self._count()
        found = segments(architecture, image_size=conditions.image_size)
        return [(segment.label, 1.0) for segment in found]

    def measure(self, network: Any) -> Latency:
        architecture = Architecture.model_validate(network)
        self.whole.append(architecture)
        self._count()
        return Latency(
            median_ms=milliseconds(architecture),
            iqr_ms=0.25,
            repeats=10,
            unstable=not self.stable or len(self.whole) % self.stable != 0,
        )

    def settle(self) -> float:
        self.milliseconds *= self.settled
        return self.settled

    def _count(self) -> None:
        self.stop.requested = len(self.segmented) + len(self.whole) >= self.stops_after

    def profile(
        self,
        effort: ProfilingEffort = EFFORT,
        *,
        seed: int = 0,
        timings: Timings | None = None,
    ) -> LatencyTable:
        self.shares: list[float] = []
        self.left_out = 0

        def show(share: float, unstable: int) -> None:
            self.shares.append(share)
            self.left_out = unstable

        return profile(
            NANO,
            AT_64,
            effort,
            seed=seed,
            stop=self.stop,
            on_progress=show,
            meter=self,
            timings=timings,
        )


def milliseconds(architecture: Architecture) -> float:
    return len(segments(architecture, image_size=64)) + 0.5


def sightings(architectures: Sequence[Architecture]) -> Counter[str]:
    """In how many networks each segment is."""
    return Counter(
        label
        for architecture in architectures
        for label in {s.label for s in segments(architecture, image_size=64)}
    )


# --- what is timed -------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [1, 3])
def test_every_segment_of_the_space_is_timed_in_so_many_networks(
    monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    bench = Bench(monkeypatch)
    table = bench.profile(ProfilingEffort(sightings=times, fitted=2, held_out=0))
    labels = {segment.label for segment in space_segments(NANO, image_size=64)}
    seen = sightings(bench.segmented)
    assert table.segments.keys() == labels == seen.keys()
    assert min(seen.values()) >= times
    # Each network has been worth it: it had a segment that was still wanted.
    for number, architecture in enumerate(bench.segmented):
        before = sightings(bench.segmented[:number])
        assert any(before[label] < times for label in sightings([architecture]))


def test_few_networks_cover_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.profile(ProfilingEffort(sightings=1, fitted=2, held_out=0))
    assert len(bench.segmented) < len(space_segments(NANO, image_size=64)) / 2


def test_networks_that_the_error_is_known_from_are_not_among_those_that_were_learned_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    learned: list[Architecture] = []
    fit_segments = nas.latency.profile.fit_segments

    def noting(
        table: LatencyTable,
        found: Collection[Segment],
        architectures: Sequence[Architecture],
        measured_ms: Sequence[float],
    ) -> LatencyTable:
        learned.extend(architectures)
        return fit_segments(table, found, architectures, measured_ms)

    monkeypatch.setattr(nas.latency.profile, "fit_segments", noting)
    bench = Bench(monkeypatch)
    table = bench.profile(ProfilingEffort(sightings=1, fitted=40, held_out=40))
    assert len(learned) == len(table.networks) == 40
    held_out = {network.hash for network in table.networks}
    assert not held_out & {architecture.hash for architecture in learned}
    assert len(held_out) == 40  # else one network counts twice


def test_the_error_is_that_of_the_finished_table(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    table = bench.profile(ProfilingEffort(sightings=1, fitted=20, held_out=5))
    by_hash = {architecture.hash: architecture for architecture in bench.whole}
    for network in table.networks:
        architecture = by_hash[network.hash]
        assert network.predicted_ms == pytest.approx(table.predict(architecture))
        assert network.measured_ms == milliseconds(architecture)
        assert network.iqr_ms == 0.25
    assert table.error is not None
    assert table.error.mape < 0.05  # the half millisecond was learned
    assert (table.space, table.conditions) == ("nano", AT_64)


def test_networks_whose_latency_is_unstable_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, stable=2)
    table = bench.profile()
    assert len(bench.whole) == 2 * (EFFORT.fitted + EFFORT.held_out)
    held_out = [architecture.hash for architecture in bench.whole[1::2]][EFFORT.fitted :]
    assert [network.hash for network in table.networks] == held_out
    assert bench.left_out == len(bench.whole) / 2  # and counted


def test_if_all_are_unstable_the_table_is_not_corrected_and_says_that_its_error_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bench = Bench(monkeypatch, stable=0)
    table = bench.profile()
    assert len(bench.whole) == MOST_ATTEMPTS * (EFFORT.fitted + EFFORT.held_out)
    assert table.networks == ()
    assert table.predict(NANO.scaled(0)) == milliseconds(NANO.scaled(0)) - 0.5
    assert table.error_text.startswith("unknown")


def test_a_profile_depends_on_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []
    for seed in (0, 0, 1):
        bench = Bench(monkeypatch)
        bench.profile(seed=seed)
        drawn.append([a.hash for a in (*bench.segmented, *bench.whole)])
    assert drawn[0] == drawn[1] != drawn[2]


def test_progress_grows_to_one(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch)
    bench.profile()
    assert bench.shares == sorted(bench.shares)
    assert bench.shares[0] > 0
    assert bench.shares[-1] == pytest.approx(1.0)
    assert len(bench.shares) == len(bench.segmented) + len(bench.whole)


@pytest.mark.parametrize("among", ["segments", "whole networks"])
def test_a_stop_is_heeded_before_the_next_network(
    monkeypatch: pytest.MonkeyPatch, among: str
) -> None:
    whole = Bench(monkeypatch)
    whole.profile()
    stops_after = 2 if among == "segments" else len(whole.segmented) + 3
    bench = Bench(monkeypatch, stops_after=stops_after)
    with pytest.raises(Interrupted):
        bench.profile()
    assert len(bench.segmented) + len(bench.whole) == stops_after
    assert bool(bench.whole) == (among == "whole networks")


@pytest.mark.parametrize("among", ["segments", "whole networks"])
def test_a_profile_that_was_stopped_times_nothing_twice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, among: str
) -> None:
    whole = Bench(monkeypatch)
    table = whole.profile()
    stops_after = 2 if among == "segments" else len(whole.segmented) + 3
    first = Bench(monkeypatch, stops_after=stops_after)
    with pytest.raises(Interrupted):
        first.profile(timings=Timings(tmp_path / "table.json"))
    (kept,) = tmp_path.iterdir()
    with kept.open("a") as file:
        file.write('{"key": "half a li')  # as of a killed process
    other = Bench(monkeypatch)
    of_other = Timings(tmp_path / "table.json")
    other.profile(timings=of_other, seed=1)
    assert other.segmented  # these are of no use to another profile, which leaves them
    of_other.forget()
    second = Bench(monkeypatch)
    timings = Timings(tmp_path / "table.json")
    assert second.profile(timings=timings) == table
    assert first.segmented + second.segmented == whole.segmented
    assert first.whole + second.whole == whole.whole
    timings.forget()
    assert not list(tmp_path.iterdir())


def test_a_profile_that_goes_on_tells_times_at_the_speed_that_it_began_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    speeds = iter((8.0, 16.0))  # the machine is half as fast in the second process

    def half_as_fast(self: ReferenceMeter, reference: Any, conditions: Any, ms: Any = None) -> None:
        self.reference, self.conditions = reference, conditions
        self.passes = [next(speeds)] * 3
        self.milliseconds = self.passes[0] if ms is None else ms

    monkeypatch.setattr(ReferenceMeter, "__init__", half_as_fast)
    meters = []
    for _ in range(2):
        timings = Timings(tmp_path / "table.json")
        timings.begin({"seed": 0})
        meters.append(_meter(NANO.scaled(0.5), AT_64, timings))
    assert [meter.milliseconds for meter in meters] == [8.0, 8.0]
    assert meters[1].passes == [8.0] * 3 + [16.0] * 3


def test_a_table_is_told_at_the_usual_speed_and_keeps_what_its_reference_took(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = Bench(monkeypatch).profile()
    assert plain.reference is not None
    assert plain.reference.architecture == NANO.scaled(0.5)
    assert plain.reference.milliseconds == 8.0
    slower = Bench(monkeypatch, settled=1.5).profile()
    assert slower.reference is not None
    assert slower.reference.milliseconds == 12.0
    assert slower.segments == {k: pytest.approx(1.5 * v) for k, v in plain.segments.items()}
    for one, other in zip(plain.networks, slower.networks, strict=True):
        assert other.measured_ms == pytest.approx(1.5 * one.measured_ms)
        assert other.predicted_ms == pytest.approx(1.5 * one.predicted_ms)
        assert other.iqr_ms == pytest.approx(1.5 * one.iqr_ms)


def test_segments_are_told_at_the_pace_s_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    class MuchFaster(ReferenceMeter):
        def __init__(self) -> None:
            pass

        def correction(self) -> float:
            return 1e-9

    monkeypatch.setattr(nas.latency.profile, "PASSES", 1)
    timed = time_segments(NANO.scaled(0), AT_64, MuchFaster())
    assert all(0 < milliseconds < 1e-5 for _, milliseconds in timed)


# --- how it is timed -----------------------------------------------------------------------------


def architectures() -> dict[str, Architecture]:
    """One of every kind of network."""
    found = {
        f"{name} {number}": PRESETS[name].sample(random.Random(number))
        for name in ("nano", "psvit")
        for number in range(2)
    }
    named = {design.name: design.architecture for design in DESIGNS}
    return found | {name: named[name] for name in ("PSLT-Tiny", "LIT-Ti")}


@pytest.mark.parametrize("architecture", architectures().values(), ids=architectures().keys())
def test_segments_are_timed_in_the_order_of_the_forward_pass(
    architecture: Architecture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.latency.profile, "PASSES", 1)
    timed = time_segments(architecture, AT_64)
    found = segments(architecture, image_size=64)
    assert [label for label, _ in timed] == [segment.label for segment in found]
    assert all(milliseconds > 0 for _, milliseconds in timed)


@pytest.mark.parametrize("name", ["nano", "tiny"])
def test_segments_follow_each_other_without_a_gap_from_the_stem_to_the_scores(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """By a clock that moves on by a millisecond whenever it is looked at."""
    now = itertools.count()
    monkeypatch.setattr(nas.latency.profile.time, "perf_counter", lambda: next(now) / 1e3)
    architecture = PRESETS[name].scaled(1.0)
    timed = time_segments(architecture, AT_64)
    assert [milliseconds for _, milliseconds in timed] == pytest.approx([1.0] * len(timed))


@pytest.mark.parametrize("fails", [False, True])
def test_timing_leaves_the_number_of_threads_as_it_was(
    monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    during: list[int] = []

    def forward(network: Network, images: torch.Tensor) -> torch.Tensor:
        during.append(torch.get_num_threads())
        if fails:
            raise RuntimeError
        return plain(network, images)

    plain = Network.forward
    monkeypatch.setattr(Network, "forward", forward)
    before = torch.get_num_threads()
    conditions = AT_64.model_copy(update={"threads": before + 1})
    if fails:
        with pytest.raises(RuntimeError):
            time_segments(NANO.scaled(0), conditions)
    else:
        time_segments(NANO.scaled(0), conditions)
    assert set(during) == {before + 1}
    assert torch.get_num_threads() == before


@pytest.mark.slow
def test_a_real_profile_has_a_positive_time_for_every_segment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.latency.reference, "ROUND_PASSES", 3)
    effort = ProfilingEffort(sightings=1, fitted=3, held_out=2)
    stop = StopRequest()
    table = profile(
        NANO, AT_64, effort, seed=0, stop=stop, on_progress=lambda share, unstable: None
    )
    assert table.segments.keys() == {s.label for s in space_segments(NANO, image_size=64)}
    assert all(milliseconds > 0 for milliseconds in table.segments.values())
    assert len(table.networks) <= 2  # fewer where the machine is busy
    assert all(network.measured_ms > 0 for network in table.networks)
    assert table.predict(NANO.scaled(1.0)) > 0
    assert LatencyTable.model_validate_json(table.to_json()) == table
