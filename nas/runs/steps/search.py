"""The second step of a run: searching with the trained supernet."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.objective import MACS
from nas.runs.config import RunConfig
from nas.runs.job import Job
from nas.search.driver import Search
from nas.search.evaluation import EvaluationSetup
from nas.search.front import full_scales, hypervolume
from nas.search.ray_workers import RayWorkers
from nas.search.study import open_study, records, undecided
from nas.search.trials import Record
from nas.search.workers import InProcess, Workers
from nas.utilities.progress import LiveLine
from supernet import Store, count_shared_weights

logger = logging.getLogger(__name__)


def search(job: Job, store: Store) -> str:
    """Search, and return why it ended early, if it did."""
    config = job.config
    study = open_study(
        job.folder.journal,
        sampler=config.sampler,
        seed=config.seed,
        trials=config.trials,
        constrained=job.constrained,
    )
    done = [record for record in records(study).values() if record.was_evaluated]
    if len(done) >= config.trials and not undecided(study):
        job.console.print("search: done already")
        return ""

    with (
        job.clock.measuring("search_seconds"),
        _workers(job, store) as workers,
        LiveLine(job.console, "searching", total=config.trials, done=len(done)) as line,
    ):
        search = Search(
            study,
            constrained=job.constrained,
            workers=workers,
            trials=config.trials,
            seed=config.seed,
            settings=config.search,
        )
        status = SearchStatus(job.constrained, list(search.decided.values()))

        def show(record: Record) -> None:
            status.add(record)
            line.update(status.evaluated, status.text)
            if record.state == "evaluated":
                job.scalars.write("search", status.evaluated, status.scalars)

        ended = search.run(stop=job.stop, on_decided=show)
    if failed := [r for r in search.decided.values() if r.state == "failed"]:
        why = failed[-1].failure
        job.console.print(f"{len(failed)} evaluations failed, the last with: {why}", style="red")
    if ended:
        logger.warning("the search ended early: %s", ended)
        ended = f"the search ended early: {ended}"
        job.console.print(ended, style="yellow")
    return ended


def shared_bytes(config: RunConfig, data: Data) -> int:
    """What workers will share, before it is there: weights and images."""
    images = min(config.search_images, len(data.search)) * 3 * config.proxy_size**2
    return images + 4 * count_shared_weights(config.space, num_classes=data.num_classes)


@contextmanager
def _workers(job: Job, store: Store) -> Iterator[Workers]:
    setup = EvaluationSetup(
        space=job.config.space,
        num_classes=job.data.num_classes,
        weights=store.state_dict(),
        images=job.images,
        labels=job.labels,
        mean=job.data.mean,
        std=job.data.std,
        device=job.config.device,
        threads=job.config.threads,
    )
    workers: Workers
    if job.execution.workers == 0:
        workers = InProcess(setup)
    else:
        with job.console.status("starting Ray") if job.console.is_terminal else nullcontext():
            # More than a batch holds would have nothing to do.
            count = min(job.execution.workers, job.config.search.batch)
            workers = RayWorkers(setup, count=count, cluster=job.cluster)
    try:
        yield workers
    finally:
        workers.close()


class SearchStatus:
    """What is told of a search meanwhile: feasible share, best so far, hypervolume."""

    def __init__(self, constrained: ConstrainedSpace, decided: Sequence[Record]) -> None:
        self.constrained = constrained
        self.feasible, self.infeasible = 0, 0
        self.points: dict[str, list[float]] = {}
        self.best: Record | None = None
        self._searched = [o for o in constrained.objectives if o.searched]
        self._scales = full_scales(self._searched, constrained.reachable)
        self.text = ""
        self.scalars: dict[str, float] = {}
        for record in decided:
            self.add(record)

    @property
    def evaluated(self) -> int:
        """How many architectures have an accuracy."""
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
            accuracy = self.best.accuracy or 0.0
            self.scalars = {"search/best_accuracy": accuracy, "search/hypervolume": volume}
            share = self.feasible / (self.feasible + self.infeasible)
            self.text = (
                f"feasible {share:.0%} · best {accuracy:.1%} at "
                f"{MACS.amount(self.best.costs[MACS.name])} · hypervolume {volume:.3f}"
            )
