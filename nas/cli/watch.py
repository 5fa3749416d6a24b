"""`watch`: a run's report while the run goes on."""

import argparse
from pathlib import Path

from nas.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "watch",
        help="draw a run's report while it goes on",
        description="Draw report.html of a run that goes on in another process, again and again. "
        "The page in the browser follows by itself. Ends with the run; Ctrl-C ends it before, and "
        "leaves the run alone.",
        allow_abbrev=False,
    )
    parser.set_defaults(action=_watch)
    parser.add_argument("run", type=Path, help="the run's folder")


def _watch(options: argparse.Namespace) -> None:
    from nas.runs.watching import watch
    from nas.utilities.progress import terminal

    watch(options.run, terminal())
