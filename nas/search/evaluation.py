"""One evaluation: what a process needs for it, and what comes of it."""

import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from nas.training.accuracy import SubnetEvaluator
from nas.utilities.errors import Diverged
from nas.utilities.interrupt import Interrupted
from search_space import Architecture, SearchSpace
from supernet import Store

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""Times that an evaluation is tried before it counts as failed."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The outcome of one evaluation: how well the subnet fits the images, or else why not known.

    Attributes:
        accuracy: Share of the images that it classifies right, 0 to 1.
        loss: Mean cross-entropy with their labels, in nats.
        error: Its last line gives the reason; where something was raised, its traceback precedes.
    """

    accuracy: float | None = None
    loss: float | None = None
    error: str = ""


@dataclass(frozen=True, kw_only=True)
class EvaluationSetup:
    """All that an evaluating process needs: the supernet, the images, and how to run.

    Attributes:
        space: The search space of the weights.
        num_classes: Outputs of the classifier.
        weights: The store's tensors by name.
        images: uint8 (N, 3, S, S).
        labels: int64 (N,).
        mean: Of each channel, for pixels from 0 to 1.
        std: Likewise.
        device: Where to evaluate.
        threads: CPU threads of one evaluation.
    """

    space: SearchSpace
    num_classes: int
    weights: Mapping[str, Tensor]
    images: Tensor
    labels: Tensor
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    device: str
    threads: int

    def evaluator(self) -> SubnetEvaluator:
        """An evaluator that holds the weights on its device."""
        weights = {name: tensor.to(self.device) for name, tensor in self.weights.items()}
        store = Store(self.space, num_classes=self.num_classes, device=self.device, weights=weights)
        return SubnetEvaluator(
            store,
            self.images,
            self.labels,
            mean=self.mean,
            std=self.std,
            threads=self.threads,
        )


def evaluate(evaluator: SubnetEvaluator, architecture: Architecture) -> Score:
    """Evaluate, up to `ATTEMPTS` times, since memory may have been short; then give up.

    Class scores that are not finite would be so again: they are tried once.

    Raises:
        Interrupted: If the user asked to stop, which is no failure.
    """
    error = ""
    for attempt in range(ATTEMPTS):
        try:
            found = evaluator.fit(architecture)
            return Score(accuracy=found.accuracy, loss=found.loss)
        except Interrupted:
            raise
        except Diverged as diverged:
            logger.warning("%s failed: %s", architecture.hash, diverged)
            return Score(error=str(diverged))
        except (Exception, SystemExit):  # whatever a network raises must not end the search
            error = traceback.format_exc()
            logger.warning("attempt %d failed for %s: %s", attempt + 1, architecture.hash, error)
        torch.cuda.empty_cache()  # here, where the traceback holds the network's maps no longer
    return Score(error=error)
