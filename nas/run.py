"""The main job, from a configuration to exported networks and a report.

Each part leaves its result in the run folder and is passed over where the result is already there,
so that running the same command again goes on where the last process stopped.
"""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass

import torch
from rich.console import Console
from rich.markup import escape
from safetensors import SafetensorError
from safetensors.torch import load_file

from nas.config import RunConfig
from nas.data import Data, materialise
from nas.environment import environment
from nas.errors import InputError, NothingFound
from nas.evaluation import SubnetEvaluator
from nas.export import export_front
from nas.interrupt import StopRequest
from nas.latency import Latency, LatencyConditions, measure_latency
from nas.limits import Problem
from nas.report import (
    RunFacts,
    best,
    hypervolume,
    next_commands,
    pareto_front,
    summary_table,
    write_report,
)
from nas.run_folder import RunFolder, logging_to, write_json
from nas.search import Search
from nas.study import Record, load_study, open_study, records, trials_table
from nas.terminal import LiveLine
from nas.training import Progress, train_supernet
from nas.units import format_count, format_seconds
from nas.workers import EvaluationSetup, InProcess, RayWorkers, Workers, check_cluster
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
) -> None:
    """Train, search, export and report, or go on with what is left of it.

    Raises:
        InputError: If the limits are out of reach, or the folder is not this configuration's.
        NothingFound: If no architecture could be evaluated.
        Interrupted: If a stop was requested; running again goes on.
    """
    problem = Problem(
        space=config.space,
        limits=config.limits,
        image_size=config.image_size,
        num_classes=data.num_classes,
    )
    notes = [*problem.check(), *data.notes]
    if not folder.checkpoint.exists():
        notes += _check_latency(problem, config)
        if execution.ray_address is not None:
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
        for note in notes:
            console.print(f"[dim]{note}", highlight=False)
        images, labels = materialise(
            data.search,
            limit=config.search_images,
            seed=config.seed,
            workers=execution.loader_workers,
        )
        job = _Job(config, folder, problem, data, execution, stop, console, images, labels)
        job.train()
        store = job.trained_store()
        ended = job.search(store)
        facts = job.facts(command, [*notes, *([ended] if ended else [])])
        write_json(folder.facts, asdict(facts))
        job.export(store, facts)
        report(folder, console)
        if not folder.best.exists():
            raise NothingFound(f"no architecture was evaluated: {ended}")


def report(folder: RunFolder, console: Console) -> None:
    """Write the tables and pages of a run that has searched, and print its summary.

    Raises:
        InputError: If the run has not come that far.
    """
    if not folder.facts.exists():
        raise InputError(f"{folder.path}: the search has not finished; run its command again")
    facts = json.loads(folder.facts.read_bytes())
    facts = RunFacts(**{**facts, "notes": tuple(facts["notes"])})
    trials = trials_table(load_study(folder.journal))
    write_report(folder.path, trials, facts)
    console.print()
    console.print(summary_table(trials, facts))
    console.print(f"\nreport: {folder.path / 'report.html'}", highlight=False, soft_wrap=True)
    for purpose, line in next_commands(folder.path) if folder.best.exists() else []:
        console.print(f"{purpose}:\n    [bold]{line}", highlight=False, soft_wrap=True)


def _check_latency(problem: Problem, config: RunConfig) -> list[str]:
    """Time the smallest and the largest architecture before anything is trained for them.

    Returns:
        What the user should know of a limit on latency; nothing where there is none.

    Raises:
        InputError: If the smallest already exceeds it.
    """
    limit = config.latency_ms
    if limit is None:
        return []
    conditions = latency_conditions(config)
    smallest, largest = (
        measure_latency(Network(architecture, num_classes=problem.num_classes), conditions)
        for architecture in (problem.smallest(), problem.largest())
    )
    reach = (
        f"the smallest architecture takes {smallest.median_ms:.3g} ms, a large one under the other "
        f"limits {largest.median_ms:.3g} ms ({conditions})"
    )
    if smallest.median_ms > limit:
        raise InputError(f"--latency {limit:g}ms is out of reach: {reach}")
    binds = "" if largest.median_ms > limit else " hardly binds"
    return [f"--latency {limit:g}ms{binds}: {reach}"]


def latency_conditions(config: RunConfig) -> LatencyConditions:
    """How the networks of a run are timed."""
    return LatencyConditions(
        device=config.device,
        image_size=config.image_size,
        threads=torch.get_num_threads(),
    )


class _Job:
    """The parts of one run, in order."""

    def __init__(
        self,
        config: RunConfig,
        folder: RunFolder,
        problem: Problem,
        data: Data,
        execution: Execution,
        stop: StopRequest,
        console: Console,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> None:
        self.config, self.folder, self.problem, self.data = config, folder, problem, data
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
            text = f"loss {progress.loss:.2f} {current}".rstrip()
            line.update(progress.step, text, share=progress.share)

        with line, self.clock.measuring("supernet_seconds"):
            train_supernet(
                store,
                config=self.config,
                problem=self.problem,
                data=self.data,
                folder=self.folder,
                monitor=monitor,
                stop=self.stop,
                on_progress=show,
                loader_workers=self.execution.loader_workers,
            )

    def trained_store(self) -> Store:
        """The store with its final weights.

        Raises:
            InputError: If the checkpoint cannot be read.
        """
        path = self.folder.checkpoint
        try:
            weights = load_file(path, device=self.config.device)
        except (OSError, SafetensorError) as error:
            raise InputError(
                f"{path}: cannot be read ({error}); delete it to train again"
            ) from None
        return Store(
            self.config.space,
            num_classes=self.data.num_classes,
            device=self.config.device,
            weights=weights,
        )

    def search(self, store: Store) -> str:
        """Search, and return why it ended early, if it did."""
        config = self.config
        study = open_study(
            self.folder.journal,
            sampler=config.sampler,
            seed=config.seed,
            trials=config.trials,
            with_latency=config.latency_ms is not None,
        )
        done = [record for record in records(study).values() if record.state == "evaluated"]
        if len(done) >= config.trials:
            self.console.print("search: done already", highlight=False)
            return ""

        def measure(architecture: Architecture) -> Latency:
            return measure_latency(store.extract(architecture), latency_conditions(self.config))

        with (
            self.clock.measuring("search_seconds"),
            self._workers(store) as workers,
            LiveLine(self.console, "searching", total=config.trials, done=len(done)) as line,
        ):
            search = Search(
                study,
                problem=self.problem,
                workers=workers,
                measure=measure if config.latency_ms is not None else None,
                trials=config.trials,
                seed=config.seed,
            )
            status = _SearchStatus(self.problem, list(search.decided.values()))

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

    def facts(self, command: str, notes: list[str]) -> RunFacts:
        """What the report needs to know of this run."""
        config, problem = self.config, self.problem
        return RunFacts(
            command=command,
            data=self.data.name,
            num_classes=self.data.num_classes,
            search_images=len(self.labels),
            space=config.space.name,
            space_size=config.space.count(),
            limits=asdict(config.limits),
            smallest_macs=problem.cost(problem.extreme(lambda cost: cost.macs)).macs,
            largest_macs=problem.cost(problem.extreme(lambda cost: -cost.macs)).macs,
            image_size=config.image_size,
            proxy_size=config.proxy_size,
            sampler=config.sampler,
            seed=config.seed,
            device=config.device,
            supernet_steps=config.steps,
            supernet_seconds=self.clock.seconds("supernet_seconds"),
            search_seconds=self.clock.seconds("search_seconds"),
            latency_conditions=str(latency_conditions(config)) if config.latency_ms else "",
            notes=tuple(notes),
        )

    def export(self, store: Store, facts: RunFacts) -> None:
        """Export the front and the best, where anything was evaluated."""
        study = load_study(self.folder.journal)
        trials = trials_table(study)
        front = pareto_front(trials, facts.objectives)
        if front.empty:
            return
        # The best stands first even where another is as accurate at lower latency.
        front = front.sort_values(["accuracy", "macs"], ascending=[False, True])
        assert front.iloc[0]["hash"] == best(trials)["hash"]
        architectures = {
            record.hash: Architecture.model_validate(record.architecture)
            for record in records(study).values()
        }
        export_front(
            self.folder,
            store,
            front.to_dict("records"),
            problem=self.problem,
            data=self.data,
            facts=facts,
            architectures=architectures,
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

    def __init__(self, problem: Problem, decided: list[Record]) -> None:
        self.problem = problem
        self.feasible, self.infeasible = 0, 0
        self.points: dict[str, list[float]] = {}
        self.best: Record | None = None
        largest = problem.cost(problem.extreme(lambda cost: -cost.macs)).macs
        self._scales = [1.0, problem.limits.macs or largest, problem.limits.latency_ms or 1.0]
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
            values = record.objectives
            self.points[record.hash] = [
                v / scale for v, scale in zip(values, self._scales, strict=False)
            ]
            better = self.best is None or (record.accuracy or 0) > (self.best.accuracy or 0)
            self.best = record if better else self.best
        if self.best is not None:
            points = list(self.points.values())
            volume = hypervolume(points, [0.0] + [1.0] * (len(points[0]) - 1))
            share = self.feasible / (self.feasible + self.infeasible)
            self.text = (
                f"feasible {share:.0%} · best {self.best.accuracy or 0:.1%} at "
                f"{format_count(self.best.macs)}MACs · hypervolume {volume:.3f}"
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
