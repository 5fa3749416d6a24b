"""What the commands' arguments have in common: values, groups, and what they stand for."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeAlias, get_args

from nas.latency.conditions import DtypeName, RuntimeName
from nas.objectives.objective import CLOSED_FORM
from nas.utilities.bounds import MOST_IMAGES, MOST_PROCESSES, MOST_STEPS, MOST_TRIALS
from nas.utilities.errors import InputError
from nas.utilities.files import write_text
from search_space.bounds import LARGEST_IMAGE

if TYPE_CHECKING:
    from rich.console import Console

    from nas.utilities.interrupt import Interrupted


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        short = message if len(message) <= 300 else f"{message[:297]}..."
        raise InputError(f"{short} (see {self.prog} --help)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a command adds itself to."""


def add_limits(
    parser: argparse._ActionsContainer,
    *,
    image_size: str = "--image-size",
    num_classes: str = "the data's",
    required: Sequence[str] = (),
) -> None:
    """Add a flag for the limit on each closed-form objective.

    Args:
        parser: Or a group of its arguments.
        image_size: Where the size comes from at which costs count, as the help says it.
        num_classes: Likewise the number of classes.
        required: Names of the objectives whose limit must be given.
    """
    for name, objective in CLOSED_FORM.items():
        counted = objective.defined(image_size=image_size, num_classes=num_classes)
        examples = f": {objective.examples}" if objective.examples else ""
        parser.add_argument(
            f"--{objective.field.replace('_', '-')}",
            metavar=objective.label.upper(),
            required=name in required,
            help=f"limit on {counted}{examples}",
        )


def add_latency_conditions(parser: argparse._ActionsContainer) -> None:
    """Add what a run's networks are timed under."""
    parser.add_argument(
        "--latency-batch", type=batch, default=1, help="images in the pass that is timed"
    )
    parser.add_argument(
        "--latency-dtype",
        choices=get_args(DtypeName),
        default="float32",
        help="data type of the network that is timed",
    )
    parser.add_argument(
        "--runtime",
        choices=get_args(RuntimeName),
        default="eager",
        help="what runs the network that is timed",
    )


def add_ray_cluster(parser: argparse._ActionsContainer) -> None:
    """Add what cluster the workers live in, and how long they are waited for."""
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="a running Ray cluster: auto, HOST:PORT"
    )
    parser.add_argument(
        "--ray-wait",
        metavar="TIME",
        default="5min",
        help="how long a step waits where Ray has no room for it, such as on a busy cluster: 90s, "
        "5min, 2h; the same command goes on later",
    )


def add_teacher(parser: argparse._ActionsContainer) -> None:
    """Add what names a teacher, and what it teaches."""
    parser.add_argument(
        "--teacher",
        metavar="MODEL[:CHECKPOINT]",
        help="learn from the answers of this classifier of the same classes as well: a model of "
        "timm with its pretrained weights or those of a file, such as "
        "resnet50:train/model_best.pth.tar, or an export of ours as subnet:FOLDER",
    )
    parser.add_argument(
        "--token-labels",
        action="store_true",
        help="learn from the teacher's answers for each place of its last map, too",
    )


STOPPED = 128
"""What is added to a signal's number to give the exit status of a process that it stopped."""


def say_how_to_go_on(
    options: argparse.Namespace, console: "Console", interrupted: "Interrupted"
) -> None:
    """After an interruption: what to type, and the exit status."""
    console.print("\nstopped; everything is saved. To go on:", style="yellow")
    console.print(f"    {options.command_line}", style="bold", soft_wrap=True)
    options.status = STOPPED + interrupted.signum


def write_asked(flag: str, path: Path, text: str, *, suffix: str) -> None:
    """Write the file that a flag asks for.

    Raises:
        InputError: If its name does not end in the suffix, or it cannot be written.
    """
    if path.suffix != suffix:  # so that no other file of the user's is written over
        raise InputError(f"{flag} {path}: the name must end in {suffix}")
    try:
        write_text(path, text)
    except OSError as error:
        raise InputError(f"{flag} {path}: cannot be written ({error.strerror})") from None


def whole(at_least: int, at_most: int) -> Callable[[str], int]:
    """What reads a whole number within bounds."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
        if not at_least <= value <= at_most:
            raise argparse.ArgumentTypeError(f"{value} is not between {at_least} and {at_most}")
        return value

    return read


steps = whole(1, MOST_STEPS)
"""Training steps, or passes over the data."""

batch = whole(1, MOST_IMAGES)
"""Images in a batch."""

some = whole(1, MOST_TRIALS)
"""How many architectures."""

processes = whole(1, MOST_PROCESSES)
"""Processes or threads that share the work."""

helpers = whole(0, MOST_PROCESSES)
"""Processes beside this one."""

seed = whole(0, (1 << 32) - 1)
"""What seeds generators of random numbers."""

size = whole(32, LARGEST_IMAGE)
"""The side of an image in pixels."""


def rate(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def rates(text: str) -> list[float]:
    """Numbers between 0 and 1, with commas between them."""
    return [rate(part) for part in text.split(",")]
