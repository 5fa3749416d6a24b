"""`designs`: the published designs beside their papers' figures."""

import argparse
import json

from nas.cli.arguments import Commands
from search_space import DESIGNS, total_cost


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "designs", help="the published designs beside their papers' figures", allow_abbrev=False
    )
    parser.set_defaults(action=_designs)
    parser.add_argument("--json", action="store_true")


def _designs(options: argparse.Namespace) -> None:
    rows = []
    for design in DESIGNS:
        cost = total_cost(design.architecture)
        rows.append(
            {
                "name": design.name,
                "timm_name": design.timm_name,
                "params": cost.params,
                "macs": cost.macs,
                "exact": design.exact,
                "paper": design.paper,
                "paper_params_millions": design.paper_params,
                "paper_gmacs": design.paper_gmacs,
                "paper_top1": design.paper_top1,
            }
        )
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    from rich.table import Table

    from nas.utilities.progress import terminal

    table = Table(title="published designs at 224 px, 1000 classes")
    table.add_column("design")
    table.add_column("timm name")
    for name in ("params", "MACs", "paper: M params", "GFLOPs", "top-1 %"):
        table.add_column(name, justify="right")
    for design, row in zip(DESIGNS, rows, strict=True):
        figures = (design.paper_params, design.paper_gmacs, design.paper_top1)
        table.add_row(
            design.name + ("" if design.exact else "*"),
            design.timm_name,
            f"{row['params']:,}",
            f"{row['macs']:,}",
            *("–" if figure is None else f"{figure:g}" for figure in figures),
        )
    table.caption = (
        "MACs are multiply-adds; * is our own spec of the design, whose tables could not be had"
    )
    terminal().print(table)
