"""What can be built: architectures, the spaces that hold them, their cost. No torch."""

from search_space.architecture import (
    Architecture,
    ArchitectureError,
    Stage,
    map_sizes,
)
from search_space.cost import cost_table, total_cost
from search_space.designs import DESIGNS, PublishedDesign
from search_space.encoding import Genotype
from search_space.operators import Cost
from search_space.parts import (
    AdaptiveWindow,
    Aggregation,
    ClassTokenHead,
    ConvStem,
    DepthwiseConvolution,
    FeedForward,
    FullAttention,
    HalfStem,
    Head,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    MeanHead,
    Mixer,
    NoMixer,
    PatchStem,
    Pooling,
    Rates,
    SpatialReduction,
    SplitLocalGlobal,
    Stem,
)
from search_space.presets import PRESETS
from search_space.space import SearchSpace, StageChoices

__all__ = [
    "DESIGNS",
    "PRESETS",
    "AdaptiveWindow",
    "Aggregation",
    "Architecture",
    "ArchitectureError",
    "ClassTokenHead",
    "ConvStem",
    "Cost",
    "DepthwiseConvolution",
    "FeedForward",
    "FullAttention",
    "Genotype",
    "HalfStem",
    "Head",
    "InvertedResidual",
    "Ladder",
    "LocalGlobal",
    "MeanHead",
    "Mixer",
    "NoMixer",
    "PatchStem",
    "Pooling",
    "PublishedDesign",
    "Rates",
    "SearchSpace",
    "SpatialReduction",
    "SplitLocalGlobal",
    "Stage",
    "StageChoices",
    "Stem",
    "cost_table",
    "map_sizes",
    "total_cost",
]
