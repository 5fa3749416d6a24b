"""Starting a run, from Python or from the command line."""

from pathlib import Path

from rich.console import Console

from nas.runs.configure import (
    Configured,
    check_device_of_workers,
    check_train_workers,
    default_folder,
    default_loader_workers,
    default_workers,
    named_folder,
)
from nas.runs.folder import RunFolder
from nas.runs.job import Execution
from nas.runs.latency_tables import MEASURED_HERE, LatencyMethods
from nas.runs.pipeline import run
from nas.runs.run import Run
from nas.utilities.bounds import MOST_PROCESSES
from nas.utilities.errors import InputError
from nas.utilities.interrupt import stop_on_signals
from nas.utilities.units import parse_duration

EXECUTION = ("workers", "train_workers", "ray_address", "ray_wait", "loader_workers")
"""Arguments of `start` that say how the work is spread, and nothing of what comes out."""

WRITTEN = ("name", "out", "tensorboard")
"""Arguments of `start` that say what is written where, and nothing of what comes out."""


def start(
    configured: Configured,
    *,
    command: str,
    workers: int | None,
    train_workers: int,
    ray_address: str | None,
    ray_wait: str,
    loader_workers: int | None,
    name: str | None,
    out: str | Path | None,
    tensorboard: bool,
    console: Console,
    methods: LatencyMethods = MEASURED_HERE,
) -> Run:
    """Bring a run to its end, or go on with what is left of it.

    Args:
        configured: The run.
        command: What the user typed.
        workers: Ray actors that evaluate; 0 evaluates in this process. None for a default.
        train_workers: Processes that train the supernet together; 1 trains it in this process.
        ray_address: Of a running cluster; None starts Ray on this machine.
        ray_wait: How long a step waits for Ray to give it a worker, such as 5min.
        loader_workers: Processes that load images; None for a default.
        name: Of the run's folder below `results/`; None for one that tells what was asked.
        out: The run's folder, wherever it is, instead of a name.
        tensorboard: Whether curves are written for TensorBoard, too.
        console: Where progress is shown.
        methods: How latency is found.

    Raises:
        InputError: If something is wrong.
        NothingFound: If no architecture could be evaluated, or all are too slow as measured.
        Interrupted: After Ctrl-C, SIGTERM or SIGHUP, when everything was saved.
    """
    config = configured.config
    asked = {"workers": workers, "loader_workers": loader_workers}
    for field, number in asked.items():
        if number is not None and not 0 <= number <= MOST_PROCESSES:
            raise InputError(f"`{field}` {number} is not between 0 and {MOST_PROCESSES}")
    if workers == 0 and train_workers == 1 and ray_address is not None:
        raise InputError(
            "`ray_address` with `workers` 0 and one training process: nothing would use Ray"
        )
    if configured.supernet is not None and train_workers != 1:
        raise InputError(f"`train_workers` {train_workers} with `supernet`: nothing is trained")
    check_train_workers(train_workers, config, on_this_machine=ray_address is None)
    if workers is None:
        workers = default_workers(config)
    training = train_workers if train_workers > 1 else 0
    check_device_of_workers(config.device, workers=workers, train_workers=training)
    if loader_workers is None:
        loader_workers = default_loader_workers(config.data)
    if name is not None and out is not None:
        raise InputError("`name` and `out` say the same thing; give one of them")
    folder = RunFolder(out or (default_folder(config) if name is None else named_folder(name)))
    root = configured.data.root
    if root is not None and folder.path.resolve().is_relative_to(root.resolve()):
        raise InputError(
            f"`out` {folder.path}: lies in the folder of images {root}, where what a run writes "
            "would count as images; give a folder elsewhere"
        )
    with stop_on_signals() as stop:
        run(
            config,
            folder,
            data=configured.data,
            init=configured.init,
            teacher=configured.teacher,
            supernet=configured.supernet,
            tensorboard=tensorboard,
            command=command,
            execution=Execution(
                workers=workers,
                train_workers=train_workers,
                ray_address=ray_address,
                ray_wait=parse_duration(ray_wait, "ray_wait"),
                loader_workers=loader_workers,
            ),
            stop=stop,
            console=console,
            tables=configured.tables,
            methods=methods,
        )
    return Run(folder)
