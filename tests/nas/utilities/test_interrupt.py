"""Signals that ask for a stop, in this very process."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator

import pytest

from nas.utilities.interrupt import (
    STOPPING,
    Ended,
    Interrupted,
    ended_by_signals,
    handlers_kept,
    held_back,
    stop_on_signals,
)


@pytest.fixture(autouse=True)
def handlers() -> Iterator[dict[signal.Signals, object]]:
    """Handlers that can be told apart, and those of pytest again afterwards."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    for number in STOPPING:
        signal.signal(number, signal.default_int_handler)
    yield {number: signal.getsignal(number) for number in STOPPING}
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


def now() -> dict[signal.Signals, object]:
    return {number: signal.getsignal(number) for number in STOPPING}


@pytest.mark.parametrize("number", STOPPING)
def test_the_first_signal_is_a_request_and_the_second_is_what_it_was(
    number: signal.Signals, handlers: dict[signal.Signals, object]
) -> None:
    with pytest.raises(Interrupted) as caught, stop_on_signals() as stop:
        assert not stop.requested
        stop.check()
        send(number)
        assert stop.requested
        with pytest.raises(KeyboardInterrupt):
            send(number)
        stop.check()
    assert caught.value.signum == number
    assert now() == handlers


def test_without_a_signal_all_is_as_it_was(handlers: dict[signal.Signals, object]) -> None:
    with stop_on_signals():
        assert now() != handlers
    assert now() == handlers


def test_what_nohup_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with stop_on_signals() as stop, ended_by_signals():
        send(signal.SIGHUP)
        assert not stop.requested


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_elsewhere_a_signal_unwinds_the_process(
    number: signal.Signals, handlers: dict[signal.Signals, object]
) -> None:
    with pytest.raises(Ended) as caught, ended_by_signals():
        send(number)
    assert caught.value.signum == number
    assert now() == handlers


def test_handlers_that_others_replace_are_put_back(
    handlers: dict[signal.Signals, object],
) -> None:
    with handlers_kept():
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    assert now() == handlers


@pytest.mark.parametrize("number", STOPPING)
def test_a_signal_that_is_held_back_comes_afterwards_and_not_to_what_was_started(
    number: signal.Signals,
) -> None:
    with pytest.raises(Interrupted) as caught, stop_on_signals() as stop:
        with held_back():
            child = subprocess.Popen(["sleep", "60"])
            signal.pthread_kill(threading.get_ident(), number)
            child.send_signal(number)
            with pytest.raises(subprocess.TimeoutExpired):
                child.wait(timeout=0.1)
            assert not stop.requested
        assert stop.requested
        child.kill()
        assert child.wait() == -signal.SIGKILL
        stop.check()
    assert caught.value.signum == number


def test_other_threads_handle_nothing(handlers: dict[signal.Signals, object]) -> None:
    def run() -> None:
        with stop_on_signals(), ended_by_signals(), handlers_kept():
            seen.append(now())

    seen: list[object] = []
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [handlers]
