"""What can be built: the architecture spec.

An `Architecture` is data. It says which network to build and nothing about how: no torch here.
Each part of it is a small frozen model with a `kind`, so that a new idea is a new class beside the
others and a new member of one union.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)


class ArchitectureError(ValueError):
    """An architecture that cannot be built; the message is one line and names the field."""


class Spec(BaseModel):
    """Base of every spec: frozen, hashable, and strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ConvStem(Spec):
    """Convolutional stem to stride 4 (Shunted Transformer, section 3.3).

    Conv 7×7 stride 2 → `extra_convs` × conv 3×3, each with batch norm and ReLU at `width` channels,
    then conv 2×2 stride 2 to the width of the first stage and a layer norm.
    """

    kind: Literal["conv"] = "conv"
    width: PositiveInt = 64
    extra_convs: int = Field(default=0, ge=0, le=4)


class PatchStem(Spec):
    """Non-overlapping patch embedding, conv p×p stride p, and a layer norm (PVT, LIT: p = 4)."""

    kind: Literal["patch"] = "patch"
    patch_size: PositiveInt = 4


Stem = Annotated[ConvStem | PatchStem, Field(discriminator="kind")]


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
    """Every token attends to every token; `local_term` adds a depthwise 3×3 of the values.

    The local term after attention is that of the Shunted Transformer's last stage.
    """

    kind: Literal["full"] = "full"
    local_term: bool = True

    @property
    def label(self) -> str:
        """Short name: `full`, or `full-plain` without the local term."""
        return "full" if self.local_term else "full-plain"


Aggregation = Annotated[Rates | AdaptiveWindow | FullAttention, Field(discriminator="kind")]


class NoMixer(Spec):
    """No token mixing at all: the block is its feed-forward (LIT, stages 1 and 2)."""

    kind: Literal["none"] = "none"


class LocalGlobal(Spec):
    """Attention whose first `local_heads` heads look into windows and whose others look far.

    `local_heads = 0` with `Rates` is shunted attention, half of the heads with `AdaptiveWindow` is
    PLG's, all heads local is window attention; one block covers what lies between.

    `window` is the side of the local windows in tokens, `aggregation` how the remaining heads see
    the whole map. Both shrink to maps smaller than they are.
    """

    kind: Literal["local_global"] = "local_global"
    heads: PositiveInt
    local_heads: int = Field(default=0, ge=0)
    window: PositiveInt = 7
    aggregation: Aggregation | None = None

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
        """Number of heads that see the whole map."""
        return self.heads - self.local_heads

    @property
    def heads_per_rate(self) -> dict[int, int]:
        """Heads of each rate; empty unless the aggregation is by rates."""
        if not isinstance(self.aggregation, Rates):
            return {}
        rates = self.aggregation.rates
        share, rest = divmod(self.global_heads, len(rates))
        return {rate: share + (i < rest) for i, rate in enumerate(rates)}


Mixer = Annotated[NoMixer | LocalGlobal, Field(discriminator="kind")]

FeedForwardKind = Literal["plain", "detail_specific"]


class FeedForward(Spec):
    """The channel-mixing half of a block; `ratio` is hidden channels over width.

    `plain` is Linear, GELU, Linear; `detail_specific` adds a depthwise 3×3 of the hidden features
    to themselves before the GELU (Shunted Transformer, section 3.2).
    """

    kind: FeedForwardKind = "plain"
    ratio: float = Field(default=4.0, gt=0, le=64)


Pooling = Literal["conv", "max_pool"]
"""How a stage's entry halves the map.

`conv`: conv 3×3 stride 2 and a layer norm (PVT, Shunted). `max_pool`: conv 3×3, then a 3×3 max-pool
of stride 2 (PSViT 2D; our own definition).
"""


class Stage(Spec):
    """Blocks of one width on one map.

    Attributes:
        pooling: How the map is halved on entry; None in the first stage, where the stem does it.
        width: Channels.
        depth: Number of blocks.
        sharing: Layers per attention map (PSViT): of each run of that many blocks the first
            computes the map, the others reuse it and have no queries and keys.
        mixer: Token mixing of every block.
        feed_forward: Channel mixing of every block.
    """

    pooling: Pooling | None = None
    width: PositiveInt
    depth: PositiveInt
    sharing: PositiveInt = 1
    mixer: Mixer = NoMixer()
    feed_forward: FeedForward = FeedForward()

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if isinstance(self.mixer, LocalGlobal) and self.width % self.mixer.heads:
            legal = [heads for heads in range(1, 129) if self.width % heads == 0]
            raise ValueError(
                f"mixer.heads={self.mixer.heads} does not divide width={self.width}; legal: "
                f"{', '.join(map(str, legal))}"
            )
        hidden = self.feed_forward.ratio * self.width
        if hidden != int(hidden):
            raise ValueError(
                f"feed_forward.ratio={self.feed_forward.ratio:g} times width={self.width} is not "
                "a whole number of channels"
            )
        return self

    @property
    def hidden(self) -> int:
        """Hidden channels of the feed-forward."""
        return int(self.feed_forward.ratio * self.width)

    def owns_map(self, block: int) -> bool:
        """Whether that block computes its own attention map (or has none to share)."""
        return block % self.sharing == 0

    def lends_map(self, block: int) -> bool:
        """Whether a later block reads the attention map that this block computes."""
        return self.owns_map(block) and self.sharing > 1 and block + 1 < self.depth

    def canonical(self) -> "Stage":
        """The same stage with every choice that has no effect set to one agreed value."""
        mixer, sharing = self.mixer, min(self.sharing, self.depth)
        if isinstance(mixer, NoMixer):
            sharing = 1
        else:
            changes: dict[str, Any] = {}
            if mixer.global_heads == 0:
                changes["aggregation"] = None
            if mixer.local_heads == 0:
                changes["window"] = LocalGlobal.model_fields["window"].default
            mixer = mixer.model_copy(update=changes)
        return self.model_copy(update={"mixer": mixer, "sharing": sharing})

    def __str__(self) -> str:
        parts = [f"{self.width}x{self.depth}"]
        if self.pooling:
            parts.insert(0, {"conv": "conv", "max_pool": "max"}[self.pooling])
        if isinstance(self.mixer, NoMixer):
            parts.append("no mixer")
        else:
            local, total = self.mixer.local_heads, self.mixer.heads
            if local:
                parts.append(f"local {local}/{total}")
            if self.mixer.aggregation and local < total:
                parts.append(self.mixer.aggregation.label)
            if self.sharing > 1:
                parts.append(f"shared by {self.sharing}")
        short = {"plain": "ff", "detail_specific": "dsff"}[self.feed_forward.kind]
        parts.append(f"{short} {self.feed_forward.ratio:g}")
        return " ".join(parts)


class MeanHead(Spec):
    """Mean over the last stage's tokens and a linear classifier."""

    kind: Literal["mean"] = "mean"


class Architecture(Spec):
    """A network, as data: a stem, the stages, and a head.

    Two architectures with the same `hash` describe the same network. The number of classes and of
    input channels belong to the task, not to the architecture.

    Example:
        >>> stage = Stage(width=64, depth=2)
        >>> Architecture(stem=PatchStem(), stages=(stage,)).stages[0].width
        64
    """

    schema_version: Literal[1] = 1
    stem: Stem
    stages: tuple[Stage, ...] = Field(min_length=1)
    head: MeanHead = MeanHead()

    @model_validator(mode="after")
    def _pools_between_stages(self) -> Self:
        for index, stage in enumerate(self.stages):
            if (stage.pooling is None) != (index == 0):
                raise ValueError(
                    f"stages[{index}].pooling={stage.pooling!r}: the first stage follows the stem "
                    "and has none, every later one has 'conv' or 'max_pool'"
                )
        return self

    def canonical(self) -> "Architecture":
        """The same network with every choice that has no effect normalised away."""
        return self.model_copy(update={"stages": tuple(stage.canonical() for stage in self.stages)})

    @property
    def hash(self) -> str:
        """16 hex digits that name the network; equal for equal canonical forms."""
        text = json.dumps(
            self.canonical().model_dump(mode="json"), sort_keys=True, separators=(",", ":")
        )
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def summary(self) -> str:
        """One line for people: each stage's width × depth and choices."""
        return " | ".join(map(str, self.stages))

    def to_json(self) -> str:
        """The architecture as indented JSON, ending in a newline."""
        return self.model_dump_json(indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, *, source: str = "architecture") -> "Architecture":
        """Read an architecture; `source` names the file in errors.

        Raises:
            ArchitectureError: If the text is no JSON, or a field is missing, unknown or illegal.
        """
        try:
            return cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            raise ArchitectureError(f"{source}: {first_error(error)}") from None

    @classmethod
    def load(cls, path: str | Path) -> "Architecture":
        """Read an architecture file, or the `architecture.json` of a folder.

        Raises:
            ArchitectureError: If there is no such file or it doesn't hold an architecture.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "architecture.json"
        try:
            text = path.read_bytes()
        except OSError as error:
            raise ArchitectureError(f"{path}: cannot be read ({error.strerror})") from None
        return cls.from_json(text, source=str(path))


def first_error(error: ValidationError) -> str:
    """The first error of a validation in one line: the field's path, and what is wrong."""
    first = error.errors(include_url=False)[0]
    # In pydantic's paths the tag of a discriminated union follows the field (or the position) that
    # holds the union; a person who edits the JSON knows only the fields.
    holders = {"stem", "mixer", "aggregation"}
    path, holder = "", None
    for part in first["loc"]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif holder in holders:
            holder = None
        else:
            path += f".{part}" if path else part
            holder = part
    message = first["msg"].removeprefix("Value error, ")
    shown = ""
    if first["type"] not in {"value_error", "missing", "json_invalid"}:
        text = repr(first["input"])
        shown = f" (found {text if len(text) <= 60 else text[:57] + '...'})"
    line = f"{path}: {message}{shown}" if path else f"{message}{shown}"
    return " ".join(line.split())


def map_sizes(image_size: int | Sequence[int], architecture: Architecture) -> list[tuple[int, int]]:
    """Height and width in tokens of each stage's map for a square side or an (H, W) in pixels."""
    height, width = (
        (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)[:2]
    )
    if isinstance(architecture.stem, PatchStem):
        patch = architecture.stem.patch_size
        size = (height // patch, width // patch)
    else:
        size = (-(-height // 2) // 2, -(-width // 2) // 2)
    sizes = [size]
    for _ in architecture.stages[1:]:
        size = (-(-size[0] // 2), -(-size[1] // 2))
        sizes.append(size)
    return sizes
