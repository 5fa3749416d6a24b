"""The study in the run folder: Optuna's journal, and what each trial's record holds.

Everything that is known of a trial stands in the journal before anything else is told, so that a
process may be killed at any moment. A trial's record is one user attribute, written when the trial
is decided; a trial without a record was not.
"""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.config import SamplerName
from nas.report import TRIAL_COLUMNS
from search_space import Architecture, SearchSpace

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

State = Literal["evaluated", "infeasible", "duplicate", "failed"]

_NAME = "search"
_RECORD, _SOURCE = "record", "source"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What is known of a decided trial.

    Attributes:
        state: How it was decided; an infeasible one is over a limit, a duplicate repeats an
            architecture that was evaluated before.
        architecture: The architecture, as JSON data.
        hash: Its hash.
        macs: Multiply-adds at the run's image size.
        params: Parameters.
        source: Who proposed it.
        accuracy: On the search split, 0 to 1.
        latency_ms: Median latency, where measured.
        latency_iqr_ms: Its interquartile range.
        excess: By how much each limit is exceeded, relative to it; not positive where it is met.
        seconds: From proposal to decision.
        error: The traceback of a failed evaluation.
    """

    state: State
    architecture: dict[str, Any]
    hash: str
    macs: int
    params: int
    source: str
    accuracy: float | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    excess: dict[str, float]
    seconds: float = 0.0
    error: str = ""

    @property
    def objectives(self) -> list[float]:
        """The values that Optuna is told; latency is among them where it is limited."""
        assert self.accuracy is not None
        values = [self.accuracy, float(self.macs)]
        if "latency_ms" in self.excess:
            assert self.latency_ms is not None
            values.append(self.latency_ms)
        return values

    @property
    def violation(self) -> str:
        """The limits that are exceeded and by how much, for people."""
        return ", ".join(
            f"{name} {excess:+.1%} over" for name, excess in self.excess.items() if excess > 0
        )


def open_study(
    journal: Path, *, sampler: SamplerName, seed: int, trials: int, with_latency: bool
) -> optuna.Study:
    """Create or reopen the study of a run folder that this process holds.

    Args:
        journal: Its file.
        sampler: Which sampler proposes.
        seed: Of the run. The sampler's own seed also depends on the number of trials so far: one
            that is reopened with its first seed would propose its first trials again.
        trials: Evaluations that the search will make, which set the size of a population.
        with_latency: Whether latency is an objective.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_FolderIsHeld(str(journal))))
    study = optuna.create_study(
        storage=storage,
        study_name=_NAME,
        directions=[StudyDirection.MAXIMIZE] + [StudyDirection.MINIMIZE] * (1 + with_latency),
        load_if_exists=True,
    )
    sampler_seed = (seed * 1_000_003 + len(study.get_trials(deepcopy=False))) % 2**32
    study.sampler = _sampler(sampler, sampler_seed, trials)
    return study


def load_study(journal: Path) -> optuna.Study:
    """The study of a run folder, to be read."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(journal)))
    return optuna.load_study(storage=storage, study_name=_NAME)


def decide(study: optuna.Study, trial: Trial, record: Record) -> None:
    """Write a trial's record, then tell Optuna.

    What exceeds a limit is told as pruned, with its constraints: such a trial has no accuracy.
    """
    for name, excess in record.excess.items():
        trial.set_constraint(name, excess)
    trial.set_user_attr(_RECORD, asdict(record))
    _tell(study, trial.number, record)


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


def recover(study: optuna.Study, space: SearchSpace) -> int:
    """Bring a study over a space in order whose process was killed.

    A trial that has its record is told. One that has not is failed and its proposal enqueued again;
    one that was killed while it was being proposed is failed.

    Returns:
        The number of proposals enqueued again.
    """
    again = 0
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        record = record_of(trial)
        if record is not None:
            _tell(study, trial.number, record)
            continue
        proposal = trial.system_attrs.get("fixed_params") or trial.params
        if proposal.keys() >= space.genes.keys():
            # Before it is told: twice in the queue costs nothing, not at all loses the proposal.
            enqueue(study, dict(proposal), source_of(trial))
            again += 1
        study.tell(trial.number, state=TrialState.FAIL)
    return again


def records(study: optuna.Study) -> dict[int, Record]:
    """The records of all decided trials by number."""
    found = {t.number: record_of(t) for t in study.get_trials(deepcopy=False)}
    return {number: record for number, record in found.items() if record is not None}


def trials_table(study: optuna.Study) -> pd.DataFrame:
    """One row for each decided trial, as `nas.report` wants them."""
    import pandas as pd

    rows = [
        {
            "number": number,
            "hash": record.hash,
            "state": record.state,
            "accuracy": record.accuracy,
            "macs": record.macs,
            "params": record.params,
            "latency_ms": record.latency_ms,
            "latency_iqr_ms": record.latency_iqr_ms,
            "source": record.source,
            "seconds": round(record.seconds, 3),
            "violation": record.violation,
            "summary": Architecture.model_validate(record.architecture).summary,
        }
        for number, record in records(study).items()
    ]
    table = pd.DataFrame(rows, columns=list(TRIAL_COLUMNS))
    measured = ["accuracy", "latency_ms", "latency_iqr_ms"]
    table[measured] = table[measured].astype(float)
    return table


def _tell(study: optuna.Study, number: int, record: Record) -> None:
    match record.state:
        case "evaluated" | "duplicate":
            study.tell(number, record.objectives)
        case "infeasible":
            study.tell(number, state=TrialState.PRUNED)
        case "failed":
            study.tell(number, state=TrialState.FAIL)


def _sampler(name: SamplerName, seed: int, trials: int) -> optuna.samplers.BaseSampler:
    match name:
        case "nsga2":
            # Some five generations, as far as the number of trials allows.
            population = min(50, max(8, trials // 5))
            return optuna.samplers.NSGAIISampler(population_size=population, seed=seed)
        case "tpe":
            return optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        case "random":
            return optuna.samplers.RandomSampler(seed=seed)


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
