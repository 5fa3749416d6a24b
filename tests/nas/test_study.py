import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import Trial, TrialState
from runs import NANO, Killed, fake_accuracy, nano_problem

import nas.study
from nas.config import SamplerName
from nas.report import TRIAL_COLUMNS
from nas.study import (
    Record,
    decide,
    enqueue,
    load_study,
    open_study,
    record_of,
    records,
    recover,
    source_of,
    trials_table,
)
from search_space import Architecture

SAMPLERS: tuple[SamplerName, ...] = ("nsga2", "tpe", "random")


def reopened(
    path: Path, *, sampler: SamplerName = "random", seed: int = 0, with_latency: bool = False
) -> optuna.Study:
    """The study in a folder, as a process that comes anew sees it."""
    path.mkdir(exist_ok=True)
    return open_study(
        path / "study.journal", sampler=sampler, seed=seed, trials=40, with_latency=with_latency
    )


def record(architecture: Architecture, **changes: Any) -> Record:
    problem = nano_problem(macs=200_000_000)
    cost = problem.cost(architecture)
    values: dict[str, Any] = {
        "state": "evaluated",
        "architecture": architecture.model_dump(mode="json"),
        "hash": architecture.hash,
        "macs": cost.macs,
        "params": cost.params,
        "source": "sampler",
        "accuracy": fake_accuracy(architecture),
        "excess": problem.limits.excess(cost),
    }
    return Record(**values | changes)


def propose(study: optuna.Study) -> tuple[Trial, Architecture]:
    trial = study.ask()
    return trial, NANO.suggest(trial)


def evaluate(study: optuna.Study, count: int) -> list[dict[str, Any]]:
    """Propose and decide so many trials; what was proposed."""
    proposed = []
    for _ in range(count):
        trial, architecture = propose(study)
        proposed.append(dict(trial.params))
        decide(study, trial, record(architecture))
    return proposed


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials()]


def test_a_record_survives_the_journal(memory_path: Path) -> None:
    study = reopened(memory_path)
    trial, architecture = propose(study)
    written = record(architecture, seconds=1.25, latency_ms=None)
    decide(study, trial, written)
    (read,) = load_study(memory_path / "study.journal").get_trials()
    assert record_of(read) == written
    assert Architecture.model_validate(written.architecture) == architecture
    assert records(reopened(memory_path)) == {0: written}


def test_each_state_is_told_to_optuna_as_what_it_is(memory_path: Path) -> None:
    study = reopened(memory_path)
    told = {
        "evaluated": TrialState.COMPLETE,
        "duplicate": TrialState.COMPLETE,
        "infeasible": TrialState.PRUNED,
        "failed": TrialState.FAIL,
    }
    for state in told:
        trial, architecture = propose(study)
        accuracy = 0.5 if state in ("evaluated", "duplicate") else None
        decide(study, trial, record(architecture, state=state, accuracy=accuracy, error="boom"))
    trials = reopened(memory_path).get_trials()
    assert [trial.state for trial in trials] == list(told.values())
    assert trials[0].values == trials[1].values == [0.5, records(study)[0].macs]


def test_samplers_are_told_by_how_much_a_limit_is_exceeded(memory_path: Path) -> None:
    study = reopened(memory_path)
    trial, architecture = propose(study)
    excess = {"macs": 0.25, "params": -0.5}
    decide(study, trial, record(architecture, state="infeasible", accuracy=None, excess=excess))
    (frozen,) = reopened(memory_path).get_trials()
    assert frozen.constraints == excess


def test_latency_is_an_objective_where_it_is_limited(memory_path: Path) -> None:
    study = reopened(memory_path, with_latency=True)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    trial, architecture = propose(study)
    excess = {"macs": -0.1, "latency_ms": -0.2}
    decide(study, trial, record(architecture, latency_ms=8.0, latency_iqr_ms=0.1, excess=excess))
    (frozen,) = study.get_trials()
    assert frozen.values == [fake_accuracy(architecture), record(architecture).macs, 8.0]
    assert [d.name for d in reopened(memory_path / "other").directions] == ["MAXIMIZE", "MINIMIZE"]


def test_a_violation_names_the_limits_that_are_exceeded() -> None:
    excess = {"macs": 0.251, "params": -0.5, "latency_ms": 0.1}
    violation = record(NANO.scaled(0), excess=excess).violation
    assert violation == "macs +25.1% over, latency_ms +10.0% over"
    assert record(NANO.scaled(0), excess={"macs": 0.0}).violation == ""


def test_the_table_has_one_row_for_each_decided_trial(memory_path: Path) -> None:
    study = reopened(memory_path)
    evaluate(study, 2)
    trial, architecture = propose(study)
    decide(study, trial, record(architecture, state="infeasible", accuracy=None))
    study.ask()  # under way
    table = trials_table(study)
    assert tuple(table.columns) == TRIAL_COLUMNS
    assert table["number"].tolist() == [0, 1, 2]
    assert table["state"].tolist() == ["evaluated", "evaluated", "infeasible"]
    assert table["accuracy"].isna().tolist() == [False, False, True]
    assert table["latency_ms"].isna().all()
    assert table["summary"][2] == architecture.summary
    assert table["hash"][2] == architecture.hash
    assert trials_table(reopened(memory_path / "empty")).empty


def test_a_proposal_that_was_enqueued_comes_next_with_its_source(memory_path: Path) -> None:
    study = reopened(memory_path)
    largest = NANO.scaled(1.0)
    enqueue(study, NANO.genotype(largest), "largest")
    trial, architecture = propose(study)
    assert architecture == largest
    assert source_of(trial) == "largest"
    assert source_of(propose(study)[0]) == "sampler"


# --- what a killed process leaves ----------------------------------------------------------------


def test_a_half_written_last_line_is_dropped(memory_path: Path) -> None:
    journal = memory_path / "study.journal"
    evaluate(reopened(memory_path), 3)
    whole = journal.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    journal.write_bytes(whole + last[: len(last) // 2])
    study = reopened(memory_path)
    assert journal.read_bytes().startswith(whole)
    assert states(study) == [TrialState.COMPLETE] * 3
    evaluate(study, 2)
    assert states(load_study(journal)) == [TrialState.COMPLETE] * 5
    assert list(records(reopened(memory_path))) == [0, 1, 2, 3, 4]


def test_a_journal_of_half_a_line_is_a_new_study(memory_path: Path) -> None:
    (memory_path / "study.journal").write_bytes(b'{"op_code": 0, "work')
    evaluate(reopened(memory_path), 1)
    assert states(reopened(memory_path)) == [TrialState.COMPLETE]


def test_a_lock_that_a_killed_process_left_does_not_block(memory_path: Path) -> None:
    journal = memory_path / "study.journal"
    evaluate(reopened(memory_path), 1)
    os.symlink(journal, f"{journal}.lock")  # as Optuna locks
    begin = time.monotonic()
    evaluate(reopened(memory_path), 1)
    assert time.monotonic() - begin < 10  # Optuna would wait for 30 s
    assert len(records(reopened(memory_path))) == 2


def test_a_trial_with_its_record_is_told(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = reopened(memory_path)
    trial, architecture = propose(study)
    with monkeypatch.context() as patch:
        patch.setattr(study, "tell", killed)
        with pytest.raises(Killed):
            decide(study, trial, record(architecture))
    assert states(study) == [TrialState.RUNNING]

    study = reopened(memory_path)
    assert recover(study, NANO) == 0
    (told,) = study.get_trials()
    assert told.state == TrialState.COMPLETE
    assert told.values == record(architecture).objectives
    assert record_of(told) == record(architecture)


@pytest.mark.parametrize("source", ["sampler", "largest"])
def test_a_trial_that_was_being_evaluated_is_failed_and_proposed_again(
    memory_path: Path, source: str
) -> None:
    study = reopened(memory_path)
    if source != "sampler":
        enqueue(study, NANO.genotype(NANO.scaled(1.0)), source)
    _, architecture = propose(study)

    study = reopened(memory_path)
    assert recover(study, NANO) == 1
    assert states(study) == [TrialState.FAIL, TrialState.WAITING]
    trial, again = propose(study)
    assert again == architecture
    assert source_of(trial) == source
    assert records(study) == {}


def test_a_trial_that_was_killed_over_and_over_is_still_proposed_again(memory_path: Path) -> None:
    study = reopened(memory_path)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    for _ in range(3):
        assert propose(study)[1] == NANO.scaled(1.0)
        study = reopened(memory_path)
        assert recover(study, NANO) == 1
    assert source_of(propose(study)[0]) == "largest"


@pytest.mark.parametrize("genes", [0, 1, 5])
def test_a_trial_that_was_being_proposed_is_failed_and_not_proposed_again(
    memory_path: Path, genes: int
) -> None:
    study = reopened(memory_path)
    trial = study.ask()
    for gene, choices in list(NANO.genes.items())[:genes]:
        trial.suggest_categorical(gene, choices)

    study = reopened(memory_path)
    assert recover(study, NANO) == 0
    assert states(study) == [TrialState.FAIL]


def test_an_enqueued_proposal_that_was_being_taken_up_is_proposed_again_in_full(
    memory_path: Path,
) -> None:
    study = reopened(memory_path)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    trial = study.ask()
    gene, choices = next(iter(NANO.genes.items()))
    trial.suggest_categorical(gene, choices)

    study = reopened(memory_path)
    assert recover(study, NANO) == 1
    trial, architecture = propose(study)
    assert architecture == NANO.scaled(1.0)
    assert source_of(trial) == "largest"


def test_a_recovery_that_is_killed_itself_loses_no_proposal(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = reopened(memory_path)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    propose(study)

    for name in ("enqueue_trial", "tell"):
        study = reopened(memory_path)
        with monkeypatch.context() as patch, suppress(Killed):
            patch.setattr(study, name, killed)
            recover(study, NANO)

    study = reopened(memory_path)
    recover(study, NANO)
    trial, architecture = propose(study)
    assert architecture == NANO.scaled(1.0)
    assert source_of(trial) == "largest"


def killed(*args: object, **kwargs: object) -> None:
    raise Killed


def test_a_study_in_order_is_left_as_it_is(memory_path: Path) -> None:
    study = reopened(memory_path)
    evaluate(study, 2)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    before = (memory_path / "study.journal").read_bytes()
    assert recover(reopened(memory_path), NANO) == 0
    after = (memory_path / "study.journal").read_bytes()
    assert states(study) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.WAITING]
    assert after.startswith(before)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_reopened_sampler_does_not_propose_its_first_trials_again(
    memory_path: Path, sampler: SamplerName
) -> None:
    first = evaluate(reopened(memory_path, sampler=sampler), 4)
    second = evaluate(reopened(memory_path, sampler=sampler), 4)
    assert not [proposal for proposal in second if proposal in first]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_is_repeated_by_its_seed(memory_path: Path, sampler: SamplerName) -> None:
    def both_halves(name: str, seed: int) -> list[dict[str, Any]]:
        path = memory_path / name
        first = evaluate(reopened(path, sampler=sampler, seed=seed), 4)
        return first + evaluate(reopened(path, sampler=sampler, seed=seed), 3)

    assert both_halves("one", seed=3) == both_halves("two", seed=3)
    assert both_halves("three", seed=4) != both_halves("four", seed=5)


def test_seeds_and_lengths_that_are_neighbours_give_different_samplers(memory_path: Path) -> None:
    # Trial 1 of seed 0 must not be what trial 0 of seed 1 is.
    longer, other = memory_path / "longer", memory_path / "other"
    evaluate(reopened(longer, seed=0), 1)
    assert evaluate(reopened(longer, seed=0), 1) != evaluate(reopened(other, seed=1), 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_after_infeasible_and_failed_trials(
    memory_path: Path, sampler: SamplerName
) -> None:
    study = reopened(memory_path, sampler=sampler, with_latency=True)
    rng = random.Random(0)
    for _ in range(30):
        trial, architecture = propose(study)
        match rng.choice(("evaluated", "infeasible", "too slow", "failed")):
            case "evaluated":
                excess = {"macs": -0.1, "latency_ms": -0.1}
                decided = record(architecture, latency_ms=9.0, excess=excess)
            case "infeasible":
                excess = {"macs": 0.3}
                decided = record(architecture, state="infeasible", accuracy=None, excess=excess)
            case "too slow":
                excess = {"macs": -0.1, "latency_ms": 0.5}
                decided = record(architecture, state="infeasible", accuracy=None, excess=excess)
            case _:
                decided = record(architecture, state="failed", accuracy=None, error="boom")
        decide(study, trial, decided)
    assert len(records(study)) == 30
    assert nas.study.trials_table(study)["state"].nunique() == 3
