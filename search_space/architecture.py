"""The architecture spec: a network as data.

An `Architecture` says which network to build and nothing about how: no torch here.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from search_space.bounds import MOST_STAGES, Channels, Depth, Side, read_limited
from search_space.operators import MapRole, Size, pixels
from search_space.parts import (
    POOLINGS,
    ConvNormKind,
    FeedForward,
    Head,
    MeanHead,
    Mixer,
    NoMixer,
    Pooling,
    Spec,
    Stem,
    Word,
)

REFERENCE_SIZE = 224
"""Pixels at which the papers count, and at which a rate must not exceed the map."""


ARCHITECTURE = "architecture.json"
"""The file of an architecture in a folder of its own."""


class ArchitectureError(ValueError):
    """An architecture that cannot be built; the message is one line and names the field."""


class Stage(Spec):
    """Blocks of one width on one map.

    Attributes:
        pooling: How the map is halved on entry; None in the first stage where the stem does it all.
        width: Channels.
        depth: Number of blocks.
        sharing: Layers per attention map (PSViT): of each run of that many blocks the first
            computes the map, the others reuse it and have no queries and keys.
        mixer: Token mixing of every block.
        feed_forward: Channel mixing of every block; None where the mixer is a whole block.
        conv_norm: Norm of the parts that work with convolutions.
        position: Side of the map that a learned position embedding is made for, which is added on
            entry; on other maps it is interpolated. None for no such embedding.
        class_token: Whether the tokens are a sequence behind a class token, which joins on entry to
            the first such stage.
        norm: Whether a layer norm closes the stage.
    """

    pooling: Pooling | None = None
    width: Channels
    depth: Depth
    sharing: Depth = 1
    mixer: Mixer = NoMixer()
    feed_forward: FeedForward | None = FeedForward()
    conv_norm: ConvNormKind = "batch"
    position: Side | None = None
    class_token: bool = False
    norm: bool = True

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        self.mixer.check_width(self.width)
        self._check_feed_forward()
        if self.sharing > self.depth:
            raise ValueError(
                f"sharing={self.sharing} exceeds depth={self.depth}: an attention map is not "
                f"shared across a pooling; legal: 1 to {self.depth}"
            )
        if self.class_token:
            self._check_sequence()
        elif self.pools_sequence:
            raise ValueError(
                f"pooling={self.pooling!r} needs class_token=true: it pools a sequence"
            )
        return self

    def _check_feed_forward(self) -> None:
        if self.feed_forward is None:
            if not self.mixer.is_whole_block:
                raise ValueError(f"feed_forward is missing beside mixer {self.mixer.kind!r}")
            return
        if self.mixer.is_whole_block:
            raise ValueError(
                f"feed_forward must be null: mixer {self.mixer.kind!r} is a whole block"
            )
        hidden = self.feed_forward.ratio * self.width
        if hidden != int(hidden):
            raise ValueError(
                f"feed_forward.ratio={self.feed_forward.ratio:g} times width={self.width} is not "
                "a whole number of channels"
            )

    def _check_sequence(self) -> None:
        if not self.mixer.suits_sequences:
            raise ValueError(
                "class_token=true needs tokens without a map: legal mixers are 'none' and "
                "'local_global' with local_heads=0 and full aggregation without local_term and "
                "relative"
            )
        if self.pools_sequence and self.position is not None:
            raise ValueError("position must be null where a sequence is pooled")
        if self.feed_forward is None or not self.feed_forward.operator.suits_sequences:
            raise ValueError("class_token=true needs feed_forward.kind='plain'")

    @property
    def pools_sequence(self) -> bool:
        """Whether it pools a sequence on entry, and no map."""
        return self.pooling is not None and POOLINGS[self.pooling].pools_sequences

    @property
    def adds_class_token(self) -> bool:
        """Whether the class token joins on entry to this stage."""
        return self.class_token and not self.pools_sequence

    @property
    def has_conv_norm(self) -> bool:
        """Whether a part of it has norms of `conv_norm`."""
        pools = self.pooling is not None and POOLINGS[self.pooling].has_conv_norm
        return pools or self.mixer.has_conv_norm

    @property
    def hidden(self) -> int:
        """Hidden channels of the feed-forward; 0 without one."""
        return int(self.feed_forward.ratio * self.width) if self.feed_forward else 0

    def owns_map(self, block: int) -> bool:
        """Whether that block computes its own attention map (or has none to share)."""
        return block % self.sharing == 0

    def lends_map(self, block: int) -> bool:
        """Whether a later block reads the attention map that this block computes."""
        return self.owns_map(block) and self.sharing > 1 and block + 1 < self.depth

    def map_role(self, block: int) -> MapRole:
        """What that block does with attention maps."""
        if not self.owns_map(block):
            return "borrow"
        return "lend" if self.lends_map(block) else "own"

    def canonical(self) -> "Stage":
        """The same stage with every choice that has no effect set to one agreed value."""
        changes: dict[str, Any] = {}
        if (mixer := self.mixer.canonical()) is not self.mixer:
            changes["mixer"] = mixer
        if self.sharing != 1 and not self.mixer.shares_maps:
            changes["sharing"] = 1
        if self.conv_norm != "batch" and not self.has_conv_norm:
            changes["conv_norm"] = "batch"
        return self.model_copy(update=changes) if changes else self

    @property
    def words(self) -> list[Word]:
        """Of its summary, in order, with their meanings."""
        size = Word(f"{self.width}x{self.depth}", "A stage of so many channels and so many blocks")
        words = [size, *self.mixer.words(self.sharing)]
        if self.pooling:
            words.insert(0, POOLINGS[self.pooling].word())
        if self.feed_forward:
            words.append(self.feed_forward.word)
        if self.class_token:
            words.append(_CLASS_TOKEN)
        return words

    def __str__(self) -> str:
        return " ".join(word.text for word in self.words)


_CLASS_TOKEN = Word("class token", "The tokens are a sequence behind one that sums up the image")


class Architecture(Spec):
    """A network, as data: a stem, the stages, and a head.

    Two architectures with the same `hash` describe the same network. The number of classes and of
    input channels belong to the task, not to the architecture.

    Attributes:
        schema_version: Of this spec.
        stem: From image to first map.
        stages: One or more.
        head: From last map to class scores.
        norm_eps: Added to the variance in the norms of blocks and stages.

    Example:
        >>> stage = Stage(width=64, depth=2)
        >>> Architecture(stem=PatchStem(), stages=(stage,)).stages[0].width
        64
    """

    schema_version: Literal[1] = 1
    stem: Stem
    stages: tuple[Stage, ...] = Field(min_length=1, max_length=MOST_STAGES)
    head: Head = MeanHead()
    norm_eps: float = Field(default=1e-6, gt=0, lt=1)

    @model_validator(mode="after")
    def _stages_fit(self) -> Self:
        half = self.stem.pools_first
        for index, stage in enumerate(self.stages):
            if (stage.pooling is not None) != (index > 0 or half):
                stem = "a stem to stride 2 needs one" if half else "the stem does it all"
                raise ValueError(
                    f"stages[{index}].pooling={stage.pooling!r}: every stage but the first has a "
                    f"pooling such as 'conv' or 'max_pool'; in the first, {stem}"
                )
            previous = index > 0 and self.stages[index - 1].class_token
            if previous and not stage.class_token:
                raise ValueError(
                    f"stages[{index}].class_token=false: the stage before has one, and it stays"
                )
            if stage.class_token and stage.pools_sequence != previous:
                raise ValueError(
                    f"stages[{index}].pooling={stage.pooling!r}: 'max_pool_1d' is legal where the "
                    "stage before has a class token, and nothing else is legal there"
                )
        if self.stages[-1].class_token != self.head.reads_class_token:
            raise ValueError(
                f"head.kind={self.head.kind!r}: legal is 'class_token' behind a stage with a class "
                "token, 'mean' behind any other"
            )
        self._check_rates()
        return self

    def _check_rates(self) -> None:
        sizes = map_sizes(REFERENCE_SIZE, self)
        for index, (stage, size) in enumerate(zip(self.stages, sizes, strict=True)):
            rate = stage.mixer.largest_rate
            if rate > min(size):
                raise ValueError(
                    f"stages[{index}].mixer.aggregation: rate {rate} exceeds the side of the "
                    f"map, which is {min(size)} at {REFERENCE_SIZE} px; legal: 1 to {min(size)}"
                )

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

    @property
    def words(self) -> list[Word]:
        """Of its stem, of each stage and of its head, in order, with their meanings."""
        of_stages = (word for stage in self.stages for word in stage.words)
        first, last = self.stages[0].width, self.stages[-1].width
        return [self.stem.word(first), *of_stages, self.head.word(last)]

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
        path = architecture_file(path)
        try:
            text = read_limited(path)
        except OSError as error:
            raise ArchitectureError(f"{path}: cannot be read ({error.strerror})") from None
        return cls.from_json(text, source=str(path))


def architecture_file(path: str | Path) -> Path:
    """The file of an exported network's architecture, of its folder or itself.

    Raises:
        ArchitectureError: If it is a run's folder, whose networks lie in folders within.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    if not (path / ARCHITECTURE).exists() and (path / "best" / ARCHITECTURE).exists():
        raise ArchitectureError(
            f"{path}: is a run; name one of its networks, {path / 'best'} or one of "
            f"{path / 'front'}"
        )
    return path / ARCHITECTURE


def first_error(error: ValidationError) -> str:
    """The first error of a validation in one line: the field's path, and what is wrong."""
    first = error.errors(include_url=False)[0]
    # In pydantic's paths the tag of a discriminated union follows the field (or the position) that
    # holds the union; a person who edits the JSON knows only the fields.
    holders = {"stem", "mixer", "aggregation", "head"}
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
    line = " ".join((f"{path}: {message}{shown}" if path else f"{message}{shown}").split())
    return line if len(line) <= 400 else f"{line[:397]}..."


def stem_size(image_size: int | Sequence[int], stem: Stem) -> Size:
    """Height and width in tokens of a stem's map for a square side or an (H, W) in pixels."""
    return stem.size(*pixels(image_size))


def map_sizes(image_size: int | Sequence[int], architecture: Architecture) -> list[Size]:
    """Height and width in tokens of each stage's map for a square side or an (H, W) in pixels.

    A sequence behind a class token is a map of one row.
    """
    size = stem_size(image_size, architecture.stem)
    sizes = []
    for stage in architecture.stages:
        if stage.pools_sequence:
            size = (1, 1 + -(-(size[1] - 1) // 2))
        else:
            if stage.pooling is not None:
                size = (-(-size[0] // 2), -(-size[1] // 2))
            if stage.class_token:
                size = (1, 1 + size[0] * size[1])
        sizes.append(size)
    return sizes
