"""How accurate a subnet is on fixed images."""

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data import normalise
from nas.training.loop import autocast
from nas.utilities.errors import Diverged
from search_space import Architecture
from supernet import Network, Store

EVALUATION_BATCH = 250
"""Images at a time, at most."""

EVALUATION_PIXELS = 2**22
"""Pixels at a time, at most, but for a single image: of 128 px it is the whole of a batch, of 512
px it is sixteen. A layer of `base` takes some half a gigabyte for them."""


def nobody() -> None:
    """Is told that work goes on where nobody asks."""


@torch.no_grad()
def predict(
    network: Network,
    images: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    on_batch: Callable[[], object] = nobody,
) -> tuple[Tensor, Tensor]:
    """The class with the highest score for each image, and its probability.

    The network is in eval mode then, and computes in what it was trained in. bfloat16 has the
    exponents of float32: what is too large for one is too large for the other.

    Args:
        network: The network, on the device to use.
        images: uint8 (N, 3, S, S).
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        on_batch: Called after each of the batches in which this is done.

    Returns:
        Classes, int64 (N,), and probabilities by the softmax, float32 (N,).

    Raises:
        Diverged: If a class score is infinite or not a number: no class is the highest then.
    """
    predicted, sure = [], []
    for scores in _scores(network, images, mean=mean, std=std):
        predicted.append(scores.argmax(dim=1))
        sure.append(scores.softmax(dim=1).amax(dim=1))
        on_batch()
    return torch.cat(predicted), torch.cat(sure)


class Fit(NamedTuple):
    """How well a network fits images.

    Attributes:
        accuracy: Share of the images that it classifies right, 0 to 1.
        loss: Mean cross-entropy with their labels, in nats.
    """

    accuracy: float
    loss: float


@torch.no_grad()
def fit(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    on_batch: Callable[[], object] = nobody,
) -> Fit:
    """How well a network fits images, in eval mode.

    Args:
        network: The network, on the device to use.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        on_batch: Called after each of the batches in which this is done.

    Raises:
        Diverged: Where `predict` does, and if scores are so far apart that the loss is infinite.
    """
    batches = _scores(network, images, mean=mean, std=std)
    right, loss = 0, 0.0
    for scores, wanted in zip(batches, labels.split(_at_a_time(images)), strict=True):
        right += int((scores.argmax(dim=1) == wanted).sum())
        loss += F.cross_entropy(scores, wanted, reduction="sum").item()
        on_batch()
    if not math.isfinite(loss):
        raise Diverged("the loss of the network is infinite")
    return Fit(accuracy=right / len(labels), loss=loss / len(labels))


def _scores(
    network: Network,
    images: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Iterator[Tensor]:
    """Class scores of some images at a time, float32 (n, classes), on the CPU.

    Raises:
        Diverged: If one is not finite.
    """
    device = next(network.parameters()).device
    network.eval()
    for some in images.split(_at_a_time(images)):
        with autocast(device):
            scores = network(normalise(some.to(device), mean, std))
        if not scores.isfinite().all():
            raise Diverged("class scores of the network are infinite or not a number")
        yield scores.float().cpu()


def _at_a_time(images: Tensor) -> int:
    """How many images, (N, 3, H, W), a network is given at a time."""
    height, width = images.shape[-2:]
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))


def largest_class(labels: Tensor) -> float:
    """The share of the images, 0 to 1, that the largest class has.

    Args:
        labels: int64 (N,).
    """
    return int(torch.bincount(labels).max()) / len(labels)


def confusion_matrix(labels: Tensor, predicted: Tensor, *, num_classes: int) -> Tensor:
    """How many images of each class (rows) were taken for each class (columns), int64 (C, C).

    Args:
        labels: int64 (N,).
        predicted: Likewise.
        num_classes: C.
    """
    counts = torch.bincount(labels * num_classes + predicted, minlength=num_classes**2)
    return counts.view(num_classes, num_classes)


class SubnetEvaluator:
    """How well subnets fit images with the weights that they inherit from the store.

    The score of an architecture depends on the store, the images and the number of threads; not on
    what was evaluated before.

    Args:
        store: The shared weights.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        threads: CPU threads to evaluate with.
    """

    def __init__(
        self,
        store: Store,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        threads: int,
    ) -> None:
        self.store, self.images, self.labels = store, images, labels
        self.mean, self.std, self.threads = mean, std, threads

    def fit(self, architecture: Architecture) -> Fit:
        """How well the subnet fits the images.

        Raises:
            Diverged: As the function `fit`.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return fit(
                self.store.subnet(architecture),
                self.images,
                self.labels,
                mean=self.mean,
                std=self.std,
            )
        finally:
            torch.set_num_threads(threads)
