"""`plot`: redraw a run's report."""

import argparse
from pathlib import Path

from nas.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser("plot", help="redraw a run's report", allow_abbrev=False)
    parser.set_defaults(action=_plot)
    parser.add_argument("run", type=Path, help="the run's folder")


def _plot(options: argparse.Namespace) -> None:
    from nas.runs.folder import RunFolder
    from nas.runs.pipeline import report
    from nas.utilities.progress import terminal

    report(RunFolder.existing(options.run), terminal())
