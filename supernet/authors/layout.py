"""Where a tensor of ours is in the authors' checkpoint, and how it is taken from there."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from timm.layers import resample_abs_pos_embed, resize_rel_pos_bias_table
from torch import Tensor

from search_space import Architecture, Stage

Take = Callable[[Tensor], Tensor]
"""From a tensor of theirs to one of ours, up to dimensions of size one."""


def whole(tensor: Tensor) -> Tensor:
    """Takes it as it is."""
    return tensor


@dataclass(frozen=True)
class Part:
    """A module or a tensor of ours, and where the authors have it.

    Attributes:
        ours: Its name.
        theirs: Likewise. What stands in a module has the same names in both.
        take: How each of its tensors is taken.
    """

    ours: str
    theirs: str
    take: Take = whole


Layout = Callable[[Architecture], Iterator[Part]]
"""All parts of a network, by its architecture."""


def piece(index: int, of: int, *, dim: int = 0) -> Take:
    """Takes one of several equal pieces along a dimension, such as the keys of a `qkv`."""

    def take(tensor: Tensor) -> Tensor:
        pieces: Tensor = tensor.unflatten(dim, (of, -1))
        return pieces.select(dim, index)

    return take


def reversed_axes(*sizes: int, dim: int = 0) -> Take:
    """Takes channels in another order: those that count (*sizes, rest) count (rest, *sizes⁻¹).

    Args:
        sizes: Of all but the last of the axes that a channel's number runs over.
        dim: Where the channels are.
    """
    last = len(sizes)

    def take(tensor: Tensor) -> Tensor:
        axes: Tensor = tensor.movedim(dim, 0).unflatten(0, (*sizes, -1))
        order = (*range(last, -1, -1), *range(last + 1, axes.ndim))
        return axes.permute(order).flatten(0, last).movedim(0, dim)

    return take


def relative_positions(side: int) -> Take:
    """Takes a table ((2·S − 1)², heads) of relative positions; one of another side is resized.

    As timm resizes Swin's.
    """
    places = (2 * side - 1) ** 2

    def take(table: Tensor) -> Tensor:
        resized: Tensor = resize_rel_pos_bias_table(table, (side, side), (places, table.shape[1]))
        return resized

    return take


def positions(ours: str, stage: Stage, theirs: str, *, bilinear: bool) -> Iterator[Part]:
    """A stage's embedding (1, N, C), whose first row is the class token's where there is one.

    One of a map of another side is resized as `PositionEmbedding` does it.
    """
    assert stage.position is not None
    size, first = [stage.position] * 2, int(stage.class_token)

    def take(table: Tensor) -> Tensor:
        resized: Tensor = resample_abs_pos_embed(
            table[:, first:],
            size,
            num_prefix_tokens=0,
            interpolation="bilinear" if bilinear else "bicubic",
            antialias=not bilinear,
        )
        return resized

    yield Part(f"{ours}.entry.position.table", theirs, take)
    if stage.class_token:
        yield Part(f"{ours}.entry.class_token.position", theirs, lambda table: table[:, 0])
        yield Part(f"{ours}.entry.class_token.token", "cls_token")


def norms_and_feed_forward(ours: str, theirs: str, *, mixes: bool = True) -> Iterator[Part]:
    """What most authors call alike in a block, whether it mixes tokens or not."""
    if mixes:
        yield Part(f"{ours}.norm1", f"{theirs}.norm1")
        yield Part(f"{ours}.mixer.bias", f"{theirs}.attn.proj.bias")
    yield Part(f"{ours}.norm2", f"{theirs}.norm2")
    yield Part(f"{ours}.feed_forward.fc1", f"{theirs}.mlp.fc1")
    yield Part(f"{ours}.feed_forward.fc2", f"{theirs}.mlp.fc2")


def joint_attention(ours: str, theirs: str) -> Iterator[Part]:
    """A head group whose queries, keys and values come from one linear layer, `qkv`."""
    for index, name in enumerate("qkv"):
        yield Part(f"{ours}.{name}", f"{theirs}.qkv", piece(index, 3))
    yield Part(f"{ours}.proj", f"{theirs}.proj")
