import time
from collections.abc import Callable, Iterator

import pytest
import torch
from pydantic import ValidationError
from small_runs import NANO
from torch import Tensor, nn

import nas.latency.measure
from nas.latency.conditions import LatencyConditions
from nas.latency.measure import (
    LEAST_REPEATS,
    MOST_REPEATS,
    MOST_ROUNDS,
    WARM_UP_SECONDS,
    WIDEST_SPREAD,
    Latency,
    measure_latency,
    time_calls,
)
from nas.latency.runtimes import check_runtime
from nas.utilities.devices import check_device, chip_name, devices_here, is_here
from nas.utilities.errors import InputError
from supernet import Network


class Sleeping(nn.Module):
    """Takes a known time and notes under which conditions it was called."""

    def __init__(self, milliseconds: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))
        self.seconds = milliseconds / 1e3
        self.calls: list[tuple[tuple[int, ...], torch.dtype, torch.dtype, int, bool, bool]] = []

    def forward(self, images: Tensor) -> Tensor:
        time.sleep(self.seconds)
        self.calls.append(
            (
                tuple(images.shape),
                images.dtype,
                self.weight.dtype,
                torch.get_num_threads(),
                self.training,
                torch.is_inference_mode_enabled(),
            )
        )
        return images


class Broken(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        raise RuntimeError


def conditions(**changes: object) -> LatencyConditions:
    values: dict[str, object] = {"device": "cpu", "image_size": 32, "threads": 1}
    return LatencyConditions(**values | changes)  # type: ignore[arg-type]


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_a_network_that_takes_a_known_time_is_timed_right() -> None:
    network = Sleeping(milliseconds=20)
    latency = measure_latency(network, conditions())
    assert latency.median_ms >= 20  # a busy machine lets it sleep longer
    assert 0 <= latency.iqr_ms < latency.median_ms
    assert latency.repeats >= LEAST_REPEATS
    assert len(network.calls) > latency.repeats  # the warm-up was not counted


def test_the_repeats_are_bounded_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_latency(Sleeping(milliseconds=0), conditions()).repeats == MOST_REPEATS
    monkeypatch.setattr(nas.latency.measure, "MEASURED_SECONDS", 0.0)
    assert measure_latency(Sleeping(milliseconds=1), conditions()).repeats == LEAST_REPEATS


@pytest.mark.usefixtures("two_threads")
def test_the_network_is_timed_under_the_conditions_that_are_written_beside_it() -> None:
    network = Sleeping(milliseconds=1).train()
    told = conditions(image_size=48, batch_size=3, threads=1, dtype="bfloat16")
    measure_latency(network, told)
    bf16 = torch.bfloat16
    assert set(network.calls) == {((3, 3, 48, 48), bf16, bf16, 1, False, True)}


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_is_put_back() -> None:
    measure_latency(Sleeping(milliseconds=1), conditions())
    assert torch.get_num_threads() == 2
    with pytest.raises(RuntimeError):
        measure_latency(Broken(), conditions())
    assert torch.get_num_threads() == 2


@pytest.mark.slow
def test_a_larger_network_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.latency.measure, "WARM_UP_SECONDS", 0.1)
    monkeypatch.setattr(nas.latency.measure, "MEASURED_SECONDS", 0.2)
    small, large = (
        measure_latency(Network(NANO.scaled(scale)), conditions(image_size=size))
        for scale, size in ((0.0, 64), (1.0, 256))
    )
    assert 0 < small.median_ms < large.median_ms


def test_any_function_of_images_is_timed() -> None:
    seen: list[tuple[int, ...]] = []
    latency = measure_latency(lambda images: seen.append(tuple(images.shape)), conditions())
    assert set(seen) == {(1, 3, 32, 32)}
    assert latency.repeats < len(seen)


def test_every_measurement_sees_the_same_images() -> None:
    seen: list[Tensor] = []
    for _ in range(2):
        measure_latency(seen.append, conditions())
    assert all(torch.equal(images, seen[0]) for images in seen)


def test_the_conditions_are_part_of_the_result() -> None:
    told = conditions(image_size=48, dtype="bfloat16")
    latency = measure_latency(Sleeping(milliseconds=1), told)
    assert latency.conditions == told
    assert latency.warm_up_seconds >= WARM_UP_SECONDS


# --- rounds --------------------------------------------------------------------------------------


@pytest.fixture
def calls_that_take(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Latency]:
    """Times calls of which each takes the next number of milliseconds, on a clock of their own."""

    def timed(*rounds: tuple[float, ...]) -> Latency:
        now = 0.0
        # The warm-up first; each round repeats its pattern until it has the time it needs.
        monkeypatch.setattr(nas.latency.measure, "WARM_UP_SECONDS", 0.0)
        monkeypatch.setattr(nas.latency.measure, "MEASURED_SECONDS", 0.0)
        monkeypatch.setattr(nas.latency.measure, "perf_counter", lambda: now)
        queue = [1.0] * 3
        for pattern in rounds:
            queue += (pattern * LEAST_REPEATS)[:LEAST_REPEATS]

        def run() -> None:
            nonlocal now
            now += queue.pop(0) / 1e3

        latency = time_calls(run, "cpu")
        assert not queue  # as many rounds as were given, no more and no fewer
        return latency

    return timed


STEADY, WIDE, WIDER, WIDEST = (100.0, 101.0), (100.0, 130.0), (100.0, 160.0), (100.0, 190.0)


def test_a_steady_measurement_is_taken_once(calls_that_take: Callable[..., Latency]) -> None:
    latency = calls_that_take(STEADY)
    assert latency.median_ms == pytest.approx(100.5)
    assert latency.iqr_ms == pytest.approx(1.0)
    assert latency.repeats == LEAST_REPEATS
    assert latency.spread <= WIDEST_SPREAD
    assert not latency.unstable


def test_a_measurement_that_spreads_is_repeated_until_one_is_steady(
    calls_that_take: Callable[..., Latency],
) -> None:
    for wide in ((WIDE,), (WIDER, WIDE)):
        latency = calls_that_take(*wide, STEADY)
        assert latency.iqr_ms == pytest.approx(1.0)
        assert not latency.unstable


def test_what_never_becomes_steady_is_reported_as_unstable_by_its_narrowest_round(
    calls_that_take: Callable[..., Latency],
) -> None:
    rounds = (WIDER, WIDE, WIDEST)
    assert len(rounds) == MOST_ROUNDS
    latency = calls_that_take(*rounds)
    assert latency.unstable
    assert latency.median_ms == pytest.approx(115.0)
    assert latency.spread == pytest.approx(30 / 115)


def test_an_unstable_latency_of_a_network_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nas.latency.measure, "WIDEST_SPREAD", -1.0)
    monkeypatch.setattr(nas.latency.measure, "MEASURED_SECONDS", 0.0)
    assert measure_latency(Sleeping(milliseconds=1), conditions()).unstable
    assert "unstable latency" in caplog.text


# --- conditions ----------------------------------------------------------------------------------


def test_the_conditions_read_as_one_line_with_all_that_matters() -> None:
    text = str(conditions(image_size=224, batch_size=2, threads=3))
    parts = (chip_name("cpu"), "float32", "batch 2", "3 CPU threads", "224 px", "eager", "torch 2")
    for part in parts:
        assert part in text
    assert "\n" not in text


@pytest.mark.parametrize("runtime", ["eager", "compile", "onnx"])
def test_the_conditions_know_the_machine_and_survive_json(runtime: str) -> None:
    told = conditions(runtime=runtime, dtype="float16")
    assert told.chip == chip_name("cpu")
    package = "onnxruntime" if runtime == "onnx" else "torch"
    assert told.version.startswith(f"{package} ")
    elsewhere = told.model_copy(update={"chip": "another", "version": "torch 1"})
    for one in (told, elsewhere):
        assert LatencyConditions.model_validate_json(one.model_dump_json()) == one


def test_of_a_device_that_is_not_here_nothing_is_made_up() -> None:
    elsewhere = conditions(device="phone")
    assert (elsewhere.chip, elsewhere.version) == ("", "")
    assert "phone" in str(elsewhere)
    with pytest.raises(InputError, match="'phone' is not here"):
        check_runtime(elsewhere)


@pytest.mark.parametrize("field", [{"runtime": "tensorrt"}, {"dtype": "int8"}])
def test_what_only_another_device_can_run_is_refused_here(field: dict[str, str]) -> None:
    ((name, value),) = field.items()
    with pytest.raises(InputError, match=f"{name} '{value}'.* legal: "):
        check_runtime(conditions(**field))


@pytest.mark.parametrize(
    "field",
    [{"threads": 0}, {"batch_size": 0}, {"size": 1}],
)
def test_conditions_that_cannot_be_are_refused_by_name(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(field))):
        conditions(**field)


@pytest.mark.usefixtures("two_threads")
def test_a_runtime_that_works_passes_its_check_and_leaves_the_threads_alone() -> None:
    check_runtime(conditions(dtype="bfloat16"))
    assert torch.get_num_threads() == 2


def test_the_processor_has_a_name() -> None:
    assert chip_name("cpu").strip()


def test_a_device_that_is_there_is_taken_by_its_name() -> None:
    assert check_device("cpu") == "cpu"
    assert all(map(is_here, devices_here()))


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "CPU", "meta", "cpu:7"])
def test_a_device_that_is_not_there_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"^`device` '.*' is not here; available: cpu") as raised:
        check_device(name)
    assert repr(name) in str(raised.value)
    assert "\n" not in str(raised.value)
