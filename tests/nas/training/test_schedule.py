import math

import pytest

from nas.training.schedule import learning_rate
from nas.training.settings import TrainingSettings


def rates(steps: int, **settings: float) -> list[float]:
    """The learning rate of every step of a training."""
    chosen = TrainingSettings.model_validate(
        {"steps": steps, "batch_size": 1, "lr": 2e-3, "seed": 0} | settings
    )
    return [learning_rate(step, chosen) for step in range(steps)]


@pytest.mark.parametrize("steps", [1, 2, 9, 10, 300, 100_000])
def test_it_warms_up_to_its_peak_and_falls_towards_zero(steps: int) -> None:
    found = rates(steps)
    warmup = max(1, min(500, steps // 10))
    assert found[0] == pytest.approx(2e-3 / warmup)
    assert found[warmup - 1] == max(found) == pytest.approx(2e-3)
    assert found[:warmup] == sorted(set(found[:warmup]))
    assert found[warmup:] == sorted(found[warmup:], reverse=True)
    assert min(found) > 0
    if steps >= 300:
        assert found[-1] < 2e-3 / 1000


def test_the_warm_up_is_a_tenth_of_the_steps_for_every_number_of_them() -> None:
    for steps in range(1, 4000):
        settings = TrainingSettings(steps=steps, batch_size=1, lr=2e-3, seed=0)
        warmup = max(1, steps // 10)
        assert warmup > 500 or learning_rate(warmup - 1, settings) == 2e-3
        assert warmup == 1 or learning_rate(warmup - 2, settings) < 2e-3


def test_behind_the_warm_up_it_is_half_a_cosine() -> None:
    found = rates(110, warmup_limit=10)
    for step in range(10, 110):
        assert found[step] == pytest.approx(1e-3 * (1 + math.cos(math.pi * (step - 10) / 100)))


def test_share_and_limit_of_the_warm_up_are_settings() -> None:
    assert rates(100, warmup_share=0.5).index(2e-3) == 49
    assert rates(100, warmup_share=0.5, warmup_limit=20).index(2e-3) == 19
    assert rates(100, warmup_share=0.0)[0] == 2e-3
