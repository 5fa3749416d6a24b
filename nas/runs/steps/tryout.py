"""The fourth step of a run: training the short list alone before anything is chosen."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import optuna

from nas.runs.job import Job
from nas.search.front import best, judged
from nas.search.ray_tryout import climb_on_ray
from nas.search.short_list import short_list
from nas.search.study import (
    finish_tryout,
    keep_scratch,
    keep_tried,
    load_study,
    records,
    tried_out,
)
from nas.search.trials import Record, Tried, trials_table
from nas.search.tryout import (
    Climb,
    FreshWeights,
    Tryout,
    climb_here,
    finalists,
    halve,
    planned_steps,
)
from nas.utilities.progress import LiveLine
from search_space import Architecture
from supernet import Store


def listed(job: Job, known: Mapping[int, Record]) -> list[Record]:
    """The short list of a run, of what is known so far."""
    size = job.config.short_list
    return short_list(known, job.constrained.objectives, job.config.space, size=size)


def tryout(job: Job, store: Store) -> None:
    """Train the short list alone, unless that is done or the user wants none.

    What was on the list of fewer trials goes on from where it was. Those that stand first in the
    end are trained from fresh weights, too.
    """
    config = job.config
    if not config.short_list:
        return
    study = load_study(job.folder.journal)
    candidates = listed(job, records(study))
    hashes = [record.hash for record in candidates]
    if not candidates:  # nothing was evaluated, or all is too slow
        return
    architectures = [Architecture.model_validate(record.architecture) for record in candidates]
    plan = tryout_of(job)
    if tried_out(study, hashes, config.finalists) and all(map(plan.has_begun, architectures)):
        job.console.print("short list: tried already")
    else:
        for architecture in architectures:
            plan.enter(architecture, store)
        failed = _train(job, plan, architectures, told="alone", keep=partial(keep_tried, study))
        # What went further on the list of fewer trials has weights, and an accuracy, of then.
        reached = {a.hash: plan.reached(a) for a in architectures if a.hash not in failed}
        for name, tried in reached.items():
            keep_tried(study, name, tried)
        first = finalists(reached, config.finalists)
        those = [architecture for architecture in architectures if architecture.hash in first]
        if those:
            final, fresh = plan.final, FreshWeights(job.data.num_classes, seed=config.seed)
            for architecture in those:
                final.enter(architecture, fresh)
            keep = partial(keep_scratch, study)
            _train(job, final, those, told="from scratch", keep=keep)
            final.tidy()
        plan.tidy()
        finish_tryout(study, hashes, config.finalists)
    _let_the_winner_climb(job, plan, study, store)


def _let_the_winner_climb(job: Job, plan: Tryout, study: optuna.Study, store: Store) -> None:
    """What is exported as the best has learned for as long as any, also if a final has chosen it.

    If its training fails there, it stays where it was.
    """
    known, objectives = records(study), job.constrained.objectives
    row = best(judged(trials_table(known, objectives)), objectives)
    if math.isnan(row["scratch"]):
        return
    winner = Architecture.model_validate(known[row["number"]].architecture)
    plan.enter(winner, store)
    if plan.reached(winner).steps < plan.settings.milestones[-1]:
        _train(job, plan, [winner], told="alone", keep=partial(keep_tried, study))
        keep_tried(study, winner.hash, plan.reached(winner))
        plan.tidy()


def _train(
    job: Job,
    plan: Tryout,
    architectures: Sequence[Architecture],
    *,
    told: str,
    keep: Callable[[str, Tried], None],
) -> set[str]:
    """Halve candidates, and keep what training gives.

    Args:
        job: The run.
        plan: Of the training, which the architectures have entered.
        architectures: Those first of equals come first.
        told: How they are trained, in words.
        keep: Writes down what an architecture, by its hash, has after a rung.

    Returns:
        The hashes of those that failed.
    """
    steps = planned_steps(plan.settings, len(architectures))
    done = min(steps, sum(plan.reached(architecture).steps for architecture in architectures))
    with (
        job.clock.measuring("tryout_seconds"),
        LiveLine(
            job.console, f"trying {len(architectures)} {told}", total=steps, done=done
        ) as line,
    ):
        show = _Shown(line, done)
        failed: set[str] = set()

        def hand_on(architecture: Architecture, tried: Tried) -> None:
            keep(architecture.hash, tried)
            if tried.accuracy is not None:
                part = f"short_list/{architecture.hash}"
                name = f"accuracy/{told.replace(' ', '_')}"
                job.scalars.write(part, tried.steps, {name: tried.accuracy})
            show.tried(tried)
            if tried.error:
                failed.add(architecture.hash)
                job.console.print(
                    f"{architecture.hash} is not trained {told} any more: {tried.error}",
                    style="yellow",
                )

        climb: Climb
        if job.execution.workers == 0:
            climb = partial(climb_here, tryout=plan, stop=job.stop, on_step=show.trained)
        else:
            climb = partial(
                climb_on_ray,
                tryout=plan,
                workers=job.execution.workers,
                threads=job.config.threads,
                cluster=job.cluster,
                stop=job.stop,
                on_step=show.trained,
            )
        halve(architectures, settings=plan.settings, climb=climb, on_tried=hand_on)
    return failed


def tryout_of(job: Job) -> Tryout:
    """What the tryout of a run works with."""
    return Tryout(
        folder=job.folder.tried.resolve(),
        settings=job.config.tryout,
        data=job.data,
        images=job.images,
        labels=job.labels,
        image_size=job.config.proxy_size,
        batch_size=job.config.batch_size,
        seed=job.config.seed,
        device=job.config.device,
        teacher=job.teacher,
        loader_workers=job.execution.loader_workers,
    )


class _Shown:
    """What the live line says of a tryout: training steps done, and the best so far."""

    def __init__(self, line: LiveLine, done: int) -> None:
        self._line = line
        self._done, self._best = done, Tried(steps=0)

    def trained(self, steps: int) -> None:
        """More steps are done."""
        self._done += steps
        self._show()

    def tried(self, tried: Tried) -> None:
        """A rung is done."""
        if (tried.accuracy or 0) > (self._best.accuracy or 0):
            self._best = tried
        self._show()

    def _show(self) -> None:
        best = self._best
        text = "" if best.accuracy is None else f"best {best.accuracy:.1%} after {best.steps} steps"
        self._line.update(min(self._done, self._line.total), text)
