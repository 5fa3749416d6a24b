"""What a stage can be made of: stems, poolings, mixers, feed-forwards.

Each is a small frozen model with a `kind`, so that a new idea is a new class beside the others and
a new member of one union.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator


class Spec(BaseModel):
    """Base of every spec: frozen, hashable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __eq__(self, other: object) -> bool:
        # Pydantic's, less what no spec has (extra fields, private attributes, type parameters):
        # caches of costs compare many.
        return type(self) is type(other) and self.__dict__ == other.__dict__


# --- stems -------------------------------------------------------------------------------------


class ConvStem(Spec):
    """Convolutional stem to stride 4 (Shunted Transformer, section 3.3).

    Conv 7×7 stride 2 → `extra_convs` × conv 3×3, each with batch norm and ReLU at `width` channels,
    then conv 2×2 stride 2 to the width of the first stage and a layer norm.
    """

    kind: Literal["conv"] = "conv"
    width: PositiveInt = 64
    extra_convs: int = Field(default=0, ge=0, le=4)


class PatchStem(Spec):
    """Non-overlapping patch embedding, conv p×p stride p (PVT, LIT: p = 4; DeiT: p = 16).

    `norm` adds the layer norm that PVT and LIT have behind it and DeiT has not.
    """

    kind: Literal["patch"] = "patch"
    patch_size: PositiveInt = 4
    norm: bool = True


class HalfStem(Spec):
    """Stem to stride 2 at `width` channels; the pooling of the first stage halves the map again.

    `convs` convolutions 3×3, the first of stride 2, each with GELU and batch norm. Where there are
    several, the first has half of the channels (PSLT, stem: three).
    """

    kind: Literal["half"] = "half"
    width: PositiveInt
    convs: int = Field(default=3, ge=1, le=4)

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.convs > 1 and self.width % 2:
            raise ValueError(f"width={self.width} is odd, but the first of several convs has half")
        return self


Stem = Annotated[ConvStem | PatchStem | HalfStem, Field(discriminator="kind")]


# --- poolings ----------------------------------------------------------------------------------

Pooling = Literal[
    "conv",
    "patch",
    "max_pool",
    "max_pool_1d",
    "deformable",
    "merging",
    "mv2_se",
    "fused_mbconv",
    "light",
]
"""How a stage's entry halves the map (⌈side / 2⌉). "Our own" is a definition of ours.

| kind | operator | from |
|---|---|---|
| `conv` | conv 3×3 stride 2, layer norm | Shunted |
| `patch` | conv 2×2 stride 2, layer norm | PVT |
| `max_pool` | conv 3×3, max-pool 3×3 stride 2 | PSViT 2D (our own) |
| `max_pool_1d` | the same along a sequence behind a class token | PSViT 1D (our own) |
| `deformable` | deformable conv 2×2 stride 2, norm, GELU | LIT, deformable token merging |
| `merging` | 2×2 tokens concatenated, layer norm, linear | PSLT |
| `mv2_se` | inverted residual 3×3 stride 2 with squeeze-and-excitation | PSLT |
| `fused_mbconv` | expanding conv 3×3 stride 2, squeeze-and-excitation, 1×1 | PLG (our own) |
| `light` | 1×1 stride 2, separable 3×3, squeeze-and-excitation | LW-PLG (our own) |
"""

ConvNormKind = Literal["batch", "layer"]
"""Norm of what works with convolutions (`deformable`, `mv2_se`, the ladder's feed-forward).

`batch` is the published one. Where subnets share weights it is `layer`: a running statistic would
depend on which subnets were trained last.
"""


# --- aggregations ------------------------------------------------------------------------------


class Rates(Spec):
    """Shunted attention: head groups that see keys and values reduced at different rates.

    The global heads are split over the rates, the first rates taking one more where they don't
    divide. Rate r reduces the map by a conv r×r stride r (Shunted Transformer, section 3.1).
    """

    kind: Literal["rates"] = "rates"
    rates: tuple[PositiveInt, ...] = Field(min_length=1)

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


class SpatialReduction(Spec):
    """All global heads see keys and values reduced by conv r×r stride r and layer norm (PVT)."""

    kind: Literal["reduction"] = "reduction"
    rate: PositiveInt

    @property
    def label(self) -> str:
        """Short name, such as `reduction-8`."""
        return f"reduction-{self.rate}"


class AdaptiveWindow(Spec):
    """PLG global attention: the map is pooled to one fixed window, attends, and is upsampled.

    (PLG-ViT, adaptive patch sampling; the light-weight variant samples with the maximum only.)
    """

    kind: Literal["adaptive"] = "adaptive"
    window: PositiveInt = 7
    sampling: Literal["max", "max_avg"] = "max"

    @property
    def label(self) -> str:
        """Short name, such as `adaptive-7-max`."""
        return f"adaptive-{self.window}-{self.sampling}"


class FullAttention(Spec):
    """Every token attends to every token.

    `local_term` adds a depthwise 3×3 of the values after attention, as in the last stage of the
    Shunted Transformer. `relative` is the side of the map that a table of relative position biases
    is made for (LIT-S: 14 and 7); on other maps the table is interpolated.
    """

    kind: Literal["full"] = "full"
    local_term: bool = True
    relative: PositiveInt | None = None

    @property
    def label(self) -> str:
        """Short name: `full`, or `full-plain` without the local term."""
        plain = "full" if self.local_term else "full-plain"
        return plain if self.relative is None else f"{plain}-relative-{self.relative}"


Aggregation = Annotated[
    Rates | SpatialReduction | AdaptiveWindow | FullAttention, Field(discriminator="kind")
]


# --- mixers ------------------------------------------------------------------------------------


class NoMixer(Spec):
    """No token mixing at all: the block is its feed-forward (LIT, stages 1 and 2)."""

    kind: Literal["none"] = "none"


class LocalGlobal(Spec):
    """Attention whose first `local_heads` heads look into windows and whose others look far.

    `local_heads = 0` with `Rates` is shunted attention, half of the heads with `AdaptiveWindow` is
    PLG's, all heads local is window attention; one block covers what lies between.

    Attributes:
        heads: Into how many heads the channels are split.
        local_heads: How many of them are local; their share is the local ratio (LW-PLG).
        window: Side of the local windows in tokens; it shrinks to smaller maps.
        aggregation: How the other heads see the whole map; it shrinks to smaller maps.
        global_split: Smaller heads that each global head is split into, so that the two parts have
            numbers of heads of their own (LW-PLG, decoupled heads).
    """

    kind: Literal["local_global"] = "local_global"
    heads: PositiveInt
    local_heads: int = Field(default=0, ge=0)
    window: PositiveInt = 7
    aggregation: Aggregation | None = None
    global_split: PositiveInt = 1

    @model_validator(mode="after")
    def _heads_suffice(self) -> Self:
        if self.local_heads > self.heads:
            raise ValueError(f"local_heads={self.local_heads} exceeds heads={self.heads}")
        if self.global_heads and self.aggregation is None:
            raise ValueError(
                f"aggregation is missing, but {self.global_heads} of the heads are global"
            )
        if isinstance(self.aggregation, Rates) and self.global_heads:
            rates = self.aggregation.rates
            if len(rates) > self.global_heads:
                raise ValueError(
                    f"aggregation.rates={list(rates)} needs {len(rates)} global heads, but "
                    f"heads - local_heads = {self.global_heads}"
                )
        return self

    @property
    def global_heads(self) -> int:
        """Number of heads that see the whole map, before they are split."""
        return self.heads - self.local_heads

    @property
    def heads_per_rate(self) -> dict[int, int]:
        """Heads of each rate, before they are split; empty unless the aggregation is by rates."""
        if not isinstance(self.aggregation, Rates):
            return {}
        rates = self.aggregation.rates
        share, rest = divmod(self.global_heads, len(rates))
        return {rate: share + (i < rest) for i, rate in enumerate(rates)}


LADDER_BRANCHES = 3


class Ladder(Spec):
    """PSLT's ladder block, a whole block with its own feed-forwards (PSLT, sections 3.1 and 3.2).

    Three branches of a third of the channels attend in windows, each shifted otherwise, and each
    handing its output to the next as values.

    Attributes:
        heads: Heads of each branch.
        window: Side of the windows in tokens; it shrinks to smaller maps.
    """

    kind: Literal["ladder"] = "ladder"
    heads: PositiveInt
    window: PositiveInt = 7


class InvertedResidual(Spec):
    """MV2-SE, a whole block without attention: MobileNetV2's with squeeze-and-excitation (PSLT)."""

    kind: Literal["mv2_se"] = "mv2_se"
    expansion: PositiveInt = 4


Mixer = Annotated[NoMixer | LocalGlobal | Ladder | InvertedResidual, Field(discriminator="kind")]

WHOLE_BLOCKS = (Ladder, InvertedResidual)
"""Mixers that are a block by themselves, with no feed-forward beside."""


# --- feed-forwards -----------------------------------------------------------------------------

FeedForwardKind = Literal["plain", "detail_specific", "ccf", "ccf_plus"]


class FeedForward(Spec):
    """The channel-mixing half of a block; `ratio` is hidden channels over width.

    | kind | operator | from |
    |---|---|---|
    | `plain` | linear, GELU, linear | |
    | `detail_specific` | adds a depthwise 3×3 of the hidden features before GELU | Shunted, 3.2 |
    | `ccf` | linear, norm, GELU, depthwise 3×3, norm, GELU, linear | PLG |
    | `ccf_plus` | hidden features beside their depthwise 3×3 with GRN, linear | LW-PLG |
    """

    kind: FeedForwardKind = "plain"
    ratio: float = Field(default=4.0, gt=0, le=64)
