"""Which choices matter: what is estimated, of what, and how surely."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest
from small_runs import NANO, evaluated_nano

from nas.search.effects import (
    LEAST_ARCHITECTURES,
    GeneEffect,
    alone_effects,
    clear,
    inherited_effects,
)
from nas.search.features import features
from search_space import Architecture

NOISE = 0.02


@pytest.fixture(scope="module")
def nano() -> tuple[pd.DataFrame, dict[str, Architecture]]:
    return evaluated_nano(80)


def with_accuracies(
    trials: pd.DataFrame,
    architectures: Mapping[str, Architecture],
    gains: Mapping[str, Mapping[object, float]],
    *,
    slope: float = 0.0,
    seed: int = 0,
) -> pd.DataFrame:
    """Trials whose accuracies are what their choices and the logarithm of their MACs give."""
    noise = np.random.default_rng(seed).normal(0, NOISE, len(trials))
    taken = [NANO.equivalents(architectures[hash]) for hash in trials["hash"]]
    added = [
        sum(np.mean([of.get(c, 0.0) for c in each[gene]]) for gene, of in gains.items())
        for each in taken
    ]
    return trials.assign(accuracy=0.5 + slope * np.log(trials["macs"] / 1e8) + added + noise)


def named(effects: list[GeneEffect]) -> dict[str, GeneEffect]:
    return {effect.gene: effect for effect in effects}


def test_the_choice_that_gives_accuracy_leads_and_what_only_costs_does_not(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    better = {"stage2.pooling": {"max_pool": 0.06}}
    trials = with_accuracies(trials, architectures, better, slope=0.3)
    effects = inherited_effects(trials, architectures, NANO)
    assert [effect.gene for effect in clear(effects)] == ["stage2.pooling"]
    first = effects[0]
    assert first.lead is not None
    assert first.lead.mean == pytest.approx(0.06, abs=0.015)
    assert [each.choice for each in first.ranked] == ["max_pool", "conv"]
    gains = [each.gain.mean for each in first.choices if each.gain]
    assert gains == pytest.approx([-first.lead.mean / 2, first.lead.mean / 2])
    # Wider and deeper networks are more accurate here, and no more so than their MACs are.
    wide = [taken for taken in trials["hash"] if architectures[taken].stages[1].width == 64]
    means = trials.groupby(trials["hash"].isin(wide))["accuracy"].mean()
    assert means[True] - means[False] > 0.05
    lead = named(effects)["stage2.width"].lead
    assert lead is not None
    assert lead.mean < 0.025


def test_genes_are_ordered_by_their_leads(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    better = {"stage2.pooling": {"conv": 0.05}, "stage2.feed_forward": {"plain": 0.1}}
    effects = inherited_effects(with_accuracies(trials, architectures, better), architectures, NANO)
    assert [effect.gene for effect in effects[:2]] == ["stage2.feed_forward", "stage2.pooling"]
    leads = [effect.lead.mean for effect in effects if effect.lead]
    assert leads == sorted(leads, reverse=True)
    assert {effect.gene for effect in effects} == {g for g, c in NANO.genes.items() if len(c) > 1}


def test_a_gene_is_compared_only_where_it_has_an_effect(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    deep = sum(architecture.stages[1].depth == 2 for architecture in architectures.values())
    # A single block shares its map with none: what depth gives must not be sharing's.
    trials = with_accuracies(trials, architectures, {"stage2.depth": {2: 0.1}})
    effects = named(inherited_effects(trials, architectures, NANO))
    sharing, depth = effects["stage2.sharing"], effects["stage2.depth"]
    assert sum(each.architectures for each in sharing.choices) == deep < len(architectures)
    assert sharing.lead is not None and depth.lead is not None
    assert sharing.lead.mean < 0.015
    assert depth.lead.mean == pytest.approx(0.1, abs=0.025)


@pytest.mark.parametrize("share", [0.15, 1.0])
def test_intervals_of_95_percent_hold_the_truth_about_as_often_whether_few_genes_matter_or_all(
    nano: tuple[pd.DataFrame, dict[str, Architecture]], share: float
) -> None:
    trials, architectures = nano
    rng = np.random.default_rng(1)
    held: list[bool] = []
    large: list[bool] = []
    for seed in range(20):
        truth = {
            gene: dict(zip(choices, rng.normal(0, 0.04, len(choices)), strict=True))
            if rng.uniform() < share
            else dict.fromkeys(choices, 0.0)
            for gene, choices in NANO.genes.items()
            if len(choices) > 1
        }
        sample = trials.sample(50, random_state=seed)
        drawn = with_accuracies(sample, architectures, truth, slope=0.1, seed=seed)
        for effect in inherited_effects(drawn, architectures, NANO):
            mean = np.mean([truth[effect.gene][each.choice] for each in effect.choices])
            for each in effect.choices:
                assert each.gain is not None
                low, high = each.gain.interval
                right = truth[effect.gene][each.choice] - mean
                held.append(bool(low <= right <= high))
                large += [held[-1]] if abs(right) > 0.03 else []
    assert 0.85 <= np.mean(held) <= 1
    assert len(large) >= 10
    assert np.mean(large) >= 0.75


def test_noise_alone_is_hardly_ever_called_clear(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    found = [
        clear(
            inherited_effects(
                with_accuracies(trials, architectures, {}, seed=seed), architectures, NANO
            )
        )
        for seed in range(10)
    ]
    assert sum(map(bool, found)) <= 1


def test_a_choice_made_rarely_is_unknown(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    pooled = trials["hash"].map(lambda hash: architectures[hash].stages[1].pooling == "max_pool")
    few = pd.concat([trials[~pooled], trials[pooled][:2]])
    better = {"stage2.pooling": {"max_pool": 0.3}}
    effects = inherited_effects(with_accuracies(few, architectures, better), architectures, NANO)
    pooling = named(effects)["stage2.pooling"]
    assert [each.architectures for each in pooling.choices] == [(~pooled).sum(), 2]
    assert [each.gain for each in pooling.choices] == [None, None]
    assert pooling.lead is None
    assert effects[-1] is pooling
    assert pooling not in clear(effects)


def test_of_too_few_architectures_nothing_is_said(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    enough = with_accuracies(trials[:LEAST_ARCHITECTURES], architectures, {})
    assert inherited_effects(enough, architectures, NANO)
    assert inherited_effects(enough[1:], architectures, NANO) == []
    over = enough.assign(state=["infeasible"] + ["evaluated"] * (len(enough) - 1))
    assert inherited_effects(over, architectures, NANO) == []


def test_accuracies_that_are_all_equal_show_no_difference(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    effects = inherited_effects(trials, architectures, NANO)
    assert clear(effects) == []
    assert all(abs(effect.lead.mean) < 1e-6 for effect in effects if effect.lead)


def test_what_training_alone_says_is_said_apart_at_equal_steps(
    nano: tuple[pd.DataFrame, dict[str, Architecture]],
) -> None:
    trials, architectures = nano
    inherited = with_accuracies(trials, architectures, {"stage2.pooling": {"conv": 0.1}})
    alone = with_accuracies(trials, architectures, {"stage2.feed_forward": {"plain": 0.1}})
    steps = np.where(np.arange(len(trials)) % 3 == 0, 270, 90)
    trained = alone["accuracy"] + 0.2 * (steps == 270)
    both = inherited.assign(tried=trained, tried_steps=steps.astype(float))
    assert inherited_effects(both, architectures, NANO)[0].gene == "stage2.pooling"
    assert alone_effects(both, architectures, NANO)[0].gene == "stage2.feed_forward"
    few = both.assign(tried=both["tried"].where(both.index < LEAST_ARCHITECTURES - 1))
    assert alone_effects(few, architectures, NANO) == []


def test_features_share_one_among_the_choices_that_are_taken() -> None:
    genes = NANO.genes
    taken = {gene: choices[:1] for gene, choices in genes.items()}
    taken["stage2.sharing"] = genes["stage2.sharing"]
    numbers, start = features(NANO, taken), 0
    for gene, choices in genes.items():
        own, start = numbers[start : start + len(choices)], start + len(choices)
        first = [1.0] + [0.0] * (len(choices) - 1)
        assert own == ([0.5, 0.5] if gene == "stage2.sharing" else first)
    assert start == len(numbers)
