"""The loss terms of a lesson: from labels, and from what a teacher knows."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.training.loop import autocast
from supernet import Network
from supernet.network import NetworkStage, StageMaps


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


def map_distance(maps: list[StageMaps], teacher: list[StageMaps]) -> Tensor:
    """Mean square distance of the channels that two networks' maps share, normalised per token.

    The mean is over the stages whose maps have the same tokens in both. After DNA (Li et al.,
    2020), whose blocks learn a teacher's maps.
    """
    distances = []
    for one, other in zip(maps, teacher, strict=True):
        if one.mixed.shape[:3] == other.mixed.shape[:3]:  # not so between a map and a sequence
            shared = (min(one.mixed.shape[3], other.mixed.shape[3]),)
            mine, theirs = (m.mixed[..., : shared[0]].float() for m in (one, other))
            distances.append(F.mse_loss(F.layer_norm(mine, shared), F.layer_norm(theirs, shared)))
    return torch.stack(distances).mean() if distances else maps[0].mixed.new_zeros(())


def pooling_error(network: Network, teacher: list[StageMaps]) -> Tensor:
    """How far entries are from what a teacher's give for the same maps, relative to its variance.

    `network` has the teacher's widths; the mean is over the stages that begin with a pooling. Where
    none does there is nothing to learn: 0, without a gradient.
    """
    errors = []
    with autocast(teacher[0].given.device):
        for stage, spec, maps in zip(
            network.stages, network.architecture.stages, teacher, strict=True
        ):
            if spec.pooling is not None:
                assert isinstance(stage, NetworkStage)
                wanted = maps.entered.float()
                error = F.mse_loss(stage.enter(maps.given).float(), wanted)
                errors.append(error / wanted.var().clamp(min=1e-6))
    return torch.stack(errors).mean() if errors else teacher[0].given.new_zeros(())
