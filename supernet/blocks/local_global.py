"""Local–global attention: every head group of a layer side by side."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from search_space.operators import MapRole
from search_space.parts import (
    AdaptiveWindow,
    FullAttention,
    LocalGlobal,
    Rates,
    SpatialReduction,
    SplitLocalGlobal,
)
from supernet.blocks.global_attention import AdaptiveHeads, FullHeads, ReducedHeads
from supernet.blocks.local_attention import WindowHeads
from supernet.blocks.sharing import HeadGroup

AttentionMaps = dict[str, Tensor]
"""The attention map of each head group, by the group's name."""


class LocalGlobalAttention(nn.Module):
    """Some heads look into windows, the others at the whole map; each sees all channels.

    The output projection of the concatenated heads is computed as the sum of the groups' parts,
    which is the same function; the one bias is added with the first group's part.
    """

    def __init__(self, mixer: LocalGlobal, width: int, role: MapRole) -> None:
        super().__init__()
        dim = width // mixer.heads
        self.groups = nn.ModuleDict()
        if mixer.local_heads:
            self.groups["local"] = WindowHeads(
                width, mixer.local_heads, dim, role, window=mixer.window
            )
        if mixer.global_heads and (spec := mixer.aggregation) is not None:
            build = AGGREGATIONS[type(spec)]
            self.groups.update(
                build(spec, width, mixer.global_heads, dim, mixer.global_split, role)
            )
        self.bias = nn.Parameter(torch.zeros(width))
        self.hands_on = role != "own"

    def draw_weights(self) -> None:
        """Zero for the bias, the only parameter of its own."""
        nn.init.zeros_(self.bias)

    def forward(
        self, x: Tensor, borrowed: AttentionMaps | None
    ) -> tuple[Tensor, AttentionMaps | None]:
        """Mix the tokens of a map.

        Args:
            x: (B, H, W, C).
            borrowed: The maps of an earlier layer, where this layer borrows them.

        Returns:
            (B, H, W, C), and the attention maps where a later layer may read them.
        """
        total: Tensor | None = None
        maps: AttentionMaps = {}
        for name, group in self.groups.items():
            y, attention = group(
                x,
                borrowed[name] if borrowed is not None else None,
                self.bias if total is None else None,
            )
            total = y if total is None else total + y
            if attention is not None:
                maps[name] = attention
        assert total is not None
        return total, maps if self.hands_on else None


class SplitLocalGlobalAttention(nn.Module):
    """The first channels attend in windows, the rest to the whole map, each part alone (PLG-ViT).

    The global part's weights are those of the channels behind the local part. So its name says
    where it starts: networks in which it starts elsewhere don't share them.
    """

    def __init__(self, mixer: SplitLocalGlobal, width: int, role: MapRole) -> None:
        super().__init__()
        (channels, local), (rest, seen) = mixer.parts(width)
        self.channels = [channels, rest]
        self.parts = nn.ModuleDict(
            {
                "local": LocalGlobalAttention(local, channels, role),
                f"global{channels}": LocalGlobalAttention(seen, rest, role),
            }
        )
        self.hands_on = role != "own"

    def forward(
        self, x: Tensor, borrowed: AttentionMaps | None
    ) -> tuple[Tensor, AttentionMaps | None]:
        """Mix the tokens of a map; see `LocalGlobalAttention.forward`."""
        outputs: list[Tensor] = []
        maps: AttentionMaps = {}
        for part, channels in zip(self.parts.values(), x.split(self.channels, -1), strict=True):
            y, lent = part(channels.contiguous(), borrowed)
            outputs.append(y)
            maps |= lent or {}
        return torch.cat(outputs, -1), maps if self.hands_on else None


Groups = dict[str, HeadGroup]
"""Global head groups by name; what cannot share weights has a name of its own."""


def _by_rates(spec: Rates, width: int, heads: int, dim: int, split: int, role: MapRole) -> Groups:
    return {
        f"rate{rate}": ReducedHeads(width, some * split, dim // split, role, rate=rate)
        for rate, some in spec.heads_per_rate(heads).items()
    }


def _reduced(
    spec: SpatialReduction, width: int, heads: int, dim: int, split: int, role: MapRole
) -> Groups:
    group = ReducedHeads(width, heads * split, dim // split, role, rate=spec.rate, shunted=False)
    return {f"reduction{spec.rate}": group}


def _adaptive(
    spec: AdaptiveWindow, width: int, heads: int, dim: int, split: int, role: MapRole
) -> Groups:
    average = spec.sampling == "max_avg"
    group = AdaptiveHeads(
        width, heads * split, dim // split, role, window=spec.window, average=average
    )
    return {"adaptive": group}


def _full(
    spec: FullAttention, width: int, heads: int, dim: int, split: int, role: MapRole
) -> Groups:
    group = FullHeads(
        width,
        heads * split,
        dim // split,
        role,
        local_term=spec.local_term,
        relative=spec.relative,
    )
    return {"full": group}


AGGREGATIONS: dict[type, Callable[[Any, int, int, int, int, MapRole], Groups]] = {
    Rates: _by_rates,
    SpatialReduction: _reduced,
    AdaptiveWindow: _adaptive,
    FullAttention: _full,
}
"""Makes the global head groups, by the spec of the aggregation, for a width, so many global heads
of that dim, the smaller heads that each is split into, and what the layer does with its map."""
