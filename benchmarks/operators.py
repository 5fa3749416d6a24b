"""What each operator is worth by itself: one in an otherwise plain network, trained alone.

    nice python -m benchmarks.operators --out results/reference/operators.csv

The plain network has the shape of a middling `tiny` one: conv poolings, attention to every token
without a local term, plain feed-forwards. One kind of part is replaced at a time, in every stage
that can have it. The table says how the loss falls, so that operators that learn slowly show
beside those that are bad; `seconds` are those of one thread.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.alone import Training, add_options, work_off
from search_space import (
    AdaptiveWindow,
    Architecture,
    ConvStem,
    DepthwiseConvolution,
    FeedForward,
    FullAttention,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    NoMixer,
    Rates,
    SpatialReduction,
    SplitLocalGlobal,
    Stage,
)

WIDTHS, DEPTHS = (32, 64, 96, 192), (1, 1, 2, 1)
RATES = ((8,), (4, 2), (2, 1), (1,))
PLAIN = FullAttention(local_term=False)
POOLINGS = ("patch", "max_pool", "deformable", "merging", "mv2_se", "fused_mbconv", "light")
FEED_FORWARDS = ("detail_specific", "ccf", "ccf_plus")
ADAPTIVE = AdaptiveWindow()

Mixers = Callable[[int, int], Any]
MIXERS: dict[str, Mixers] = {
    "none": lambda index, heads: NoMixer(),
    "full with local term": lambda index, heads: LocalGlobal(
        heads=heads, aggregation=FullAttention()
    ),
    "rates": lambda index, heads: LocalGlobal(
        heads=heads, aggregation=Rates(rates=RATES[index][:heads])
    ),
    "reduction": lambda index, heads: LocalGlobal(
        heads=heads, aggregation=SpatialReduction(rate=RATES[index][0])
    ),
    "adaptive": lambda index, heads: LocalGlobal(heads=heads, aggregation=ADAPTIVE),
    "window": lambda index, heads: LocalGlobal(heads=heads, local_heads=heads),
    "half local, adaptive": lambda index, heads: LocalGlobal(
        heads=heads, local_heads=heads // 2, aggregation=ADAPTIVE
    ),
    "half local, adaptive, split": lambda index, heads: SplitLocalGlobal(
        heads=heads, local_heads=heads // 2, aggregation=ADAPTIVE
    ).canonical(),
    "depthwise": lambda index, heads: DepthwiseConvolution(),
    "ladder": lambda index, heads: (
        Ladder(heads=heads * 2 // 3)
        if heads % 3 == 0
        else LocalGlobal(heads=heads, aggregation=PLAIN)
    ),
    "mv2_se": lambda index, heads: InvertedResidual(),
}


def network(
    *,
    pooling: str = "conv",
    mixer: Mixers = lambda index, heads: LocalGlobal(heads=heads, aggregation=PLAIN),
    feed_forward: str = "plain",
) -> Architecture:
    """The plain network with these parts in every stage."""
    stages = []
    for index, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        mixing = mixer(index, width // 32)
        stages.append(
            Stage(
                pooling=pooling if index else None,
                width=width,
                depth=depth,
                mixer=mixing,
                feed_forward=None
                if mixing.is_whole_block
                else FeedForward(kind=feed_forward, ratio=4),
                conv_norm="layer",
            ).canonical()
        )
    return Architecture(stem=ConvStem(width=16), stages=tuple(stages))


def variants() -> Iterator[tuple[str, Architecture]]:
    """The plain network, then each that differs from it in one kind of part."""
    yield "plain", network()
    for pooling in POOLINGS:
        yield f"pooling {pooling}", network(pooling=pooling)
    for kind in FEED_FORWARDS:
        yield f"feed-forward {kind}", network(feed_forward=kind)
    for name, mixer in MIXERS.items():
        yield f"mixer {name}", network(mixer=mixer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=1)
    add_options(parser)
    options = parser.parse_args()
    trainings = [
        Training(name=name, architecture=architecture, seed=seed)
        for seed in range(options.seeds)
        for name, architecture in variants()
    ]
    work_off(trainings, options.out, options)


if __name__ == "__main__":
    main()
