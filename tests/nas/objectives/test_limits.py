import pytest

from nas.objectives.limits import Limits
from search_space import Cost


def test_limits_are_named_where_they_are_set() -> None:
    limits = Limits(macs=100, params=10, latency_ms={"cuda:1": 2.5, "phone": 40.0})
    assert limits.by_name() == {
        "macs": 100,
        "params": 10,
        "latency_cuda:1_ms": 2.5,
        "latency_phone_ms": 40.0,
    }
    assert Limits(params=10).by_name() == {"params": 10}
    assert Limits().by_name() == {}


def test_excess_is_relative_to_each_limit_that_is_set() -> None:
    cost = Cost(macs=150, params=9)
    assert Limits(macs=100, params=10).excess(cost, {}) == {
        "macs": pytest.approx(0.5),
        "params": pytest.approx(-0.1),
    }
    assert Limits().excess(cost, {"phone": 3.0}) == {}


def test_excess_of_latency_is_told_of_each_device_that_is_limited() -> None:
    limits = Limits(macs=100, latency_ms={"phone": 10.0, "tablet": 20.0})
    latency = {"phone": 12.0, "tablet": 15.0, "watch": 1.0}
    assert limits.excess(Cost(macs=50, params=1), latency) == {
        "macs": pytest.approx(-0.5),
        "latency_phone_ms": pytest.approx(0.2),
        "latency_tablet_ms": pytest.approx(-0.25),
    }
