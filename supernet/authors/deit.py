"""DeiT's checkpoints, which have timm's names."""

from collections.abc import Iterator

from search_space import Architecture
from supernet.authors.layout import Part, joint_attention, norms_and_feed_forward, positions


def deit(architecture: Architecture) -> Iterator[Part]:
    """One stage of blocks behind a class token."""
    (stage,) = architecture.stages
    yield Part("stem", "patch_embed")
    yield Part("head", "head")
    yield Part("stages.0.norm", "norm")
    yield from positions("stages.0", stage, "pos_embed", bilinear=False)
    for index in range(stage.depth):
        block, theirs = f"stages.0.blocks.{index}", f"blocks.{index}"
        yield from norms_and_feed_forward(block, theirs)
        yield from joint_attention(f"{block}.mixer.groups.full", f"{theirs}.attn")
