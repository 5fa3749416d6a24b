import random
import re
from statistics import mean
from typing import Any

import pytest
from small_runs import NANO, constrained_nano, fake_table, limits_on

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.objectives.settings import DrawSettings
from nas.utilities.errors import InputError
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


def costs_of(constrained: ConstrainedSpace) -> list[Cost]:
    return [constrained.cost(architecture) for architecture in constrained.space.enumerate()]


def beats(one: Cost, other: Cost) -> bool:
    return one != other and one.macs <= other.macs and one.params <= other.params


def trade_off(**limits: Any) -> ConstrainedSpace:
    return ConstrainedSpace(
        space=TRADE_OFF, limits=limits_on(**limits), image_size=224, num_classes=10
    )


NANO_COSTS = costs_of(constrained_nano())
every_fourth = pytest.mark.parametrize(
    "step", [4, pytest.param(1, marks=pytest.mark.exhaustive)], ids=["every fourth", "every"]
)
LEAST_MACS, MOST_MACS = min(c.macs for c in NANO_COSTS), max(c.macs for c in NANO_COSTS)
LEAST_PARAMS, MOST_PARAMS = min(c.params for c in NANO_COSTS), max(c.params for c in NANO_COSTS)
LEAST_MEMORY, MOST_MEMORY = 4 * min(c.peak for c in NANO_COSTS), 4 * max(c.peak for c in NANO_COSTS)

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
    {"memory": LEAST_MEMORY},
    {"memory": 2_500_000},
    {"macs": 200_000_000, "params": 250_000, "memory": 2_500_000},
]


def admitted(constrained: ConstrainedSpace) -> list[Architecture]:
    return [a for a in constrained.space.enumerate() if constrained.admits(a)]


def test_a_cost_at_its_limit_is_admitted_and_one_above_is_not() -> None:
    largest = constrained_nano().largest()
    cost = constrained_nano().cost(largest)
    assert constrained_nano(macs=cost.macs, params=cost.params).admits(largest)
    assert not constrained_nano(macs=cost.macs - 1, params=cost.params).admits(largest)
    assert not constrained_nano(macs=cost.macs, params=cost.params - 1).admits(largest)
    assert constrained_nano().admits(largest)


@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_smallest_is_the_cheapest_architecture_that_meets_the_limits(
    limits: dict[str, int],
) -> None:
    constrained = constrained_nano(**limits)
    cheapest = min(constrained.cost(a).macs for a in admitted(constrained))
    assert constrained.admits(constrained.smallest())
    assert constrained.cost(constrained.smallest()).macs == cheapest


def test_limits_that_few_architectures_meet_together_are_met_by_the_cheapest_of_them() -> None:
    costs = costs_of(trade_off())
    front = [c for c in costs if not any(beats(other, c) for other in costs)]
    assert len(front) > 5
    for cost in front:
        constrained = trade_off(macs=cost.macs, params=cost.params)
        assert constrained.cost(constrained.smallest()) == cost


def test_limits_that_cannot_be_met_together_are_refused_in_one_line() -> None:
    costs = costs_of(trade_off())
    constrained = trade_off(macs=min(c.macs for c in costs), params=min(c.params for c in costs))
    assert not admitted(constrained)
    with pytest.raises(InputError, match=r"`budget` and `params` .*together") as raised:
        constrained.check()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_largest_and_middle_meet_the_limits_and_are_in_order(limits: dict[str, int]) -> None:
    constrained = constrained_nano(**limits)
    smallest, middle, largest = (
        constrained.cost(a).macs
        for a in (constrained.smallest(), constrained.middle(), constrained.largest())
    )
    assert constrained.admits(constrained.largest())
    assert constrained.admits(constrained.middle())
    assert smallest <= middle <= (smallest + largest) / 2 or len(admitted(constrained)) < 20
    assert middle <= largest


@pytest.mark.slow
@pytest.mark.parametrize("budget", [0.7e9, 1e9, 2e9, 3e9, 5e9])
@pytest.mark.sampled(3)
def test_the_largest_of_base_uses_the_budget(budget: float) -> None:
    limits = Limits(macs=int(budget))
    constrained = ConstrainedSpace(
        space=PRESETS["base"], limits=limits, image_size=224, num_classes=10
    )
    assert 0.9 * budget < constrained.cost(constrained.largest()).macs <= budget


@pytest.mark.slow
@pytest.mark.parametrize("limits", NANO_LIMITS, ids=str)
def test_samples_meet_the_limits_even_where_one_architecture_does(limits: dict[str, int]) -> None:
    constrained = constrained_nano(**limits)
    feasible = {a.hash for a in admitted(constrained)}
    rng = random.Random(0)
    sampled = {constrained.sample(rng).hash for _ in range(5)}
    assert sampled <= feasible
    assert len(sampled) > 1 or len(feasible) == 1


def test_samples_reach_every_architecture_that_meets_tight_limits() -> None:
    constrained = constrained_nano(macs=sorted(c.macs for c in NANO_COSTS)[4])
    feasible = {a.hash for a in admitted(constrained)}
    assert len(feasible) == 5
    rng = random.Random(0)
    assert {constrained.sample(rng).hash for _ in range(60)} == feasible


def test_samples_under_tight_limits_differ_in_many_genes_and_cost_what_drawn_ones_cost() -> None:
    def of(limit: float, **settings: int) -> tuple[float, float]:
        limits = Limits(macs=limit)
        constrained = ConstrainedSpace(
            space=PRESETS["tiny"],
            limits=limits,
            image_size=224,
            num_classes=10,
            settings=DrawSettings(**settings),
        )
        rng, genotype = random.Random(0), PRESETS["tiny"].genotype
        smallest = genotype(constrained.smallest())
        drawn = [constrained.sample(rng) for _ in range(12)]
        assert all(map(constrained.admits, drawn))
        differing = [sum(genotype(a)[g] != v for g, v in smallest.items()) for a in drawn]
        return mean(differing), mean(constrained.cost(a).macs for a in drawn)

    genes, _ = of(9e7)  # of random ones none in a thousand
    assert genes > 6
    drawn, walked = of(1.5e8, draws=500), of(1.5e8, draws=1)
    assert walked[0] == pytest.approx(drawn[0], rel=0.25)
    assert walked[1] == pytest.approx(drawn[1], rel=0.1)


def test_samples_depend_on_the_generator_alone() -> None:
    constrained = constrained_nano(macs=120_000_000)
    first, second = (
        [constrained.sample(rng).hash for _ in range(10)]
        for rng in (random.Random(3), random.Random(3))
    )
    assert first == second


@pytest.mark.parametrize(
    ("limits", "field", "least", "most"),
    [
        ({"macs": LEAST_MACS - 1}, "budget", LEAST_MACS, MOST_MACS),
        ({"macs": 1}, "budget", LEAST_MACS, MOST_MACS),
        ({"params": LEAST_PARAMS - 1}, "params", LEAST_PARAMS, MOST_PARAMS),
        ({"macs": 10**9, "params": 1}, "params", LEAST_PARAMS, MOST_PARAMS),
        ({"macs": 1, "params": 10**9}, "budget", LEAST_MACS, MOST_MACS),
        ({"memory": LEAST_MEMORY - 1}, "memory", LEAST_MEMORY, MOST_MEMORY),
        ({"macs": 10**9, "memory": 1}, "memory", LEAST_MEMORY, MOST_MEMORY),
    ],
)
def test_a_limit_below_the_space_is_refused_with_the_range_and_the_nearest_legal_value(
    limits: dict[str, int], field: str, least: int, most: int
) -> None:
    with pytest.raises(InputError, match=f"^`{field}` ") as raised:
        constrained_nano(**limits).check()
    message = str(raised.value)
    assert "\n" not in message
    assert "'nano'" in message
    assert f"{least / 1e6:.3g} M" in message or f"{least / 1e3:.3g} k" in message
    assert f"{most / 1e6:.3g} M" in message or f"{most / 1e3:.3g} k" in message
    assert message.endswith(f"nearest legal value is {least}")


def test_the_nearest_legal_value_is_legal() -> None:
    constrained_nano(macs=LEAST_MACS).check()
    constrained_nano(params=LEAST_PARAMS).check()
    constrained_nano(memory=LEAST_MEMORY).check()


def test_a_limit_that_does_not_bind_is_told_and_one_that_does_is_not() -> None:
    most = {"macs": MOST_MACS, "params": MOST_PARAMS, "memory": MOST_MEMORY}
    told = {"macs": "256 MMACs", "params": "473 k params", "memory": "3.21 MB"}
    assert not any("does not bind" in note for note in constrained_nano().check())
    for name, limit in most.items():
        binding = constrained_nano(**{name: limit - 1}).check()
        assert not any("does not bind" in note for note in binding)
        (note,) = [n for n in constrained_nano(**{name: limit}).check() if "does not bind" in n]
        assert note.startswith(f"the limit of {told[name]}")
        assert note.endswith(f"has {told[name]}")


def test_the_share_of_the_space_that_the_limits_leave_is_told() -> None:
    assert "288 architectures; 100%" in constrained_nano().check()[-1]
    constrained = constrained_nano(macs=150_000_000)
    rng = random.Random(1)
    share = sum(constrained.admits(NANO.sample(rng)) for _ in range(1000)) / 1000
    told = re.search(r"(\d+)%", constrained.check()[-1])
    assert told is not None
    assert abs(int(told[1]) / 100 - share) < 0.1


def test_numbers_in_messages_are_separate_words() -> None:
    messages = constrained_nano(macs=10**10, params=10**8).check()
    for limits in ({"macs": 1}, {"params": 1}):
        with pytest.raises(InputError) as raised:
            constrained_nano(**limits).check()
        messages.append(str(raised.value))
    for message in messages:
        # "97.1 Mto", "2 Gdoes": a prefix that runs into the next word. MMACs is a unit.
        assert not re.search(r"\d [kMG](?!MACs)[a-z]", message), message


# --- memory, which is the largest of a network's parts and not their sum -------------------------


def memory_of(cost: Cost) -> int:
    """Bytes of the largest working set, with four for each element."""
    return 4 * cost.peak


def test_memory_is_limited_at_the_value_and_not_below() -> None:
    largest = constrained_nano().largest()
    memory = memory_of(constrained_nano().cost(largest))
    assert constrained_nano(memory=memory).costs(largest)["memory"] == memory
    assert constrained_nano(memory=memory).admits(largest)
    assert not constrained_nano(memory=memory - 1).admits(largest)


# Inverted residuals have fewer MACs than a convolution to many channels, and larger maps.
EXPANDING = SearchSpace(
    name="expanding",
    stem=ConvStem(width=16),
    stages=(
        StageChoices(depth=(1, 2), width=(32,), aggregation=(Rates(rates=(8,)),), ratio=(1, 2, 6)),
        StageChoices(
            depth=(1, 2),
            width=(256,),
            pooling=("conv", "mv2_se"),
            aggregation=(Rates(rates=(4,)), FullAttention(local_term=False)),
            ratio=(1, 2),
        ),
    ),
)


def expanding(**limits: Any) -> ConstrainedSpace:
    return ConstrainedSpace(
        space=EXPANDING, limits=limits_on(**limits), image_size=224, num_classes=10
    )


@pytest.mark.parametrize("share", [1.0, 1.1, 1.5])
def test_a_budget_and_a_memory_are_met_together_by_the_cheapest_that_meets_both(
    share: float,
) -> None:
    costs = costs_of(expanding())
    found = set()
    for memory in sorted({memory_of(cost) for cost in costs}):
        cheapest = min(c.macs for c in costs if memory_of(c) <= memory)
        constrained = expanding(macs=round(share * cheapest), memory=memory)
        assert constrained.cost(constrained.smallest()).macs == cheapest
        assert memory_of(constrained.cost(constrained.smallest())) <= memory
        found.add(cheapest)
    assert len(found) > 1  # less memory costs more MACs


@pytest.mark.slow
@every_fourth
def test_a_budget_parameters_and_a_memory_that_few_meet_together_are_met(step: int) -> None:
    for cost in costs_of(expanding())[::step]:
        limits = {"macs": cost.macs, "params": cost.params, "memory": memory_of(cost)}
        constrained = expanding(**limits)
        assert constrained.admits(constrained.smallest())


@pytest.mark.slow
@pytest.mark.parametrize(("name", "field"), [("macs", "budget"), ("params", "params")])
def test_limits_that_cannot_be_met_together_with_a_memory_are_refused_in_one_line(
    name: str, field: str
) -> None:
    costs = costs_of(expanding())
    memory = min(map(memory_of, costs))
    limit = min(getattr(c, name) for c in costs if memory_of(c) <= memory) - 1
    assert limit >= min(getattr(c, name) for c in costs)
    told = f"`{field}` and `memory` cannot be met together in space 'expanding'"
    with pytest.raises(InputError, match=told) as raised:
        expanding(memory=memory, **{name: limit}).check()
    assert "\n" not in str(raised.value)
    assert f"{memory / 1e6:.3g} MB of memory" in str(raised.value)


def test_a_memory_out_of_reach_of_a_large_space_is_refused_with_the_exact_range() -> None:
    def base(memory: int) -> ConstrainedSpace:
        return ConstrainedSpace(
            space=PRESETS["base"], limits=Limits(memory=memory), image_size=224, num_classes=10
        )

    with pytest.raises(InputError, match=r"^`memory` 1 MB is out of reach") as raised:
        base(1_000_000).smallest()
    assert "'base' spans 3.81 MB to 12.8 MB at 224 px" in str(raised.value)
    told = re.search(r"nearest legal value is (\d+)$", str(raised.value))
    assert told is not None
    nearest = int(told[1])
    assert memory_of(base(nearest).cost(base(nearest).smallest())) == nearest
    with pytest.raises(InputError, match="out of reach"):
        base(nearest - 1).smallest()
    rng = random.Random(0)
    assert all(memory_of(base(nearest).cost(base(nearest).sample(rng))) <= nearest for _ in "123")


def test_nano_is_the_space_that_brute_force_was_done_on() -> None:
    assert len(NANO_COSTS) == NANO.count() == 288


# --- latency -------------------------------------------------------------------------------------

PHONE, TABLET = fake_table("phone", margin=0.05), fake_table("tablet")
PREDICTED = sorted(PHONE.predict(architecture) for architecture in NANO.enumerate())
FASTEST, SLOWEST = PREDICTED[0], PREDICTED[-1]


def on_phone(limit_ms: float, *, here: bool, **limits: Any) -> ConstrainedSpace:
    return constrained_nano(
        latency_ms={"phone": limit_ms},
        tables={"phone": PHONE},
        measured=["phone"] if here else [],
        **limits,
    )


def test_a_prediction_may_exceed_by_the_margin_what_will_be_measured() -> None:
    architecture = NANO.scaled(0.5)
    predicted = PHONE.predict(architecture)
    assert on_phone(predicted / 1.05 * 1.001, here=True).admits(architecture)
    assert not on_phone(predicted / 1.05 * 0.999, here=True).admits(architecture)


def test_a_prediction_that_will_not_be_measured_must_stay_below_by_the_margin() -> None:
    architecture = NANO.scaled(0.5)
    predicted = PHONE.predict(architecture)
    assert on_phone(predicted * 1.05 * 1.001, here=False).admits(architecture)
    assert not on_phone(predicted * 1.05 * 0.999, here=False).admits(architecture)


def test_latency_is_predicted_for_each_device_and_limits_the_landmarks_and_samples() -> None:
    limit = PREDICTED[30]
    constrained = on_phone(limit, here=True, macs=200_000_000)
    feasible = admitted(constrained)
    assert 1 < len(feasible) < 288
    assert constrained.admits(constrained.smallest())
    rng = random.Random(0)
    chosen = [
        constrained.largest(),
        constrained.middle(),
        *(constrained.sample(rng) for _ in range(30)),
    ]
    for architecture in chosen:
        assert constrained.predict(architecture) == {
            "latency_phone_ms": PHONE.predict(architecture)
        }
        assert PHONE.predict(architecture) <= 1.05 * limit
    both = constrained_nano(
        latency_ms={"phone": 99.0, "tablet": 99.0}, tables={"phone": PHONE, "tablet": TABLET}
    )
    assert both.predict(NANO.scaled(1.0)) == {
        "latency_phone_ms": PHONE.predict(NANO.scaled(1.0)),
        "latency_tablet_ms": TABLET.predict(NANO.scaled(1.0)),
    }


def test_until_there_are_tables_a_limit_on_latency_keeps_nothing_out() -> None:
    constrained = constrained_nano(latency_ms={"phone": 1e-6})
    assert len(admitted(constrained)) == 288
    with_tables = constrained.with_tables({"phone": PHONE}, measured=[])
    assert admitted(with_tables) == []
    assert with_tables.limits == constrained.limits


@pytest.mark.parametrize("here", [True, False])
@pytest.mark.parametrize("share", [0.5, 0.01])
def test_a_latency_below_the_fastest_is_refused_with_the_range_and_the_nearest_legal_value(
    here: bool, share: float
) -> None:
    with pytest.raises(InputError, match=r"^`latency` phone=\S+ms is out of reach") as raised:
        on_phone(share * FASTEST, here=here).check()
    message = str(raised.value)
    assert "\n" not in message
    assert f"'nano' spans {FASTEST:.3g} ms to {SLOWEST:.3g} ms at 224 px" in message
    assert "5%" in message
    told = re.search(r"nearest legal value is (\S+)ms$", message)
    assert told is not None
    nearest = float(told[1])
    assert nearest == pytest.approx(FASTEST / 1.05 if here else FASTEST * 1.05, rel=2e-3)
    on_phone(nearest, here=here).check()
    with pytest.raises(InputError, match="out of reach"):
        on_phone(nearest - 0.002 * nearest, here=here).check()


@pytest.mark.parametrize("factor", [1e-5, 1.0, 1234.5, 1e7])
def test_the_nearest_legal_latency_is_legal_on_devices_of_any_speed(factor: float) -> None:
    segments = {label: factor * time for label, time in PHONE.segments.items()}
    table = PHONE.model_copy(update={"segments": segments})
    constrained = constrained_nano(latency_ms={"phone": 1e-9}, tables={"phone": table})
    with pytest.raises(InputError) as raised:
        constrained.smallest()
    told = re.search(r"nearest legal value is (\S+)ms$", str(raised.value))
    assert told is not None
    nearest = {"phone": float(told[1])}
    assert nearest["phone"] == pytest.approx(1.05 * factor * FASTEST, rel=2e-3)
    accepted = constrained_nano(latency_ms=nearest, tables={"phone": table})
    assert accepted.admits(accepted.smallest())


# Times that have nothing to do with MACs, as on no device.
AT_ODDS = fake_table("phone", space=TRADE_OFF, margin=0.05)


def trade_off_on_phone(**limits: Any) -> ConstrainedSpace:
    return trade_off(**limits).with_tables({"phone": AT_ODDS}, measured=[])


@pytest.fixture(scope="module")
def points() -> dict[str, tuple[int, float]]:
    """MACs and milliseconds of every architecture of the space of trade-offs, by hash."""
    constrained = trade_off()
    return {
        a.hash: (constrained.cost(a).macs, AT_ODDS.predict(a))
        for a in constrained.space.enumerate()
    }


@pytest.mark.slow
@every_fourth
def test_limits_that_only_a_compromise_meets_together_are_met(
    points: dict[str, tuple[int, float]], step: int
) -> None:
    least_macs = min(macs for macs, _ in points.values())
    least_ms = min(milliseconds for _, milliseconds in points.values())
    compromises = [
        (m, t)
        for m, t in points.values()
        if m > 1.02 * least_macs and t > 1.02 * least_ms  # neither the cheapest nor the fastest
        if not any(n <= m and s <= t and (n, s) != (m, t) for n, s in points.values())
    ]
    assert len(compromises) > 5
    for macs, milliseconds in compromises[::step]:
        limits = {"macs": round(1.01 * macs), "latency_ms": {"phone": 1.01 * 1.05 * milliseconds}}
        found = points[trade_off_on_phone(**limits).smallest().canonical().hash]
        assert found[0] <= 1.01 * macs
        assert found[1] <= 1.01 * milliseconds


def test_a_latency_and_a_budget_that_cannot_be_met_together_are_refused_in_one_line(
    points: dict[str, tuple[int, float]],
) -> None:
    macs = min(macs for macs, _ in points.values())
    milliseconds = min(milliseconds for _, milliseconds in points.values())
    assert (macs, milliseconds) not in points.values()
    constrained = trade_off_on_phone(macs=macs, latency_ms={"phone": 1.0501 * milliseconds})
    told = r"^`budget` and `latency` phone cannot be met together in space 'trade-off'"
    with pytest.raises(InputError, match=told) as raised:
        constrained.check()
    message = str(raised.value)
    assert "\n" not in message
    assert f"{milliseconds:.3g} ms on phone" in message
