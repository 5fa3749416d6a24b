"""Latency tables that are kept: those of a run, and those that are measured for any run."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from nas.latency.conditions import DtypeName, LatencyConditions, RuntimeName
from nas.latency.measure import Latency
from nas.latency.profile import SMALL, THOROUGH, ProfilingEffort, profile
from nas.latency.reference import latency_meter
from nas.latency.runtimes import check_runtime
from nas.latency.table import LatencyTable
from nas.latency.timings import Timings
from nas.runs.config import RunConfig
from nas.runs.configure import (
    check_taken_so,
    checked_conditions,
    default_device,
    space_named,
)
from nas.runs.folder import RunFolder
from nas.utilities.devices import check_device
from nas.utilities.errors import InputError
from nas.utilities.files import write_text
from nas.utilities.interrupt import StopRequest, stop_on_signals
from nas.utilities.progress import LiveLine
from nas.utilities.units import format_seconds
from search_space import SearchSpace
from supernet import Network


@dataclass(frozen=True, kw_only=True)
class LatencyMethods:
    """How latency is found; other methods can be handed to a run, such as a device farm's.

    Attributes:
        profile: Measures the table of a space, as `nas.latency.profile.profile` does.
        meter: Makes what measures networks under a table's conditions, as
            `nas.latency.reference.latency_meter` does.
    """

    profile: Callable[..., LatencyTable] = profile
    meter: Callable[[LatencyTable], Callable[[Network], Latency]] = latency_meter


MEASURED_HERE = LatencyMethods()
"""By this process, on this machine."""


def profile_space(
    space: str | SearchSpace,
    *,
    device: str | None,
    image_size: int,
    batch: int,
    dtype: DtypeName,
    runtime: RuntimeName,
    threads: int | None,
    quick: bool,
    seed: int,
    out: str | Path | None,
    console: Console,
    methods: LatencyMethods = MEASURED_HERE,
) -> LatencyTable:
    """Measure the table of a space on a device; `nas.profile` says what the arguments mean.

    Raises:
        InputError: If something of it is wrong; nothing is measured then.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP; the same call goes on, if it has a file.
    """
    space = space if isinstance(space, SearchSpace) else space_named(space)
    conditions = checked_conditions(
        device=check_device(device) if device is not None else default_device(),
        image_size=image_size,
        batch_size=batch,
        dtype=dtype,
        runtime=runtime,
        threads=threads or torch.get_num_threads(),
    )
    conditions.check_room(space.scaled(1.0))
    check_runtime(conditions)
    path = Path(out) if out is not None else None
    if path is not None:
        if path.is_dir():
            raise InputError(f"`out` {path} is a folder; give the name of a file")
        if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise InputError(f"`out` {path}: its folder is missing or cannot be written")
        if path.exists():
            check_table(path, conditions)
    with stop_on_signals() as stop:
        return _measured(
            methods.profile,
            space,
            conditions,
            SMALL if quick else THOROUGH,
            title=f"profiling {space.name} on {conditions.device}",
            seed=seed,
            file=path,
            stop=stop,
            console=console,
        )


def _measured(
    profile: Callable[..., LatencyTable],
    space: SearchSpace,
    conditions: LatencyConditions,
    effort: ProfilingEffort,
    *,
    title: str,
    seed: int,
    file: Path | None,
    stop: StopRequest,
    console: Console,
) -> LatencyTable:
    """Measure a table and write its file; what was timed before a stop is kept beside it."""
    timings = Timings(file)
    unstable = 0
    with LiveLine(console, title, total=100) as line:

        def show(share: float, left_out: int) -> None:
            nonlocal unstable
            unstable = left_out
            line.update_share(share, f"{unstable} unstable" if unstable else "")

        table = profile(
            space, conditions, effort, seed=seed, stop=stop, on_progress=show, timings=timings
        )
    if unstable:
        console.print(
            f"{unstable} networks were left out, since their times were unstable: something else "
            f"is at work on {conditions.device}",
            style="yellow",
        )
    if file is not None:
        write_text(file, table.to_json())
    timings.forget()
    return table


def run_tables(
    config: RunConfig,
    folder: RunFolder,
    *,
    given: Mapping[str, LatencyTable],
    stop: StopRequest,
    console: Console,
    profile: Callable[..., LatencyTable],
) -> dict[str, LatencyTable]:
    """The latency table of each device with a limit: given, kept in the folder, or measured now.

    Raises:
        InputError: If one that is kept is damaged, or was taken for something else or elsewhere.
    """
    tables: dict[str, LatencyTable] = {}
    for device in config.latency_ms:
        path = folder.latency_table(device)
        if path.exists():
            tables[device] = kept_table(path, config, device)
            continue
        if device in given:
            tables[device] = given[device]
            write_text(path, tables[device].to_json())
        else:
            start = time.monotonic()
            tables[device] = _measured(
                profile,
                config.space,
                latency_conditions(config, device),
                SMALL,
                title=f"latency table of {device}",
                seed=config.seed,
                file=path,
                stop=stop,
                console=console,
            )
            took = format_seconds(time.monotonic() - start)
            console.print(
                f"latency table of {device}: measured in {took}; its error: "
                f"{tables[device].error_text}",
            )
    return tables


def check_table(path: Path, conditions: LatencyConditions) -> None:
    """See that a file that is to be replaced is a latency table of such conditions.

    Only the runtime's version may be another.

    Raises:
        InputError: If it is something else.
    """
    try:
        known = LatencyTable.load(path).conditions
    except InputError:
        raise InputError(f"`out` {path}: exists and is no latency table") from None
    if known.model_copy(update={"version": conditions.version}) != conditions:
        raise InputError(f"`out` {path}: is of other conditions ({known}); give another `out`")


def kept_table(path: Path, config: RunConfig, device: str) -> LatencyTable:
    """The table of a device that the run keeps.

    Raises:
        InputError: If it cannot be read, or is none of the run's.
    """
    try:
        table = LatencyTable.load(path)
        table.check_covers(config.space, str(path))
        if (there := table.conditions.device) != device:
            raise InputError(f"{path}: taken on {there!r}, not {device!r}")
        check_taken_so(
            table,
            path,
            image_size=config.image_size,
            batch_size=config.latency_batch,
            dtype=config.latency_dtype,
            runtime=config.runtime,
        )
    except InputError as error:
        raise InputError(f"{error}; delete it, and it is made again") from None
    return table


def latency_conditions(config: RunConfig, device: str) -> LatencyConditions:
    """How the networks of a run are timed on a device."""
    return LatencyConditions(
        device=device,
        image_size=config.image_size,
        batch_size=config.latency_batch,
        dtype=config.latency_dtype,
        runtime=config.runtime,
        threads=torch.get_num_threads(),
    )
