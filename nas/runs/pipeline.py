"""The main job, from a configuration to exported networks and a report.

Each part leaves its result in the run folder and is passed over where the result is already there,
so that running the same command again goes on where the last process stopped.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache

import torch
from rich.console import Console
from rich.markup import escape

from nas.data import Data, materialise
from nas.export.network import export_front, stage_rows
from nas.latency.measure import Latency
from nas.latency.table import LatencyTable
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.objective import MACS, Objective
from nas.report.cards import ModelSummary, model_card
from nas.report.pages import next_commands, write_report
from nas.report.run_summary import NOTABLE_SLOWDOWN, LatencySummary, RunSummary
from nas.report.summary import summary_table
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder, logging_to
from nas.runs.latency_tables import MEASURED_HERE, LatencyMethods, run_tables
from nas.runs.run import trained_store
from nas.search.driver import Search
from nas.search.evaluation import EvaluationSetup
from nas.search.front import best, full_scales, hypervolume, ranked_front
from nas.search.measuring import measure_front
from nas.search.ray_workers import RayWorkers, check_cluster
from nas.search.study import load_study, open_study, records
from nas.search.trials import MeasuredLatency, Record, trials_table
from nas.search.workers import InProcess, Workers
from nas.training.accuracy import SubnetEvaluator
from nas.training.supernet import Progress, train_supernet
from nas.utilities.devices import is_here
from nas.utilities.environment import environment
from nas.utilities.errors import InputError, NothingFound
from nas.utilities.files import write_json
from nas.utilities.interrupt import StopRequest
from nas.utilities.progress import LiveLine
from nas.utilities.units import format_milliseconds, format_seconds
from search_space import Architecture
from supernet import Network, Store

logger = logging.getLogger(__name__)

MONITOR_IMAGES = 256


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the work is spread; results don't depend on it.

    Attributes:
        workers: Ray actors that evaluate; 0 evaluates in this process without Ray.
        ray_address: Of a running cluster; None starts Ray on this machine.
        loader_workers: Processes that load training images.
    """

    workers: int
    ray_address: str | None = None
    loader_workers: int = 0


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
    )
    if tables.keys() == config.latency_ms.keys():
        constrained = constrained.with_tables(tables, measured=filter(is_here, tables))
    constrained.smallest()  # refuses limits that are out of reach, before anything is made
    if not folder.checkpoint.exists() and execution.ray_address is not None:
        check_cluster(
            execution.ray_address,
            count=execution.workers,
            threads=config.threads,
            device=config.device,
        )
    with folder.claimed_for(config), logging_to(folder):
        logger.info("%s", command)
        console.print(f"run folder: {folder.path}", highlight=False, soft_wrap=True)
        write_json(folder.environment, environment(config.device))
        tables = run_tables(
            config, folder, given=tables, stop=stop, console=console, profile=methods.profile
        )
        constrained = constrained.with_tables(tables, measured=filter(is_here, tables))
        notes = [*constrained.check(), *data.notes]
        for note in notes:
            console.print(f"[dim]{note}", highlight=False)
        images, labels = materialise(
            data.search,
            limit=config.search_images,
            seed=config.seed,
            workers=execution.loader_workers,
        )
        job = _Job(config, folder, constrained, data, execution, stop, console, images, labels)
        job.train()
        store = trained_store(folder, device=config.device)
        ended = job.search(store)
        job.measure_front(store, methods)
        summary = job.summary(command, [*notes, *([ended] if ended else [])])
        write_json(folder.summary, asdict(summary))
        job.export(store, summary)
        report(folder, console)
        if not folder.best.exists():
            if any(record.was_evaluated for record in records(load_study(folder.journal)).values()):
                raise NothingFound("every architecture that was evaluated is too slow as measured")
            raise NothingFound(f"no architecture was evaluated: {ended}")


def report(folder: RunFolder, console: Console) -> None:
    """Write the tables and pages of a run that has searched, and print its summary.

    Raises:
        InputError: If the run has not come that far, or has an objective that is not known here.
    """
    if not folder.summary.exists():
        raise InputError(f"{folder.path}: the search has not finished; run its command again")
    summary = RunSummary.from_json(folder.summary.read_bytes())
    trials = trials_table(records(load_study(folder.journal)), summary.objectives)
    write_report(folder.path, trials, summary)
    console.print()
    console.print(summary_table(trials, summary))
    console.print(f"\nreport: {folder.path / 'report.html'}", highlight=False, soft_wrap=True)
    for purpose, line in next_commands(folder.path) if folder.best.exists() else []:
        console.print(f"{purpose}:\n    [bold]{line}", highlight=False, soft_wrap=True)


class _Job:
    """The parts of one run, in order."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        constrained: ConstrainedSpace,
        data: Data,
        execution: Execution,
        stop: StopRequest,
        console: Console,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> None:
        self.config, self.folder, self.constrained, self.data = config, folder, constrained, data
        self.execution, self.stop, self.console = execution, stop, console
        self.images, self.labels = images, labels
        self.clock = _Clock(folder)

    def train(self) -> None:
        """Train the supernet, unless that is done."""
        if self.folder.checkpoint.exists():
            self.console.print("supernet: trained already", highlight=False)
            self.folder.training_state.unlink(missing_ok=True)
            return
        store = self._fresh_store()
        monitor = SubnetEvaluator(
            store,
            self.images[:MONITOR_IMAGES],
            self.labels[:MONITOR_IMAGES],
            mean=self.data.mean,
            std=self.data.std,
            threads=torch.get_num_threads(),
        )
        self.console.print(
            f"supernet: {store.numel() / 1e6:.1f} M shared weights, trained at "
            f"{self.config.proxy_size} px; costs are counted at {self.config.image_size} px",
            highlight=False,
        )
        line = LiveLine(self.console, "training", total=self.config.steps)

        def show(progress: Progress) -> None:
            current = " ".join(f"{k} {v:.0%}" for k, v in progress.accuracies.items())
            loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.2f} "
            line.update(progress.step, f"{loss}{current}".rstrip(), share=progress.share)

        with line, self.clock.measuring("supernet_seconds"):
            train_supernet(
                store,
                settings=self.config,
                constrained=self.constrained,
                data=self.data,
                state=self.folder.training_state,
                checkpoint=self.folder.checkpoint,
                monitor=monitor,
                stop=self.stop,
                on_progress=show,
                loader_workers=self.execution.loader_workers,
            )

    def search(self, store: Store) -> str:
        """Search, and return why it ended early, if it did."""
        config = self.config
        study = open_study(
            self.folder.journal,
            sampler=config.sampler,
            seed=config.seed,
            trials=config.trials,
            objectives=self.constrained.objectives,
        )
        done = [record for record in records(study).values() if record.was_evaluated]
        if len(done) >= config.trials:
            self.console.print("search: done already", highlight=False)
            return ""

        with (
            self.clock.measuring("search_seconds"),
            self._workers(store) as workers,
            LiveLine(self.console, "searching", total=config.trials, done=len(done)) as line,
        ):
            search = Search(
                study,
                constrained=self.constrained,
                workers=workers,
                trials=config.trials,
                seed=config.seed,
            )
            status = _SearchStatus(self.constrained, list(search.decided.values()))

            def show(record: Record) -> None:
                status.add(record)
                line.update(status.evaluated, status.text)

            ended = search.run(stop=self.stop, on_decided=show)
        if failed := [r for r in search.decided.values() if r.state == "failed"]:
            why = failed[-1].error.strip().splitlines()[-1]
            self.console.print(
                f"[red]{len(failed)} evaluations failed, the last with: {escape(why)}"
            )
        if ended:
            logger.warning("the search ended early: %s", ended)
            ended = f"the search ended early: {ended}"
            self.console.print(f"[yellow]{ended}", highlight=False)
        return ended

    def measure_front(self, store: Store, methods: LatencyMethods) -> None:
        """Measure what is on the front, while nothing else runs, where latency is limited."""
        study = load_study(self.folder.journal)
        seconds = self.clock.measuring("measuring_seconds")

        @cache
        def meter(device: str) -> Callable[[Network], Latency]:
            return methods.meter(self.constrained.tables[device])

        def measure(architecture: Architecture, device: str) -> Latency:
            return meter(device)(store.extract(architecture))

        def show(record: Record, objective: Objective, latency: MeasuredLatency) -> None:
            verdict = "within" if latency.excess <= 0 else "over"
            unstable = " [yellow](unstable)[/]" if latency.unstable else ""
            drift = (
                f" (slowdown {latency.slowdown:.2f})"
                if abs(latency.slowdown - 1) > NOTABLE_SLOWDOWN
                else ""
            )
            measured = f"{format_milliseconds(latency.median_ms)}{drift}{unstable}"
            self.console.print(
                f"measured on {objective.device}: {measured}, {verdict} the limit of "
                f"{objective.limit:g} ms; "
                f"predicted {format_milliseconds(record.predicted[objective.name])}; "
                f"accuracy {record.accuracy or 0:.1%}",
                highlight=False,
            )

        if self.constrained.measured:
            with seconds:
                measure_front(study, self.constrained, measure, stop=self.stop, on_measured=show)

    def summary(self, command: str, notes: list[str]) -> RunSummary:
        """What the report needs to know of this run."""
        config, constrained = self.config, self.constrained
        return RunSummary(
            command=command,
            data=self.data.name,
            num_classes=self.data.num_classes,
            search_images=len(self.labels),
            space=config.space.name,
            space_size=config.space.count(),
            limits=dict(config.limits),
            reachable=constrained.reachable,
            image_size=config.image_size,
            proxy_size=config.proxy_size,
            sampler=config.sampler,
            seed=config.seed,
            device=config.device,
            supernet_steps=config.steps,
            supernet_seconds=self.clock.seconds("supernet_seconds"),
            search_seconds=self.clock.seconds("search_seconds"),
            latency={
                device: LatencySummary(
                    conditions=str(table.conditions),
                    error=table.error_text,
                    measured=device in constrained.measured,
                    networks=[network.model_dump() for network in table.networks],
                )
                for device, table in constrained.tables.items()
            },
            notes=tuple(notes),
        )

    def export(self, store: Store, summary: RunSummary) -> None:
        """Export the front and the best, where anything was evaluated."""
        known = records(load_study(self.folder.journal))
        trials = trials_table(known, summary.objectives)
        front = ranked_front(trials, summary.objectives)
        if front.empty:
            return
        assert front.iloc[0]["hash"] == best(trials)["hash"]
        rows = front.to_dict("records")
        architectures = [
            Architecture.model_validate(known[row["number"]].architecture) for row in rows
        ]

        def card(name: str, place: int) -> str:
            model = ModelSummary(
                name=name,
                trial=rows[place],
                stages=stage_rows(architectures[place], self.config.image_size),
                class_names=self.data.class_names,
                mean=self.data.mean,
                std=self.data.std,
            )
            return model_card(model, summary)

        export_front(
            self.folder.path,
            store,
            architectures,
            data=self.data,
            image_size=self.config.proxy_size,
            card=card,
        )

    def _fresh_store(self) -> Store:
        return Store(
            self.config.space,
            num_classes=self.data.num_classes,
            device=self.config.device,
            seed=self.config.seed,
        )

    @contextmanager
    def _workers(self, store: Store) -> Iterator[Workers]:
        setup = EvaluationSetup(
            space=self.config.space,
            num_classes=self.data.num_classes,
            weights=store.state_dict(),
            images=self.images,
            labels=self.labels,
            mean=self.data.mean,
            std=self.data.std,
            device=self.config.device,
            threads=self.config.threads,
        )
        workers: Workers
        if self.execution.workers == 0:
            workers = InProcess(setup)
        else:
            with self.console.status("starting Ray") if self.console.is_terminal else nullcontext():
                workers = RayWorkers(
                    setup, count=self.execution.workers, address=self.execution.ray_address
                )
        try:
            yield workers
        finally:
            workers.close()


class _SearchStatus:
    """What the live line says of a search: feasible share, best so far, hypervolume."""

    def __init__(self, constrained: ConstrainedSpace, decided: list[Record]) -> None:
        self.constrained = constrained
        self.feasible, self.infeasible = 0, 0
        self.points: dict[str, list[float]] = {}
        self.best: Record | None = None
        self._searched = [o for o in constrained.objectives if o.searched]
        self._scales = full_scales(self._searched, constrained.reachable)
        self.text = ""
        for record in decided:
            self.add(record)

    @property
    def evaluated(self) -> int:
        return len(self.points)

    def add(self, record: Record) -> None:
        """Take a decided trial into account."""
        self.infeasible += record.state == "infeasible"
        if record.state == "evaluated":
            self.feasible += 1
            self.points[record.hash] = [
                record.values[name] / scale for name, scale in self._scales.items()
            ]
            better = self.best is None or (record.accuracy or 0) > (self.best.accuracy or 0)
            self.best = record if better else self.best
        if self.best is not None:
            volume = hypervolume(list(self.points.values()), self._searched)
            share = self.feasible / (self.feasible + self.infeasible)
            self.text = (
                f"feasible {share:.0%} · best {self.best.accuracy or 0:.1%} at "
                f"{MACS.amount(self.best.costs[MACS.name])} · hypervolume {volume:.3f}"
            )


class _Clock:
    """Seconds spent on each part, over all processes of a run."""

    def __init__(self, folder: RunFolder) -> None:
        self._file = folder.path / "seconds.json"

    def seconds(self, part: str) -> float:
        """Seconds spent on a part so far."""
        return float(self._read().get(part, 0.0))

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Add the time of the block, also where it is interrupted."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self._read()
            spent[part] = spent.get(part, 0.0) + time.monotonic() - start
            write_json(self._file, spent)
            logger.info("%s: %s", part, format_seconds(spent[part]))

    def _read(self) -> dict[str, float]:
        return dict(json.loads(self._file.read_bytes())) if self._file.exists() else {}
