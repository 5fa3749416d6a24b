import random
import re
from typing import Any

import pytest
from runs import NANO, nano_problem

from nas.errors import InputError
from nas.limits import Limits, Problem
from search_space import (
    PRESETS,
    Architecture,
    ConvStem,
    Cost,
    FullAttention,
    Rates,
    SearchSpace,
    StageChoices,
)

# Attention to every token has few parameters and many MACs, reduced keys and values the opposite.
TRADE_OFF = SearchSpace(
    name="trade-off",
    stem=ConvStem(width=16),
    stages=(
        StageChoices(
            depth=(1, 2),
            width=(32, 64),
            aggregation=(Rates(rates=(8,)), Rates(rates=(4,)), FullAttention(local_term=False)),
            ratio=(2, 4),
        ),
        StageChoices(
            depth=(1,),
            width=(64, 128),
            pooling=("conv",),
            aggregation=(Rates(rates=(4,)), Rates(rates=(2,)), FullAttention(local_term=False)),
            ratio=(2, 4),
        ),
        StageChoices(
            depth=(1,),
            width=(64, 128),
            pooling=("conv",),
            aggregation=(Rates(rates=(2,)), FullAttention(local_term=False)),
            ratio=(2,),
        ),
    ),
)


def costs_of(problem: Problem) -> list[Cost]:
    return [problem.cost(architecture) for architecture in problem.space.enumerate()]


def beats(one: Cost, other: Cost) -> bool:
    return one != other and one.macs <= other.macs and one.params <= other.params


def trade_off(**limits: Any) -> Problem:
    return Problem(space=TRADE_OFF, limits=Limits(**limits), image_size=224, num_classes=10)


NANO_COSTS = costs_of(nano_problem())
LEAST_MACS, MOST_MACS = min(c.macs for c in NANO_COSTS), max(c.macs for c in NANO_COSTS)
LEAST_PARAMS, MOST_PARAMS = min(c.params for c in NANO_COSTS), max(c.params for c in NANO_COSTS)

NANO_LIMITS: list[dict[str, int]] = [
    {},
    {"macs": LEAST_MACS},
    {"macs": LEAST_MACS + 1_000_000},
    {"macs": 150_000_000},
    {"macs": MOST_MACS},
    {"params": LEAST_PARAMS},
    {"params": 250_000},
    {"macs": 150_000_000, "params": 200_000},
    {"macs": 120_000_000, "params": LEAST_PARAMS},
]


def admitted(problem: Problem) -> list[Architecture]:
    return [a for a in problem.space.enumerate() if problem.admits(a)]


def test_a_cost_at_its_limit_is_admitted_and_one_above_is_not() -> None:
    limits = Limits(macs=100, params=10)
    assert limits.admits(Cost(macs=100, params=10))
    assert not limits.admits(Cost(macs=101, params=10))
    assert not limits.admits(Cost(macs=100, params=11))
    assert Limits().admits(Cost(macs=10**15, params=10**12))


def test_excess_is_relative_to_each_limit_that_is_set() -> None:
    assert Limits(macs=100, params=10).excess(Cost(macs=150, params=9)) == {
        "macs": pytest.approx(0.5),
        "params": pytest.approx(-0.1),
    }
    assert Limits().excess(Cost(macs=150, params=9), latency_ms=3.0) == {}


def test_excess_of_latency_is_told_where_it_is_limited_and_measured() -> None:
    limits, cost = Limits(macs=100, latency_ms=10.0), Cost(macs=50, params=1)
    assert limits.excess(cost, latency_ms=12.0) == {
        "macs": pytest.approx(-0.5),
        "latency_ms": pytest.approx(0.2),
    }
    assert limits.excess(cost).keys() == {"macs"}


@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_smallest_is_the_cheapest_architecture_that_meets_the_limits(
    limits: dict[str, int],
) -> None:
    problem = nano_problem(**limits)
    cheapest = min(problem.cost(a).macs for a in admitted(problem))
    assert problem.admits(problem.smallest())
    assert problem.cost(problem.smallest()).macs == cheapest


def test_limits_that_few_architectures_meet_together_are_met_by_the_cheapest_of_them() -> None:
    costs = costs_of(trade_off())
    front = [c for c in costs if not any(beats(other, c) for other in costs)]
    assert len(front) > 5
    for cost in front:
        problem = trade_off(macs=cost.macs, params=cost.params)
        assert problem.cost(problem.smallest()) == cost


def test_limits_that_cannot_be_met_together_are_refused_in_one_line() -> None:
    costs = costs_of(trade_off())
    problem = trade_off(macs=min(c.macs for c in costs), params=min(c.params for c in costs))
    assert not admitted(problem)
    with pytest.raises(InputError, match=r"--budget and --params .*together") as raised:
        problem.check()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_largest_and_middle_meet_the_limits_and_are_in_order(limits: dict[str, int]) -> None:
    problem = nano_problem(**limits)
    smallest, middle, largest = (
        problem.cost(a).macs for a in (problem.smallest(), problem.middle(), problem.largest())
    )
    assert problem.admits(problem.largest())
    assert problem.admits(problem.middle())
    assert smallest <= middle <= (smallest + largest) / 2 or len(admitted(problem)) < 20
    assert middle <= largest


@pytest.mark.parametrize("budget", [0.7e9, 1e9, 2e9, 3e9, 5e9])
def test_the_largest_of_base_uses_the_budget(budget: float) -> None:
    limits = Limits(macs=int(budget))
    problem = Problem(space=PRESETS["base"], limits=limits, image_size=224, num_classes=10)
    assert 0.9 * budget < problem.cost(problem.largest()).macs <= budget


@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_samples_meet_the_limits_even_where_one_architecture_does(limits: dict[str, int]) -> None:
    problem = nano_problem(**limits)
    feasible = {a.hash for a in admitted(problem)}
    rng = random.Random(0)
    sampled = {problem.sample(rng).hash for _ in range(30)}
    assert sampled <= feasible
    assert len(sampled) > 1 or len(feasible) == 1


def test_samples_reach_every_architecture_that_meets_tight_limits() -> None:
    problem = nano_problem(macs=sorted(c.macs for c in NANO_COSTS)[4])
    feasible = {a.hash for a in admitted(problem)}
    assert len(feasible) == 5
    rng = random.Random(0)
    assert {problem.sample(rng).hash for _ in range(150)} == feasible


def test_samples_from_the_band_are_in_it() -> None:
    problem = nano_problem(macs=180_000_000)
    rng = random.Random(0)
    for _ in range(50):
        assert 0.9 * 180e6 <= problem.cost(problem.sample(rng, at_least=0.9)).macs <= 180e6


def test_under_a_budget_that_does_not_bind_the_band_is_the_whole_space() -> None:
    problem = nano_problem(macs=MOST_MACS)
    samples = [problem.sample(random.Random(seed), at_least=0.9) for seed in range(20)]
    assert samples == [problem.sample(random.Random(seed)) for seed in range(20)]
    assert min(problem.cost(sample).macs for sample in samples) < 0.5 * MOST_MACS


def test_samples_depend_on_the_generator_alone() -> None:
    problem = nano_problem(macs=120_000_000)
    first, second = (
        [problem.sample(rng, at_least=0.9).hash for _ in range(10)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == second


@pytest.mark.parametrize(
    ("limits", "flag", "least", "most"),
    [
        ({"macs": LEAST_MACS - 1}, "--budget", LEAST_MACS, MOST_MACS),
        ({"macs": 1}, "--budget", LEAST_MACS, MOST_MACS),
        ({"params": LEAST_PARAMS - 1}, "--params", LEAST_PARAMS, MOST_PARAMS),
        ({"macs": 10**9, "params": 1}, "--params", LEAST_PARAMS, MOST_PARAMS),
        ({"macs": 1, "params": 10**9}, "--budget", LEAST_MACS, MOST_MACS),
    ],
)
def test_a_limit_below_the_space_is_refused_with_the_range_and_the_nearest_legal_value(
    limits: dict[str, int], flag: str, least: int, most: int
) -> None:
    with pytest.raises(InputError, match=f"^{flag} ") as raised:
        nano_problem(**limits).check()
    message = str(raised.value)
    assert "\n" not in message
    assert "'nano'" in message
    assert f"{least / 1e6:.3g} M" in message or f"{least / 1e3:.3g} k" in message
    assert f"{most / 1e6:.3g} M" in message or f"{most / 1e3:.3g} k" in message
    assert message.endswith(f"nearest legal value is {least}")


def test_the_nearest_legal_value_is_legal() -> None:
    nano_problem(macs=LEAST_MACS).check()
    nano_problem(params=LEAST_PARAMS).check()


def test_a_limit_that_does_not_bind_is_told_and_one_that_does_is_not() -> None:
    for binding in ({"macs": MOST_MACS - 1}, {"params": MOST_PARAMS - 1}, {}):
        assert not any("does not bind" in note for note in nano_problem(**binding).check())
    for flag, loose in (("--budget", {"macs": MOST_MACS}), ("--params", {"params": MOST_PARAMS})):
        (note,) = [n for n in nano_problem(**loose).check() if "does not bind" in n]
        assert note.startswith(flag)


def test_the_share_of_the_space_that_the_limits_leave_is_told() -> None:
    assert "288 architectures; 100%" in nano_problem().check()[-1]
    problem = nano_problem(macs=150_000_000)
    rng = random.Random(1)
    share = sum(problem.admits(NANO.sample(rng)) for _ in range(1000)) / 1000
    told = re.search(r"(\d+)%", problem.check()[-1])
    assert told is not None
    assert abs(int(told[1]) / 100 - share) < 0.1


def test_numbers_in_messages_are_separate_words() -> None:
    messages = nano_problem(macs=10**10, params=10**8).check()
    for limits in ({"macs": 1}, {"params": 1}):
        with pytest.raises(InputError) as raised:
            nano_problem(**limits).check()
        messages.append(str(raised.value))
    for message in messages:
        # "97.1 Mto", "2 Gdoes": a prefix that runs into the next word. MMACs is a unit.
        assert not re.search(r"\d [kMG](?!MACs)[a-z]", message), message


def test_nano_is_the_space_that_brute_force_was_done_on() -> None:
    assert len(NANO_COSTS) == NANO.count() == 288
