"""In what a device trains; the rest of `nas.utilities.devices` is tested where it is used."""

from collections.abc import Iterator

import pytest
import torch

from nas.training.loop import autocast
from nas.utilities.devices import cpu_name, training_dtype


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    training_dtype.cache_clear()
    yield
    training_dtype.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx2": True, "avx512_f": False}, torch.float32),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"avx2": True, "avx512_f": True, "avx512_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, torch.bfloat16),
        ({"architecture": "aarch64", "neon": True, "bf16": True}, torch.float32),
    ],
)
def test_a_cpu_trains_in_what_it_multiplies_itself(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, object], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert training_dtype("cpu") == expected
    with autocast(torch.device("cpu")):
        assert torch.nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3)).dtype == expected


@pytest.mark.parametrize(("native", "expected"), [(True, torch.bfloat16), (False, torch.float32)])
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_a_gpu_that_only_emulates_bfloat16_trains_in_float32(
    monkeypatch: pytest.MonkeyPatch, device: str, native: bool, expected: torch.dtype
) -> None:
    def is_supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert training_dtype(device) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC\n\nmodel name\t: AMD EPYC\n", "AMD EPYC"),
        ("processor: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n", "0x41 0xd0c"),
        ("CPU part: 0xd05\n\nCPU part: 0xd05\n\nCPU part: 0xd0b\n", "0xd05 0xd0b"),
        ("", ""),
    ],
)
def test_a_cpu_is_called_by_its_maker_or_the_numbers_of_its_parts(cpuinfo: str, name: str) -> None:
    assert cpu_name(cpuinfo) == name
