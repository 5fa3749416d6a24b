"""`profile`: measure the latency table of a space on a device."""

import argparse
from pathlib import Path
from typing import get_args

from nas.cli.arguments import STOPPED, Commands, batch, processes, seed, size
from nas.latency.conditions import DtypeName, RuntimeName
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
    parser.add_argument("--batch", type=batch, default=1, help="images in a pass")
    parser.add_argument("--dtype", choices=get_args(DtypeName), default="float32")
    parser.add_argument("--runtime", choices=get_args(RuntimeName), default="eager")
    parser.add_argument("--threads", type=processes, help="CPU threads; by default one per core")
    parser.add_argument("--quick", action="store_true", help="as small as a run makes for itself")
    parser.add_argument("--seed", type=seed, default=0)
    parser.add_argument("--out", type=Path, help="the table's file; by default named by both")


def _profile(options: argparse.Namespace) -> None:
    from nas.runs.configure import default_device, space_named
    from nas.runs.latency_tables import MEASURED_HERE, profile_space
    from nas.utilities.interrupt import Interrupted
    from nas.utilities.progress import terminal

    space = space_named(options.space)
    device = options.device if options.device is not None else default_device()
    path = options.out or Path(f"latency-{space.name}-{device.replace(':', '-')}.json")
    console = terminal()
    try:
        table = profile_space(
            space,
            device=device,
            image_size=options.image_size,
            batch=options.batch,
            dtype=options.dtype,
            runtime=options.runtime,
            threads=options.threads,
            quick=options.quick,
            seed=options.seed,
            out=path,
            console=console,
            methods=options.methods or MEASURED_HERE,
        )
    except Interrupted as interrupted:
        console.print(
            "\nstopped; what was timed is kept, and the same command goes on", style="yellow"
        )
        options.status = STOPPED + interrupted.signum
        return
    console.print(f"{table.conditions}")
    told = f"error of predictions: {table.error_text}"
    if table.error is None:
        console.print(f"{told}; measure again where nothing else is at work", style="yellow")
    else:
        console.print(told)
    console.print(f"{len(table.segments)} segments: {path}", soft_wrap=True)
