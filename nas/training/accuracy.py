"""How accurate a subnet is on fixed images."""

import torch
from torch import Tensor

from nas.data import normalise
from nas.training.loop import autocast
from nas.utilities.errors import Diverged
from search_space import Architecture
from supernet import Network, Store

EVALUATION_BATCH = 250


@torch.no_grad()
def count_correct(
    network: Network,
    images: Tensor,
    labels: Tensor,
    *,
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
    batch_size: int = EVALUATION_BATCH,
) -> int:
    """Number of images whose highest class score is their label's, in eval mode and bf16 autocast.

    bf16 has the exponents of float32: what is too large for it is too large for either.

    Args:
        network: The network, on the device to use.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        batch_size: Images at a time.

    Raises:
        Diverged: If a class score is infinite or not a number: no class is the highest then.
    """
    device = next(network.parameters()).device
    network.eval()
    correct = 0
    for some, truth in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        with autocast(device):
            logits = network(normalise(some.to(device), mean, std))
        if not logits.isfinite().all():
            raise Diverged("class scores of the network are infinite or not a number")
        correct += int((logits.argmax(dim=1) == truth.to(device)).sum())
    return correct


class SubnetEvaluator:
    """Accuracy of subnets with the weights that they inherit from the store.

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

    def accuracy(self, architecture: Architecture) -> float:
        """Share of the images that the subnet classifies right, 0 to 1.

        Raises:
            Diverged: If its class scores are not finite.
        """
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            correct = count_correct(
                self.store.subnet(architecture),
                self.images,
                self.labels,
                mean=self.mean,
                std=self.std,
            )
        finally:
            torch.set_num_threads(threads)
        return correct / len(self.labels)
