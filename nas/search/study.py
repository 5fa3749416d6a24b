"""The study in the run folder: Optuna's journal, and what each trial's record holds.

Everything that is known of a trial stands in the journal before anything else is told, so that a
process may be killed at any moment. A trial's record is one user attribute, written when the trial
is decided; a trial without a record was not. Optuna is told later, when all of a batch is decided.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState
from pydantic import TypeAdapter, ValidationError

from nas.objectives.constrained_space import ConstrainedSpace
from nas.search.samplers import SAMPLERS
from nas.search.trials import RECORD, MeasuredLatency, Record, Tried
from nas.utilities.bounds import Count
from nas.utilities.errors import InputError
from nas.utilities.files import replacing
from search_space import Architecture
from search_space.architecture import first_error

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

_TRIED_OUT, _FINALISTS = "short list", "finalists"
_APART = ("measured", "tried", "scratch")
"""Fields of a record that become known after the trial was decided."""

_SOURCE, _MEASURED, _TRIED = "source", "measured", "tried"
_SCRATCH = "scratch"

_CREATE_TRIAL = 4
"""The operation of an entry that creates the next trial, as Optuna numbers them."""

_record, _measured, _tried = TypeAdapter(Record), TypeAdapter(MeasuredLatency), TypeAdapter(Tried)
_hashes, _count = TypeAdapter(list[str]), TypeAdapter(Count)


def open_study(
    journal: Path, *, sampler: str, seed: int, trials: int, constrained: ConstrainedSpace
) -> optuna.Study:
    """Create or reopen the study of a run folder that this process holds.

    A new one is called as the folder is then, so that Optuna's tools tell runs apart.

    Args:
        journal: Its file, which holds no other study.
        sampler: Which of `SAMPLERS` proposes.
        seed: Of the run.
        trials: Evaluations that the search will make, which set the size of a population.
        constrained: The space under its limits. Those of its objectives that are searched for are
            the study's, by their names.

    Raises:
        InputError: If the journal is damaged, or another study's.
    """
    _mend(journal)
    journal.touch()
    searched = [objective for objective in constrained.objectives if objective.searched]
    names = [objective.name for objective in searched]
    directions = [StudyDirection[objective.direction.upper()] for objective in searched]
    storage = _storage(journal)
    study = optuna.create_study(
        storage=storage,
        study_name=_name(storage) or journal.absolute().parent.name,
        directions=directions,
        load_if_exists=True,
    )
    if study.metric_names is None:
        _name_metrics(study, names)
    if (study.metric_names, study.directions) != (names, directions):
        raise _damaged(journal, f"its objectives are {study.metric_names}, not {names}")
    _check(journal, study)
    study.sampler = SAMPLERS[sampler](constrained, seed, trials)
    return study


def load_study(journal: Path) -> optuna.Study:
    """The study of a run folder; only a process that holds the folder may add to it.

    Raises:
        InputError: If there is none, or its journal is damaged.
    """
    if not journal.is_file():  # Optuna would make one
        raise InputError(f"{journal}: no such file; run the search's command again")
    storage = _storage(journal)
    name = _name(storage)
    if name is None:
        raise _damaged(journal, "it holds no study")
    study = optuna.load_study(storage=storage, study_name=name)
    _check(journal, study)
    return study


def keep_record(trial: Trial, record: Record) -> None:
    """Write down what is known of a trial, and by how much it exceeds limits."""
    for name, excess in record.excess.items():
        if name not in trial.constraints:  # else a process that was killed has written it
            trial.set_constraint(name, excess)
    trial.set_user_attr(RECORD, {k: v for k, v in asdict(record).items() if k not in _APART})


def tell(study: optuna.Study, number: int, record: Record) -> None:
    """Tell Optuna of a trial whose record was kept.

    Latencies are told as predicted, as they are in what was kept, even where they were measured
    since. What exceeds a limit is told as pruned, with its constraints: it has no accuracy.
    """
    match record.state:
        case "evaluated" | "duplicate":
            names = study.metric_names
            assert names is not None
            values = replace(record, measured={}).values
            study.tell(number, [values[name] for name in names])
        case "infeasible":
            study.tell(number, state=TrialState.PRUNED)
        case "failed":
            study.tell(number, state=TrialState.FAIL)


def record_of(trial: FrozenTrial) -> Record | None:
    """What is known of a trial; None if it was not decided."""
    data = trial.user_attrs.get(RECORD)
    return None if data is None else _record.validate_python(data)


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


def settle(journal: Path) -> None:
    """Let Optuna's own tools see what was measured to be over a limit: pruned, with the constraint.

    Optuna changes no trial that was told. So where there is such a one, the journal is written
    anew and takes the place of the old one as a whole.
    """
    study = load_study(journal)
    known = records(study)
    trials = study.get_trials(deepcopy=True)
    over = [
        trial
        for trial in trials
        if trial.state == TrialState.COMPLETE
        and any(excess > 0 for excess in known[trial.number].excess.values())
    ]
    if not over:
        return
    for trial in over:
        trial.state, trial.values = TrialState.PRUNED, None
        # A constraint that is there, by a prediction, would stay as it is.
        kept = {k: v for k, v in trial.system_attrs.items() if not k.startswith("constraints")}
        trial.system_attrs = kept
        for name, excess in known[trial.number].excess.items():
            trial.set_constraint(name, excess)
    with replacing(journal) as temporary:
        temporary.touch()
        anew = optuna.create_study(
            storage=_storage(temporary), study_name=study.study_name, directions=study.directions
        )
        _name_metrics(anew, study.metric_names or [])
        for name, value in study.user_attrs.items():
            anew.set_user_attr(name, value)
        for trial in trials:
            anew.add_trial(trial)


def keep_tried(study: optuna.Study, architecture: str, tried: Tried) -> None:
    """Keep what training alone gave, in the place of what it had given after fewer steps.

    The architecture is named by its hash.
    """
    study.set_user_attr(f"{_TRIED} {architecture}", asdict(tried))


def keep_scratch(study: optuna.Study, architecture: str, tried: Tried) -> None:
    """Keep what training from fresh weights gave, likewise."""
    study.set_user_attr(f"{_SCRATCH} {architecture}", asdict(tried))


def finish_tryout(study: optuna.Study, architectures: Sequence[str], finalists: int) -> None:
    """Keep that the tryout of a short list, given by its hashes, is over.

    Args:
        study: Of the run.
        architectures: The short list.
        finalists: How many of them were wanted for the final.
    """
    study.set_user_attr(_FINALISTS, finalists)
    study.set_user_attr(_TRIED_OUT, list(architectures))


def tried_out(study: optuna.Study, architectures: Sequence[str], finalists: int) -> bool:
    """Whether that is the tryout that is over."""
    return (_listed(study), _finalists(study)) == (list(architectures), finalists)


def _listed(study: optuna.Study) -> list[str]:
    """The hashes of the short list whose tryout is over; none if there is no such."""
    return _hashes.validate_python(study.user_attrs.get(_TRIED_OUT, []))


def _finalists(study: optuna.Study) -> int:
    return _count.validate_python(study.user_attrs.get(_FINALISTS, 0))


def records(study: optuna.Study) -> dict[int, Record]:
    """The records of all decided trials by number, with what was measured and tried later.

    What was measured to exceed a limit is infeasible, though it has an accuracy.
    """
    measured: dict[str, dict[str, MeasuredLatency]] = {}
    tried: dict[str, Tried] = {}
    scratch: dict[str, Tried] = {}
    for name, value in study.user_attrs.items():
        kind, _, rest = name.partition(" ")
        if kind == _MEASURED:
            architecture, _, objective = rest.partition(" ")
            latency = _measured.validate_python(value)
            measured.setdefault(architecture, {})[objective] = latency
        elif kind == _TRIED:
            tried[rest] = _tried.validate_python(value)
        elif kind == _SCRATCH:
            scratch[rest] = _tried.validate_python(value)
    found = {t.number: record_of(t) for t in study.get_trials(deepcopy=False)}
    return {
        number: replace(
            _with_measured(record, measured.get(record.hash, {})),
            tried=tried.get(record.hash),
            scratch=scratch.get(record.hash),
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


def with_genes(trials: pd.DataFrame, study: optuna.Study) -> pd.DataFrame:
    """A table of trials with a column for each gene behind the others, such as `stage1.depth`.

    Names and values are those of Optuna's parameters: what was chosen, also where it has no effect.
    """
    import pandas as pd

    chosen = {trial.number: trial.params for trial in study.get_trials(deepcopy=False)}
    genes = pd.DataFrame([chosen[number] for number in trials["number"]], index=trials.index)
    return trials.join(genes)


def _name(storage: JournalStorage) -> str | None:
    """The name of the study in a journal; None if there is none yet."""
    return next(iter(optuna.get_all_study_names(storage)), None)


def _name_metrics(study: optuna.Study, names: list[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # as Optuna calls it since 3.2
        study.set_metric_names(names)


class _Journal(BaseJournalBackend):
    """A journal for Optuna: a line of JSON for each entry, as its own backend writes them.

    There is no lock, since who writes holds the run folder. Optuna's takes half of the time of a
    proposal, and one that a killed process left keeps others waiting.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._ends = [0]  # of the lines that were read, in bytes
        self._trials = 0  # that they created

    @property
    def line(self) -> int:
        """The line that was read last, from 1."""
        return len(self._ends) - 1

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The entries behind so many: Optuna asks for each once.

        Raises:
            ValueError: If a line is no entry, or of a trial that no line before has created; Optuna
                would pass over that.
        """
        assert log_number_from == self.line
        with self._path.open("rb") as file:
            file.seek(self._ends[-1])
            for line in file:
                if not line.endswith(b"\n"):  # it is being written
                    return
                self._ends.append(self._ends[-1] + len(line))
                entry = json.loads(line)
                if entry["op_code"] == _CREATE_TRIAL:
                    self._trials += 1
                elif entry.get("trial_id", -1) >= self._trials:
                    raise ValueError("an entry of an unknown trial")
                yield entry

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Add entries that survive the process and the machine."""
        lines = "".join(json.dumps(entry, separators=(",", ":")) + "\n" for entry in logs)
        with self._path.open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())


def _storage(journal: Path) -> JournalStorage:
    """What Optuna makes of a journal.

    Raises:
        InputError: If a line of it is damaged.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    backend = _Journal(journal)
    try:
        return JournalStorage(backend)
    except OSError:
        raise
    except Exception as error:  # of any kind: Optuna takes what it reads for granted
        raise _damaged(journal, f"line {backend.line} is no entry of a study") from error


def _check(journal: Path, study: optuna.Study) -> None:
    """See that all that is known of the trials can be read, and that no evaluation is lost.

    Raises:
        InputError: If not.
    """
    names = study.metric_names or []
    for trial in study.get_trials(deepcopy=False):
        try:
            record = record_of(trial)
            if record is not None:
                Architecture.model_validate(record.architecture)
        except ValidationError as error:
            raise _damaged(journal, f"trial {trial.number}: {first_error(error)}") from None
        if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
            continue
        if record is None:
            raise _damaged(journal, f"trial {trial.number} has lost its record")
        values = [record.values.get(name) for name in names]
        if trial.state == TrialState.COMPLETE and trial.values != values:
            raise _damaged(journal, f"trial {trial.number} has other values than its record")
    try:
        known = {record.hash for record in records(study).values()}
        apart = (name.split(" ") for name in study.user_attrs if name != _TRIED_OUT)
        _finalists(study)
        unknown = {*_listed(study), *(parts[1] for parts in apart if len(parts) > 1)} - known
    except ValidationError as error:
        raise _damaged(journal, first_error(error)) from None
    if unknown:
        raise _damaged(journal, f"no trial is of the architecture {min(unknown)!r}")


def _damaged(journal: Path, why: str) -> InputError:
    """The error for a journal that cannot be relied on."""
    return InputError(
        f"{journal}: damaged: {why}; put back a copy, or cut the file off before the first wrong "
        "line, and the search goes on from there"
    )


def _mend(journal: Path) -> None:
    """Cut off a last line that a killed process left half-written: the next would go on in it."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    end = content.rfind(b"\n") + 1
    if end < len(content):
        logger.warning("%s: dropped a half-written last line", journal)
        with journal.open("r+b") as file:
            file.truncate(end)
