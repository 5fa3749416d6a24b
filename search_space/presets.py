"""The named search spaces.

The gene tables follow one pattern: widths are multiples of one head of 32 channels, rates halve
from stage to stage as the maps do (Shunted Transformer), and the last stage, whose map at 224 px is
a single window, attends fully.
"""

from search_space.parts import (
    AdaptiveWindow,
    ConvStem,
    FeedForwardKind,
    FullAttention,
    MixerKind,
    PatchStem,
    Pooling,
    Rates,
)
from search_space.space import SearchSpace, StageChoices

_POOLING: tuple[Pooling, ...] = ("conv", "max_pool", "light", "deformable")
_EARLY: tuple[MixerKind, ...] = ("local_global", "split_local_global", "depthwise", "none")
_LATE: tuple[MixerKind, ...] = ("local_global", "split_local_global", "depthwise", "ladder")
_FIRST: tuple[MixerKind, ...] = ("local_global", "depthwise", "none")
_LAST: tuple[MixerKind, ...] = ("local_global", "depthwise", "ladder")
_FEED_FORWARD: tuple[FeedForwardKind, ...] = ("detail_specific", "plain", "ccf_plus")
_RATIOS_OF_HEADS = (0.0, 0.25, 0.5, 0.75, 1.0)

NANO = SearchSpace(
    name="nano",
    stem=ConvStem(width=16),
    stages=(
        StageChoices(depth=(1,), width=(32,), aggregation=(Rates(rates=(8,)),), ratio=(2, 4)),
        StageChoices(
            depth=(1, 2),
            width=(32, 64),
            pooling=("conv", "max_pool"),
            sharing=(1, 2),
            local_ratio=(0.0, 0.5),
            aggregation=(Rates(rates=(4, 2)),),
            feed_forward=("detail_specific", "plain"),
            ratio=(2,),
        ),
        StageChoices(
            depth=(1,),
            width=(64, 96),
            pooling=("conv",),
            local_ratio=(0.0, 1.0),
            aggregation=(FullAttention(),),
            ratio=(2,),
        ),
    ),
)
"""A few hundred small architectures that can all be listed: for tests and exact regret."""

TINY = SearchSpace(
    name="tiny",
    stem=ConvStem(width=16),
    stages=(
        StageChoices(
            depth=(1, 2),
            width=(32,),
            mixer=_FIRST,
            sharing=(1, 2),
            local_ratio=(0.0, 1.0),
            aggregation=(Rates(rates=(8,)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 4),
        ),
        StageChoices(
            depth=(1, 2),
            width=(32, 64),
            pooling=_POOLING,
            mixer=_EARLY,
            sharing=(1, 2),
            local_ratio=(0.0, 0.5, 1.0),
            aggregation=(Rates(rates=(4, 2)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 4),
        ),
        StageChoices(
            depth=(1, 2, 4),
            width=(64, 96, 128),
            pooling=_POOLING,
            mixer=_LATE,
            sharing=(1, 2),
            local_ratio=_RATIOS_OF_HEADS,
            aggregation=(Rates(rates=(2, 1)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 3, 4),
        ),
        StageChoices(
            depth=(1, 2),
            width=(128, 192, 256),
            pooling=_POOLING,
            mixer=_LAST,
            sharing=(1, 2),
            aggregation=(FullAttention(), FullAttention(local_term=False)),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 3, 4),
        ),
    ),
)
"""Small networks, of 0.07 to 0.83 GMACs at 224 px."""

BASE = SearchSpace(
    name="base",
    stem=ConvStem(width=64),
    stages=(
        StageChoices(
            depth=(1, 2, 3),
            width=(32, 64),
            mixer=_EARLY,
            sharing=(1, 2, 3),
            local_ratio=(0.0, 0.5, 1.0),
            aggregation=(Rates(rates=(8, 4)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 4, 8),
        ),
        StageChoices(
            depth=(2, 3, 4),
            width=(64, 96, 128),
            pooling=_POOLING,
            mixer=_EARLY,
            sharing=(1, 2, 3),
            local_ratio=_RATIOS_OF_HEADS,
            aggregation=(Rates(rates=(4, 2)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 4, 8),
        ),
        StageChoices(
            depth=(4, 6, 9, 12),
            width=(128, 192, 256),
            pooling=_POOLING,
            mixer=_LATE,
            sharing=(1, 2, 3),
            local_ratio=_RATIOS_OF_HEADS,
            aggregation=(Rates(rates=(2, 1)), Rates(rates=(4, 2)), AdaptiveWindow()),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 3, 4),
        ),
        StageChoices(
            depth=(1, 2, 3),
            width=(256, 384, 512),
            pooling=_POOLING,
            mixer=_LAST,
            sharing=(1, 2, 3),
            aggregation=(FullAttention(), FullAttention(local_term=False)),
            feed_forward=_FEED_FORWARD,
            ratio=(2, 3, 4),
        ),
    ),
)
"""The default: 0.28 to 7.2 GMACs at 224 px; Shunted-T is one of its members."""

PSVIT = SearchSpace(
    name="psvit",
    stem=PatchStem(patch_size=16, norm=False),
    head_dim=64,
    layout=("map", "sequence"),
    stages=tuple(
        StageChoices(
            depth=depth,
            width=width,
            pooling=("max_pool",) if number else (),
            sharing=(1, 2, 3),
            aggregation=(FullAttention(local_term=False),),
            feed_forward=("plain",),
            ratio=(2, 3, 4),
            position=None if number else 14,
            norm=number == 2,
        )
        for number, (depth, width) in enumerate(
            (((2, 4, 6), (128, 192)), ((2, 4, 6), (192, 256)), ((1, 2, 4), (192, 256, 384)))
        )
    ),
)
"""PSViT's compact set on a DeiT-like transformer: where tokens are pooled, which layers share an
attention map, on a map (2D) or on a sequence behind a class token (1D)."""

PRESETS = {space.name: space for space in (NANO, TINY, BASE, PSVIT)}
