"""Each loss against the formula of its paper, written out."""

import random
from itertools import pairwise

import pytest
import torch
from small_runs import NANO
from torch import Tensor

from nas.training.distillation import Outputs, answer_loss, label_loss, stage_errors
from nas.training.strategies import Blockwise
from search_space import PRESETS, Architecture
from supernet import Network
from supernet.network import StageMaps

BASE = PRESETS["base"]
TEACHER = Blockwise().beside(BASE)[0]


def network_of(architecture: Architecture, seed: int) -> Network:
    torch.manual_seed(seed)
    return Network(architecture, num_classes=2).train()


def passed_by(network: Network) -> list[StageMaps]:
    """What passes the stages of a network, as a teacher runs."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        _, passed = network.forward_with_maps(images)
    return passed


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


def test_the_error_of_stages_is_that_of_each_behind_the_teachers_map_before_it() -> None:
    narrow = BASE.scaled(0.0)
    taken = [32, 32, 64, 128]  # channels before each stage, the stem's among them
    given = [32, 64, 128, 256]
    assert given == [stage.width for stage in narrow.stages]
    assert [stage.width for stage in TEACHER.stages] == [2 * width for width in given]
    network, passed = network_of(narrow, seed=1), passed_by(network_of(TEACHER, seed=0))
    before = [passed[0].given, *(maps.mixed for maps in passed[:-1])]
    errors = []
    for index, stage in enumerate(network.stages):
        with torch.autocast("cpu", torch.bfloat16):
            mine = stage(before[index][..., : taken[index]].contiguous()).float()
        wanted = passed[index].mixed[..., : given[index]].float()
        variance = (wanted - wanted.mean()).square().sum() / (wanted.numel() - 1)
        errors.append((mine - wanted).square().mean() / variance)
    assert all(abs(one - other) > 1e-3 for one, other in pairwise(errors))
    torch.testing.assert_close(stage_errors(network, passed), sum(errors) / 4)


def test_the_error_of_stages_teaches_all_of_each_stage_and_neither_stem_nor_head() -> None:
    network, passed = network_of(BASE.scaled(0.0), seed=1), passed_by(network_of(TEACHER, seed=0))
    stage_errors(network, passed).backward()
    learned = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
    of_stages = {name for name, _ in network.named_parameters() if name.startswith("stages.")}
    assert learned.keys() == of_stages
    assert all(gradient.any() for gradient in learned.values())


def test_stages_that_give_what_the_teachers_give_have_no_error() -> None:
    teacher = network_of(TEACHER, seed=0)
    assert stage_errors(teacher, passed_by(teacher)).item() == 0


def test_the_error_of_a_stage_does_not_depend_on_the_channels_that_it_lacks() -> None:
    network, passed = network_of(BASE.scaled(0.0), seed=1), passed_by(network_of(TEACHER, seed=0))
    errors = stage_errors(network, passed)
    others = [StageMaps(*(maps.clone() for maps in stage)) for stage in passed]
    for stage, spec, taken in zip(others, BASE.scaled(0.0).stages, (32, 32, 64, 128), strict=True):
        stage.given[..., taken:] = 7
        stage.mixed[..., spec.width :] = 7
    assert torch.equal(stage_errors(network, others), errors)


def test_a_map_of_the_teacher_without_any_variance_gives_a_finite_error() -> None:
    network, passed = network_of(BASE.scaled(0.0), seed=1), passed_by(network_of(TEACHER, seed=0))
    flat = [stage._replace(mixed=torch.ones_like(stage.mixed)) for stage in passed]
    assert stage_errors(network, flat).isfinite()


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
