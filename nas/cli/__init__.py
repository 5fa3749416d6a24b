"""The command line: `nas COMMAND`, of which `run_search.py` is `search`.

A module for each command, whose `add` describes its arguments and says what runs it.
"""

import argparse
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nas.cli import (
    compare,
    convert,
    describe,
    designs,
    export,
    front,
    plot,
    profile,
    retrain,
    runs,
    sample,
    search,
    space,
    watch,
)
from nas.cli.arguments import STOPPED, Parser
from nas.utilities.commands import program, typed
from nas.utilities.errors import Disagreement, InputError, NothingFound
from nas.utilities.interrupt import Ended, ended_by_signals
from search_space import ArchitectureError

if TYPE_CHECKING:
    from nas.runs.latency_tables import LatencyMethods

LONGEST_LINE = 1000
"""Characters of an error, which may quote anything."""


def main(command: Sequence[str] = (), *, methods: "LatencyMethods | None" = None) -> int:
    """Run what the process's arguments ask for, after those of `command`.

    Args:
        command: Arguments before those of the process.
        methods: How `search` and `profile` find latency; on this machine by default.

    Returns:
        The exit status: 0, 1 for a search that found nothing or costs that are not what was
        counted, 2 for bad input, and 128 more than the signal that stopped it: 130 after Ctrl-C,
        143 after SIGTERM, 129 after SIGHUP.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may lack a sign of ours
            stream.reconfigure(errors="replace")
    try:
        _check_text(sys.argv[1:])
        options = _parser().parse_args([*command, *_with_negative_values(sys.argv[1:])])
        action: Callable[[argparse.Namespace], None] = options.action
        options.command_line = typed(*command, *sys.argv[1:])
        options.methods = methods
        with ended_by_signals():
            action(options)
    except (InputError, ArchitectureError) as error:
        return _refused(str(error))
    except (NothingFound, Disagreement) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return STOPPED + signal.SIGINT
    except Ended as ended:
        print(f"stopped by {signal.Signals(ended.signum).name}", file=sys.stderr)
        return STOPPED + ended.signum
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:  # a disk that is full, a folder that cannot be written
        return _refused(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    return int(getattr(options, "status", 0))


def _refused(message: str) -> int:
    """Print an error in one line, with its fields, which stand between backticks, as flags.

    Returns:
        The exit status.
    """
    line = " ".join(message.split())
    line = re.sub(r"`(\w+)`", lambda field: f"--{_flag(field[1])}", line)
    cut = "..." if len(line) > LONGEST_LINE else ""
    print(f"error: {line[:LONGEST_LINE]}{cut}", file=sys.stderr)
    return 2


def _flag(field: str) -> str:
    """What a field is called on the command line; Python has no argument named `from`."""
    return "from" if field == "start" else field.replace("_", "-")


def _check_text(arguments: Sequence[str]) -> None:
    """See that what was typed can be parsed, and written down again in logs and in JSON.

    Raises:
        InputError: If it is not in UTF-8, or `--` is the value of a flag.
    """
    for argument in arguments:
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InputError(f"{argument!a} is no text in UTF-8") from None
        # Of such a value argparse would make an empty list.
        if argument.startswith("--") and argument.endswith("=--"):
            raise InputError(f"{argument}: '--' is no value")


def _with_negative_values(arguments: Sequence[str]) -> list[str]:
    """Join a flag and a value such as `-2GFLOPs`, which argparse would take for another flag."""
    joined: list[str] = []
    for argument in arguments:
        if re.match(r"-[\d.]", argument) and joined and joined[-1].startswith("--"):
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program(),
        description="Architecture search for vision transformers over token pooling and attention "
        "sharing.",
        allow_abbrev=False,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in (
        *(search, watch, retrain, plot, front, compare, runs),
        *(profile, export, convert),
        *(space, sample, describe, designs),
    ):
        command.add(commands)
    return parser
