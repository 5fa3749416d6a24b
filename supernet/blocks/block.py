"""Blocks: token mixing, then the feed-forward, both residual; or a mixer that is all of it.

A new mixer has a row in `MIXERS` or, if it is a whole block, in `WHOLE_BLOCKS`.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from search_space import (
    DepthwiseConvolution,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    SplitLocalGlobal,
    Stage,
)
from search_space.operators import MapRole
from supernet.blocks.depthwise_mixer import DepthwiseMixer
from supernet.blocks.feed_forward import build_feed_forward
from supernet.blocks.inverted_residual import InvertedResidualBlock
from supernet.blocks.ladder import LadderBlock
from supernet.blocks.local_global import (
    AttentionMaps,
    LocalGlobalAttention,
    SplitLocalGlobalAttention,
)
from supernet.blocks.stochastic_depth import build_drop_path

MIXERS: dict[type, Callable[[Any, Stage, MapRole], nn.Module]] = {
    LocalGlobal: lambda mixer, stage, role: LocalGlobalAttention(mixer, stage.width, role),
    SplitLocalGlobal: lambda mixer, stage, role: SplitLocalGlobalAttention(
        mixer, stage.width, role
    ),
    DepthwiseConvolution: lambda mixer, stage, role: DepthwiseMixer(
        mixer, stage.width, stage.conv_norm
    ),
}
"""Makes the module of a mixer, by its spec: tokens (B, H, W, C) and the attention maps of an
earlier block → tokens of the same shape, and the maps that a later block may read."""

WHOLE_BLOCKS: dict[type, Callable[[Any, Stage, float, float], nn.Module]] = {
    Ladder: lambda mixer, stage, norm_eps, rate: LadderBlock(
        mixer, stage.width, stage.conv_norm, norm_eps=norm_eps, drop_path_rate=rate
    ),
    InvertedResidual: lambda mixer, stage, norm_eps, rate: InvertedResidualBlock(
        stage.width, stage.width, stage.conv_norm, expansion=mixer.expansion
    ),
}
"""Makes the module of a mixer that is a whole block, by its spec, with the epsilon of norms and the
rate of stochastic depth: (B, H, W, C) → the same shape."""

WITHOUT_DROP_PATH = (InvertedResidual,)
"""Mixers whose blocks have no stochastic depth; the rates of the others rise past them."""


class Block(nn.Module):
    """Pre-norm residual block: token mixing, where the stage has any, then the feed-forward."""

    def __init__(self, stage: Stage, index: int, norm_eps: float, drop_path_rate: float) -> None:
        super().__init__()
        assert stage.feed_forward is not None
        width = stage.width
        self.mixer: nn.Module | None = None
        if stage.mixer.mixes:
            self.norm1 = nn.LayerNorm(width, eps=norm_eps)
            role = stage.map_role(index)
            self.mixer = MIXERS[type(stage.mixer)](stage.mixer, stage, role)
            self.drop_path1 = build_drop_path(drop_path_rate)
        self.norm2 = nn.LayerNorm(width, eps=norm_eps)
        self.feed_forward = build_feed_forward(stage.feed_forward.kind, width, stage.hidden)
        self.drop_path2 = build_drop_path(drop_path_rate)

    def forward(self, x: Tensor, maps: AttentionMaps | None) -> tuple[Tensor, AttentionMaps | None]:
        """(B, H, W, C) and the maps lent by an earlier block → the same for the next one."""
        if self.mixer is not None:
            y, maps = self.mixer(self.norm1(x), maps)
            x = x + self.drop_path1(y)
        x = x + self.drop_path2(self.feed_forward(self.norm2(x)))
        return x, maps


class WholeBlock(nn.Module):
    """A mixer that is a block by itself and shares no attention map."""

    def __init__(self, stage: Stage, norm_eps: float, drop_path_rate: float) -> None:
        super().__init__()
        build = WHOLE_BLOCKS[type(stage.mixer)]
        # By kind, so that blocks that cannot share weights never have the same names.
        self.add_module(stage.mixer.kind, build(stage.mixer, stage, norm_eps, drop_path_rate))

    def forward(self, x: Tensor, maps: None) -> tuple[Tensor, None]:
        """(B, H, W, C) → the same shape; there are no maps."""
        (module,) = self.children()
        return module(x), None


def build_block(stage: Stage, index: int, norm_eps: float, drop_path_rate: float) -> nn.Module:
    """A block of a stage, to be called with tokens and attention maps."""
    if stage.mixer.is_whole_block:
        return WholeBlock(stage, norm_eps, drop_path_rate)
    return Block(stage, index, norm_eps, drop_path_rate)
