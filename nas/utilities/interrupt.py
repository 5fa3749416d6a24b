"""Ctrl-C that waits for a safe place."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(Exception):
    """The user asked to stop, and everything was saved."""


class StopRequest:
    """Whether the user has asked to stop; long loops ask at places where stopping loses nothing."""

    def __init__(self) -> None:
        self.requested = False

    def check(self) -> None:
        """Leave if a stop was requested.

        Raises:
            Interrupted: If so.
        """
        if self.requested:
            raise Interrupted


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn the first Ctrl-C or SIGTERM into a request; a second one kills as usual."""
    request = StopRequest()
    previous = {sig: signal.getsignal(sig) for sig in (signal.SIGINT, signal.SIGTERM)}

    def note(signum: int, frame: FrameType | None) -> None:
        request.requested = True
        for sig, handler in previous.items():
            signal.signal(sig, handler)

    for sig in previous:
        signal.signal(sig, note)
    try:
        yield request
    finally:
        for sig, handler in previous.items():
            signal.signal(sig, handler)
