"""The Shunted Transformer's checkpoints (T, S and B)."""

from collections.abc import Iterator

from search_space import Architecture, ConvStem, LocalGlobal, Rates
from supernet.authors.layout import Part, norms_and_feed_forward, piece


def shunted(architecture: Architecture) -> Iterator[Part]:
    """Head groups share `q` and `proj`, and each has a `kv` and a convolution, by number."""
    assert isinstance(architecture.stem, ConvStem)
    last_conv = 3 * (1 + architecture.stem.extra_convs)  # convolution, norm, ReLU
    yield Part("stem.convs", "patch_embed1.conv")
    yield Part("stem.proj", f"patch_embed1.conv.{last_conv}")
    yield Part("stem.norm", "patch_embed1.norm")
    yield Part("head", "head")
    for number, stage in enumerate(architecture.stages, start=1):
        ours = f"stages.{number - 1}"
        if number > 1:
            yield Part(f"{ours}.entry.conv.conv", f"patch_embed{number}.proj")
            yield Part(f"{ours}.entry.conv.norm", f"patch_embed{number}.norm")
        yield Part(f"{ours}.norm", f"norm{number}")
        assert isinstance(stage.mixer, LocalGlobal)
        for index in range(stage.depth):
            block, theirs = f"{ours}.blocks.{index}", f"block{number}.{index}"
            yield from norms_and_feed_forward(block, theirs)
            yield Part(f"{block}.feed_forward.detail", f"{theirs}.mlp.dwconv.dwconv")
            groups, attention = f"{block}.mixer.groups", f"{theirs}.attn"
            if isinstance(stage.mixer.aggregation, Rates):
                rates = stage.mixer.aggregation.rates
                for place, rate in enumerate(rates):
                    group, its = f"{groups}.rate{rate}", place + 1
                    yield from _group(group, attention, str(its), place=place, count=len(rates))
                    yield Part(f"{group}.reduce", f"{attention}.sr{its}")
                    yield Part(f"{group}.norm", f"{attention}.norm{its}")
            else:
                yield from _group(f"{groups}.full", attention)


def _group(
    ours: str, theirs: str, number: str = "", *, place: int = 0, count: int = 1
) -> Iterator[Part]:
    """One of several head groups with as many heads each, and its number in names."""
    yield Part(f"{ours}.q", f"{theirs}.q", piece(place, count))
    yield Part(f"{ours}.k", f"{theirs}.kv{number}", piece(0, 2))
    yield Part(f"{ours}.v", f"{theirs}.kv{number}", piece(1, 2))
    yield Part(f"{ours}.proj", f"{theirs}.proj", piece(place, count, dim=1))
    yield Part(f"{ours}.value_conv", f"{theirs}.local_conv{number}")
