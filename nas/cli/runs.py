"""`runs` and `remove`: which runs there are, and one of them less."""

import argparse
from pathlib import Path

from nas.cli.arguments import Commands
from nas.utilities.errors import InputError


def add(commands: Commands) -> None:
    """Describe the commands' arguments."""
    parser = commands.add_parser(
        "runs", help="which runs there are, and how each stands", allow_abbrev=False
    )
    parser.set_defaults(action=_runs)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("results"))
    parser = commands.add_parser("remove", help="remove a run", allow_abbrev=False)
    parser.set_defaults(action=_remove)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--yes", action="store_true", help="don't ask")


def _runs(options: argparse.Namespace) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from nas.runs.inventory import runs_in
    from nas.utilities.progress import terminal

    found = runs_in(options.folder)
    if not found:
        raise InputError(f"{options.folder}: no runs in it")
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    # Names are copied, and searched for: they are whole, however narrow the rest becomes.
    table.add_column("run", no_wrap=True, min_width=max(len(run.path.name) for run in found))
    for head in ("state", "best"):
        table.add_column(head, overflow="fold")
    for head in ("last written", "size"):
        table.add_column(head, justify="right", no_wrap=True)
    for run in found:
        table.add_row(run.path.name, run.state, run.best, _ago(run.changed), _size(run.bytes))
    console = terminal()
    console.print(table)
    files = {key: size for run in found for key, size in run.files.items()}
    console.print(f"{_size(sum(files.values()))} in all", style="dim")


def _remove(options: argparse.Namespace) -> None:
    from nas.runs.inventory import Listed, remove
    from nas.utilities.progress import terminal

    run = Listed.of(options.run)
    console = terminal()
    best = f", best {run.best}" if run.best else ""
    told = f"{run.path}: {run.state}{best}, {_size(run.bytes)}, last written {_ago(run.changed)}"
    console.print(told, soft_wrap=True)
    if options.yes or _confirmed():
        remove(run.path)
        console.print("removed")
    else:
        console.print("kept")


def _confirmed() -> bool:
    """Whether the user wants it.

    Raises:
        InputError: If nobody can be asked.
    """
    try:
        answer = input("Remove the folder with all that lies in it? [y/N] ")
    except EOFError:
        raise InputError("nobody is there to be asked; give --yes") from None
    return answer.strip().lower() in ("y", "yes")


def _ago(moment: float) -> str:
    import time

    from nas.runs.inventory import DAY
    from nas.utilities.units import format_seconds

    seconds = max(0.0, time.time() - moment)
    spent = f"{seconds / DAY:.0f} days" if seconds >= 2 * DAY else format_seconds(seconds)
    return f"{spent} ago"


def _size(count: int) -> str:
    from nas.utilities.units import format_count

    return f"{format_count(count)}B"
