"""The losses of lessons: from labels, and from what a teacher knows."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.utilities.errors import InputError
from search_space import Architecture, map_sizes
from supernet import Network

ANSWERS = 0.5
"""Weight of a given teacher's answers where a network would learn from labels alone; the labels
have the rest. The same halves, at temperature 1, as in `nas.training.strategies.blockwise`."""

TOKENS = 0.5
"""Weight of token labels beside what the whole image teaches (Jiang et al., 2021, section 3.2)."""


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class scores (B, classes) with labels (B,)."""
    return F.cross_entropy(scores, labels)


def answer_loss(scores: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of class scores with a teacher's, both (B, classes).

    In-place distillation (Yu and Huang, 2019, "Universally Slimmable Networks", section 3.2).
    """
    return F.cross_entropy(scores, answers.softmax(dim=1))


def mixed_targets(targets: Tensor, answers: Tensor) -> Tensor:
    """Target probabilities (B, classes) of which a teacher's answers are a share of `ANSWERS`.

    The cross-entropy with them is the sum of those with either, weighted so (Hinton et al., 2015,
    section 2, at temperature 1).

    Args:
        targets: Of the labels.
        answers: The teacher's class scores.
    """
    return torch.lerp(targets, answers.softmax(dim=1), ANSWERS)


def weighted_cross_entropy(scores: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    """The mean cross-entropy with target probabilities, that of each image times what it weighs.

    Args:
        scores: (B, classes) or, of several places, (B, classes, H, W).
        targets: Likewise.
        weights: Of each image, (B,); None where all weigh 1.
    """
    if weights is None:
        return F.cross_entropy(scores, targets)
    losses = F.cross_entropy(scores, targets, reduction="none")
    return (weights.view(-1, *[1] * (losses.ndim - 1)) * losses).mean()


def token_loss(scores: Tensor, answers: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of the class scores of each place with a teacher's, the mean over places.

    Token labeling (Jiang et al., 2021, arXiv 2104.10858, section 3.2), but for two things: the
    teacher sees the very crop that the network sees, and no class is left out of its answers.

    Args:
        scores: (B, H, W, classes).
        answers: The teacher's, (B, classes, H', W'); their probabilities are resized to H and W.
        weights: What each image weighs, (B,); None where all weigh 1.
    """
    wanted = F.interpolate(
        answers.softmax(dim=1), scores.shape[1:3], mode="bilinear", antialias=True
    )
    return weighted_cross_entropy(scores.permute(0, 3, 1, 2), wanted, weights)


def check_places(architecture: Architecture, image_size: int) -> None:
    """See that the head of an architecture reads several places, which token labels can be of.

    Args:
        architecture: Who is to learn from them.
        image_size: Side in pixels of the training.

    Raises:
        InputError: If it reads a class token, or a map of one place.
    """
    if architecture.head.reads_class_token:
        raise InputError("`token_labels`: the network reads a class token, and no map")
    if map_sizes(image_size, architecture)[-1] == (1, 1):
        raise InputError(f"`token_labels`: of {image_size} px the last map has one place alone")


def side_by_side(
    network: Network, images: Tensor, maps: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """What a network gives whose stages each begin from a teacher's map.

    A stage is given as many channels of the teacher's map before it as it takes; the first is given
    what the stem makes of the images, the head what it can read of the last map (DNA, Li et al.,
    2020, section 3.2).

    Args:
        network: On a map, of no more channels than the teacher anywhere.
        images: (B, in_chans, H, W).
        maps: The teacher's, (B, H, W, C) behind each stage.

    Returns:
        Class scores (B, classes), and the map that each stage gives.
    """
    given, found = network.stem(images), []
    for stage, spec, wanted in zip(network.stages, network.architecture.stages, maps, strict=True):
        found.append(stage(given))
        given = wanted[..., : spec.width].contiguous()
    return network.forward_head(network.expand(given)), found


def map_error(found: Tensor, wanted: Tensor) -> Tensor:
    """Mean square error of a map (B, H, W, C), relative to the variance of what was wanted.

    Args:
        found: Of a subnet's stage.
        wanted: Of the teacher's, with as many channels or more; the first are compared.
    """
    wanted = wanted[..., : found.shape[3]].float()
    error = (found.float() - wanted).square().flatten(1).mean(dim=1)
    spread = wanted.flatten(1).var(dim=1).clamp(min=1e-6)
    return (error / spread).mean()
