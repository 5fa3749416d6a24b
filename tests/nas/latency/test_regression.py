"""The correction that a latency table learns from whole networks."""

import random
from collections.abc import Callable

import pytest

from nas.latency.conditions import LatencyConditions
from nas.latency.regression import fit_segments
from nas.latency.table import LatencyTable, prediction_error
from search_space import PRESETS, Architecture
from search_space.segments import Segment, segments, space_segments

NANO = PRESETS["nano"]
FOUND = space_segments(NANO, image_size=64)


def table(factor: Callable[[Segment], float] = lambda segment: 1.0) -> LatencyTable:
    """A table of `nano` in which each segment takes as long as its label, times a factor."""
    return LatencyTable(
        space="nano",
        conditions=LatencyConditions(device="phone", image_size=64, threads=1),
        segments={s.label: 0.01 * len(s.label) * factor(s) for s in FOUND},
    )


def mape(predicting: LatencyTable, truth: LatencyTable, architectures: list[Architecture]) -> float:
    predicted = [predicting.predict(architecture) for architecture in architectures]
    return prediction_error(predicted, [truth.predict(a) for a in architectures]).mape


def by_operator(segment: Segment) -> float:
    return 0.5 * {"mixer": 1.3, "entry": 0.8}.get(segment.operator.split()[0], 1.0)


def by_operator_and_map(segment: Segment) -> float:
    slow = segment.operator.startswith("mixer") and segment.size == (8, 8)
    return by_operator(segment) * (1.5 if slow else 1.0)


@pytest.mark.parametrize("factor", [by_operator, by_operator_and_map])
def test_a_correction_is_learned_from_measurements_even_if_some_are_wrong(
    factor: Callable[[Segment], float],
) -> None:
    rng = random.Random(0)
    raw, truth = table(), table(factor).model_copy(update={"overhead_ms": 0.4})
    architectures = [NANO.sample(rng) for _ in range(60)]
    measured = [truth.predict(architecture) * rng.gauss(1, 0.01) for architecture in architectures]
    measured[3] *= 3  # something else ran
    learned = fit_segments(raw, FOUND, architectures, measured)
    held_out = [NANO.sample(rng) for _ in range(40)]
    assert mape(raw, truth, held_out) > 0.05
    assert mape(learned, truth, held_out) < 0.01


def test_few_measurements_hardly_move_the_correction() -> None:
    raw, architecture = table(), NANO.scaled(1.0)
    learned = fit_segments(raw, FOUND, [architecture], [raw.predict(architecture)])
    assert learned.segments == pytest.approx(raw.segments)
    assert learned.overhead_ms == pytest.approx(0, abs=1e-9)


def test_what_no_network_had_is_corrected_as_its_like() -> None:
    raw, truth = table(), table(lambda segment: 0.5)
    seen = NANO.scaled(0.0)
    learned = fit_segments(raw, FOUND, [seen], [truth.predict(seen)])
    unseen = {s.label for s in FOUND} - {s.label for s in segments(seen, image_size=64)}
    assert unseen
    for label in unseen:
        assert learned.segments[label] == pytest.approx(truth.segments[label], rel=0.01)


def test_no_segment_gets_a_negative_time() -> None:
    rng = random.Random(0)
    architectures = [NANO.sample(rng) for _ in range(60)]
    measured = [rng.uniform(0.01, 10.0) for _ in architectures]  # of nothing
    learned = fit_segments(table(), FOUND, architectures, measured)
    assert min(learned.segments.values()) > 0
    assert learned.segments.keys() == {s.label for s in FOUND}
