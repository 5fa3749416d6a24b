"""The losses of lessons: from labels, and from what a teacher knows."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training.loop import autocast
from supernet import Network
from supernet.network import StageMaps


class Outputs(NamedTuple):
    """What a network gave for a batch: class scores (B, classes), and what passed its stages."""

    scores: Tensor
    maps: list[StageMaps]

    def detached(self) -> "Outputs":
        """The same values, through which nothing is learned."""
        maps = [StageMaps(*(tensor.detach() for tensor in stage)) for stage in self.maps]
        return Outputs(self.scores.detach(), maps)


def label_loss(scores: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of class scores (B, classes) with labels (B,)."""
    return F.cross_entropy(scores, labels)


def answer_loss(scores: Tensor, answers: Tensor) -> Tensor:
    """Cross-entropy of class scores with a teacher's, both (B, classes).

    In-place distillation (Yu and Huang, 2019, "Universally Slimmable Networks", section 3.2).
    """
    return F.cross_entropy(scores, answers.softmax(dim=1))


def stage_errors(network: Network, teacher: list[StageMaps]) -> Tensor:
    """How far each stage is from what a teacher's gives for what it is given; the mean of them.

    A stage is given as many channels of the teacher's map as it takes, and its own map is compared
    with the same channels of the teacher's: mean square error relative to their variance. After
    DNA (Li et al., 2020, section 3.2).

    Args:
        network: On a map, of no more channels than the teacher anywhere.
        teacher: What passed the teacher's stages.
    """
    errors = []
    with autocast(teacher[0].given.device):
        for stage, inputs, spec, maps in zip(
            network.stages, network.widths_given, network.architecture.stages, teacher, strict=True
        ):
            given = maps.given[..., :inputs].contiguous()
            wanted = maps.mixed[..., : spec.width].float()
            error = F.mse_loss(stage(given).float(), wanted)
            errors.append(error / wanted.var().clamp(min=1e-6))
    return torch.stack(errors).mean()
