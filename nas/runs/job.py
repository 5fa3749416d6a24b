"""What every step of a run works with."""

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from rich.console import Console
from torch import Tensor

from nas.data import Data
from nas.export.pretrained import Pretrained
from nas.objectives.constrained_space import ConstrainedSpace
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.training.given_teacher import GivenTeacher
from nas.training.tensorboard import Scalars
from nas.utilities.bounds import Amount
from nas.utilities.errors import InputError
from nas.utilities.files import read_json, write_json
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import WAIT_SECONDS, Demand, RayCluster
from nas.utilities.units import format_seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How the work is spread; results don't depend on it, but for rounding in the training.

    The search proposes the same architectures under the same numbers, and finds the same of them,
    with any number of workers, and also where a process was killed and another goes on. One moment
    is left out: where Optuna's NSGA-II has chosen the parents of a generation and not yet its first
    child, the next process draws that child otherwise.

    Attributes:
        workers: Ray actors that evaluate; 0 evaluates in this process without Ray. The search has
            work for as many as its batch holds, whatever else there are.
        ray_address: Of a running cluster; None starts Ray on this machine.
        loader_workers: Processes that load training images, of each process that trains.
        train_workers: Processes that train the supernet, by Ray Train; 1 trains it in this one.
        ray_wait: Seconds that a step waits for Ray to give it a worker.
    """

    workers: int
    ray_address: str | None = None
    loader_workers: int = 0
    train_workers: int = 1
    ray_wait: float = WAIT_SECONDS

    def demands(self, config: RunConfig) -> list[Demand]:
        """What the steps of a run ask Ray for."""
        evaluate = Demand(count=self.workers, threads=config.threads, device=config.device)
        train = replace(evaluate, flag="train_workers", count=self.train_workers, together=True)
        return [evaluate] * (self.workers > 0) + [train] * (self.train_workers > 1)


KEPT_SECONDS = 60.0
"""Of a part that is killed the time is known but for so much, as its training is."""


class Clock:
    """Seconds spent on each part, over all processes of a run.

    Args:
        file: Where they are kept. One that is damaged is told of in the log, and counting begins
            anew: no result depends on it.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def seconds(self, part: str) -> float:
        """Seconds spent on a part so far."""
        return float(self._read().get(part, 0.0))

    @contextmanager
    def measuring(self, part: str) -> Iterator[None]:
        """Add the time of the block: in the end, and now and then for if it is killed."""
        start, before = time.monotonic(), self.seconds(part)

        def keep() -> float:
            spent = before + time.monotonic() - start
            write_json(self._file, self._read() | {part: spent})
            return spent

        def keep_on() -> None:
            while not over.wait(KEPT_SECONDS):
                with suppress(OSError):  # a disk that is full is told of in the end
                    keep()

        over = threading.Event()
        keeper = threading.Thread(target=keep_on, daemon=True)
        keeper.start()
        try:
            yield
        finally:
            over.set()
            keeper.join()
            logger.info("%s: %s", part, format_seconds(keep()))

    def _read(self) -> dict[str, float]:
        if not self._file.exists():
            return {}
        try:
            return read_json(self._file, dict[str, Amount], remedy="seconds are counted from 0")
        except InputError as error:
            logger.warning("%s", error)
            return {}


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run under way.

    Attributes:
        config: What its results depend on.
        folder: Where they go, held by this process.
        constrained: The space under the limits.
        data: To train and evaluate on.
        init: What the supernet begins with; None if all its weights are drawn.
        teacher: Which the user gave, if there is one.
        images: Of the search split, uint8 (N, 3, S, S).
        labels: Likewise, int64 (N,).
        execution: How the work is spread.
        cluster: The Ray that it is spread on.
        stop: Looked at in every long loop.
        console: Where progress is shown.
        scalars: Written for TensorBoard, where the user wants that.
    """

    config: RunConfig
    folder: RunFolder
    constrained: ConstrainedSpace
    data: Data
    init: Pretrained | None
    teacher: GivenTeacher | None
    images: Tensor
    labels: Tensor
    execution: Execution
    cluster: RayCluster
    stop: StopRequest
    console: Console
    scalars: Scalars

    @cached_property
    def clock(self) -> Clock:
        """Keeps the seconds of each part."""
        return Clock(self.folder.path / "seconds.json")
