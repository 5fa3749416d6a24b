from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from pydantic import ValidationError
from small_runs import small_config

import nas.runs.configure
from nas.data import load_data
from nas.objectives.limits import Limits
from nas.runs.config import (
    DEFAULT,
    EXTENDABLE,
    MOST_ON_CPU,
    QUICK,
    RunConfig,
    default_steps,
    limit_fields,
)
from nas.runs.configure import configure
from nas.utilities.errors import InputError
from search_space import PRESETS

OTHER_VALUES: dict[str, Any] = {
    "budget": 10**9,
    "params": 10**6,
    "memory": 10**6,
    "added_limits": {"energy": 0.5},
    "latency_ms": {"cpu": 15.0},
    "latency_tables": {"cpu": "0a1b2c"},
    "latency_batch": 8,
    "latency_dtype": "bfloat16",
    "runtime": "onnx",
    "data": "fashion-mnist",
    "space": PRESETS["tiny"],
    "init": "3ad1424ecab565e5",
    "supernet": "0f1e2d3c4b5a6978",
    "image_size": 160,
    "proxy_size": 48,
    "seed": 7,
    "device": "cuda",
    "steps": 99,
    "batch_size": 16,
    "lr": 0.05,
    "weight_decay": 0.2,
    "betas": (0.8, 0.99),
    "eps": 1e-6,
    "clip_norm": 1.0,
    "warmup_share": 0.3,
    "warmup_limit": 9,
    "teacher": "resnet18 3ad1424ecab565e5",
    "token_labels": True,
    "most_catching_up": 1.0,
    "strategy": "sandwich",
    "sampler": "tpe",
    "trials": 33,
    "search_images": 44,
    "threads": 2,
    "short_list": 3,
    "finalists": 2,
    "tryout": {"first_rung": 5},
    "search": {"patience": 5},
    "draws": {"walk": 9},
}


def test_the_other_values_of_this_suite_are_of_every_field() -> None:
    assert OTHER_VALUES.keys() == RunConfig.model_fields.keys()


@pytest.mark.parametrize("preset", PRESETS)
def test_a_configuration_survives_json(preset: str) -> None:
    config = small_config(
        space=PRESETS[preset], latency_ms={"cpu": 12.5, "phone": 40.0}, params=10**6
    )
    assert RunConfig.model_validate_json(config.model_dump_json()) == config


@pytest.mark.usefixtures("energy")
@pytest.mark.parametrize("field", OTHER_VALUES)
def test_every_field_that_cannot_grow_changes_the_digest(field: str) -> None:
    same = small_config(**{field: OTHER_VALUES[field]}).digest == small_config().digest
    assert same == (field in EXTENDABLE)


def test_the_digest_is_the_same_for_the_same_configuration() -> None:
    config = small_config()
    assert config.digest == RunConfig.model_validate_json(config.model_dump_json()).digest
    assert len(config.digest) == 6


def test_limits_are_those_of_the_configuration() -> None:
    config = small_config(budget=5, params=6, memory=7, latency_ms={"cpu": 8.0})
    assert config.limits == Limits(macs=5, params=6, memory=7, latency_cpu_ms=8.0)
    assert small_config(budget=None).limits == {}


@pytest.mark.usefixtures("energy")
def test_limits_by_name_are_fields_and_those_on_added_objectives_one_field() -> None:
    limits = {"macs": 5, "memory": 7, "energy": 0.5}
    fields = limit_fields(limits)
    assert fields == {"budget": 5, "memory": 7, "added_limits": {"energy": 0.5}}
    assert small_config(**fields).limits == limits


@pytest.mark.parametrize("name", ["energy", "macs"])
def test_a_limit_on_an_objective_that_was_not_added_is_refused_by_name(name: str) -> None:
    with pytest.raises(ValidationError, match=f"added_limits\n.*'{name}' is no objective"):
        small_config(added_limits={name: 1.0})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sampler", "bohb"),
        ("stepps", 3),
        ("steps", "few"),
        ("runtime", "tflite"),
        ("latency_dtype", "int8"),
        ("latency_ms", 15.0),
        ("strategy", "fairnas"),
        ("clip_norm", 0.0),
        ("betas", (0.9, 1.5)),
        ("lr", 0.0),
        ("steps", 0),
    ],
)
def test_unknown_fields_and_values_are_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        small_config(**{field: value})


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        small_config().steps = 1  # type: ignore[misc]


def test_quick_is_less_work_than_the_default() -> None:
    for quick, default in zip(vars(QUICK).items(), vars(DEFAULT).items(), strict=True):
        assert quick[0] == default[0]
        assert quick[1] <= default[1]
    assert QUICK.steps < DEFAULT.steps / 5
    assert QUICK.trials < DEFAULT.trials / 5


def test_default_steps_take_as_long_on_any_space_and_budget() -> None:
    at = {"image_size": 224, "proxy_size": 64, "batch_size": 16}
    assert default_steps(2e9, **at) == DEFAULT.steps
    assert default_steps(3e8, **at) > default_steps(1e9, **at) > DEFAULT.steps
    assert default_steps(8e9, **at) < DEFAULT.steps
    larger = {**at, "proxy_size": 128}
    assert default_steps(2e9, **larger) == default_steps(8e9, **at)
    batches = {**at, "batch_size": 64}
    assert default_steps(2e9, **batches) == default_steps(8e9, **at)


def test_what_is_not_asked_for_is_small_batches_of_digits_and_a_rate_that_suits_them() -> None:
    few = configure(budget="200MFLOPs", space="nano").config
    assert (few.batch_size, few.lr) == (16, pytest.approx(3e-4))
    assert few.tryout.first_rung == round(few.steps / 30)
    assert (few.short_list, few.finalists, few.tryout.final.milestones) == (10, 7, (800,))
    more = configure(budget="200MFLOPs", space="nano", batch_size=64, trials=5).config
    assert more.lr == pytest.approx(6e-4)
    assert more.steps < few.steps
    assert more.short_list == 5


@pytest.mark.parametrize(
    ("asked", "finalists", "steps"),
    [
        ({"steps": 1600}, 4, 477),
        ({"steps": 1599}, 0, 477),
        ({"steps": 1999}, 4, 603),
        ({"steps": 2676}, 6, 800),
        ({"steps": 4000}, 10, 800),
        ({"steps": 9000}, 10, 800),
        ({"steps": 9000, "short_list": 14}, 14, 800),
        ({"steps": 3200, "short_list": 3}, 3, 800),
        ({"steps": 3200, "short_list": 1}, 0, 800),
        ({"steps": 3200, "short_list": 0}, 0, 800),
        ({"steps": 3200, "finalists": 0}, 0, 800),
        ({"steps": 90, "finalists": 2}, 2, 27),
    ],
)
def test_a_final_takes_half_of_a_long_run_at_most(
    asked: dict[str, int], finalists: int, steps: int
) -> None:
    config = configure(budget="200MFLOPs", space="nano", **asked).config
    assert (config.finalists, config.tryout.final.milestones) == (finalists, (steps,))


def test_more_finalists_than_the_short_list_has_are_refused() -> None:
    with pytest.raises(InputError, match="`finalists` 4 are more than the short list has: 3"):
        configure(budget="200MFLOPs", space="nano", short_list=3, finalists=4)
    with pytest.raises(InputError, match="`finalists` 1: nobody would be compared with it"):
        configure(budget="200MFLOPs", space="nano", finalists=1)


@pytest.mark.parametrize(
    ("images", "wanted"),
    [
        (40, lambda least: least),  # too few passes would teach nothing
        (2_000, lambda least: 50 * 2_000 / 16),
        (900_000, lambda least: MOST_ON_CPU * least),  # nobody has days
    ],
)
def test_without_a_gpu_other_data_have_a_default_that_fits_the_machine(
    images: int, wanted: Callable[[int], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = replace(load_data("digits", image_size=32, seed=0), epoch_size=images)
    monkeypatch.setattr(nas.runs.configure, "load_data", lambda *_, **__: data)
    asked: dict[str, Any] = {"budget": "200MFLOPs", "space": "nano", "device": "cpu"}
    config = configure(**asked, data="fashion-mnist").config
    assert (config.proxy_size, config.batch_size) == (64, 16)
    least = configure(**asked).config.steps
    assert config.steps == pytest.approx(wanted(least), rel=0.1)
