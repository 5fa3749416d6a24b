"""What can be searched: a compact set of choices for each stage.

A `SearchSpace` is the product of its stages' choices, in PSViT's sense of a compact set: few,
legal, stage-level choices instead of free bits per layer. Every gene always has a value; where it
has no effect (a sharing group without attention), architectures that differ only in it have one
canonical form and one hash.
"""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from search_space.architecture import (
    Architecture,
    ArchitectureError,
    ClassTokenHead,
    MeanHead,
    Stage,
    first_error,
    map_sizes,
    stem_size,
)
from search_space.cost import Cost, Size, body_cost, entry_cost, head_cost, stem_cost
from search_space.parts import (
    LADDER_BRANCHES,
    Aggregation,
    ConvNormKind,
    FeedForwardKind,
    FullAttention,
    HalfStem,
    Ladder,
    LocalGlobal,
    Mixer,
    NoMixer,
    Pooling,
    Rates,
    Spec,
    Stem,
)

Value = str | int | float
Genotype = Mapping[str, Value]
"""A value for every gene, by name, such as `{"stage1.width": 64, ...}`."""

SCALED = ("depth", "width", "ratio")
"""The genes whose choices are sizes, listed from small to large."""

MixerKind = Literal["local_global", "none", "ladder"]
Layout = Literal["map", "sequence"]
Share = Annotated[float, Field(ge=0, le=1)]

ENUMERABLE = 10_000
"""The largest space that `enumerate` lists."""


class Trial(Protocol):
    """What a space needs of an Optuna trial."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Choose one of the choices of a gene."""


class StageChoices(Spec):
    """The compact set of one stage; of every gene the first choice is the default.

    Attributes:
        depth: Numbers of blocks, ascending; together they decide where tokens are pooled (PSViT).
        width: Channels, ascending.
        pooling: Operators on entry; empty in the first stage, unless the stem leaves it some.
        mixer: Kinds of token mixing. At a width that the ladder's branches don't divide, `ladder`
            means `local_global`.
        sharing: Layers per attention map (PSViT).
        local_ratio: Shares of the heads that attend in windows (PLG-ViT), rounded down to heads.
        aggregation: How the other heads see the whole map (Shunted Transformer, PLG-ViT). A rate
            list longer than the number of global heads loses its last, finest rates.
        feed_forward: Kinds of feed-forward.
        ratio: Hidden channels over width, ascending.
        position: Side of the map that a position embedding is made for; None for none.
        norm: Whether a layer norm closes the stage.
    """

    depth: tuple[PositiveInt, ...] = Field(min_length=1)
    width: tuple[PositiveInt, ...] = Field(min_length=1)
    pooling: tuple[Pooling, ...] = ()
    mixer: tuple[MixerKind, ...] = Field(default=("local_global",), min_length=1)
    sharing: tuple[PositiveInt, ...] = Field(default=(1,), min_length=1)
    local_ratio: tuple[Share, ...] = Field(default=(0.0,), min_length=1)
    aggregation: tuple[Aggregation, ...] = Field(min_length=1)
    feed_forward: tuple[FeedForwardKind, ...] = Field(default=("detail_specific",), min_length=1)
    ratio: tuple[PositiveFloat, ...] = Field(min_length=1)
    position: PositiveInt | None = None
    norm: bool = True

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        for gene in SCALED:
            choices = getattr(self, gene)
            if list(choices) != sorted(set(choices)):
                raise ValueError(f"{gene}={list(choices)} is not strictly ascending")
        if "max_pool_1d" in self.pooling:
            raise ValueError("pooling 'max_pool_1d' follows from the layout 'sequence'")
        for width, ratio in product(self.width, self.ratio):
            if width * ratio != int(width * ratio):
                raise ValueError(
                    f"ratio {ratio:g} times width {width} is not a whole number of channels"
                )
        return self

    def genes(self) -> dict[str, tuple[Value, ...]]:
        """The choices of every gene by name, as plain values."""
        return {
            "depth": self.depth,
            "width": self.width,
            **({"pooling": self.pooling} if self.pooling else {}),
            "mixer": self.mixer,
            "sharing": self.sharing,
            "local_ratio": self.local_ratio,
            "aggregation": tuple(choice.label for choice in self.aggregation),
            "feed_forward": self.feed_forward,
            "ratio": self.ratio,
        }


class SearchSpace(Spec):
    """A set of architectures: one stem, and a compact set of choices for each stage.

    Attributes:
        name: What the space is called.
        stem: The stem of every architecture.
        stages: Choices of each stage.
        head_dim: Channels of an attention head; widths are multiples of it.
        ladder_head_dim: Channels of one head in a branch of a ladder.
        window: Side of the windows, in tokens.
        layout: `map`, or `sequence`: tokens behind a class token, pooled along the sequence
            (PSViT 2D and 1D).
        conv_norm: Norm of the parts that work with convolutions.
    """

    name: str
    stem: Stem
    stages: tuple[StageChoices, ...] = Field(min_length=1)
    head_dim: PositiveInt = 32
    ladder_head_dim: PositiveInt = 16
    window: PositiveInt = 7
    layout: tuple[Layout, ...] = Field(default=("map",), min_length=1)
    conv_norm: ConvNormKind = "layer"

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        for index, stage in enumerate(self.stages):
            if bool(stage.pooling) != (index > 0 or isinstance(self.stem, HalfStem)):
                raise ValueError(
                    f"stages[{index}].pooling={list(stage.pooling)}: empty where the stem does it "
                    "all, at least one choice elsewhere"
                )
            for width in stage.width:
                if width % self.head_dim:
                    raise ValueError(
                        f"stages[{index}].width {width} is no multiple of head_dim={self.head_dim}"
                    )
            if "ladder" in stage.mixer and not any(map(self.has_ladder, stage.width)):
                raise ValueError(
                    f"stages[{index}].mixer: 'ladder' has no effect; one of the widths should be a "
                    f"multiple of {LADDER_BRANCHES} * ladder_head_dim = "
                    f"{LADDER_BRANCHES * self.ladder_head_dim}"
                )
            if "sequence" in self.layout and not _suits_sequences(stage):
                raise ValueError(
                    f"stages[{index}]: the layout 'sequence' needs mixers 'local_global' or "
                    "'none', local_ratio 0, full aggregation without local_term and relative, and "
                    "feed_forward 'plain'"
                )
        return self

    def has_ladder(self, width: int) -> bool:
        """Whether a stage of that width can be divided into a ladder's branches and heads."""
        return width % (LADDER_BRANCHES * self.ladder_head_dim) == 0

    @classmethod
    def load(cls, path: str | Path) -> "SearchSpace":
        """Read a space from a JSON file.

        Raises:
            ArchitectureError: If the file cannot be read or a field is illegal.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except OSError as error:
            raise ArchitectureError(f"{path}: cannot be read ({error.strerror})") from None
        except ValidationError as error:
            raise ArchitectureError(f"{path}: {first_error(error)}") from None

    @property
    def genes(self) -> dict[str, tuple[Value, ...]]:
        """Every gene's name (`stage1.depth`) and choices."""
        layout: dict[str, tuple[Value, ...]] = {"layout": self.layout}
        return (layout if len(self.layout) > 1 else {}) | {
            f"stage{number}.{gene}": choices
            for number, stage in enumerate(self.stages, start=1)
            for gene, choices in stage.genes().items()
        }

    def decode(self, genotype: Genotype) -> Architecture:
        """The architecture, in canonical form, that a value for every gene describes.

        Raises:
            ArchitectureError: If a gene is missing or has a value that is not among its choices.
        """
        for gene, choices in self.genes.items():
            if gene not in genotype:
                raise ArchitectureError(f"gene {gene} has no value")
            if genotype[gene] not in choices:
                raise ArchitectureError(
                    f"gene {gene}={genotype[gene]!r} is not in space {self.name!r}; legal: "
                    f"{', '.join(map(str, choices))}"
                )
        layout = str(genotype.get("layout", self.layout[0]))
        return self._assembled(
            _stage(
                self, index, layout, {gene: genotype[f"stage{index + 1}.{gene}"] for gene in genes}
            )
            for index, genes in enumerate(stage.genes() for stage in self.stages)
        )

    def genotype(self, architecture: Architecture) -> dict[str, Value]:
        """A value for every gene that describes the architecture; inverse of `decode`.

        Raises:
            ArchitectureError: If the architecture is not in this space; the message says where.
        """
        wanted = architecture.canonical()
        if wanted.stem != self.stem or len(wanted.stages) != len(self.stages):
            raise ArchitectureError(f"the stem or the number of stages is not that of {self.name}")
        genotype: dict[str, Value] = {}
        layout = "sequence" if wanted.stages[0].class_token else "map"
        if layout not in self.layout:
            raise ArchitectureError(f"layout {layout!r} is not among those of space {self.name!r}")
        if len(self.layout) > 1:
            genotype["layout"] = layout
        for index, stage in enumerate(wanted.stages):
            genes = _genes_of(self, index, layout, stage)
            if genes is None:
                raise ArchitectureError(
                    f"stage {index + 1} ({stage}) is not among the choices of space {self.name!r}"
                )
            genotype.update({f"stage{index + 1}.{gene}": value for gene, value in genes.items()})
        return genotype

    def __contains__(self, architecture: object) -> bool:
        try:
            return isinstance(architecture, Architecture) and bool(self.genotype(architecture))
        except ArchitectureError:
            return False

    def __len__(self) -> int:
        return self.count()

    def count(self) -> int:
        """Number of different architectures."""
        return sum(
            math.prod(
                len(_bodies(self, index, layout)) * len(_poolings(self, index, layout))
                for index in range(len(self.stages))
            )
            for layout in self.layout
        )

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in canonical form.

        Raises:
            ValueError: If there are more than 10,000.
        """
        if self.count() > ENUMERABLE:
            raise ValueError(f"space {self.name!r} holds {self.count():,} architectures")
        for layout in self.layout:
            options = (
                [
                    _entered(self, body, pooling)
                    for body in _bodies(self, index, layout)
                    for pooling in _poolings(self, index, layout)
                ]
                for index in range(len(self.stages))
            )
            yield from map(self._assembled, product(*options))

    def sample(self, rng: random.Random, *, novelty: float = 1.0) -> Architecture:
        """An architecture with every gene drawn uniformly.

        Args:
            rng: Decides.
            novelty: Chance that a gene which is no size is drawn; it else keeps its default.
        """
        return self.decode(
            {
                gene: rng.choice(choices)
                if novelty >= 1 or _is_scaled(gene) or rng.random() < novelty
                else choices[0]
                for gene, choices in self.genes.items()
            }
        )

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """A different architecture: one gene drawn anew, and each other one with chance 1/genes.

        Raises:
            ArchitectureError: If the architecture is not in this space, or is its only member.
        """
        parent = self.genotype(architecture)
        genes = {gene: choices for gene, choices in self.genes.items() if len(choices) > 1}
        if self.count() == 1:
            raise ArchitectureError(f"space {self.name!r} holds a single architecture")
        while True:  # ends: some single gene changes the canonical form, and is drawn in time
            forced = rng.choice(list(genes))
            child = dict(parent)
            for gene, choices in genes.items():
                if gene == forced or rng.random() < 1 / len(genes):
                    child[gene] = rng.choice(choices)
            mutant = self.decode(child)
            if mutant.hash != architecture.hash:
                return mutant

    def suggest(self, trial: Trial) -> Architecture:
        """Let an Optuna trial choose every gene."""
        return self.decode(
            {gene: trial.suggest_categorical(gene, choices) for gene, choices in self.genes.items()}
        )

    def scaled(self, fraction: float) -> Architecture:
        """The default architecture with every size at that fraction (0 to 1) of its choices."""
        return self.decode(self._scaled_genotype(fraction))

    def clip(
        self, fits: Callable[[Architecture], bool], *, start: Architecture | None = None
    ) -> Architecture | None:
        """A large, evenly scaled architecture that fits.

        Sizes are scaled down together until the architecture fits, then single sizes are raised,
        in turn, as long as it still does. All other genes keep their defaults. Where no scale
        fits, the sizes of `start`, which does, are raised; without it the answer is None.
        """
        steps = 4 * max(len(choices) for choices in self.genes.values())
        for step in range(steps, -1, -1):
            genotype = self._scaled_genotype(step / steps)
            if fits(self.decode(genotype)):
                break
        else:
            if start is None:
                return None
            genotype = self.genotype(start)
        raised = True
        while raised:
            raised = False
            for gene, choices in self.genes.items():
                position = choices.index(genotype[gene])
                if _is_scaled(gene) and position + 1 < len(choices):
                    larger = {**genotype, gene: choices[position + 1]}
                    if fits(self.decode(larger)):
                        genotype, raised = larger, True
        return self.decode(genotype)

    def extreme(
        self,
        key: Callable[[Cost], float],
        *,
        image_size: int | Sequence[int] = 224,
        num_classes: int = 1000,
    ) -> Architecture:
        """The architecture with the smallest `key(cost)`, exactly.

        `key` must be additive over the parts of a network, such as MACs, their negative for the
        largest, or a weighted sum of MACs and parameters; the peak of activations is not.
        """
        return self.minimum(
            lambda stage, size: key(body_cost(stage, size)),
            lambda stage, index, width: key(
                self._around(stage, index, width, image_size, num_classes)
            ),
            image_size=image_size,
        )

    def minimum(
        self,
        body: Callable[[Stage, Size], float],
        around: Callable[[Stage, int, int], float],
        *,
        image_size: int | Sequence[int] = 224,
    ) -> Architecture:
        """The architecture whose parts have the smallest sum, exactly.

        Parts of stages depend on each other only through the width handed on, so the minimum is
        found stage by stage for each width.

        Args:
            body: Value of a stage's blocks and closing norm on a map.
            around: Value of a stage's entry, given its index and the width before it (that of the
                stem, or of the stage itself if it is the first), and of the stem or head that
                adjoins it.
            image_size: Side of a square image, or (height, width), in pixels.
        """
        ends: list[tuple[float, tuple[Stage, ...]]] = []
        for layout in self.layout:
            smallest: dict[int, tuple[float, tuple[Stage, ...]]] = {0: (0.0, ())}
            for index, size in enumerate(self.map_sizes(layout == "sequence", image_size)):
                best: dict[int, tuple[float, Stage]] = {}
                for option in _bodies(self, index, layout):
                    value = body(option, size)
                    if option.width not in best or value < best[option.width][0]:
                        best[option.width] = value, option
                entered = [
                    (value, _entered(self, option, pooling))
                    for value, option in best.values()
                    for pooling in _poolings(self, index, layout)
                ]
                by_width: dict[int, tuple[float, tuple[Stage, ...]]] = {}
                for previous, (total, stages) in smallest.items():
                    for value, stage in entered:
                        value += total + around(stage, index, previous or self._first_width(stage))
                        if stage.width not in by_width or value < by_width[stage.width][0]:
                            by_width[stage.width] = (value, (*stages, stage))
                smallest = by_width
            ends.extend(smallest.values())
        _, stages = min(ends, key=lambda entry: entry[0])
        return self._assembled(stages)

    def map_sizes(self, class_token: bool, image_size: int | Sequence[int]) -> list[Size]:
        """Height and width in tokens of each stage's map, or of a sequence with a class token."""
        layout = "sequence" if class_token else "map"
        smallest = self.decode({**self._scaled_genotype(0.0), "layout": layout})
        return map_sizes(image_size, smallest)

    def _first_width(self, stage: Stage) -> int:
        """The width that the first stage finds."""
        return self.stem.width if isinstance(self.stem, HalfStem) else stage.width

    def frugal(
        self, *, image_size: int | Sequence[int] = 224, num_classes: int = 1000
    ) -> list[Architecture]:
        """Every pair of MACs and parameters that no architecture beats in both, by one of each.

        Exact, and found as `extreme` finds a minimum: of what hands on the same width, what is
        beaten in both so far stays beaten.
        """
        ends: list[_Prefix] = []
        for layout in self.layout:
            kept: dict[int, list[_Prefix]] = {0: [(Cost(), ())]}
            for index in range(len(self.stages)):
                by_width: dict[int, list[_Prefix]] = {}
                alike = _alike(self, index, layout, image_size)
                for previous, prefixes in kept.items():
                    for options in alike:
                        _, (stage,) = options[0]
                        width = previous or self._first_width(stage)
                        around = self._around(stage, index, width, image_size, num_classes)
                        by_width.setdefault(stage.width, []).extend(
                            (before + around + body, stages + last)
                            for body, last in options
                            for before, stages in prefixes
                        )
                kept = {width: _unbeaten(candidates) for width, candidates in by_width.items()}
            ends += [end for candidates in kept.values() for end in candidates]
        return [self._assembled(stages) for _, stages in _unbeaten(ends)]

    def corners(self) -> Iterator[Architecture]:
        """A few architectures that together have every parameter at its largest shape.

        Each has the largest sizes and one layer per attention map. The other choices of a part of
        a stage (pooling, mixer, feed-forward) are taken in turn, side by side over parts and
        stages. A mixer that needs another width than the largest comes in corners of its own.
        """
        for layout in self.layout:
            turns = [_corner_stages(self, index, layout) for index in range(len(self.stages))]
            for number in range(max(map(len, turns))):
                yield self._assembled(stages[number % len(stages)] for stages in turns)

    def panorama(self) -> Iterator[Architecture]:
        """Architectures that together have every stem, entry, block and head of the space.

        An entry depends on a stage's width and pooling and on the width before it; a block on
        everything else of its stage. Stages beside the one in question are the first of their kind.
        """
        for layout in self.layout:
            bodies = [list(_bodies(self, index, layout)) for index in range(len(self.stages))]
            poolings = [_poolings(self, index, layout) for index in range(len(self.stages))]
            first = [
                _entered(self, body, pooling)
                for (body, *_), (pooling, *_) in zip(bodies, poolings, strict=True)
            ]
            for index, found in enumerate(bodies):
                before = first[:index]
                for body in found:
                    stage = _entered(self, body, poolings[index][0])
                    yield self._assembled([*before, stage, *first[index + 1 :]])
                of_width = {body.width: body for body in found}
                earlier = (
                    {body.width: body for body in bodies[index - 1]} if index else {0: found[0]}
                )
                for body, pooling, link in product(
                    of_width.values(), poolings[index], earlier.values()
                ):
                    stage = _entered(self, body, pooling)
                    if index:
                        before[-1] = _entered(self, link, poolings[index - 1][0])
                    yield self._assembled([*before, stage, *first[index + 1 :]])

    def _assembled(self, stages: Iterable[Stage]) -> Architecture:
        stages = tuple(stages)
        head = ClassTokenHead() if stages[-1].class_token else MeanHead()
        return Architecture(stem=self.stem, stages=stages, head=head)

    def _around(
        self,
        stage: Stage,
        index: int,
        previous_width: int,
        image_size: int | Sequence[int],
        num_classes: int,
    ) -> Cost:
        """Cost of a stage's entry behind that width, and of the stem or head that adjoins it."""
        sizes = self.map_sizes(stage.class_token, image_size)
        previous_size = sizes[index - 1] if index else stem_size(image_size, self.stem)
        cost = entry_cost(stage, previous_width, previous_size, sizes[index])
        if index == 0:
            cost += stem_cost(self.stem, stage.width, _square(image_size), 3)
        if index + 1 == len(sizes):
            cost += head_cost(MeanHead(), stage.width, sizes[index], num_classes)
        return cost

    def _scaled_genotype(self, fraction: float) -> dict[str, Value]:
        return {
            gene: choices[int(fraction * (len(choices) - 1) + 0.5)]
            if _is_scaled(gene)
            else choices[0]
            for gene, choices in self.genes.items()
        }


_Prefix = tuple[Cost, tuple[Stage, ...]]
"""The first stages of an architecture, and what they cost."""


def _unbeaten(candidates: list[_Prefix]) -> list[_Prefix]:
    """The candidates that no other one equals or beats in both MACs and parameters."""
    front: list[_Prefix] = []
    for candidate in sorted(candidates, key=lambda c: (c[0].macs, c[0].params)):
        if not front or candidate[0].params < front[-1][0].params:
            front.append(candidate)
    return front


def _square(image_size: int | Sequence[int]) -> Size:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


def _is_scaled(gene: str) -> bool:
    return gene.rpartition(".")[2] in SCALED


def _suits_sequences(stage: StageChoices) -> bool:
    return (
        set(stage.mixer) <= {"local_global", "none"}
        and stage.local_ratio == (0.0,)
        and stage.aggregation == (FullAttention(local_term=False),)
        and stage.feed_forward == ("plain",)
    )


def _stage(space: SearchSpace, index: int, layout: str, genes: Mapping[str, Value]) -> Stage:
    """The canonical stage that the values of one stage's genes describe."""
    choices = space.stages[index]
    width, depth = int(genes["width"]), int(genes["depth"])
    pooling = genes.get("pooling") or None
    if layout == "sequence" and index > 0:
        pooling = "max_pool_1d"
    mixer = _mixer(space, choices, width, genes)
    feed_forward = {"kind": genes["feed_forward"], "ratio": genes["ratio"]}
    return Stage.model_validate(
        {
            "pooling": pooling,
            "width": width,
            "depth": depth,
            "sharing": min(int(genes["sharing"]), depth),
            "mixer": mixer,
            "feed_forward": None if isinstance(mixer, Ladder) else feed_forward,
            "conv_norm": space.conv_norm,
            "position": choices.position,
            "class_token": layout == "sequence",
            "norm": choices.norm,
        }
    ).canonical()


def _mixer(
    space: SearchSpace, choices: StageChoices, width: int, genes: Mapping[str, Value]
) -> Mixer:
    kind = genes["mixer"]
    if kind == "none":
        return NoMixer()
    if kind == "ladder" and space.has_ladder(width):
        heads = width // (LADDER_BRANCHES * space.ladder_head_dim)
        return Ladder(heads=heads, window=space.window)
    heads = width // space.head_dim
    local_heads = int(heads * float(genes["local_ratio"]))
    labels = [choice.label for choice in choices.aggregation]
    aggregation: Aggregation | None = choices.aggregation[labels.index(str(genes["aggregation"]))]
    if local_heads == heads:
        aggregation = None
    elif isinstance(aggregation, Rates):
        aggregation = Rates(rates=aggregation.rates[: heads - local_heads])
    return LocalGlobal(
        heads=heads, local_heads=local_heads, window=space.window, aggregation=aggregation
    )


@lru_cache(maxsize=64)
def _bodies(space: SearchSpace, index: int, layout: str) -> dict[Stage, dict[str, Value]]:
    """Every different stage at that index but for its pooling, with the first genes that say so.

    How a stage is entered changes nothing in it, so `_poolings` needs no stages of its own.
    """
    genes = {g: values for g, values in space.stages[index].genes().items() if g != "pooling"}
    bodies: dict[Stage, dict[str, Value]] = {}
    for values in product(*genes.values()):
        chosen = dict(zip(genes, values, strict=True))
        bodies.setdefault(_body(_stage(space, index, layout, chosen)), chosen)
    return bodies


def _poolings(space: SearchSpace, index: int, layout: str) -> tuple[Pooling | None, ...]:
    """The ways to enter the stage at that index; None where the stem does it all."""
    if layout == "sequence" and index > 0:
        return ("max_pool_1d",)
    return space.stages[index].pooling or (None,)


def _body(stage: Stage) -> Stage:
    """A stage without its pooling."""
    return stage.model_copy(update={"pooling": None}).canonical()


def _entered(space: SearchSpace, body: Stage, pooling: Pooling | None) -> Stage:
    """The stage of a body that is entered so."""
    changes = {"pooling": pooling, "conv_norm": space.conv_norm}
    return body.model_copy(update=changes).canonical()


def _genes_of(space: SearchSpace, index: int, layout: str, stage: Stage) -> dict[str, Value] | None:
    """The first genes that describe a stage at that index; None if there are none."""
    body = _body(stage)
    genes = _bodies(space, index, layout).get(body)
    known = stage.pooling in _poolings(space, index, layout)
    if genes is None or not known or stage != _entered(space, body, stage.pooling):
        return None
    choices = space.stages[index].pooling
    if not choices:
        return genes
    return {"pooling": stage.pooling if stage.pooling in choices else choices[0], **genes}


def _alike(
    space: SearchSpace, index: int, layout: str, image_size: int | Sequence[int]
) -> list[list[_Prefix]]:
    """The unbeaten bodies at that index with their costs, those of one entry together."""
    size = space.map_sizes(layout == "sequence", image_size)[index]
    by_width: dict[int, list[_Prefix]] = {}
    for body in _bodies(space, index, layout):
        by_width.setdefault(body.width, []).append((body_cost(body, size), (body,)))
    unbeaten = [_unbeaten(candidates) for candidates in by_width.values()]
    return [
        [(cost, (_entered(space, body, pooling),)) for cost, (body,) in candidates]
        for candidates in unbeaten
        for pooling in _poolings(space, index, layout)
    ]


def _corner_stages(space: SearchSpace, index: int, layout: str) -> list[Stage]:
    """The stage at its largest sizes, its other choices part by part; see `corners`."""
    choices = space.stages[index]
    genes = choices.genes()
    largest = {gene: values[-1] for gene, values in genes.items() if gene in SCALED}
    ratios = sorted({min(choices.local_ratio), max(choices.local_ratio)})
    mixers = [
        {"mixer": kind, "local_ratio": ratio, "aggregation": aggregation}
        for kind in choices.mixer
        for ratio in ratios
        for aggregation in genes["aggregation"]
    ]
    poolings, feed_forwards = genes.get("pooling", ("",)), genes["feed_forward"]
    turns = max(len(mixers), len(poolings), len(feed_forwards))
    corners = [
        {
            **largest,
            **mixers[turn % len(mixers)],
            "sharing": 1,
            "pooling": poolings[turn % len(poolings)],
            "feed_forward": feed_forwards[turn % len(feed_forwards)],
        }
        for turn in range(turns)
    ]
    if "ladder" in choices.mixer:
        # Its widest one, where that is not the largest width; poolings then don't matter.
        width = max(width for width in choices.width if space.has_ladder(width))
        corners.append({**corners[0], "mixer": "ladder", "width": width})
    stages = [_stage(space, index, layout, corner) for corner in corners]
    return list(dict.fromkeys(stages))
