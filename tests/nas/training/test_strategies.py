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
    OUTSIDE,
    STRATEGIES,
    Blockwise,
    Course,
    Lesson,
    Sandwich,
    SinglePath,
    Strategy,
    TeacherPlan,
)
from search_space import PRESETS, Architecture, SearchSpace

BASE, PSVIT = PRESETS["base"], PRESETS["psvit"]
Plan = Sequence[Lesson]


def course_of(
    steps: int, *, seed: int = 0, macs: int = 2_000_000_000, space: SearchSpace = BASE
) -> Course:
    """A training under a budget, in `base` if in no other space."""
    constrained = ConstrainedSpace(
        space=space, limits=Limits(macs=macs), image_size=224, num_classes=10
    )
    return Course(constrained=constrained, steps=steps, seed=seed)


def plans(strategy: Strategy, steps: int, **course: Any) -> list[Plan]:
    """The plan of every step of a training."""
    known = course_of(steps, **course)
    return [strategy.plan(known, step) for step in range(steps)]


def subnets(plan: Plan) -> list[Architecture]:
    return [lesson.subnet for lesson in plan]


QUARTER = Blockwise(
    teacher=0.25,
    teacher_rate=4.0,
    stages=0.4,
    stages_rate=2.0,
    warmup=0.1,
    labels=0.5,
    answers=0.25,
)
"""Parts that end at round numbers of steps, and numbers that are all different."""


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param].model_validate({})


def test_every_strategy_is_known_by_its_name(strategy: Strategy) -> None:
    assert type(strategy) is STRATEGIES[strategy.name]


def test_every_subnet_of_every_step_is_within_the_limits(strategy: Strategy) -> None:
    constrained = course_of(30).constrained
    found = plans(strategy, 30)
    assert all(found)
    lessons = [lesson for plan in found for lesson in plan]
    teachers = [lesson.teacher for lesson in lessons if isinstance(lesson.teacher, Architecture)]
    assert len(lessons) >= 30
    for subnet in (*(lesson.subnet for lesson in lessons), *teachers):
        assert subnet in BASE
        assert constrained.admits(subnet)


@pytest.mark.slow
def test_a_plan_is_a_function_of_seed_and_step(strategy: Strategy) -> None:
    forwards = plans(strategy, 24)
    course = course_of(24)
    backwards = [strategy.plan(course, step) for step in reversed(range(24))]
    assert forwards == backwards[::-1]
    assert forwards != plans(strategy, 24, seed=1)


def test_blockwise_teaches_stages_side_by_side_first_and_whole_subnets_in_the_end() -> None:
    drawn = []
    for step, plan in enumerate(plans(QUARTER, 90)):
        (lesson,) = plan
        first = step < 36
        assert lesson == Lesson(
            subnet=lesson.subnet,
            teacher=OUTSIDE,
            labels=0.5,
            answers=0.25,
            side_by_side=first,
            rate=2.0 if first else pytest.approx(min(1.0, (step - 35) / 9)),
        )
        drawn.append(lesson.subnet.hash)
    assert len(set(drawn)) == len(drawn) == 90


@pytest.mark.parametrize(
    ("share", "steps", "planned"), [(0.25, 90, 23), (2.0, 90, 180), (0.001, 90, 1)]
)
def test_the_teacher_of_blockwise_learns_before_for_its_share_of_the_steps(
    share: float, steps: int, planned: int
) -> None:
    strategy = QUARTER.model_copy(update={"teacher": share})
    assert strategy.outside(steps) == TeacherPlan(steps=planned, rate=4.0)


def test_a_share_of_blockwise_may_be_all_or_nothing() -> None:
    for share, side_by_side in ((1.0, True), (0.0, False)):
        strategy = QUARTER.model_copy(update={"stages": share})
        lessons = [lesson for plan in plans(strategy, 6) for lesson in plan]
        assert [lesson.side_by_side for lesson in lessons] == [side_by_side] * 6
        assert [lesson.rate for lesson in lessons] == [2.0 if side_by_side else 1.0] * 6
        assert not strategy.restarts(6)


@pytest.mark.parametrize(("steps", "begin"), [(90, 36), (91, 37), (2, 1)])
def test_the_optimizer_forgets_where_whole_subnets_begin(steps: int, begin: int) -> None:
    assert list(QUARTER.restarts(steps)) == [begin]
    (before,), (after,) = list(plans(QUARTER, steps))[begin - 1 : begin + 1]
    assert (before.side_by_side, after.side_by_side) == (True, False)
    assert not SinglePath().restarts(steps) and not Sandwich().restarts(steps)


def test_stages_learn_side_by_side_in_no_more_steps_than_the_limit() -> None:
    strategy = QUARTER.model_copy(update={"stages_limit": 20})
    lessons = [lesson for plan in plans(strategy, 90) for lesson in plan]
    assert [lesson.side_by_side for lesson in lessons] == [True] * 20 + [False] * 70
    assert strategy.restarts(90) == (20,)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"stages": 0.1}, 9),
        ({"stages_limit": 12}, 12),
        ({"stages_rate": 5.0}, 0),
        ({"warmup": 0.2}, 36),
        ({"labels": 0.75}, 0),
        ({"answers": 0.75}, 0),
    ],
)
def test_each_number_of_blockwise_changes_the_plan(changes: dict[str, Any], first: int) -> None:
    course, changed = course_of(90), QUARTER.model_copy(update=changes)
    differing = (s for s in range(90) if changed.plan(course, s) != QUARTER.plan(course, s))
    assert next(differing) == first


def test_subnets_behind_a_class_token_learn_as_a_whole_while_others_learn_side_by_side() -> None:
    behind = Counter[bool]()
    strategy = QUARTER.model_copy(update={"stages": 1.0})
    for plan in plans(strategy, 40, macs=10**11, space=PSVIT):
        (lesson,) = plan
        has_token = lesson.subnet.stages[0].class_token
        behind[has_token] += 1
        assert (lesson.side_by_side, lesson.rate) == ((False, 1.0) if has_token else (True, 2.0))
        assert (lesson.teacher, lesson.labels, lesson.answers) == (OUTSIDE, 0.5, 0.25)
    assert min(behind[True], behind[False]) > 5


@pytest.mark.parametrize("strategy", [SinglePath(), Sandwich()], ids=lambda one: one.name)
def test_strategies_whose_teachers_are_members_have_none_from_outside(strategy: Strategy) -> None:
    assert strategy.outside(90) is None
    lessons = [lesson for plan in plans(strategy, 3) for lesson in plan]
    assert not any(lesson.teacher == OUTSIDE for lesson in lessons)


def test_single_path_trains_one_subnet_a_step_from_the_labels_alone() -> None:
    found = plans(SinglePath(), 60)
    for plan in found:
        (lesson,) = plan
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
            assert lesson.teacher == course.largest
            assert (lesson.labels, lesson.answers) == (0.0, 1.0)
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
    with pytest.raises(ValueError, match="need a teacher"):
        Lesson(subnet=subnet, answers=0.5)
    with pytest.raises(ValueError, match="nothing to learn from"):
        Lesson(subnet=subnet, teacher=subnet, labels=0.0)


@pytest.mark.parametrize("teacher", [None, BASE.scaled(1.0)], ids=["none", "a member"])
def test_only_the_teacher_from_outside_has_maps_to_learn_from(teacher: Architecture | None) -> None:
    with pytest.raises(ValueError, match="from the outside teacher alone"):
        Lesson(subnet=BASE.scaled(0.0), teacher=teacher, side_by_side=True)


def test_a_configuration_holds_the_strategy_with_all_its_numbers(strategy: Strategy) -> None:
    config = small_config(strategy=strategy)
    assert config.model_dump(mode="json")["strategy"] == strategy.model_dump(mode="json")
    read = type(config).model_validate_json(config.model_dump_json())
    assert read == config
    assert type(read.strategy) is type(strategy)
    assert small_config(strategy=strategy.name) == config


def test_by_default_stages_learn_from_a_teacher_from_outside_the_space() -> None:
    assert small_config().strategy == DEFAULT_STRATEGY == Blockwise()


def test_a_changed_number_of_a_strategy_survives_json() -> None:
    config = small_config(strategy={"name": "sandwich", "random_subnets": 3})
    read = type(config).model_validate_json(config.model_dump_json())
    assert read.strategy == Sandwich(random_subnets=3)
    assert read.digest != small_config(strategy="sandwich").digest


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("fairnas", "'fairnas' is none of blockwise, single-path, sandwich"),
        ({"random_subnets": 2}, "None is none of blockwise"),
        (3, "None is none of blockwise"),
        ({"name": "sandwich", "random_subnets": -1}, "random_subnets"),
        ({"name": "single-path", "answers": 0.5}, "answers"),
        ({"name": "blockwise", "alone": 0.5}, "alone"),
        ({"name": "blockwise", "teacher": 0.0}, "teacher"),
        ({"name": "blockwise", "teacher_rate": 0.0}, "teacher_rate"),
        ({"name": "blockwise", "stages": -0.1}, "stages"),
        ({"name": "blockwise", "stages": 1.1}, "stages"),
        ({"name": "blockwise", "stages_rate": -1.0}, "stages_rate"),
        ({"name": "blockwise", "labels": 0.0, "answers": 0.0}, "subnets would learn nothing"),
        ({"name": "blockwise", "answers": -1.0}, "answers"),
        ({"name": "blockwise", "stages_limit": -1}, "stages_limit"),
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
