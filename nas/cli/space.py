"""`space`: a search space, how many architectures it holds, and what its genes mean."""

import argparse
from pathlib import Path

from nas.cli.arguments import Commands, size, write_asked
from nas.utilities.errors import InputError
from search_space import PRESETS, SearchSpace
from search_space.encoding import MEANINGS


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "space",
        help="a search space: how much it holds, and what its genes mean",
        description="With --json the space as JSON, which `search --space FILE` takes: a start for "
        "one of your own.",
        allow_abbrev=False,
    )
    parser.set_defaults(action=_space)
    parser.add_argument("name", help=f"{', '.join(PRESETS)}, or the JSON file of a space")
    parser.add_argument("--image-size", type=size, default=224, help="pixels at which MACs count")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write it as JSON; without FILE, here"
    )


def _space(options: argparse.Namespace) -> None:
    from nas.runs.configure import space_named

    try:
        space = space_named(options.name)
    except InputError as error:
        raise InputError(str(error).replace("`space` ", "", 1)) from None
    if options.json is None:
        _explain(space, options.image_size)
        return
    text = space.model_dump_json(indent=2) + "\n"
    if options.json == "-":
        print(text, end="")
    else:
        write_asked("--json", Path(options.json), text, suffix=".json")


def _explain(space: SearchSpace, image_size: int) -> None:
    from nas.objectives.constrained_space import ConstrainedSpace
    from nas.objectives.limits import Limits
    from nas.utilities.progress import terminal

    whole = ConstrainedSpace(space=space, limits=Limits(), image_size=image_size, num_classes=1000)
    spans = (
        f"{o.amount(whole.reachable[o.name][0])} to {o.named_amount(whole.reachable[o.name][1])}"
        for o in whole.objectives
        if o.name in whole.reachable
    )
    console = terminal()
    console.print(f"{space.name}: {space.count():,} architectures", style="bold")
    console.print(f"{', '.join(spans)} at {image_size} px with 1000 classes", soft_wrap=True)
    for gene, meaning in MEANINGS.items():
        stages = {
            name.rpartition(".")[0]: choices
            for name, choices in space.genes.items()
            if name.rpartition(".")[2] == gene
        }
        if stages:
            console.print(f"\n{gene}: {meaning}", soft_wrap=True)
        for stage, choices in stages.items():
            of = f"{stage}: " if stage else ""
            console.print(f"    {of}{', '.join(map(str, choices))}", soft_wrap=True)
