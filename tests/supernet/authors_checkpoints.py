"""Files as the authors' code writes them: the names and shapes of their tensors, random values.

Written down from their code, and without a look at ours: the networks with such weights were held
against theirs (results/reference/designs/checkpoints.txt).
"""

import zlib
from collections.abc import Iterator

import torch
from torch import Tensor

Shape = tuple[int, ...]
Tensors = Iterator[tuple[str, Shape]]

NETWORKS: dict[str, tuple[int, ...]] = {
    "Shunted-T": (1, 2, 4, 1),
    "Shunted-S": (2, 4, 12, 1),
    "Shunted-B": (3, 4, 24, 2),
    "LIT-Ti": (3, 4, 6, 3),
    "LIT-S": (2, 2, 6, 2),
    "LIT-M": (2, 2, 18, 2),
    "LIT-B": (2, 2, 18, 2),
    "PSLT-Tiny": (10, 3),
    "PSLT": (10, 3),
    "PSLT-Large": (10, 3),
    "DeiT-Ti": (12,),
    "DeiT-S": (12,),
    "PVT-Tiny": (2, 2, 2, 2),
}
"""Depths, by the design's name."""


def checkpoint(name: str, *, classes: int = 1000, in_chans: int = 3, side: int = 224) -> Tensors:
    """Names and shapes of a design's tensors, for images of so many channels and that side."""
    depths = NETWORKS[name]
    match name.split("-"):
        case "Shunted", size:
            yield from _shunted(depths, "TSB".index(size), in_chans)
            width = 512
        case "LIT", "Ti":
            yield from _pyramid(depths, in_chans, side, attends=2)
            width = 512
        case "LIT", size:
            width = 8 * (128 if size == "B" else 96)
            yield from _lit(width // 8, depths, in_chans, side)
        case "PVT", _:
            yield from _pyramid(depths, in_chans, side, attends=0, rates=(8, 4, 2, 1))
            width = 512
        case "DeiT", size:
            width = {"Ti": 192, "S": 384}[size]
            yield from _deit(width, depths[0], in_chans, side)
        case "PSLT", *size:
            width = 16 * {"Tiny": 24, "Large": 48}.get("".join(size), 36)
            yield from _pslt(width // 16, depths, in_chans)
    yield from _linear("head", width, classes)


def filled(tensors: Tensors) -> dict[str, Tensor]:
    """Values under which signals keep their size; each depends on its name and shape alone."""
    state = {}
    for name, shape in tensors:
        generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
        noise = torch.randn(shape, generator=generator)
        last = name.rpartition(".")[2]
        if last == "num_batches_tracked":
            state[name] = torch.tensor(7)
        elif last == "running_var":
            state[name] = 0.5 + noise.abs()
        elif last == "weight" and len(shape) == 1:
            state[name] = 1 + 0.2 * noise
        elif last == "weight":
            fan_in = torch.Size(shape[1:]).numel()
            state[name] = noise / fan_in**0.5 * (0.3 if "offset" in name else 1)
        else:
            state[name] = 0.3 * noise
    return state


def image(side: int) -> Tensor:
    """An image, (1, 3, side, side)."""
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0))


def _linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Tensors:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def _conv(name: str, inputs: int, outputs: int, kernel: int, *, bias: bool = True) -> Tensors:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    if bias:
        yield f"{name}.bias", (outputs,)


def _norm(name: str, width: int) -> Tensors:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def _batch_norm(name: str, width: int) -> Tensors:
    yield from _norm(name, width)
    yield f"{name}.running_mean", (width,)
    yield f"{name}.running_var", (width,)
    yield f"{name}.num_batches_tracked", ()


def _mlp(name: str, width: int, hidden: int) -> Tensors:
    yield from _linear(f"{name}.fc1", width, hidden)
    yield from _linear(f"{name}.fc2", hidden, width)


def _attending_block(name: str, width: int, hidden: int) -> Tensors:
    """ViT's."""
    yield from _norm(f"{name}.norm1", width)
    yield from _linear(f"{name}.attn.qkv", width, 3 * width)
    yield from _linear(f"{name}.attn.proj", width, width)
    yield from _norm(f"{name}.norm2", width)
    yield from _mlp(f"{name}.mlp", width, hidden)


def _deit(width: int, depth: int, in_chans: int, side: int) -> Tensors:
    yield "cls_token", (1, 1, width)
    yield "pos_embed", (1, (side // 16) ** 2 + 1, width)
    yield from _conv("patch_embed.proj", in_chans, width, 16)
    for index in range(depth):
        yield from _attending_block(f"blocks.{index}", width, 4 * width)
    yield from _norm("norm", width)


def _shunted(depths: Shape, convs: int, in_chans: int) -> Tensors:
    for place in range(convs + 1):
        inputs, kernel = (64, 3) if place else (in_chans, 7)
        yield from _conv(f"patch_embed1.conv.{3 * place}", inputs, 64, kernel, bias=False)
        yield from _batch_norm(f"patch_embed1.conv.{3 * place + 1}", 64)
    yield from _conv(f"patch_embed1.conv.{3 * (convs + 1)}", 64, 64, 2)
    yield from _norm("patch_embed1.norm", 64)
    for stage, depth in enumerate(depths):
        width, hidden = 64 * 2**stage, 64 * 2**stage * (8 if stage < 2 else 4)
        if stage:
            yield from _conv(f"patch_embed{stage + 1}.proj", width // 2, width, 3)
            yield from _norm(f"patch_embed{stage + 1}.norm", width)
        for index in range(depth):
            block = f"block{stage + 1}.{index}"
            yield from _norm(f"{block}.norm1", width)
            yield from _linear(f"{block}.attn.q", width, width)
            yield from _linear(f"{block}.attn.proj", width, width)
            if stage < 3:
                for number, rate in ((1, 8 >> stage), (2, 4 >> stage)):
                    yield from _conv(f"{block}.attn.sr{number}", width, width, rate)
                    yield from _norm(f"{block}.attn.norm{number}", width)
                    yield from _linear(f"{block}.attn.kv{number}", width, width)
                    yield from _conv(f"{block}.attn.local_conv{number}", 1, width // 2, 3)
            else:
                yield from _linear(f"{block}.attn.kv", width, 2 * width)
                yield from _conv(f"{block}.attn.local_conv", 1, width, 3)
            yield from _norm(f"{block}.norm2", width)
            yield from _mlp(f"{block}.mlp", width, hidden)
            yield from _conv(f"{block}.mlp.dwconv.dwconv", 1, hidden, 3)
        yield from _norm(f"norm{stage + 1}", width)


def _deformable(name: str, inputs: int, outputs: int) -> Tensors:
    yield from _conv(f"{name}.dconv", inputs, outputs, 2)
    yield from _conv(f"{name}.dconv.conv_offset", inputs, 8, 2)
    yield from _batch_norm(f"{name}.norm_layer", outputs)


def _pyramid(
    depths: Shape, in_chans: int, side: int, *, attends: int, rates: Shape = ()
) -> Tensors:
    """PVT with its rates; or LIT-Ti, which attends from a stage on, and merges deformably."""
    inputs = in_chans
    for stage, (width, ratio) in enumerate(((64, 8), (128, 8), (320, 4), (512, 4))):
        number = stage + 1
        yield f"pos_embed{number}", (1, (side // 4 >> stage) ** 2 + (stage == 3), width)
        if stage and not rates:
            yield from _deformable(f"patch_embed{number}", inputs, width)
        else:
            yield from _conv(f"patch_embed{number}.proj", inputs, width, 2 if stage else 4)
            yield from _norm(f"patch_embed{number}.norm", width)
        for index in range(depths[stage]):
            block = f"block{number}.{index}"
            if rates:
                yield from _norm(f"{block}.norm1", width)
                yield from _linear(f"{block}.attn.q", width, width)
                yield from _linear(f"{block}.attn.kv", width, 2 * width)
                yield from _linear(f"{block}.attn.proj", width, width)
                if rates[stage] > 1:
                    yield from _conv(f"{block}.attn.sr", width, width, rates[stage])
                    yield from _norm(f"{block}.attn.norm", width)
                yield from _norm(f"{block}.norm2", width)
                yield from _mlp(f"{block}.mlp", width, ratio * width)
            elif stage >= attends:
                yield from _attending_block(block, width, ratio * width)
            else:
                yield from _norm(f"{block}.norm2", width)
                yield from _mlp(f"{block}.mlp", width, ratio * width)
        inputs = width
    yield "cls_token", (1, 1, 512)
    yield from _norm("norm", 512)


def _lit(width: int, depths: Shape, in_chans: int, side: int) -> Tensors:
    yield from _conv("patch_embed.proj", in_chans, width, 4)
    yield from _norm("patch_embed.norm", width)
    for stage, depth in enumerate(depths):
        channels, places = width * 2**stage, side // 4 >> stage
        for index in range(depth):
            block = f"layers.{stage}.blocks.{index}"
            if stage < 2:
                yield from _norm(f"{block}.norm2", channels)
                yield from _mlp(f"{block}.mlp", channels, 4 * channels)
            else:
                yield from _attending_block(block, channels, 4 * channels)
                table = ((2 * places - 1) ** 2, channels // 32)
                yield f"{block}.attn.relative_position_bias_table", table
                yield f"{block}.attn.relative_position_index", (places**2, places**2)
        if stage < 3:
            yield from _deformable(f"layers.{stage}.downsample", channels, 2 * channels)
    yield from _norm("norm", width * 8)


def _inverted_residual(name: str, inputs: int, outputs: int) -> Tensors:
    hidden = 4 * inputs
    yield from _conv(f"{name}.conv.0", inputs, hidden, 1, bias=False)
    yield from _batch_norm(f"{name}.conv.2", hidden)
    yield from _conv(f"{name}.conv.3", 1, hidden, 3, bias=False)
    yield from _batch_norm(f"{name}.conv.5", hidden)
    yield from _conv(f"{name}.conv.6", hidden, outputs, 1, bias=False)
    yield from _batch_norm(f"{name}.conv.7", outputs)
    yield from _linear(f"{name}.se.fc1", outputs, outputs // 2)
    yield from _linear(f"{name}.se.fc2", outputs // 2, outputs)


def _pslt(width: int, depths: Shape, in_chans: int) -> Tensors:
    channels = in_chans, width // 2, width, width
    for place in range(3):
        inputs, outputs = channels[place : place + 2]
        yield from _conv(f"patch_embed.proj.{3 * place}", inputs, outputs, 3, bias=False)
        yield from _batch_norm(f"patch_embed.proj.{3 * place + 2}", outputs)
    for place, (inputs, outputs) in enumerate(
        ((1, 2), (2, 2), (2, 2), (2, 4), (4, 4), (4, 4), (4, 8))
    ):
        yield from _inverted_residual(f"conv_layers.{place}", inputs * width, outputs * width)
    for layer, (depth, heads) in enumerate(zip(depths, (4, 8), strict=True)):
        whole = width * 8 * 2**layer
        for index in range(depth):
            block = f"layers.{layer}.blocks.{index}"
            for branch in range(3):
                yield from _branch(f"{block}.blocks.{branch}", whole // 3, heads, branch, layer)
            yield from _linear(f"{block}.pointconv", whole, whole)
            yield from _linear(f"{block}.se.fc1", whole, whole // 2)
            yield from _linear(f"{block}.se.fc2", whole // 2, whole)
        if layer == 0:
            merging = f"layers.{layer}.downsample"
            yield from _linear(f"{merging}.reduction", 4 * whole, 2 * whole, bias=False)
            yield from _norm(f"{merging}.norm", 4 * whole)
    yield from _norm("norm", width * 16)


def _branch(name: str, width: int, heads: int, branch: int, layer: int) -> Tensors:
    if branch and layer == 0:  # windows are shifted
        yield f"{name}.attn_mask", (4, 49, 49)
    yield from _norm(f"{name}.norm1", width)
    yield f"{name}.attn.relative_position_bias_table", (169, heads)
    yield f"{name}.attn.relative_position_index", (49, 49)
    joint, parts = ("kv", 2) if branch else ("qkv", 3)
    yield from _linear(f"{name}.attn.{joint}", width, parts * width)
    yield from _linear(f"{name}.attn.proj", width, width)
    yield from _norm(f"{name}.norm2", width)
    for place, (inputs, kernel) in enumerate(((width, 1), (1, 3), (width, 1))):
        conv = 3 * place
        yield from _conv(f"{name}.mlp.conv.{conv}", inputs, width, kernel)
        norm = conv + (1 if place == 2 else 2)
        yield from _batch_norm(f"{name}.mlp.conv.{norm}", width)
