"""What each strategy plans, over whole trainings; nothing is trained here."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import pytest
from pydantic import ValidationError
from small_runs import small_config

from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.training.strategies import (
    DEFAULT_STRATEGY,
    STRATEGIES,
    Course,
    Lesson,
    PoolingLesson,
    Progressive,
    Sandwich,
    SinglePath,
    Strategy,
)
from nas.training.strategies.progressive import other_poolings
from search_space import PRESETS, Architecture

BASE = PRESETS["base"]
Plan = Sequence[Lesson | PoolingLesson]


def course_of(steps: int, *, seed: int = 0, macs: int = 2_000_000_000) -> Course:
    """A training in `base` under a budget."""
    constrained = ConstrainedSpace(
        space=BASE, limits=Limits(macs=macs), image_size=224, num_classes=10
    )
    return Course(constrained=constrained, steps=steps, seed=seed)


def plans(strategy: Strategy, steps: int, **course: int) -> list[Plan]:
    """The plan of every step of a training."""
    known = course_of(steps, **course)
    return [strategy.plan(known, step) for step in range(steps)]


def subnets(plan: Plan) -> list[Architecture]:
    return [lesson.subnet for lesson in plan if isinstance(lesson, Lesson)]


def new_poolings(architecture: Architecture) -> float:
    """Share of the poolings that are not the default."""
    genes = BASE.genotype(architecture)
    poolings = [gene for gene in genes if gene.endswith(".pooling")]
    return sum(genes[gene] != BASE.genes[gene][0] for gene in poolings) / len(poolings)


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param].model_validate({})


def test_every_strategy_is_known_by_its_name(strategy: Strategy) -> None:
    assert type(strategy) is STRATEGIES[strategy.name]


def test_every_subnet_of_every_step_is_within_the_limits(strategy: Strategy) -> None:
    constrained = course_of(30).constrained
    for plan in plans(strategy, 30):
        assert subnets(plan)
        assert all(constrained.admits(subnet) for subnet in subnets(plan))


@pytest.mark.slow
def test_a_plan_is_a_function_of_seed_and_step(strategy: Strategy) -> None:
    forwards = plans(strategy, 24)
    course = course_of(24)
    backwards = [strategy.plan(course, step) for step in reversed(range(24))]
    assert forwards == backwards[::-1]
    assert forwards != plans(strategy, 24, seed=1)


def test_the_share_that_is_done_rises_to_one(strategy: Strategy) -> None:
    shares = [strategy.share_done(step, 30) for step in range(31)]
    assert shares[0] == 0
    assert shares[-1] == pytest.approx(1)
    assert shares == sorted(set(shares))


def test_progressive_trains_the_largest_alone_and_then_one_subnet_a_step_in_rounds() -> None:
    found = plans(Progressive(), 90)
    largest = course_of(90).largest
    alone = (Lesson(subnet=largest),)  # from the labels, and from nothing else
    assert all(plan == alone for plan in found[:30])
    rounds = [found[start : start + 6] for start in range(30, 90, 6)]
    assert all(few[0] == alone for few in rounds)
    small = [few[1][0].subnet.hash for few in rounds]  # type: ignore[union-attr]
    narrowest, cheapest = BASE.scaled(0.0).hash, course_of(90).smallest.hash
    assert small == [narrowest, cheapest] * 5
    random_ones = [subnet.hash for few in rounds for plan in few[2:] for subnet in subnets(plan)]
    assert len(set(random_ones)) == len(random_ones) == 10 * 4


def test_progressive_teaches_each_subnet_by_labels_answers_and_maps_and_poolings_beside() -> None:
    largest = course_of(90).largest
    taught = [plan for plan in plans(Progressive(), 90) if len(plan) > 1]
    assert len(taught) == 50
    for lesson, beside in taught:
        assert isinstance(lesson, Lesson)
        assert lesson.teacher == largest
        assert (lesson.labels, lesson.answers, lesson.maps) == (0.5, 0.5, 1.0)
        assert isinstance(beside, PoolingLesson)
        assert (beside.teacher, beside.weight) == (largest, 1.0)


@pytest.mark.parametrize("field", ["labels", "answers", "maps"])
def test_progressives_weights_are_those_of_its_lessons(field: str) -> None:
    strategy = Progressive.model_validate({field: 0.125, "poolings": 0.25})
    lesson, beside = strategy.plan(course_of(90), 31)
    assert getattr(lesson, field) == 0.125
    assert isinstance(beside, PoolingLesson)
    assert beside.weight == 0.25


@pytest.mark.slow
def test_progressive_draws_half_of_the_random_subnets_from_just_under_the_budget() -> None:
    course = course_of(900)
    budget = course.constrained.limits["macs"]
    assert budget is not None

    def share_in_band(strategy: Progressive) -> float:
        drawn = [strategy.plan(course, step) for step in range(300, 900) if (step - 300) % 6 > 1]
        macs = [course.constrained.cost(subnet).macs for plan in drawn for subnet in subnets(plan)]
        assert len(macs) == 400
        return sum(0.8 * budget <= some <= budget for some in macs) / len(macs)

    from_the_band, by_chance = 0.5, share_in_band(Progressive(band_chance=0.0))
    assert by_chance < 0.4
    expected = from_the_band + (1 - from_the_band) * by_chance
    assert share_in_band(Progressive()) == pytest.approx(expected, abs=0.07)
    assert share_in_band(Progressive(band_chance=1.0)) == 1
    assert share_in_band(Progressive(band=0.0)) == pytest.approx(by_chance, abs=0.07)


@pytest.mark.slow
def test_progressive_has_new_operators_in_few_places_at_first_and_everywhere_in_the_end() -> None:
    trained = [subnets(plan)[0] for plan in plans(Progressive(), 600)]
    few = [new_poolings(one) for one in trained[200:260]]
    many = [new_poolings(one) for i, one in enumerate(trained) if i >= 510 and (i - 200) % 6 > 1]
    assert sum(few) / len(few) < 0.25
    # Of four kinds one is the default.
    assert sum(many) / len(many) == pytest.approx(0.75, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"alone": 0.5}, 200),
        ({"round_length": 7}, 206),
        ({"band": 0.5, "band_chance": 1.0}, 204),
        ({"band_chance": 1.0}, 205),
        ({"first_new": 1.0}, 202),
        ({"all_new_by": 0.4}, 260),
    ],
)
def test_each_number_of_progressive_changes_the_plan(changes: dict[str, Any], step: int) -> None:
    course = course_of(600)
    few = range(step, step + 8)
    changed = Progressive.model_validate(changes)
    assert any(changed.plan(course, s) != Progressive().plan(course, s) for s in few)


def test_every_pooling_that_the_largest_lacks_has_its_turn() -> None:
    largest = BASE.scaled(1.0)
    turns = [other_poolings(BASE, largest, step) for step in range(3)]
    for stage in range(1, 4):
        kinds = [turn.stages[stage].pooling for turn in turns]
        assert {*kinds, largest.stages[stage].pooling} == set(BASE.stages[stage].pooling)
        sizes = {(turn.stages[stage].width, turn.stages[stage].depth) for turn in turns}
        assert sizes == {(largest.stages[stage].width, largest.stages[stage].depth)}


def test_a_step_of_progressive_with_a_teacher_counts_as_more_work() -> None:
    first_half = Progressive(alone=0.5).share_done(50, 100)
    assert first_half == pytest.approx(1 / 2.3)


def test_single_path_trains_one_subnet_a_step_from_the_labels_alone() -> None:
    found = plans(SinglePath(), 60)
    for plan in found:
        (lesson,) = plan
        assert isinstance(lesson, Lesson)
        assert lesson == Lesson(subnet=lesson.subnet, labels=1.0)
    assert len({subnets(plan)[0].hash for plan in found}) == 60


def test_single_path_draws_every_choice_as_often_from_the_first_step_on() -> None:
    # A budget that keeps nothing out, which would favour what is cheap.
    found = plans(SinglePath(), 800, macs=10**11)
    for stage in range(1, 4):
        drawn = Counter(subnets(plan)[0].stages[stage].pooling for plan in found)
        assert drawn.keys() == set(BASE.stages[stage].pooling)
        assert all(count == pytest.approx(200, abs=50) for count in drawn.values())


def test_the_sandwich_is_the_largest_by_labels_and_the_others_by_its_answers() -> None:
    course = course_of(20)
    middles = []
    for plan in plans(Sandwich(), 20):
        first, *taught = plan
        assert first == Lesson(subnet=course.largest, labels=1.0)
        assert len(taught) == 3
        for lesson in taught:
            assert isinstance(lesson, Lesson)
            assert lesson.teacher == course.largest
            assert (lesson.labels, lesson.answers, lesson.maps) == (0.0, 1.0, 0.0)
        small, *random_ones = subnets(taught)
        assert small == course.smallest
        middles += [subnet.hash for subnet in random_ones]
    assert len(set(middles)) == len(middles) == 40


def test_the_numbers_of_the_sandwich_are_those_of_its_lessons() -> None:
    course = course_of(20)
    _, *taught = Sandwich(random_subnets=4, labels=0.25, answers=0.75).plan(course, 0)
    assert len(taught) == 5
    assert {(lesson.labels, lesson.answers) for lesson in taught} == {(0.25, 0.75)}
    assert [lesson.subnet for lesson in Sandwich(random_subnets=0).plan(course, 0)] == [
        course.largest,
        course.smallest,
    ]


def test_a_lesson_without_a_teacher_has_labels_alone() -> None:
    subnet = BASE.scaled(0.0)
    for wrong in ({"answers": 0.5}, {"maps": 1.0}):
        with pytest.raises(ValueError, match="need a teacher"):
            Lesson(subnet=subnet, **wrong)
    with pytest.raises(ValueError, match="nothing to learn from"):
        Lesson(subnet=subnet, teacher=subnet, labels=0.0)


def test_a_configuration_holds_the_strategy_with_all_its_numbers(strategy: Strategy) -> None:
    config = small_config(strategy=strategy)
    assert config.model_dump(mode="json")["strategy"] == strategy.model_dump(mode="json")
    read = type(config).model_validate_json(config.model_dump_json())
    assert read == config
    assert type(read.strategy) is type(strategy)
    assert small_config(strategy=strategy.name) == config


def test_by_default_the_largest_teaches_progressively() -> None:
    assert small_config().strategy == DEFAULT_STRATEGY == Progressive()


def test_a_changed_number_of_a_strategy_survives_json() -> None:
    config = small_config(strategy={"name": "sandwich", "random_subnets": 3})
    read = type(config).model_validate_json(config.model_dump_json())
    assert read.strategy == Sandwich(random_subnets=3)
    assert read.digest != small_config(strategy="sandwich").digest


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("fairnas", "'fairnas' is none of progressive, single-path, sandwich"),
        ({"random_subnets": 2}, "None is none of progressive"),
        (3, "None is none of progressive"),
        ({"name": "sandwich", "random_subnets": -1}, "random_subnets"),
        ({"name": "single-path", "answers": 0.5}, "answers"),
        ({"name": "progressive", "band": 1.5}, "band"),
        ({"name": "progressive", "round_length": 1}, "round_length"),
    ],
)
def test_a_strategy_that_cannot_be_is_refused_by_name(value: object, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        small_config(strategy=value)


def test_a_strategy_of_ones_own_is_a_class_and_an_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    class LargestAlone(Strategy):
        name: Literal["largest-alone"] = "largest-alone"
        weight: float = 1.0

        def plan(self, course: Course, step: int) -> Sequence[Lesson]:
            return [Lesson(subnet=course.largest, labels=self.weight)]

    monkeypatch.setitem(STRATEGIES, "largest-alone", LargestAlone)
    config = small_config(strategy={"name": "largest-alone", "weight": 2.0})
    read = type(config).model_validate_json(config.model_dump_json())
    assert read.strategy == LargestAlone(weight=2.0)
