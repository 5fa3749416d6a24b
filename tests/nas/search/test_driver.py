import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from small_runs import (
    NANO,
    FakeWorkers,
    Killed,
    constrained_nano,
    fake_accuracy,
    fake_loss,
    fake_table,
)

import nas.search.driver
import nas.search.study
import nas.search.surrogate
from nas.latency.measure import Latency
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.objectives.objective import Objective
from nas.runs.config import SamplerName
from nas.search.driver import Search
from nas.search.evaluation import EvaluationSetup, Score, evaluate
from nas.search.front import pareto_front
from nas.search.measuring import measure_chosen
from nas.search.settings import DEFAULT_SEARCH, SearchSettings
from nas.search.study import open_study, records
from nas.search.trials import MeasuredLatency, Record, trials_table
from nas.search.workers import InProcess, Workers
from nas.training.accuracy import Fit, SubnetEvaluator
from nas.utilities.errors import Diverged
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import DESIGNS, PRESETS, Architecture

SAMPLERS: tuple[SamplerName, ...] = ("surrogate", "nsga2", "tpe", "random")

LITTLE = SearchSettings(batch=4, patience=4)
"""Settings under which a short search has several batches, and the driver steps in."""

FEW = {"macs": sorted(constrained_nano().cost(a).macs for a in NANO.enumerate())[7]}
"""Limits that eight architectures of nano meet."""


def feasible(constrained: ConstrainedSpace) -> set[str]:
    return {a.hash for a in constrained.space.enumerate() if constrained.admits(a)}


def search(
    path: Path,
    constrained: ConstrainedSpace,
    workers: Workers,
    *,
    trials: int,
    sampler: SamplerName = "random",
    stop: StopRequest | None = None,
    on_decided: Callable[[Record], None] = lambda record: None,
    change: Callable[[optuna.Study], None] = lambda study: None,
    settings: SearchSettings = DEFAULT_SEARCH,
) -> tuple[list[Record], str]:
    """Search as a process does; all that is known at its end, and why it ended early."""
    path.mkdir(exist_ok=True)
    study = open_study(
        path / "study.journal",
        sampler=sampler,
        seed=0,
        trials=trials,
        constrained=constrained,
    )
    change(study)
    driver = Search(
        study, constrained=constrained, workers=workers, trials=trials, seed=0, settings=settings
    )
    ended = driver.run(stop=stop or StopRequest(), on_decided=on_decided)
    known = records(study)
    assert driver.decided == known
    return list(known.values()), ended


def reopened(path: Path) -> optuna.Study:
    return nas.search.study.load_study(path / "study.journal")


def evaluated(decided: Sequence[Record]) -> list[str]:
    return [record.hash for record in decided if record.state == "evaluated"]


def hashes(workers: FakeWorkers) -> list[str]:
    return [architecture.hash for architecture in workers.submitted]


# --- limits, duplicates, failures ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("capacity", [1, 3])
@pytest.mark.sampled(3)
def test_every_architecture_that_is_submitted_is_feasible_and_new(
    memory_path: Path, sampler: SamplerName, capacity: int
) -> None:
    constrained = constrained_nano(macs=150_000_000, params=250_000)
    workers = FakeWorkers(capacity)
    decided, ended = search(memory_path, constrained, workers, trials=12, sampler=sampler)
    assert ended == ""
    assert all(constrained.admits(architecture) for architecture in workers.submitted)
    assert sorted(hashes(workers)) == sorted(evaluated(decided))
    assert len(set(evaluated(decided))) == len(evaluated(decided)) == 12
    assert workers.most_under_way == capacity
    states = Counter(record.state for record in decided)
    # Of the others limits keep something out; the surrogate asks them before it proposes.
    assert (states["infeasible"] == 0) == (sampler == "surrogate")
    assert len(decided) == len(reopened(memory_path).get_trials())


def test_records_say_what_was_found(memory_path: Path) -> None:
    constrained = constrained_nano(macs=150_000_000)
    shown: list[Record] = []
    decided, _ = search(memory_path, constrained, FakeWorkers(), trials=8, on_decided=shown.append)
    assert sorted(shown, key=str) == sorted(decided, key=str)
    for record in decided:
        architecture = Architecture.model_validate(record.architecture)
        cost = constrained.cost(architecture)
        assert record.hash == architecture.hash
        assert record.costs == {"macs": cost.macs, "params": cost.params}
        if record.state == "infeasible":
            assert record.accuracy is None
            assert record.excess["macs"] > 0
            assert "macs" in record.violation
        else:
            assert record.accuracy == fake_accuracy(architecture)
            assert record.loss == fake_loss(architecture)
            assert record.excess["macs"] <= 0


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 4])
def test_duplicates_are_answered_from_the_cache(memory_path: Path, capacity: int) -> None:
    workers = FakeWorkers(capacity)
    constrained = constrained_nano(**FEW)
    decided, _ = search(memory_path, constrained, workers, trials=6, settings=LITTLE)
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
    decided, _ = search(
        memory_path, constrained_nano(), workers, trials=8, change=repeat, settings=LITTLE
    )
    assert len(set(hashes(workers))) == len(hashes(workers)) == 8
    same = [record for record in decided if record.hash == NANO.scaled(0.5).hash]
    assert [record.state for record in same].count("evaluated") == 1
    assert {record.accuracy for record in same} == {fake_accuracy(NANO.scaled(0.5))}
    assert not reopened(memory_path).get_trials(states=[TrialState.RUNNING])


def test_a_sampler_that_is_stuck_does_not_keep_the_search_from_its_end(memory_path: Path) -> None:
    def repeat(study: optuna.Study) -> None:
        study.sampler = Repeating(NANO.genotype(NANO.scaled(1.0)))  # over the limit

    constrained = constrained_nano(**FEW)
    decided, ended = search(memory_path, constrained, FakeWorkers(), trials=10, change=repeat)
    assert set(evaluated(decided)) == feasible(constrained)
    assert ended == "all 8 architectures that meet the limits were evaluated"


@pytest.mark.slow
def test_a_failed_evaluation_is_recorded_and_the_search_goes_on(memory_path: Path) -> None:
    constrained = constrained_nano(**FEW)
    failing = frozenset([constrained.largest().hash, *sorted(feasible(constrained))[:2]])
    workers = FakeWorkers(capacity=2, failing=failing)
    decided, ended = search(memory_path, constrained, workers, trials=5, settings=LITTLE)
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
        if (record := nas.search.study.record_of(trial)) is not None and record.state == "failed"
    }
    assert len(told) == len(failed)


def test_a_search_in_which_all_evaluations_fail_gives_up(memory_path: Path) -> None:
    constrained = constrained_nano()
    workers = FakeWorkers(capacity=2, failing=frozenset(feasible(constrained)))
    decided, ended = search(memory_path, constrained, workers, trials=100)
    assert ended == f"{DEFAULT_SEARCH.failures} evaluations in a row failed"
    assert evaluated(decided) == []
    assert len(hashes(workers)) == 2 * DEFAULT_SEARCH.batch


# --- beginning and end ---------------------------------------------------------------------------


def test_the_landmarks_of_the_space_come_first(memory_path: Path) -> None:
    constrained = constrained_nano(macs=200_000_000)
    workers = FakeWorkers()
    decided, _ = search(memory_path, constrained, workers, trials=5)
    assert [r.source for r in decided][:4] == ["largest", "smallest", "middle", "sampler"]
    landmarks = (constrained.largest(), constrained.smallest(), constrained.middle())
    assert hashes(workers)[:3] == [architecture.hash for architecture in landmarks]


def test_a_published_design_that_the_space_holds_comes_after_them(memory_path: Path) -> None:
    constrained = ConstrainedSpace(
        space=PRESETS["base"],
        limits=Limits(macs=3_000_000_000),
        image_size=224,
        num_classes=1000,
    )
    decided, _ = search(memory_path, constrained, FakeWorkers(capacity=4), trials=4)
    by_source = {record.source: record for record in decided}
    assert by_source.keys() == {"largest", "smallest", "middle", "Shunted-T"}
    assert round(by_source["Shunted-T"].costs["macs"] / 1e9, 4) == 2.1467
    assert by_source["Shunted-T"].hash == DESIGNS[0].architecture.hash


def test_a_published_design_over_the_budget_does_not(memory_path: Path) -> None:
    constrained = ConstrainedSpace(
        space=PRESETS["base"],
        limits=Limits(macs=1_000_000_000),
        image_size=224,
        num_classes=1000,
    )
    decided, _ = search(memory_path, constrained, FakeWorkers(capacity=4), trials=4)
    assert "Shunted-T" not in {record.source for record in decided}


def test_exactly_as_many_are_evaluated_as_were_asked_for(memory_path: Path) -> None:
    for trials, capacity in ((1, 1), (2, 3), (5, 3), (7, 16)):
        workers = FakeWorkers(capacity)
        path = memory_path / str(trials)
        decided, ended = search(path, constrained_nano(), workers, trials=trials)
        assert (len(evaluated(decided)), len(workers.submitted), ended) == (trials, trials, "")
        assert not workers.under_way


@pytest.mark.slow
@pytest.mark.parametrize("capacity", [1, 5])
def test_the_search_ends_when_all_that_is_feasible_was_evaluated(
    memory_path: Path, capacity: int
) -> None:
    constrained = constrained_nano(**FEW)
    workers = FakeWorkers(capacity)
    decided, ended = search(
        memory_path, constrained, workers, trials=500, sampler="nsga2", settings=LITTLE
    )
    assert set(evaluated(decided)) == feasible(constrained)
    assert len(workers.submitted) == len(feasible(constrained)) == 8
    assert ended == "all 8 architectures that meet the limits were evaluated"


def test_a_space_of_one_feasible_architecture_is_searched_at_once(memory_path: Path) -> None:
    constrained = constrained_nano(macs=constrained_nano().cost(constrained_nano().smallest()).macs)
    decided, ended = search(memory_path, constrained, FakeWorkers(capacity=3), trials=6)
    assert evaluated(decided) == [constrained.smallest().hash]
    assert ended == "all 1 architectures that meet the limits were evaluated"


def test_the_search_ends_when_its_proposals_run_out(memory_path: Path) -> None:
    constrained = constrained_nano(**FEW)
    workers = FakeWorkers(capacity=2, failing=frozenset(feasible(constrained)))
    decided, ended = search(memory_path, constrained, workers, trials=2)
    limit = DEFAULT_SEARCH.asks_per_trial * 2
    assert ended == f"{limit} proposals brought only 0 new feasible ones"
    assert len(decided) == limit
    assert not workers.under_way
    assert len(set(hashes(workers))) == len(hashes(workers))


def test_a_search_that_has_ended_does_nothing_more(memory_path: Path) -> None:
    search(memory_path, constrained_nano(), FakeWorkers(), trials=4)
    journal = (memory_path / "study.journal").read_bytes()
    workers = FakeWorkers()
    decided, ended = search(memory_path, constrained_nano(), workers, trials=4)
    assert (len(decided), ended, workers.submitted) == (4, "", [])
    assert (memory_path / "study.journal").read_bytes().startswith(journal)


# --- latency, predicted --------------------------------------------------------------------------


PHONE, TABLET = fake_table("phone", margin=0.02), fake_table("tablet", margin=0.1)
PREDICTED = {a.hash: PHONE.predict(a) for a in NANO.enumerate()}
TIGHT, MIDDLE = (sorted(PREDICTED.values())[position] for position in (8, 60))
"""Milliseconds on the phone that few, and more, of the architectures stay below."""


def on_phone(limit_ms: float, *, here: bool, **limits: Any) -> ConstrainedSpace:
    return constrained_nano(
        latency_ms={"phone": limit_ms},
        tables={"phone": PHONE},
        measured=["phone"] if here else [],
        **limits,
    )


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_is_predicted_over_the_limit_by_more_than_the_margin_is_never_evaluated(
    memory_path: Path, sampler: SamplerName
) -> None:
    workers = FakeWorkers(capacity=3)
    decided, ended = search(
        memory_path, on_phone(MIDDLE, here=True), workers, trials=12, sampler=sampler
    )
    assert (len(evaluated(decided)), ended) == (12, "")
    assert all(PREDICTED[name] <= 1.02 * MIDDLE for name in hashes(workers))
    refused = [record for record in decided if record.state == "infeasible"]
    assert (not refused) == (sampler == "surrogate")
    for record in refused:
        assert record.accuracy is None
        assert record.excess["latency_phone_ms"] > 0.02
        assert "latency_phone_ms" in record.violation


@pytest.mark.slow
def test_what_is_predicted_over_the_limit_within_the_margin_is_evaluated_where_it_is_measured(
    memory_path: Path,
) -> None:
    workers = FakeWorkers(capacity=3)
    search(memory_path, on_phone(TIGHT, here=True), workers, trials=500, settings=LITTLE)
    within = {name for name, predicted in PREDICTED.items() if predicted <= 1.02 * TIGHT}
    assert any(PREDICTED[name] > TIGHT for name in within)
    assert set(hashes(workers)) == within


@pytest.mark.slow
def test_for_a_device_that_is_not_here_predictions_must_stay_below_the_limit_by_the_margin(
    memory_path: Path,
) -> None:
    workers = FakeWorkers(capacity=3)
    search(memory_path, on_phone(TIGHT, here=False), workers, trials=500, settings=LITTLE)
    surely = {name for name, predicted in PREDICTED.items() if predicted * 1.02 <= TIGHT}
    assert 0 < len(surely) < sum(predicted <= TIGHT for predicted in PREDICTED.values())
    assert set(hashes(workers)) == surely


def test_a_predicted_latency_is_an_objective_and_stands_in_the_record(memory_path: Path) -> None:
    decided, _ = search(memory_path, on_phone(MIDDLE, here=True), FakeWorkers(), trials=8)
    for record in decided:
        predicted = PREDICTED[record.hash]
        assert record.predicted == {"latency_phone_ms": pytest.approx(predicted)}
        assert record.excess == {"latency_phone_ms": pytest.approx(predicted / MIDDLE - 1)}
        assert record.measured == {}
    for trial in reopened(memory_path).get_trials(states=[TrialState.COMPLETE]):
        record = decided[trial.number]
        assert trial.values == [record.accuracy, record.costs["macs"], PREDICTED[record.hash]]


def test_two_devices_make_four_objectives_and_each_keeps_its_limit(memory_path: Path) -> None:
    on_tablet = {a.hash: TABLET.predict(a) for a in NANO.enumerate()}
    fast = {name for name in PREDICTED if PREDICTED[name] * 1.02 <= 1.02 * TIGHT}
    limits = {"phone": 1.02 * TIGHT, "tablet": sorted(on_tablet[name] for name in fast)[3] / 1.1}
    constrained = constrained_nano(
        latency_ms=limits, tables={"phone": PHONE, "tablet": TABLET}, measured=["tablet"]
    )
    workers = FakeWorkers(capacity=2)
    decided, _ = search(memory_path, constrained, workers, trials=500, settings=LITTLE)
    within = {name for name in fast if on_tablet[name] <= 1.1 * limits["tablet"]}
    assert set(evaluated(decided)) == within
    assert within < fast
    for trial in reopened(memory_path).get_trials(states=[TrialState.COMPLETE]):
        record = nas.search.study.record_of(trial)
        assert record is not None
        assert trial.values == [
            record.accuracy,
            record.costs["macs"],
            record.predicted["latency_phone_ms"],
            record.predicted["latency_tablet_ms"],
        ]


@pytest.mark.slow
def test_a_memory_is_an_objective_and_a_hard_limit(memory_path: Path) -> None:
    limit = 2_000_000
    second = NANO.stages[1].model_copy(
        update={"depth": (1,), "pooling": ("conv",), "sharing": (1,), "local_ratio": (0.0,)}
    )
    few = NANO.model_copy(update={"stages": (NANO.stages[0], second, NANO.stages[2])})
    constrained = ConstrainedSpace(
        space=few, limits=Limits(memory=limit), image_size=224, num_classes=10
    )
    memory = {a.hash: 4 * constrained.cost(a).peak for a in few.enumerate()}
    workers = FakeWorkers(capacity=3)
    decided, _ = search(memory_path, constrained, workers, trials=500, settings=LITTLE)
    within = {name for name, value in memory.items() if value <= limit}
    assert set(hashes(workers)) == within < memory.keys()
    for record in decided:
        assert record.costs["memory"] == memory[record.hash]
        assert (record.state == "infeasible") == (memory[record.hash] > limit)
        assert ("memory" in record.violation) == (memory[record.hash] > limit)
    for trial in reopened(memory_path).get_trials(states=[TrialState.COMPLETE]):
        record = decided[trial.number]
        assert trial.values == [record.accuracy, record.costs["macs"], memory[record.hash]]


# --- latency, measured ---------------------------------------------------------------------------


class Stopwatch:
    """Measures what it is told, and keeps what was measured.

    Args:
        slow: Hashes that take far more than any limit; all else takes what is predicted.
        survives: Measurements after which it raises `Killed`.
    """

    def __init__(self, slow: Iterable[str] = (), survives: int = 10**9) -> None:
        self.slow, self.survives = frozenset(slow), survives
        self.measured: list[tuple[str, str]] = []

    def __call__(self, architecture: Architecture, device: str) -> Latency:
        if len(self.measured) == self.survives:
            raise Killed
        self.measured.append((architecture.hash, device))
        table = {"phone": PHONE, "tablet": TABLET}[device]
        median = 1e6 if architecture.hash in self.slow else table.predict(architecture)
        return Latency(median_ms=median, iqr_ms=0.25, repeats=10)

    @property
    def hashes(self) -> list[str]:
        return [name for name, _ in self.measured]


def on_front(known: Mapping[int, Record], *, constrained: ConstrainedSpace) -> list[Record]:
    front = pareto_front(trials_table(known, constrained.objectives), constrained.objectives)
    return [known[number] for number in front["number"]]


def measure(
    path: Path, constrained: ConstrainedSpace, stopwatch: Stopwatch, stop: StopRequest | None = None
) -> list[tuple[Record, Objective, MeasuredLatency]]:
    """Measure the front as a process does; what was told of it."""
    told: list[tuple[Record, Objective, MeasuredLatency]] = []
    measure_chosen(
        reopened(path),
        constrained,
        stopwatch,
        choose=partial(on_front, constrained=constrained),
        stop=stop or StopRequest(),
        on_measured=lambda *what: told.append(what),
    )
    return told


def front(known: Iterable[Record], *, without: Iterable[str] = ()) -> set[str]:
    """Hashes that no other one beats, by pairwise comparison."""
    points = {
        record.hash: tuple(
            -value if name == "accuracy" else value
            for name, value in record.values.items()
            if name != "params"
        )
        for record in known
        if record.was_evaluated and record.hash not in set(without)
    }
    return {
        name
        for name, point in points.items()
        if not any(
            other != point and all(x <= y for x, y in zip(other, point, strict=True))
            for other in points.values()
        )
    }


LOOSE = on_phone(1000.0, here=True)
"""A limit that nothing exceeds by prediction."""


def test_beside_a_memory_all_of_the_front_is_measured_that_memory_is_part_of(
    memory_path: Path,
) -> None:
    constrained = on_phone(1000.0, here=True, memory=3_000_000)
    search(memory_path, constrained, FakeWorkers(), trials=16)
    found = records(reopened(memory_path)).values()
    known = [record for record in found if record.was_evaluated]
    stopwatch = Stopwatch()
    measure(memory_path, constrained, stopwatch)
    assert set(stopwatch.hashes) == front(known)
    assert all(record.values.keys() >= {"memory", "latency_phone_ms"} for record in known)


@pytest.fixture(scope="module")
def journal_of_a_search(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What a search that is over has written, in which nothing was measured yet."""
    folder = tmp_path_factory.mktemp("searched")
    search(folder, LOOSE, FakeWorkers(), trials=16)
    return (folder / "study.journal").read_bytes()


@pytest.fixture
def searched(journal_of_a_search: bytes, memory_path: Path) -> Path:
    """The folder of that search, which may be changed."""
    (memory_path / "study.journal").write_bytes(journal_of_a_search)
    return memory_path


def known_in(path: Path) -> dict[str, Record]:
    """Records by hash, without those of duplicates."""
    found = records(reopened(path)).values()
    return {record.hash: record for record in found if record.state != "duplicate"}


def test_all_of_the_front_is_measured_and_nothing_else_the_best_first(searched: Path) -> None:
    before, stopwatch = known_in(searched), Stopwatch()
    told = measure(searched, LOOSE, stopwatch)
    assert set(stopwatch.hashes) == front(before.values()) != before.keys()
    assert len(set(stopwatch.hashes)) == len(stopwatch.hashes) > 3
    accuracies = [before[name].accuracy or 0 for name in stopwatch.hashes]
    assert accuracies == sorted(accuracies, reverse=True)
    assert [(record.hash, o.device) for record, o, _ in told] == stopwatch.measured
    for name, record in known_in(searched).items():
        assert record.state == before[name].state
        measured = {"latency_phone_ms"} if name in stopwatch.hashes else set()
        assert record.measured.keys() == measured
    for record in map(known_in(searched).get, stopwatch.hashes):
        assert record is not None
        assert record.measured["latency_phone_ms"] == MeasuredLatency(
            median_ms=PREDICTED[record.hash],
            iqr_ms=0.25,
            unstable=False,
            excess=pytest.approx(PREDICTED[record.hash] / 1000 - 1),  # type: ignore[arg-type]
        )


def test_what_is_measured_over_the_limit_leaves_the_front_and_its_successor_is_measured(
    searched: Path,
) -> None:
    before = known_in(searched)
    at_first = front(before.values())
    slow, successors = next(
        (name, new)
        for name in sorted(at_first)
        if (new := front(before.values(), without=[name]) - at_first)
    )
    stopwatch = Stopwatch([slow])
    measure(searched, LOOSE, stopwatch)
    assert set(stopwatch.hashes) == at_first | successors
    after = known_in(searched)
    assert after[slow].state == "infeasible"
    assert after[slow].accuracy == before[slow].accuracy
    assert "latency_phone_ms" in after[slow].violation
    assert {r.hash for r in after.values() if r.state == "infeasible"} == {slow}
    assert front(after.values(), without=[slow]) == set(stopwatch.hashes) - {slow}


def test_if_all_are_too_slow_all_are_measured_and_none_is_left(searched: Path) -> None:
    before = known_in(searched)
    stopwatch = Stopwatch(before)
    measure(searched, LOOSE, stopwatch)
    assert sorted(stopwatch.hashes) == sorted(before)
    assert {record.state for record in known_in(searched).values()} == {"infeasible"}


def test_a_search_that_goes_on_does_not_evaluate_again_what_was_measured_to_be_too_slow(
    searched: Path,
) -> None:
    before = known_in(searched)
    measure(searched, LOOSE, Stopwatch(before))
    workers = FakeWorkers()
    decided, ended = search(searched, LOOSE, workers, trials=21)
    assert ended == ""
    assert not set(hashes(workers)) & before.keys()
    assert len(hashes(workers)) == 5
    assert {r.hash for r in decided if r.state == "infeasible"} == before.keys()


def test_a_proposal_of_what_was_measured_is_a_duplicate_and_told_as_predicted(
    searched: Path,
) -> None:
    stopwatch = Stopwatch()
    measure(searched, LOOSE, stopwatch)
    known = known_in(searched)[stopwatch.hashes[0]]
    again = Repeating(NANO.genotype(Architecture.model_validate(known.architecture)))

    def propose_it(study: optuna.Study) -> None:
        study.sampler = again

    decided, _ = search(searched, LOOSE, FakeWorkers(), trials=17, change=propose_it)
    repeated = [r for r in decided if r.hash == known.hash and r.state == "duplicate"]
    assert repeated
    assert known_in(searched)[known.hash] == known  # a journal that can be read
    study = reopened(searched)
    assert study.metric_names is not None
    place = study.metric_names.index("latency_phone_ms")
    for number, record in records(study).items():
        if record in repeated:
            assert study.trials[number].values[place] == known.predicted["latency_phone_ms"]


@pytest.mark.slow
@pytest.mark.parametrize("survives", [0, 1, 3])
def test_measuring_that_was_killed_goes_on_without_measuring_again(
    searched: Path, survives: int
) -> None:
    expected = front(known_in(searched).values())
    first, second = Stopwatch(survives=survives), Stopwatch()
    with pytest.raises(Killed):
        measure(searched, LOOSE, first)
    measure(searched, LOOSE, second)
    assert len(first.hashes) == survives
    assert not set(first.hashes) & set(second.hashes)
    assert {*first.hashes, *second.hashes} == expected
    third = Stopwatch()
    assert measure(searched, LOOSE, third) == []
    assert third.measured == []


def test_a_stop_is_heeded_between_two_measurements_and_keeps_the_first(searched: Path) -> None:
    stop, stopwatch = StopRequest(), Stopwatch()

    def stop_at_once(record: Record, objective: Objective, latency: MeasuredLatency) -> None:
        stop.requested = True

    with pytest.raises(Interrupted):
        measure_chosen(
            reopened(searched),
            LOOSE,
            stopwatch,
            choose=partial(on_front, constrained=LOOSE),
            stop=stop,
            on_measured=stop_at_once,
        )
    assert len(stopwatch.measured) == 1
    assert [r.hash for r in known_in(searched).values() if r.measured] == stopwatch.hashes


def test_a_device_that_is_not_here_is_not_measured(memory_path: Path) -> None:
    limits = {"phone": 1000.0, "tablet": 1000.0}
    tables = {"phone": PHONE, "tablet": TABLET}
    for here in ([], ["tablet"]):
        constrained = constrained_nano(latency_ms=limits, tables=tables, measured=here)
        path = memory_path / "-".join(["here", *here])
        search(path, constrained, FakeWorkers(), trials=10)
        stopwatch = Stopwatch()
        measure(path, constrained, stopwatch)
        expected = front(known_in(path).values()) if here else set()
        assert set(stopwatch.measured) == {(name, "tablet") for name in expected}


def test_on_two_devices_that_are_here_the_front_is_measured_on_both(memory_path: Path) -> None:
    constrained = constrained_nano(
        latency_ms={"phone": 1000.0, "tablet": 1000.0},
        tables={"phone": PHONE, "tablet": TABLET},
        measured=["phone", "tablet"],
    )
    search(memory_path, constrained, FakeWorkers(), trials=10)
    stopwatch = Stopwatch()
    measure(memory_path, constrained, stopwatch)
    expected = {
        (name, device)
        for name in front(known_in(memory_path).values())
        for device in ("phone", "tablet")
    }
    assert set(stopwatch.measured) == expected
    assert len(stopwatch.measured) == len(expected)


# --- stopping and being killed -------------------------------------------------------------------


def check_nothing_is_lost_or_repeated(
    path: Path, constrained: ConstrainedSpace, trials: int, finished: set[str]
) -> None:
    """Take up a search; what was finished is not evaluated again, and the end is the same."""
    workers = FakeWorkers(capacity=3)
    decided, ended = search(path, constrained, workers, trials=trials)
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
    constrained = constrained_nano(macs=150_000_000)
    workers = FakeWorkers(capacity=3, survives=survives)
    with pytest.raises(Killed):
        search(memory_path, constrained, workers, trials=8)
    under_way = {architecture.hash for _, architecture in workers.under_way}
    finished = set(hashes(workers)) - under_way
    assert len(finished) == survives
    check_nothing_is_lost_or_repeated(memory_path, constrained, 8, finished)
    sources = {record.source for record in records(reopened(memory_path)).values()}
    assert {"largest", "smallest", "middle"} <= sources


def test_what_was_under_way_comes_first_when_a_search_is_taken_up(memory_path: Path) -> None:
    constrained = constrained_nano()
    killed = FakeWorkers(capacity=3, survives=3)
    with pytest.raises(Killed):
        search(memory_path, constrained, killed, trials=8)
    workers = FakeWorkers()
    search(memory_path, constrained, workers, trials=8)
    under_way = [architecture.hash for _, architecture in killed.under_way]
    assert set(hashes(workers)[: len(under_way)]) == set(under_way)


def test_a_score_that_was_recorded_but_not_told_is_not_lost(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constrained = constrained_nano()
    told: list[str] = []
    tell = nas.search.driver.tell

    def dies_before_the_fifth(study: optuna.Study, number: int, record: Record) -> None:
        if len(told) == 4:
            told.append(record.hash)
            raise Killed
        told.append(record.hash)
        tell(study, number, record)

    with monkeypatch.context() as patch:
        patch.setattr(nas.search.driver, "tell", dies_before_the_fifth)
        with pytest.raises(Killed):
            search(memory_path, constrained, FakeWorkers(), trials=8)
    # The scores of the whole batch were recorded before the first was told.
    finished = set(evaluated(list(records(reopened(memory_path)).values())))
    assert len(finished) == 8
    check_nothing_is_lost_or_repeated(memory_path, constrained, 8, finished)


def test_landmarks_are_not_lost_when_the_process_dies_while_it_enqueues_them(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constrained = constrained_nano(macs=200_000_000)
    enqueue = nas.search.driver.enqueue

    def dies_at_the_smallest(study: optuna.Study, genotype: dict[str, Any], source: str) -> None:
        if source == "smallest":
            raise Killed
        enqueue(study, genotype, source)

    with monkeypatch.context() as patch:
        patch.setattr(nas.search.driver, "enqueue", dies_at_the_smallest)
        with pytest.raises(Killed):
            search(memory_path, constrained, FakeWorkers(), trials=5)
    decided, _ = search(memory_path, constrained, FakeWorkers(), trials=5)
    assert [record.source for record in decided][:3] == ["largest", "smallest", "middle"]


def test_a_stop_leaves_what_is_under_way_to_the_next_process(memory_path: Path) -> None:
    constrained = constrained_nano(macs=150_000_000)
    stop = StopRequest()
    decided: list[Record] = []

    def stop_after_three(record: Record) -> None:
        decided.append(record)
        stop.requested = len(evaluated(decided)) == 3

    with pytest.raises(Interrupted):
        search(
            memory_path,
            constrained,
            FakeWorkers(capacity=3),
            trials=8,
            stop=stop,
            on_decided=stop_after_three,
        )
    assert len(evaluated(decided)) == 3
    check_nothing_is_lost_or_repeated(memory_path, constrained, 8, set(evaluated(decided)))


# --- the same however the work is spread ---------------------------------------------------------


SOME = constrained_nano(macs=sorted(constrained_nano().cost(a).macs for a in NANO.enumerate())[99])
"""Limits that a hundred of 288 architectures meet."""


class FakeEvaluator(SubnetEvaluator):
    """Knows all accuracies; a third of what is feasible fails."""

    def __init__(self) -> None: ...

    def fit(self, architecture: Architecture) -> Fit:
        if int(architecture.hash, 16) % 3 == 0:
            raise Diverged("out of luck")
        return Fit(accuracy=fake_accuracy(architecture), loss=fake_loss(architecture))


class FakeSetup(EvaluationSetup):
    """What a process needs for that: nothing."""

    def __init__(self) -> None: ...

    def evaluator(self) -> SubnetEvaluator:
        return FakeEvaluator()


class Scrambled(FakeWorkers):
    """Evaluates several at a time, which end in an order that nobody foresees."""

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        if self.survives == 0:
            raise Killed
        self.survives -= 1
        order = random.Random(f"{self.capacity} {self.survives}")
        if order.random() < 0.2:
            return None  # nothing is done yet
        self.under_way.rotate(order.randrange(len(self.under_way)))
        ticket, architecture = self.under_way.pop()
        return ticket, evaluate(FakeEvaluator(), architecture)


def spread(
    path: Path, workers: Workers, sampler: SamplerName, *, trials: int = 12
) -> list[tuple[int, Record]]:
    """Search with those workers; the records by number, but for the seconds.

    The surrogate learns so early that most of its proposals are its model's.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nas.search.surrogate, "FIRST", 3)
        search(path, SOME, workers, trials=trials, sampler=sampler, settings=LITTLE)
    known = records(reopened(path))
    return [(number, replace(record, seconds=0.0)) for number, record in known.items()]


@cache
def searched_alone(sampler: SamplerName) -> tuple[list[tuple[int, Record]], bytes]:
    """The records of a search in this process alone, one evaluation at a time; its journal."""
    with TemporaryDirectory() as folder:
        found = spread(Path(folder), InProcess(FakeSetup()), sampler)
        return found, (Path(folder) / "study.journal").read_bytes()


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_all_records_are_the_same_whoever_evaluates_and_in_whatever_order(
    memory_path: Path, sampler: SamplerName
) -> None:
    alone, _ = searched_alone(sampler)
    found = Counter(record.state for _, record in alone)
    assert found["evaluated"] == 12
    assert found["failed"] > 1
    if sampler != "surrogate":  # which proposes nothing twice, and nothing over a limit
        assert min(found["duplicate"], found["infeasible"]) > 0
    for capacity in (1, 2, 5):
        workers = Scrambled(capacity)
        assert spread(memory_path / str(capacity), workers, sampler) == alone
        assert workers.most_under_way == min(capacity, LITTLE.batch)


@pytest.mark.slow
@pytest.mark.parametrize("survives", [0, 3, 7])
@pytest.mark.parametrize("sampler", ["surrogate", "nsga2"])
def test_a_search_that_was_killed_among_the_scores_of_a_batch_ends_like_one_that_was_not(
    memory_path: Path, sampler: SamplerName, survives: int
) -> None:
    alone, _ = searched_alone(sampler)
    with pytest.raises(Killed):
        spread(memory_path, Scrambled(2, survives=survives), sampler)
    with pytest.raises(Killed):  # and once more
        spread(memory_path, Scrambled(5, survives=2), sampler)
    assert spread(memory_path, Scrambled(1), sampler) == alone


@pytest.mark.slow
@pytest.mark.parametrize("place", range(3))
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_can_be_killed_at_any_byte_of_its_journal_and_ends_like_one_that_was_not(
    memory_path: Path, sampler: SamplerName, place: int
) -> None:
    alone, journal = searched_alone(sampler)
    cut = random.Random(f"{sampler} {place}").randrange(len(journal))
    (memory_path / "study.journal").write_bytes(journal[:cut])
    assert spread(memory_path, Scrambled(2), sampler) == alone
    assert not reopened(memory_path).get_trials(states=[TrialState.RUNNING])


def test_a_batch_is_told_when_all_of_it_is_evaluated_and_in_the_order_of_its_trials(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []
    workers = Scrambled(3)
    tell = nas.search.driver.tell

    def watch(study: optuna.Study, number: int, record: Record) -> None:
        assert not workers.under_way
        assert len(study.get_trials(states=[TrialState.RUNNING])) > 0
        told.append(number)
        tell(study, number, record)

    monkeypatch.setattr(nas.search.driver, "tell", watch)
    decided, _ = search(
        memory_path,
        constrained_nano(),
        workers,
        trials=12,
        sampler="surrogate",
        settings=LITTLE,
    )
    assert told == sorted(told) == list(range(len(decided)))


def test_a_failure_is_remembered_by_the_next_process(memory_path: Path) -> None:
    genotype = NANO.genotype(NANO.scaled(0.5))

    def repeat(study: optuna.Study) -> None:
        study.sampler = Repeating(genotype)

    failing = frozenset([NANO.scaled(0.5).hash])
    search(memory_path, constrained_nano(), FakeWorkers(failing=failing), trials=3, change=repeat)
    workers = FakeWorkers()
    search(memory_path, constrained_nano(), workers, trials=5, change=repeat)
    assert NANO.scaled(0.5).hash not in hashes(workers)


def test_a_search_does_not_depend_on_anything_but_its_seed(memory_path: Path) -> None:
    first, _ = search(
        memory_path / "one", constrained_nano(), FakeWorkers(), trials=8, sampler="nsga2"
    )
    random.random()
    second, _ = search(
        memory_path / "two", constrained_nano(), FakeWorkers(), trials=8, sampler="nsga2"
    )
    assert [record.hash for record in first] == [record.hash for record in second]
