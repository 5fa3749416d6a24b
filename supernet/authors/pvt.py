"""PVT's checkpoints."""

from collections.abc import Iterator

from search_space import Architecture, LocalGlobal, SpatialReduction
from supernet.authors.layout import Part, norms_and_feed_forward, piece, positions


def pvt(architecture: Architecture) -> Iterator[Part]:
    """Positions in every stage; queries stand apart from `kv`, which may see a reduced map."""
    yield Part("stem", "patch_embed1")
    yield Part("head", "head")
    yield Part(f"stages.{len(architecture.stages) - 1}.norm", "norm")
    for number, stage in enumerate(architecture.stages, start=1):
        ours = f"stages.{number - 1}"
        if number > 1:
            yield Part(f"{ours}.entry.patch.conv", f"patch_embed{number}.proj")
            yield Part(f"{ours}.entry.patch.norm", f"patch_embed{number}.norm")
        yield from positions(ours, stage, f"pos_embed{number}", bilinear=True)
        assert isinstance(stage.mixer, LocalGlobal)
        for index in range(stage.depth):
            block, theirs = f"{ours}.blocks.{index}", f"block{number}.{index}"
            yield from norms_and_feed_forward(block, theirs)
            group, attention = f"{block}.mixer.groups.full", f"{theirs}.attn"
            if isinstance(aggregation := stage.mixer.aggregation, SpatialReduction):
                group = f"{block}.mixer.groups.reduction{aggregation.rate}"
                yield Part(f"{group}.reduce", f"{attention}.sr")
                yield Part(f"{group}.norm", f"{attention}.norm")
            yield Part(f"{group}.q", f"{attention}.q")
            yield Part(f"{group}.k", f"{attention}.kv", piece(0, 2))
            yield Part(f"{group}.v", f"{attention}.kv", piece(1, 2))
            yield Part(f"{group}.proj", f"{attention}.proj")
