"""`search`, which is `python run_search.py`: find architectures under a budget."""

import argparse
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import (
    Commands,
    add_latency_conditions,
    add_limits,
    count,
    default_device,
    gpus,
    limits_of,
    loader_workers,
    positive,
    rate,
    say_how_to_go_on,
    seed,
    size,
    space_named,
)
from nas.runs.config import DEFAULT, QUICK, RunConfig, limit_fields
from nas.utilities.errors import InputError
from nas.utilities.units import parse_latency
from search_space import PRESETS, SearchSpace

if TYPE_CHECKING:
    from nas.latency.table import LatencyTable


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "search",
        prog="python run_search.py",
        help="find architectures under a budget",
        description="Train a supernet, search it under hard limits, export the best architectures. "
        "The same command again goes on where the last one stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_search)
    limits = parser.add_argument_group("limits")
    add_limits(limits, required=["macs"])
    limits.add_argument(
        "--latency",
        metavar="[DEVICE=]TIME",
        action="append",
        default=[],
        help="limit on the latency of one forward pass on --device, or on the device named: 15ms, "
        "cuda=2ms, phone=40ms; once for each device",
    )
    limits.add_argument(
        "--latency-table",
        metavar="FILE",
        action="append",
        default=[],
        help="a table from `python -m nas profile` or another tool, needed for a device that is "
        "not here; without one the run measures a small one first",
    )
    add_latency_conditions(limits)
    constrained = parser.add_argument_group("constrained")
    constrained.add_argument(
        "--data",
        default="digits",
        help="digits (embedded), fashion-mnist, a folder of class folders, or a timm dataset "
        "such as torch/cifar10",
    )
    constrained.add_argument(
        "--space", default="base", help=f"{', '.join(PRESETS)}, or the JSON file of a space"
    )
    constrained.add_argument(
        "--image-size", type=size, default=224, help="pixels at which costs and latency count"
    )
    constrained.add_argument(
        "--proxy-size",
        type=size,
        help="pixels of training and evaluation; 64 for digits, else the image size",
    )
    effort = parser.add_argument_group("effort")
    effort.add_argument(
        "--quick", action="store_true", help="shrink everything: a look within 90 seconds"
    )
    effort.add_argument("--steps", type=positive, help="training steps of the supernet")
    effort.add_argument("--epochs", type=positive, help="the same, in passes over the train split")
    effort.add_argument("--batch-size", type=positive, default=64, help="images in a step")
    effort.add_argument("--lr", type=rate, default=7e-4, help="peak learning rate")
    effort.add_argument("--trials", type=positive, help="architectures to evaluate")
    effort.add_argument(
        "--search-images", type=positive, help="images of the search split for each evaluation"
    )
    effort.add_argument("--sampler", choices=("nsga2", "tpe", "random"), default="nsga2")
    effort.add_argument("--seed", type=seed, default=0)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="cpu, cuda or cuda:N; cuda where there is one")
    machine.add_argument(
        "--workers",
        type=count,
        help="Ray actors that evaluate; 0 evaluates in this process without Ray; by default one "
        "for each GPU or each CPU, at most 8",
    )
    machine.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running Ray cluster: auto, HOST:PORT"
    )
    machine.add_argument(
        "--threads", type=positive, default=1, help="CPU threads of one evaluation"
    )
    machine.add_argument(
        "--loader-workers",
        type=count,
        help="processes that load images; by default 0 for digits, else one for each CPU",
    )
    parser.add_argument(
        "--out", type=Path, help="the run's folder; by default one below results/, named by the run"
    )


def _search(options: argparse.Namespace) -> None:
    from nas.utilities.devices import check_device

    limits = limits_of(options)
    if options.steps and options.epochs:
        raise InputError("--steps and --epochs say the same thing; give one of them")
    if not options.data.strip():
        raise InputError("--data '' names nothing; give digits, a folder or a timm dataset")
    if options.workers == 0 and options.ray_address is not None:
        raise InputError("--ray-address with --workers 0: evaluations in this process need no Ray")
    space = space_named(options.space)
    device = check_device(options.device) if options.device is not None else default_device()
    latency, tables = _latency_limits(options, device, space)
    embedded = options.data == "digits"
    proxy_size = options.proxy_size or (64 if embedded else options.image_size)

    from nas.data import load_data

    data = load_data(options.data, image_size=proxy_size, seed=options.seed)
    effort = QUICK if options.quick else DEFAULT
    per_epoch = max(1, round(data.epoch_size / options.batch_size))
    if options.steps or options.epochs:
        steps = options.steps or options.epochs * per_epoch
    else:
        steps = effort.steps if embedded or options.quick else effort.epochs * per_epoch
    config = RunConfig(
        **limit_fields(limits),
        latency_ms=latency,
        latency_tables={d: table.digest for d, table in tables.items()},
        latency_batch=options.latency_batch,
        latency_dtype=options.latency_dtype,
        runtime=options.runtime,
        data=options.data if _is_name(options.data) else str(Path(options.data).resolve()),
        space=space,
        image_size=options.image_size,
        proxy_size=proxy_size,
        seed=options.seed,
        device=device,
        steps=steps,
        batch_size=options.batch_size,
        lr=options.lr,
        sampler=options.sampler,
        trials=options.trials or effort.trials,
        search_images=options.search_images or effort.search_images,
        threads=options.threads,
    )

    from rich.console import Console

    from nas.runs.folder import RunFolder
    from nas.runs.pipeline import Execution, run
    from nas.utilities.interrupt import Interrupted, stop_on_signals

    cores = os.cpu_count() or 1
    workers = options.workers
    if workers is None:
        workers = gpus() if device.startswith("cuda") else max(1, min(cores // options.threads, 8))
    folder = RunFolder(options.out or Path("results") / _run_name(config))
    console = Console()
    with stop_on_signals() as stop:
        try:
            run(
                config,
                folder,
                data=data,
                command=options.command_line,
                execution=Execution(
                    workers=workers,
                    ray_address=options.ray_address,
                    loader_workers=loader_workers(options, options.data),
                ),
                stop=stop,
                console=console,
                tables=tables,
            )
        except Interrupted:
            say_how_to_go_on(options, console)


def _latency_limits(
    options: argparse.Namespace, default_device: str, space: SearchSpace
) -> "tuple[dict[str, float], dict[str, LatencyTable]]":
    """Limits in milliseconds by device, and the tables that were given for some of them."""
    from nas.latency.conditions import LatencyConditions
    from nas.latency.runtimes import check_runtime
    from nas.latency.table import LatencyTable
    from nas.utilities.devices import chip_name, devices_here

    latency: dict[str, float] = {}
    for text in options.latency:
        device, equals, time = text.rpartition("=")
        device = device.strip() if equals else default_device
        if not re.fullmatch(r"\w[\w:.-]*", device):
            raise InputError(f"--latency {text!r}: {device!r} is no name of a device")
        if device in latency:
            raise InputError(f"--latency {text!r}: one limit for each device, such as cuda=2ms")
        latency[device] = parse_latency(time)
    tables: dict[str, LatencyTable] = {}
    for file in options.latency_table:
        table = LatencyTable.load(file)
        device = table.conditions.device
        if device not in latency:
            limited = ", ".join(latency) or "none"
            raise InputError(
                f"{file}: a table of {device!r}, which has no --latency ({limited} has)"
            )
        if device in tables:
            raise InputError(f"{file}: a second table of {device!r}")
        asked = {
            "image_size": options.image_size,
            "batch_size": options.latency_batch,
        }
        if device in devices_here():  # what is elsewhere runs as its table says
            asked["dtype"], asked["runtime"] = options.latency_dtype, options.runtime
            asked["chip"] = chip_name(device)
        for field, value in asked.items():
            if (there := getattr(table.conditions, field)) != value:
                raise InputError(
                    f"{file}: taken with {field} {there!r}, but the run asks for {value!r}"
                )
        table.check_covers(space, file)
        tables[device] = table
    for device in latency:
        if device in devices_here():
            check_runtime(
                LatencyConditions(
                    device=device,
                    image_size=options.image_size,
                    batch_size=options.latency_batch,
                    dtype=options.latency_dtype,
                    runtime=options.runtime,
                    threads=1,
                )
            )
        elif device not in tables:
            raise InputError(
                f"--latency {device}=...: {device!r} is not here ({', '.join(devices_here())} is), "
                "so it needs a --latency-table"
            )
    return latency, tables


def _run_name(config: RunConfig) -> str:
    data = Path(config.data).name.replace("/", "-")
    return f"{data}-{config.space.name}-{(config.budget or 0) / 1e9:g}GFLOPs-{config.digest}"


def _is_name(data: str) -> bool:
    """Whether data is called by a name; a folder's path is made absolute."""
    return data in ("digits", "fashion-mnist") or not Path(data).is_dir()
