"""Ctrl-C, SIGTERM and SIGHUP: a stop that waits for a safe place."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask for a stop: Ctrl-C; Slurm, Docker and systemd; a terminal that was closed."""


class Interrupted(Exception):
    """The user asked to stop, and everything was saved.

    Args:
        signum: By which signal.
    """

    def __init__(self, signum: int = signal.SIGINT) -> None:
        super().__init__()
        self.signum = signum


class Ended(BaseException):
    """A signal asks for the end where there is nothing to save.

    Args:
        signum: Which.
    """

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


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
    """Turn the first signal of `STOPPING` into a request; a second one does what it did before.

    An `Interrupted` that leaves the block knows the signal.
    """
    request, received = StopRequest(), signal.SIGINT

    def note(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        request.requested, received = True, signal.Signals(signum)
        restore()

    restore = _handled(note, STOPPING)
    try:
        yield request
    except Interrupted as interrupted:
        interrupted.signum = received
        raise
    finally:
        restore()


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP unwind the process, as Ctrl-C does, by raising `Ended`."""

    def end(signum: int, frame: FrameType | None) -> None:
        raise Ended(signum)

    restore = _handled(end, STOPPING[1:])
    try:
        yield
    finally:
        restore()


@contextmanager
def handlers_kept(*signals: signal.Signals) -> Iterator[None]:
    """Put signal handlers back that the block replaces, as Ray's start does.

    Args:
        signals: Of which; those of `STOPPING` if none are given.
    """
    restore = _handled(None, signals or STOPPING)
    try:
        yield
    finally:
        restore()


@contextmanager
def held_back() -> Iterator[None]:
    """Let this thread get signals of `STOPPING` at the end of the block alone, its children never.

    A terminal, Slurm or systemd sends a signal to all processes. Those that were started here are
    then still there for this one to save with, and it ends them itself. (Another thread, of a
    library's, may take a signal meanwhile: then its handler is called in the block.)
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _handled(
    handler: Callable[[int, FrameType | None], None] | None, signals: tuple[signal.Signals, ...]
) -> Callable[[], None]:
    """Handle signals, if a handler is given; how to put the former handlers back.

    What is ignored stays so: under `nohup`, SIGHUP. Outside the main thread nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        return lambda: None
    previous = {number: signal.getsignal(number) for number in signals}
    if previous.get(signal.SIGHUP) == signal.SIG_IGN:
        del previous[signal.SIGHUP]
    if handler is not None:
        for number in previous:
            signal.signal(number, handler)

    def restore() -> None:
        for number, before in previous.items():
            signal.signal(number, before)

    return restore
