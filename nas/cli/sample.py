"""`sample`: random architectures as JSON files."""

import argparse
import json
import random
from pathlib import Path

from nas.cli.arguments import (
    Commands,
    add_limits,
    seed,
    size,
    some,
)
from nas.utilities.errors import InputError
from search_space import PRESETS, Architecture


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "sample", help="random architectures as JSON files", allow_abbrev=False
    )
    parser.set_defaults(action=_sample)
    parser.add_argument("--space", default="base", help=f"{', '.join(PRESETS)}, or a JSON file")
    parser.add_argument("-n", "--number", type=some, default=1, help="how many")
    parser.add_argument("--seed", type=seed, default=0)
    add_limits(parser, num_classes="--num-classes")
    parser.add_argument("--image-size", type=size, default=224)
    parser.add_argument("--num-classes", type=some, default=1000)
    parser.add_argument("--out", type=Path, help="folder for the files, named by their hashes")
    parser.add_argument("--json", action="store_true", help="print a list of architectures")


def _sample(options: argparse.Namespace) -> None:
    from nas.objectives.constrained_space import ConstrainedSpace
    from nas.objectives.limits import Limits, parse_limits
    from nas.objectives.objective import CLOSED_FORM
    from nas.runs.configure import space_named
    from nas.utilities.files import write_text

    fields = [objective.field for objective in CLOSED_FORM.values()]
    constrained = ConstrainedSpace(
        space=space_named(options.space),
        limits=Limits(**parse_limits({field: vars(options)[field] for field in fields})),
        image_size=options.image_size,
        num_classes=options.num_classes,
    )
    constrained.smallest()  # refuses limits that are out of reach
    rng = random.Random(options.seed)
    found: dict[str, Architecture] = {}
    for _ in range(20 * options.number):  # draws repeat in small spaces
        architecture = constrained.sample(rng)
        found[architecture.hash] = architecture
        if len(found) == options.number:
            break
    else:
        raise InputError(f"-n {options.number}: found only {len(found)} different architectures")
    if options.out:
        try:
            for architecture in found.values():
                write_text(options.out / f"{architecture.hash}.json", architecture.to_json())
        except OSError as error:
            raise InputError(f"--out {options.out}: cannot be written ({error.strerror})") from None
    if options.json:
        print(json.dumps([a.model_dump(mode="json") for a in found.values()], indent=2))
        return
    for architecture in found.values():
        costs = constrained.costs(architecture)
        told = (
            f"{o.exact(costs[o.name]):>13} {o.label}"
            for o in constrained.objectives
            if o.name in costs
        )
        print("  ".join((architecture.hash, *told, architecture.summary)))
