"""`export`: an exported network as a file for other runtimes."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nas.cli.arguments import Commands, size


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "export",
        help="an exported network as a file for other runtimes",
        description="Write a network of a run, results/<run>/best, front/<n> or retrain/<n>, as "
        "one file for other runtimes, and compare its outputs with torch's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_export)
    parser.add_argument("network", type=Path, help="folder with architecture and weights")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="of the file")
    parser.add_argument(
        "--image-size",
        type=size,
        help="pixels of the images that the file takes; by default those of the training",
    )
    parser.add_argument(
        "--out", type=Path, help="the file, NAME.onnx; by default model.onnx in the folder"
    )


def _export(options: argparse.Namespace) -> None:
    from nas.api import export
    from nas.export.onnx import INPUT, OUTPUT
    from nas.utilities.progress import terminal

    file = export(
        options.network, format=options.format, image_size=options.image_size, out=options.out
    )
    about, size = file.about, file.image_size
    difference = "not compared with torch's output, since onnxruntime is not installed"
    if file.difference is not None:
        difference = f"largest relative difference to torch's output: {file.difference:.1e}"
    console = terminal()
    for line in (
        f"{file.path}: input {INPUT} (batch, {about.in_chans}, {size}, {size}), output {OUTPUT} "
        f"(batch, {about.num_classes}), float32, any batch; pixels from 0 to 1, normalised by mean "
        f"{_short_numbers(about.mean)} and standard deviation {_short_numbers(about.std)}",
        difference,
    ):
        console.print(line, soft_wrap=True)


def _short_numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"
