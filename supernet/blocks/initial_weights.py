"""How the weights of a fresh network are drawn."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import nn


@runtime_checkable
class DrawsItsWeights(Protocol):
    """A module with parameters of its own, or with other initial ones than its kind has."""

    def draw_weights(self) -> None:
        """Draw its parameters anew, in place, from torch's global generator."""


@torch.no_grad()
def init_module(module: nn.Module) -> None:
    """Draw the parameters of one module, those of the modules within it left out.

    As PVT and the Shunted Transformer do: truncated normal for linear layers, fan-out normal for
    convolutions. Modules with parameters of their own say theirs in `draw_weights`.
    """
    match module:
        case DrawsItsWeights():
            module.draw_weights()
        case nn.Linear():
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case nn.Conv2d() | nn.Conv1d():
            fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case nn.LayerNorm() | nn.BatchNorm2d():
            module.reset_parameters()
        case _:
            own = [name for name, _ in module.named_parameters(recurse=False)]
            if own:
                raise TypeError(f"{type(module).__name__} says not how to draw {own[0]!r}")
