"""What a stage can be made of: stems, poolings, mixers, aggregations, feed-forwards, heads.

Each part says of itself what this package knows of it: its numbers and their legal values, its
closed-form cost, its label in latency tables, and its words in summaries. A new one is a class and
a row in the table of its module.
"""

from search_space.parts.aggregations import (
    AGGREGATIONS,
    AdaptiveWindow,
    Aggregation,
    FullAttention,
    Rates,
    SpatialReduction,
)
from search_space.parts.feed_forwards import FEED_FORWARDS, FeedForward, FeedForwardKind, Ratio
from search_space.parts.heads import HEADS, ClassTokenHead, Head, MeanHead
from search_space.parts.mixers import (
    LADDER_BRANCHES,
    MIXERS,
    DepthwiseConvolution,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    Mixer,
    MixerKind,
    NoMixer,
    SplitLocalGlobal,
)
from search_space.parts.poolings import POOLINGS, SEQUENCE_POOLING, Pooling
from search_space.parts.shown import ChannelGroup, Sight, Word
from search_space.parts.spec import ConvNormKind, Spec
from search_space.parts.stems import STEMS, ConvStem, HalfStem, PatchStem, Stem

__all__ = [
    "AGGREGATIONS",
    "FEED_FORWARDS",
    "HEADS",
    "LADDER_BRANCHES",
    "MIXERS",
    "POOLINGS",
    "SEQUENCE_POOLING",
    "STEMS",
    "AdaptiveWindow",
    "Aggregation",
    "ChannelGroup",
    "ClassTokenHead",
    "ConvNormKind",
    "ConvStem",
    "DepthwiseConvolution",
    "FeedForward",
    "FeedForwardKind",
    "FullAttention",
    "HalfStem",
    "Head",
    "InvertedResidual",
    "Ladder",
    "LocalGlobal",
    "MeanHead",
    "Mixer",
    "MixerKind",
    "NoMixer",
    "PatchStem",
    "Pooling",
    "Rates",
    "Ratio",
    "Sight",
    "SpatialReduction",
    "Spec",
    "SplitLocalGlobal",
    "Stem",
    "Word",
]
