"""What can be searched: a compact set of choices for each stage.

A `SearchSpace` is the product of its stages' choices, in PSViT's sense of a compact set: few,
legal, stage-level choices instead of free bits per layer. Every gene always has a value; where it
has no effect (a sharing group without attention), architectures that differ only in it have one
canonical form and one hash.
"""

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self, TypeVar

from pydantic import Field, ValidationError, model_validator

from search_space import encoding
from search_space.architecture import (
    Architecture,
    ArchitectureError,
    Stage,
    first_error,
    map_sizes,
)
from search_space.bounds import (
    MOST_BODIES,
    MOST_CHOICES,
    MOST_STAGES,
    Channels,
    Depth,
    Side,
    read_limited,
)
from search_space.encoding import Genotype, Value
from search_space.operators import Size
from search_space.parts import (
    MIXERS,
    POOLINGS,
    Aggregation,
    ConvNormKind,
    FeedForwardKind,
    MixerKind,
    Pooling,
    Ratio,
    Spec,
    Stem,
)

Layout = Literal["map", "sequence"]
Share = Annotated[float, Field(ge=0, le=1)]
T = TypeVar("T")
Choices = Annotated[tuple[T, ...], Field(min_length=1, max_length=MOST_CHOICES)]

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
        mixer: Kinds of token mixing. At a width that a kind does not fit (`ladder`, whose branches
            must divide it), it means `local_global`.
        sharing: Layers per attention map (PSViT).
        local_ratio: Shares of the heads that attend in windows (PLG-ViT), rounded down to heads.
        aggregation: How the other heads see the whole map (Shunted Transformer, PLG-ViT). A rate
            list longer than the number of global heads loses its last, finest rates.
        feed_forward: Kinds of feed-forward.
        ratio: Hidden channels over width, ascending.
        position: Side of the map that a position embedding is made for; None for none.
        norm: Whether a layer norm closes the stage.
    """

    depth: Choices[Depth]
    width: Choices[Channels]
    pooling: tuple[Pooling, ...] = Field(default=(), max_length=MOST_CHOICES)
    mixer: Choices[MixerKind] = ("local_global",)
    sharing: Choices[Depth] = (1,)
    local_ratio: Choices[Share] = (0.0,)
    aggregation: Choices[Aggregation]
    feed_forward: Choices[FeedForwardKind] = ("detail_specific",)
    ratio: Choices[Ratio]
    position: Side | None = None
    norm: bool = True

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        bodies = math.prod(len(c) for gene, c in self.genes().items() if gene != "pooling")
        if bodies > MOST_BODIES:
            raise ValueError(
                f"its choices make {bodies:,} combinations; legal: up to {MOST_BODIES:,}"
            )
        for gene in encoding.SIZES:
            choices = getattr(self, gene)
            if list(choices) != sorted(set(choices)):
                raise ValueError(f"{gene}={list(choices)} is not strictly ascending")
        for pooling in self.pooling:
            if POOLINGS[pooling].pools_sequences:
                raise ValueError(f"pooling {pooling!r} follows from the layout 'sequence'")
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
        name: What the space is called; files are named by it.
        stem: The stem of every architecture.
        stages: Choices of each stage.
        head_dim: Channels of an attention head; widths are multiples of it.
        ladder_head_dim: Channels of one head in a branch of a ladder.
        window: Side of the windows, in tokens.
        layout: `map`, or `sequence`: tokens behind a class token, pooled along the sequence
            (PSViT 2D and 1D).
        conv_norm: Norm of the parts that work with convolutions.
    """

    name: str = Field(max_length=64, pattern=r"^\w[\w .+-]*$")
    stem: Stem
    stages: tuple[StageChoices, ...] = Field(min_length=1, max_length=MOST_STAGES)
    head_dim: Channels = 32
    ladder_head_dim: Channels = 16
    window: Side = 7
    layout: tuple[Layout, ...] = Field(default=("map",), min_length=1)
    conv_norm: ConvNormKind = "layer"

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        for index, stage in enumerate(self.stages):
            if bool(stage.pooling) != (index > 0 or self.stem.pools_first):
                raise ValueError(
                    f"stages[{index}].pooling={list(stage.pooling)}: empty where the stem does it "
                    "all, at least one choice elsewhere"
                )
            for width in stage.width:
                if width % self.head_dim:
                    raise ValueError(
                        f"stages[{index}].width {width} is no multiple of head_dim={self.head_dim}"
                    )
            for kind in stage.mixer:
                if not any(MIXERS[kind].fits(self, width) for width in stage.width):
                    raise ValueError(
                        f"stages[{index}].mixer: {kind!r} has no effect; one of the widths should "
                        f"be {MIXERS[kind].fitting_widths(self)}"
                    )
            if "sequence" in self.layout and not encoding.suits_sequences(self, stage):
                raise ValueError(
                    f"stages[{index}]: the layout 'sequence' needs mixers 'local_global' or "
                    "'none', local_ratio 0, full aggregation without local_term and relative, and "
                    "feed_forward 'plain'"
                )
        self._check_choices()
        return self

    def _check_choices(self) -> None:
        """Check that an architecture can be built with each choice of each gene."""
        defaults = self.scaled_genotype(0.0)
        chosen = [{gene: choice} for gene, choices in self.genes.items() for choice in choices]
        # Whether an aggregation does anything, and so its rates, hangs on what stands beside it.
        for number in range(1, len(self.stages) + 1):
            names = [f"stage{number}.{gene}" for gene in ("mixer", "local_ratio", "aggregation")]
            together = product(*(self.genes[name] for name in names))
            chosen += [dict(zip(names, choices, strict=True)) for choices in together]
        for genes in chosen:
            try:
                self.decode({**defaults, **genes})
            except ValidationError as error:
                told = ", ".join(f"{gene}={choice!r}" for gene, choice in genes.items())
                raise ValueError(f"{told}: {first_error(error)}") from None

    @classmethod
    def load(cls, path: str | Path) -> "SearchSpace":
        """Read a space from a JSON file.

        Raises:
            ArchitectureError: If the file cannot be read or a field is illegal.
        """
        try:
            return cls.model_validate_json(read_limited(path))
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
        known = self.genes
        for gene, choices in known.items():
            if gene not in genotype:
                raise ArchitectureError(f"gene {gene} has no value")
            if genotype[gene] not in choices:
                raise ArchitectureError(
                    f"gene {gene}={genotype[gene]!r} is not in space {self.name!r}; legal: "
                    f"{', '.join(map(str, choices))}"
                )
        layout = str(genotype.get("layout", self.layout[0]))
        if layout not in self.layout:
            raise ArchitectureError(
                f"gene layout={layout!r} is not in space {self.name!r}; legal: "
                f"{', '.join(self.layout)}"
            )
        if unknown := genotype.keys() - known.keys() - {"layout"}:
            raise ArchitectureError(f"gene {sorted(unknown)[0]} is none of space {self.name!r}")
        return self.assembled(
            encoding.stage(
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
            genes = encoding.genes_of(self, index, layout, stage)
            if genes is None:
                raise ArchitectureError(
                    f"stage {index + 1} ({stage}) is not among the choices of space {self.name!r}"
                )
            genotype.update({f"stage{index + 1}.{gene}": value for gene, value in genes.items()})
        return genotype

    def equivalents(self, architecture: Architecture) -> dict[str, tuple[Value, ...]]:
        """For every gene its choices that give the architecture, the other genes held.

        That is one choice where they all differ, several where these mean the same there, and all
        of them where the gene has no effect.

        Raises:
            ArchitectureError: If the architecture is not in this space.
        """
        genotype = self.genotype(architecture)
        layout = str(genotype.get("layout", self.layout[0]))
        found: dict[str, tuple[Value, ...]] = {"layout": (layout,)} if len(self.layout) > 1 else {}
        for index, stage in enumerate(self.stages):
            prefix = f"stage{index + 1}."
            genes = {gene: genotype[prefix + gene] for gene in stage.genes()}
            same = encoding.equivalents(self, index, layout, genes)
            found |= {prefix + gene: choices for gene, choices in same.items()}
        return found

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
                len(encoding.bodies(self, index, layout))
                * len(encoding.poolings(self, index, layout))
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
                    encoding.entered(self, body, pooling)
                    for body in encoding.bodies(self, index, layout)
                    for pooling in encoding.poolings(self, index, layout)
                ]
                for index in range(len(self.stages))
            )
            yield from map(self.assembled, product(*options))

    def sample(self, rng: random.Random) -> Architecture:
        """An architecture with every gene drawn uniformly."""
        return self.decode({gene: rng.choice(choices) for gene, choices in self.genes.items()})

    def mutate(self, architecture: Architecture, rng: random.Random) -> Architecture:
        """A different architecture: one gene drawn anew, and each other one with chance 1/genes.

        Raises:
            ArchitectureError: If the architecture is not in this space, or is its only member.
        """
        parent = self.genotype(architecture)
        genes = {gene: choices for gene, choices in self.genes.items() if len(choices) > 1}
        if self.count() == 1:
            raise ArchitectureError(f"space {self.name!r} holds a single architecture")
        unchanged = architecture.canonical()
        while True:  # ends: some single gene changes the canonical form, and is drawn in time
            forced = rng.choice(list(genes))
            child = dict(parent)
            for gene, choices in genes.items():
                if gene == forced or rng.random() < 1 / len(genes):
                    child[gene] = rng.choice(choices)
            mutant = self.decode(child)
            if mutant != unchanged:
                return mutant

    def suggest(self, trial: Trial) -> Architecture:
        """Let an Optuna trial choose every gene."""
        return self.decode(
            {gene: trial.suggest_categorical(gene, choices) for gene, choices in self.genes.items()}
        )

    def scaled(self, fraction: float) -> Architecture:
        """The default architecture with every size at that fraction (0 to 1) of its choices."""
        return self.decode(self.scaled_genotype(fraction))

    def map_sizes(self, class_token: bool, image_size: int | Sequence[int]) -> list[Size]:
        """Height and width in tokens of each stage's map, or of a sequence with a class token."""
        layout = "sequence" if class_token else "map"
        smallest = self.decode({**self.scaled_genotype(0.0), "layout": layout})
        return map_sizes(image_size, smallest)

    def assembled(self, stages: Iterable[Stage]) -> Architecture:
        """The architecture of these canonical stages."""
        stages = tuple(stages)
        head = encoding.head_behind(stages[-1])
        return Architecture(stem=self.stem, stages=stages, head=head)

    def scaled_genotype(self, fraction: float) -> dict[str, Value]:
        """The genes of `scaled`."""
        return {
            gene: choices[int(fraction * (len(choices) - 1) + 0.5)]
            if encoding.is_size(gene)
            else choices[0]
            for gene, choices in self.genes.items()
        }
