"""Tokens as a sequence behind a class token.

Inside a network a sequence is a map of one row, (B, 1, 1 + N, C), the class token first; what
treats every token alike needs not know of it.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ClassToken(nn.Module):
    """A learned token before the tokens of a map, which become a sequence.

    It has a position of its own where the map has positions.
    """

    def __init__(self, width: int, *, has_position: bool) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(width))
        self.position = nn.Parameter(torch.zeros(width)) if has_position else None

    def draw_weights(self) -> None:
        """Truncated normals."""
        nn.init.trunc_normal_(self.token, std=0.02)
        if self.position is not None:
            nn.init.trunc_normal_(self.position, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, 1, 1 + H·W, C)."""
        token = self.token if self.position is None else self.token + self.position
        first = token.to(x.dtype).expand(x.shape[0], 1, -1)
        return torch.cat((first, x.flatten(1, 2)), dim=1).unsqueeze(1)


class SequencePool(nn.Module):
    """Conv of 3 tokens along the sequence, then max-pool of 3, stride 2 (PSViT 1D).

    The class token passes by through a linear layer of its own. Our own definition.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.class_proj = nn.Linear(inputs, outputs)
        self.proj = nn.Conv1d(inputs, outputs, kernel_size=3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 1, 1 + N, inputs) → (B, 1, 1 + ⌈N/2⌉, outputs)."""
        token, others = x[:, 0, :1], x[:, 0, 1:]
        others = self.proj(others.transpose(1, 2))
        others = F.max_pool1d(others, kernel_size=3, stride=2, padding=1).transpose(1, 2)
        return torch.cat((self.class_proj(token), others), dim=1).unsqueeze(1)
