"""The command line: `python -m nas COMMAND`, of which `run_search.py` is `search`."""

import argparse
import json
import os
import random
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, get_args

from nas.config import DEFAULT, QUICK, DtypeName, RunConfig, RuntimeName
from nas.errors import InputError, NothingFound
from nas.units import parse_latency, parse_macs, parse_params
from search_space import DESIGNS, PRESETS, Architecture, ArchitectureError, SearchSpace, total_cost

if TYPE_CHECKING:
    from rich.console import Console

    from nas.describe import PartLatency
    from nas.latency_table import LatencyTable

    Commands = argparse._SubParsersAction["_Parser"]

BUDGET_HELP = (
    "limit on multiply-adds of one image at --image-size; a FLOP is a multiply-add, as in the "
    "papers: 2GFLOPs, 600MFLOPs, 2GMACs, 2e9"
)


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def main(command: Sequence[str] = (), program: str = "python -m nas") -> int:
    """Run what the process's arguments ask for, after those of `command`.

    Returns:
        The exit status: 0, 1 for a search that found nothing, 2 for bad input, 130 when
        interrupted.
    """
    try:
        options = _parser().parse_args([*command, *_with_negative_values(sys.argv[1:])])
        action: Callable[[argparse.Namespace], None] = options.action
        options.command_line = f"{program} {shlex.join(sys.argv[1:])}"
        action(options)
    except (InputError, ArchitectureError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except NothingFound as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return int(getattr(options, "status", 0))


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Join a flag and a value such as `-2GFLOPs`, which argparse would take for another flag."""
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-[\d.]", argument) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m nas",
        description="Architecture search for vision transformers over token pooling and attention "
        "sharing.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_search,
        _add_retrain,
        _add_plot,
        _add_profile,
        _add_export,
        _add_sample,
        _add_describe,
        _add_designs,
    ):
        add(commands)
    return parser


# --- search ------------------------------------------------------------------------------------


def _add_search(commands: "Commands") -> None:
    parser = commands.add_parser(
        "search",
        prog="python run_search.py",
        help="find architectures under a budget",
        description="Train a supernet, search it under hard limits, export the best architectures. "
        "The same command again goes on where the last one stopped.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_search)
    limits = parser.add_argument_group("limits")
    limits.add_argument("--budget", required=True, metavar="MACS", help=BUDGET_HELP)
    limits.add_argument("--params", metavar="COUNT", help="limit on parameters: 10M")
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
        help="a table from `python -m nas profile` or another tool, needed for a device that is "
        "not here; without one the run measures a small one first",
    )
    _add_latency_conditions(limits)
    problem = parser.add_argument_group("problem")
    problem.add_argument(
        "--data",
        default="digits",
        help="digits (embedded), fashion-mnist, a folder of class folders, or a timm dataset "
        "such as torch/cifar10",
    )
    problem.add_argument(
        "--space", default="base", help=f"{', '.join(PRESETS)}, or the JSON file of a space"
    )
    problem.add_argument(
        "--image-size", type=_size, default=224, help="pixels at which MACs and latency count"
    )
    problem.add_argument(
        "--proxy-size",
        type=_size,
        help="pixels of training and evaluation; 64 for digits, else the image size",
    )
    effort = parser.add_argument_group("effort")
    effort.add_argument(
        "--quick", action="store_true", help="shrink everything: a look within 90 seconds"
    )
    effort.add_argument("--steps", type=_positive, help="training steps of the supernet")
    effort.add_argument("--epochs", type=_positive, help="the same, in passes over the train split")
    effort.add_argument("--batch-size", type=_positive, default=64, help="images in a step")
    effort.add_argument("--lr", type=_rate, default=7e-4, help="peak learning rate")
    effort.add_argument("--trials", type=_positive, help="architectures to evaluate")
    effort.add_argument(
        "--search-images", type=_positive, help="images of the search split for each evaluation"
    )
    effort.add_argument("--sampler", choices=("nsga2", "tpe", "random"), default="nsga2")
    effort.add_argument("--seed", type=_seed, default=0)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--device", help="cpu, cuda or cuda:N; cuda where there is one")
    machine.add_argument(
        "--workers",
        type=_count,
        help="Ray actors that evaluate; 0 evaluates in this process without Ray; by default one "
        "for each GPU or each CPU, at most 8",
    )
    machine.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running Ray cluster: auto, HOST:PORT"
    )
    machine.add_argument(
        "--threads", type=_positive, default=1, help="CPU threads of one evaluation"
    )
    machine.add_argument(
        "--loader-workers",
        type=_count,
        help="processes that load images; by default 0 for digits, else one for each CPU",
    )
    parser.add_argument(
        "--out", type=Path, help="the run's folder; by default one below results/, named by the run"
    )


def _add_latency_conditions(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--latency-batch", type=_positive, default=1, help="images in the pass that is timed"
    )
    parser.add_argument(
        "--latency-dtype",
        choices=get_args(DtypeName),
        default="float32",
        help="data type of the network that is timed",
    )
    parser.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        default="eager",
        help="what runs the network that is timed",
    )


def _search(options: argparse.Namespace) -> None:
    from nas.latency import check_device

    limits = {
        "budget": parse_macs(options.budget),
        "params": parse_params(options.params) if options.params is not None else None,
    }
    if options.steps and options.epochs:
        raise InputError("--steps and --epochs say the same thing; give one of them")
    if not options.data.strip():
        raise InputError("--data '' names nothing; give digits, a folder or a timm dataset")
    if options.workers == 0 and options.ray_address is not None:
        raise InputError("--ray-address with --workers 0: evaluations in this process need no Ray")
    space = _space(options.space)
    device = check_device(options.device) if options.device is not None else _default_device()
    latency, tables = _latency_limits(options, device, space)
    embedded = options.data == "digits"
    proxy_size = options.proxy_size or (64 if embedded else options.image_size)

    from nas.data import load_data

    data = load_data(options.data, image_size=proxy_size, seed=options.seed)
    effort = QUICK if options.quick else DEFAULT
    per_epoch = max(1, round(data.epoch_size / options.batch_size))
    if options.steps or options.epochs:
        steps = options.steps or options.epochs * per_epoch
    else:
        steps = effort.steps if embedded or options.quick else effort.epochs * per_epoch
    config = RunConfig(
        **limits,
        latency_ms=latency,
        latency_tables={d: table.digest for d, table in tables.items()},
        latency_batch=options.latency_batch,
        latency_dtype=options.latency_dtype,
        runtime=options.runtime,
        data=options.data if _is_name(options.data) else str(Path(options.data).resolve()),
        space=space,
        image_size=options.image_size,
        proxy_size=proxy_size,
        seed=options.seed,
        device=device,
        steps=steps,
        batch_size=options.batch_size,
        lr=options.lr,
        sampler=options.sampler,
        trials=options.trials or effort.trials,
        search_images=options.search_images or effort.search_images,
        threads=options.threads,
    )

    from rich.console import Console

    from nas.interrupt import Interrupted, stop_on_signals
    from nas.run import Execution, run
    from nas.run_folder import RunFolder

    cores = os.cpu_count() or 1
    workers = options.workers
    if workers is None:
        workers = _gpus() if device.startswith("cuda") else max(1, min(cores // options.threads, 8))
    folder = RunFolder(options.out or Path("results") / _run_name(config))
    console = Console()
    with stop_on_signals() as stop:
        try:
            run(
                config,
                folder,
                data=data,
                command=options.command_line,
                execution=Execution(
                    workers=workers,
                    ray_address=options.ray_address,
                    loader_workers=_loader_workers(options, options.data),
                ),
                stop=stop,
                console=console,
                tables=tables,
            )
        except Interrupted:
            _say_how_to_go_on(options, console)


def _latency_limits(
    options: argparse.Namespace, default_device: str, space: SearchSpace
) -> "tuple[dict[str, float], dict[str, LatencyTable]]":
    """Limits in milliseconds by device, and the tables that were given for some of them."""
    from nas.latency import LatencyConditions, check_runtime, chip_name, devices_here
    from nas.latency_table import LatencyTable

    latency: dict[str, float] = {}
    for text in options.latency:
        device, equals, time = text.rpartition("=")
        device = device.strip() if equals else default_device
        if not re.fullmatch(r"\w[\w:.-]*", device):
            raise InputError(f"--latency {text!r}: {device!r} is no name of a device")
        if device in latency:
            raise InputError(f"--latency {text!r}: one limit for each device, such as cuda=2ms")
        latency[device] = parse_latency(time)
    tables: dict[str, LatencyTable] = {}
    for file in options.latency_table:
        table = LatencyTable.load(file)
        device = table.conditions.device
        if device not in latency:
            limited = ", ".join(latency) or "none"
            raise InputError(
                f"{file}: a table of {device!r}, which has no --latency ({limited} has)"
            )
        if device in tables:
            raise InputError(f"{file}: a second table of {device!r}")
        asked = {
            "image_size": options.image_size,
            "batch_size": options.latency_batch,
        }
        if device in devices_here():  # what is elsewhere runs as its table says
            asked["dtype"], asked["runtime"] = options.latency_dtype, options.runtime
            asked["chip"] = chip_name(device)
        for field, value in asked.items():
            if (there := getattr(table.conditions, field)) != value:
                raise InputError(
                    f"{file}: taken with {field} {there!r}, but the run asks for {value!r}"
                )
        table.check_covers(space, file)
        tables[device] = table
    for device in latency:
        if device in devices_here():
            check_runtime(
                LatencyConditions(
                    device=device,
                    image_size=options.image_size,
                    batch_size=options.latency_batch,
                    dtype=options.latency_dtype,
                    runtime=options.runtime,
                    threads=1,
                )
            )
        elif device not in tables:
            raise InputError(
                f"--latency {device}=...: {device!r} is not here ({', '.join(devices_here())} is), "
                "so it needs a --latency-table"
            )
    return latency, tables


def _run_name(config: RunConfig) -> str:
    data = Path(config.data).name.replace("/", "-")
    return f"{data}-{config.space.name}-{(config.budget or 0) / 1e9:g}GFLOPs-{config.digest}"


def _is_name(data: str) -> bool:
    """Whether data is called by a name; a folder's path is made absolute."""
    return data in ("digits", "fashion-mnist") or not Path(data).is_dir()


def _space(name: str) -> SearchSpace:
    if name in PRESETS:
        return PRESETS[name]
    if Path(name).suffix == ".json":
        return SearchSpace.load(name)
    raise InputError(f"--space {name!r} is unknown; {', '.join(PRESETS)}, or a JSON file")


def _loader_workers(options: argparse.Namespace, data: str) -> int:
    if options.loader_workers is not None:
        return int(options.loader_workers)
    return 0 if data == "digits" else min(os.cpu_count() or 1, 8)


def _default_device() -> str:
    return "cuda" if _gpus() else "cpu"


def _gpus() -> int:
    import torch

    return torch.cuda.device_count()


def _say_how_to_go_on(options: argparse.Namespace, console: "Console") -> None:
    console.print("\n[yellow]stopped; everything is saved. To go on:")
    console.print(f"    [bold]{options.command_line}", highlight=False, soft_wrap=True)
    options.status = 130


# --- retrain and plot --------------------------------------------------------------------------


def _add_retrain(commands: "Commands") -> None:
    parser = commands.add_parser(
        "retrain",
        help="train the exported architectures alone",
        description="Train the most accurate architectures of a run's front alone and measure them "
        "on the test split, beside the weights inherited from the supernet.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_retrain)
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("--top", type=_positive, default=1, help="how many architectures")
    parser.add_argument(
        "--name", default="retrain", help="folder in the run's for this recipe's results"
    )
    parser.add_argument(
        "--from",
        dest="start",
        choices=("scratch", "supernet"),
        default="scratch",
        help="fresh weights, or the inherited ones",
    )
    parser.add_argument(
        "--steps", type=_positive, help="training steps; by default as many as the supernet had"
    )
    parser.add_argument("--epochs", type=_positive, help="the same, in passes over the train split")
    parser.add_argument(
        "--batch-size", type=_positive, help="images in a step; by default as in the run"
    )
    parser.add_argument("--lr", type=_rate, default=1e-3, help="peak learning rate")
    parser.add_argument("--drop-path", type=float, default=0.05, help="stochastic depth")
    parser.add_argument(
        "--augment",
        choices=("light", "full"),
        default="light",
        help="full: RandAugment, mixup, cutmix and erasing, for long trainings",
    )
    parser.add_argument(
        "--train-size", type=_size, help="pixels of training; by default the run's proxy size"
    )
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--device", help="cpu, cuda or cuda:N; by default that of the run")
    parser.add_argument("--loader-workers", type=_count, help="processes that load images")


def _retrain(options: argparse.Namespace) -> None:
    from rich.console import Console

    from nas.interrupt import Interrupted, stop_on_signals
    from nas.retrain import Recipe, retrain
    from nas.run_folder import RunFolder

    folder = RunFolder.existing(options.run)
    config = folder.config
    if options.steps and options.epochs:
        raise InputError("--steps and --epochs say the same thing; give one of them")
    if not 0 <= options.drop_path < 1:
        raise InputError(f"--drop-path {options.drop_path} is outside 0 to 1")
    recipe = Recipe(
        start=options.start,
        steps=options.steps or config.steps,
        batch_size=options.batch_size or config.batch_size,
        lr=options.lr,
        drop_path=options.drop_path,
        augment=options.augment,
        image_size=options.train_size or config.proxy_size,
        seed=options.seed,
        device=options.device or config.device,
    )
    console = Console()
    with stop_on_signals() as stop:
        try:
            retrain(
                folder,
                top=options.top,
                recipe=recipe,
                name=options.name,
                epochs=options.epochs,
                loader_workers=_loader_workers(options, config.data),
                stop=stop,
                console=console,
            )
        except Interrupted:
            _say_how_to_go_on(options, console)


def _add_plot(commands: "Commands") -> None:
    parser = commands.add_parser("plot", help="redraw a run's report", allow_abbrev=False)
    parser.set_defaults(action=_plot)
    parser.add_argument("run", type=Path, help="the run's folder")


def _plot(options: argparse.Namespace) -> None:
    from rich.console import Console

    from nas.run import report
    from nas.run_folder import RunFolder

    report(RunFolder.existing(options.run), Console())


# --- latency -----------------------------------------------------------------------------------


def _add_profile(commands: "Commands") -> None:
    parser = commands.add_parser(
        "profile",
        help="measure the latency table of a space on a device",
        description="Time every block of a space inside whole networks, learn a correction from "
        "others, state the error on held-out ones, and write a table that a run takes with "
        "--latency-table. Let nothing else run on the device meanwhile.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_profile)
    parser.add_argument("--space", default="base", help=f"{', '.join(PRESETS)}, or a JSON file")
    parser.add_argument("--device", help="cpu, cuda or cuda:N; cuda where there is one")
    parser.add_argument("--image-size", type=_size, default=224)
    parser.add_argument(
        "--batch", type=_positive, default=1, dest="latency_batch", help="images in a pass"
    )
    parser.add_argument("--dtype", choices=get_args(DtypeName), default="float32")
    parser.add_argument("--runtime", choices=get_args(RuntimeName), default="eager")
    parser.add_argument("--threads", type=_positive, help="CPU threads; by default one per core")
    parser.add_argument("--quick", action="store_true", help="as small as a run makes for itself")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--out", type=Path, help="the table's file; by default named by both")


def _profile(options: argparse.Namespace) -> None:
    import torch
    from rich.console import Console

    from nas.files import write_text
    from nas.interrupt import Interrupted, stop_on_signals
    from nas.latency import LatencyConditions, check_device, check_runtime
    from nas.profiling import SMALL, THOROUGH, profile
    from nas.terminal import LiveLine

    space = _space(options.space)
    device = check_device(options.device) if options.device is not None else _default_device()
    conditions = LatencyConditions(
        device=device,
        image_size=options.image_size,
        batch_size=options.latency_batch,
        dtype=options.dtype,
        runtime=options.runtime,
        threads=options.threads or torch.get_num_threads(),
    )
    check_runtime(conditions)
    path = options.out or Path(f"latency-{space.name}-{device.replace(':', '-')}.json")
    if path.is_dir():
        raise InputError(f"--out {path} is a folder; give the name of a file")
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"--out {path}: its folder is missing or cannot be written")
    console = Console()
    with stop_on_signals() as stop:
        try:
            with LiveLine(console, f"profiling {space.name} on {device}", total=100) as line:
                table = profile(
                    space,
                    conditions,
                    SMALL if options.quick else THOROUGH,
                    seed=options.seed,
                    stop=stop,
                    on_progress=line.update_share,
                )
        except Interrupted:
            console.print("\n[yellow]stopped; a table is written when it is whole, or not at all")
            options.status = 130
            return
    write_text(path, table.to_json())
    console.print(f"{table.conditions}", highlight=False)
    console.print(f"error: {table.error_text}", highlight=False)
    console.print(f"{len(table.segments)} segments: {path}", highlight=False, soft_wrap=True)


# --- export ------------------------------------------------------------------------------------


def _add_export(commands: "Commands") -> None:
    parser = commands.add_parser(
        "export",
        help="an exported network as a file for other runtimes",
        description="Write a network of a run, results/<run>/best, front/<n> or retrain/<n>, as "
        "one file for other runtimes, and compare its outputs with torch's.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(action=_export)
    parser.add_argument("network", type=Path, help="folder with architecture and weights")
    parser.add_argument("--format", choices=("onnx",), default="onnx", help="of the file")
    parser.add_argument(
        "--image-size",
        type=_size,
        help="pixels of the images that the file takes; by default those of the training",
    )
    parser.add_argument("--out", type=Path, help="the file; by default model.onnx in the folder")


def _export(options: argparse.Namespace) -> None:
    from rich.console import Console

    from nas.onnx_export import INPUT, OUTPUT, write_onnx

    folder = options.network if options.network.is_dir() else options.network.parent
    out = options.out or folder / "model.onnx"
    if out.is_dir():
        raise InputError(f"--out {out} is a folder; give the name of a file")
    file = write_onnx(options.network, out, image_size=options.image_size)
    about, size = file.about, file.image_size
    difference = "not compared with torch's output, since onnxruntime is not installed"
    if file.difference is not None:
        difference = f"largest relative difference to torch's output: {file.difference:.1e}"
    console = Console()
    for line in (
        f"{out}: input {INPUT} (batch, {about.in_chans}, {size}, {size}), output {OUTPUT} (batch, "
        f"{about.num_classes}), float32, any batch; pixels from 0 to 1, normalised by mean "
        f"{_short_numbers(about.mean)} and standard deviation {_short_numbers(about.std)}",
        difference,
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _short_numbers(values: Sequence[float]) -> str:
    return f"({', '.join(f'{value:.4g}' for value in values)})"


# --- architectures -----------------------------------------------------------------------------


def _add_sample(commands: "Commands") -> None:
    parser = commands.add_parser(
        "sample", help="random architectures as JSON files", allow_abbrev=False
    )
    parser.set_defaults(action=_sample)
    parser.add_argument("--space", default="base", help=f"{', '.join(PRESETS)}, or a JSON file")
    parser.add_argument("-n", "--number", type=_positive, default=1, help="how many")
    parser.add_argument("--seed", type=_seed, default=0)
    parser.add_argument("--budget", metavar="MACS", help=BUDGET_HELP)
    parser.add_argument("--image-size", type=_size, default=224)
    parser.add_argument("--out", type=Path, help="folder for the files, named by their hashes")
    parser.add_argument("--json", action="store_true", help="print a list of architectures")


def _sample(options: argparse.Namespace) -> None:
    from nas.files import write_text
    from nas.limits import Limits
    from nas.problem import Problem

    limits = Limits(macs=parse_macs(options.budget) if options.budget is not None else None)
    problem = Problem(
        space=_space(options.space), limits=limits, image_size=options.image_size, num_classes=1000
    )
    problem.smallest()  # refuses a budget that is out of reach
    rng = random.Random(options.seed)
    found: dict[str, Architecture] = {}
    for _ in range(20 * options.number):  # draws repeat in small spaces
        architecture = problem.sample(rng)
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
        cost = problem.cost(architecture)
        print(
            f"{architecture.hash}  {cost.macs:>13,} MACs  {cost.params:>11,} params  "
            f"{architecture.summary}"
        )


def _add_describe(commands: "Commands") -> None:
    parser = commands.add_parser(
        "describe", help="one architecture: its stages and costs", allow_abbrev=False
    )
    parser.set_defaults(action=_describe)
    parser.add_argument("file", type=Path, help="an architecture's JSON file, or its folder")
    parser.add_argument("--image-size", type=_size, default=224)
    parser.add_argument("--num-classes", type=_count, default=1000)
    parser.add_argument("--device", help="where to time the parts: cpu (default), cuda, cuda:N")
    parser.add_argument("--latency-table", metavar="FILE", help="a table to take their times from")
    parser.add_argument("--no-latency", action="store_true", help="leave times out")
    parser.add_argument("--json", action="store_true")


def _describe(options: argparse.Namespace) -> None:
    from rich.console import Console

    from nas.describe import described, print_description

    if sum((options.no_latency, bool(options.latency_table), options.device is not None)) > 1:
        raise InputError("--device, --latency-table, --no-latency: give one of them at most")
    architecture = Architecture.load(options.file)
    facts = described(
        architecture,
        image_size=options.image_size,
        num_classes=options.num_classes,
        latency=None if options.no_latency else _part_latency(architecture, options),
    )
    if options.json:
        print(json.dumps(facts, indent=2))
    else:
        print_description(facts, architecture, Console())


def _part_latency(architecture: Architecture, options: argparse.Namespace) -> "PartLatency":
    from nas.describe import predicted_parts, timed_parts

    if options.latency_table:
        from nas.latency_table import LatencyTable

        table = LatencyTable.load(options.latency_table)
        if table.conditions.image_size != options.image_size:
            raise InputError(
                f"{options.latency_table}: taken at {table.conditions.image_size} px, but "
                f"--image-size is {options.image_size}"
            )
        return predicted_parts(architecture, table, options.latency_table)
    import torch

    from nas.latency import LatencyConditions, check_device

    device = check_device(options.device or "cpu")
    conditions = LatencyConditions(
        device=device, image_size=options.image_size, threads=torch.get_num_threads()
    )
    return timed_parts(architecture, conditions)


def _add_designs(commands: "Commands") -> None:
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
    from rich.console import Console
    from rich.table import Table

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
    Console().print(table)


# --- values ------------------------------------------------------------------------------------


def _positive(text: str) -> int:
    return _whole(text, at_least=1)


def _count(text: str) -> int:
    return _whole(text, at_least=0)


def _seed(text: str) -> int:
    seed = _whole(text, at_least=0)
    if seed >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{seed} is not below 2^32")
    return seed


def _size(text: str) -> int:
    return _whole(text, at_least=32)


def _whole(text: str, *, at_least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < at_least:
        raise argparse.ArgumentTypeError(f"{value} is below {at_least}")
    return value


def _rate(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
