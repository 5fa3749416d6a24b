"""The study in the run folder: Optuna's journal, and what each trial's record holds.

Everything that is known of a trial stands in the journal before anything else is told, so that a
process may be killed at any moment. A trial's record is one user attribute, written when the trial
is decided; a trial without a record was not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.config import SamplerName
from nas.report import LatencyColumns, trial_columns
from nas.units import latency_name
from search_space import Architecture, SearchSpace

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

State = Literal["evaluated", "infeasible", "duplicate", "failed"]

_NAME = "search"
_RECORD, _SOURCE, _MEASURED = "record", "source", "measured"


@dataclass(frozen=True, kw_only=True)
class MeasuredLatency:
    """A latency measured on the extracted network.

    Attributes:
        median_ms: Median, in milliseconds for one forward pass.
        iqr_ms: Interquartile range.
        unstable: Whether the spread stayed too wide to be trusted.
        excess: By how much the median exceeds the limit, relative to it.
        pace: As in `nas.latency.Latency`.
    """

    median_ms: float
    iqr_ms: float
    unstable: bool
    excess: float
    pace: float = 1.0


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
        predicted_ms: Predicted latency of each device that has a limit.
        excess: By how much each limit is exceeded, relative to it; not positive where it is met.
        measured: Latency that was measured, by device; in the journal it stands apart.
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
    predicted_ms: dict[str, float] = field(default_factory=dict)
    excess: dict[str, float]
    measured: dict[str, MeasuredLatency] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def latency_ms(self) -> dict[str, float]:
        """Latency by device: measured where it was, else predicted."""
        return self.predicted_ms | {d: latency.median_ms for d, latency in self.measured.items()}

    @property
    def objectives(self) -> list[float]:
        """The values that Optuna is told; the latency of each device with a limit is among them."""
        assert self.accuracy is not None
        return [self.accuracy, float(self.macs), *self.latency_ms.values()]

    @property
    def was_evaluated(self) -> bool:
        """Whether it has an accuracy of its own, even if it was found to be too slow afterwards."""
        return self.accuracy is not None and self.state != "duplicate"

    @property
    def violation(self) -> str:
        """The limits that are exceeded and by how much, for people.

        A prediction within its margin is no violation.
        """
        if self.state != "infeasible":
            return ""
        return ", ".join(
            f"{name} {excess:+.1%} over" for name, excess in self.excess.items() if excess > 0
        )


def open_study(
    journal: Path, *, sampler: SamplerName, seed: int, trials: int, latencies: int
) -> optuna.Study:
    """Create or reopen the study of a run folder that this process holds.

    Args:
        journal: Its file.
        sampler: Which sampler proposes.
        seed: Of the run. The sampler's own seed also depends on the number of trials so far: one
            that is reopened with its first seed would propose its first trials again.
        trials: Evaluations that the search will make, which set the size of a population.
        latencies: Devices with a limit on latency, each an objective.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    _mend(journal)
    storage = JournalStorage(JournalFileBackend(str(journal), lock_obj=_FolderIsHeld(str(journal))))
    study = optuna.create_study(
        storage=storage,
        study_name=_NAME,
        directions=[StudyDirection.MAXIMIZE] + [StudyDirection.MINIMIZE] * (1 + latencies),
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
    trial.set_user_attr(_RECORD, {k: v for k, v in asdict(record).items() if k != "measured"})
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


def keep_measured(
    study: optuna.Study, architecture: str, device: str, latency: MeasuredLatency
) -> None:
    """Keep the latency of an architecture, named by its hash, that was told long ago."""
    study.set_user_attr(f"{_MEASURED} {architecture} {device}", asdict(latency))


def records(study: optuna.Study) -> dict[int, Record]:
    """The records of all decided trials by number, with what was measured later.

    What was measured to exceed a limit is infeasible, though it has an accuracy.
    """
    measured: dict[str, dict[str, MeasuredLatency]] = {}
    for name, value in study.user_attrs.items():
        kind, _, rest = name.partition(" ")
        if kind == _MEASURED:
            architecture, _, device = rest.partition(" ")
            measured.setdefault(architecture, {})[device] = MeasuredLatency(**value)
    found = {t.number: record_of(t) for t in study.get_trials(deepcopy=False)}
    return {
        number: _with_measured(record, measured.get(record.hash, {}))
        for number, record in found.items()
        if record is not None
    }


def _with_measured(record: Record, measured: dict[str, MeasuredLatency]) -> Record:
    if not measured:
        return record
    excess = {latency_name(device): latency.excess for device, latency in measured.items()}
    over = record.state == "evaluated" and any(value > 0 for value in excess.values())
    return replace(
        record,
        measured=measured,
        excess=record.excess | excess,
        state="infeasible" if over else record.state,
    )


def trials_table(study: optuna.Study, devices: Sequence[str]) -> pd.DataFrame:
    """One row for each decided trial, as `nas.report` wants them.

    Args:
        study: Whose trials.
        devices: Those with a limit on latency.
    """
    import pandas as pd

    rows = [
        {
            "number": number,
            "hash": record.hash,
            "state": record.state,
            "accuracy": record.accuracy,
            "macs": record.macs,
            "params": record.params,
            "source": record.source,
            "seconds": round(record.seconds, 3),
            "violation": record.violation,
            "summary": Architecture.model_validate(record.architecture).summary,
            **{k: v for device in devices for k, v in _latency_cells(record, device).items()},
        }
        for number, record in records(study).items()
    ]
    table = pd.DataFrame(rows, columns=trial_columns(devices))
    numbers = [name for name in trial_columns(devices) if name.startswith(("acc", "latency_"))]
    table[numbers] = table[numbers].astype(float)
    return table


def _latency_cells(record: Record, device: str) -> dict[str, float | None]:
    measured = record.measured.get(device)
    cells = LatencyColumns(device)
    return {
        cells.value: record.latency_ms.get(device),
        cells.predicted: record.predicted_ms.get(device),
        cells.measured: measured.median_ms if measured else None,
        cells.iqr: measured.iqr_ms if measured else None,
        cells.unstable: float(measured.unstable) if measured else None,
        cells.pace: measured.pace if measured else None,
    }


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
