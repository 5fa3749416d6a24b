import random
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState
from small_runs import NANO, constrained_nano, fake_accuracy, fake_table

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.objective import latency_name
from nas.runs.config import SamplerName
from nas.search.front import best, pareto_front
from nas.search.study import (
    enqueue,
    keep_measured,
    keep_record,
    keep_tried,
    load_study,
    open_study,
    record_of,
    records,
    settle,
    source_of,
    tell,
    undecided,
    with_genes,
)
from nas.search.trials import MeasuredLatency, Record, Tried, trial_columns, trials_table
from search_space import Architecture

SAMPLERS: tuple[SamplerName, ...] = ("surrogate", "nsga2", "tpe", "random")

PHONE = "latency_phone_ms"
UNLIMITED = constrained_nano()
ON_PHONE = constrained_nano(latency_ms={"phone": 18.0}, tables={"phone": fake_table("phone")})
ALWAYS, WITH_PHONE = UNLIMITED.objectives, ON_PHONE.objectives


def reopened(
    path: Path,
    *,
    sampler: SamplerName = "random",
    seed: int = 0,
    constrained: ConstrainedSpace = UNLIMITED,
) -> optuna.Study:
    """The study in a folder, as a process that comes anew sees it."""
    path.mkdir(exist_ok=True)
    return open_study(
        path / "study.journal", sampler=sampler, seed=seed, trials=40, constrained=constrained
    )


def record(architecture: Architecture, **changes: Any) -> Record:
    constrained = constrained_nano(macs=200_000_000)
    costs = constrained.costs(architecture)
    values: dict[str, Any] = {
        "state": "evaluated",
        "architecture": architecture.model_dump(mode="json"),
        "hash": architecture.hash,
        "costs": costs,
        "source": "sampler",
        "accuracy": fake_accuracy(architecture),
        "excess": constrained.limits.excess(costs),
    }
    return Record(**values | changes)


def propose(study: optuna.Study) -> tuple[Trial, Architecture]:
    trial = study.ask()
    return trial, NANO.suggest(trial)


def decide(study: optuna.Study, trial: Trial, decided: Record) -> None:
    keep_record(trial, decided)
    tell(study, trial.number, decided)


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
    study = reopened(memory_path, constrained=ON_PHONE)
    trial, architecture = propose(study)
    written = record(architecture, seconds=1.25, predicted={PHONE: 8.5})
    decide(study, trial, written)
    (read,) = load_study(memory_path / "study.journal").get_trials()
    assert record_of(read) == written
    assert Architecture.model_validate(written.architecture) == architecture
    assert records(reopened(memory_path, constrained=ON_PHONE)) == {0: written}


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
    known = records(study)
    assert [trials[n].values for n in (0, 1)] == [[0.5, known[n].costs["macs"]] for n in (0, 1)]


def test_samplers_are_told_by_how_much_a_limit_is_exceeded(memory_path: Path) -> None:
    study = reopened(memory_path)
    trial, architecture = propose(study)
    excess = {"macs": 0.25, "params": -0.5}
    decide(study, trial, record(architecture, state="infeasible", accuracy=None, excess=excess))
    (frozen,) = reopened(memory_path).get_trials()
    assert frozen.constraints == excess


def test_what_is_limited_is_an_objective_but_for_parameters(memory_path: Path) -> None:
    latency_ms = {"phone": 10.0, "tablet": 10.0}
    study = reopened(memory_path, constrained=constrained_nano(latency_ms=latency_ms, memory=10**6))
    assert [d.name for d in study.directions] == ["MAXIMIZE", *["MINIMIZE"] * 4]
    assert study.metric_names == [
        *("accuracy", "macs", "memory", "latency_phone_ms", "latency_tablet_ms")
    ]
    trial, architecture = propose(study)
    predicted = {"latency_tablet_ms": 3.0, "latency_phone_ms": 8.0}
    costs = {"memory": 7, "params": 5, "macs": 6}
    decide(study, trial, record(architecture, predicted=predicted, costs=costs))
    (frozen,) = study.get_trials()
    assert frozen.values == [fake_accuracy(architecture), 6, 7, 8.0, 3.0]
    assert [d.name for d in reopened(memory_path / "other").directions] == ["MAXIMIZE", "MINIMIZE"]


def test_a_violation_names_the_limits_that_are_exceeded() -> None:
    excess = {"macs": 0.251, "params": -0.5, "latency_phone_ms": 0.1}
    infeasible = record(NANO.scaled(0), state="infeasible", accuracy=None, excess=excess)
    assert infeasible.violation == "macs +25.1% over, latency_phone_ms +10.0% over"


def test_a_prediction_over_the_limit_within_the_margin_is_no_violation() -> None:
    assert record(NANO.scaled(0), excess={"latency_phone_ms": 0.05}).violation == ""


# --- latency that was measured after the search --------------------------------------------------


def timed(median_ms: float, *, limit_ms: float = 10.0, unstable: bool = False) -> MeasuredLatency:
    excess = median_ms / limit_ms - 1
    return MeasuredLatency(
        median_ms=median_ms, iqr_ms=0.5, unstable=unstable, excess=excess, slowdown=1.25
    )


def decide_with(study: optuna.Study, accuracies: list[float]) -> list[str]:
    """Decide one trial of each accuracy, all predicted at 9 ms; hashes, all different."""
    hashes: list[str] = []
    members = list(NANO.enumerate())[::100]
    for architecture, accuracy in zip(members, accuracies, strict=False):
        enqueue(study, NANO.genotype(architecture), "test")
        trial, architecture = propose(study)
        excess = {"latency_phone_ms": -0.1}
        known = record(architecture, accuracy=accuracy, predicted={PHONE: 9.0}, excess=excess)
        decide(study, trial, known)
        hashes.append(architecture.hash)
    assert len(set(hashes)) == len(hashes)
    return hashes


def test_a_measured_latency_survives_reopening_and_goes_before_the_predicted_one(
    memory_path: Path,
) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    first, _ = decide_with(study, [0.5, 0.6])
    keep_measured(study, first, PHONE, timed(9.5, unstable=True))
    for again in (
        reopened(memory_path, constrained=ON_PHONE),
        load_study(memory_path / "study.journal"),
    ):
        one, other = records(again).values()
        assert one.measured == {PHONE: timed(9.5, unstable=True)}
        assert one.values[PHONE] == 9.5
        assert one.predicted == {PHONE: 9.0}
        assert one.excess == {"latency_phone_ms": pytest.approx(-0.05)}
        assert one.state == "evaluated"
        assert (other.measured, other.values[PHONE]) == ({}, 9.0)


def test_names_of_devices_may_hold_colons_and_spaces(memory_path: Path) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    (name,) = decide_with(study, [0.5])
    names = {latency_name("cuda:1"), latency_name("my old phone")}
    for objective in names:
        keep_measured(study, name, objective, timed(3.0))
    (known,) = records(reopened(memory_path, constrained=ON_PHONE)).values()
    assert known.measured == dict.fromkeys(names, timed(3.0))


def test_what_is_measured_over_its_limit_is_infeasible_keeps_its_accuracy_and_is_not_the_best(
    memory_path: Path,
) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    worse, too_slow, middle = decide_with(study, [0.5, 0.9, 0.7])
    keep_measured(study, too_slow, PHONE, timed(12.5))
    keep_measured(study, middle, PHONE, timed(10.0))  # at the limit
    known = {r.hash: r for r in records(reopened(memory_path, constrained=ON_PHONE)).values()}
    assert known[too_slow].state == "infeasible"
    assert known[too_slow].accuracy == 0.9
    assert known[too_slow].was_evaluated
    assert known[too_slow].violation == "latency_phone_ms +25.0% over"
    assert {known[worse].state, known[middle].state} == {"evaluated"}
    table = trials_table(records(study), WITH_PHONE)
    assert best(table, WITH_PHONE)["hash"] == middle
    front = pareto_front(table, WITH_PHONE)
    assert set(front["hash"]) <= {worse, middle}
    assert table.set_index("hash").loc[too_slow, "accuracy"] == 0.9


def test_a_duplicate_of_what_is_measured_over_its_limit_stays_a_duplicate(
    memory_path: Path,
) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    (name,) = decide_with(study, [0.5])
    enqueue(study, NANO.genotype(next(iter(NANO.enumerate()))), "test")
    trial, architecture = propose(study)
    twin = record(architecture, state="duplicate", accuracy=0.5, predicted={PHONE: 9.0})
    decide(study, trial, twin)
    keep_measured(study, name, PHONE, timed(12.5))
    known = list(records(study).values())
    assert [r.state for r in known] == ["infeasible", "duplicate"]
    assert [r.was_evaluated for r in known] == [True, False]
    assert all(r.values[PHONE] == 12.5 for r in known)


def test_optunas_own_tools_see_the_run_s_name_and_those_of_its_objectives(
    memory_path: Path,
) -> None:
    path = memory_path / "birds"
    decide_with(reopened(path, constrained=ON_PHONE), [0.5])
    storage = JournalStorage(JournalFileBackend(str(path / "study.journal")))
    study = optuna.load_study(study_name=None, storage=storage)
    assert study.study_name == "birds"
    assert study.metric_names == ["accuracy", "macs", PHONE]
    assert [direction.name for direction in study.directions] == [
        *("MAXIMIZE", "MINIMIZE", "MINIMIZE")
    ]


def test_a_study_keeps_its_name_in_another_folder_and_when_it_is_written_anew(
    memory_path: Path,
) -> None:
    study = reopened(memory_path / "before", constrained=ON_PHONE)
    (name,) = decide_with(study, [0.5])
    path = (memory_path / "before").rename(memory_path / "after")
    again = reopened(path, constrained=ON_PHONE)
    assert (again.study_name, len(again.trials)) == ("before", 1)
    keep_measured(again, name, PHONE, timed(12.5))
    settle(path / "study.journal")
    settled = load_study(path / "study.journal")
    assert (settled.study_name, len(settled.trials)) == ("before", 1)


def test_optunas_own_tools_see_what_was_measured_over_its_limit(memory_path: Path) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    worse, too_slow, _ = decide_with(study, [0.5, 0.9, 0.7])
    journal = memory_path / "study.journal"
    settle(journal)
    before = journal.read_bytes()
    keep_measured(study, worse, PHONE, timed(9.5))
    keep_measured(study, too_slow, PHONE, timed(12.5))
    known = records(study)
    settle(journal)
    after = reopened(memory_path, constrained=ON_PHONE)
    assert records(after) == known
    assert states(after) == [TrialState.COMPLETE, TrialState.PRUNED, TrialState.COMPLETE]
    assert after.trials[1].constraints[PHONE] == pytest.approx(0.25)
    assert after.trials[0].datetime_start == study.trials[0].datetime_start
    assert {record_of(t).hash for t in after.best_trials} <= set(  # type: ignore[union-attr]
        pareto_front(trials_table(known, WITH_PHONE), WITH_PHONE)["hash"]
    )
    settled = journal.read_bytes()
    assert settled != before
    settle(journal)
    assert journal.read_bytes() == settled
    propose(after)  # it goes on


def test_the_table_holds_predicted_and_measured_latency_of_each_device(memory_path: Path) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    first, second = decide_with(study, [0.5, 0.6])
    keep_measured(study, first, PHONE, timed(9.5, unstable=True))
    table = trials_table(records(study), WITH_PHONE).set_index("hash")
    assert table["latency_phone_ms"].to_dict() == {first: 9.5, second: 9.0}
    assert table["latency_phone_predicted_ms"].to_dict() == {first: 9.0, second: 9.0}
    row = table.loc[first]
    assert row["latency_phone_measured_ms"] == 9.5
    assert (row["latency_phone_iqr_ms"], row["latency_phone_unstable"]) == (0.5, 1.0)
    assert row["latency_phone_slowdown"] == 1.25
    columns = [
        f"latency_phone_{name}" for name in ("measured_ms", "iqr_ms", "unstable", "slowdown")
    ]
    assert table.loc[second, columns].isna().all()


def test_a_measured_latency_costs_no_trial(memory_path: Path) -> None:
    study = reopened(memory_path, constrained=ON_PHONE)
    (name,) = decide_with(study, [0.5])
    keep_measured(study, name, PHONE, timed(12.5))
    assert states(reopened(memory_path, constrained=ON_PHONE)) == [TrialState.COMPLETE]


# --- tables --------------------------------------------------------------------------------------


def test_the_table_has_one_row_for_each_decided_trial(memory_path: Path) -> None:
    study = reopened(memory_path)
    evaluate(study, 2)
    trial, architecture = propose(study)
    decide(study, trial, record(architecture, state="infeasible", accuracy=None))
    study.ask()  # under way
    table = trials_table(records(study), WITH_PHONE)
    assert table.columns.tolist() == trial_columns(WITH_PHONE)
    assert table["number"].tolist() == [0, 1, 2]
    assert table["state"].tolist() == ["evaluated", "evaluated", "infeasible"]
    assert table["accuracy"].isna().tolist() == [False, False, True]
    assert table["latency_phone_ms"].isna().all()
    assert table["summary"][2] == architecture.summary
    assert table["hash"][2] == architecture.hash
    assert trials_table(records(reopened(memory_path / "empty")), WITH_PHONE).empty
    assert trials_table(records(study), ALWAYS).columns.tolist() == trial_columns(ALWAYS)


def test_the_table_with_genes_says_what_each_decided_trial_chose(memory_path: Path) -> None:
    study = reopened(memory_path)
    empty = trials_table({}, ALWAYS)
    assert with_genes(empty, study).columns.tolist() == trial_columns(ALWAYS)
    chosen = evaluate(study, 3)
    study.ask()  # under way: it has chosen nothing yet
    table = trials_table(records(study), ALWAYS)
    wide = with_genes(table, study)
    assert wide.columns.tolist() == [*table.columns, *NANO.genes]
    assert wide[list(NANO.genes)].to_dict("records") == chosen
    assert wide[table.columns].equals(table)


def test_the_table_says_in_one_line_why_an_evaluation_or_the_training_alone_failed(
    memory_path: Path,
) -> None:
    study = reopened(memory_path)
    raised = "Traceback (most recent call last):\n  File ...\nRuntimeError: out of memory\n"
    hashes = []
    for changes in (
        {"state": "failed", "accuracy": None, "error": raised},
        {"state": "failed", "accuracy": None, "error": "one line"},
        {},
        {},
    ):
        trial, architecture = propose(study)
        decide(study, trial, record(architecture, **changes))
        hashes.append(architecture.hash)
    keep_tried(study, hashes[2], Tried(steps=20, error="the loss is nan at step 21"))
    keep_tried(study, hashes[3], Tried(steps=20, accuracy=0.5))
    table = trials_table(records(study), ALWAYS)
    assert table["failure"].tolist() == [
        "RuntimeError: out of memory",
        "one line",
        "the loss is nan at step 21",
        "",
    ]


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
    lock = Path(f"{journal}.lock")
    lock.symlink_to(journal)  # as Optuna locks
    evaluate(reopened(memory_path), 1)
    assert lock.is_symlink()  # Optuna would wait for 30 s, then take it over and remove it
    assert len(records(reopened(memory_path))) == 2


@pytest.mark.parametrize("source", ["sampler", "largest"])
def test_a_trial_that_was_being_evaluated_goes_on_as_what_it_was(
    memory_path: Path, source: str
) -> None:
    study = reopened(memory_path)
    if source != "sampler":
        enqueue(study, NANO.genotype(NANO.scaled(1.0)), source)
    _, architecture = propose(study)
    for _ in range(3):  # killed over and over
        study = reopened(memory_path)
        (trial,) = undecided(study)
        assert (trial.number, source_of(trial)) == (0, source)
        assert NANO.suggest(trial) == architecture
    decide(study, trial, record(architecture))
    assert undecided(reopened(memory_path)) == []
    assert states(study) == [TrialState.COMPLETE]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_trial_that_was_being_proposed_goes_on_to_choose_what_it_would_have_chosen(
    memory_path: Path, sampler: SamplerName
) -> None:
    whole = reopened(memory_path / "whole", sampler=sampler)
    evaluate(whole, 12)
    evaluated = (memory_path / "whole" / "study.journal").read_bytes()
    expected = propose(whole)[1]

    for genes in (0, 1, 5):
        cut = memory_path / f"cut after {genes}"
        cut.mkdir()
        (cut / "study.journal").write_bytes(evaluated)
        trial = reopened(cut, sampler=sampler).ask()
        for gene, choices in list(NANO.genes.items())[:genes]:
            trial.suggest_categorical(gene, choices)
        (trial,) = undecided(reopened(cut, sampler=sampler))
        assert NANO.suggest(trial) == expected, genes


def test_an_enqueued_proposal_that_was_being_taken_up_goes_on_in_full(memory_path: Path) -> None:
    study = reopened(memory_path)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    trial = study.ask()
    gene, choices = next(iter(NANO.genes.items()))
    trial.suggest_categorical(gene, choices)

    study = reopened(memory_path)
    (trial,) = undecided(study)
    assert NANO.suggest(trial) == NANO.scaled(1.0)
    assert source_of(trial) == "largest"


def test_a_record_of_which_a_killed_process_had_written_a_part_is_written_without_complaint(
    memory_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    study = reopened(memory_path)
    trial, architecture = propose(study)
    written = record(architecture)
    name, excess = next(iter(written.excess.items()))
    trial.set_constraint(name, excess)
    study = reopened(memory_path)
    (trial,) = undecided(study)
    decide(study, trial, written)
    assert records(study) == {0: written}
    assert study.get_trials()[0].constraints == written.excess
    assert not recwarn.list


def test_a_study_in_order_has_nothing_undecided_and_is_left_as_it_is(memory_path: Path) -> None:
    study = reopened(memory_path)
    evaluate(study, 2)
    enqueue(study, NANO.genotype(NANO.scaled(1.0)), "largest")
    before = (memory_path / "study.journal").read_bytes()
    assert undecided(reopened(memory_path)) == []
    assert states(study) == [TrialState.COMPLETE, TrialState.COMPLETE, TrialState.WAITING]
    assert (memory_path / "study.journal").read_bytes().startswith(before)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_reopened_sampler_proposes_what_it_would_have_proposed(
    memory_path: Path, sampler: SamplerName
) -> None:
    def proposed(name: str, *parts: int, seed: int) -> list[dict[str, Any]]:
        path = memory_path / name
        return [
            proposal
            for part in parts
            for proposal in evaluate(reopened(path, sampler=sampler, seed=seed), part)
        ]

    whole = proposed("whole", 22, seed=3)
    assert proposed("parts", 4, 9, 2, 7, seed=3) == whole
    assert proposed("other", 4, seed=4) != whole[:4]
    assert len({str(proposal) for proposal in whole}) > 11


def test_neighbouring_seeds_and_numbers_give_different_draws(memory_path: Path) -> None:
    # Trial 1 of seed 0 must not be what trial 0 of seed 1 is.
    longer, other = memory_path / "longer", memory_path / "other"
    evaluate(reopened(longer, seed=0), 1)
    assert evaluate(reopened(longer, seed=0), 1) != evaluate(reopened(other, seed=1), 1)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_goes_on_after_infeasible_and_failed_trials(
    memory_path: Path, sampler: SamplerName
) -> None:
    study = reopened(memory_path, sampler=sampler, constrained=ON_PHONE)
    rng = random.Random(0)
    for _ in range(30):
        trial, architecture = propose(study)
        match rng.choice(("evaluated", "infeasible", "too slow", "failed")):
            case "evaluated":
                excess = {"macs": -0.1, "latency_phone_ms": -0.1}
                decided = record(architecture, predicted={PHONE: 9.0}, excess=excess)
            case "infeasible":
                excess = {"macs": 0.3}
                decided = record(architecture, state="infeasible", accuracy=None, excess=excess)
            case "too slow":
                excess = {"macs": -0.1, "latency_phone_ms": 0.5}
                decided = record(architecture, state="infeasible", accuracy=None, excess=excess)
            case _:
                decided = record(architecture, state="failed", accuracy=None, error="boom")
        decide(study, trial, decided)
    assert len(records(study)) == 30
    assert trials_table(records(study), WITH_PHONE)["state"].nunique() == 3
