"""Which architectures are tried by training them alone."""

import math
import random
from dataclasses import replace

import pytest
from small_runs import constrained_nano, fake_accuracy, fake_loss

from nas.objectives.limits import Limits
from nas.search.front import pareto_front
from nas.search.short_list import short_list
from nas.search.trials import Record, trials_table
from search_space import PRESETS, Architecture, SearchSpace
from search_space.encoding import is_size

TINY = PRESETS["tiny"]
OBJECTIVES = Limits().objectives


def evaluated(architectures: list[Architecture]) -> dict[int, Record]:
    constrained = constrained_nano()
    return {
        number: Record(
            state="evaluated",
            architecture=architecture.model_dump(mode="json"),
            hash=architecture.hash,
            costs=constrained.costs(architecture),
            source="sampler",
            accuracy=fake_accuracy(architecture),
            excess={},
        )
        for number, architecture in enumerate(architectures)
    }


def drawn(count: int, space: SearchSpace = TINY) -> dict[int, Record]:
    rng = random.Random(1)
    return evaluated([space.sample(rng) for _ in range(count)])


def test_the_list_goes_by_the_loss_where_that_is_known() -> None:
    known = {
        number: replace(record, loss=fake_loss(Architecture.model_validate(record.architecture)))
        for number, record in drawn(200).items()
    }
    chosen = short_list(known, OBJECTIVES, TINY, size=8)
    losses = [record.loss or 0 for record in chosen]
    assert losses == sorted(losses)
    assert losses[0] == min(record.loss or 0 for record in known.values())
    # The same as of architectures whose accuracies are the probabilities that these losses mean.
    as_accuracies = {
        number: replace(record, accuracy=math.exp(-(record.loss or 0)), loss=None)
        for number, record in known.items()
    }
    same = short_list(as_accuracies, OBJECTIVES, TINY, size=8)
    assert [record.hash for record in same] == [record.hash for record in chosen]


def test_where_one_has_no_loss_the_list_goes_by_accuracies() -> None:
    by_accuracy = short_list(drawn(200), OBJECTIVES, TINY, size=8)
    known = {number: replace(r, loss=0.01 * number) for number, r in drawn(200).items()}
    assert [r.hash for r in short_list(known, OBJECTIVES, TINY, size=8)] != [
        record.hash for record in by_accuracy
    ]
    known[7] = replace(known[7], loss=None)
    assert [r.hash for r in short_list(known, OBJECTIVES, TINY, size=8)] == [
        record.hash for record in by_accuracy
    ]


def operators(record: Record) -> list[object]:
    genotype = TINY.genotype(Architecture.model_validate(record.architecture))
    return [value for gene, value in genotype.items() if not is_size(gene)]


def test_a_third_is_the_upper_half_of_the_front_spread_over_cost_the_best_among_it() -> None:
    known = drawn(200)
    front = pareto_front(trials_table(known, OBJECTIVES), OBJECTIVES)
    middle = (front["accuracy"].min() + front["accuracy"].max()) / 2
    upper = front[front["accuracy"] >= middle]
    assert len(front) > len(upper) >= 3
    chosen = short_list(known, OBJECTIVES, TINY, size=8)
    assert len(chosen) == 8
    on_front = [record.hash for record in chosen if record.hash in set(front["hash"])]
    ends = {upper.iloc[0]["hash"], upper.iloc[-1]["hash"]}
    assert ends <= set(on_front)
    assert len(on_front) >= 3
    assert chosen[0].accuracy == max(record.accuracy or 0 for record in known.values())
    accuracies = [record.accuracy or 0 for record in chosen]
    assert accuracies == sorted(accuracies, reverse=True)


def test_the_rest_differs_from_everything_in_a_quarter_of_its_operators() -> None:
    known = drawn(200)
    front = pareto_front(trials_table(known, OBJECTIVES), OBJECTIVES)
    chosen = short_list(known, OBJECTIVES, TINY, size=8)
    others = [record for record in chosen if record.hash not in set(front["hash"])]
    assert others
    for record in others:
        for other in chosen:
            if other is not record:
                pairs = zip(operators(record), operators(other), strict=True)
                assert sum(a != b for a, b in pairs) >= len(operators(record)) // 4


@pytest.mark.parametrize("size", [1, 2, 5, 6, 50])
def test_a_list_has_its_size_or_all_that_there_is_each_once(size: int) -> None:
    known = drawn(6)
    chosen = short_list(known, OBJECTIVES, TINY, size=size)
    assert len({record.hash for record in chosen}) == len(chosen) == min(size, 6)
    assert chosen[0].accuracy == max(record.accuracy or 0 for record in known.values())


def test_what_is_too_slow_or_failed_is_not_on_the_list() -> None:
    known = drawn(6)
    bad = {0: "infeasible", 1: "failed", 2: "duplicate"}
    known = {
        number: Record(**{**vars(record), "state": bad.get(number, "evaluated")})
        for number, record in known.items()
    }
    chosen = short_list(known, OBJECTIVES, TINY, size=6)
    assert {record.hash for record in chosen} == {known[n].hash for n in (3, 4, 5)}


def test_nothing_evaluated_makes_an_empty_list() -> None:
    assert short_list({}, OBJECTIVES, TINY, size=3) == []
