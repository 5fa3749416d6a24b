"""The segments of a network: what is timed as one, and tabled under one label.

A network is a line of segments: the stem, each stage's entry, of each block the mixer and the
feed-forward (or the whole block), the closing norm of a stage, the head. Two segments with the same
label do the same work on the same map, wherever they stand.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from search_space.architecture import Architecture, Stage, map_sizes, stem_size
from search_space.coverage import covering_architectures
from search_space.encoding import head_behind
from search_space.extremes import minimum
from search_space.operators import Size
from search_space.parts import POOLINGS, Head, Stem
from search_space.space import SearchSpace


@dataclass(frozen=True, order=True)
class Segment:
    """One stretch of a network.

    Attributes:
        operator: Which part of a network it is and how it works, whatever its numbers, such as
            `mixer rates own`.
        label: All that its latency depends on, for people and as the key of a table, such as
            `mixer 64 heads 2 rates-8-4 own @56x56`.
        size: Height and width in tokens of the map that it writes; None of the head.
    """

    operator: str
    label: str
    size: Size | None


def segments(architecture: Architecture, *, image_size: int | Sequence[int] = 224) -> list[Segment]:
    """The segments of a network in the order of its forward pass.

    `supernet.Network.segment_starts` gives the modules that they begin with. The number of classes
    is left out: the classifier is one product with one vector.
    """
    architecture = architecture.canonical()
    stem, stages = architecture.stem, architecture.stages
    found = [_stem(stem, stages[0].width, stem_size(image_size, stem))]
    previous = stem.width_of(stages[0].width)
    for stage, size in zip(stages, map_sizes(image_size, architecture), strict=True):
        found += entry_segments(stage, previous, size)
        found += body_segments(stage, size)
        previous = stage.width
    found.append(_head(architecture.head, previous))
    return found


def space_segments(space: SearchSpace, *, image_size: int | Sequence[int] = 224) -> set[Segment]:
    """Every segment that an architecture of the space can have."""
    return {
        segment
        for architecture in covering_architectures(space)
        for segment in segments(architecture, image_size=image_size)
    }


def fastest(
    space: SearchSpace,
    time: Callable[[Iterable[Segment]], float],
    *,
    image_size: int | Sequence[int] = 224,
) -> Architecture:
    """The architecture of a space with the smallest sum of its segments' times, exactly."""

    def around(stage: Stage, index: int, previous_width: int) -> float:
        sizes = space.map_sizes(stage.class_token, image_size)
        found = entry_segments(stage, previous_width, sizes[index])
        if index == 0:
            found.append(_stem(space.stem, stage.width, stem_size(image_size, space.stem)))
        if index + 1 == len(sizes):
            found.append(_head(head_behind(stage), stage.width))
        return time(found)

    return minimum(
        space,
        lambda stage, size: time(body_segments(stage, size)),
        around,
        image_size=image_size,
    )


def entry_segments(stage: Stage, previous_width: int, size: Size) -> list[Segment]:
    """How a stage of that map begins behind that width; empty where nothing does."""
    parts = [f"{stage.pooling} {previous_width} to {stage.width}"] if stage.pooling else []
    if stage.pooling is not None and POOLINGS[stage.pooling].has_conv_norm:
        parts.append(f"{stage.conv_norm} norm")
    if stage.position is not None:
        parts.append(f"position {stage.position}")
    if stage.adds_class_token:
        parts.append("class token")
    operator = f"entry {stage.pooling or 'tokens'}"
    return [_on_map(operator, f"entry {' '.join(parts)}", size)] if parts else []


@lru_cache(maxsize=1 << 17)
def body_segments(stage: Stage, size: Size) -> tuple[Segment, ...]:
    """The blocks of a canonical stage on its map, and its closing norm."""
    found = [segment for index in range(stage.depth) for segment in _block(stage, index, size)]
    if stage.norm:
        found.append(_on_map("norm", f"norm {stage.width}", size))
    return tuple(found)


def part_names(architecture: Architecture) -> list[str]:
    """The row of `search_space.cost_table` that each of `segments` belongs to, in their order."""
    architecture = architecture.canonical()
    names = ["stem"]
    for number, stage in enumerate(architecture.stages):
        names += [f"stages.{number}.entry"] * len(entry_segments(stage, 0, (0, 0)))
        for index in range(stage.depth):
            name = f"stages.{number}.blocks.{index}"
            names += [name for _ in _block(stage, index, (0, 0))]
        names += [f"stages.{number}.norm"] * stage.norm
    return [*names, "head"]


def _stem(stem: Stem, width: int, size: Size) -> Segment:
    return _on_map(f"stem {stem.kind}", f"stem {stem.label(width)}", size)


def _block(stage: Stage, index: int, size: Size) -> Iterator[Segment]:
    width, mixer, role = stage.width, stage.mixer, stage.map_role(index)
    where = "block" if mixer.is_whole_block else "mixer"
    if mixer.mixes:
        norm = f" {stage.conv_norm} norm" if mixer.has_conv_norm else ""
        label = f"{where} {mixer.label(width, role)}{norm}"
        yield _on_map(f"{where} {mixer.latency_group(role)}", label, size)
    if stage.feed_forward is not None:
        operator = f"feed-forward {stage.feed_forward.kind}"
        yield _on_map(operator, f"{operator} {width} ratio {stage.feed_forward.ratio:g}", size)


def _on_map(operator: str, what: str, size: Size) -> Segment:
    return Segment(operator, f"{what} @{size[0]}x{size[1]}", size)


def _head(head: Head, width: int) -> Segment:
    return Segment(f"head {head.kind}", f"head {head.label(width)}", None)
