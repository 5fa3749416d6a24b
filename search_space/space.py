"""What can be searched: a compact set of choices for each stage.

A `SearchSpace` is the product of its stages' choices, in PSViT's sense of a compact set: few,
legal, stage-level choices instead of free bits per layer. Every gene always has a value; where it
has no effect (a sharing group without attention), architectures that differ only in it have one
canonical form and one hash.
"""

import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, model_validator

from search_space.architecture import (
    Aggregation,
    Architecture,
    ArchitectureError,
    FeedForward,
    FeedForwardKind,
    LocalGlobal,
    Mixer,
    NoMixer,
    Pooling,
    Rates,
    Spec,
    Stage,
    Stem,
    first_error,
    map_sizes,
)
from search_space.cost import Cost, Size, head_cost, stage_cost, stem_cost

Value = str | int | float
Genotype = Mapping[str, Value]
"""A value for every gene, by name, such as `{"stage1.width": 64, ...}`."""

SCALED = ("depth", "width", "ratio")
"""The genes whose choices are sizes, listed from small to large."""

MixerKind = Literal["local_global", "none"]
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
        pooling: Operators on entry; empty in the first stage.
        mixer: Kinds of token mixing.
        sharing: Layers per attention map (PSViT).
        local_ratio: Shares of the heads that attend in windows (PLG-ViT), rounded down to heads.
        aggregation: How the other heads see the whole map (Shunted Transformer, PLG-ViT). A rate
            list longer than the number of global heads loses its last, finest rates.
        feed_forward: Kinds of feed-forward.
        ratio: Hidden channels over width, ascending.
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

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        for gene in SCALED:
            choices = getattr(self, gene)
            if list(choices) != sorted(set(choices)):
                raise ValueError(f"{gene}={list(choices)} is not strictly ascending")
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
        window: Side of the local windows, in tokens.
    """

    name: str
    stem: Stem
    stages: tuple[StageChoices, ...] = Field(min_length=1)
    head_dim: PositiveInt = 32
    window: PositiveInt = 7

    @model_validator(mode="after")
    def _is_legal(self) -> Self:
        for index, stage in enumerate(self.stages):
            if bool(stage.pooling) != (index > 0):
                raise ValueError(
                    f"stages[{index}].pooling={list(stage.pooling)}: empty in the first stage, "
                    "at least one choice in the others"
                )
            for width in stage.width:
                if width % self.head_dim:
                    raise ValueError(
                        f"stages[{index}].width {width} is no multiple of head_dim={self.head_dim}"
                    )
        return self

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
        return {
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
        return Architecture(
            stem=self.stem,
            stages=tuple(
                _stage(self, index, {gene: genotype[f"stage{index + 1}.{gene}"] for gene in genes})
                for index, genes in enumerate(stage.genes() for stage in self.stages)
            ),
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
        for index, stage in enumerate(wanted.stages):
            genes = _stage_options(self, index).get(stage)
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
        return math.prod(len(_stage_options(self, index)) for index in range(len(self.stages)))

    def enumerate(self) -> Iterator[Architecture]:
        """Every architecture once, in canonical form.

        Raises:
            ValueError: If there are more than 10,000.
        """
        if self.count() > ENUMERABLE:
            raise ValueError(f"space {self.name!r} holds {self.count():,} architectures")
        for stages in product(*(_stage_options(self, i) for i in range(len(self.stages)))):
            yield Architecture(stem=self.stem, stages=stages)

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
                if gene.split(".")[1] in SCALED and position + 1 < len(choices):
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
        largest, or a weighted sum of MACs and parameters. Costs of stages depend on each other
        only through the width handed on, so the minimum is found stage by stage for each width.
        """
        smallest: dict[int, tuple[float, tuple[Stage, ...]]] = {0: (0.0, ())}
        for index in range(len(self.stages)):
            by_width: dict[int, tuple[float, tuple[Stage, ...]]] = {}
            for previous, (total, stages) in smallest.items():
                for stage, cost in self._options(index, previous, image_size, num_classes):
                    value = total + key(cost)
                    if stage.width not in by_width or value < by_width[stage.width][0]:
                        by_width[stage.width] = (value, (*stages, stage))
            smallest = by_width
        _, stages = min(smallest.values(), key=lambda entry: entry[0])
        return Architecture(stem=self.stem, stages=stages)

    def frugal(
        self, *, image_size: int | Sequence[int] = 224, num_classes: int = 1000
    ) -> list[Architecture]:
        """Every pair of MACs and parameters that no architecture beats in both, by one of each.

        Exact, and found as `extreme` finds a minimum: of what hands on the same width, what is
        beaten in both so far stays beaten.
        """
        kept: dict[int, list[tuple[Cost, tuple[Stage, ...]]]] = {0: [(Cost(), ())]}
        for index in range(len(self.stages)):
            by_width: dict[int, list[tuple[Cost, tuple[Stage, ...]]]] = {}
            for previous, prefixes in kept.items():
                steps: dict[int, list[tuple[Cost, tuple[Stage, ...]]]] = {}
                for stage, cost in self._options(index, previous, image_size, num_classes):
                    steps.setdefault(stage.width, []).append((cost, (stage,)))
                for width, options in steps.items():
                    by_width.setdefault(width, []).extend(
                        (before + cost, stages + last)
                        for cost, last in _unbeaten(options)
                        for before, stages in prefixes
                    )
            kept = {width: _unbeaten(candidates) for width, candidates in by_width.items()}
        ends = _unbeaten([end for candidates in kept.values() for end in candidates])
        return [Architecture(stem=self.stem, stages=stages) for _, stages in ends]

    def corners(self) -> Iterator[Architecture]:
        """A few architectures that together have every parameter at its largest shape.

        Each has the largest sizes, one layer per attention map, and one combination of the other
        choices; the stages take their combinations side by side.
        """
        combinations = [_corner_stages(self, index) for index in range(len(self.stages))]
        for number in range(max(map(len, combinations))):
            yield Architecture(
                stem=self.stem,
                stages=tuple(stages[number % len(stages)] for stages in combinations),
            )

    def _options(
        self, index: int, previous_width: int, image_size: int | Sequence[int], num_classes: int
    ) -> Iterator[tuple[Stage, Cost]]:
        """Every stage at that index with its cost behind a width, the stem's or head's included."""
        sizes = map_sizes(image_size, self.scaled(0.0))
        for stage in _stage_options(self, index):
            cost = stage_cost(stage, previous_width, sizes[max(index - 1, 0)], sizes[index])
            if index == 0:
                cost += stem_cost(self.stem, stage.width, _square(image_size), 3)
            if index + 1 == len(sizes):
                cost += head_cost(stage.width, num_classes)
            yield stage, cost

    def _scaled_genotype(self, fraction: float) -> dict[str, Value]:
        return {
            gene: choices[int(fraction * (len(choices) - 1) + 0.5)]
            if gene.split(".")[1] in SCALED
            else choices[0]
            for gene, choices in self.genes.items()
        }


def _unbeaten(
    candidates: list[tuple[Cost, tuple[Stage, ...]]],
) -> list[tuple[Cost, tuple[Stage, ...]]]:
    """The candidates that no other one equals or beats in both MACs and parameters."""
    front: list[tuple[Cost, tuple[Stage, ...]]] = []
    for candidate in sorted(candidates, key=lambda c: (c[0].macs, c[0].params)):
        if not front or candidate[0].params < front[-1][0].params:
            front.append(candidate)
    return front


def _square(image_size: int | Sequence[int]) -> Size:
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


def _stage(space: SearchSpace, index: int, genes: Mapping[str, Value]) -> Stage:
    """The canonical stage that the values of one stage's genes describe."""
    choices = space.stages[index]
    width = int(genes["width"])
    mixer: Mixer = NoMixer()
    if genes["mixer"] == "local_global":
        heads = width // space.head_dim
        local_heads = int(heads * float(genes["local_ratio"]))
        labels = [choice.label for choice in choices.aggregation]
        aggregation: Aggregation | None = choices.aggregation[
            labels.index(str(genes["aggregation"]))
        ]
        if local_heads == heads:
            aggregation = None
        elif isinstance(aggregation, Rates):
            aggregation = Rates(rates=aggregation.rates[: heads - local_heads])
        mixer = LocalGlobal(
            heads=heads, local_heads=local_heads, window=space.window, aggregation=aggregation
        )
    return Stage.model_validate(
        {
            "pooling": genes.get("pooling"),
            "width": width,
            "depth": genes["depth"],
            "sharing": genes["sharing"],
            "mixer": mixer,
            "feed_forward": FeedForward.model_validate(
                {"kind": genes["feed_forward"], "ratio": genes["ratio"]}
            ),
        }
    ).canonical()


@lru_cache(maxsize=64)
def _stage_options(space: SearchSpace, index: int) -> dict[Stage, dict[str, Value]]:
    """Every different stage at that index, each with the first genes that describe it."""
    genes = space.stages[index].genes()
    options: dict[Stage, dict[str, Value]] = {}
    for values in product(*genes.values()):
        chosen = dict(zip(genes, values, strict=True))
        options.setdefault(_stage(space, index, chosen), chosen)
    return options


def _corner_stages(space: SearchSpace, index: int) -> list[Stage]:
    """The stage at its largest sizes with each combination of the choices that are no sizes."""
    genes = {
        gene: values[-1:] if gene in SCALED else values
        for gene, values in space.stages[index].genes().items()
    }
    genes["sharing"] = (1,)
    ratios = space.stages[index].local_ratio
    genes["local_ratio"] = (min(ratios), max(ratios))
    stages = {
        _stage(space, index, dict(zip(genes, values, strict=True)))
        for values in product(*genes.values())
    }
    return sorted(stages, key=str)
