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

from nas.objectives.constrained_space import ConstrainedSpace
from nas.search.evaluation import Score
from nas.search.settings import DEFAULT_SEARCH, SearchSettings
from nas.search.study import decide, enqueue, records, recover, source_of
from nas.search.trials import RANDOM_SOURCE, Record, State
from nas.search.workers import Workers
from nas.utilities.interrupt import StopRequest
from search_space import DESIGNS, Architecture
from search_space.space import ENUMERABLE

logger = logging.getLogger(__name__)


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
        constrained: The space under its limits.
        workers: Who evaluates.
        trials: Architectures to evaluate, those of earlier processes included.
        seed: Of the driver's own proposals.
        settings: When the driver steps in, and when it gives up.
    """

    def __init__(
        self,
        study: optuna.Study,
        *,
        constrained: ConstrainedSpace,
        workers: Workers,
        trials: int,
        seed: int,
        settings: SearchSettings = DEFAULT_SEARCH,
    ) -> None:
        self.study, self.constrained, self.workers = study, constrained, workers
        self.trials, self.seed, self.settings = trials, seed, settings
        again = recover(study, constrained.space)
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
            if self._failures >= self.settings.failures:
                return f"{self.settings.failures} evaluations in a row failed"
            asked = len(self.study.get_trials(deepcopy=False))
            exhausted = asked >= self.settings.asks_per_trial * self.trials
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
        if self._fruitless >= self.settings.patience:
            self._enqueue_feasible()
            self._fruitless = 0
        trial = self.study.ask()
        architecture = self.constrained.space.suggest(trial)
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
        if not self.constrained.admits(architecture):
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
        costs = self.constrained.costs(candidate.architecture)
        predicted = self.constrained.predict(candidate.architecture)
        record = Record(
            state=state,
            architecture=candidate.architecture.model_dump(mode="json"),
            hash=candidate.architecture.hash,
            costs=costs,
            source=source_of(candidate.trial),
            accuracy=score.accuracy if score else None,
            predicted=predicted,
            excess=self.constrained.limits.excess(costs | predicted),
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
        constrained = self.constrained
        first = {
            "largest": constrained.largest(),
            "smallest": constrained.smallest(),
            "middle": constrained.middle(),
        }
        for design in DESIGNS:
            if design.architecture in constrained.space and constrained.admits(design.architecture):
                first[design.name] = design.architecture
        there = {source_of(trial) for trial in self.study.get_trials(deepcopy=False)}
        for source, architecture in first.items():
            if source not in there:
                enqueue(self.study, constrained.space.genotype(architecture), source)

    def _enqueue_feasible(self) -> None:
        """A feasible candidate of the driver's own, where the sampler finds none."""
        rng = random.Random(f"{self.seed}-{len(self.study.get_trials(deepcopy=False))}")
        space = self.constrained.space
        candidates: list[Architecture]
        if space.count() <= ENUMERABLE:
            candidates = [a for a in space.enumerate() if self.constrained.admits(a)]
        else:
            candidates = [self.constrained.sample(rng) for _ in range(self.settings.patience)]
        under_way = {candidate.architecture.hash for candidate in self._under_way.values()}
        seen = self._known.keys() | under_way
        new = [candidate for candidate in candidates if candidate.hash not in seen]
        if new:
            enqueue(self.study, space.genotype(rng.choice(new)), RANDOM_SOURCE)

    def _feasible_count(self) -> int:
        """How many architectures meet the closed-form limits, where the space can be listed."""
        space = self.constrained.space
        if space.count() > ENUMERABLE:
            return space.count()
        return sum(self.constrained.admits(architecture) for architecture in space.enumerate())
