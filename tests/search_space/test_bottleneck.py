import itertools
import random

import pytest

from search_space import PRESETS, Architecture, Cost, SearchSpace, cost_table, total_cost
from search_space.coverage import covering_architectures
from search_space.extremes import extreme

NANO = PRESETS["nano"]
presets = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())


def peak(cost: Cost) -> int:
    return cost.peak


def negative_peak(cost: Cost) -> int:
    return -cost.peak


@pytest.mark.parametrize("image_size", [224, 64, (45, 61)])
def test_both_ends_are_those_of_all_of_nano(image_size: int | tuple[int, int]) -> None:
    def peak_of(architecture: Architecture) -> int:
        return total_cost(architecture, image_size=image_size, num_classes=10).peak

    peaks = [peak_of(architecture) for architecture in NANO.enumerate()]
    least = extreme(NANO, peak, join=max, image_size=image_size, num_classes=10)
    greatest = extreme(NANO, negative_peak, join=min, image_size=image_size, num_classes=10)
    assert (peak_of(least), peak_of(greatest)) == (min(peaks), max(peaks))
    assert min(peaks) < max(peaks)
    assert {least, greatest} <= set(NANO.enumerate())


@pytest.mark.slow
@pytest.mark.parametrize(
    "space",
    [
        pytest.param(space, marks=pytest.mark.exhaustive if name == "base" else ())
        for name, space in PRESETS.items()
    ],
    ids=PRESETS.keys(),
)
def test_the_greatest_is_that_of_the_largest_part_of_the_space(space: SearchSpace) -> None:
    parts = itertools.chain.from_iterable(map(cost_table, covering_architectures(space)))
    largest = max(part.cost.peak for part in parts)
    assert total_cost(extreme(space, negative_peak, join=min)).peak == largest


@pytest.mark.slow
@presets
def test_no_sample_and_no_neighbour_is_below_the_least(space: SearchSpace) -> None:
    rng = random.Random(0)
    found = extreme(space, peak, join=max)
    assert found in space
    others: list[Architecture] = [space.sample(rng) for _ in range(300)]
    others += [space.mutate(found, rng) for _ in range(300)]
    assert total_cost(found).peak <= min(total_cost(other).peak for other in others)


def test_the_least_looks_at_all_parts_and_not_at_their_sum() -> None:
    least = extreme(NANO, peak, join=max)
    cheapest_sum = extreme(NANO, lambda cost: cost.activations)
    assert total_cost(least).peak <= total_cost(cheapest_sum).peak
    assert total_cost(least).peak == max(part.cost.peak for part in cost_table(least))
