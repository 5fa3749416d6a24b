"""LIT's checkpoints: those of Ti, and those of S, M and B, from two code bases."""

from collections.abc import Iterator

from search_space import Architecture, FullAttention, LocalGlobal
from supernet.authors.layout import (
    Part,
    joint_attention,
    norms_and_feed_forward,
    positions,
    relative_positions,
)


def lit(architecture: Architecture) -> Iterator[Part]:
    """S, M and B: as in Swin, `downsample` stands at the end of the stage before."""
    yield Part("stem", "patch_embed")
    yield Part("head", "head")
    yield Part(f"stages.{len(architecture.stages) - 1}.norm", "norm")
    for number, stage in enumerate(architecture.stages):
        ours, theirs = f"stages.{number}", f"layers.{number}"
        if number:
            yield from _merging(f"{ours}.entry.deformable", f"layers.{number - 1}.downsample")
        for index in range(stage.depth):
            block, their_block = f"{ours}.blocks.{index}", f"{theirs}.blocks.{index}"
            yield from norms_and_feed_forward(block, their_block, mixes=stage.mixer.mixes)
            if isinstance(stage.mixer, LocalGlobal):
                group = f"{block}.mixer.groups.full"
                yield from joint_attention(group, f"{their_block}.attn")
                aggregation = stage.mixer.aggregation
                assert isinstance(aggregation, FullAttention) and aggregation.relative is not None
                yield Part(
                    f"{group}.position_bias.table",
                    f"{their_block}.attn.relative_position_bias_table",
                    relative_positions(aggregation.relative),
                )


def lit_tiny(architecture: Architecture) -> Iterator[Part]:
    """Ti: as in PVT, with positions in every stage."""
    yield Part("stem", "patch_embed1")
    yield Part("head", "head")
    yield Part(f"stages.{len(architecture.stages) - 1}.norm", "norm")
    for number, stage in enumerate(architecture.stages, start=1):
        ours = f"stages.{number - 1}"
        if number > 1:
            yield from _merging(f"{ours}.entry.deformable", f"patch_embed{number}")
        yield from positions(ours, stage, f"pos_embed{number}", bilinear=True)
        for index in range(stage.depth):
            block, theirs = f"{ours}.blocks.{index}", f"block{number}.{index}"
            yield from norms_and_feed_forward(block, theirs, mixes=stage.mixer.mixes)
            if stage.mixer.mixes:
                yield from joint_attention(f"{block}.mixer.groups.full", f"{theirs}.attn")


def _merging(ours: str, theirs: str) -> Iterator[Part]:
    """Deformable merging."""
    yield Part(f"{ours}.offset", f"{theirs}.dconv.conv_offset")
    yield Part(f"{ours}.conv", f"{theirs}.dconv")
    yield Part(f"{ours}.norm", f"{theirs}.norm_layer")
