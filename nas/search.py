"""The search: one driver asks Optuna, checks limits, has candidates evaluated, and tells.

Optuna's constraints are soft; the limits here are hard. What exceeds a closed-form limit, or is
predicted to be too slow beyond doubt, is never evaluated. What reaches the front is measured, and
infeasible if it is too slow.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import optuna
from optuna.trial import Trial

from nas.interrupt import StopRequest
from nas.latency import Latency
from nas.problem import Problem
from nas.report import RANDOM_SOURCE, pareto_front
from nas.study import (
    MeasuredLatency,
    Record,
    State,
    decide,
    enqueue,
    keep_measured,
    records,
    recover,
    source_of,
    trials_table,
)
from nas.units import latency_name
from nas.workers import Score, Workers
from search_space import DESIGNS, Architecture
from search_space.space import ENUMERABLE

logger = logging.getLogger(__name__)

PATIENCE = 20
"""Proposals in a row that bring nothing new before the driver proposes a feasible one itself."""

FAILURES = 10
"""Evaluations in a row that fail before the search gives up."""

ASKS_PER_TRIAL = 40
"""Proposals allowed for each evaluation wanted; the search ends when they are used up."""

MeasureLatency = Callable[[Architecture, str], Latency]
"""Measures an architecture's latency on a device."""


@dataclass
class _Candidate:
    """A proposal to be evaluated, and the trials that proposed the same meanwhile."""

    trial: Trial
    architecture: Architecture
    started: float
    twins: list[Trial] = field(default_factory=list)


class Search:
    """One search over a study; `run` brings it to its end or to a requested stop.

    Args:
        study: From `open_study`.
        problem: The space under its limits.
        workers: Who evaluates.
        trials: Architectures to evaluate, those of earlier processes included.
        seed: Of the driver's own proposals.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        problem: Problem,
        workers: Workers,
        trials: int,
        seed: int,
    ) -> None:
        self.study, self.problem, self.workers = study, problem, workers
        self.trials, self.seed = trials, seed
        again = recover(study, problem.space)
        if again:
            logger.info("%d evaluations were cut off; they come first", again)
        self.decided = records(study)
        self._known = {
            record.hash: record
            for record in self.decided.values()
            if record.state
            in ("evaluated", "infeasible")  # what failed may succeed in a new process
        }
        self._under_way: dict[int, _Candidate] = {}
        self._fruitless, self._failures = 0, 0
        self._enqueue_first()

    def run(self, *, stop: StopRequest, on_decided: Callable[[Record], None]) -> str:
        """Search until enough architectures were evaluated.

        Args:
            stop: Looked at between proposals. Evaluations under way are then left to be taken up
                by the next process.
            on_decided: Called for each decided trial.

        Returns:
            Why the search ended early, or an empty string.

        Raises:
            Interrupted: If a stop was requested.
        """
        reachable = self._feasible_count()
        while self._evaluated < self.trials:
            stop.check()
            if self._evaluated >= reachable:
                return f"all {reachable} architectures that meet the limits were evaluated"
            if self._failures >= FAILURES:
                return f"{FAILURES} evaluations in a row failed"
            asked = len(self.study.get_trials(deepcopy=False))
            exhausted = asked >= ASKS_PER_TRIAL * self.trials
            if exhausted and not self._under_way:
                return f"{asked} proposals brought only {self._evaluated} new feasible ones"
            if not exhausted and self._may_propose(reachable):
                self._propose(on_decided)
            elif (done := self.workers.next_score(timeout=0.5)) is not None:
                self._finish(*done, on_decided)
        return ""

    @property
    def _evaluated(self) -> int:
        return sum(record.was_evaluated for record in self._known.values())

    def _may_propose(self, reachable: int) -> bool:
        wanted = min(self.trials, reachable) - self._evaluated
        return len(self._under_way) < min(self.workers.capacity, wanted)

    def _propose(self, on_decided: Callable[[Record], None]) -> None:
        """Ask for one candidate, and decide it at once or have it evaluated."""
        started = time.monotonic()
        if self._fruitless >= PATIENCE:
            self._enqueue_feasible()
            self._fruitless = 0
        trial = self.study.ask()
        architecture = self.problem.space.suggest(trial)
        known = self._known.get(architecture.hash)
        if known is not None:
            self._fruitless += 1
            self._decide_twin(trial, known, on_decided)
            return
        for candidate in self._under_way.values():
            if candidate.architecture.hash == architecture.hash:
                self._fruitless += 1
                candidate.twins.append(trial)
                return
        candidate = _Candidate(trial, architecture, started)
        if not self.problem.admits(architecture):
            self._fruitless += 1
            self._decide(candidate, "infeasible", on_decided)
            return
        self._fruitless = 0
        self._under_way[trial.number] = candidate
        self.workers.submit(trial.number, architecture)

    def _finish(self, number: int, score: Score, on_decided: Callable[[Record], None]) -> None:
        candidate = self._under_way.pop(number)
        state: State = "failed" if score.accuracy is None else "evaluated"
        self._failures = self._failures + 1 if state == "failed" else 0
        record = self._decide(candidate, state, on_decided, score)
        for twin in candidate.twins:
            self._decide_twin(twin, record, on_decided)

    def _decide(
        self,
        candidate: _Candidate,
        state: State,
        on_decided: Callable[[Record], None],
        score: Score | None = None,
    ) -> Record:
        cost = self.problem.cost(candidate.architecture)
        predicted = self.problem.predict(candidate.architecture)
        record = Record(
            state=state,
            architecture=candidate.architecture.model_dump(mode="json"),
            hash=candidate.architecture.hash,
            macs=cost.macs,
            params=cost.params,
            source=source_of(candidate.trial),
            accuracy=score.accuracy if score else None,
            predicted_ms=predicted,
            excess=self.problem.limits.excess(cost, predicted),
            seconds=time.monotonic() - candidate.started,
            error=score.error if score else "",
        )
        self._tell(candidate.trial, record, on_decided)
        self._known[record.hash] = record
        return record

    def _decide_twin(
        self, trial: Trial, known: Record, on_decided: Callable[[Record], None]
    ) -> None:
        """Answer a proposal from what is known of the same architecture."""
        state: State = "duplicate" if known.was_evaluated else known.state
        twin = Record(**{**vars(known), "state": state, "source": source_of(trial), "seconds": 0.0})
        self._tell(trial, twin, on_decided)

    def _tell(self, trial: Trial, record: Record, on_decided: Callable[[Record], None]) -> None:
        decide(self.study, trial, record)
        self.decided[trial.number] = record
        on_decided(record)

    def _enqueue_first(self) -> None:
        """The landmarks of the space, and the published designs that it contains."""
        problem = self.problem
        first = {
            "largest": problem.largest(),
            "smallest": problem.smallest(),
            "middle": problem.middle(),
        }
        for design in DESIGNS:
            if design.architecture in problem.space and problem.admits(design.architecture):
                first[design.name] = design.architecture
        there = {source_of(trial) for trial in self.study.get_trials(deepcopy=False)}
        for source, architecture in first.items():
            if source not in there:
                enqueue(self.study, problem.space.genotype(architecture), source)

    def _enqueue_feasible(self) -> None:
        """A feasible candidate of the driver's own, where the sampler finds none."""
        rng = random.Random(f"{self.seed}-{len(self.study.get_trials(deepcopy=False))}")
        space = self.problem.space
        candidates: list[Architecture]
        if space.count() <= ENUMERABLE:
            candidates = [a for a in space.enumerate() if self.problem.admits(a)]
        else:
            candidates = [self.problem.sample(rng) for _ in range(PATIENCE)]
        new = [candidate for candidate in candidates if candidate.hash not in self._known]
        if new:
            enqueue(self.study, space.genotype(rng.choice(new)), RANDOM_SOURCE)

    def _feasible_count(self) -> int:
        """How many architectures meet the closed-form limits, where the space can be listed."""
        space = self.problem.space
        if space.count() > ENUMERABLE:
            return space.count()
        return sum(self.problem.admits(architecture) for architecture in space.enumerate())


def measure_front(
    study: optuna.Study,
    problem: Problem,
    measure: MeasureLatency,
    *,
    stop: StopRequest,
    on_measured: Callable[[Record, str, MeasuredLatency], None],
) -> None:
    """Measure the latency of whatever is on the front until all of the front is measured.

    What is measured to be over a limit leaves the front, and what takes its place is measured too.
    Nothing may run on the devices meanwhile: the caller sees to that.

    Args:
        study: Of a search that is over.
        problem: Under which it searched; devices that are not here are passed over.
        measure: Measures one.
        stop: Looked at before every measurement.
        on_measured: Called after every measurement with what was known before it.

    Raises:
        Interrupted: If a stop was requested; what was measured is kept.
    """
    devices = list(problem.limits.latency_ms)
    objectives = ("accuracy", "macs", *map(latency_name, devices))
    while True:
        known = records(study)
        front = pareto_front(trials_table(study, devices), objectives)
        waiting = [
            (known[number], device)
            for number in front["number"]
            for device in devices
            if device in problem.measured and device not in known[number].measured
        ]
        if not waiting:
            return
        # The most accurate first: the best one is among them.
        record, device = max(waiting, key=lambda pair: pair[0].accuracy or 0.0)
        stop.check()
        latency = measure(Architecture.model_validate(record.architecture), device)
        measured = MeasuredLatency(
            median_ms=latency.median_ms,
            iqr_ms=latency.iqr_ms,
            unstable=latency.unstable,
            excess=latency.median_ms / problem.limits.latency_ms[device] - 1,
            pace=latency.pace,
        )
        keep_measured(study, record.hash, device, measured)
        on_measured(record, device, measured)
