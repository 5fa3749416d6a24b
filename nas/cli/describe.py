"""`describe`: one architecture, its stages and costs."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Commands, size, whole
from nas.utilities.errors import InputError
from search_space import Architecture
from search_space.bounds import MOST_CLASSES

if TYPE_CHECKING:
    from nas.report.description import PartLatency


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "describe", help="one architecture: its stages and costs", allow_abbrev=False
    )
    parser.set_defaults(action=_describe)
    parser.add_argument("file", type=Path, help="an architecture's JSON file, or its folder")
    parser.add_argument("--image-size", type=size, default=224)
    parser.add_argument(
        "--num-classes",
        type=whole(0, MOST_CLASSES),
        help="default: those of the weights beside the file, or 1000",
    )
    parser.add_argument("--device", help="where to time the parts: cpu (default), cuda, cuda:N")
    parser.add_argument("--latency-table", metavar="FILE", help="a table to take their times from")
    parser.add_argument("--no-latency", action="store_true", help="leave times out")
    parser.add_argument(
        "--picture",
        nargs="?",
        const="",
        metavar="OUT.svg",
        help="draw it, too; by default as HASH.svg in this folder",
    )
    parser.add_argument(
        "--verify",
        action="store_true",
        help="build it, and count each part with torch and with fvcore beside the closed form; "
        "exit status 1 if they disagree",
    )
    parser.add_argument("--json", action="store_true")


def _describe(options: argparse.Namespace) -> None:
    from nas.report.description import described, print_description
    from nas.report.picture import architecture_svg
    from nas.report.verification import WHOLE, check_agreement, count_parts, verification_table
    from nas.utilities.files import write_text
    from nas.utilities.progress import terminal

    if sum((options.no_latency, bool(options.latency_table), options.device is not None)) > 1:
        raise InputError("--device, --latency-table, --no-latency: give one of them at most")
    architecture = Architecture.load(options.file)
    picture = None if options.picture is None else _picture_file(options.picture, architecture)
    sizes = {"image_size": options.image_size, "num_classes": _num_classes(options)}
    latency = None if options.no_latency else _part_latency(architecture, options)
    description = described(architecture, **sizes, latency=latency)
    counted = []
    if options.verify:
        counted = count_parts(architecture, **sizes)
        for part, count in zip([*description["parts"], description], counted, strict=True):
            part["counted"] = count.as_json()
    if options.json:
        print(json.dumps(description, indent=2))
    else:
        print_description(description, architecture, terminal())
    if counted and not options.json:
        times = {} if latency is None else {**latency.milliseconds, WHOLE: latency.total_ms}
        title = f"{architecture.hash}, built and counted"
        terminal().print(verification_table(counted, title=title, milliseconds=times))
    if picture is not None:
        drawn = architecture_svg(
            architecture,
            name=f"architecture {architecture.hash}",
            **sizes,
            latency=[] if latency is None else [latency],
            standalone=True,
        )
        write_text(picture, drawn)
        if not options.json:
            terminal().print(f"picture: {picture}", soft_wrap=True)
    check_agreement(counted)


def _picture_file(given: str, architecture: Architecture) -> Path:
    """Where the picture goes."""
    path = Path(given or f"{architecture.hash}.svg")
    if path.suffix.lower() != ".svg":
        raise InputError(f"`picture` {path}: the name must end in .svg")
    if path.is_dir() or not path.parent.is_dir():
        raise InputError(f"`picture` {path}: its folder is missing, or it is a folder itself")
    return path


def _num_classes(options: argparse.Namespace) -> int:
    """As asked for, as the weights beside the file have them, or ImageNet's."""
    from search_space.architecture import architecture_file
    from supernet.exported import describe_exported

    if options.num_classes is not None:
        return int(options.num_classes)
    file: Path = options.file
    try:
        about = describe_exported(architecture_file(file))
    except ValueError as error:
        raise InputError(str(error)) from None
    return about.num_classes if about else 1000


def _part_latency(architecture: Architecture, options: argparse.Namespace) -> "PartLatency":
    from nas.report.description import predicted_parts, timed_parts

    if options.latency_table:
        from nas.latency.table import LatencyTable

        table = LatencyTable.load(options.latency_table)
        if table.conditions.image_size != options.image_size:
            raise InputError(
                f"{options.latency_table}: taken at {table.conditions.image_size} px, but "
                f"--image-size is {options.image_size}"
            )
        return predicted_parts(architecture, table, options.latency_table)
    import torch

    from nas.latency.conditions import LatencyConditions
    from nas.utilities.devices import check_device

    device = check_device(options.device or "cpu")
    conditions = LatencyConditions(
        device=device, image_size=options.image_size, threads=torch.get_num_threads()
    )
    return timed_parts(architecture, conditions)
