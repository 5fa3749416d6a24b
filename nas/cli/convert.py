"""`convert`: an authors' checkpoint as an exported network."""

import argparse
from pathlib import Path

from nas.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "convert",
        help="an authors' checkpoint as an exported network",
        description="Write the network of a published design, with the weights of its authors' "
        "checkpoint, into a folder: architecture, weights and model card.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_convert)
    parser.add_argument("file", type=Path, help="the checkpoint, of torch or safetensors")
    parser.add_argument(
        "--design", required=True, help="of which design, as `designs` calls it: shunted_t"
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder")


def _convert(options: argparse.Namespace) -> None:
    from nas.api import convert
    from nas.utilities.progress import terminal

    network = convert(options.file, design=options.design, out=options.out).network
    weights = sum(parameter.numel() for parameter in network.parameters())
    terminal().print(
        f"{options.out}: {weights:,} parameters, {network.num_classes} classes", soft_wrap=True
    )
