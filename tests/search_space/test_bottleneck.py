import itertools
import random

import pytest

from search_space import PRESETS, Architecture, Cost, SearchSpace, cost_table, total_cost
from search_space.bottleneck import greatest_bottleneck, least_bottleneck

NANO = PRESETS["nano"]
presets = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())


def peak(cost: Cost) -> int:
    return cost.peak


@pytest.mark.parametrize("image_size", [224, 64, (45, 61)])
def test_both_ends_are_those_of_all_of_nano(image_size: int | tuple[int, int]) -> None:
    def peak_of(architecture: Architecture) -> int:
        return total_cost(architecture, image_size=image_size, num_classes=10).peak

    peaks = [peak_of(architecture) for architecture in NANO.enumerate()]
    least = least_bottleneck(NANO, peak, image_size=image_size, num_classes=10)
    greatest = greatest_bottleneck(NANO, peak, image_size=image_size, num_classes=10)
    assert (peak_of(least), peak_of(greatest)) == (min(peaks), max(peaks))
    assert min(peaks) < max(peaks)
    assert {least, greatest} <= set(NANO.enumerate())


@presets
def test_the_greatest_is_that_of_the_largest_part_of_the_space(space: SearchSpace) -> None:
    parts = itertools.chain.from_iterable(map(cost_table, space.panorama()))
    largest = max(part.cost.peak for part in parts)
    assert total_cost(greatest_bottleneck(space, peak)).peak == largest


@presets
def test_no_sample_and_no_neighbour_is_below_the_least(space: SearchSpace) -> None:
    rng = random.Random(0)
    found = least_bottleneck(space, peak)
    assert found in space
    others: list[Architecture] = [space.sample(rng) for _ in range(300)]
    others += [space.mutate(found, rng) for _ in range(300)]
    assert total_cost(found).peak <= min(total_cost(other).peak for other in others)


def test_the_least_looks_at_all_parts_and_not_at_their_sum() -> None:
    least = least_bottleneck(NANO, peak)
    cheapest_sum = NANO.extreme(lambda cost: cost.activations)
    assert total_cost(least).peak <= total_cost(cheapest_sum).peak
    assert total_cost(least).peak == max(part.cost.peak for part in cost_table(least))
