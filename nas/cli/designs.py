"""`designs`: the published designs beside their papers' figures."""

import argparse
import json
from typing import TYPE_CHECKING, Any

from nas.cli.arguments import Commands
from search_space import DESIGNS, total_cost

if TYPE_CHECKING:
    from rich.table import Table

    from nas.report.verification import Counted

SIZES = {"image_size": 224, "num_classes": 1000}
"""At which the papers count."""


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "designs", help="the published designs beside their papers' figures", allow_abbrev=False
    )
    parser.set_defaults(action=_designs)
    parser.add_argument(
        "--verify",
        action="store_true",
        help="build each, count it with torch and with fvcore beside the closed form, and time it; "
        "exit status 1 if they disagree",
    )
    parser.add_argument("--device", help="where to time them: cpu (default), cuda, cuda:N")
    parser.add_argument("--json", action="store_true")


def _designs(options: argparse.Namespace) -> None:
    from nas.utilities.errors import InputError
    from nas.utilities.progress import terminal

    if options.device is not None and not options.verify:
        raise InputError("--device is for --verify: nothing is timed without it")
    rows: list[dict[str, Any]] = []
    for design in DESIGNS:
        cost = total_cost(design.architecture, **SIZES)
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
    if not options.json:
        terminal().print(_beside_papers(rows))
    if options.verify:
        _verify(rows, options)
    elif options.json:
        print(json.dumps(rows, indent=2))


def _beside_papers(rows: list[dict[str, Any]]) -> "Table":
    """The designs, a row each, in 80 columns."""
    from rich.box import SIMPLE
    from rich.table import Table

    table = Table(
        title="published designs at 224 px, 1000 classes",
        box=SIMPLE,
        pad_edge=False,
        collapse_padding=True,
    )
    for name in ("design", "timm name"):
        table.add_column(name, no_wrap=True)
    for name in ("params", "MACs", "paper:\nM", "\nGFLOPs", "\ntop-1"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        figures = (row["paper_params_millions"], row["paper_gmacs"], row["paper_top1"])
        table.add_row(
            row["name"] + ("" if row["exact"] else "*"),
            row["timm_name"],
            f"{row['params']:,}",
            f"{row['macs']:,}",
            *("–" if figure is None else f"{figure:g}" for figure in figures),
        )
    table.caption = (
        "MACs are multiply-adds; the papers' figures are parameters in millions, multiply-adds in "
        "10^9 and ImageNet top-1 in %; * is our own spec, since the tables could not be had"
    )
    return table


def _verify(rows: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Count and time every design; the table follows, or the rows with the counts as JSON."""
    import torch

    from nas.latency.conditions import LatencyConditions
    from nas.latency.measure import measure_latency
    from nas.latency.reference import blank_network
    from nas.report.verification import check_agreement, count_whole, verification_table
    from nas.utilities.devices import check_device
    from nas.utilities.progress import LiveLine, terminal

    conditions = LatencyConditions(
        device=check_device(options.device or "cpu"),
        image_size=SIZES["image_size"],
        threads=torch.get_num_threads(),
    )
    counted: list[Counted] = []
    times: dict[str, float] = {}
    with LiveLine(terminal(quiet=options.json), "counting", total=len(DESIGNS)) as line:
        for number, (design, row) in enumerate(zip(DESIGNS, rows, strict=True), start=1):
            counted.append(count_whole(design.architecture, name=design.name, **SIZES))
            latency = measure_latency(blank_network(design.architecture, conditions), conditions)
            times[design.name] = latency.median_ms
            row |= {"counted": counted[-1].as_json(), "latency_ms": latency.median_ms}
            line.update(number, design.name)
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        title = "published designs, built and counted"
        terminal().print(verification_table(counted, title=title, milliseconds=times))
        terminal().print(f"latency: {conditions}")
    check_agreement(counted)
