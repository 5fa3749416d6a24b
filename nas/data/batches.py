"""From splits to batches of uint8 images, each a function of the seed and its number alone."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.dataset import Data, Samples
from nas.utilities.errors import InputError
from nas.utilities.seeding import derived_seed, preserved_global_generators, seed_global_generators

Batch = tuple[Tensor, Tensor]

_READ_SIZE = 128  # images that one call of a worker hands over when a split is read


def train_batches(
    data: Data,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    steps: int,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
) -> Iterator[Batch]:
    """Training batches number `first_step` to `first_step + steps - 1` of an endless sequence.

    The training split is gone through in a new random order each time, without replacement, across
    the borders of batches. Batch k depends on `seed` and k alone: not on where the sequence is
    entered, on `workers`, or on the global random generators, which are left as they are found.

    Args:
        data: Where the training split comes from.
        batch_size: Images in a batch; all batches are full.
        seed: Decides order and augmentation.
        first_step: Number of the first batch, for resuming.
        steps: How many batches to yield.
        workers: Processes that prepare batches; 0 prepares them in this one.
        part: Which of how many equal parts of each batch to yield.

    Returns:
        An iterator over images, uint8 (B, 3, S, S), and labels, int64 (B,); of a part, B is the
        batch's size divided by the number of parts. It raises `InputError`
        where an image turns out to be broken, in this process or in a worker.
    """
    number, parts = part
    size = batch_size // parts
    starts = (batch_size * step + size * number for step in range(first_step, first_step + steps))
    draws = (range(start, start + size) for start in starts)
    order = _ShuffledEpochs(len(data.train), seed)
    return _load(_Drawn(data.train, order, seed), draws, workers)


def materialise(
    samples: Samples, *, limit: int | None, seed: int, workers: int = 0
) -> tuple[Tensor, Tensor]:
    """A split, or a random part of it, as two tensors.

    Args:
        samples: The split; a random one is drawn once.
        limit: At most so many images, which `seed` chooses; all of them if None.
        seed: Decides which images, and how a random split is drawn.
        workers: Processes that read images; 0 reads them in this one.

    Returns:
        Images, uint8 (N, 3, S, S), and labels, int64 (N,), in the split's order.

    Raises:
        InputError: An image turned out to be broken, in this process or in a worker.
    """
    size = len(samples)
    chosen = np.arange(size)
    if limit is not None and limit < size:
        generator = np.random.default_rng(derived_seed("part", seed))
        chosen = np.sort(generator.permutation(size)[:limit])
    draws = [
        range(start, min(start + _READ_SIZE, len(chosen)))
        for start in range(0, len(chosen), _READ_SIZE)
    ]
    images = torch.empty(0, dtype=torch.uint8)
    labels = torch.empty(len(chosen), dtype=torch.int64)
    for draw, (some_images, some_labels) in zip(
        draws, _load(_Drawn(samples, chosen, seed), draws, workers), strict=True
    ):
        if draw.start == 0:
            images = some_images.new_empty(len(chosen), *some_images.shape[1:])
        images[draw.start : draw.stop] = some_images
        labels[draw.start : draw.stop] = some_labels
    return images, labels


def normalise(
    images: Tensor, mean: tuple[float, float, float], std: tuple[float, float, float]
) -> Tensor:
    """Images uint8 (B, 3, S, S) as float32 of zero mean and unit variance, on their own device.

    Args:
        images: Pixels in 0..255.
        mean: Mean per channel of pixels scaled to 0..1: `Data.mean`.
        std: Standard deviation per channel of pixels scaled to 0..1: `Data.std`.
    """
    shift = torch.tensor(mean, device=images.device).view(3, 1, 1) * 255
    scale = torch.tensor(std, device=images.device).view(3, 1, 1) * 255
    return (images.float() - shift) / scale


class _Order(Protocol):
    """Which item of a split is the n-th to be drawn."""

    def __getitem__(self, draw: int, /) -> int: ...


class _ShuffledEpochs:
    """An endless order: each epoch is a permutation of its own of 0..size-1."""

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, draw: int) -> int:
        epoch, position = divmod(draw, self._size)
        if epoch != self._epoch:
            generator = np.random.default_rng(derived_seed("epoch", self._seed, epoch))
            self._permutation = generator.permutation(self._size)
            self._epoch = epoch
        return int(self._permutation[position])


class _Drawn(Dataset[Batch | InputError]):
    """What a loader's worker runs: draw numbers go in, their batch comes out.

    A broken image comes out as a value: the loader would raise an error again with the worker's
    traceback for its message.
    """

    def __init__(self, samples: Samples, order: _Order, seed: int) -> None:
        self._samples = samples
        self._order = order
        self._seed = seed

    def __getitem__(self, draws: range) -> Batch | InputError:
        with preserved_global_generators():
            try:
                drawn = [self._draw(draw) for draw in draws]
            except InputError as error:
                return error
        images = torch.stack([image for image, _ in drawn])
        return images, torch.tensor([label for _, label in drawn])

    def _draw(self, draw: int) -> tuple[Tensor, int]:
        seed_global_generators(derived_seed("sample", self._seed, draw))
        return self._samples[int(self._order[draw])]


def _ignore_signals(worker: int) -> None:
    """Leave stopping to the process that loads: a signal often reaches the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _load(drawn: _Drawn, draws: Iterable[range], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Batch | InputError] = DataLoader(
        drawn,
        batch_size=None,
        sampler=draws,
        num_workers=workers,
        # The loader draws a seed for its workers, by default from the global generator.
        generator=torch.Generator(),
        worker_init_fn=_ignore_signals,
    )
    for batch in loader:
        if isinstance(batch, InputError):
            raise batch
        images, labels = batch
        yield images, labels
