"""Hostile command lines and damaged files, many of them: the cases of `tests/nas/fuzzing.py`.

Each case is a forked child of a process in which everything is loaded, with 20 seconds and 2 GB of
memory. It has to end with a documented status, in a few lines and without a traceback, and to leave
alone what lies beside its folder. A table of the cases by kind is printed and written, and below it
whatever went wrong. With another seed there are other cases.

    nice python -m benchmarks.fuzz --commands 1000 --files 2000 [--seed 0] [--out FILE]
"""

import argparse
import os
import pickle
import select
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "nas"))

from fuzzing import Case, Outcome, build, command_lines, damaged_files, hurried, run

SECONDS, GIGABYTES = 20.0, 2.0
MEMORY = Path("/dev/shm")


@dataclass
class Tally:
    """What became of the cases of one kind."""

    statuses: Counter[int] = field(default_factory=Counter)
    slowest: float = 0.0
    most: float = 0.0
    problems: int = 0


def in_child(case: Case, template: Path, place: Path) -> tuple[Outcome, float, float]:
    """Run a case in a child of this process; its outcome, seconds, and gigabytes at most."""
    reading, writing = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if not child:
        os.close(reading)
        with os.fdopen(writing, "wb") as stream:
            pickle.dump(run(case, template, place), stream)
        os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], SECONDS)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as stream:
        content = stream.read()
    _, status, used = os.wait4(child, 0)
    seconds, gigabytes = time.monotonic() - start, used.ru_maxrss * 1024 / 1e9
    if content:
        return pickle.loads(content), seconds, gigabytes
    ended = f"over {SECONDS:.0f} s" if not ready else f"ended by {status}"
    return Outcome(-1, "", "", ended), seconds, gigabytes


def tried(cases: Iterable[Case], place: Path) -> tuple[dict[str, Tally], list[str]]:
    """Run all cases; what became of each kind, and lines about what went wrong."""
    template = place / "template"
    template.mkdir()
    tallies: dict[str, Tally] = defaultdict(Tally)
    wrong = []
    with hurried(drawing=True):
        build(template)  # which loads what the children need
        for number, case in enumerate(cases):
            outcome, seconds, gigabytes = in_child(case, template, place)
            problem = outcome.problem
            if not problem and gigabytes > GIGABYTES:
                problem = f"{gigabytes:.1f} GB"
            tally = tallies[case.kind]
            tally.statuses[outcome.status] += 1
            tally.slowest = max(tally.slowest, seconds)
            tally.most = max(tally.most, gigabytes)
            if problem:
                tally.problems += 1
                wrong.append(f"case {number}: {problem}: {case}")
    return tallies, wrong


def table(tallies: dict[str, Tally]) -> list[str]:
    """The tallies, for people."""
    heads = ("cases", "status 0", "1", "2", "problems", "slowest s", "most GB")
    lines = [f"{'kind':38}" + "".join(f"{head:>10}" for head in heads)]
    for kind, tally in sorted(tallies.items()):
        counts = [sum(tally.statuses.values()), *(tally.statuses[n] for n in (0, 1, 2))]
        cells = [*counts, tally.problems, f"{tally.slowest:.1f}", f"{tally.most:.2f}"]
        lines.append(f"{kind:38}" + "".join(f"{cell:>10}" for cell in cells))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commands", type=int, default=1000, help="command lines")
    parser.add_argument("--files", type=int, default=2000, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write what is printed there as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    start = time.monotonic()
    cases = [
        *islice(command_lines(options.seed), options.commands),
        *islice(damaged_files(options.seed), options.files),
    ]
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as place:
        tallies, wrong = tried(cases, Path(place))
    lines = [
        f"{options.commands} command lines and {options.files} damaged files, seed {options.seed}, "
        f"in {time.monotonic() - start:.0f} s",
        "",
        *table(tallies),
        "",
        *(wrong or ["nothing went wrong"]),
    ]
    print("\n".join(lines))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
