"""From splits to batches of uint8 images, each a function of the seed and its number alone."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterable, Iterator
from multiprocessing import active_children
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from nas.data.dataset import Data, Samples
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest, handlers_kept
from nas.utilities.seeding import derived_seed, preserved_global_generators, seed_global_generators
from nas.utilities.units import format_seconds

logger = logging.getLogger(__name__)

Batch = tuple[Tensor, Tensor]

_READ_SIZE = 128  # images that one call of a worker hands over when a split is read

_LOOK_SECONDS = 1.0  # between two looks at whether a stop was requested meanwhile
_PATIENCE_SECONDS = 300.0  # that a batch may take,
_PATIENCE = 20  # or so many times as long as the slowest so far


def train_batches(
    data: Data,
    *,
    batch_size: int,
    seed: int,
    first_step: int = 0,
    steps: int,
    workers: int = 0,
    part: tuple[int, int] = (0, 1),
    repeats: int = 1,
    stop: StopRequest | None = None,
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
        repeats: How often in a row each image is drawn, augmented anew each time.
        stop: Looked at while a worker is waited for.

    Returns:
        An iterator over images, uint8 (B, 3, S, S), and labels, int64 (B,); of a part, B is the
        batch's size divided by the number of parts. It raises `InputError` where an image turns out
        to be broken, in this process or in a worker, and where a worker dies or gives no batch for
        too long; `Interrupted` if a stop was requested while a worker was waited for.
    """
    number, parts = part
    size = batch_size // parts
    starts = (batch_size * step + size * number for step in range(first_step, first_step + steps))
    draws = (range(start, start + size) for start in starts)
    order = _ShuffledEpochs(len(data.train), seed, repeats)
    return _load(_Drawn(data.train, order, seed), draws, workers, stop or StopRequest())


def materialise(
    samples: Samples,
    *,
    limit: int | None,
    seed: int,
    workers: int = 0,
    stop: StopRequest | None = None,
) -> tuple[Tensor, Tensor]:
    """A split, or a random part of it, as two tensors.

    Args:
        samples: The split; a random one is drawn once.
        limit: At most so many images, which `seed` chooses; all of them if None.
        seed: Decides which images, and how a random split is drawn.
        workers: Processes that read images; 0 reads them in this one.
        stop: Looked at while a worker is waited for.

    Returns:
        Images, uint8 (N, 3, S, S), and labels, int64 (N,), in the split's order.

    Raises:
        InputError: An image turned out to be broken, in this process or in a worker; a worker died
            or gave nothing for too long.
        Interrupted: If a stop was requested while a worker was waited for.
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
    batches = _load(_Drawn(samples, chosen, seed), draws, workers, stop or StopRequest())
    for draw, (some_images, some_labels) in zip(draws, batches, strict=True):
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
    """An endless order: each pass is a permutation of its own of 0..size-1, each item repeated."""

    def __init__(self, size: int, seed: int, repeats: int) -> None:
        self._size = size
        self._repeats = repeats
        self._seed = seed
        self._epoch = -1
        self._permutation: NDArray[np.int64] = np.empty(0, np.int64)

    def __getitem__(self, draw: int) -> int:
        epoch, position = divmod(draw // self._repeats, self._size)
        if epoch != self._epoch:
            generator = np.random.default_rng(derived_seed("epoch", self._seed, epoch))
            self._permutation = generator.permutation(self._size)
            self._epoch = epoch
        return int(self._permutation[position])


Loaded = tuple[NDArray[np.uint8], list[int]] | InputError


class _Drawn(Dataset[Loaded]):
    """What a loader's worker runs: draw numbers go in, images and labels of their batch come out.

    Images come out as an array, which goes through a pipe: tensors would go through shared memory,
    of which containers often have 64 MB in all. A broken image comes out as a value: the loader
    would raise an error again with the worker's traceback for its message.
    """

    def __init__(self, samples: Samples, order: _Order, seed: int) -> None:
        self._samples = samples
        self._order = order
        self._seed = seed

    def __getitem__(self, draws: range) -> Loaded:
        with preserved_global_generators():
            try:
                drawn = [self._draw(draw) for draw in draws]
            except InputError as error:
                return error
        return np.stack([image.numpy() for image, _ in drawn]), [label for _, label in drawn]

    def _draw(self, draw: int) -> tuple[Tensor, int]:
        seed_global_generators(derived_seed("sample", self._seed, draw))
        return self._samples[int(self._order[draw])]


def _ignore_signals(worker: int) -> None:
    """Leave stopping to the process that loads: a signal often reaches the whole group."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _as_it_is(loaded: Any) -> Any:
    """Keeps the loader from making tensors in its workers."""
    return loaded


def _load(
    drawn: _Drawn, draws: Iterable[range], workers: int, stop: StopRequest
) -> Iterator[Batch]:
    others = set(active_children())
    loader: DataLoader[Loaded] = DataLoader(
        drawn,
        batch_size=None,
        sampler=draws,
        collate_fn=_as_it_is,
        num_workers=workers,
        timeout=_LOOK_SECONDS if workers else 0,
        # The loader draws a seed for its workers, by default from the global generator.
        generator=torch.Generator(),
        worker_init_fn=_ignore_signals,
    )
    with handlers_kept(signal.SIGCHLD):  # torch's raises wherever we are; we look ourselves
        batches = iter(loader)
    slowest = 0.0
    try:
        while True:
            start = time.monotonic()
            loaded = _wait(batches, workers, max(_PATIENCE_SECONDS, _PATIENCE * slowest), stop)
            if loaded is None:
                return
            slowest = max(slowest, time.monotonic() - start)
            if isinstance(loaded, InputError):
                raise loaded
            images, labels = loaded
            yield torch.from_numpy(images), torch.tensor(labels)
    except (InputError, Interrupted):
        for worker in set(active_children()) - others:
            worker.kill()  # one that hangs would be waited for at our end, too
        raise


def _wait(
    batches: Iterator[Loaded], workers: int, patience: float, stop: StopRequest
) -> Loaded | None:
    """The next batch; None if there is none.

    Raises:
        InputError: If one of them died, or none came for so many seconds.
        Interrupted: If a stop was requested meanwhile.
    """
    start = time.monotonic()
    while True:
        try:
            return next(batches, None)
        except RuntimeError as error:
            stop.check()
            told, waited = str(error), time.monotonic() - start
            if told.startswith("DataLoader worker (pid"):
                logger.warning("loading failed: %s", error)
                raise InputError(
                    f"`loader_workers` {workers}: a process that loads images died, for lack of "
                    "memory perhaps; give fewer"
                ) from None
            if not told.startswith("DataLoader timed out"):  # else it goes on if it is asked again
                raise
            if waited > patience:
                raise InputError(
                    f"`loader_workers` {workers}: no images came for {format_seconds(waited)}; "
                    "with 0 they are loaded in this process"
                ) from None
