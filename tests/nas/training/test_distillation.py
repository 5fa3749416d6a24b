"""Each loss against the formula of its paper, written out."""

from itertools import pairwise

import pytest
import torch
from shortened import SHORTENED, random_network
from torch import Tensor

from nas.training.distillation import (
    answer_loss,
    check_places,
    label_loss,
    map_error,
    mixed_targets,
    side_by_side,
    token_loss,
)
from nas.utilities.errors import InputError
from search_space import DESIGNS, PRESETS
from supernet import Network

BASE = PRESETS["base"]
NARROW = BASE.scaled(0.0)
SIZES = (16, 8, 4, 2)
"""Sides of the maps of 64 px."""

LARGEST = (64, 128, 256, 512)
"""Channels of a teacher's maps: twice those of the narrow subnet."""

TAKEN = (32, 32, 64, 128)
"""Channels before each stage of the narrow subnet, the stem's among them."""


@pytest.fixture
def scores() -> Tensor:
    return torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def network() -> Network:
    """A narrow subnet, alone, in train mode."""
    torch.manual_seed(1)
    return Network(NARROW, num_classes=5).train()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps() -> list[Tensor]:
    """What a teacher might know of two images of 64 px."""
    generator = torch.Generator().manual_seed(2)
    return [
        torch.randn(2, size, size, width, generator=generator)
        for size, width in zip(SIZES, LARGEST, strict=True)
    ]


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


def test_targets_that_a_teacher_mixes_in_weigh_labels_and_answers_the_same(scores: Tensor) -> None:
    labels = torch.tensor([0, 2, 1, 1, 0])
    answers = scores.flip(0) * 2
    targets = mixed_targets(torch.eye(3)[labels], answers)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))
    loss = torch.nn.functional.cross_entropy(scores, targets)
    expected = 0.5 * label_loss(scores, labels) + 0.5 * answer_loss(scores, answers)
    torch.testing.assert_close(loss, expected)


def test_token_labels_are_the_mean_over_places_of_the_loss_on_answers() -> None:
    generator = torch.Generator().manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, generator=generator)
    answers = torch.randn(2, 5, 3, 4, generator=generator)
    each = [
        answer_loss(scores[:, row, column], answers[:, :, row, column])
        for row in range(3)
        for column in range(4)
    ]
    torch.testing.assert_close(token_loss(scores, answers), sum(each) / 12)


def test_token_labels_of_another_map_are_the_means_of_the_chances_of_its_places() -> None:
    answers = torch.randn(2, 5, 4, 4, generator=torch.Generator().manual_seed(0))
    scores = torch.randn(2, 1, 1, 5, generator=torch.Generator().manual_seed(1))
    chances = answers[:, :, :1, :1].softmax(dim=1).expand(2, 5, 4, 4)
    constant = answers[:, :, :1, :1].expand(2, 5, 4, 4)
    expected = -(chances[:, :, 0, 0] * scores[:, 0, 0].log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(token_loss(scores, constant), expected)
    left = answers.clone()
    left[:, :, :, 2:] = answers.flip(0)[:, :, :, 2:]
    assert not torch.isclose(token_loss(scores, left), token_loss(scores, answers))


@pytest.mark.parametrize(
    ("name", "image_size", "told"),
    [("deit_ti", 64, "reads a class token"), ("shunted_t", 32, "of 32 px the last map has one")],
)
def test_token_labels_need_a_head_that_reads_several_places(
    name: str, image_size: int, told: str
) -> None:
    designs = {design.timm_name: design.architecture for design in DESIGNS}
    check_places(designs["shunted_t"], 64)
    with pytest.raises(InputError, match=f"^`token_labels`: .*{told}"):
        check_places(designs[name], image_size)


def test_side_by_side_each_stage_is_given_the_teachers_map_before_it(
    network: Network, images: Tensor, maps: list[Tensor]
) -> None:
    given = [stage.width for stage in NARROW.stages]
    assert [2 * width for width in given] == list(LARGEST)
    scores, found = side_by_side(network, images, maps)
    assert [tuple(map_.shape) for map_ in found] == [
        (2, size, size, width) for size, width in zip(SIZES, given, strict=True)
    ]
    before = [network.stem(images), *maps]
    for stage, map_, theirs, taken in zip(network.stages, found, before, TAKEN, strict=False):
        torch.testing.assert_close(map_, stage(theirs[..., :taken]))
    read = maps[-1][..., : given[-1]].mean(dim=(1, 2))
    torch.testing.assert_close(scores, network.head(read))


def test_side_by_side_channels_that_a_subnet_lacks_have_no_effect(
    network: Network, images: Tensor, maps: list[Tensor]
) -> None:
    scores, found = side_by_side(network, images, maps)
    others = [map_.clone() for map_ in maps]
    for map_, stage in zip(others, NARROW.stages, strict=True):
        map_[..., stage.width :] = 7
    other_scores, other_found = side_by_side(network, images, others)
    assert torch.equal(scores, other_scores)
    for one, other, theirs, changed in zip(found, other_found, maps, others, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(map_error(one, theirs), map_error(other, changed))


def test_side_by_side_an_expanded_head_reads_the_teachers_last_map(images: Tensor) -> None:
    network = random_network(SHORTENED["lw_plg_vit_a"])
    with torch.no_grad():
        maps: list[Tensor] = []
        x = network.stem(images)
        for stage in network.stages:
            x = stage(x)
            maps.append(torch.randn(x.shape))
        scores, _ = side_by_side(network, images, maps)
        read = network.expand(maps[-1]).mean(dim=(1, 2))
    assert read.shape[1] > maps[-1].shape[3]
    torch.testing.assert_close(scores, network.head(read))


def test_the_error_of_a_map_is_relative_to_the_variance_of_each_image() -> None:
    generator = torch.Generator().manual_seed(0)
    found = torch.randn(3, 4, 4, 6, generator=generator)
    wanted = torch.randn(3, 4, 4, 9, generator=generator) * torch.tensor([1.0, 5.0, 0.2]).view(
        3, 1, 1, 1
    )
    errors = []
    for mine, theirs in zip(found, wanted[..., :6], strict=True):
        variance = (theirs - theirs.mean()).square().sum() / (theirs.numel() - 1)
        errors.append((mine - theirs).square().mean() / variance)
    assert all(abs(one - other) > 0.1 for one, other in pairwise(errors))
    torch.testing.assert_close(map_error(found, wanted), sum(errors) / 3)


def test_a_map_that_is_the_teachers_has_no_error_and_one_of_its_mean_has_an_error_of_one() -> None:
    wanted = torch.randn(3, 8, 8, 16, generator=torch.Generator().manual_seed(0)) + 5
    assert map_error(wanted, wanted) == 0
    mean = wanted.mean(dim=(1, 2, 3), keepdim=True).expand_as(wanted)
    assert float(map_error(mean, wanted)) == pytest.approx(1.0, rel=1e-2)


def test_a_map_of_the_teacher_without_any_variance_gives_a_finite_error() -> None:
    found = torch.randn(2, 4, 4, 6).requires_grad_()
    error = map_error(found, torch.ones(2, 4, 4, 8))
    error.backward()
    assert error.isfinite()
    assert found.grad is not None
    assert found.grad.isfinite().all()
