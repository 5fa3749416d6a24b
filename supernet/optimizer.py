"""How parameters train: in groups of one network alone, and AdamW over the store.

That steps only the weights that a step used.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any

import torch
from timm.models import group_parameters
from torch import Tensor
from torch.nn.utils import get_total_norm
from torch.optim.adamw import adamw

from supernet.network import Network
from supernet.store import Shape, Store

Region = tuple[slice, ...]
"""A part of a tensor: the slice of each dimension."""


def parameter_groups(
    network: Network, *, weight_decay: float, lr: float | None = None, layer_decay: float = 1.0
) -> list[dict[str, Any]]:
    """The parameters of a network in groups as optimizers of torch and of timm take them.

    Vectors and positions are not decayed, and the offsets of deformable merging train at a
    hundredth of the learning rate: `Network.parameter_settings` says so.

    Args:
        network: Whose parameters; those that want no gradient are left out.
        weight_decay: Of those that are decayed.
        lr: Gives every group a rate of its own, as torch's optimizers and schedulers want it.
            Without it a group says by `lr_scale` what share of the rate it trains with, which
            timm's schedulers heed.
        layer_decay: The rate of a layer relative to the one behind it; layers are those of
            `Network.group_matcher`.
    """
    layers = group_parameters(network, network.group_matcher(), reverse=True)
    last = max(layers.values())
    settings = network.parameter_settings()
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            scale = settings[name].lr_scale * layer_decay ** (last - layers[name])
            decay = weight_decay if settings[name].decayed else 0.0
            groups.setdefault((decay, scale), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": decay,
            **({"lr_scale": scale} if lr is None else {"lr": lr * scale}),
        }
        for (decay, scale), parameters in groups.items()
    ]


class StoreAdamW:
    """AdamW (Loshchilov and Hutter, 2019) for shared weights.

    A weight that no network of the step used does not move: its gradient is zero, but momentum and
    weight decay would drift the choices that are rarely sampled. So each step updates only the
    regions that its networks cover, weights and moments alike. Bias correction counts steps per
    named tensor, as torch's AdamW does, and a tensor that was trained in half or a third of the
    steps so far has a learning rate so many times larger, since Adam moves a weight by about the
    learning rate a step, however large its gradient. What is decayed, and with which share of the
    learning rate it trains, the modules say (`Network.parameter_settings`).

    Args:
        store: Whose weights to step.
        weight_decay: Decoupled weight decay of matrices and kernels.
        betas: Decay rates of the two moments.
        eps: What is added to the root of the second moment.
        clip_norm: Largest norm of the gradient of a step over all weights that it used.
        most_catching_up: Largest factor of the learning rate of a weight that was trained in few of
            the steps so far.
        combine: Called with the gradients of a step, before they are clipped, to overwrite: where
            several processes train, each with a part of the batch, they are averaged here.
    """

    def __init__(
        self,
        store: Store,
        *,
        weight_decay: float = 0.05,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        clip_norm: float = 5.0,
        most_catching_up: float = 3.0,
        combine: Callable[[Sequence[Tensor]], None] = lambda gradients: None,
    ) -> None:
        self.store = store
        self.weight_decay, self.betas, self.eps = weight_decay, betas, eps
        self.clip_norm, self.most_catching_up = clip_norm, most_catching_up
        self.combine = combine
        self.first = {name: torch.zeros_like(t) for name, t in store.parameters.items()}
        self.second = {name: torch.zeros_like(t) for name, t in store.parameters.items()}
        # One tensor, so that all counts are read at once.
        self._counts = torch.zeros(len(store.parameters))
        self.steps = dict(zip(store.parameters, self._counts.unbind(), strict=True))

    @torch.no_grad()
    def step(self, networks: Iterable[Network], *, lr: float) -> float:
        """Update what the networks used from the gradients accumulated in the store; zero those.

        Where the gradient is not finite, nothing is updated.

        Args:
            networks: Every subnet whose backward pass went into the gradients.
            lr: Learning rate.

        Returns:
            The norm of the gradient before clipping.

        Raises:
            ValueError: If shapes of one name differ in other dimensions than the first two.
        """
        used: dict[str, set[Shape]] = {}
        for name, parameter in chain.from_iterable(n.named_parameters() for n in networks):
            used.setdefault(name, set()).add(tuple(parameter.shape))
        regions = [
            (name, region) for name, shapes in used.items() for region in _disjoint(name, shapes)
        ]
        accumulated = [self.store.gradients[name][region] for name, region in regions]
        # Fused kernels read memory from end to end: a view with gaps goes there and back.
        gradients = [gradient.contiguous() for gradient in accumulated]
        self.combine(gradients)
        norm = get_total_norm(gradients)
        if not norm.isfinite():
            torch._foreach_zero_(accumulated)
            return float(norm)
        # What gradients are divided by.
        excess = ((norm + 1e-6) / self.clip_norm).clamp(min=1.0)
        steps = dict(zip(self.steps, self._counts.tolist(), strict=True))
        most = max(steps.values())
        groups: dict[tuple[bool, float], list[tuple[str, Region, Tensor]]] = {}
        for (name, region), gradient in zip(regions, gradients, strict=True):
            setting = self.store.parameter_settings[name]
            rarity = (most + 1) / (steps[name] + 1)
            # A power of two, so that groups are few.
            catching_up = min(self.most_catching_up, 2.0 ** round(math.log2(rarity)))
            key = setting.decayed, setting.lr_scale * catching_up
            groups.setdefault(key, []).append((name, region, gradient))
        for (decayed, scale), chosen in groups.items():
            views = [
                [tensors[name][region] for name, region, _ in chosen]
                for tensors in (self.store.parameters, self.first, self.second)
            ]
            weights, first, second = ([view.contiguous() for view in some] for some in views)
            counts = torch.tensor([steps[name] for name, _, _ in chosen])
            adamw(
                weights,
                [gradient for _, _, gradient in chosen],
                first,
                second,
                [],
                list(counts.to(norm.device).unbind()),
                fused=True,
                grad_scale=excess,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=lr * scale,
                weight_decay=self.weight_decay if decayed else 0.0,
                eps=self.eps,
                maximize=False,
            )
            for view, dense in zip(chain(*views), chain(weights, first, second), strict=True):
                if dense is not view:
                    view.copy_(dense)
        for name in used:
            self.steps[name] += 1
        torch._foreach_zero_(accumulated)
        return float(norm)

    def restart(self) -> None:
        """Forget moments and step counts: what comes is to be learned as from the first step."""
        for tensor in self.state_dict().values():
            tensor.zero_()

    def state_dict(self) -> dict[str, Tensor]:
        """Moments and step counts by name: the tensors themselves, not copies."""
        parts = {"first": self.first, "second": self.second, "steps": self.steps}
        return {f"{part}.{k}": tensor for part, t in parts.items() for k, tensor in t.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Overwrite moments and step counts in place."""
        for name, tensor in self.state_dict().items():
            tensor.copy_(state[name])


def _disjoint(name: str, shapes: Iterable[Shape]) -> list[Region]:
    """Disjoint slices of the parameter `name` that together cover the prefixes of these shapes.

    Shapes differ in their first two dimensions only (outputs and inputs), so that the union is a
    staircase: from the tallest prefix down, each adds the columns that taller ones leave free.

    Raises:
        ValueError: If shapes differ otherwise, or have no dimension.
    """
    by_rows: Sequence[Shape] = sorted(shapes, reverse=True)
    if () in by_rows or len({(len(shape), shape[2:]) for shape in by_rows}) > 1:
        raise ValueError(
            f"{name} has the shapes {[list(shape) for shape in by_rows]} in one step; "
            "those of one name may differ in their first two dimensions only"
        )
    if len(by_rows[0]) == 1:
        return [(slice(by_rows[0][0]),)]
    regions: list[Region] = []
    done = 0
    for shape in by_rows:
        if shape[1] > done:
            regions.append((slice(shape[0]), slice(done, shape[1])))
            done = shape[1]
    return regions
