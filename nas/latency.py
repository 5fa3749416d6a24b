"""How long a stand-alone network takes, with the conditions beside the number."""

import platform
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from nas.errors import InputError

WARM_UP_SECONDS = 0.2
MEASURED_SECONDS = 0.6
"""Time to spend on one measurement, within the bounds of repeats below."""
LEAST_REPEATS, MOST_REPEATS = 10, 200


@dataclass(frozen=True, kw_only=True)
class LatencyConditions:
    """Under which conditions networks are timed.

    Attributes:
        device: `cpu` or `cuda`.
        image_size: Side of the images in pixels.
        batch_size: Images in one forward pass.
        threads: CPU threads.
        dtype: Of weights and images.
    """

    device: str
    image_size: int
    batch_size: int = 1
    threads: int
    dtype: str = "float32"

    def __str__(self) -> str:
        return (
            f"{chip_name(self.device)}, {self.dtype}, batch {self.batch_size}, "
            f"{self.threads} CPU threads, {self.image_size} px, torch {torch.__version__} eager"
        )


@dataclass(frozen=True, kw_only=True)
class Latency:
    """A measured latency.

    Attributes:
        median_ms: Median over the repeats, in milliseconds.
        iqr_ms: Interquartile range, in milliseconds.
        repeats: Timed forward passes, after the warm-up.
    """

    median_ms: float
    iqr_ms: float
    repeats: int


@torch.inference_mode()
def measure_latency(network: nn.Module, conditions: LatencyConditions) -> Latency:
    """Time forward passes of a stand-alone network on random images, one by one.

    Nothing else of ours may run on the device meanwhile: the caller sees to that. The network is
    moved to the device and set to eval mode.
    """
    device = torch.device(conditions.device)
    dtype = getattr(torch, conditions.dtype)
    network = network.to(device, dtype).eval()
    size = conditions.image_size
    images = torch.randn(conditions.batch_size, 3, size, size, device=device, dtype=dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(conditions.threads)
    try:
        _repeat(network, images, seconds=WARM_UP_SECONDS, least=3)
        times = _repeat(network, images, seconds=MEASURED_SECONDS, least=LEAST_REPEATS)
    finally:
        torch.set_num_threads(threads)
    low, median, high = statistics.quantiles(times, n=4)
    return Latency(median_ms=median * 1e3, iqr_ms=(high - low) * 1e3, repeats=len(times))


def _repeat(network: nn.Module, images: torch.Tensor, *, seconds: float, least: int) -> list[float]:
    """Seconds of each forward pass, the device's queue emptied before and after each."""
    times: list[float] = []
    while len(times) < least or (sum(times) < seconds and len(times) < MOST_REPEATS):
        _synchronise(images.device)
        start = time.perf_counter()
        network(images)
        _synchronise(images.device)
        times.append(time.perf_counter() - start)
    return times


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def check_device(name: str) -> str:
    """The name of a device that is there.

    Raises:
        InputError: If it is unknown to torch or absent, with what there is.
    """
    there = ["cpu"] + [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    if torch.cuda.is_available():
        there.insert(1, "cuda")
    if name not in there:
        raise InputError(f"--device {name!r} is not here; available: {', '.join(there)}")
    return name


def chip_name(device: str) -> str:
    """What the device is called by its maker, as far as the system tells."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
