"""Ray: started on this machine, or a cluster that is connected to."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from nas.utilities.devices import usable_cpus
from nas.utilities.errors import InputError
from nas.utilities.interrupt import handlers_kept


@dataclass(frozen=True)
class Resources:
    """What one worker takes, by the names that Ray gives it."""

    num_cpus: int
    num_gpus: float


def start_ray(
    *,
    flag: str = "workers",
    count: int,
    threads: int,
    device: str,
    address: str | None,
    shared_gpus: bool = True,
    stored_bytes: int = 0,
) -> tuple[Any, Resources]:
    """Start Ray on this machine, or connect to a cluster, for so many workers.

    Args:
        flag: What the user calls their number.
        count: How many workers.
        threads: CPU threads of each.
        device: Where they compute.
        shared_gpus: Whether several workers may share a GPU.
        address: Of a running cluster (`auto`, `HOST:PORT`); None starts Ray on this machine.
        stored_bytes: What the workers share through Ray's object store.

    Returns:
        The module `ray`, whose `shutdown` ends it, and what each worker takes.

    Raises:
        InputError: If the cluster cannot be reached, or never has the CPUs or GPUs for so many.
    """
    ray = _import_ray()
    if address is None:
        with handlers_kept():
            ray.init(
                address="local",  # whatever cluster RAY_ADDRESS may name
                num_cpus=max(threads * count, usable_cpus()),
                object_store_memory=max(128 << 20, int(1.5 * stored_bytes)),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    else:
        _connect(ray, address)
    try:
        gpus_each = _gpus_each(ray, flag=flag, count=count, threads=threads, device=device)
        if gpus_each < 1 and not shared_gpus and device != "cpu":
            there = ray.cluster_resources().get("GPU", 0)
            raise InputError(f"`{flag}` {count} needs as many GPUs; Ray has {there:g}")
    except InputError:
        ray.shutdown()
        raise
    return ray, Resources(threads, gpus_each)


def check_cluster(address: str, *, asked: Mapping[str, int], threads: int, device: str) -> None:
    """See that a Ray cluster answers and has what a run would ask it for.

    Args:
        address: Of the cluster.
        asked: How many workers, by what the user calls their number; they never run at once.
        threads: CPU threads of each.
        device: Where they compute.

    Raises:
        InputError: If not.
    """
    ray = _import_ray()
    _connect(ray, address)
    try:
        for flag, count in asked.items():
            _gpus_each(ray, flag=flag, count=count, threads=threads, device=device)
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    # Ray reads them once, when it is imported. No usage report leaves the user's machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def _connect(ray: Any, address: str) -> None:
    import nas
    import search_space
    import supernet

    try:
        # The cluster's machines need torch and timm, but no copy of this project.
        with handlers_kept():
            ray.init(
                address=address,
                runtime_env={"py_modules": [nas, search_space, supernet]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        hint = "; a cluster with a token wants RAY_AUTH_MODE=token" if "oken" in line else ""
        raise InputError(f"`ray_address` {address!r} cannot be reached ({line}){hint}") from None


def _gpus_each(ray: Any, *, flag: str, count: int, threads: int, device: str) -> float:
    """The share of a GPU for each of so many actors; 0 where they run on CPUs.

    Raises:
        InputError: If Ray has not the CPUs or GPUs for so many.
    """
    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
    on_gpu = torch.device(device).type == "cuda"
    if (on_gpu and not gpus) or cpus < threads * count:
        raise InputError(
            f"`{flag}` {count} needs {threads * count} CPUs{' and a GPU' if on_gpu else ''}; Ray "
            f"has {cpus:g} CPUs and {gpus:g} GPUs"
        )
    # Actors that outnumber the GPUs share them evenly: 3 on 2 GPUs take a half each.
    return 1 / math.ceil(count / gpus) if on_gpu else 0.0
