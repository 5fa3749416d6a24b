import random
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from runs import NANO, FakeWorkers, Killed, fake_accuracy, nano_problem

import nas.search
import nas.study
from nas.config import SamplerName
from nas.interrupt import Interrupted, StopRequest
from nas.latency import Latency
from nas.limits import Limits, Problem
from nas.search import FAILURES, Search
from nas.study import Record, open_study, records
from search_space import DESIGNS, PRESETS, Architecture

SAMPLERS: tuple[SamplerName, ...] = ("nsga2", "tpe", "random")

FEW = {"macs": sorted(nano_problem().cost(a).macs for a in NANO.enumerate())[7]}
"""Limits that eight architectures of nano meet."""


def feasible(problem: Problem) -> set[str]:
    return {a.hash for a in problem.space.enumerate() if problem.admits(a)}


def search(
    path: Path,
    problem: Problem,
    workers: FakeWorkers,
    *,
    trials: int,
    sampler: SamplerName = "random",
    measure: Callable[[Architecture], Latency] | None = None,
    stop: StopRequest | None = None,
    on_decided: Callable[[Record], None] = lambda record: None,
    change: Callable[[optuna.Study], None] = lambda study: None,
) -> tuple[list[Record], str]:
    """Search as a process does; all that is known at its end, and why it ended early."""
    path.mkdir(exist_ok=True)
    study = open_study(
        path / "study.journal",
        sampler=sampler,
        seed=0,
        trials=trials,
        with_latency=measure is not None,
    )
    change(study)
    driver = Search(study, problem=problem, workers=workers, measure=measure, trials=trials, seed=0)
    ended = driver.run(stop=stop or StopRequest(), on_decided=on_decided)
    known = records(study)
    assert driver.decided == known
    return list(known.values()), ended


def reopened(path: Path) -> optuna.Study:
    return nas.study.load_study(path / "study.journal")


def evaluated(decided: Sequence[Record]) -> list[str]:
    return [record.hash for record in decided if record.state == "evaluated"]


def hashes(workers: FakeWorkers) -> list[str]:
    return [architecture.hash for architecture in workers.submitted]


# --- limits, duplicates, failures ----------------------------------------------------------------


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("capacity", [1, 3])
def test_every_architecture_that_is_submitted_is_feasible_and_new(
    memory_path: Path, sampler: SamplerName, capacity: int
) -> None:
    problem = nano_problem(macs=150_000_000, params=250_000)
    workers = FakeWorkers(capacity)
    decided, ended = search(memory_path, problem, workers, trials=12, sampler=sampler)
    assert ended == ""
    assert all(problem.admits(architecture) for architecture in workers.submitted)
    assert sorted(hashes(workers)) == sorted(evaluated(decided))
    assert len(set(evaluated(decided))) == len(evaluated(decided)) == 12
    assert workers.most_under_way == capacity
    states = Counter(record.state for record in decided)
    assert states["infeasible"] > 0  # else limits were never tried
    assert len(decided) == len(reopened(memory_path).get_trials())


def test_records_say_what_was_found(memory_path: Path) -> None:
    problem = nano_problem(macs=150_000_000)
    shown: list[Record] = []
    decided, _ = search(memory_path, problem, FakeWorkers(), trials=8, on_decided=shown.append)
    assert shown == decided
    for record in decided:
        architecture = Architecture.model_validate(record.architecture)
        cost = problem.cost(architecture)
        assert (record.hash, record.macs, record.params) == (
            architecture.hash,
            cost.macs,
            cost.params,
        )
        if record.state == "infeasible":
            assert record.accuracy is None
            assert record.excess["macs"] > 0
            assert "macs" in record.violation
        else:
            assert record.accuracy == fake_accuracy(architecture)
            assert record.excess["macs"] <= 0


@pytest.mark.parametrize("capacity", [1, 4])
def test_duplicates_are_answered_from_the_cache(memory_path: Path, capacity: int) -> None:
    workers = FakeWorkers(capacity)
    decided, _ = search(memory_path, nano_problem(**FEW), workers, trials=6)
    duplicates = [record for record in decided if record.state == "duplicate"]
    assert duplicates
    for record in duplicates:
        assert record.accuracy == fake_accuracy(Architecture.model_validate(record.architecture))
        assert record.hash in evaluated(decided)
    assert Counter(hashes(workers)).most_common(1)[0][1] == 1
    for trial in reopened(memory_path).get_trials(states=[TrialState.COMPLETE]):
        assert trial.values is not None


class Repeating(optuna.samplers.BaseSampler):
    """Proposes one and the same architecture for ever."""

    def __init__(self, genotype: dict[str, Any]) -> None:
        self.genotype = genotype

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.genotype[param_name]


def test_proposals_of_what_is_under_way_wait_for_its_score(memory_path: Path) -> None:
    genotype = NANO.genotype(NANO.scaled(0.5))

    def repeat(study: optuna.Study) -> None:
        study.sampler = Repeating(genotype)

    workers = FakeWorkers(capacity=8)
    decided, _ = search(memory_path, nano_problem(), workers, trials=8, change=repeat)
    assert len(set(hashes(workers))) == len(hashes(workers)) == 8
    same = [record for record in decided if record.hash == NANO.scaled(0.5).hash]
    assert [record.state for record in same].count("evaluated") == 1
    assert {record.accuracy for record in same} == {fake_accuracy(NANO.scaled(0.5))}
    assert not reopened(memory_path).get_trials(states=[TrialState.RUNNING])


def test_a_sampler_that_is_stuck_does_not_keep_the_search_from_its_end(memory_path: Path) -> None:
    def repeat(study: optuna.Study) -> None:
        study.sampler = Repeating(NANO.genotype(NANO.scaled(1.0)))  # over the limit

    problem = nano_problem(**FEW)
    decided, ended = search(memory_path, problem, FakeWorkers(), trials=10, change=repeat)
    assert set(evaluated(decided)) == feasible(problem)
    assert ended == "all 8 architectures that meet the limits were evaluated"


def test_a_failed_evaluation_is_recorded_and_the_search_goes_on(memory_path: Path) -> None:
    problem = nano_problem(**FEW)
    failing = frozenset([problem.largest().hash, *sorted(feasible(problem))[:2]])
    workers = FakeWorkers(capacity=2, failing=failing)
    decided, ended = search(memory_path, problem, workers, trials=5)
    assert ended == ""
    assert len(evaluated(decided)) == 5
    assert len(set(hashes(workers))) == len(hashes(workers))  # a failure is not tried for ever
    failed = [record for record in decided if record.state == "failed"]
    assert {record.hash for record in failed} == failing & set(hashes(workers)) != set()
    assert all(record.error == "Traceback: out of luck" for record in failed)
    assert all(record.accuracy is None for record in failed)
    assert not failing & set(evaluated(decided))
    told = {
        trial.number
        for trial in reopened(memory_path).get_trials(states=[TrialState.FAIL])
        if (record := nas.study.record_of(trial)) is not None and record.state == "failed"
    }
    assert len(told) == len(failed)


def test_a_search_in_which_all_evaluations_fail_gives_up(memory_path: Path) -> None:
    problem = nano_problem()
    workers = FakeWorkers(capacity=2, failing=frozenset(feasible(problem)))
    decided, ended = search(memory_path, problem, workers, trials=100)
    assert ended == f"{FAILURES} evaluations in a row failed"
    assert evaluated(decided) == []
    assert FAILURES <= len(hashes(workers)) <= FAILURES + 2


# --- beginning and end ---------------------------------------------------------------------------


def test_the_landmarks_of_the_space_come_first(memory_path: Path) -> None:
    problem = nano_problem(macs=200_000_000)
    workers = FakeWorkers()
    decided, _ = search(memory_path, problem, workers, trials=5)
    assert [r.source for r in decided][:4] == ["largest", "smallest", "middle", "sampler"]
    landmarks = (problem.largest(), problem.smallest(), problem.middle())
    assert hashes(workers)[:3] == [architecture.hash for architecture in landmarks]


def test_a_published_design_that_the_space_holds_comes_after_them(memory_path: Path) -> None:
    problem = Problem(
        space=PRESETS["base"],
        limits=Limits(macs=3_000_000_000),
        image_size=224,
        num_classes=1000,
    )
    decided, _ = search(memory_path, problem, FakeWorkers(capacity=4), trials=4)
    by_source = {record.source: record for record in decided}
    assert by_source.keys() == {"largest", "smallest", "middle", "Shunted-T"}
    assert round(by_source["Shunted-T"].macs / 1e9, 4) == 2.1467
    assert by_source["Shunted-T"].hash == DESIGNS[0].architecture.hash


def test_a_published_design_over_the_budget_does_not(memory_path: Path) -> None:
    problem = Problem(
        space=PRESETS["base"],
        limits=Limits(macs=1_000_000_000),
        image_size=224,
        num_classes=1000,
    )
    decided, _ = search(memory_path, problem, FakeWorkers(capacity=4), trials=4)
    assert "Shunted-T" not in {record.source for record in decided}


def test_exactly_as_many_are_evaluated_as_were_asked_for(memory_path: Path) -> None:
    for trials, capacity in ((1, 1), (2, 3), (5, 3), (7, 16)):
        workers = FakeWorkers(capacity)
        path = memory_path / str(trials)
        decided, ended = search(path, nano_problem(), workers, trials=trials)
        assert (len(evaluated(decided)), len(workers.submitted), ended) == (trials, trials, "")
        assert not workers.under_way


@pytest.mark.parametrize("capacity", [1, 5])
def test_the_search_ends_when_all_that_is_feasible_was_evaluated(
    memory_path: Path, capacity: int
) -> None:
    problem = nano_problem(**FEW)
    workers = FakeWorkers(capacity)
    decided, ended = search(memory_path, problem, workers, trials=500, sampler="nsga2")
    assert set(evaluated(decided)) == feasible(problem)
    assert len(workers.submitted) == len(feasible(problem)) == 8
    assert ended == "all 8 architectures that meet the limits were evaluated"


def test_a_space_of_one_feasible_architecture_is_searched_at_once(memory_path: Path) -> None:
    problem = nano_problem(macs=nano_problem().cost(nano_problem().smallest()).macs)
    decided, ended = search(memory_path, problem, FakeWorkers(capacity=3), trials=6)
    assert evaluated(decided) == [problem.smallest().hash]
    assert ended == "all 1 architectures that meet the limits were evaluated"


def test_the_search_ends_when_its_proposals_run_out(memory_path: Path) -> None:
    problem = nano_problem(**FEW)
    workers = FakeWorkers(capacity=2, failing=frozenset(feasible(problem)))
    decided, ended = search(memory_path, problem, workers, trials=2)
    limit = nas.search.ASKS_PER_TRIAL * 2
    assert ended == f"{limit} proposals brought only 0 new feasible ones"
    assert len(decided) == limit
    assert not workers.under_way
    assert len(set(hashes(workers))) == len(hashes(workers))


def test_a_search_that_has_ended_does_nothing_more(memory_path: Path) -> None:
    search(memory_path, nano_problem(), FakeWorkers(), trials=4)
    journal = (memory_path / "study.journal").read_bytes()
    workers = FakeWorkers()
    decided, ended = search(memory_path, nano_problem(), workers, trials=4)
    assert (len(decided), ended, workers.submitted) == (4, "", [])
    assert (memory_path / "study.journal").read_bytes().startswith(journal)


# --- latency -------------------------------------------------------------------------------------


def fake_latency(architecture: Architecture) -> Latency:
    """From 5 to 15 ms, in no order."""
    return Latency(median_ms=5 + int(architecture.hash, 16) % 1009 / 100.9, iqr_ms=0.5, repeats=10)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_too_slow_when_measured_is_never_evaluated(
    memory_path: Path, sampler: SamplerName
) -> None:
    problem = nano_problem(macs=200_000_000, latency_ms=10.0)
    workers = FakeWorkers(capacity=3)
    measured: list[str] = []

    def measure(architecture: Architecture) -> Latency:
        assert not workers.under_way, "measured beside an evaluation"
        assert problem.admits(architecture), "measured although over a closed-form limit"
        measured.append(architecture.hash)
        return fake_latency(architecture)

    decided, ended = search(
        memory_path, problem, workers, trials=10, sampler=sampler, measure=measure
    )
    assert ended == ""
    assert len(evaluated(decided)) == 10
    assert workers.most_under_way == 3
    assert all(fake_latency(a).median_ms <= 10 for a in workers.submitted)
    assert len(set(measured)) == len(measured)  # once each

    slow = [r for r in decided if r.latency_ms is not None and r.latency_ms > 10]
    assert slow
    for record in slow:
        assert record.state == "infeasible"
        assert record.excess["latency_ms"] > 0
        assert record.accuracy is None
    for record in decided:
        if record.state == "evaluated":
            assert record.latency_iqr_ms == 0.5
            assert record.objectives == [record.accuracy, record.macs, record.latency_ms]
        elif record.latency_ms is None:
            assert record.excess["macs"] > 0
    for trial in reopened(memory_path).get_trials(states=[TrialState.COMPLETE]):
        assert len(trial.values) == 3


def test_a_latency_at_the_limit_is_admitted(memory_path: Path) -> None:
    problem = nano_problem(latency_ms=10.0)

    def measure(architecture: Architecture) -> Latency:
        return Latency(median_ms=10.0, iqr_ms=0.0, repeats=10)

    decided, _ = search(memory_path, problem, FakeWorkers(), trials=3, measure=measure)
    assert len(evaluated(decided)) == 3


def test_a_latency_that_nothing_meets_ends_the_search(memory_path: Path) -> None:
    problem = nano_problem(latency_ms=1.0)
    workers = FakeWorkers(capacity=3)
    decided, ended = search(memory_path, problem, workers, trials=2, measure=fake_latency)
    assert workers.submitted == []
    assert "brought only 0 new feasible ones" in ended
    assert {record.state for record in decided} == {"infeasible"}


# --- stopping and being killed -------------------------------------------------------------------


def check_nothing_is_lost_or_repeated(
    path: Path, problem: Problem, trials: int, finished: set[str]
) -> None:
    """Take up a search; what was finished is not evaluated again, and the end is the same."""
    workers = FakeWorkers(capacity=3)
    decided, ended = search(path, problem, workers, trials=trials)
    assert ended == ""
    assert not finished & set(hashes(workers))
    assert len(evaluated(decided)) == len(set(evaluated(decided))) == trials
    assert finished <= set(evaluated(decided))
    assert len(workers.submitted) == trials - len(finished)
    assert not reopened(path).get_trials(states=[TrialState.RUNNING])


@pytest.mark.parametrize("survives", [0, 1, 4, 7])
def test_a_search_that_is_killed_while_it_waits_is_taken_up(
    memory_path: Path, survives: int
) -> None:
    problem = nano_problem(macs=150_000_000)
    workers = FakeWorkers(capacity=3, survives=survives)
    with pytest.raises(Killed):
        search(memory_path, problem, workers, trials=8)
    under_way = {architecture.hash for _, architecture in workers.under_way}
    finished = set(hashes(workers)) - under_way
    assert len(finished) == survives
    check_nothing_is_lost_or_repeated(memory_path, problem, 8, finished)
    sources = {record.source for record in records(reopened(memory_path)).values()}
    assert {"largest", "smallest", "middle"} <= sources


def test_what_was_under_way_comes_first_when_a_search_is_taken_up(memory_path: Path) -> None:
    problem = nano_problem()
    killed = FakeWorkers(capacity=3, survives=3)
    with pytest.raises(Killed):
        search(memory_path, problem, killed, trials=8)
    workers = FakeWorkers()
    search(memory_path, problem, workers, trials=8)
    under_way = [architecture.hash for _, architecture in killed.under_way]
    assert set(hashes(workers)[: len(under_way)]) == set(under_way)


def test_a_score_that_was_recorded_but_not_told_is_not_lost(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = nano_problem()
    told: list[str] = []
    tell = nas.study._tell

    def dies_before_the_fifth(study: optuna.Study, number: int, record: Record) -> None:
        if len(told) == 4:
            told.append(record.hash)
            raise Killed
        told.append(record.hash)
        tell(study, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(nas.study, "_tell", dies_before_the_fifth)
        with pytest.raises(Killed):
            search(memory_path, problem, FakeWorkers(), trials=8)
    check_nothing_is_lost_or_repeated(memory_path, problem, 8, set(told))


def test_landmarks_are_not_lost_when_the_process_dies_while_it_enqueues_them(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = nano_problem(macs=200_000_000)
    enqueue = nas.search.enqueue

    def dies_at_the_smallest(study: optuna.Study, genotype: dict[str, Any], source: str) -> None:
        if source == "smallest":
            raise Killed
        enqueue(study, genotype, source)

    with monkeypatch.context() as patch:
        patch.setattr(nas.search, "enqueue", dies_at_the_smallest)
        with pytest.raises(Killed):
            search(memory_path, problem, FakeWorkers(), trials=5)
    decided, _ = search(memory_path, problem, FakeWorkers(), trials=5)
    assert [record.source for record in decided][:3] == ["largest", "smallest", "middle"]


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["nsga2", "tpe"])
def test_a_search_can_be_killed_at_any_byte_of_its_journal(
    memory_path: Path, sampler: SamplerName
) -> None:
    problem = nano_problem(macs=150_000_000)
    whole = memory_path / "whole"
    search(whole, problem, FakeWorkers(capacity=2), trials=6, sampler=sampler)
    journal = (whole / "study.journal").read_bytes()
    rng = random.Random(0)
    for cut in sorted(rng.sample(range(len(journal)), 12)):
        path = memory_path / str(cut)
        path.mkdir()
        (path / "study.journal").write_bytes(journal[:cut])
        known = open_study(
            path / "study.journal", sampler=sampler, seed=0, trials=6, with_latency=False
        )
        finished = set(evaluated(list(records(known).values())))
        check_nothing_is_lost_or_repeated(path, problem, 6, finished)


def test_a_stop_leaves_what_is_under_way_to_the_next_process(memory_path: Path) -> None:
    problem = nano_problem(macs=150_000_000)
    stop = StopRequest()
    decided: list[Record] = []

    def stop_after_three(record: Record) -> None:
        decided.append(record)
        stop.requested = len(evaluated(decided)) == 3

    with pytest.raises(Interrupted):
        search(
            memory_path,
            problem,
            FakeWorkers(capacity=3),
            trials=8,
            stop=stop,
            on_decided=stop_after_three,
        )
    assert len(evaluated(decided)) == 3
    check_nothing_is_lost_or_repeated(memory_path, problem, 8, set(evaluated(decided)))


def test_a_search_does_not_depend_on_anything_but_its_seed(memory_path: Path) -> None:
    first, _ = search(memory_path / "one", nano_problem(), FakeWorkers(), trials=8, sampler="nsga2")
    random.random()
    second, _ = search(
        memory_path / "two", nano_problem(), FakeWorkers(), trials=8, sampler="nsga2"
    )
    assert [record.hash for record in first] == [record.hash for record in second]
