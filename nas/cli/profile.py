"""`profile`: measure the latency table of a space on a device."""

import argparse
import os
from pathlib import Path
from typing import get_args

from nas.cli.arguments import Commands, default_device, positive, seed, size, space_named
from nas.latency.conditions import DtypeName, RuntimeName
from nas.utilities.errors import InputError
from search_space import PRESETS


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "profile",
        help="measure the latency table of a space on a device",
        description="Time every block of a space inside whole networks, learn a correction from "
        "others, state the error on held-out ones, and write a table that a run takes with "
        "--latency-table. Let nothing else run on the device meanwhile.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_profile)
    parser.add_argument("--space", default="base", help=f"{', '.join(PRESETS)}, or a JSON file")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; cuda where there is one")
    parser.add_argument("--image-size", type=size, default=224)
    parser.add_argument(
        "--batch", type=positive, default=1, dest="latency_batch", help="images in a pass"
    )
    parser.add_argument("--dtype", choices=get_args(DtypeName), default="float32")
    parser.add_argument("--runtime", choices=get_args(RuntimeName), default="eager")
    parser.add_argument("--threads", type=positive, help="CPU threads; by default one per core")
    parser.add_argument("--quick", action="store_true", help="as small as a run makes for itself")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--out", type=Path, help="the table's file; by default named by both")


def _profile(options: argparse.Namespace) -> None:
    import torch
    from rich.console import Console

    from nas.latency.conditions import LatencyConditions
    from nas.latency.profile import SMALL, THOROUGH, profile
    from nas.latency.runtimes import check_runtime
    from nas.utilities.devices import check_device
    from nas.utilities.files import write_text
    from nas.utilities.interrupt import Interrupted, stop_on_signals
    from nas.utilities.progress import LiveLine

    space = space_named(options.space)
    device = check_device(options.device) if options.device is not None else default_device()
    conditions = LatencyConditions(
        device=device,
        image_size=options.image_size,
        batch_size=options.latency_batch,
        dtype=options.dtype,
        runtime=options.runtime,
        threads=options.threads or torch.get_num_threads(),
    )
    check_runtime(conditions)
    path = options.out or Path(f"latency-{space.name}-{device.replace(':', '-')}.json")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; give the name of a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {path}: its folder is missing or cannot be written")
    console = Console()
    with stop_on_signals() as stop:
        try:
            with LiveLine(console, f"profiling {space.name} on {device}", total=100) as line:
                table = profile(
                    space,
                    conditions,
                    SMALL if options.quick else THOROUGH,
                    seed=options.seed,
                    stop=stop,
                    on_progress=line.update_share,
                )
        except Interrupted:
            console.print("\n[yellow]stopped; a table is written when it is whole, or not at all")
            options.status = 130
            return
    write_text(path, table.to_json())
    console.print(f"{table.conditions}", highlight=False)
    console.print(f"error: {table.error_text}", highlight=False)
    console.print(f"{len(table.segments)} segments: {path}", highlight=False, soft_wrap=True)
