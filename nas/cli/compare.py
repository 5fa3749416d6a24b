"""`compare`: several runs beside each other."""

import argparse
import math
from pathlib import Path

from nas.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "compare",
        help="several runs beside each other, as a page and tables",
        description="Runs on other data, or at other sizes of images, are shown apart.",
        allow_abbrev=False,
    )
    parser.set_defaults(action=_compare)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's folder")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("comparison"),
        help="folder for compare.html, runs.csv and fronts.csv; comparison by default",
    )


def _compare(options: argparse.Namespace) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from nas.objectives.objective import MACS
    from nas.report.run_summary import percent
    from nas.runs.compare import compare
    from nas.runs.folder import RunFolder
    from nas.runs.run import Run
    from nas.utilities.progress import terminal

    groups = compare([Run(RunFolder.existing(path)) for path in options.runs], options.out)
    console = terminal()
    for group in groups:
        table = Table(title=group.title, box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("run", overflow="fold")
        heads = ("evaluated", "alone", "inherited", "MACs", f"volume at {group.evaluations}", "end")
        for head in heads:
            table.add_column(head, justify="right", no_wrap=True)
        for compared, row in zip(group.runs, group.rows(), strict=True):
            best = compared.best
            cells = ("", "", "")
            if best is not None:
                alone = "" if math.isnan(best["tried"]) else percent(best["tried"])
                cells = (alone, percent(best["accuracy"]), MACS.cell(best["macs"]))
            volumes = (row["hypervolume_at_equal_evaluations"], row["hypervolume"])
            table.add_row(
                compared.name, str(row["evaluated"]), *cells, *(f"{v:.4f}" for v in volumes)
            )
        console.print(table)
    if len(groups) > 1:
        console.print("other data or sizes: not to be compared across tables", style="yellow")
    console.print(f"comparison: {options.out / 'compare.html'}", soft_wrap=True)
