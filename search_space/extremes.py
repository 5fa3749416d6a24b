"""Extremes: the cheapest, the largest and the best-placed architectures of a space, exactly.

Parts of stages depend on each other only through the width that is handed on, so that none of this
lists the space.
"""

import operator
from collections.abc import Callable, Sequence

from search_space import encoding
from search_space.architecture import Architecture, Stage, stem_size
from search_space.cost import body_cost, entry_cost, head_cost, stem_cost
from search_space.operators import Cost, Size, pixels
from search_space.space import SearchSpace

_Prefix = tuple[Cost, tuple[Stage, ...]]
"""The first stages of an architecture, and what they cost."""


def extreme(
    space: SearchSpace,
    key: Callable[[Cost], float],
    *,
    join: Callable[[float, float], float] = operator.add,
    image_size: int | Sequence[int] = 224,
    num_classes: int = 1000,
) -> Architecture:
    """The architecture with the smallest `key(cost)`, exactly.

    Args:
        space: The search space.
        key: Whose value for a network is the joint value of its parts: a sum, such as MACs, their
            negative for the largest, or a weighted sum of MACs and parameters; with `max` as
            `join` the peak, with `min` its negative.
        join: The joint value of two parts.
        image_size: Side of a square image, or (height, width), in pixels.
        num_classes: Outputs of the classifier.
    """
    return minimum(
        space,
        lambda stage, size: key(body_cost(stage, size)),
        lambda stage, index, width: key(
            _around(space, stage, index, width, image_size, num_classes)
        ),
        join=join,
        image_size=image_size,
    )


def minimum(
    space: SearchSpace,
    body: Callable[[Stage, Size], float],
    around: Callable[[Stage, int, int], float],
    *,
    join: Callable[[float, float], float] = operator.add,
    image_size: int | Sequence[int] = 224,
) -> Architecture:
    """The architecture whose parts have the smallest sum, or other joint value, exactly.

    Parts of stages depend on each other only through the width handed on, so the minimum is
    found stage by stage for each width.

    Args:
        space: The search space.
        body: Value of a stage's blocks and closing norm on a map.
        around: Value of a stage's entry, given its index and the width before it (that of the
            stem, or of the stage itself if it is the first), and of the stem or head that
            adjoins it.
        join: The joint value of two parts; one that never falls where either of them grows, such
            as `max` for the costliest part.
        image_size: Side of a square image, or (height, width), in pixels.
    """
    ends: list[tuple[float, tuple[Stage, ...]]] = []
    for layout in space.layout:
        smallest: dict[int, tuple[float, tuple[Stage, ...]]] = {0: (0.0, ())}
        for index, size in enumerate(space.map_sizes(layout == "sequence", image_size)):
            best: dict[int, tuple[float, Stage]] = {}
            for option in encoding.bodies(space, index, layout):
                value = body(option, size)
                if option.width not in best or value < best[option.width][0]:
                    best[option.width] = value, option
            entered = [
                (value, encoding.entered(space, option, pooling))
                for value, option in best.values()
                for pooling in encoding.poolings(space, index, layout)
            ]
            by_width: dict[int, tuple[float, tuple[Stage, ...]]] = {}
            for previous, (total, stages) in smallest.items():
                for value, stage in entered:
                    width = previous or space.stem.width_of(stage.width)
                    value = join(value, join(total, around(stage, index, width)))
                    if stage.width not in by_width or value < by_width[stage.width][0]:
                        by_width[stage.width] = (value, (*stages, stage))
            smallest = by_width
        ends.extend(smallest.values())
    _, stages = min(ends, key=lambda entry: entry[0])
    return space.assembled(stages)


def largest_that_fits(
    space: SearchSpace, fits: Callable[[Architecture], bool], *, start: Architecture | None = None
) -> Architecture | None:
    """A large, evenly scaled architecture that fits.

    Sizes are scaled down together until the architecture fits, then single sizes are raised,
    in turn, as long as it still does. All other genes keep their defaults. Where no scale
    fits, the sizes of `start`, which does, are raised; without it the answer is None.
    """
    steps = 4 * max(len(choices) for choices in space.genes.values())
    for step in range(steps, -1, -1):
        genotype = space.scaled_genotype(step / steps)
        if fits(space.decode(genotype)):
            break
    else:
        if start is None:
            return None
        genotype = space.genotype(start)
    raised = True
    while raised:
        raised = False
        for gene, choices in space.genes.items():
            position = choices.index(genotype[gene])
            if encoding.is_size(gene) and position + 1 < len(choices):
                larger = {**genotype, gene: choices[position + 1]}
                if fits(space.decode(larger)):
                    genotype, raised = larger, True
    return space.decode(genotype)


def pareto_front_of_costs(
    space: SearchSpace, *, image_size: int | Sequence[int] = 224, num_classes: int = 1000
) -> list[Architecture]:
    """Every pair of MACs and parameters that no architecture beats in both, by one of each.

    Exact, and found as `extreme` finds a minimum: of what hands on the same width, what is
    beaten in both so far stays beaten.
    """
    ends: list[_Prefix] = []
    for layout in space.layout:
        kept: dict[int, list[_Prefix]] = {0: [(Cost(), ())]}
        for index in range(len(space.stages)):
            by_width: dict[int, list[_Prefix]] = {}
            alike = _alike(space, index, layout, image_size)
            for previous, prefixes in kept.items():
                for options in alike:
                    _, (stage,) = options[0]
                    width = previous or space.stem.width_of(stage.width)
                    around = _around(space, stage, index, width, image_size, num_classes)
                    by_width.setdefault(stage.width, []).extend(
                        (before + around + body, stages + last)
                        for body, last in options
                        for before, stages in prefixes
                    )
            kept = {width: _unbeaten(candidates) for width, candidates in by_width.items()}
        ends += [end for candidates in kept.values() for end in candidates]
    return [space.assembled(stages) for _, stages in _unbeaten(ends)]


def _alike(
    space: SearchSpace, index: int, layout: str, image_size: int | Sequence[int]
) -> list[list[_Prefix]]:
    """The unbeaten bodies at that index with their costs, those of one entry together."""
    size = space.map_sizes(layout == "sequence", image_size)[index]
    by_width: dict[int, list[_Prefix]] = {}
    for body in encoding.bodies(space, index, layout):
        by_width.setdefault(body.width, []).append((body_cost(body, size), (body,)))
    unbeaten = [_unbeaten(candidates) for candidates in by_width.values()]
    return [
        [(cost, (encoding.entered(space, body, pooling),)) for cost, (body,) in candidates]
        for candidates in unbeaten
        for pooling in encoding.poolings(space, index, layout)
    ]


def _around(
    space: SearchSpace,
    stage: Stage,
    index: int,
    previous_width: int,
    image_size: int | Sequence[int],
    num_classes: int,
) -> Cost:
    """Cost of a stage's entry behind that width, and of the stem or head that adjoins it."""
    sizes = space.map_sizes(stage.class_token, image_size)
    previous_size = sizes[index - 1] if index else stem_size(image_size, space.stem)
    cost = entry_cost(stage, previous_width, previous_size, sizes[index])
    if index == 0:
        cost += stem_cost(space.stem, stage.width, pixels(image_size), 3)
    if index + 1 == len(sizes):
        cost += head_cost(encoding.head_behind(stage), stage.width, sizes[index], num_classes)
    return cost


def _unbeaten(candidates: list[_Prefix]) -> list[_Prefix]:
    """The candidates that no other one equals or beats in both MACs and parameters."""
    front: list[_Prefix] = []
    for candidate in sorted(candidates, key=lambda c: (c[0].macs, c[0].params)):
        if not front or candidate[0].params < front[-1][0].params:
            front.append(candidate)
    return front
