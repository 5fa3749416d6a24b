"""The study in the run folder: Optuna's journal, and what each trial's record holds.

Everything that is known of a trial stands in the journal before anything else is told, so that a
process may be killed at any moment. A trial's record is one user attribute, written when the trial
is decided; a trial without a record was not. Optuna is told later, when all of a batch is decided.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.objectives.constrained_space import ConstrainedSpace
from nas.search.samplers import SAMPLERS
from nas.search.trials import MeasuredLatency, Record, Tried

logger = logging.getLogger(__name__)

_NAME = "search"
_TRIED_OUT = "short list"
_APART = ("measured", "tried")
"""Fields of a record that become known after the trial was decided."""

_RECORD, _SOURCE, _MEASURED, _TRIED = "record", "source", "measured", "tried"


def open_study(
    journal: Path, *, sampler: str, seed: int, trials: int, constrained: ConstrainedSpace
) -> optuna.Study:
    """Create or reopen the study of a run folder that this process holds.

    Args:
        journal: Its file.
        sampler: Which of `SAMPLERS` proposes.
        seed: Of the run.
        trials: Evaluations that the search will make, which set the size of a population.
        constrained: The space under its limits. Those of its objectives that are searched for are
            the study's, by their names.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_FolderIsHeld(str(journal))))
    searched = [objective for objective in constrained.objectives if objective.searched]
    study = optuna.create_study(
        storage=storage,
        study_name=_NAME,
        directions=[StudyDirection[objective.direction.upper()] for objective in searched],
        load_if_exists=True,
    )
    if study.metric_names is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # as Optuna calls it since 3.2
            study.set_metric_names([objective.name for objective in searched])
    study.sampler = SAMPLERS[sampler](constrained, seed, trials)
    return study


def load_study(journal: Path) -> optuna.Study:
    """The study of a run folder, to be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(storage=storage, study_name=_NAME)


def keep_record(trial: Trial, record: Record) -> None:
    """Write down what is known of a trial, and by how much it exceeds limits."""
    for name, excess in record.excess.items():
        if name not in trial.constraints:  # else a process that was killed has written it
            trial.set_constraint(name, excess)
    trial.set_user_attr(_RECORD, {k: v for k, v in asdict(record).items() if k not in _APART})


def tell(study: optuna.Study, number: int, record: Record) -> None:
    """Tell Optuna of a trial whose record was kept.

    What exceeds a limit is told as pruned, with its constraints: such a trial has no accuracy.
    """
    match record.state:
        case "evaluated" | "duplicate":
            names = study.metric_names
            assert names is not None
            study.tell(number, [record.values[name] for name in names])
        case "infeasible":
            study.tell(number, state=TrialState.PRUNED)
        case "failed":
            study.tell(number, state=TrialState.FAIL)


def record_of(trial: FrozenTrial) -> Record | None:
    """What is known of a trial; None if it was not decided."""
    data = trial.user_attrs.get(_RECORD)
    return Record(**data) if data else None


def source_of(trial: Trial | FrozenTrial) -> str:
    """Who proposed a trial: the name it was enqueued under, or the sampler."""
    return str(trial.user_attrs.get(_SOURCE, "sampler"))


def enqueue(study: optuna.Study, genotype: dict[str, Any], source: str) -> None:
    """Let the next `ask` give this proposal."""
    study.enqueue_trial(genotype, user_attrs={_SOURCE: source})


def undecided(study: optuna.Study) -> list[Trial]:
    """The trials that were not told yet, by number: of a process that was killed.

    Each goes on where it was: what it had chosen it chooses again, the rest is drawn as it would
    have been.
    """
    running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    return [Trial(study, trial._trial_id) for trial in running]


def keep_measured(
    study: optuna.Study, architecture: str, objective: str, latency: MeasuredLatency
) -> None:
    """Keep a latency, named by its objective, of an architecture that was told long ago.

    The architecture is named by its hash.
    """
    study.set_user_attr(f"{_MEASURED} {architecture} {objective}", asdict(latency))


def keep_tried(study: optuna.Study, architecture: str, tried: Tried) -> None:
    """Keep what training alone gave, in the place of what it had given after fewer steps.

    The architecture is named by its hash.
    """
    study.set_user_attr(f"{_TRIED} {architecture}", asdict(tried))


def finish_tryout(study: optuna.Study, architectures: Sequence[str]) -> None:
    """Keep that the tryout of a short list, given by its hashes, is over."""
    study.set_user_attr(_TRIED_OUT, list(architectures))


def tried_out(study: optuna.Study) -> list[str]:
    """The hashes of the short list whose tryout is over; none if there is no such."""
    return list(study.user_attrs.get(_TRIED_OUT, []))


def records(study: optuna.Study) -> dict[int, Record]:
    """The records of all decided trials by number, with what was measured and tried later.

    What was measured to exceed a limit is infeasible, though it has an accuracy.
    """
    measured: dict[str, dict[str, MeasuredLatency]] = {}
    tried: dict[str, Tried] = {}
    for name, value in study.user_attrs.items():
        kind, _, rest = name.partition(" ")
        if kind == _MEASURED:
            architecture, _, objective = rest.partition(" ")
            measured.setdefault(architecture, {})[objective] = MeasuredLatency(**value)
        elif kind == _TRIED:
            tried[rest] = Tried(**value)
    found = {t.number: record_of(t) for t in study.get_trials(deepcopy=False)}
    return {
        number: replace(
            _with_measured(record, measured.get(record.hash, {})), tried=tried.get(record.hash)
        )
        for number, record in found.items()
        if record is not None
    }


def _with_measured(record: Record, measured: dict[str, MeasuredLatency]) -> Record:
    if not measured:
        return record
    excess = {objective: latency.excess for objective, latency in measured.items()}
    over = record.state == "evaluated" and any(value > 0 for value in excess.values())
    return replace(
        record,
        measured=measured,
        excess=record.excess | excess,
        state="infeasible" if over else record.state,
    )


class _FolderIsHeld(JournalFileOpenLock):
    """No lock: this process holds the run folder. Optuna's takes half of the time of a proposal."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process left half-written.

    Optuna would pass over it, append to it, and then be unable to read on.
    """
    if not journal.exists():
        return
    content = journal.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        logger.warning("%s: dropped a half-written last line", journal)
        with journal.open("r+b") as file:
            file.truncate(end)
