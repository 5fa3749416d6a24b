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
    Blockwise,
    Course,
    Lesson,
    Sandwich,
    SinglePath,
    StageLesson,
    Strategy,
)
from search_space import PRESETS, Architecture, SearchSpace
from search_space.coverage import corners
from supernet.network import skeleton

BASE, PSVIT = PRESETS["base"], PRESETS["psvit"]
Plan = Sequence[Lesson | StageLesson]

every_preset = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())


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


def teacher_in(space: SearchSpace) -> Architecture:
    """Who teaches by the blockwise strategy."""
    (teacher,) = Blockwise().beside(space)
    return teacher


QUARTER = Blockwise(alone=0.25, stages=0.35)
"""Parts that end at round numbers of steps."""


@pytest.fixture(params=STRATEGIES)
def strategy(request: pytest.FixtureRequest) -> Strategy:
    return STRATEGIES[request.param].model_validate({})


def test_every_strategy_is_known_by_its_name(strategy: Strategy) -> None:
    assert type(strategy) is STRATEGIES[strategy.name]


def test_every_subnet_of_every_step_is_within_the_limits(strategy: Strategy) -> None:
    constrained, beside = course_of(30).constrained, strategy.beside(BASE)
    found = plans(strategy, 30)
    assert all(found)
    lessons = [lesson for plan in found for lesson in plan]
    trained = [lesson.subnet for lesson in lessons if lesson.subnet not in beside]
    teachers = [lesson.teacher for lesson in lessons if lesson.teacher not in (None, *beside)]
    assert len(trained) > 10
    for subnet in (*trained, *teachers):
        assert subnet in BASE
        assert constrained.admits(subnet)


@pytest.mark.slow
def test_a_plan_is_a_function_of_seed_and_step(strategy: Strategy) -> None:
    forwards = plans(strategy, 24)
    course = course_of(24)
    backwards = [strategy.plan(course, step) for step in reversed(range(24))]
    assert forwards == backwards[::-1]
    assert forwards != plans(strategy, 24, seed=1)


def test_blockwise_begins_with_the_teacher_alone_which_later_has_a_step_of_every_round() -> None:
    alone = (Lesson(subnet=teacher_in(BASE)),)  # from the labels, and from nothing else
    found = plans(QUARTER, 90)
    of_the_teacher = [step for step, plan in enumerate(found) if plan == alone]
    assert of_the_teacher == [*range(23), *range(23, 90, 6)]
    assert all(subnets(plan) != [teacher_in(BASE)] for plan in found if plan != alone)


def test_blockwise_teaches_stages_first_and_whole_subnets_in_the_end() -> None:
    teacher, drawn = teacher_in(BASE), []
    for step, plan in enumerate(plans(QUARTER, 90)):
        (lesson,) = plan
        subnet = lesson.subnet
        if subnet == teacher:
            continue
        drawn.append(subnet.hash)
        if step < 23 + 0.35 * 90:
            assert lesson == StageLesson(subnet=subnet, teacher=teacher)
        else:
            assert lesson == Lesson(subnet=subnet, teacher=teacher, labels=0.5, answers=0.5)
    assert len(set(drawn)) == len(drawn) == 90 - 23 - 12


@pytest.mark.parametrize("field", ["labels", "answers"])
def test_the_weights_of_blockwise_are_those_of_its_lessons(field: str) -> None:
    (lesson,) = QUARTER.model_copy(update={field: 0.125}).plan(course_of(90), 60)
    assert isinstance(lesson, Lesson)
    other = {"labels": "answers", "answers": "labels"}[field]
    assert (getattr(lesson, field), getattr(lesson, other)) == (0.125, 0.5)


def test_a_share_of_blockwise_may_be_all_or_nothing() -> None:
    teacher = teacher_in(BASE)
    assert all(subnets(plan) == [teacher] for plan in plans(Blockwise(alone=1.0), 12))
    (first, *others) = plans(Blockwise(alone=0.0, stages=1.0), 6)
    assert subnets(first) == [teacher]
    assert all(isinstance(lesson, StageLesson) for plan in others for lesson in plan)
    (_, *others) = plans(Blockwise(alone=0.0, stages=0.0), 6)
    assert all(isinstance(lesson, Lesson) and lesson.teacher for plan in others for lesson in plan)


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"alone": 0.5}, 24),
        ({"stages": 0.1}, 32),
        ({"round_length": 7}, 29),
        ({"labels": 0.25}, 55),
        ({"answers": 0.25}, 55),
    ],
)
def test_each_number_of_blockwise_changes_the_plan(changes: dict[str, Any], first: int) -> None:
    course, changed = course_of(90), QUARTER.model_copy(update=changes)
    differing = (s for s in range(90) if changed.plan(course, s) != QUARTER.plan(course, s))
    assert next(differing) == first


@every_preset
def test_the_teacher_is_no_member_of_the_space_and_has_its_largest_widths(
    space: SearchSpace,
) -> None:
    teacher = teacher_in(space)
    assert teacher not in space
    assert teacher.stem == space.stem
    for stage, choices in zip(teacher.stages, space.stages, strict=True):
        assert stage.mixer.kind not in choices.mixer
        assert stage.pooling not in choices.pooling
        assert (stage.pooling is None) == (not choices.pooling)
        assert stage.feed_forward is None
        assert stage.width == max(choices.width)
        assert stage.depth in choices.depth
        assert not stage.class_token
        assert stage.norm == choices.norm
        assert stage.conv_norm == "layer"  # no statistics of whatever was trained last


@every_preset
def test_the_teacher_shares_stem_head_and_norms_of_stages_with_the_space_and_no_operator(
    space: SearchSpace,
) -> None:
    own = {name for name, _ in skeleton(teacher_in(space), num_classes=10).named_parameters()}
    of_space = {
        name
        for corner in corners(space)
        for name, _ in skeleton(corner, num_classes=10).named_parameters()
    }
    norms = tuple(f"stages.{index}.norm." for index in range(len(space.stages)))
    assert own & of_space == {name for name in own if name.startswith(("stem.", "head.", *norms))}
    assert all(".mv2_se." in name for name in own - of_space)


def test_subnets_behind_a_class_token_learn_as_a_whole_while_others_learn_by_stages() -> None:
    teacher, behind = teacher_in(PSVIT), Counter[bool]()
    for plan in plans(Blockwise(alone=0.0, stages=1.0), 60, macs=10**11, space=PSVIT):
        (lesson,) = plan
        subnet = lesson.subnet
        if subnet == teacher:
            continue
        behind[subnet.stages[0].class_token] += 1
        if subnet.stages[0].class_token:
            assert lesson == Lesson(subnet=subnet, teacher=teacher, labels=0.5, answers=0.5)
        else:
            assert lesson == StageLesson(subnet=subnet, teacher=teacher)
    assert min(behind[True], behind[False]) > 10


@pytest.mark.parametrize("strategy", [SinglePath(), Sandwich()], ids=lambda one: one.name)
def test_strategies_whose_teachers_are_members_have_nothing_beside_the_space(
    strategy: Strategy,
) -> None:
    assert strategy.beside(BASE) == ()


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


def test_a_configuration_holds_the_strategy_with_all_its_numbers(strategy: Strategy) -> None:
    config = small_config(strategy=strategy)
    assert config.model_dump(mode="json")["strategy"] == strategy.model_dump(mode="json")
    read = type(config).model_validate_json(config.model_dump_json())
    assert read == config
    assert type(read.strategy) is type(strategy)
    assert small_config(strategy=strategy.name) == config


def test_by_default_stages_learn_from_a_teacher_beside_the_space() -> None:
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
        ({"name": "blockwise", "alone": 1.5}, "alone"),
        ({"name": "blockwise", "stages": -0.1}, "stages"),
        ({"name": "blockwise", "round_length": 1}, "round_length"),
        ({"name": "blockwise", "answers": -1.0}, "answers"),
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
