import time
from collections.abc import Iterator

import pytest
import torch
from runs import NANO
from torch import Tensor, nn

import nas.latency
from nas.errors import InputError
from nas.latency import (
    LEAST_REPEATS,
    MOST_REPEATS,
    LatencyConditions,
    check_device,
    chip_name,
    measure_latency,
)
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
    assert 20 <= latency.median_ms < 30
    assert 0 <= latency.iqr_ms < latency.median_ms
    assert latency.repeats >= LEAST_REPEATS
    assert len(network.calls) > latency.repeats  # the warm-up was not counted


def test_the_repeats_are_bounded_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_latency(Sleeping(milliseconds=0), conditions()).repeats == MOST_REPEATS
    monkeypatch.setattr(nas.latency, "MEASURED_SECONDS", 0.0)
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


def test_a_larger_network_takes_longer() -> None:
    small, large = (
        measure_latency(Network(NANO.scaled(scale)), conditions(image_size=size))
        for scale, size in ((0.0, 64), (1.0, 256))
    )
    assert 0 < small.median_ms < large.median_ms


def test_the_conditions_read_as_one_line_with_all_that_matters() -> None:
    text = str(conditions(image_size=224, batch_size=2, threads=3))
    for part in (chip_name("cpu"), "float32", "batch 2", "3 CPU threads", "224 px", "torch 2"):
        assert part in text
    assert "\n" not in text


def test_the_processor_has_a_name() -> None:
    assert chip_name("cpu").strip()


def test_a_device_that_is_there_is_taken_by_its_name() -> None:
    assert check_device("cpu") == "cpu"


@pytest.mark.parametrize("name", ["tpu", "", "cuda:99", "CPU", "meta", "cpu:7"])
def test_a_device_that_is_not_there_is_refused_with_what_there_is(name: str) -> None:
    with pytest.raises(InputError, match=r"^--device '.*' is not here; available: cpu") as raised:
        check_device(name)
    assert repr(name) in str(raised.value)
    assert "\n" not in str(raised.value)
