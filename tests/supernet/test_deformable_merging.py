"""Deformable token merging against torchvision's deformable convolution."""

import pytest
import torch
from samples import randomise
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from supernet.blocks.deformable_merging import DeformableTokenMerging

SIZES = [(4, 6), (5, 7), (1, 1)]


def merging(conv_norm: str = "layer") -> DeformableTokenMerging:
    module = DeformableTokenMerging(8, 12, conv_norm)
    randomise(module.state_dict())
    return module.eval()


def padded(x: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, C, H', W') of even sides."""
    return F.pad(x, (0, 0, 0, x.shape[2] % 2, 0, x.shape[1] % 2)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("conv_norm", ["layer", "batch"])
@pytest.mark.parametrize("size", SIZES)
def test_it_is_a_deformable_convolution(size: tuple[int, int], conv_norm: str) -> None:
    module, x = merging(conv_norm), torch.randn(2, *size, 8)
    first = padded(x)
    offset = F.conv2d(first, module.offset.weight, module.offset.bias, stride=2)
    assert offset.abs().max() > 0.3  # it also reads between the tokens and beyond the map
    y = deform_conv2d(first, offset, module.conv.weight, module.conv.bias, stride=2)
    expected = F.gelu(module.norm(y.permute(0, 2, 3, 1)))
    torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(module(x), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", SIZES)
def test_without_offsets_it_is_an_ordinary_convolution(size: tuple[int, int]) -> None:
    module, x = merging(), torch.randn(2, *size, 8)
    torch.nn.init.zeros_(module.offset.weight)
    torch.nn.init.zeros_(module.offset.bias)
    y = F.conv2d(padded(x), module.conv.weight, module.conv.bias, stride=2)
    expected = F.gelu(module.norm(y.permute(0, 2, 3, 1)))
    torch.testing.assert_close(module(x), expected, atol=1e-5, rtol=1e-5)


def test_gradients_are_those_of_the_deformable_convolution() -> None:
    module, x = merging(), torch.randn(2, 4, 6, 8, requires_grad=True)
    first = padded(x)
    offset = F.conv2d(first, module.offset.weight, module.offset.bias, stride=2)
    y = deform_conv2d(first, offset, module.conv.weight, module.conv.bias, stride=2)
    expected = F.gelu(module.norm(y.permute(0, 2, 3, 1)))
    weights = torch.randn(expected.shape)
    inputs = (x, module.offset.weight, module.offset.bias, module.conv.weight)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)
    gradients = torch.autograd.grad((module(x) * weights).sum(), inputs)
    torch.testing.assert_close(gradients, wanted, atol=1e-3, rtol=1e-3)
