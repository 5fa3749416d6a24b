"""Local–global attention: every head group of a layer side by side."""

import torch
from torch import Tensor, nn

from search_space.parts import AdaptiveWindow, FullAttention, LocalGlobal, SpatialReduction
from supernet.blocks.global_attention import AdaptiveHeads, FullHeads, ReducedHeads
from supernet.blocks.local_attention import WindowHeads
from supernet.blocks.sharing import HeadGroup, MapRole

AttentionMaps = dict[str, Tensor]
"""The attention map of each head group, by the group's name."""


class LocalGlobalAttention(nn.Module):
    """Some heads look into windows, the others at the whole map (PLG-ViT, Shunted, and between).

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
        if mixer.global_heads:
            self.groups.update(_global_groups(mixer, width, dim, role))
        self.bias = nn.Parameter(torch.zeros(width))
        self.lends = role is not MapRole.OWN

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
        return total, maps if self.lends else None


def _global_groups(mixer: LocalGlobal, width: int, dim: int, role: MapRole) -> dict[str, HeadGroup]:
    """The global head groups by name; what cannot share weights has a name of its own."""
    split = mixer.global_split
    heads, dim = mixer.global_heads * split, dim // split
    match mixer.aggregation:
        case FullAttention(local_term=local_term, relative=relative):
            group: HeadGroup = FullHeads(
                width, heads, dim, role, local_term=local_term, relative=relative
            )
            return {"full": group}
        case AdaptiveWindow(window=window, sampling=sampling):
            group = AdaptiveHeads(
                width, heads, dim, role, window=window, average=sampling == "max_avg"
            )
            return {"adaptive": group}
        case SpatialReduction(rate=rate):
            group = ReducedHeads(width, heads, dim, role, rate=rate, shunted=False)
            return {f"reduction{rate}": group}
        case _:
            return {
                f"rate{rate}": ReducedHeads(width, heads * split, dim, role, rate=rate)
                for rate, heads in mixer.heads_per_rate.items()
            }
