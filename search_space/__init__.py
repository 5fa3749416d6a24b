"""What can be built: architectures, the spaces that hold them, their cost. No torch."""

from search_space.architecture import (
    AdaptiveWindow,
    Aggregation,
    Architecture,
    ArchitectureError,
    ConvStem,
    FeedForward,
    FullAttention,
    LocalGlobal,
    MeanHead,
    Mixer,
    NoMixer,
    PatchStem,
    Rates,
    Stage,
    Stem,
    map_sizes,
)
from search_space.cost import Cost, cost_table, total_cost
from search_space.designs import DESIGNS, PublishedDesign
from search_space.presets import PRESETS
from search_space.space import Genotype, SearchSpace, StageChoices

__all__ = [
    "DESIGNS",
    "PRESETS",
    "AdaptiveWindow",
    "Aggregation",
    "Architecture",
    "ArchitectureError",
    "ConvStem",
    "Cost",
    "FeedForward",
    "FullAttention",
    "Genotype",
    "LocalGlobal",
    "MeanHead",
    "Mixer",
    "NoMixer",
    "PatchStem",
    "PublishedDesign",
    "Rates",
    "SearchSpace",
    "Stage",
    "StageChoices",
    "Stem",
    "cost_table",
    "map_sizes",
    "total_cost",
]
