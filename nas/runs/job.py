"""What every step of a run works with."""

import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from rich.console import Console
from torch import Tensor

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.utilities.files import write_json
from nas.utilities.interrupt import StopRequest
from nas.utilities.units import format_seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the work is spread; results don't depend on it, but for rounding in the training.

    The search proposes the same architectures under the same numbers, and finds the same of them,
    with any number of workers, and also where a process was killed and another goes on. One moment
    is left out: where Optuna's NSGA-II has chosen the parents of a generation and not yet its first
    child, the next process draws that child otherwise. Which candidates of a short list are trained
    how long may depend on the number of workers.

    Attributes:
        workers: Ray actors that evaluate; 0 evaluates in this process without Ray. The search has
            work for as many as its batch holds, whatever else there are.
        ray_address: Of a running cluster; None starts Ray on this machine.
        loader_workers: Processes that load training images, of each process that trains.
        train_workers: Processes that train the supernet, by Ray Train; 1 trains it in this one.
    """

    workers: int
    ray_address: str | None = None
    loader_workers: int = 0
    train_workers: int = 1

    @property
    def on_ray(self) -> dict[str, int]:
        """Numbers of processes that Ray starts, by what the user calls them."""
        training = {"train_workers": self.train_workers} if self.train_workers > 1 else {}
        return ({"workers": self.workers} if self.workers else {}) | training


class Clock:
    """Seconds spent on each part, over all processes of a run.

    Args:
        file: Where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def seconds(self, part: str) -> float:
        """Seconds spent on a part so far."""
        return float(self._read().get(part, 0.0))

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Add the time of the block, also where it is interrupted."""
        start = time.monotonic()
        try:
            yield
        finally:
            spent = self._read()
            spent[part] = spent.get(part, 0.0) + time.monotonic() - start
            write_json(self._file, spent)
            logger.info("%s: %s", part, format_seconds(spent[part]))

    def _read(self) -> dict[str, float]:
        return dict(json.loads(self._file.read_bytes())) if self._file.exists() else {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run under way.

    Attributes:
        config: What its results depend on.
        folder: Where they go, held by this process.
        constrained: The space under the limits.
        data: To train and evaluate on.
        images: Of the search split, uint8 (N, 3, S, S).
        labels: Likewise, int64 (N,).
        execution: How the work is spread.
        stop: Looked at in every long loop.
        console: Where progress is shown.
    """

    config: RunConfig
    folder: RunFolder
    constrained: ConstrainedSpace
    data: Data
    images: Tensor
    labels: Tensor
    execution: Execution
    stop: StopRequest
    console: Console

    @cached_property
    def clock(self) -> Clock:
        """Keeps the seconds of each part."""
        return Clock(self.folder.path / "seconds.json")
