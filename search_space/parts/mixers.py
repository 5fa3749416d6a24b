"""Mixers: how the tokens of a block exchange what they know.

A new one is a class here with its row in `MIXERS`, and a module with its row in
`supernet.blocks.block.MIXERS` or, if it is a whole block, `WHOLE_BLOCKS` there.
"""

from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal, Protocol, Self

from pydantic import Field, field_validator, model_validator

from search_space.bounds import Channels, Side
from search_space.operators import (
    Cost,
    MapRole,
    Size,
    attention_products,
    depthwise,
    inverted_residual,
    linear,
    norm,
    projections,
    window_grid,
)
from search_space.parts.aggregations import Aggregation
from search_space.parts.shown import ChannelGroup, Word, told
from search_space.parts.spec import KeyOf, OneOf, Spec, by_kind

LADDER_BRANCHES = 3

_SHARED = "One attention map for so many blocks: the first computes it, the others reuse it (PSViT)"

_DIVISORS = range(1, 129)


class MixerConstants(Protocol):
    """The numbers that all mixers of a search space have in common.

    Attributes:
        head_dim: Channels of an attention head.
        ladder_head_dim: Channels of one head in a branch of a ladder.
        window: Side of windows and of depthwise kernels, in tokens.
    """

    @property
    def head_dim(self) -> int:
        """Channels of an attention head."""

    @property
    def ladder_head_dim(self) -> int:
        """Channels of one head in a branch of a ladder."""

    @property
    def window(self) -> int:
        """Side of windows and of depthwise kernels, in tokens."""


class MixerSpec(Spec):
    """What an architecture needs to know of a mixer.

    Attributes:
        kind: Its name.
        mixes: Whether there is anything to compute.
        is_whole_block: Whether it is a block by itself, with no feed-forward beside.
        shares_maps: Whether its layers can lend each other attention maps.
        has_conv_norm: Whether it has norms of the stage's `conv_norm`.
    """

    kind: str
    mixes: ClassVar[bool] = True
    is_whole_block: ClassVar[bool] = False
    shares_maps: ClassVar[bool] = False
    has_conv_norm: ClassVar[bool] = False

    @classmethod
    def chosen(
        cls, constants: MixerConstants, width: int, local_ratio: float, aggregation: Aggregation
    ) -> "MixerSpec":
        """The mixer that these genes of a stage describe; by default one without numbers.

        Args:
            constants: Of the search space.
            width: Channels of the stage.
            local_ratio: Share of the heads that are local, where there are heads.
            aggregation: How the other heads see the map.
        """
        return cls.model_validate({})

    @classmethod
    def fits(cls, constants: MixerConstants, width: int) -> bool:
        """Whether a stage of that width can have it; elsewhere its gene means local–global."""
        return True

    @classmethod
    def fitting_widths(cls, constants: MixerConstants) -> str:
        """The widths that it fits, for people."""
        return "any width"

    def check_width(self, width: int) -> None:
        """Check that it works on so many channels.

        Raises:
            ValueError: If not; with the legal values.
        """

    @property
    def suits_sequences(self) -> bool:
        """Whether it treats every token alike, so that tokens need not be a map."""
        return False

    def canonical(self) -> "MixerSpec":
        """The same mixer with every choice that has no effect set to one agreed value."""
        return self

    def unshared(self, width: int) -> str:
        """What stands in the names of weights that mixers of its kind share with few others.

        Networks of one space share the weights of one name, and fewer channels are the first of
        more. Where that would give a weight several meanings, it has several names.

        Args:
            width: Channels of the block.
        """
        return ""

    @property
    def largest_rate(self) -> int:
        """Side of the largest patch of the map that is seen as one; no map may be smaller."""
        return 0

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost, that of the norm before it left out unless it is a whole block.

        Args:
            width: Channels of the block.
            role: What the block does with attention maps.
            size: Of the map.
        """
        raise NotImplementedError

    def latency_group(self, role: MapRole) -> str:
        """What it is, whatever its numbers: what latencies of different sizes have in common."""
        return self.kind

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on beside the map and `conv_norm`."""
        raise NotImplementedError

    def words(self, sharing: int) -> list[Word]:
        """In a summary of a stage whose attention maps are shared by so many layers."""
        raise NotImplementedError

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """What a picture of a block of so many channels shows; by default one group."""
        text = " ".join(word.text for word in self.words(sharing=1))
        return (ChannelGroup(channels=width, text=text),)

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages: which heads are local, and what the global ones see."""
        raise NotImplementedError


class NoMixer(MixerSpec):
    """No token mixing at all: the block is its feed-forward (LIT, stages 1 and 2)."""

    kind: Literal["none"] = "none"
    mixes: ClassVar[bool] = False

    @property
    def suits_sequences(self) -> bool:
        """Always."""
        return True

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Nothing."""
        return Cost()

    def label(self, width: int, role: MapRole) -> str:
        """Nothing to time."""
        return ""

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        return [Word("no mixer", told(NoMixer))]

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """None."""
        return ()

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        return "none", "–"


class LocalGlobalHeads(MixerSpec):
    """Heads of which the first `local_heads` look into windows and the others look far.

    Attributes:
        heads: Into how many heads the channels are split.
        local_heads: How many of them are local; their share is the local ratio (LW-PLG).
        window: Side of the local windows in tokens; it shrinks to smaller maps.
        aggregation: How the other heads see the whole map; it shrinks to smaller maps.
        global_split: Smaller heads that each global head is split into, so that the two parts have
            numbers of heads of their own (LW-PLG, decoupled heads).
    """

    heads: Channels
    local_heads: int = Field(default=0, ge=0)
    window: Side = 7
    aggregation: Aggregation | None = None
    global_split: Channels = 1
    shares_maps: ClassVar[bool] = True

    @model_validator(mode="after")
    def _heads_suffice(self) -> Self:
        if self.local_heads > self.heads:
            raise ValueError(f"local_heads={self.local_heads} exceeds heads={self.heads}")
        if self.global_heads:
            if self.aggregation is None:
                raise ValueError(
                    f"aggregation is missing, but {self.global_heads} of the heads are global"
                )
            self.aggregation.check_heads(self.global_heads)
        return self

    @property
    def global_heads(self) -> int:
        """Number of heads that see the whole map, before they are split."""
        return self.heads - self.local_heads

    @classmethod
    def chosen(
        cls, constants: MixerConstants, width: int, local_ratio: float, aggregation: Aggregation
    ) -> MixerSpec:
        """The mixer that genes describe; see `MixerSpec.chosen`."""
        heads = width // constants.head_dim
        local_heads = int(heads * local_ratio)
        seen = aggregation.for_heads(heads - local_heads) if local_heads < heads else None
        return cls.model_validate(
            {
                "heads": heads,
                "local_heads": local_heads,
                "window": constants.window,
                "aggregation": seen,
            }
        )

    def check_width(self, width: int) -> None:
        """Check that the heads divide the channels; see `MixerSpec.check_width`."""
        if width % self.heads:
            legal = [heads for heads in _DIVISORS if width % heads == 0]
            raise ValueError(
                f"mixer.heads={self.heads} does not divide width={width}; legal: "
                f"{', '.join(map(str, legal))}"
            )
        dim = width // self.heads
        if self.global_heads and dim % self.global_split:
            legal = [split for split in _DIVISORS if dim % split == 0]
            raise ValueError(
                f"mixer.global_split={self.global_split} does not divide the {dim} channels of a "
                f"head; legal: {', '.join(map(str, legal))}"
            )

    @property
    def suits_sequences(self) -> bool:
        """Where no head is local, and the others ask for no place on a map."""
        return not self.local_heads and (
            self.aggregation is not None and self.aggregation.suits_sequences
        )

    @property
    def largest_rate(self) -> int:
        """Of the aggregation; see `MixerSpec.largest_rate`."""
        return self.aggregation.largest_rate if self.aggregation else 0

    def latency_group(self, role: MapRole) -> str:
        """What it is; see `MixerSpec.latency_group`."""
        parts = ["local"] if self.local_heads else []
        parts += [self.aggregation.kind] if self.aggregation is not None else []
        return " ".join([*parts, role])

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on; see `MixerSpec.label`."""
        parts = [f"{width} heads {self.heads}"]
        if self.local_heads:
            parts.append(f"local {self.local_heads} window {self.window}")
        if self.aggregation is not None:
            parts.append(self.aggregation.label)
        if self.global_split > 1:
            parts.append(f"split {self.global_split}")
        return " ".join([*parts, role])

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        words = []
        if self.local_heads:
            seen = f"So many of the heads attend in windows of {self.window}×{self.window} tokens"
            words.append(Word(f"local {self.local_heads}/{self.heads}", seen))
        if self.aggregation and self.global_heads:
            words.append(self.aggregation.word)
        if self.global_split > 1:
            split = "Each global head is split into so many smaller ones (LW-PLG)"
            words.append(Word(f"split by {self.global_split}", split))
        if sharing > 1:
            words.append(Word(f"shared by {sharing}", _SHARED))
        return words

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """The local heads, and the global ones as their aggregation has them."""
        dim, side = width // self.heads, self.window
        groups: tuple[ChannelGroup, ...] = ()
        if self.local_heads:
            local = ChannelGroup(
                channels=dim * self.local_heads,
                text=f"{self.local_heads} heads in windows of {side}×{side} tokens",
                sight="windows",
                heads=self.local_heads,
                mark=f"{side}",
            )
            groups = (local,)
        if self.aggregation and self.global_heads:
            groups += self.aggregation.groups(self.global_heads, dim, self.global_split)
        return groups

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        seen = self.aggregation.label if self.aggregation else "–"
        return f"{self.local_heads} of {self.heads}", seen


class LocalGlobal(LocalGlobalHeads):
    """Local and global heads side by side, each of which sees all channels.

    `local_heads = 0` with `Rates` is shunted attention, all heads local is window attention; one
    block covers what lies between. It is the union of the Shunted Transformer and PLG-ViT; what
    PLG-ViT does itself is `SplitLocalGlobal`.
    """

    kind: Literal["local_global"] = "local_global"

    def canonical(self) -> MixerSpec:
        """The same mixer without what no head uses; see `MixerSpec.canonical`."""
        fields = type(self).model_fields
        unused: dict[str, Any] = {}
        if self.global_heads == 0:
            unused |= {"aggregation": None, "global_split": fields["global_split"].default}
        if self.local_heads == 0:
            unused["window"] = fields["window"].default
        return self.model_copy(update=unused) if unused else self

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `MixerSpec.cost`."""
        dim, tokens = width // self.heads, size[0] * size[1]
        cost = Cost(params=width)  # bias of the output projection, one for all groups
        if heads := self.local_heads:
            (rows, high), (columns, wide) = (window_grid(side, self.window) for side in size)
            cost += projections(width, heads * dim, tokens, tokens, role)
            cost += attention_products(
                heads, dim, high * wide, high * wide, role, sets=rows * columns
            )
        if self.global_heads and self.aggregation is not None:
            cost += self.aggregation.cost(
                width, self.global_heads, dim, self.global_split, role, size
            )
        return cost


class SplitLocalGlobal(LocalGlobalHeads):
    """PLG attention: the channels are split, and each part sees its own alone (PLG-ViT).

    The first channels go to the local heads, the rest to the global ones. Each part is attention by
    itself, with queries, keys, values and output of its own channels only, which is where PLG-ViT
    saves; what the two give is concatenated. (That each part has an output projection is our own
    reading: the paper's text could not be had.)
    """

    kind: Literal["split_local_global"] = "split_local_global"

    @classmethod
    def fits(cls, constants: MixerConstants, width: int) -> bool:
        """Whether there are two heads that can be of two kinds."""
        return width >= 2 * constants.head_dim

    @classmethod
    def fitting_widths(cls, constants: MixerConstants) -> str:
        """The widths that it fits, for people."""
        return f"at least 2 * head_dim = {2 * constants.head_dim}"

    @property
    def is_split(self) -> bool:
        """Whether there are heads of both kinds."""
        return 0 < self.local_heads < self.heads

    def canonical(self) -> MixerSpec:
        """The same mixer; where there is nothing to split, the one whose heads see all channels."""
        if self.is_split:
            return self
        return LocalGlobal(**self.model_dump(exclude={"kind"})).canonical()

    def parts(self, width: int) -> tuple[tuple[int, LocalGlobal], tuple[int, LocalGlobal]]:
        """Channels of the local and of the global part, and what is done with them."""
        start = self.start(width)
        local = LocalGlobal(
            heads=self.local_heads, local_heads=self.local_heads, window=self.window
        )
        seen = LocalGlobal(
            heads=self.global_heads, aggregation=self.aggregation, global_split=self.global_split
        )
        return (start, local), (width - start, seen)

    def start(self, width: int) -> int:
        """The first channel of the global part."""
        return width // self.heads * self.local_heads

    def unshared(self, width: int) -> str:
        """Where the global part starts, and how it sees the map; see `MixerSpec.unshared`.

        Its weights belong to the channels behind the local ones: others where those are more.
        """
        seen = self.aggregation.label if self.aggregation is not None else ""
        return f"{self.start(width)} {seen}" if self.is_split else ""

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `MixerSpec.cost`."""
        if not self.is_split:
            return self.canonical().cost(width, role, size)
        cost = Cost()
        for channels, part in self.parts(width):
            cost += part.cost(channels, role, size)
        return cost

    def latency_group(self, role: MapRole) -> str:
        """What it is; see `MixerSpec.latency_group`."""
        return f"split {super().latency_group(role)}"

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on; see `MixerSpec.label`."""
        return f"channels split {super().label(width, role)}"

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        return [Word("channels split", told(SplitLocalGlobal)), *super().words(sharing)]

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """The same, each of its own channels alone."""
        return tuple(replace(group, alone=True) for group in super().groups(width))

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        local, seen = super().table_cells
        return f"{local}, split", seen


class DepthwiseConvolution(MixerSpec):
    """A depthwise convolution in the place of local attention.

    1×1, norm, ReLU, depthwise k×k, norm, ReLU, 1×1, norm (Han et al., 2021, "Demystifying local
    vision transformer", section 3.3, DWNet): attention in windows whose weights don't depend on the
    image, on a par with it at lower cost.

    Attributes:
        kernel_size: Side of the kernel in tokens, odd.
    """

    kind: Literal["depthwise"] = "depthwise"
    kernel_size: Side = 7
    has_conv_norm: ClassVar[bool] = True

    @field_validator("kernel_size")
    @classmethod
    def _is_odd(cls, kernel_size: int) -> int:
        if kernel_size % 2 == 0:
            raise ValueError(f"{kernel_size} is even: a kernel has a token in its middle")
        return kernel_size

    @classmethod
    def chosen(
        cls, constants: MixerConstants, width: int, local_ratio: float, aggregation: Aggregation
    ) -> MixerSpec:
        """The mixer that genes describe: its kernel is as large as a window, or a token larger."""
        return cls(kernel_size=constants.window | 1)

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `MixerSpec.cost`."""
        tokens = size[0] * size[1]
        pointwise = linear(width, width, tokens, bias=False) + norm(width)
        mixed = depthwise(width, tokens, tokens, taps=self.kernel_size**2, bias=False)
        return pointwise * 2 + mixed + norm(width)

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on; see `MixerSpec.label`."""
        return f"depthwise {width} kernel {self.kernel_size}"

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        side = self.kernel_size
        return [Word(f"depthwise {side}x{side}", told(DepthwiseConvolution))]

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """All channels see what lies under the kernel."""
        (word,), mark = self.words(sharing=1), f"{self.kernel_size}"
        return (ChannelGroup(channels=width, text=word.text, sight="neighbours", mark=mark),)

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        return f"depthwise {self.kernel_size}×{self.kernel_size}", "–"


class Ladder(MixerSpec):
    """PSLT's block: three branches attend in windows, each handing what it gives to the next.

    It is taken there as values. A branch has a third of the channels, windows that are shifted
    otherwise, and a feed-forward of its own (PSLT, sections 3.1 and 3.2).

    Attributes:
        heads: Heads of each branch.
        window: Side of the windows in tokens; it shrinks to smaller maps.
    """

    kind: Literal["ladder"] = "ladder"
    heads: Channels
    window: Side = 7
    is_whole_block: ClassVar[bool] = True
    has_conv_norm: ClassVar[bool] = True

    @classmethod
    def chosen(
        cls, constants: MixerConstants, width: int, local_ratio: float, aggregation: Aggregation
    ) -> MixerSpec:
        """The mixer that genes describe; see `MixerSpec.chosen`."""
        heads = width // (LADDER_BRANCHES * constants.ladder_head_dim)
        return cls(heads=heads, window=constants.window)

    @classmethod
    def fits(cls, constants: MixerConstants, width: int) -> bool:
        """Whether the branches and their heads divide the width."""
        return width % (LADDER_BRANCHES * constants.ladder_head_dim) == 0

    @classmethod
    def fitting_widths(cls, constants: MixerConstants) -> str:
        """The widths that it fits, for people."""
        dim = constants.ladder_head_dim
        return f"a multiple of {LADDER_BRANCHES} * ladder_head_dim = {LADDER_BRANCHES * dim}"

    def check_width(self, width: int) -> None:
        """Check that branches and heads divide the channels; see `MixerSpec.check_width`."""
        if width % (LADDER_BRANCHES * self.heads):
            legal = [n for n in _DIVISORS if width % (LADDER_BRANCHES * n) == 0]
            legal_heads = ", ".join(map(str, legal)) or "none, the width is no multiple of 3"
            raise ValueError(
                f"mixer.heads={self.heads} in each of {LADDER_BRANCHES} branches does not divide "
                f"width={width}; legal: {legal_heads}"
            )

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost: three branches of attention and light feed-forward, fusion, linear."""
        tokens, channels = size[0] * size[1], width // LADDER_BRANCHES
        (rows, high), (columns, wide) = (window_grid(side, self.window) for side in size)
        layer = linear(channels, channels, tokens)
        branch = layer * 3  # queries, keys, output
        branch += attention_products(
            self.heads, channels // self.heads, high * wide, high * wide, "own", sets=rows * columns
        )
        branch += Cost(params=(2 * self.window - 1) ** 2 * self.heads)
        branch += layer * 2 + depthwise(channels, tokens, tokens)  # light feed-forward
        branch += norm(channels) * 5
        cost = branch * LADDER_BRANCHES + layer  # the first branch has values
        cost += linear(width, width // 2, tokens) + linear(width // 2, width, tokens)
        return cost + linear(width, width, tokens)

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on; see `MixerSpec.label`."""
        return f"ladder {width} heads {self.heads} window {self.window}"

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        return [Word(f"ladder of {self.heads} heads", told(Ladder))]

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """The branches, each of which reads what the one before gives."""
        return tuple(
            ChannelGroup(
                channels=width // LADDER_BRANCHES,
                text=f"branch {branch + 1}: {self.heads} heads in windows, "
                f"{self.window}×{self.window} tokens",
                sight="windows",
                heads=self.heads,
                mark=f"{self.window}",
                alone=True,
                reads_previous=branch > 0,
            )
            for branch in range(LADDER_BRANCHES)
        )

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        return "ladder", "–"


class InvertedResidual(MixerSpec):
    """MV2-SE, a whole block without attention: MobileNetV2's with squeeze-and-excitation (PSLT)."""

    kind: Literal["mv2_se"] = "mv2_se"
    expansion: int = Field(default=4, ge=1, le=64)
    is_whole_block: ClassVar[bool] = True
    has_conv_norm: ClassVar[bool] = True

    def cost(self, width: int, role: MapRole, size: Size) -> Cost:
        """Closed-form cost; see `MixerSpec.cost`."""
        tokens = size[0] * size[1]
        return inverted_residual(width, width, self.expansion, tokens, tokens)

    def label(self, width: int, role: MapRole) -> str:
        """All that its latency depends on; see `MixerSpec.label`."""
        return f"mv2-se {width} expansion {self.expansion}"

    def words(self, sharing: int) -> list[Word]:
        """In a summary; see `MixerSpec.words`."""
        return [Word(f"mv2-se {self.expansion}", told(InvertedResidual))]

    def groups(self, width: int) -> tuple[ChannelGroup, ...]:
        """All channels see what lies under a kernel of 3×3."""
        (word,) = self.words(sharing=1)
        return (ChannelGroup(channels=width, text=word.text, sight="neighbours", mark="3"),)

    @property
    def table_cells(self) -> tuple[str, str]:
        """In a table of stages; see `MixerSpec.table_cells`."""
        return "MV2-SE", "–"


MIXERS: dict[str, type[MixerSpec]] = by_kind(
    NoMixer, LocalGlobal, SplitLocalGlobal, DepthwiseConvolution, Ladder, InvertedResidual
)
"""Every mixer by its kind."""

Mixer = Annotated[MixerSpec, OneOf(MIXERS)]
"""Any mixer, told by its `kind` where it is read."""

MixerKind = Annotated[str, KeyOf(MIXERS)]
"""The kind of a mixer."""
