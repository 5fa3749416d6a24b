"""`export`: an exported network as a file for other runtimes."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas.cli.arguments import Commands, batch, size
from nas.utilities.units import scaled_side

if TYPE_CHECKING:
    from nas.runs.deployment import Deployment

FORMATS = "onnx", "torch-export", "safetensors"
DTYPES = "float32", "float16"


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "export",
        help="an exported network as a file for other runtimes",
        description="Write a network of a run, results/<run>/best, front/<n> or retrain/<n>, as "
        "one file for other runtimes, compare its outputs with torch's, and time it.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_export)
    parser.add_argument("network", type=Path, help="folder with architecture and weights")
    parser.add_argument("--format", choices=FORMATS, default="onnx", help="of the file")
    parser.add_argument(
        "--image-size",
        type=sides,
        metavar="SIDE|HEIGHTxWIDTH",
        help="pixels of the images that the file takes; by default those of the training",
    )
    parser.add_argument(
        "--flexible",
        action="store_true",
        help="take any multiples of 32 as height and width (ONNX; not for networks with windows)",
    )
    parser.add_argument(
        "--batch", type=batch, help="images that the file takes at a time; by default any number"
    )
    parser.add_argument(
        "--dtype", choices=DTYPES, default="float32", help="data type of weights and scores"
    )
    parser.add_argument(
        "--pixels",
        action="store_true",
        help="take uint8 pixels from 0 to 255, and normalise them in the file",
    )
    parser.add_argument("--softmax", action="store_true", help="give probabilities")
    parser.add_argument("--opset", type=int, help="version of ONNX's operators")
    parser.add_argument(
        "--data",
        help="images to compare the file with torch on, as in `search`; by default the run's own",
    )
    parser.add_argument(
        "--out",
        type=Path,
        help="the file; by default model.onnx, model.pt2 or model.safetensors in the folder",
    )


def _export(options: argparse.Namespace) -> None:
    from nas.api import export
    from nas.utilities.progress import terminal

    asked = vars(options).copy()
    del asked["action"], asked["command_line"], asked["methods"]
    deployment = export(**asked)
    console = terminal()
    for line in lines(deployment):
        console.print(line, soft_wrap=True)


def lines(deployment: Deployment) -> Iterator[str]:
    """What is said of a file: what it takes and gives, how it agrees with torch, how fast it is."""
    from nas.export.onnx import INPUT, OUTPUT

    file, settings = deployment.file, deployment.file.settings
    about, (height, width) = file.about, file.image_size
    if settings.format == "safetensors":
        yield f"{file.path}: weights, {settings.dtype}; architecture and data in the header"
        return
    sides = "height, width" if settings.flexible else f"{height}, {width}"
    normalised = f"mean {_numbers(about.mean)} and standard deviation {_numbers(about.std)}"
    yield (
        f"{file.path}: input {INPUT} ({settings.batch or 'batch'}, {about.in_chans}, {sides}), "
        + (
            f"uint8 from 0 to 255, normalised in the file by {normalised}"
            if settings.pixels
            else f"{settings.dtype}, pixels from 0 to 1, normalised by {normalised}"
        )
    )
    given = "probabilities" if settings.softmax else "class scores"
    yield (
        f"output {OUTPUT} ({settings.batch or 'batch'}, {about.num_classes}), {settings.dtype}, "
        f"{given}; classes {_names(about.class_names)}"
    )
    scaled = [scaled_side(side, about.crop_pct) for side in (height, width)]
    yield (
        "images: "
        + (
            f"the shorter side to {scaled[0]} px"
            if height == width
            else f"scaled until they cover {scaled[0]}x{scaled[1]} px"
        )
        + f" ({about.interpolation}), then the middle"
    )
    if file.difference is None:
        yield "not compared with torch's output, since onnxruntime is not installed"
        return
    yield (
        f"on {deployment.source}: the class of torch's float32 for "
        + " and, of another size, ".join(f"{count} of {file.images}" for count in file.agreeing)
        + f", largest relative difference {file.difference:.1e}"
    )
    if deployment.latency is not None:
        runtime = "ONNX Runtime" if settings.format == "onnx" else "torch"
        size = settings.batch or 1
        unstable = " (unstable: something else is at work)" if deployment.latency.unstable else ""
        yield (
            f"{deployment.latency.median_ms:.3g} ms for {size} image{'s' * (size > 1)} in "
            f"{runtime} on {deployment.threads} CPU thread{'s' * (deployment.threads > 1)} here"
            f"{unstable}"
        )


def sides(text: str) -> tuple[int, int]:
    """Height and width: `224` or `192x256`."""
    height, cross, width = text.partition("x")
    return size(height), size(width if cross else height)


def _numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


def _names(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ... (all in the file's metadata)" if len(names) > 5 else shown
