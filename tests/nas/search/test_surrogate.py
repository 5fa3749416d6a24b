"""The surrogate: what it proposes, what it learns, and where it cannot learn."""

import math
import random
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from small_runs import NANO, constrained_nano

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.search import surrogate
from nas.search.surrogate import SurrogateSampler
from nas.search.trials import RECORD
from search_space import Architecture

LIMIT = 250_000_000


def good_choices(architecture: Architecture) -> float:
    """An accuracy to which each gene adds its part, and which costs nothing by itself."""
    genes = NANO.genotype(architecture)
    return 0.5 + 0.2 * (genes["stage2.pooling"] == "max_pool") + 0.1 * (genes["stage1.ratio"] == 2)


def proposals(
    constrained: ConstrainedSpace,
    accuracy: Callable[[Architecture], float],
    count: int,
    *,
    loss: Callable[[Architecture], float | None] = lambda _: None,
    seed: int = 0,
) -> list[Architecture]:
    """What is proposed where each proposal is evaluated before the next."""
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=SurrogateSampler(constrained, seed=seed)
    )
    found = []
    for _ in range(count):
        trial = study.ask()
        architecture = NANO.suggest(trial)
        trial.set_user_attr(RECORD, {"loss": loss(architecture)})
        study.tell(trial, [accuracy(architecture), constrained.cost(architecture).macs])
        found.append(architecture)
    return found


def test_what_it_proposes_is_new_and_within_the_limits() -> None:
    constrained = constrained_nano(macs=LIMIT)
    found = proposals(constrained, good_choices, 25)
    assert len({architecture.hash for architecture in found}) == 25
    assert all(constrained.admits(architecture) for architecture in found)
    assert not all(constrained.admits(architecture) for architecture in NANO.enumerate())


def test_it_learns_which_choices_are_good() -> None:
    found = proposals(constrained_nano(macs=LIMIT), good_choices, surrogate.FIRST + 15)
    first, learned = found[: surrogate.FIRST], found[surrogate.FIRST :]
    assert np.mean([good_choices(a) for a in learned[:10]]) > 0.74
    assert np.mean([good_choices(a) for a in first]) < 0.7


def test_it_learns_from_the_loss_where_that_is_known() -> None:
    found = proposals(
        constrained_nano(macs=LIMIT),
        lambda a: 1.0 - good_choices(a),
        surrogate.FIRST + 15,
        loss=lambda a: -math.log(good_choices(a)),
    )
    assert np.mean([good_choices(a) for a in found[surrogate.FIRST :][:10]]) > 0.74


def test_it_learns_from_accuracies_where_one_has_no_loss() -> None:
    found = proposals(
        constrained_nano(macs=LIMIT),
        good_choices,
        surrogate.FIRST + 15,
        # Of the others the loss says that the good ones are bad.
        loss=lambda a: None if int(a.hash, 16) % 2 else 5 * good_choices(a),
    )
    assert np.mean([good_choices(a) for a in found[surrogate.FIRST :][:10]]) > 0.74


def test_where_nothing_new_lies_above_a_floor_something_new_below_it_is_proposed() -> None:
    constrained = constrained_nano()
    cost = {a: constrained.cost(a).macs for a in NANO.enumerate()}
    dear_first = sorted(cost, key=lambda a: -cost[a])
    evaluated = {a: good_choices(a) for a in dear_first[:20]}
    chosen = SurrogateSampler(constrained, seed=0)._most_promising(
        evaluated, evaluated.keys(), dear_first[20:30], random.Random(0), floor=cost[dear_first[3]]
    )
    assert chosen not in evaluated


def test_how_far_merits_lie_apart_does_not_matter() -> None:
    def close_together(architecture: Architecture) -> float:
        return good_choices(architecture) / 2**20  # exactly, so that nothing is rounded otherwise

    wide, close = (
        proposals(constrained_nano(macs=LIMIT), accuracy, 20)
        for accuracy in (good_choices, close_together)
    )
    assert wide == close


def test_every_second_proposal_has_a_floor_anywhere_between_smallest_and_largest() -> None:
    constrained = constrained_nano()
    # What costs little is accurate: by the hypervolume alone nothing large would be proposed.
    cost = {a: constrained.cost(a).macs for a in NANO.enumerate()}
    largest = max(cost.values())
    found = proposals(constrained, lambda a: 1.0 - 0.5 * cost[a] / largest, 50)
    shares = {n: cost[a] / largest for n, a in enumerate(found) if n >= surrogate.FIRST}
    by_hypervolume = np.array([share for n, share in shares.items() if n % 2 == 0])
    above_a_floor = np.array([share for n, share in shares.items() if n % 2 == 1])
    assert by_hypervolume.max() < 0.55 < np.median(above_a_floor)
    assert above_a_floor.min() < 0.5 < 0.75 < above_a_floor.max()


def test_it_goes_on_where_all_are_equal_and_where_everything_is_known() -> None:
    few = sorted(constrained_nano().cost(a).macs for a in NANO.enumerate())[14]
    constrained = constrained_nano(macs=few)
    found = proposals(constrained, lambda _: 0.1, 20)
    assert {a.hash for a in found} == {a.hash for a in NANO.enumerate() if constrained.admits(a)}


def test_what_is_under_way_is_not_proposed_again() -> None:
    constrained = constrained_nano(macs=LIMIT)
    study = optuna.create_study(
        directions=["maximize", "minimize"], sampler=SurrogateSampler(constrained, seed=0)
    )
    under_way = [NANO.suggest(study.ask()).hash for _ in range(12)]
    assert len(set(under_way)) == 12
    assert all(t.state == TrialState.RUNNING for t in study.get_trials())


def test_its_seed_repeats_it() -> None:
    constrained = constrained_nano(macs=LIMIT)
    one, two, other = (proposals(constrained, good_choices, 14, seed=s) for s in (1, 1, 2))
    assert one == two != other


def test_worth_is_the_hypervolume_that_is_added_and_else_the_lead() -> None:
    objectives = [o for o in Limits(macs=1e9).objectives if o.searched]
    evaluated = np.array([[0.2, 100.0], [0.6, 300.0], [0.1, 300.0]])
    front = evaluated[:2]
    promised = np.array([[0.4, 200.0], [0.5, 300.0], [0.6, 100.0]])
    worths = surrogate._worths(promised, front, evaluated, objectives)
    # As shares of the span: accuracy from 0.1 to 0.6, multiply-adds from 100 to 300 million.
    assert worths[0] == pytest.approx((0.5 * (0.6 - 0.2), 0.6 - 0.2))
    assert worths[1] == pytest.approx((0.0, 0.8 - 1.0))
    assert worths[2] == pytest.approx((1.0 - 0.2, 1.0 - 0.2))
