"""The devices of this machine, by the names that torch gives them.

torch is imported where it is asked: the command line needs the names of this module before it knows
whether it needs torch, which takes seconds to load.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from nas.utilities.errors import InputError

if TYPE_CHECKING:
    import torch

_MULTIPLIES_BFLOAT16 = ("avx512_bf16", "amx_bf16")
"""Capabilities of a CPU with which torch is faster in bfloat16. ARM's was not measured."""


def devices_here() -> list[str]:
    """Names of the devices of this machine: `cpu`, and `cuda` and `cuda:N` where there are any."""
    import torch

    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    return ["cpu", *(["cuda"] if torch.cuda.is_available() else []), *numbered]


def usable_cpus() -> int:
    """How many CPUs this process may use, which `taskset` or a job's allotment may make few."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_here(device: str) -> bool:
    """Whether networks can be timed on a device of that name."""
    return device in devices_here()


def check_device(name: str) -> str:
    """The name of a device that is there.

    Raises:
        InputError: If it is unknown to torch or absent, with what there is.
    """
    if not is_here(name):
        raise InputError(f"`device` {name!r} is not here; available: {', '.join(devices_here())}")
    return name


@cache
def training_dtype(device: str) -> torch.dtype:
    """In what networks are trained and evaluated: bfloat16 where the device multiplies it itself.

    Elsewhere it is emulated, and float32 is taken: a step of training took five to twelve
    times as long in bfloat16 on a CPU that has AVX2 alone.
    """
    import torch

    if device != "cpu":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = any(capabilities.get(name, False) for name in _MULTIPLIES_BFLOAT16)
    return torch.bfloat16 if native else torch.float32


def chip_name(device: str) -> str:
    """What the device is called by its maker, as far as the system tells; empty if it is not here.

    So conditions for another machine's device can be written down; `check_device` refuses them.
    """
    if not is_here(device):
        return ""
    if device != "cpu":
        import torch

        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    known = cpu_name(cpuinfo.read_text(encoding="utf-8")) if cpuinfo.exists() else ""
    if not known and platform.system() == "Darwin":
        asked = ["sysctl", "-n", "machdep.cpu.brand_string"]
        known = subprocess.run(asked, capture_output=True, text=True).stdout.strip()
    return known or platform.processor() or platform.machine()


def cpu_name(cpuinfo: str) -> str:
    """What a CPU is called in the text of /proc/cpuinfo; empty if it has no name there.

    ARM's tell the numbers of maker and part for each core, of which some chips have several kinds.
    """
    lines = [line.partition(":") for line in cpuinfo.splitlines()]
    fields = [(name.strip(), value.strip()) for name, _, value in lines]
    names = [value for name, value in fields if name == "model name"]
    parts = [value for name, value in fields if name in ("CPU implementer", "CPU part")]
    return names[0] if names else " ".join([*dict.fromkeys(parts)])


def check_memory(what: str, needed: float, device: str) -> None:
    """See that so many bytes can be had on a device that is here.

    Args:
        what: Needs them; for the message.
        needed: How many, at least.
        device: Where.

    Raises:
        InputError: If it has less memory than that.
    """
    if device == "cpu":
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    else:
        import torch

        there = torch.cuda.get_device_properties(device).total_memory
    if needed > there:
        raise InputError(
            f"{what}: needs at least {needed / 1e9:,.0f} GB of memory; {device} has "
            f"{there / 1e9:,.0f} GB"
        )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory was asked for which is not there."""
    import torch

    # Of a GPU torch raises an error of its own, of a CPU any RuntimeError.
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )


@contextmanager
def missing_memory_told(what: str, device: object) -> Iterator[None]:
    """Let what has no room in memory be told in one line.

    Args:
        what: Is too large; for the message.
        device: Where.

    Raises:
        InputError: If the block asks for memory that is not there.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise InputError(
                f"{what}: {device} has too little memory; smaller batches or images need less"
            ) from error
        raise


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Let torch use that many CPU threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
