"""Processes that train the same weights together, each on its part of every batch.

Every rank holds the whole weights, trains the same subnets in the same steps, and averages its
gradients with those of the others before it steps (data-parallel training, as torch's
DistributedDataParallel does it for networks that are the same in every step). So all have the same
weights after every step, and what N ranks learn is what one learns from the same batches but for
rounding. So batch norms see the whole batch, too (torch's SyncBatchNorm does that on GPUs alone).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.nn.functional import all_reduce
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class Ranks:
    """A process that trains alone, and what it asks of its fellows where there are some.

    Attributes:
        rank: Number of this process; the first, 0, shows and saves.
        count: How many there are.
    """

    rank = 0
    count = 1

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite tensors by their mean over the ranks; all ranks have the same shapes."""

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """Of each flag, whether it is set in any rank."""
        return list(flags)

    @contextmanager
    def on_one_batch(self) -> Iterator[None]:
        """In the block, networks run on a batch of which each rank has a part."""
        yield


class TorchRanks(Ranks):
    """Several processes, joined by torch's default process group, which must be there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.rank, self.count = distributed.get_rank(), distributed.get_world_size()

    def average(self, tensors: Sequence[Tensor]) -> None:
        """All at once: gradients are many small views."""
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors]).div_(self.count)
        distributed.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        means = [part.view(t.shape) for part, t in zip(parts, tensors, strict=True)]
        torch._foreach_copy_(list(tensors), means)

    def any(self, flags: Sequence[bool]) -> list[bool]:
        """See `Ranks.any`."""
        told = torch.tensor(flags, dtype=torch.int32, device=self._device)
        distributed.all_reduce(told, op=distributed.ReduceOp.MAX)
        return [bool(flag) for flag in told.tolist()]

    @contextmanager
    def on_one_batch(self) -> Iterator[None]:
        """See `Ranks.on_one_batch`."""
        with _JointBatchNorms():
            yield


class _JointBatchNorms(TorchFunctionMode):
    """Batch norms in training mode use the mean and variance of the parts of all ranks."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is F.batch_norm:
            func = _joint_batch_norm
        return func(*args, **(kwargs or {}))


def _joint_batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of x (B, C, ...) over the batches of all ranks."""
    if not training:
        return torch.batch_norm(
            x, weight, bias, running_mean, running_var, False, momentum, eps, True
        )
    dims = [0, *range(2, x.ndim)]
    values = x.float()
    shape = [1, -1, *[1] * (x.ndim - 2)]
    seen = x.numel() / x.shape[1] * distributed.get_world_size()
    mean = all_reduce(values.sum(dims)) / seen
    # Mean squares less the square of the mean would leave nothing of a small variance.
    centred = values - mean.view(shape)
    var = all_reduce(centred.square().sum(dims)) / seen
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * seen / (seen - 1), momentum)
    scale = torch.rsqrt(var + eps)
    if weight is not None:
        scale = scale * weight
    normalised: Tensor = centred * scale.view(shape)
    if bias is not None:
        normalised = normalised + bias.view(shape)
    return normalised.to(x.dtype)


ALONE = Ranks()
"""This process, which trains by itself."""
