"""Views between the two layouts, the norms of the field, and convolutions from map to map."""

from functools import lru_cache, partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_space.parts import ConvNormKind

SEVERAL_TOKENS = 4096
"""Tokens of a batch from which on a linear layer pays as a 1×1 convolution, as measured."""

FEW_TOKENS = 4
"""Tokens of a map up to which a depthwise convolution trains faster written out, as measured."""

BranchNorm = partial(nn.LayerNorm, eps=1e-5)
"""Norm inside reduction branches and after patch embeddings."""


def to_channels_first(x: Tensor) -> Tensor:
    """A view (B, H, W, C) → (B, C, H, W)."""
    return x.permute(0, 3, 1, 2)


def to_channels_last(x: Tensor) -> Tensor:
    """A view (B, C, H, W) → (B, H, W, C)."""
    return x.permute(0, 2, 3, 1)


def map_linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer of a map, (B, H, W, C) → (B, H, W, C').

    On a CPU, where no gradients are wanted, large maps take the way of a 1×1 convolution, which is
    up to three times as fast: the matrix product of `F.linear` writes the bias in a pass of its own
    and is slow at few channels. Half precision has a fast product anyway.
    """
    if (
        x.device.type == "cpu"
        and not torch.is_grad_enabled()
        and x.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and x.ndim == 4
        and min(x.shape[1:3]) > 1
        and not torch.compiler.is_exporting()  # a program for any batch asks for no batch's size
        and x.shape[:3].numel() >= SEVERAL_TOKENS
    ):
        return to_channels_last(F.conv2d(to_channels_first(x), weight[..., None, None], bias))
    return F.linear(x, weight, bias)


class MapLinear(nn.Linear):
    """A linear layer of a map, (B, H, W, C) → (B, H, W, C')."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H, W, C')."""
        return map_linear(x, self.weight, self.bias)


def add(x: Tensor, y: Tensor) -> Tensor:
    """The sum, written over y where that saves memory: for a y that nobody else reads.

    Autograd would copy the gradient of a view that is written over.
    """
    in_place = x.dtype == y.dtype and not (torch.is_grad_enabled() and y._is_view())
    return y.add_(x) if in_place else x + y


def gelu(x: Tensor) -> Tensor:
    """GELU, written over x where no gradients are wanted: for an x that nobody else reads."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)


class MapConv(nn.Conv2d):
    """A convolution from map to map, (B, H, W, C) → (B, H', W', C')."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve a channels-last map."""
        if self.groups == 1 and torch.is_grad_enabled() and x.device.type == "cpu":
            return self._as_product(x)
        return to_channels_last(self._conv_forward(to_channels_first(x), self.kernel, self.bias))

    @property
    def kernel(self) -> Tensor:
        """What the map is convolved with, (C', C, k, k)."""
        return self.weight

    def _as_product(self, x: Tensor) -> Tensor:
        """The same function as one matrix product, for training on a CPU.

        The threads of oneDNN's backward convolution spin until the others arrive; on a machine
        that does anything else beside, a training step took 50 times its time. A product is also
        faster where kernel and stride are equal.
        """
        kernel, stride, padding = self.kernel_size[0], self.stride[0], int(self.padding[0])
        if padding:
            x = F.pad(x, (0, 0, padding, padding, padding, padding))
        batch, height, width, channels = x.shape
        high, wide = ((side - kernel) // stride + 1 for side in (height, width))
        if kernel == stride:
            x = x[:, : high * kernel, : wide * kernel]
            x = x.reshape(batch, high, kernel, wide, kernel, channels).transpose(2, 3)
            patches = x.reshape(batch, high, wide, -1)
        else:
            rows, columns = stride * (high - 1) + 1, stride * (wide - 1) + 1
            patches = torch.cat(
                [
                    x[:, i : i + rows : stride, j : j + columns : stride]
                    for i in range(kernel)
                    for j in range(kernel)
                ],
                dim=-1,
            )
        return F.linear(patches, self.kernel.permute(0, 2, 3, 1).flatten(1), self.bias)


class DepthwiseConv(MapConv):
    """Depthwise 3×3 convolution of a map (B, H, W, C)."""

    def __init__(self, channels: int, *, stride: int = 1, bias: bool = True) -> None:
        super().__init__(
            channels, channels, kernel_size=3, stride=stride, padding=1, groups=channels, bias=bias
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → (B, H', W', C)."""
        few = x.shape[1] * x.shape[2] <= FEW_TOKENS and self.stride[0] == 1
        if few and self.training and torch.is_grad_enabled() and x.device.type == "cpu":
            return self._of_few_tokens(x)
        return super().forward(x)

    def _of_few_tokens(self, x: Tensor) -> Tensor:
        """The same function, each token a weighted sum of all, for training on a CPU.

        On a map of 2×2 the backward convolution takes up to six times as long.
        """
        kernel = F.pad(self.kernel.flatten(1), (0, 1)).T[_kernel_places(*x.shape[1:3])]
        y = torch.bmm(x.flatten(1, 2).permute(2, 0, 1), kernel.permute(2, 1, 0))
        y = y.permute(1, 2, 0).reshape(x.shape)
        return y if self.bias is None else y + self.bias.to(y.dtype)


class ResidualDepthwiseConv(DepthwiseConv):
    """A map and its depthwise 3×3 convolution, added: (B, H, W, C) → the same shape.

    The kernel adds the map itself, which saves a pass over it, and another of its gradient.
    """

    @property
    def kernel(self) -> Tensor:
        """The weights, and 1 in the middle of each channel's."""
        return self.weight + F.pad(self.weight.new_ones(1, 1, 1, 1), (1, 1, 1, 1))


@lru_cache(maxsize=64)
def _kernel_places(height: int, width: int) -> Tensor:
    """Where a flat 3×3 kernel holds the weight of a token for a token, (N, N); 9: out of reach."""
    rows = torch.arange(height).repeat_interleave(width)
    columns = torch.arange(width).repeat(height)
    down, right = rows - rows[:, None] + 1, columns - columns[:, None] + 1
    reached = (down >= 0) & (down < 3) & (right >= 0) & (right < 3)
    return torch.where(reached, 3 * down + right, 9)


class MapBatchNorm(nn.BatchNorm2d):
    """Batch norm of a map (B, H, W, C), which is written over where no gradients are wanted."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        if not self.is_affine:
            return to_channels_last(super().forward(to_channels_first(x)))
        scale, shift = self.scale_and_shift()
        in_place = x.dtype == scale.dtype and not torch.compiler.is_compiling()
        return torch.addcmul(shift, x, scale, out=x if in_place else None)

    @property
    def is_affine(self) -> bool:
        """Whether it does no more than `scale_and_shift` says: in evaluation, without gradients."""
        return not (self.training or torch.is_grad_enabled())

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Scale and shift (C) of each channel, by the running statistics."""
        assert self.running_mean is not None and self.running_var is not None
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        return scale, self.bias - self.running_mean * scale


def linear_between_norms(
    x: Tensor, before: nn.Module, linear: nn.Linear, after: nn.Module
) -> Tensor:
    """The norm of a linear layer of the norm of a map, (B, H, W, C) → (B, H, W, C').

    Batch norms that are but scale and shift go into the layer's weights, which saves two passes.
    """
    if not (
        isinstance(before, MapBatchNorm) and isinstance(after, MapBatchNorm) and before.is_affine
    ):
        y: Tensor = after(linear(before(x)))
        return y
    (scale, shift), (out_scale, out_shift) = before.scale_and_shift(), after.scale_and_shift()
    bias = (linear.weight * shift).sum(1)
    if linear.bias is not None:
        bias = bias + linear.bias
    weight = out_scale[:, None] * linear.weight * scale
    return map_linear(x, weight, out_scale * bias + out_shift)


def build_conv_norm(kind: ConvNormKind, channels: int) -> nn.Module:
    """The norm of a part that works with convolutions: (B, H, W, C) → the same shape."""
    return MapBatchNorm(channels) if kind == "batch" else BranchNorm(channels)


class SqueezeExcitation(nn.Module):
    """Channels scaled by what two linear layers read off their means (Hu et al., 2018)."""

    def __init__(self, channels: int, reduction: int, activation: type[nn.Module]) -> None:
        super().__init__()
        squeezed = max(channels // reduction, 1)
        self.fc1 = nn.Linear(channels, squeezed)
        self.activation = activation()
        self.fc2 = nn.Linear(squeezed, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, C) → the same shape."""
        mean = x.mean(dim=(1, 2), keepdim=True)
        x = x * self.fc2(self.activation(self.fc1(mean))).sigmoid()
        return x


def pad_to_even(x: Tensor) -> Tensor:
    """(B, H, W, C) → the same with a row or column of zeros behind an odd side."""
    down, right = x.shape[1] % 2, x.shape[2] % 2
    return F.pad(x, (0, 0, 0, right, 0, down)) if down or right else x
