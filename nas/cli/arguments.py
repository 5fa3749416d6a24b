"""What the commands' arguments have in common: values, groups, and what they stand for."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn, TypeAlias, get_args

from nas.latency.conditions import DtypeName, RuntimeName
from nas.objectives.objective import CLOSED_FORM
from nas.utilities.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from nas.utilities.interrupt import Interrupted


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Raise what `main` prints."""
        raise InputError(f"{message} (see {self.prog} --help)")


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"
"""What a command adds itself to."""


def add_limits(parser: argparse._ActionsContainer, *, required: Sequence[str] = ()) -> None:
    """Add a flag for the limit on each closed-form objective.

    Args:
        parser: Or a group of its arguments.
        required: Names of the objectives whose limit must be given.
    """
    for name, objective in CLOSED_FORM.items():
        counted = objective.defined(image_size="--image-size", num_classes="the data's")
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
        "--latency-batch", type=positive, default=1, help="images in the pass that is timed"
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


STOPPED = 128
"""What is added to a signal's number to give the exit status of a process that it stopped."""


def say_how_to_go_on(
    options: argparse.Namespace, console: "Console", interrupted: "Interrupted"
) -> None:
    """After an interruption: what to type, and the exit status."""
    console.print("\nstopped; everything is saved. To go on:", style="yellow")
    console.print(f"    {options.command_line}", style="bold", soft_wrap=True)
    options.status = STOPPED + interrupted.signum


def positive(text: str) -> int:
    """A whole number above zero."""
    return _whole(text, at_least=1)


def count(text: str) -> int:
    """A whole number from zero up."""
    return _whole(text, at_least=0)


def seed(text: str) -> int:
    """What seeds generators of random numbers."""
    value = _whole(text, at_least=0)
    if value >= 1 << 32:
        raise argparse.ArgumentTypeError(f"{value} is not below 2^32")
    return value


def size(text: str) -> int:
    """The side of an image in pixels."""
    return _whole(text, at_least=32)


def rate(text: str) -> float:
    """A number between 0 and 1."""
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from None
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


def _whole(text: str, *, at_least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None
    if value < at_least:
        raise argparse.ArgumentTypeError(f"{value} is below {at_least}")
    return value
