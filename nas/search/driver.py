"""The search: one driver asks Optuna, checks limits, has candidates evaluated, and tells.

It goes by batches: so many are proposed, then evaluated in whatever order, then told in the order
of their numbers, before any more are proposed. So it does not matter who evaluates, and how fast.

Optuna's constraints are soft; the limits here are hard. What exceeds a closed-form limit, or is
predicted to be too slow beyond doubt, is never evaluated. What comes to the short list (without
one, to the front) is measured, and infeasible if it is too slow.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import optuna
from optuna.trial import Trial, TrialState

from nas.objectives.constrained_space import ConstrainedSpace
from nas.search.evaluation import Score
from nas.search.settings import DEFAULT_SEARCH, SearchSettings
from nas.search.study import enqueue, keep_record, records, source_of, tell, undecided
from nas.search.trials import RANDOM_SOURCE, Record, State
from nas.search.workers import Workers
from nas.utilities.interrupt import StopRequest
from search_space import DESIGNS, Architecture
from search_space.space import ENUMERABLE

logger = logging.getLogger(__name__)


@dataclass
class _Candidate:
    """A proposal of the batch.

    Attributes:
        trial: Proposes it.
        architecture: What is proposed.
        repeats: Whether an earlier one of the batch is the same, whose score is its own then.
        started: When its evaluation began.
        record: What its evaluation gave, once it is over.
    """

    trial: Trial
    architecture: Architecture
    repeats: bool
    started: float = 0.0
    record: Record | None = None


class Search:
    """One search over a study; `run` brings it to its end or to a requested stop.

    Args:
        study: From `open_study`.
        constrained: The space under its limits.
        workers: Who evaluates.
        trials: Architectures to evaluate, those of earlier processes included.
        seed: Of the driver's own proposals.
        settings: How many are proposed at once, when the driver steps in, and when it gives up.
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
        self.decided = records(study)
        untold = {trial.number for trial in undecided(study)}
        told = {n: record for n, record in self.decided.items() if n not in untold}
        self._known = {record.hash: record for record in told.values()}
        first: dict[str, int] = {}
        for number, record in told.items():
            if record.accuracy is not None or record.state == "failed":
                first.setdefault(record.hash, number)
        self._newest = max(first.values(), default=-1)
        self._batch: list[_Candidate] = []
        self._failures = 0
        self._enqueue_first()

    def run(self, *, stop: StopRequest, on_decided: Callable[[Record], None]) -> str:
        """Search until enough architectures were evaluated.

        Args:
            stop: Looked at between proposals and between scores. What is left of the batch is then
                taken up by the next process.
            on_decided: Called for each decided trial.

        Returns:
            Why the search ended early, or an empty string.

        Raises:
            Interrupted: If a stop was requested.
        """
        reachable = self._feasible_count()
        if self._resume(on_decided):
            self._evaluate(stop, on_decided)
        while self._evaluated < self.trials:
            if self._evaluated >= reachable:
                return f"all {reachable} architectures that meet the limits were evaluated"
            if self._failures >= self.settings.failures:
                return f"{self.settings.failures} evaluations in a row failed"
            wanted = min(self.trials, reachable) - self._evaluated
            self._propose(min(self.settings.batch, wanted), stop, on_decided)
            if not self._batch:
                return f"{self._asked} proposals brought only {self._evaluated} new feasible ones"
            self._evaluate(stop, on_decided)
        return ""

    @property
    def _evaluated(self) -> int:
        return sum(record.was_evaluated for record in self.decided.values())

    @property
    def _asked(self) -> int:
        trials = self.study.get_trials(deepcopy=False)
        return sum(trial.state != TrialState.WAITING for trial in trials)

    def _resume(self, on_decided: Callable[[Record], None]) -> bool:
        """Take up the batch that a killed process left; whether all of it was proposed.

        It was if one of its evaluations was recorded, which is none of what was known before.
        """
        self._batch.clear()
        for trial in undecided(self.study):
            record = self.decided.get(trial.number)
            if record is None:
                self._take_up(trial, on_decided)
            elif record.hash in self._known or record.state == "infeasible":
                self._tell(trial, record)
            else:
                self._join(trial, Architecture.model_validate(record.architecture), record)
        if self._batch:
            logger.info("%d evaluations were cut off; they come first", len(self._batch))
        return any(candidate.record is not None for candidate in self._batch)

    def _propose(self, size: int, stop: StopRequest, on_decided: Callable[[Record], None]) -> None:
        """Ask until the batch holds so many to be evaluated, or proposals are used up."""
        most = self.settings.asks_per_trial * self.trials
        while sum(not c.repeats for c in self._batch) < size and self._asked < most:
            stop.check()
            self._step_in()
            self._take_up(self.study.ask(), on_decided)

    def _take_up(self, trial: Trial, on_decided: Callable[[Record], None]) -> None:
        """Let a trial choose; decide it at once if nothing is to be evaluated for it."""
        architecture = self.constrained.space.suggest(trial)
        if architecture.hash in self._known:
            self._decide_repeated(trial, architecture, on_decided)
        elif not self.constrained.admits(architecture):
            record = self._record(trial, architecture, "infeasible")
            self._keep(trial, record, on_decided)
            self._tell(trial, record)
        else:
            self._join(trial, architecture)

    def _join(self, trial: Trial, architecture: Architecture, record: Record | None = None) -> None:
        """Let a proposal be one of the batch."""
        repeats = architecture.hash in {c.architecture.hash for c in self._batch}
        if not repeats:
            self._newest = max(self._newest, trial.number)
        self._batch.append(_Candidate(trial, architecture, repeats, record=record))

    def _evaluate(self, stop: StopRequest, on_decided: Callable[[Record], None]) -> None:
        """Have the batch evaluated, and tell of it when all of it is."""
        waiting = deque(c for c in self._batch if not c.repeats and c.record is None)
        under_way: dict[int, _Candidate] = {}
        while waiting or under_way:
            stop.check()
            while waiting and len(under_way) < self.workers.capacity:
                candidate = waiting.popleft()
                candidate.started = time.monotonic()
                under_way[candidate.trial.number] = candidate
                self.workers.submit(candidate.trial.number, candidate.architecture)
            if (done := self.workers.next_score(timeout=0.5)) is not None:
                number, score = done
                candidate = under_way.pop(number)
                candidate.record = self._scored(candidate, score)
                self._keep(candidate.trial, candidate.record, on_decided)
        for candidate in self._batch:
            if candidate.record is None:
                self._decide_repeated(candidate.trial, candidate.architecture, on_decided)
            else:
                failed = candidate.record.state == "failed"
                self._failures = self._failures + 1 if failed else 0
                self._tell(candidate.trial, candidate.record)
        self._batch.clear()

    def _scored(self, candidate: _Candidate, score: Score) -> Record:
        state: State = "failed" if score.accuracy is None else "evaluated"
        return replace(
            self._record(candidate.trial, candidate.architecture, state),
            accuracy=score.accuracy,
            loss=score.loss,
            seconds=time.monotonic() - candidate.started,
            error=score.error,
        )

    def _record(self, trial: Trial, architecture: Architecture, state: State) -> Record:
        costs = self.constrained.costs(architecture)
        predicted = self.constrained.predict(architecture)
        return Record(
            state=state,
            architecture=architecture.model_dump(mode="json"),
            hash=architecture.hash,
            costs=costs,
            source=source_of(trial),
            predicted=predicted,
            excess=self.constrained.limits.excess(costs | predicted),
        )

    def _decide_repeated(
        self, trial: Trial, architecture: Architecture, on_decided: Callable[[Record], None]
    ) -> None:
        """Answer a proposal from what is known of the same architecture."""
        known = self._known[architecture.hash]
        state: State = "duplicate" if known.was_evaluated else known.state
        record = replace(known, state=state, source=source_of(trial), seconds=0.0)
        self._keep(trial, record, on_decided)
        self._tell(trial, record)

    def _keep(self, trial: Trial, record: Record, on_decided: Callable[[Record], None]) -> None:
        keep_record(trial, record)
        self.decided[trial.number] = record
        on_decided(record)

    def _tell(self, trial: Trial, record: Record) -> None:
        tell(self.study, trial.number, record)
        self._known[record.hash] = record

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

    def _step_in(self) -> None:
        """Enqueue a feasible proposal of the driver's own, where the sampler brings nothing new.

        Whether it does is told by the study alone: so it does the same in a process that goes on.
        """
        trials = self.study.get_trials(deepcopy=False)
        fruitless = len(trials) - 1 - self._newest
        if (
            not fruitless
            or fruitless % self.settings.patience
            or trials[-1].state == TrialState.WAITING
        ):
            return
        rng = random.Random(f"{self.seed}-{len(trials)}")
        space = self.constrained.space
        candidates: list[Architecture]
        if space.count() <= ENUMERABLE:
            candidates = [a for a in space.enumerate() if self.constrained.admits(a)]
        else:
            candidates = [self.constrained.sample(rng) for _ in range(self.settings.patience)]
        seen = self._known.keys() | {c.architecture.hash for c in self._batch}
        new = [candidate for candidate in candidates if candidate.hash not in seen]
        if new:
            enqueue(self.study, space.genotype(rng.choice(new)), RANDOM_SOURCE)

    def _feasible_count(self) -> int:
        """How many architectures meet the closed-form limits, where the space can be listed."""
        space = self.constrained.space
        if space.count() > ENUMERABLE:
            return space.count()
        return sum(self.constrained.admits(architecture) for architecture in space.enumerate())
