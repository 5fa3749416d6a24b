import pytest

from nas.objectives.limits import Limits
from nas.objectives.objective import ACCURACY, CLOSED_FORM, latency_on
from nas.utilities.errors import InputError


def names(limits: Limits) -> list[str]:
    return [objective.name for objective in limits.objectives]


def test_limits_are_named_where_they_are_set() -> None:
    limits = Limits(macs=100, params=None, **{"latency_cuda:1_ms": 2.5, "latency_my phone_ms": 40})
    assert dict(limits) == {"macs": 100, "latency_cuda:1_ms": 2.5, "latency_my phone_ms": 40}
    assert Limits(params=10) == {"params": 10}
    assert Limits() == {}


@pytest.mark.parametrize("name", ["flops", "accuracy", "latency_cpu", "latency__ms"])
def test_a_limit_on_what_cannot_be_limited_is_refused_with_what_can(name: str) -> None:
    with pytest.raises(InputError, match=rf"'{name}' .* macs, params, memory and latency_DEVICE"):
        Limits(**{name: 1.0})


def test_accuracy_macs_and_params_are_always_objectives_and_the_others_when_limited() -> None:
    assert names(Limits()) == ["accuracy", "macs", "params"]
    limits = Limits(latency_phone_ms=9.0, memory=10**6, latency_cpu_ms=3.0)
    assert names(limits) == [
        *("accuracy", "macs", "params", "memory"),
        *("latency_phone_ms", "latency_cpu_ms"),
    ]
    assert [o.limit for o in limits.objectives] == [None, None, None, 10**6, 9.0, 3.0]
    assert limits.objectives[0] is ACCURACY
    assert limits.objectives[-1] == latency_on("cpu", limit=3.0)


def test_the_table_of_closed_forms_keeps_no_limit_of_a_run() -> None:
    assert Limits(macs=5, memory=6).objectives
    assert all(objective.limit is None for objective in CLOSED_FORM.values())


def test_excess_is_relative_to_each_limit_that_is_set() -> None:
    values = {"macs": 150, "params": 9, "memory": 40, "latency_phone_ms": 3.0}
    assert Limits(macs=100, params=10, memory=40).excess(values) == {
        "macs": pytest.approx(0.5),
        "params": pytest.approx(-0.1),
        "memory": 0.0,
    }
    assert Limits().excess(values) == {}


def test_excess_of_latency_is_told_of_each_device_that_has_a_limit_and_a_value() -> None:
    limits = Limits(macs=100, latency_phone_ms=10.0, latency_tablet_ms=20.0, latency_tv_ms=1.0)
    values = {"macs": 50, "latency_phone_ms": 12.0, "latency_tablet_ms": 15.0}
    assert limits.excess(values) == {
        "macs": pytest.approx(-0.5),
        "latency_phone_ms": pytest.approx(0.2),
        "latency_tablet_ms": pytest.approx(-0.25),
    }
