"""Small runs, and how the suites of this folder start them."""

import io
import multiprocessing
import os
import random
import runpy
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, NamedTuple
from unittest import mock

import pandas as pd
import pytest

from nas.cli import main
from nas.latency.conditions import LatencyConditions
from nas.latency.table import LatencyTable, TimedNetwork
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.objectives.objective import latency_name
from nas.runs.config import RunConfig
from nas.search.evaluation import Score
from nas.search.trials import Record, trials_table
from search_space import PRESETS, Architecture, SearchSpace, total_cost
from search_space.segments import space_segments

NANO = PRESETS["nano"]
ROOT = Path(__file__).parents[2]

SMALL = (
    *("--space", "nano", "--budget", "200MFLOPs", "--proxy-size", "32", "--batch-size", "8"),
    *("--search-images", "40", "--workers", "0", "--seed", "2", "--short-list", "0"),
)
"""The flags of runs that take seconds; steps, trials and the folder are to be added."""


@contextmanager
def without_figures() -> Iterator[None]:
    """Leave the figures out of the pages, and plotly.js: they take a third of a small run."""
    from nas.report import pages

    drawing = [name for name in vars(pages) if name.endswith("_figure") or name == "_plot"]
    with ExitStack() as patched:
        for name in drawing:
            patched.enter_context(mock.patch.object(pages, name, lambda *_, **__: ""))
        patched.enter_context(mock.patch("plotly.offline.get_plotlyjs", lambda: ""))
        yield


class Outcome(NamedTuple):
    """What a command left behind."""

    status: int
    out: str
    err: str


def command(*arguments: str | Path, **handed: object) -> Outcome:
    """Run `nas ARGUMENTS`, in this process; `handed` as in `nas.cli.main`."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["nas", *map(str, arguments)])
        status = main(**handed)
    return Outcome(status, out.getvalue(), err.getvalue())


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start `python ARGUMENTS` as a process of its own, from the repository's root."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
        # Signals reach a test that runs under nohup or in the background as they reach a user.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("nas.runs.start", "nas.runs.retraining", "nas.search.surrogate", "sklearn.datasets"),
        *("plotly.graph_objects", "plotly.subplots"),  # which are imported where pages are drawn
    ]
)


ON_FEW_IMAGES = """
import sys, nas.data.digits
from nas.cli import main
nas.data.digits.TEST_CANVASES = 100
sys.exit(main())
"""
"""`nas` for `Fork("-c", ...)`; drawing the whole test split takes longer than a short training."""


class Fork:
    """A process like that of `start`, without the seconds that it takes to import torch.

    It is forked from a server that has imported everything. Its errors must fit into a pipe.
    """

    def __init__(self, *arguments: str | Path) -> None:
        out, told = _FORKS.Pipe(duplex=False)
        err, complained = _FORKS.Pipe(duplex=False)
        given = list(map(str, arguments)), _environment(), (told, complained)
        self._process = _FORKS.Process(target=_be_forked, args=given)
        self._process.start()
        told.close()
        complained.close()
        self.stdout, self.stderr = (os.fdopen(os.dup(pipe.fileno())) for pipe in (out, err))

    @property
    def pid(self) -> int:
        """Its number."""
        assert self._process.pid is not None
        return self._process.pid

    def send_signal(self, sent: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, sent)

    def finish(self) -> Outcome:
        """Wait for it to end."""
        too_long = threading.Timer(600, self._process.kill)
        too_long.start()
        with self.stdout, self.stderr:
            out, err = self.stdout.read(), self.stderr.read()
        self._process.join()
        too_long.cancel()
        assert self._process.exitcode is not None
        return Outcome(self._process.exitcode, out, err)


def _be_forked(
    arguments: list[str], environment: dict[str, str], pipes: tuple[Connection, Connection]
) -> None:
    for number, pipe in enumerate(pipes, start=1):
        os.dup2(pipe.fileno(), number)
        pipe.close()
    # Those of the server are of other files.
    encoding = environment.get("PYTHONIOENCODING")
    sys.stdout, sys.stderr = (
        os.fdopen(number, "w", 1, encoding=encoding, closefd=False) for number in (1, 2)
    )
    os.chdir(ROOT)
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if arguments[0] == "-c":
        sys.argv = ["-c", *arguments[2:]]
        exec(arguments[1], {"__name__": "__main__"})
    elif arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


def finish(process: subprocess.Popen[str]) -> Outcome:
    """Wait for a process to end."""
    try:
        out, err = process.communicate(timeout=600)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return Outcome(process.returncode, out, err)


def wait_for(text: str, stream: IO[str]) -> str:
    """Read a process's output up to the line that holds a text."""
    read = ""
    for line in stream:
        read += line
        if text in line:
            return read
    raise AssertionError(f"{text!r} never came:\n{read}")


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard reads in a folder: steps and values by tag."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read = EventAccumulator(str(folder)).Reload()
    return {
        tag: [(event.step, event.value) for event in read.Scalars(tag)]
        for tag in read.Tags()["scalars"]
    }


def small_config(**changes: Any) -> RunConfig:
    """The configuration of a training that takes a second."""
    values: dict[str, Any] = {
        "budget": 200_000_000,
        "space": NANO,
        "proxy_size": 32,
        "steps": 6,
        "batch_size": 8,
        "trials": 6,
        "search_images": 40,
    }
    return RunConfig(**values | changes)


def limits_on(*, latency_ms: Mapping[str, float] | None = None, **limits: float) -> Limits:
    """Limits by the names of their objectives, those on latency by device."""
    latencies = {latency_name(device): limit for device, limit in (latency_ms or {}).items()}
    return Limits(**limits, **latencies)


def constrained_nano(
    *, tables: Mapping[str, LatencyTable] | None = None, measured: Iterable[str] = (), **limits: Any
) -> ConstrainedSpace:
    """The space nano under limits, at 224 px and for ten classes; latency by those tables."""
    constrained = ConstrainedSpace(
        space=NANO, limits=limits_on(**limits), image_size=224, num_classes=10
    )
    return constrained.with_tables(tables or {}, measured=measured)


def fake_table(
    device: str = "phone",
    *,
    space: SearchSpace = NANO,
    image_size: int = 224,
    margin: float | None = None,
    fields: Mapping[str, Any] | None = None,
    **conditions: Any,
) -> LatencyTable:
    """A table of times that nobody measured: each segment takes 0.2 to 2 ms, in no order.

    Args:
        device: Whose table it says to be.
        space: The space.
        image_size: Of the segments.
        margin: The relative error that its held-out networks show; without them by default.
        fields: Others of the table.
        conditions: Others of the conditions.
    """
    shown = () if margin is None else [TimedNetwork(**_timed(margin, n)) for n in range(12)]
    return LatencyTable(
        space=space.name,
        conditions=LatencyConditions(
            **{"device": device, "image_size": image_size, "threads": 1} | conditions
        ),
        segments={
            segment.label: random.Random(f"{device} {segment.label}").uniform(0.2, 2.0)
            for segment in space_segments(space, image_size=image_size)
        },
        networks=tuple(shown),
        **fields or {},
    )


def _timed(margin: float, number: int) -> dict[str, Any]:
    return {
        "hash": f"{number}",
        "macs": 1000 + number,
        "predicted_ms": (10 + number) * (1 + margin),
        "measured_ms": 10 + number,
    }


class FakeWorkers:
    """Scores by a formula, at once; keeps what was submitted.

    Args:
        capacity: How many evaluations may be under way.
        failing: Hashes whose evaluation fails.
        survives: Evaluations after which `next_score` raises `Killed`.
    """

    def __init__(
        self, capacity: int = 1, failing: frozenset[str] = frozenset(), survives: int = 10**9
    ) -> None:
        self.capacity, self.failing, self.survives = capacity, failing, survives
        self.submitted: list[Architecture] = []
        self.under_way: deque[tuple[int, Architecture]] = deque()
        self.most_under_way = 0

    def submit(self, ticket: int, architecture: Architecture) -> None:
        self.submitted.append(architecture)
        self.under_way.append((ticket, architecture))
        self.most_under_way = max(self.most_under_way, len(self.under_way))

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        if self.survives == 0:
            raise Killed
        self.survives -= 1
        ticket, architecture = self.under_way.pop()
        if architecture.hash in self.failing:
            return ticket, Score(error="Traceback: out of luck")
        return ticket, Score(accuracy=fake_accuracy(architecture), loss=fake_loss(architecture))

    def close(self) -> None:
        pass


class Killed(BaseException):
    """Stands for SIGKILL: nothing of ours handles it."""


def fake_accuracy(architecture: Architecture) -> float:
    """An accuracy that differs between architectures and knows no order."""
    return int(architecture.hash, 16) % 1000 / 1000


def fake_loss(architecture: Architecture) -> float:
    """A loss that knows another order."""
    return int(architecture.hash, 16) % 777 / 100


def evaluated_nano(count: int) -> tuple[pd.DataFrame, dict[str, Architecture]]:
    """A table of so many evaluated architectures of nano, and these by hash; all 50 % accurate."""
    drawn = random.Random(0).sample(list(NANO.enumerate()), count)
    known = {}
    for number, architecture in enumerate(drawn):
        cost = total_cost(architecture)
        known[number] = Record(
            state="evaluated",
            architecture=architecture.model_dump(mode="json"),
            hash=architecture.hash,
            costs={"macs": cost.macs, "params": cost.params},
            source="sampler",
            accuracy=0.5,
            excess={},
        )
    table = trials_table(known, Limits(macs=1e9).objectives)
    return table, {architecture.hash: architecture for architecture in drawn}
