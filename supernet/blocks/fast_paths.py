"""What is fast: other ways to compute the same functions, and when they are taken.

Layers call these functions of tensors and say nothing of speed. Every function computes what its
first line says, whichever way it takes; `open_paths` says which ways are open to a call. No way
changes what a hook sees: a tensor that a module was given or has returned is never written over,
and a module whose hooks would miss its call is called.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.jit._trace import is_tracing
from torch.nn import functional as F
from torch.nn.modules import module as torch_module

from supernet.blocks.kept import kept
from supernet.blocks.layout import to_channels_first, to_channels_last
from supernet.blocks.norms import GlobalResponseNorm, MapBatchNorm

SEVERAL_TOKENS = 4096
"""Tokens of a batch from which on a linear layer pays as a 1×1 convolution, as measured."""

FEW_TOKENS = 4
"""Tokens of a map up to which a depthwise convolution trains faster written out, as measured."""

SMALL_BATCH = 2**21
"""Numbers in a batch of maps up to which cuDNN's depthwise convolution is not worth its start."""


class Paths(NamedTuple):
    """The ways that are open to a call.

    Attributes:
        linear_as_convolution: See `linear`.
        convolution_as_product: See `convolution`.
        few_tokens_as_product: See `depthwise_convolution`.
        depthwise_by_plane: See `depthwise_convolution`.
        explicit_attention: See `attention`.
        merged_steps: See `chain`.
        channels_last_image: See `image_for_inverted_residuals`.
    """

    linear_as_convolution: bool = False
    convolution_as_product: bool = False
    few_tokens_as_product: bool = False
    depthwise_by_plane: bool = False
    explicit_attention: bool = False
    merged_steps: bool = False
    channels_last_image: bool = False


def open_paths(x: Tensor) -> Paths:
    """What is open to a computation on `x` now; every choice between ways is made here.

    Four things decide: whether `x` lies on a CPU; whether gradients are wanted, since the backward
    pass has costs of its own; whether `x` is in single precision, since half precision has fast
    matrix products; and whether torch records the computation. A program that was exported or
    traced runs on images of other sizes later, so that no way may depend on their size. A trace
    also notes in which module it is, and a compiler merges steps by itself.
    """
    on_cpu, is_traced = x.is_cpu, is_tracing()
    is_kept = is_traced or torch.compiler.is_exporting()
    if torch.is_grad_enabled():
        return Paths(
            convolution_as_product=on_cpu,
            few_tokens_as_product=on_cpu and not is_kept,
            depthwise_by_plane=x.is_cuda and not is_kept,
            explicit_attention=on_cpu,
        )
    is_single = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return Paths(
        linear_as_convolution=on_cpu and is_single and not is_kept,
        merged_steps=not is_traced and not torch.compiler.is_dynamo_compiling(),
        channels_last_image=True,
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer of a map, (B, H, W, C) → (B, H, W, C').

    Large maps take the way of a 1×1 convolution, which is up to three times as fast on a CPU: the
    matrix product of `F.linear` writes the bias in a pass of its own and is slow at few channels.
    """
    if (
        open_paths(x).linear_as_convolution
        and x.ndim == 4
        and min(x.shape[1:3]) > 1
        and x.shape[:3].numel() >= SEVERAL_TOKENS
    ):
        return to_channels_last(F.conv2d(to_channels_first(x), weight[..., None, None], bias))
    return F.linear(x, weight, bias)


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int
) -> Tensor:
    """A convolution of a map, (B, H, W, C) → (B, H', W', C') by a kernel (C', C, k, k).

    In training on a CPU it is one matrix product. The threads of oneDNN's backward convolution spin
    until the others arrive; on a machine that does anything else beside, a training step took 50
    times its time. A product is also faster where kernel and stride are equal.
    """
    if open_paths(x).convolution_as_product:
        patches = _patches(x, weight.shape[-1], stride, padding)
        return F.linear(patches, weight.permute(0, 2, 3, 1).flatten(1), bias)
    return to_channels_last(
        F.conv2d(to_channels_first(x), weight, bias, stride=stride, padding=padding)
    )


def _patches(x: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """What a kernel sees at each of its places: (B, H, W, C) → (B, H', W', k·k·C)."""
    if padding:
        x = F.pad(x, (0, 0, padding, padding, padding, padding))
    batch, height, width, channels = x.shape
    high, wide = ((side - kernel) // stride + 1 for side in (height, width))
    if kernel == stride:
        x = x[:, : high * kernel, : wide * kernel]
        x = x.reshape(batch, high, kernel, wide, kernel, channels).transpose(2, 3)
        return x.reshape(batch, high, wide, -1)
    rows, columns = stride * (high - 1) + 1, stride * (wide - 1) + 1
    return torch.cat(
        [
            x[:, i : i + rows : stride, j : j + columns : stride]
            for i in range(kernel)
            for j in range(kernel)
        ],
        dim=-1,
    )


def depthwise_convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, *, stride: int, padding: int
) -> Tensor:
    """A convolution of each channel of a map by a kernel of its own, weights (C, 1, k, k).

    On a map of 2×2 the backward convolution takes up to six times as long as writing each token as
    a weighted sum of all, which is done in training on a CPU. On a GPU, cuDNN compiles kernels for
    every new shape of channels-last maps, half a second to a second each, of which a supernet has
    hundreds. In training a small batch is copied to planes of one channel, for which torch has
    kernels of its own: up to a tenth as fast, which a small batch does not show.
    """
    height, width = x.shape[1:3]
    if height * width <= FEW_TOKENS and stride == 1 and open_paths(x).few_tokens_as_product:
        flat = F.pad(weight.flatten(1), (0, 1))  # (C, k·k + 1), a zero for what is out of reach
        kernel = flat.T[_kernel_places(height, width, weight.shape[-1])]  # (N, N, C)
        y = torch.bmm(x.flatten(1, 2).permute(2, 0, 1), kernel.permute(2, 1, 0))  # (C, B, N)
        y = y.permute(1, 2, 0).reshape(x.shape)
        return y if bias is None else y + bias.to(y.dtype)
    first = to_channels_first(x)
    if open_paths(x).depthwise_by_plane and x.numel() <= SMALL_BATCH:
        first = first.contiguous()
    y = F.conv2d(first, weight, bias, stride=stride, padding=padding, groups=x.shape[-1])
    return to_channels_last(y)


@kept
def _kernel_places(height: int, width: int, side: int) -> Tensor:
    """Where a flat k×k kernel holds a token's weight for a token, (N, N); k²: out of reach."""
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    down = rows - rows[:, None] + side // 2
    right = columns - columns[:, None] + side // 2
    reached = (down >= 0) & (down < side) & (right >= 0) & (right < side)
    return torch.where(reached, side * down + right, side * side)


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *, shown: nn.Module | None = None
) -> Tensor:
    """softmax(QKᵀ/√d)·V: (G, h, N, d), (G, h, M, d) twice → (G, h, N, d).

    `mask` is as in `attention_map`. In training on a CPU these are explicit products: the fused
    kernel's backward pass takes up to 20 times their time. So they are where `shown`, a module
    through which the map goes, is hooked: it is then there to be seen.
    """
    if open_paths(q).explicit_attention or (shown is not None and _is_watched(shown)):
        scores = attention_map(q, k, mask)
        return (scores if shown is None else shown(scores)) @ v
    if mask is not None and mask.is_floating_point():
        mask = mask.to(q.dtype)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


def attention_map(q: Tensor, k: Tensor, mask: Tensor | None = None) -> Tensor:
    """softmax(QKᵀ/√d): (..., N, d) and (..., M, d) → (..., N, M).

    `mask` can be broadcast to the result: boolean, False hides a key, or a bias that is added to
    the scores.
    """
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    if mask is not None:
        hides = mask.dtype == torch.bool
        scores = scores.masked_fill(~mask, float("-inf")) if hides else scores + mask
    result: Tensor = scores.softmax(dim=-1)
    return result


def image_for_inverted_residuals(image: Tensor) -> Tensor:
    """The image itself, channels last in memory where no gradients are wanted.

    Inverted residuals behind the stem are then a third faster on a CPU, but the stem's batch norms
    slower in training, as measured.
    """
    if open_paths(image).channels_last_image:
        return image.contiguous(memory_format=torch.channels_last)
    return image


Step = nn.Module | Callable[[Tensor], Tensor]
"""A layer, or a function such as `F.gelu`, whose result is a new tensor."""

Layer = TypeVar("Layer", bound=type[nn.Module])

_MERGED: set[type[nn.Module]] = {
    *(nn.Conv2d, nn.Linear, nn.BatchNorm2d, nn.LayerNorm, nn.GELU, nn.ReLU),
    *(MapBatchNorm, GlobalResponseNorm),
}
"""Layers whose output is a new tensor that they keep no hold of."""

_WRITTEN_OVER: dict[object, Callable[[Tensor], Tensor]] = {
    F.gelu: torch.ops.aten.gelu_.default,
    F.relu: F.relu_,
    nn.GELU: torch.ops.aten.gelu_.default,
    nn.ReLU: F.relu_,
}
"""Activations, and how they write over what they are given."""


def merges(layer: Layer) -> Layer:
    """Say of a class of layers that its output is a new tensor that it keeps no hold of.

    `chain` may then write over the output. It is not so of a subclass until that says so too.
    """
    _MERGED.add(layer)
    return layer


def chain(x: Tensor, *steps: Step) -> Tensor:
    """One step after the other, as in `nn.Sequential`.

    Where no gradients are wanted, and no hook would miss a call, the steps are merged: activations
    and the scale and shift of batch norms write over what the step before has made, since the pages
    of a new tensor cost more than its values, and batch norms on both sides of a linear layer go
    into its weights, which saves two passes. These tensors are no module's output: `forward` makes
    them, behind which nobody stands. One step that is hooked or of an unknown class, and every step
    is called as it is.
    """
    if (
        open_paths(x).merged_steps
        and not torch_module._has_any_global_hook()
        and all(map(_is_unobserved, steps))
    ):
        return _merged(x, list(_flat(steps)))
    for step in steps:
        x = step(x)
    return x


def _is_unobserved(step: Step) -> bool:
    """Whether nobody can tell a layer's call from its `forward`."""
    if not isinstance(step, nn.Module):
        return True
    if type(step) is nn.Sequential:
        return not _is_hooked(step) and all(map(_is_unobserved, step))
    return type(step) in _MERGED and not _is_hooked(step)


def _is_hooked(module: nn.Module) -> bool:
    """Whether a hook of the module, or a `forward` put into it, sees its calls."""
    own = vars(module)
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def _is_watched(module: nn.Module) -> bool:
    """Whether a hook wants what a module is given or gives.

    Compiled code has none, and those of a trace (fvcore's) want names alone.
    """
    if torch.compiler.is_compiling() or is_tracing():
        return False
    return _is_hooked(module)


def _flat(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps, and those within an `nn.Sequential` in its place."""
    for step in steps:
        if isinstance(step, nn.Sequential):
            yield from _flat(step)
        else:
            yield step


def _merged(x: Tensor, steps: list[Step]) -> Tensor:
    is_own = False  # whether x was made here: what was given belongs to others
    index = 0
    while index < len(steps):
        step = steps[index]
        index += 1
        over = _WRITTEN_OVER.get(type(step) if isinstance(step, nn.Module) else step)
        if over is not None and is_own:
            x = over(x)
        elif isinstance(step, MapBatchNorm) and not step.training:
            match steps[index : index + 2]:
                case [nn.Linear() as layer, MapBatchNorm(training=False) as after]:
                    x = _linear_between_norms(x, step, layer, after)
                    index += 2
                case _:
                    x = _scaled_and_shifted(x, step, is_own=is_own)
        else:
            x = step.forward(x) if isinstance(step, nn.Module) else step(x)
        # What another function gives may be a view of what it was given.
        is_own = isinstance(step, nn.Module) or step in _WRITTEN_OVER
    return x


def _scaled_and_shifted(x: Tensor, norm: MapBatchNorm, *, is_own: bool) -> Tensor:
    scale, shift = norm.scale_and_shift()
    if x.dtype != scale.dtype:  # the norm itself keeps half precision, which promotion would not
        return norm.forward(x)
    return torch.addcmul(shift, x, scale, out=x if is_own else None)


def _linear_between_norms(
    x: Tensor, before: MapBatchNorm, layer: nn.Linear, after: MapBatchNorm
) -> Tensor:
    (scale, shift), (out_scale, out_shift) = before.scale_and_shift(), after.scale_and_shift()
    bias = (layer.weight * shift).sum(1)
    if layer.bias is not None:
        bias = bias + layer.bias
    weight = out_scale[:, None] * layer.weight * scale
    return linear(x, weight, out_scale * bias + out_shift)
