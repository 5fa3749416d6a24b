"""Curves of a training for TensorBoard, which the extra `tensorboard` installs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

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


@contextmanager
def tensorboard_scalars(folder: Path) -> Iterator[Callable[[Point], None]]:
    """What writes the points of a curve as scalars: loss, learning rate, and accuracy if measured.

    A training that goes on after its last saved state begins with an earlier step than the process
    before ended with; what that one has written of later steps is not shown then.

    Args:
        folder: For the event files, as `tensorboard --logdir` takes it.

    Raises:
        InputError: If TensorBoard is not installed.
    """
    check_tensorboard_installed()
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as closing:
        writer: Any = None

        def write(point: Point) -> None:
            nonlocal writer
            if writer is None:
                writer = closing.enter_context(SummaryWriter(str(folder), purge_step=point.step))
            writer.add_scalar("train/loss", point.loss, point.step)
            writer.add_scalar("train/lr", point.lr, point.step)
            if point.accuracy is not None:
                writer.add_scalar("validation/accuracy", point.accuracy, point.step)

        yield write
