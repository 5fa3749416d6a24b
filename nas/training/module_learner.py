"""A torch module that learns, its optimizer and its state; what is learned, subclasses say."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from nas.training.loop import check_gradient
from nas.training.ranks import ALONE, Ranks


class ModuleLearner:
    """The part of a `nas.training.loop.Learner` that is the same for any one module.

    Args:
        module: Who learns.
        optimizer: Of its parameters; each group has its share of the learning rate as `lr_scale`.
        clip_norm: Largest norm of the gradient of a step; 0 for no limit.
        ranks: The processes that train together.
    """

    def __init__(
        self,
        module: nn.Module,
        optimizer: torch.optim.Optimizer,
        *,
        clip_norm: float,
        ranks: Ranks = ALONE,
    ) -> None:
        self.module, self.optimizer = module, optimizer
        self.clip_norm, self.ranks = clip_norm, ranks

    def update(self, *, lr: float) -> None:
        """Clip, step and zero.

        Raises:
            Diverged: If the gradient is not finite; the weights are those before.
        """
        parameters = list(self.module.parameters())
        self.ranks.average([p.grad for p in parameters if p.grad is not None])
        limit = self.clip_norm or math.inf
        norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
        check_gradient(float(norm), lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["lr_scale"]
        self.optimizer.step()
        self.optimizer.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name, and the moments of each parameter that has some by its number."""
        tensors = {f"weights.{name}": tensor for name, tensor in self.module.state_dict().items()}
        for index, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in moments.items()}
        return tensors

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Overwrite weights and moments.

        Raises:
            ValueError: If they are of another network.
        """
        weights: dict[str, Tensor] = {}
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in state.items():
            part, rest = name.split(".", 1)
            if part == "weights":
                weights[rest] = tensor
            else:
                index, moment = rest.split(".")
                moments.setdefault(int(index), {})[moment] = tensor
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        shapes = {index: {k: t.shape for k, t in m.items()} for index, m in moments.items()}
        if weights.keys() != self.module.state_dict().keys() or shapes != {
            index: {"step": torch.Size(), "exp_avg": p.shape, "exp_avg_sq": p.shape}
            for index, p in enumerate(parameters)
        }:
            raise ValueError("it has weights or moments of another network")
        self.module.load_state_dict(weights)
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
