"""The losses of lessons: from labels, and from what a teacher knows."""

from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from supernet import Network


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class scores (B, classes) with labels (B,)."""
    return F.cross_entropy(scores, labels)


def answer_loss(scores: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of class scores with a teacher's, both (B, classes).

    In-place distillation (Yu and Huang, 2019, "Universally Slimmable Networks", section 3.2).
    """
    return F.cross_entropy(scores, answers.softmax(dim=1))


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
