"""`search`, which is `python run_search.py`: find architectures under a budget."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from nas.cli.arguments import (
    Commands,
    add_latency_conditions,
    add_limits,
    add_ray_cluster,
    add_teacher,
    batch,
    helpers,
    processes,
    rate,
    say_how_to_go_on,
    seed,
    size,
    some,
    steps,
    whole,
)
from nas.search.samplers import AUTO, BEST, SAMPLERS
from nas.search.settings import DEFAULT_SEARCH, DEFAULT_TRYOUT, FEWEST_FINALISTS
from nas.training.strategies import DEFAULT_STRATEGY, STRATEGIES
from nas.utilities.bounds import LARGEST, MOST_TRIALS
from search_space import PRESETS


def add(commands: Commands) -> None:
    """Describe the command's arguments."""
    parser = commands.add_parser(
        "search",
        help="find architectures under a budget",
        description="Train a supernet, search it under hard limits, export the best architectures. "
        "The same command again goes on where the last one stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_search)
    limits = parser.add_argument_group("limits")
    add_limits(limits, required=["macs"])
    limits.add_argument(
        "--latency",
        metavar="[DEVICE=]TIME",
        action="append",
        default=[],
        help="limit on the latency of one forward pass on --device, or on the device named: 15ms, "
        "cuda=2ms, phone=40ms; once for each device",
    )
    limits.add_argument(
        "--latency-table",
        metavar="FILE",
        action="append",
        default=[],
        help="a table from `nas profile` or another tool, needed for a device that is "
        "not here; without one the run measures a small one first",
    )
    add_latency_conditions(limits)
    task = parser.add_argument_group("task")
    task.add_argument(
        "--data",
        help="digits (embedded; the default), fashion-mnist, a folder of class folders, or a timm "
        "dataset such as torch/cifar10",
    )
    task.add_argument(
        "--space", help=f"{', '.join(PRESETS)} (base by default), or the JSON file of a space"
    )
    task.add_argument(
        "--init",
        metavar="FILE",
        help="an export, or an authors' checkpoint, of a design that is a member of the space: the "
        "supernet begins with its weights; or what timm gets: local-dir:FOLDER, hf-hub:NAME",
    )
    add_teacher(task)
    task.add_argument(
        "--supernet",
        metavar="RUN",
        help="the folder of a run whose trained supernet is searched under these limits: nothing "
        "is trained; data, space, sizes, seed and all of its training are as they were",
    )
    task.add_argument(
        "--image-size", type=size, help="pixels at which costs and latency count; 224 by default"
    )
    task.add_argument(
        "--proxy-size",
        type=size,
        help="pixels of training and evaluation; 64 for digits and without a GPU, else the image "
        "size",
    )
    effort = parser.add_argument_group("effort")
    effort.add_argument(
        "--quick", action="store_true", help="shrink everything: a look in two to four minutes"
    )
    effort.add_argument(
        "--strategy",
        choices=tuple(STRATEGIES),
        help=f"how the supernet is trained; {DEFAULT_STRATEGY.name} by default. "
        + _told(STRATEGIES),
    )
    effort.add_argument(
        "--steps",
        type=steps,
        help="training steps of the supernet; by default those of ten minutes on two CPU cores or, "
        "where 50 passes over other data than digits are more, those of 50 passes, on CPUs at most "
        "of an hour",
    )
    effort.add_argument("--epochs", type=steps, help="the same, in passes over the train split")
    effort.add_argument(
        "--batch-size",
        type=batch,
        help="images in a step; 16 for digits and without a GPU, else 64",
    )
    effort.add_argument(
        "--lr",
        type=rate,
        help="peak learning rate; by default 6e-4 for batches of 64, and for others in proportion "
        "to the root of their size",
    )
    effort.add_argument(
        "--trials",
        type=some,
        help="architectures to evaluate; with more of them a run that has ended goes on",
    )
    effort.add_argument(
        "--search-images",
        type=whole(1, LARGEST),
        help="images of the search split for each evaluation",
    )
    effort.add_argument(
        "--short-list",
        type=whole(0, MOST_TRIALS),
        metavar="K",
        help="so many architectures are trained alone, from the weights that they inherit, before "
        "one is called best; 0 lets the inherited accuracies choose",
    )
    effort.add_argument(
        "--finalists",
        type=whole(0, MOST_TRIALS),
        metavar="K",
        help="the K first of the short list are trained from fresh weights, too, for "
        f"{DEFAULT_TRYOUT.final_steps} steps at most, and ranked by that; 0 for none. By default "
        "as many as take at most half of all training steps: "
        f"{FEWEST_FINALISTS} with --steps {FEWEST_FINALISTS * DEFAULT_TRYOUT.final_steps // 2}, "
        "more in longer runs, none in shorter ones and with --init",
    )
    effort.add_argument(
        "--sampler",
        choices=(AUTO, *SAMPLERS),
        default=AUTO,
        help=f"who proposes; {AUTO} is what measures best ({BEST}). " + _told(SAMPLERS),
    )
    effort.add_argument("--seed", type=seed, help="of everything random; 0 by default")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="cpu, cuda or cuda:N; cuda where there is one")
    machine.add_argument(
        "--workers",
        type=helpers,
        help="Ray actors that evaluate, or try the short list; 0 does it in this process without "
        "Ray; by default one for each GPU or each CPU, at most 8. The search has work for "
        f"{DEFAULT_SEARCH.batch} at a time: what it finds does not depend on how many there are",
    )
    machine.add_argument(
        "--train-workers",
        type=processes,
        default=1,
        metavar="N",
        help="processes that train the supernet together, by Ray Train: on GPUs one for each; 1 "
        "trains in this process without Ray",
    )
    add_ray_cluster(machine)
    machine.add_argument(
        "--threads", type=processes, default=1, help="CPU threads of one evaluation"
    )
    machine.add_argument(
        "--loader-workers",
        type=helpers,
        help="processes that load images; by default 0 for digits, else one for each CPU",
    )
    parser.add_argument(
        "--name",
        help="of the run's folder below results/; by default it tells data, space and budget",
    )
    parser.add_argument("--out", type=Path, help="the run's folder, if it is to be elsewhere")
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write losses, accuracies and the hypervolume into tensorboard/ in the run's folder, "
        "too",
    )


def _told(table: Mapping[str, object]) -> str:
    """The names of a table with the first line of what each says of itself."""
    lines = {name: (entry.__doc__ or "").strip().splitlines() for name, entry in table.items()}
    return " ".join(f"{name}: {line[0]}" if line else f"{name}." for name, line in lines.items())


def _search(options: argparse.Namespace) -> None:
    from nas.runs.configure import configure
    from nas.runs.latency_tables import MEASURED_HERE
    from nas.runs.start import EXECUTION, WRITTEN, start
    from nas.utilities.interrupt import Interrupted
    from nas.utilities.progress import terminal

    asked = vars(options).copy()
    machine = {name: asked.pop(name) for name in EXECUTION}
    written = {name: asked.pop(name) for name in WRITTEN}
    command = asked.pop("command_line")
    methods = asked.pop("methods") or MEASURED_HERE
    del asked["action"]
    console = terminal()
    try:
        start(
            configure(**asked),
            command=command,
            console=console,
            methods=methods,
            **written,
            **machine,
        )
    except Interrupted as interrupted:
        say_how_to_go_on(options, console, interrupted)
