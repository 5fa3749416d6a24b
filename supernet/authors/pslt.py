"""PSLT's checkpoints (Tiny, base and Large).

Their ladder blocks split the channels in three runs, one for each branch; ours deal them out, so
that channel i is branch i mod 3's. So what reads or writes the map of such a stage has its channels
in another order, and so has the norm of the tokens that are merged.
"""

from collections.abc import Iterator

from search_space import Architecture, Ladder
from search_space.parts import LADDER_BRANCHES
from supernet.authors.layout import Part, Take, piece, relative_positions, reversed_axes, whole

DEALT = reversed_axes(LADDER_BRANCHES)
DEALT_INPUTS = reversed_axes(LADDER_BRANCHES, dim=1)
MERGED = reversed_axes(2, 2, LADDER_BRANCHES)
MERGED_INPUTS = reversed_axes(2, 2, LADDER_BRANCHES, dim=1)
"""Theirs are four runs, of the left and right column's upper and lower tokens."""


def pslt(architecture: Architecture) -> Iterator[Part]:
    """Convolutions are counted through up to the first ladder; ladder stages are `layers`."""
    yield Part("stem.convs", "patch_embed.proj")
    yield Part(f"stages.{len(architecture.stages) - 1}.norm", "norm", DEALT)
    yield Part("head.weight", "head.weight", DEALT_INPUTS)
    yield Part("head.bias", "head.bias")
    convs = layers = 0
    for number, stage in enumerate(architecture.stages):
        ours, ladder = f"stages.{number}", stage.mixer if isinstance(stage.mixer, Ladder) else None
        if stage.pooling == "mv2_se":
            entry = f"{ours}.entry.mv2_se"
            yield from _inverted_residual(entry, f"conv_layers.{convs}", dealt=ladder is not None)
            convs += 1
        else:
            merging, theirs = f"{ours}.entry.merging", f"layers.{layers - 1}.downsample"
            yield Part(f"{merging}.norm", f"{theirs}.norm", MERGED)
            yield Part(
                f"{merging}.reduction",
                f"{theirs}.reduction",
                lambda weight: DEALT(MERGED_INPUTS(weight)),
            )
        for index in range(stage.depth):
            block = f"{ours}.blocks.{index}.{stage.mixer.kind}"
            if ladder:
                yield from _ladder(block, f"layers.{layers}.blocks.{index}", ladder.window)
            else:
                yield from _inverted_residual(block, f"conv_layers.{convs}", dealt=False)
                convs += 1
        layers += ladder is not None


def _inverted_residual(ours: str, theirs: str, *, dealt: bool) -> Iterator[Part]:
    """Convolutions and norms by their places; `dealt` where a ladder reads the outputs."""
    outputs: Take = DEALT if dealt else whole
    inputs: Take = DEALT_INPUTS if dealt else whole
    yield Part(f"{ours}.expand", f"{theirs}.conv.0")
    yield Part(f"{ours}.norm1", f"{theirs}.conv.2")
    yield Part(f"{ours}.depthwise", f"{theirs}.conv.3")
    yield Part(f"{ours}.norm2", f"{theirs}.conv.5")
    yield Part(f"{ours}.project", f"{theirs}.conv.6", outputs)
    yield Part(f"{ours}.norm3.num_batches_tracked", f"{theirs}.conv.7.num_batches_tracked")
    yield Part(f"{ours}.norm3", f"{theirs}.conv.7", outputs)
    yield Part(f"{ours}.squeeze.fc1.weight", f"{theirs}.se.fc1.weight", inputs)
    yield Part(f"{ours}.squeeze.fc1.bias", f"{theirs}.se.fc1.bias")
    yield Part(f"{ours}.squeeze.fc2", f"{theirs}.se.fc2", outputs)


def _ladder(ours: str, theirs: str, window: int) -> Iterator[Part]:
    """A branch has its channels in the same order; what joins the branches has not."""
    for branch in range(LADDER_BRANCHES):
        part, their_part = f"{ours}.branches.{branch}", f"{theirs}.blocks.{branch}"
        yield from _branch(part, their_part, is_first=branch == 0, window=window)
    yield Part(f"{ours}.fusion1.weight", f"{theirs}.se.fc1.weight", DEALT_INPUTS)
    yield Part(f"{ours}.fusion1.bias", f"{theirs}.se.fc1.bias")
    yield Part(f"{ours}.fusion2", f"{theirs}.se.fc2", DEALT)
    yield Part(
        f"{ours}.pointwise.weight",
        f"{theirs}.pointconv.weight",
        lambda weight: DEALT(DEALT_INPUTS(weight)),
    )
    yield Part(f"{ours}.pointwise.bias", f"{theirs}.pointconv.bias", DEALT)


def _branch(ours: str, theirs: str, *, is_first: bool, window: int) -> Iterator[Part]:
    """The first has a `qkv`; what the others call `kv` is queries and keys."""
    attention = f"{theirs}.attn"
    joint, names = ("qkv", "qkv") if is_first else ("kv", "qk")
    for index, name in enumerate(names):
        yield Part(f"{ours}.{name}", f"{attention}.{joint}", piece(index, len(names)))
    yield Part(
        f"{ours}.position_bias.table",
        f"{attention}.relative_position_bias_table",
        relative_positions(window),
    )
    yield Part(f"{ours}.proj", f"{attention}.proj")
    yield Part(f"{ours}.norm1", f"{theirs}.norm1")
    yield Part(f"{ours}.norm2", f"{theirs}.norm2")
    convs = "fc1", "norm1", "depthwise", "norm2", "fc2", "norm3"
    for name, place in zip(convs, (0, 2, 3, 5, 6, 7), strict=True):
        yield Part(f"{ours}.feed_forward.{name}", f"{theirs}.mlp.conv.{place}")
