"""Attention sharing: one attention map for several layers (PSViT).

In a run of layers that share, the first computes A = softmax(QKᵀ/√d) and lends it; the others have
no queries and keys and apply A to values of their own. The map is materialised only where it is
lent, or where that is faster. (The paper's text could not be had: this is our own definition of its
idea.)
"""

from torch import Tensor, nn

from search_space.operators import MapRole
from supernet.blocks import fast_paths
from supernet.blocks.layers import MapLinear


class GroupProjection(nn.Linear):
    """One group's part of the output projection, to which the layer may add its one bias."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, width, bias=False)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """(..., channels) and a bias (width) → (..., width)."""
        return fast_paths.linear(x, self.weight, bias)


class HeadGroup(nn.Module):
    """Attention heads that see the same keys, with their own projections.

    A group's queries, keys and values are separate projections of all C channels, and its part of
    the output projection is its own: a group of fewer heads is then a prefix of a group of more.

    Every attention map (G, h, N, M), borrowed ones too, goes through `attn_drop`, where hooks can
    see it; timm calls it so in its models, where it drops some. An unhooked one may be left out.

    Subclasses say which tokens attend to which.
    """

    def __init__(self, width: int, heads: int, head_dim: int, role: MapRole) -> None:
        super().__init__()
        self.heads, self.role = heads, role
        channels = heads * head_dim
        if role != "borrow":
            self.q = MapLinear(width, channels)
            self.k = MapLinear(width, channels)
        self.v = MapLinear(width, channels)
        self.attn_drop = nn.Identity()
        self.proj = GroupProjection(channels, width)

    def attend(
        self,
        queries: Tensor,
        keys: Tensor,
        values: Tensor,
        borrowed: Tensor | None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention within each of G independent sets of tokens.

        Args:
            queries: (G, N, h·d), or anything when the map is borrowed.
            keys: (G, M, h·d), or anything when the map is borrowed.
            values: (G, M, h·d).
            borrowed: The map (G, h, N, M) of an earlier layer, where this layer borrows.
            mask: Broadcastable to (G, h, N, M): boolean, False hides a key, or a bias that is added
                to the scores.

        Returns:
            The heads' outputs (G, N, h·d), and the map (G, h, N, M) where this layer lends it.
        """
        v = self._split(values)
        if self.role == "borrow":
            assert borrowed is not None
            return self._merge(self.attn_drop(borrowed) @ v), borrowed
        q, k = self._split(queries), self._split(keys)
        if self.role == "own":
            return self._merge(fast_paths.attention(q, k, v, mask, shown=self.attn_drop)), None
        attention = self.attn_drop(fast_paths.attention_map(q, k, mask))
        return self._merge(attention @ v), attention

    def _split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (G, N, h·d) → (G, h, N, d)

    def _merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)  # (G, h, N, d) → (G, N, h·d)
