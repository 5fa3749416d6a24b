"""Aggregations: how the global heads of local–global attention see the whole map.

A new one is a class here with its row in `AGGREGATIONS`, and a module with its row in
`supernet.blocks.local_global.AGGREGATIONS`.
"""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from search_space.bounds import MOST_CHOICES, Side
from search_space.operators import (
    Cost,
    MapRole,
    Size,
    attention_products,
    conv,
    depthwise,
    norm,
    projections,
)
from search_space.parts.shown import ChannelGroup, Word, told
from search_space.parts.spec import OneOf, Spec, by_kind


class AggregationSpec(Spec):
    """What an architecture needs to know of an aggregation.

    Attributes:
        kind: Its name.
    """

    kind: str

    @property
    def suits_sequences(self) -> bool:
        """Whether it treats every token alike, so that tokens need not be a map."""
        return False

    @property
    def label(self) -> str:
        """Short name that holds all its numbers, such as `rates-8-4`."""
        raise NotImplementedError

    @property
    def word(self) -> Word:
        """In a summary."""
        return Word(self.label, told(type(self)))

    def groups(self, heads: int, dim: int, split: int) -> tuple[ChannelGroup, ...]:
        """What a picture shows of the global heads, by default one group; see `cost`."""
        text = f"{heads * split} heads, {self.label}"
        return (ChannelGroup(channels=heads * dim, text=text, heads=heads * split),)

    @property
    def largest_rate(self) -> int:
        """Side of the largest patch of the map that is seen as one; no map may be smaller."""
        return 0

    def check_heads(self, heads: int) -> None:
        """Check that so many global heads suffice.

        Raises:
            ValueError: If not.
        """

    def for_heads(self, heads: int) -> "Aggregation":
        """The same aggregation, less what so few global heads have no use for."""
        return self

    def cost(self, width: int, heads: int, dim: int, split: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost of the global heads, that of the bias of their projection left out.

        Args:
            width: Channels of the block.
            heads: Global heads, before they are split.
            dim: Channels of each.
            split: Smaller heads that each is split into.
            role: What the block does with attention maps.
            size: Of the map.
        """
        raise NotImplementedError


class Rates(AggregationSpec):
    """Shunted attention: groups of global heads see keys and values reduced by rates of their own.

    The global heads are split over the rates, the first rates taking one more where they don't
    divide. Rate r reduces the map by a conv r×r stride r (Shunted Transformer, section 3.1).
    """

    kind: Literal["rates"] = "rates"
    rates: tuple[Side, ...] = Field(min_length=1, max_length=MOST_CHOICES)

    @field_validator("rates")
    @classmethod
    def _strictly_decreasing(cls, rates: tuple[int, ...]) -> tuple[int, ...]:
        if list(rates) != sorted(set(rates), reverse=True):
            raise ValueError(f"{list(rates)} is not strictly decreasing, such as [8, 4]")
        return rates

    @property
    def label(self) -> str:
        """Short name, such as `rates-8-4`."""
        return "-".join(["rates", *map(str, self.rates)])

    @property
    def largest_rate(self) -> int:
        """The first of the rates."""
        return self.rates[0]

    def check_heads(self, heads: int) -> None:
        """Check that each rate has a head.

        Raises:
            ValueError: If not.
        """
        if len(self.rates) > heads:
            raise ValueError(
                f"aggregation.rates={list(self.rates)} needs {len(self.rates)} global heads, but "
                f"heads - local_heads = {heads}"
            )

    def for_heads(self, heads: int) -> "Aggregation":
        """The first, coarsest rates, one for each head at most."""
        return Rates(rates=self.rates[:heads])

    def groups(self, heads: int, dim: int, split: int) -> tuple[ChannelGroup, ...]:
        """A group for each rate."""
        return tuple(
            _reduced_group(some, dim, split, rate)
            for rate, some in self.heads_per_rate(heads).items()
        )

    def heads_per_rate(self, heads: int) -> dict[int, int]:
        """How many of the heads see each rate."""
        share, rest = divmod(heads, len(self.rates))
        return {rate: share + (i < rest) for i, rate in enumerate(self.rates)}

    def cost(self, width: int, heads: int, dim: int, split: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `AggregationSpec.cost`. Values are mixed by a depthwise 3×3."""
        cost = Cost()
        for rate, some in self.heads_per_rate(heads).items():
            cost += _reduced_heads(width, some, dim, split, role, size, rate)
            reduced = _reduced(size, rate)
            cost += depthwise(some * dim, reduced, reduced)
        return cost


class SpatialReduction(AggregationSpec):
    """All global heads see keys and values reduced by conv r×r stride r and layer norm (PVT)."""

    kind: Literal["reduction"] = "reduction"
    rate: Side

    @property
    def label(self) -> str:
        """Short name, such as `reduction-8`."""
        return f"reduction-{self.rate}"

    @property
    def largest_rate(self) -> int:
        """The rate."""
        return self.rate

    def groups(self, heads: int, dim: int, split: int) -> tuple[ChannelGroup, ...]:
        """All heads see the reduced map."""
        return (_reduced_group(heads, dim, split, self.rate),)

    def cost(self, width: int, heads: int, dim: int, split: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `AggregationSpec.cost`."""
        return _reduced_heads(width, heads, dim, split, role, size, self.rate)


class AdaptiveWindow(AggregationSpec):
    """PLG global attention: the map is pooled to one fixed window, attends, and is upsampled.

    (PLG-ViT, adaptive patch sampling; the light-weight variant samples with the maximum only.)
    """

    kind: Literal["adaptive"] = "adaptive"
    window: Side = 7
    sampling: Literal["max", "max_avg"] = "max"

    @property
    def label(self) -> str:
        """Short name, such as `adaptive-7-max`."""
        return f"adaptive-{self.window}-{self.sampling}"

    def groups(self, heads: int, dim: int, split: int) -> tuple[ChannelGroup, ...]:
        """All heads see the sampled map."""
        side = self.window
        text = f"{heads * split} heads on the map sampled to {side}×{side} tokens"
        group = ChannelGroup(
            channels=heads * dim,
            text=text,
            sight="sampled map",
            heads=heads * split,
            mark=f"{side}",
        )
        return (group,)

    def cost(self, width: int, heads: int, dim: int, split: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `AggregationSpec.cost`."""
        sampled = min(self.window, size[0]) * min(self.window, size[1])
        cost = projections(width, heads * dim, sampled, sampled, role)
        return cost + attention_products(heads * split, dim // split, sampled, sampled, role)


class FullAttention(AggregationSpec):
    """Every token attends to every token.

    `local_term` adds a depthwise 3×3 of the values after attention, as in the last stage of the
    Shunted Transformer. `relative` is the side of the map that a table of relative position biases
    is made for (LIT-S: 14 and 7); on other maps the table is interpolated.
    """

    kind: Literal["full"] = "full"
    local_term: bool = True
    relative: Side | None = None

    @property
    def label(self) -> str:
        """Short name: `full`, or `full-plain` without the local term."""
        plain = "full" if self.local_term else "full-plain"
        return plain if self.relative is None else f"{plain}-relative-{self.relative}"

    @property
    def word(self) -> Word:
        """In a summary, with what is added."""
        added = "; a depthwise 3×3 of the values is added" if self.local_term else ""
        if self.relative is not None:
            added += "; relative positions bias the scores"
        return Word(self.label, told(FullAttention) + added)

    def groups(self, heads: int, dim: int, split: int) -> tuple[ChannelGroup, ...]:
        """All heads see the whole map."""
        text = f"{heads * split} heads on the whole map"
        group = ChannelGroup(
            channels=heads * dim, text=text, sight="whole map", heads=heads * split
        )
        return (group,)

    @property
    def suits_sequences(self) -> bool:
        """Whether it asks for no place on a map."""
        return not self.local_term and self.relative is None

    def cost(self, width: int, heads: int, dim: int, split: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `AggregationSpec.cost`."""
        tokens, cost = size[0] * size[1], Cost()
        if self.relative is not None and role != "borrow":
            cost += Cost(params=(2 * self.relative - 1) ** 2 * heads * split)
        cost += projections(width, heads * dim, tokens, tokens, role)
        cost += attention_products(heads * split, dim // split, tokens, tokens, role)
        if self.local_term:
            cost += depthwise(heads * dim, tokens, tokens)
        return cost


AGGREGATIONS: dict[str, type[AggregationSpec]] = by_kind(
    Rates, SpatialReduction, AdaptiveWindow, FullAttention
)
"""Every aggregation by its kind."""

Aggregation = Annotated[AggregationSpec, OneOf(AGGREGATIONS)]
"""Any aggregation, told by its `kind` where it is read."""


def _reduced_group(heads: int, dim: int, split: int, rate: int) -> ChannelGroup:
    """Heads that see the map reduced by a rate."""
    return ChannelGroup(
        channels=heads * dim,
        text=f"{heads * split} heads on the map reduced by {rate}",
        sight="reduced map",
        heads=heads * split,
        mark=f"{rate}",
    )


def _reduced(size: Size, rate: int) -> int:
    """Tokens of a map that is reduced by a rate."""
    return -(-size[0] // rate) * -(-size[1] // rate)


def _reduced_heads(
    width: int, heads: int, dim: int, split: int, role: MapRole, size: Size, rate: int
) -> Cost:
    """Heads whose keys and values are reduced by a conv r×r stride r and a norm."""
    tokens, reduced = size[0] * size[1], _reduced(size, rate)
    cost = conv(width, width, rate**2, reduced * rate**2, reduced) + norm(width)
    cost += projections(width, heads * dim, tokens, reduced, role)
    return cost + attention_products(heads * split, dim // split, tokens, reduced, role)
