"""`front`: what a run has evaluated, under other limits."""

import argparse
import math
from pathlib import Path

from nas.cli.arguments import Commands, add_limits, write_asked


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "front",
        help="the Pareto front of what a run has evaluated, under other limits",
        description="Answers at once, from what was evaluated; the run's own limits hold where no "
        "other is given. What the search has not looked for, `search --supernet RUN` does.",
        allow_abbrev=False,
    )
    parser.set_defaults(action=_front)
    parser.add_argument("run", type=Path, help="the run's folder")
    add_limits(parser, image_size="the run's --image-size", num_classes="its data's")
    parser.add_argument(
        "--latency",
        metavar="[DEVICE=]TIME",
        action="append",
        default=[],
        help="limit on the latency on a device that the run knows; once for each device",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="write the rows, too")


def _front(options: argparse.Namespace) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from nas.objectives.objective import ACCURACY, CLOSED_FORM
    from nas.report.run_summary import percent
    from nas.runs.folder import RunFolder
    from nas.runs.other_limits import front_under
    from nas.runs.run import Run
    from nas.utilities.progress import terminal

    run = Run(RunFolder.existing(options.run))
    given = {o.field: vars(options)[o.field] for o in CLOSED_FORM.values()}
    answer = front_under(run, latency=options.latency, **given)
    costs = [o for o in answer.objectives if o.name != ACCURACY.name]
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
    heads = [f"ms on {o.device}" if o.device else o.label for o in costs]
    final = answer.rows["scratch"].notna().any()
    scratch = ("scratch",) if final else ()
    for head in ("trial", *scratch, "alone", "steps", "inherited", *heads, "front"):
        table.add_column(head, justify="right")
    for _, row in answer.rows.iterrows():
        tried = not math.isnan(row["tried"])
        table.add_row(
            str(row["number"]),
            *(("" if math.isnan(row["scratch"]) else percent(row["scratch"]),) if final else ()),
            percent(row["tried"]) if tried else "",
            f"{int(row['tried_steps']):,}" if tried else "",
            percent(row["accuracy"]),
            *(f"{row[o.name]:.3g}" if o.device else o.cell(row[o.name]) for o in costs),
            str(row["front"]),
        )
    console = terminal()
    console.print(table)
    for note in answer.notes:
        console.print(note, soft_wrap=True)
    if options.out:
        write_asked("--out", options.out, answer.rows.to_csv(index=False), suffix=".csv")
        console.print(f"rows: {options.out}", soft_wrap=True)
