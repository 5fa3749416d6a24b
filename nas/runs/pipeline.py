"""The main job, from a configuration to exported networks and a report.

Each step leaves its result in the run folder, so that running the same command again goes on where
the last process stopped: a trained supernet is not trained again, evaluations and measurements that
were made are not repeated, and what is exported and shown is written anew.
"""

import logging
from collections.abc import Mapping

from rich.console import Console

from nas.data import Data, materialise
from nas.export.pretrained import Pretrained
from nas.latency.table import LatencyTable
from nas.objectives.constrained_space import ConstrainedSpace
from nas.report.advice import advice
from nas.report.summary import summary_table
from nas.runs.config import RunConfig
from nas.runs.drawing import draw
from nas.runs.folder import RunFolder, logging_to
from nas.runs.job import Execution, Job
from nas.runs.latency_tables import MEASURED_HERE, LatencyMethods, run_tables
from nas.runs.reuse import TrainedSupernet
from nas.runs.run import trained_store
from nas.runs.same_data import keep_data
from nas.runs.steps.export import export, summarise
from nas.runs.steps.measure import measure
from nas.runs.steps.search import search, shared_bytes
from nas.runs.steps.train import train
from nas.runs.steps.tryout import tryout
from nas.search.study import load_study, records
from nas.search.trials import tried_alone
from nas.training.given_teacher import GivenTeacher
from nas.training.tensorboard import Scalars
from nas.utilities.devices import is_here
from nas.utilities.environment import environment
from nas.utilities.errors import NothingFound
from nas.utilities.files import write_json
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import RayCluster

logger = logging.getLogger(__name__)


def run(
    config: RunConfig,
    folder: RunFolder,
    *,
    data: Data,
    command: str,
    execution: Execution,
    stop: StopRequest,
    console: Console,
    tables: Mapping[str, LatencyTable],
    methods: LatencyMethods = MEASURED_HERE,
    init: Pretrained | None = None,
    teacher: GivenTeacher | None = None,
    supernet: TrainedSupernet | None = None,
    tensorboard: bool = False,
) -> None:
    """Train, search, export and report, or go on with what is left of it.

    Args:
        config: What the results depend on.
        folder: Where they go.
        data: To train and evaluate on.
        command: What the user typed.
        execution: How the work is spread.
        stop: Looked at in every long loop.
        console: Where progress is shown.
        tables: Latency tables that the user gave, by device; others are measured.
        methods: How latency is found.
        init: What the supernet begins with; None if all its weights are drawn.
        teacher: Which the user gave, if there is one.
        supernet: Which was trained by another run; None trains one.
        tensorboard: Whether curves are written for TensorBoard, too.

    Raises:
        InputError: If the limits are out of reach, or the folder is not this configuration's.
        NothingFound: If no architecture could be evaluated, or all are too slow as measured.
        Interrupted: If a stop was requested; running again goes on.
    """
    constrained = ConstrainedSpace(
        space=config.space,
        limits=config.limits,
        image_size=config.image_size,
        num_classes=data.num_classes,
        settings=config.draws,
    )
    if tables.keys() == config.latency_ms.keys():
        constrained = constrained.with_tables(tables, measured=filter(is_here, tables))
    constrained.smallest()  # refuses limits that are out of reach, before anything is made

    def tell(line: str) -> None:
        logger.info(line)
        console.print(line, style="yellow", soft_wrap=True)

    cluster = RayCluster(execution.ray_address, wait_seconds=execution.ray_wait, tell=tell)
    demands = execution.demands(config)
    if demands and not folder.checkpoint.exists():
        cluster.check(demands, stored_bytes=shared_bytes(config, data))
    scalars = Scalars(folder.tensorboard if tensorboard else None)
    with folder.claimed_for(config), logging_to(folder), cluster, scalars:
        logger.info("%s", command)
        console.print(f"run folder: {folder.path}", soft_wrap=True)
        leaks = keep_data(folder, data, trained=supernet.folder if supernet else None)
        folder.write_config(config)  # where its images are may have changed
        write_json(folder.environment, environment(config.device))
        tables = run_tables(
            config, folder, given=tables, stop=stop, console=console, profile=methods.profile
        )
        constrained = constrained.with_tables(tables, measured=filter(is_here, tables))
        notes = [*constrained.check(), *data.notes, *leaks]
        notes += [
            f"latency table of {device}: its error is {table.error_text}; predictions may be far "
            "off: measure another where nothing else is at work"
            for device, table in tables.items()
            if table.error is None
        ]
        if init is not None:
            notes.append(init.told(data.num_classes))
        if teacher is not None:
            notes.append(teacher.told)
        if supernet is not None:
            supernet.lend(folder)
            notes += supernet.origin.told(constrained, config.steps)
        for note in notes:
            console.print(note, style="dim")
        images, labels = materialise(
            data.search,
            limit=config.search_images,
            seed=config.seed,
            workers=execution.loader_workers,
            stop=stop,
        )
        job = Job(
            config=config,
            folder=folder,
            constrained=constrained,
            data=data,
            init=init,
            teacher=teacher,
            images=images,
            labels=labels,
            execution=execution,
            cluster=cluster,
            stop=stop,
            console=console,
            scalars=scalars,
        )
        train(job)
        summarise(job, command, notes, known=()).save(folder.summary_so_far)
        store = trained_store(folder, device=config.device)
        ended = search(job, store)
        measure(job, store, methods)
        tryout(job, store)
        if config.short_list and not tried_alone(records(load_study(folder.journal)).values()):
            measure(job, store, methods)  # the front, which is exported then
        known = records(load_study(folder.journal)).values()
        summary = summarise(job, command, [*notes, *([ended] if ended else [])], known)
        summary.save(folder.summary)
        export(job, store, summary)
        report(folder, console)
        folder.summary_so_far.unlink()
        if not folder.best.exists():
            if any(record.was_evaluated for record in known):
                raise NothingFound("every architecture that was evaluated is too slow as measured")
            raise NothingFound(f"no architecture was evaluated: {ended}")


def report(folder: RunFolder, console: Console) -> None:
    """Write the tables and pages of a run that has searched, and print its summary.

    Raises:
        InputError: If the run has not come that far, has an objective that is not known here, or
            what it wrote is damaged.
    """
    trials, summary = draw(folder)
    console.print()
    console.print(summary_table(trials, summary))
    console.print(f"\nreport: {folder.path / 'report.html'}", soft_wrap=True)
    for step in advice(folder.path, trials, summary) if folder.best.exists() else []:
        console.print(f"{step.why}:")
        console.print(f"    {step.command}", style="bold", soft_wrap=True)
