"""Scalars for TensorBoard, which the extra `tensorboard` installs."""

from collections.abc import Mapping
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from nas.training.alone import Point
from nas.utilities.errors import InputError


def check_tensorboard_installed() -> None:
    """Check that TensorBoard is there.

    Raises:
        InputError: If not; it says how to install it.
    """
    if find_spec("tensorboard") is None:
        raise InputError(
            "`tensorboard` is not installed here; pip install 'subnet-search[tensorboard]'"
        )


class Scalars:
    """Writes scalars for TensorBoard until its block ends: a folder for each part that has steps.

    A part that goes on after its last saved state begins with an earlier step than the process
    before ended with; what that one has written of later steps is not shown then.

    Args:
        folder: For the event files, as `tensorboard --logdir` takes it; None writes nothing.

    Raises:
        InputError: If TensorBoard is to be written for and is not installed.
    """

    def __init__(self, folder: Path | None) -> None:
        if folder is not None:
            check_tensorboard_installed()
        self._folder = folder
        self._writers: dict[str, Any] = {}
        self._closing = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.close()

    def write(self, part: str, step: int, values: Mapping[str, float]) -> None:
        """Write what a step of a part gave, by TensorBoard's tags."""
        if self._folder is None:
            return
        from torch.utils.tensorboard import SummaryWriter

        if part not in self._writers:
            writer = SummaryWriter(str(self._folder / part), purge_step=step)
            self._writers[part] = self._closing.enter_context(writer)
        for tag, value in values.items():
            self._writers[part].add_scalar(tag, value, step)

    def write_point(self, part: str, point: Point) -> None:
        """Write a point of a curve: loss, learning rate, and accuracy if it was measured."""
        measured = {} if point.accuracy is None else {"validation/accuracy": point.accuracy}
        values = {"train/loss": point.loss, "train/lr": point.lr}
        self.write(part, point.step, values | measured)
