"""How fast this checkout is beside another one: published designs and training steps on a CPU.

Each checkout has a process of its own that stays alive and runs one pass whenever it is asked, the
two in turn, so that what else the machine does falls on both. Of every pair of passes that follow
each other the ratio (this one's seconds over the other's) is taken, and the median of the ratios is
printed with its quartiles, one JSON line for each case: of the seconds that passed, and of those
that the processors worked, which another process beside leaves nearly as they are. Where its
memory happens to lie makes one process up to 5 % faster than its twin, so that there are rounds,
each with processes of its own.

    python benchmarks/speed.py ../before [--rounds 5] [--pairs 8] [--threads 1 2]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[1]
TIMM_NAMES = ("shunted_t", "lit_ti", "pslt_tiny")


@dataclass(frozen=True)
class Case:
    """What is timed.

    Attributes:
        network: A published design, by its name in timm.
        training: A step (forward, loss, backward) as networks are trained; otherwise a forward
            pass in evaluation without gradients.
        batch: Images.
        size: Their side in pixels.
        threads: Of torch.
    """

    network: str
    training: bool
    batch: int
    size: int
    threads: int


def cases(names: list[str], threads: list[int]) -> Iterator[Case]:
    for number in threads:
        for name in names:
            yield Case(name, training=False, batch=1, size=224, threads=number)
            yield Case(name, training=False, batch=8, size=224, threads=number)
            yield Case(name, training=True, batch=64, size=64, threads=number)


def serve() -> None:
    """In a checkout's process: take a case from each line, or run the pass of the last one."""
    run: Callable[[], None] = lambda: None  # noqa: E731
    for line in sys.stdin:
        if line.strip() != "run":
            run = prepare(Case(**json.loads(line)))
            run()
        start, worked = time.perf_counter(), time.process_time()
        run()
        print(time.perf_counter() - start, time.process_time() - worked, flush=True)


def prepare(case: Case) -> Callable[[], None]:
    """The pass of a case, by the modules of the checkout that this process runs in."""
    import torch
    from torch.nn import functional as F

    from nas.training.loop import autocast
    from search_space import DESIGNS
    from supernet import Network

    torch.set_num_threads(case.threads)
    torch.manual_seed(0)
    architecture = {d.timm_name: d.architecture for d in DESIGNS}[case.network]
    network = Network(architecture, num_classes=10).train(case.training)
    images = torch.randn(case.batch, 3, case.size, case.size)
    labels = torch.arange(case.batch) % 10

    @torch.no_grad()
    def evaluate() -> None:
        network(images)

    def train() -> None:
        with autocast(torch.device("cpu")):
            scores = network(images)
        F.cross_entropy(scores.float(), labels).backward()
        network.zero_grad(set_to_none=False)

    return train if case.training else evaluate


class Seconds(NamedTuple):
    """What a pass took: time that passed, and time that processors worked."""

    passed: float
    worked: float


Ask = Callable[[str], Seconds]


@contextmanager
def server(checkout: Path) -> Iterator[Ask]:
    """A process in that checkout; called with a line, it gives the seconds of the pass."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--serve"],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None

    def ask(line: str) -> Seconds:
        print(line, file=process.stdin, flush=True)
        assert process.stdout is not None
        if not (answer := process.stdout.readline()):
            raise RuntimeError(f"the process of {checkout} ended")
        return Seconds(*map(float, answer.split()))

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait()


def ratio(pairs: list[tuple[float, float]]) -> dict[str, float | list[float]]:
    """The median ratio of the pairs and its quartiles."""
    lower, median, upper = statistics.quantiles([one / other for one, other in pairs], n=4)
    return {"ratio": round(median, 4), "quartiles": [round(lower, 4), round(upper, 4)]}


def measure(case: Case, ours: Ask, theirs: Ask, pairs: int) -> list[tuple[Seconds, Seconds]]:
    """So many pairs of passes of a case."""
    for ask in (ours, theirs):
        ask(json.dumps(asdict(case)))
    times: list[tuple[Seconds, Seconds]] = []
    for index in range(pairs):
        # Each goes first in every other pair, so that following the other is no disadvantage.
        if index % 2:
            second = theirs("run")
            times.append((ours("run"), second))
        else:
            first = ours("run")
            times.append((first, theirs("run")))
    return times


def row(case: Case, times: list[tuple[Seconds, Seconds]]) -> dict[str, object]:
    """What is printed of a case."""
    return {
        **asdict(case),
        "passed": ratio([(one.passed, other.passed) for one, other in times]),
        "worked": ratio([(one.worked, other.worked) for one, other in times]),
        "milliseconds": [
            round(1e3 * statistics.median(one.passed for one in side), 2)
            for side in zip(*times, strict=True)
        ],
    }


def main() -> None:
    """Time and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("other", type=Path, nargs="?", help="the other checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=8, help="of passes in a round")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--cases", nargs="+", default=list(TIMM_NAMES), help="names in timm")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return
    if options.other is None or not (options.other / "supernet").is_dir():
        parser.error(f"{options.other}: no checkout")
    import torch

    from nas.utilities.devices import chip_name

    about = {"chip": chip_name("cpu"), "torch": torch.__version__}
    about |= {"rounds": options.rounds, "pairs": options.pairs}
    print(json.dumps(about), flush=True)
    chosen = list(cases(options.cases, options.threads))
    times: dict[Case, list[tuple[Seconds, Seconds]]] = {case: [] for case in chosen}
    for _ in range(options.rounds):
        with server(HERE) as ours, server(options.other.resolve()) as theirs:
            for case in chosen:
                times[case] += measure(case, ours, theirs, options.pairs)
    for case in chosen:
        print(json.dumps(row(case, times[case])))


if __name__ == "__main__":
    main()
