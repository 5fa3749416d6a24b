"""Each loss term against the formula of its paper, written out."""

import random

import pytest
import torch
from small_runs import NANO
from torch import Tensor

from nas.training.distillation import (
    Outputs,
    answer_loss,
    label_loss,
    map_distance,
    pooling_error,
)
from search_space import PRESETS
from supernet import Network
from supernet.network import StageMaps


def stage(mixed: Tensor) -> StageMaps:
    return StageMaps(mixed, mixed, mixed)


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


def test_the_loss_on_labels_is_the_mean_surprise(scores: Tensor) -> None:
    labels = torch.tensor([0, 2, 1, 1, 0])
    chances = scores.exp() / scores.exp().sum(dim=1, keepdim=True)
    expected = -sum(chances[row, label].log() for row, label in enumerate(labels)) / 5
    torch.testing.assert_close(label_loss(scores, labels), expected)


def test_the_loss_on_answers_is_the_cross_entropy_of_two_distributions(scores: Tensor) -> None:
    answers = scores.flip(0) * 2
    theirs, ours = (some.exp() / some.exp().sum(dim=1, keepdim=True) for some in (answers, scores))
    expected = -(theirs * ours.log()).sum() / 5
    torch.testing.assert_close(answer_loss(scores, answers), expected)


def test_the_loss_on_answers_is_least_where_they_are_the_teachers(scores: Tensor) -> None:
    own = scores.clone().requires_grad_()
    answer_loss(own, scores).backward()
    assert own.grad is not None
    assert own.grad.abs().max() < 1e-6


def test_the_distance_of_maps_is_of_the_channels_that_both_have_normalised() -> None:
    generator = torch.Generator().manual_seed(1)
    maps = [torch.randn(2, 3, 3, channels, generator=generator) for channels in (4, 8)]
    theirs = [torch.randn(2, 3, 3, channels, generator=generator) for channels in (6, 8)]
    distances = []
    for one, other in zip(maps, theirs, strict=True):
        shared = min(one.shape[3], other.shape[3])
        normalised = [
            (m - m.mean(dim=3, keepdim=True))
            / (m.var(dim=3, keepdim=True, unbiased=False) + 1e-5).sqrt()
            for m in (one[..., :shared], other[..., :shared])
        ]
        distances.append((normalised[0] - normalised[1]).square().mean())
    found = map_distance([stage(m) for m in maps], [stage(m) for m in theirs])
    torch.testing.assert_close(found, sum(distances) / 2)


def test_maps_of_other_tokens_are_not_compared() -> None:
    here, there = torch.randn(2, 3, 3, 4), torch.randn(2, 1, 10, 4)
    alone = map_distance([stage(here)], [stage(here * 2 + here.flip(3))])
    with_another = map_distance(
        [stage(here), stage(here)], [stage(here * 2 + here.flip(3)), stage(there)]
    )
    assert float(with_another) == float(alone) > 0
    assert float(map_distance([stage(here)], [stage(there)])) == 0


def test_the_error_of_poolings_is_relative_to_the_variance_of_what_they_should_give() -> None:
    architecture = PRESETS["base"].scaled(0.0)
    torch.manual_seed(0)
    network = Network(architecture, num_classes=2).train()
    with torch.no_grad():
        _, passed = network.forward_with_maps(torch.randn(2, 3, 64, 64))
    generator = torch.Generator().manual_seed(1)
    wanted = [
        maps._replace(entered=torch.randn(maps.entered.shape, generator=generator) * 3)
        for maps in passed
    ]
    found = pooling_error(network, wanted)
    errors = []
    for index in range(1, 4):  # the first stage has no pooling
        with torch.autocast("cpu", torch.bfloat16):
            given = network.stages[index].enter(wanted[index].given).float()  # type: ignore[operator]
        target = wanted[index].entered
        errors.append((given - target).square().mean() / target.var())
    torch.testing.assert_close(found, sum(errors) / 3)
    found.backward()
    moved = {name for name, p in network.named_parameters() if p.grad is not None}
    assert moved == {name for name, _ in network.named_parameters() if ".entry." in name}


def test_detached_outputs_are_the_same_values_and_teach_nothing_back() -> None:
    network = Network(NANO.sample(random.Random(0)), num_classes=2)
    outputs = Outputs(*network.forward_with_maps(torch.randn(1, 3, 32, 32)))
    detached = outputs.detached()
    assert torch.equal(detached.scores, outputs.scores)
    assert not detached.scores.requires_grad
    for one, other in zip(detached.maps, outputs.maps, strict=True):
        for mine, theirs in zip(one, other, strict=True):
            assert torch.equal(mine, theirs)
            assert not mine.requires_grad
