"""Depthwise convolutions on a GPU: what a new shape costs once, and each call from then on.

    python -m benchmarks.depthwise > results/reference/cuda/depthwise.txt

Maps (B, H, W, C) as our layers have them go to cuDNN as channels-last images, or are copied to
planes and back, for which torch has kernels of its own. Milliseconds: the first forward and
backward pass with that shape, a forward pass without gradients, and both passes.
"""

import time
from collections.abc import Callable
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from supernet.blocks.layout import to_channels_first, to_channels_last

SHAPES = (
    *((1, 64, 56, 3), (1, 256, 14, 3), (16, 128, 16, 3), (128, 64, 56, 3), (128, 256, 28, 3)),
    *((128, 512, 14, 3), (128, 1024, 7, 3), (128, 256, 28, 5), (128, 64, 56, 7)),
)
"""Images, channels, side of the map and of the kernel."""


def milliseconds(call: Callable[[], object], *, repeats: int) -> float:
    """Mean time of a call."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    torch.cuda.synchronize()
    return 1000 * (time.perf_counter() - start) / repeats


def main() -> None:
    for dtype, shape in product((torch.bfloat16, torch.float32), SHAPES):
        batch, channels, side, kernel = shape
        x = torch.randn(batch, side, side, channels, device="cuda", dtype=dtype)
        weight = torch.randn(channels, 1, kernel, kernel, device="cuda", dtype=dtype)
        x.requires_grad_()
        weight.requires_grad_()

        def convolved(
            first: Tensor,
            weight: Tensor = weight,
            padding: int = kernel // 2,
            groups: int = channels,
        ) -> Tensor:
            return to_channels_last(F.conv2d(first, weight, padding=padding, groups=groups))

        def by_cudnn(x: Tensor = x) -> Tensor:
            return convolved(to_channels_first(x))

        def by_plane(x: Tensor = x) -> Tensor:
            return convolved(to_channels_first(x).contiguous()).contiguous()

        gradient = x.detach()
        told = []
        for name, way in (("cuDNN channels last", by_cudnn), ("by plane", by_plane)):

            def both(way: Callable[[], Tensor] = way, gradient: Tensor = gradient) -> None:
                way().backward(gradient)

            first = milliseconds(both, repeats=1)
            milliseconds(both, repeats=3)
            with torch.no_grad():
                forward = milliseconds(way, repeats=20)
            every = milliseconds(both, repeats=20)
            told.append(f"{name}: first {first:.0f} forward {forward:.3f} both {every:.3f}")
        print(str(dtype).removeprefix("torch."), shape, " | ".join(told), flush=True)


if __name__ == "__main__":
    main()
