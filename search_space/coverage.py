"""Coverage: a few architectures that together have every weight, or every part, of a space."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import product

from search_space import encoding
from search_space.architecture import Architecture, Stage
from search_space.parts import MIXERS
from search_space.space import SearchSpace, StageChoices


def corners(space: SearchSpace) -> Iterator[Architecture]:
    """A few architectures that together have every parameter at its largest shape.

    Each has the largest sizes and one layer per attention map. The other choices of a part of
    a stage (pooling, mixer, feed-forward) are taken in turn, side by side over parts and
    stages. What that leaves out has corners of its own: a mixer that needs another width than the
    largest, one that shares weights with few others of its kind, and a feed-forward whose turns all
    fell to whole blocks.
    """
    for layout in space.layout:
        turns = [_corner_stages(space, index, layout) for index in range(len(space.stages))]
        # The poolings behind a stage that is narrow in a turn have theirs again behind a wide one.
        wide = [[s for s in stages if s.width == stages[0].width] for stages in turns]
        yielded: set[tuple[Stage, ...]] = set()
        for some in (turns, wide):
            for number in range(max(map(len, some))):
                corner = tuple(stages[number % len(stages)] for stages in some)
                if corner not in yielded:
                    yielded.add(corner)
                    yield space.assembled(corner)


def covering_architectures(space: SearchSpace) -> Iterator[Architecture]:
    """Architectures that together have every stem, entry, block and head of the space.

    An entry depends on a stage's width and pooling and on the width before it; a block on
    everything else of its stage. Stages beside the one in question are the first of their kind.
    """
    for layout in space.layout:
        bodies = [list(encoding.bodies(space, index, layout)) for index in range(len(space.stages))]
        poolings = [encoding.poolings(space, index, layout) for index in range(len(space.stages))]
        first = [
            encoding.entered(space, body, pooling)
            for (body, *_), (pooling, *_) in zip(bodies, poolings, strict=True)
        ]
        for index, found in enumerate(bodies):
            before = first[:index]
            for body in found:
                stage = encoding.entered(space, body, poolings[index][0])
                yield space.assembled([*before, stage, *first[index + 1 :]])
            of_width = {body.width: body for body in found}
            earlier = {body.width: body for body in bodies[index - 1]} if index else {0: found[0]}
            for body, pooling, link in product(
                of_width.values(), poolings[index], earlier.values()
            ):
                stage = encoding.entered(space, body, pooling)
                if index:
                    before[-1] = encoding.entered(space, link, poolings[index - 1][0])
                yield space.assembled([*before, stage, *first[index + 1 :]])


def _corner_stages(space: SearchSpace, index: int, layout: str) -> list[Stage]:
    """The stage at its largest sizes, its other choices part by part; see `corners`."""
    choices = space.stages[index]
    genes = choices.genes()
    largest = {gene: values[-1] for gene, values in genes.items() if gene in encoding.SIZES}
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
    for kind in choices.mixer:
        of_kind = [mixer for mixer in mixers if mixer["mixer"] == kind]
        for fits in (True, False):  # where it does not fit, its gene means another mixer
            widths = [w for w in choices.width if MIXERS[kind].fits(space, w) is fits]
            if widths and widths[-1] != choices.width[-1]:
                corners += [{**corners[0], **mixer, "width": widths[-1]} for mixer in of_kind]
    corners += [{**corners[0], **genes} for genes in _unshared(space, choices)]
    stages = [encoding.stage(space, index, layout, corner) for corner in corners]
    met = {stage.feed_forward.kind for stage in stages if stage.feed_forward is not None}
    beside = [mixer for mixer in mixers if not MIXERS[str(mixer["mixer"])].is_whole_block]
    stages += [
        encoding.stage(space, index, layout, {**corners[0], **beside[0], "feed_forward": kind})
        for kind in choices.feed_forward
        if beside and kind not in met
    ]
    stages += _missing(space, index, layout, corners[0], stages)
    return list(dict.fromkeys(stages))


def _missing(
    space: SearchSpace,
    index: int,
    layout: str,
    largest: Mapping[str, encoding.Value],
    stages: Sequence[Stage],
) -> list[Stage]:
    """The widest stages with a kind of part that the given ones lack, or have in narrower ones.

    What a gene means depends on others: of three heads a quarter is none, so that a mixer with
    local heads is one without.
    """
    genes = space.stages[index].genes()
    missing: list[Stage] = []
    for parts_of, names in (
        (_mixer_parts, ("width", "mixer", "local_ratio", "aggregation")),
        (_feed_forward_parts, ("width", "mixer", "feed_forward")),
    ):
        widths, widest = dict[Hashable, int](), dict[Hashable, Stage]()
        for stage in stages:
            for part in parts_of(stage):
                widths[part] = max(widths.get(part, 0), stage.width)
        for values in product(*(genes[name] for name in names)):  # widths ascend
            chosen = {**largest, **dict(zip(names, values, strict=True))}
            stage = encoding.stage(space, index, layout, chosen)
            widest |= dict.fromkeys(parts_of(stage), stage)
        missing += [stage for part, stage in widest.items() if stage.width > widths.get(part, 0)]
    return missing


def _mixer_parts(stage: Stage) -> list[Hashable]:
    """What stands in the names of a mixer's weights: its kind, and that and rate of each group."""
    mixer = stage.mixer
    known = mixer.kind, mixer.unshared(stage.width)
    if (aggregation := getattr(mixer, "aggregation", None)) is None:
        return [known]
    return [(*known, aggregation.kind, rate) for rate in getattr(aggregation, "rates", (0,))]


def _feed_forward_parts(stage: Stage) -> list[Hashable]:
    return [] if stage.feed_forward is None else [stage.feed_forward.kind]


def _unshared(space: SearchSpace, choices: StageChoices) -> list[dict[str, encoding.Value]]:
    """For all that stands in names of weights, the genes of the widest mixer that has it there."""
    widest: dict[str, dict[str, encoding.Value]] = {}
    genes = choices.genes()
    names = ("width", "mixer", "local_ratio", "aggregation")
    for values in product(*(genes[name] for name in names)):  # widths ascend
        chosen = dict(zip(names, values, strict=True))
        name = encoding.mixer(space, choices, chosen).unshared(int(chosen["width"]))
        widest[f"{chosen['mixer']} {name}" if name else ""] = chosen
    return [chosen for name, chosen in widest.items() if name]
