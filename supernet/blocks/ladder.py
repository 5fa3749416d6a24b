"""The ladder: branches of attention in shifted windows that hand on their output (PSLT)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import LADDER_BRANCHES, ConvNormKind, Ladder
from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapLinear
from supernet.blocks.norms import build_conv_norm
from supernet.blocks.positions import RelativePositionBias
from supernet.blocks.stochastic_depth import build_drop_path
from supernet.blocks.windows import Windows


class LadderBlock(nn.Module):
    """A whole block of PSLT (sections 3.1 and 3.2).

    Each branch works on a third of the channels and takes the one before's output as values; a gate
    for every token and channel fuses them (pixel-adaptive fusion), and a linear layer is added.

    Channel i belongs to branch i mod 3, so that fewer channels are a prefix of more in every
    branch; the authors' code splits them in three runs, which is the same function up to the order
    of channels.
    """

    def __init__(
        self,
        mixer: Ladder,
        width: int,
        conv_norm: ConvNormKind,
        *,
        norm_eps: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            LadderBranch(
                mixer,
                width // LADDER_BRANCHES,
                index,
                conv_norm,
                norm_eps=norm_eps,
                drop_path_rate=drop_path_rate,
            )
            for index in range(LADDER_BRANCHES)
        )
        self.fusion1 = MapLinear(width, width // 2)
        self.fusion2 = MapLinear(width // 2, width)
        self.pointwise = MapLinear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        inputs = x.unflatten(-1, (-1, LADDER_BRANCHES)).unbind(-1)
        outputs: list[Tensor] = []
        for branch, part in zip(self.branches, inputs, strict=True):
            outputs.append(branch(part.contiguous(), outputs[-1] if outputs else None))
        z = torch.stack(outputs, dim=-1).flatten(-2)  # (B, H, W, C)
        gate: Tensor = self.fusion2(F.relu(self.fusion1(z))).sigmoid()
        z = z * gate
        pointwise: Tensor = self.pointwise(z)
        return z + pointwise


class LadderBranch(nn.Module):
    """Attention in windows with relative positions, then the light feed-forward; both residual.

    Progressive shift: the first branch's windows are not shifted, the second's by half a window up
    and left, the third's down and right. All but the first have no value projection: the previous
    branch's output is their values, and the normalised input is added to what they attend to.
    """

    def __init__(
        self,
        mixer: Ladder,
        width: int,
        index: int,
        conv_norm: ConvNormKind,
        *,
        norm_eps: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__()
        self.heads, self.window = mixer.heads, mixer.window
        self.shift = (0, -(mixer.window // 2), mixer.window // 2)[index]
        self.norm1 = nn.LayerNorm(width, eps=norm_eps)
        self.q, self.k = MapLinear(width, width), MapLinear(width, width)
        self.v = MapLinear(width, width) if index == 0 else None
        self.position_bias = RelativePositionBias(mixer.window, mixer.heads)
        self.attn_drop = nn.Identity()  # as in `HeadGroup`
        self.proj = MapLinear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.feed_forward = LightFeedForward(width, conv_norm)
        self.drop_path1 = build_drop_path(drop_path_rate)
        self.drop_path2 = build_drop_path(drop_path_rate)

    def forward(self, x: Tensor, previous: Tensor | None) -> Tensor:
        """(B, H, W, c) and the output of the branch before → the same shape."""
        n = self.norm1(x)
        y = self._attend(n, previous if self.v is None else self.v(n))
        if self.v is None:
            y = n + y
        x = x + self.drop_path1(y)
        x = x + self.drop_path2(self.feed_forward(self.norm2(x)))
        return x

    def _attend(self, n: Tensor, values: Tensor | None) -> Tensor:
        assert values is not None
        batch, height, width, channels = n.shape
        windows = Windows(height, width, self.window, self.shift)
        count = batch * windows.grid[0] * windows.grid[2]
        q, k, v = (
            windows.cut(part).view(count, -1, self.heads, channels // self.heads).transpose(1, 2)
            for part in (self.q(n), self.k(n), values)
        )
        y = fast_paths.attention(
            q, k, v.to(q.dtype), self._bias(windows, batch, n), shown=self.attn_drop
        )
        joined: Tensor = self.proj(windows.join(y.transpose(1, 2).flatten(2)))
        return joined

    def _bias(self, windows: Windows, batch: int, n: Tensor) -> Tensor:
        """Position biases, and minus infinity where a key is hidden: (1 or B·windows, h, N, N)."""
        _, high, _, wide = windows.grid
        bias: Tensor = self.position_bias(high, wide, interpolate=False)
        visible = windows.visible(n.device)
        if visible is None:
            return bias
        return bias.masked_fill(~visible, float("-inf")).repeat(batch, 1, 1, 1)


class LightFeedForward(nn.Module):
    """1×1, GELU, norm, depthwise 3×3, GELU, norm, 1×1, norm, all of one width (PSLT)."""

    def __init__(self, width: int, conv_norm: ConvNormKind) -> None:
        super().__init__()
        self.fc1 = MapLinear(width, width)
        self.norm1 = build_conv_norm(conv_norm, width)
        self.depthwise = DepthwiseConv(width)
        self.norm2 = build_conv_norm(conv_norm, width)
        self.fc2 = MapLinear(width, width)
        self.norm3 = build_conv_norm(conv_norm, width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, c) → the same shape."""
        return fast_paths.chain(
            x,
            *(self.fc1, F.gelu, self.norm1),
            *(self.depthwise, F.gelu, self.norm2),
            *(self.fc2, self.norm3),
        )
