"""Stems: from an image to the map of the first stage.

A new one is a class here with its row in `STEMS`, and a module with its row in
`supernet.blocks.stems.STEMS`.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from search_space.bounds import Channels, Side
from search_space.operators import Cost, Size, conv, norm
from search_space.parts.shown import Word, told
from search_space.parts.spec import OneOf, Spec, by_kind


class StemSpec(Spec):
    """What an architecture needs to know of a stem; a subclass has a `kind`.

    Attributes:
        kind: The stem's name.
        pools_first: Whether the first stage has a pooling of its own, which finds a map of the
            width `width_of`; otherwise the stem does it all.
    """

    kind: str
    pools_first: ClassVar[bool] = False

    def size(self, height: int, width: int) -> Size:
        """Height and width in tokens of its map, of those of the image in pixels."""
        raise NotImplementedError

    @property
    def stride(self) -> int:
        """Pixels along one side of a token of the first stage, its pooling included."""
        raise NotImplementedError

    def width_of(self, first: int) -> int:
        """Channels of its map, before a first stage of that width."""
        return first

    def label(self, width: int) -> str:
        """All that its latency depends on, up to the first stage of that width."""
        raise NotImplementedError

    def word(self, width: int) -> Word:
        """In a picture, up to the first stage of that width."""
        return Word(f"stem {self.label(width)}", told(type(self)))

    def cost(self, width: int, pixels: Size, in_chans: int) -> Cost:
        """Closed-form cost.

        Args:
            width: Channels of the first stage.
            pixels: Height and width of the image.
            in_chans: Channels of the image.
        """
        raise NotImplementedError


class ConvStem(StemSpec):
    """Convolutional stem to stride 4 (Shunted Transformer, section 3.3).

    Conv 7×7 stride 2 → `extra_convs` × conv 3×3, each with batch norm and ReLU at `width` channels,
    then conv 2×2 stride 2 to the width of the first stage and a layer norm.
    """

    kind: Literal["conv"] = "conv"
    width: Channels = 64
    extra_convs: int = Field(default=0, ge=0, le=4)

    def size(self, height: int, width: int) -> Size:
        """Height and width in tokens of its map; see `StemSpec.size`."""
        return -(-height // 2) // 2, -(-width // 2) // 2

    @property
    def stride(self) -> int:
        """Pixels along one side of a token; see `StemSpec.stride`."""
        return 4

    def label(self, width: int) -> str:
        """All that its latency depends on; see `StemSpec.label`."""
        return f"conv {self.width} extra {self.extra_convs} to {width}"

    def cost(self, width: int, pixels: Size, in_chans: int) -> Cost:
        """Closed-form cost; see `StemSpec.cost`."""
        full, half = pixels[0] * pixels[1], _half(pixels)
        rows, columns = self.size(*pixels)
        cost = conv(in_chans, self.width, 7**2, full, half, bias=False) + norm(self.width)
        for _ in range(self.extra_convs):
            cost += conv(self.width, self.width, 3**2, half, half, bias=False) + norm(self.width)
        return cost + conv(self.width, width, 2**2, half, rows * columns) + norm(width)


class PatchStem(StemSpec):
    """Non-overlapping patch embedding, conv p×p stride p (PVT, LIT: p = 4; DeiT: p = 16).

    `norm` adds the layer norm that PVT and LIT have behind it and DeiT has not.
    """

    kind: Literal["patch"] = "patch"
    patch_size: Side = 4
    norm: bool = True

    def size(self, height: int, width: int) -> Size:
        """Height and width in tokens of its map; see `StemSpec.size`."""
        return height // self.patch_size, width // self.patch_size

    @property
    def stride(self) -> int:
        """Pixels along one side of a token; see `StemSpec.stride`."""
        return self.patch_size

    def label(self, width: int) -> str:
        """All that its latency depends on; see `StemSpec.label`."""
        return f"patch {self.patch_size} to {width}{' norm' if self.norm else ''}"

    def cost(self, width: int, pixels: Size, in_chans: int) -> Cost:
        """Closed-form cost; see `StemSpec.cost`."""
        rows, columns = self.size(*pixels)
        seen = pixels[0] * pixels[1]
        cost = conv(in_chans, width, self.patch_size**2, seen, rows * columns)
        return cost + norm(width) if self.norm else cost


class HalfStem(StemSpec):
    """Stem to stride 2; the pooling of the first stage halves the map again.

    It has `width` channels, of `convs` convolutions 3×3, the first of stride 2, each with GELU and
    batch norm. Where there are several, the first has half of the channels (PSLT, stem: three).
    """

    kind: Literal["half"] = "half"
    width: Channels
    convs: int = Field(default=3, ge=1, le=4)
    pools_first: ClassVar[bool] = True

    @model_validator(mode="after")
    def _halves(self) -> Self:
        if self.convs > 1 and self.width % 2:
            raise ValueError(f"width={self.width} is odd, but the first of several convs has half")
        return self

    def size(self, height: int, width: int) -> Size:
        """Height and width in tokens of its map; see `StemSpec.size`."""
        return -(-height // 2), -(-width // 2)

    @property
    def stride(self) -> int:
        """Pixels along one side of a token; see `StemSpec.stride`."""
        return 4

    def width_of(self, first: int) -> int:
        """Channels of its map, whatever the first stage has."""
        return self.width

    def label(self, width: int) -> str:
        """All that its latency depends on; see `StemSpec.label`."""
        return f"half {self.width} convs {self.convs}"

    def cost(self, width: int, pixels: Size, in_chans: int) -> Cost:
        """Closed-form cost; see `StemSpec.cost`."""
        cost, channels, seen = Cost(), in_chans, pixels[0] * pixels[1]
        for index in range(self.convs):
            outputs = self.width // 2 if index == 0 < self.convs - 1 else self.width
            cost += conv(channels, outputs, 3**2, seen, _half(pixels), bias=False) + norm(outputs)
            channels, seen = outputs, _half(pixels)
        return cost


STEMS: dict[str, type[StemSpec]] = by_kind(ConvStem, PatchStem, HalfStem)
"""Every stem by its kind."""

Stem = Annotated[StemSpec, OneOf(STEMS)]
"""Any stem, told by its `kind` where it is read."""


def _half(pixels: Size) -> int:
    """Positions of a convolution of stride 2."""
    return -(-pixels[0] // 2) * -(-pixels[1] // 2)
