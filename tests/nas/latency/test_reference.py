"""The slowdown of a device: what is timed counts relative to a reference network."""

from collections.abc import Callable

import pytest
import torch
from small_runs import NANO, fake_table

import nas.latency.reference
from nas.latency.conditions import LatencyConditions
from nas.latency.measure import Latency
from nas.latency.reference import ReferenceMeter, blank_network, latency_meter
from nas.latency.table import LatencyTable, Reference
from supernet import Network

AT_64 = LatencyConditions(device="cpu", image_size=64, threads=1)
LARGEST = NANO.scaled(1.0)


class Device:
    """Stands for a device: the reference takes 10 ms and others 40, all times a factor."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.factor = 1.0
        self._reference: object = None
        monkeypatch.setattr(nas.latency.reference, "seconds_of", self.seconds_of)

    def seconds_of(self, run: object, device: torch.device) -> float:
        if self._reference is None:
            self._reference = run
        return (0.010 if run is self._reference else 0.040) * self.factor

    def slowdown(self, milliseconds: float | None = None) -> ReferenceMeter:
        return ReferenceMeter(NANO.scaled(0.5), AT_64, milliseconds)


@pytest.mark.parametrize("slower", [1.0, 2.0, 0.5])
def test_what_is_measured_is_told_at_the_device_s_first_speed(
    monkeypatch: pytest.MonkeyPatch, slower: float
) -> None:
    device = Device(monkeypatch)
    slowdown = device.slowdown()
    device.factor = slower
    assert slowdown.correction() == pytest.approx(1 / slower)
    latency = slowdown.measure(blank_network(LARGEST, AT_64))
    assert latency.median_ms == pytest.approx(40.0)
    assert latency.slowdown == pytest.approx(slower)
    assert (latency.unstable, latency.conditions) == (False, AT_64)


def test_what_is_measured_is_told_at_a_given_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    latency = device.slowdown(milliseconds=8.0).measure(blank_network(LARGEST, AT_64))
    assert latency.median_ms == pytest.approx(32.0)
    assert latency.slowdown == pytest.approx(10 / 8)


@pytest.mark.parametrize(
    ("runtime", "beside"), [("eager", "eager"), ("onnx", "onnx"), ("compile", "eager")]
)
def test_the_reference_runs_as_the_networks_do_but_is_not_compiled(
    monkeypatch: pytest.MonkeyPatch, runtime: str, beside: str
) -> None:
    seen: list[str] = []

    def prepare(network: object, conditions: LatencyConditions) -> Callable[[], None]:
        seen.append(conditions.runtime)
        return lambda: None

    Device(monkeypatch)
    monkeypatch.setattr(nas.latency.reference, "prepare", prepare)
    conditions = AT_64.model_copy(update={"runtime": runtime})
    latency = ReferenceMeter(NANO.scaled(0.5), conditions).measure(blank_network(LARGEST, AT_64))
    assert seen == [beside, runtime]
    assert latency.conditions == conditions


def test_times_are_told_at_the_median_speed_once_it_is_settled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    device = Device(monkeypatch)
    slowdown = device.slowdown()
    device.factor = 3.0
    for _ in range(nas.latency.reference.FIRST_PASSES + 2):
        slowdown.correction()
    assert slowdown.settle() == pytest.approx(3.0)
    assert slowdown.milliseconds == pytest.approx(30.0)
    assert slowdown.correction() == pytest.approx(1.0)


def test_a_spread_that_stays_wide_is_unstable(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Device(monkeypatch)
    slowdown = device.slowdown()
    turns = iter(range(10**6))

    def jumps(run: object, on: torch.device) -> float:
        device.factor = (1.0, 1.0, 1.0, 2.0)[next(turns) % 4]  # of pairs, every second one
        return device.seconds_of(run, on)

    monkeypatch.setattr(nas.latency.reference, "seconds_of", jumps)
    latency = slowdown.measure(blank_network(LARGEST, AT_64))
    assert latency.unstable
    assert latency.spread > 0.1


def test_a_table_with_a_reference_is_measured_by_at_its_speed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Device(monkeypatch)
    monkeypatch.setattr(
        nas.latency.reference, "measure_latency", lambda *_: pytest.fail("without a reference")
    )
    reference = Reference(architecture=NANO.scaled(0.5), milliseconds=5.0)
    table = fake_table("cpu", image_size=64).model_copy(update={"reference": reference})
    table = LatencyTable.model_validate_json(table.to_json())
    latency = latency_meter(table)(blank_network(LARGEST, AT_64))
    assert latency.median_ms == pytest.approx(20.0)
    assert latency.slowdown == pytest.approx(2.0)
    assert latency.conditions == table.conditions


def test_a_table_without_a_reference_is_measured_by_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = Latency(median_ms=7.0, iqr_ms=0.1, repeats=3)
    seen: list[LatencyConditions] = []

    def measure(network: object, conditions: LatencyConditions) -> Latency:
        seen.append(conditions)
        return told

    monkeypatch.setattr(nas.latency.reference, "measure_latency", measure)
    table = fake_table("cpu", image_size=64)
    assert latency_meter(table)(blank_network(LARGEST, AT_64)) is told
    assert seen == [table.conditions]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_blank_network_is_the_architecture_in_the_data_type_without_odd_numbers(
    dtype: str,
) -> None:
    conditions = LatencyConditions.model_validate({**AT_64.model_dump(), "dtype": dtype})
    network = blank_network(NANO.scaled(1.0), conditions)
    drawn = Network(NANO.scaled(1.0), num_classes=1000)
    assert {name: tensor.shape for name, tensor in network.state_dict().items()} == {
        name: tensor.shape for name, tensor in drawn.state_dict().items()
    }
    assert not network.training
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            assert tensor.dtype == getattr(torch, dtype), name
            assert (tensor.abs() > 1e-3).all(), name  # denormal numbers take longer
    with torch.inference_mode():
        logits = network(torch.rand(2, 3, 64, 64).to(getattr(torch, dtype)))
    assert logits.isfinite().all()
