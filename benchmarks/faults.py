r"""What kills, stops, starves and damages do to a run: nothing may be lost, repeated or waited for.

    python -m benchmarks.faults --injections 200 --out results/reference/faults/faults.txt

A small run is made once without any fault. Then the same run is made again and again in new
folders, and at random moments something happens to it; after each fault the same command goes on,
until it comes to its end. Held against the first run and against what was there before the fault:

- lost: an evaluation, or a result of the final, that was in the journal is not there any more
- repeated: an architecture was evaluated twice
- other weights: a weight of the supernet differs from that of the run without faults
- traceback: one was printed
- hang: the process was there `LIMIT` seconds after the fault
- left behind: a temporary file in the finished folder
- wrong end: another status, or another number of evaluations, than the fault allows

The moments are drawn by `--seed`, but where a process is by then depends on the machine.
"""

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from nas.search.study import load_study, records

LIMIT = 120.0
"""Seconds from a fault to the end of the process, or of a run that goes on by itself."""

MOST_FAULTS = 8
"""In one folder, before its run is left alone."""

COMMAND = (
    *(sys.executable, "run_search.py", "--budget", "1GFLOPs", "--space", "nano", "--steps", "60"),
    *("--trials", "12", "--search-images", "60", "--batch-size", "8", "--image-size", "64"),
    *("--proxy-size", "32", "--short-list", "3", "--finalists", "2"),
)

ENDS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Status by signal, where a process could save and say how to go on."""

PROBLEMS = (
    *("lost", "repeated", "other weights", "traceback", "hang", "left behind", "wrong end"),
)


@dataclass
class Case:
    """One folder, and the processes that work in it one after the other."""

    folder: Path
    workers: int
    weights: Mapping[str, Tensor]
    problems: list[str] = field(default_factory=list)
    known: dict[str, float] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)

    def start(self) -> subprocess.Popen[str]:
        """The command, in a session of its own."""
        return subprocess.Popen(
            [*COMMAND, "--workers", str(self.workers), "--out", str(self.folder)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def end(self, process: subprocess.Popen[str]) -> tuple[int | None, str]:
        """Wait for the end of a process; its status, None if it never came, and what it printed."""
        try:
            out, _ = process.communicate(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            self.problems.append("hang")
            _kill_all(process)
            out, _ = process.communicate()
            return None, out
        if "Traceback" in out:
            self.problems.append("traceback")
            print(out[-3000:], file=sys.stderr)
        return process.returncode, out

    def look(self) -> None:
        """Hold what is in the journal against what was there before."""
        journal = self.folder / "study.journal"
        if not journal.exists():
            return
        found = [r for r in records(load_study(journal)).values() if r.was_evaluated]
        now = {record.hash: float(record.accuracy or 0) for record in found}
        final = {r.hash: r.scratch.accuracy for r in found if r.scratch and r.scratch.accuracy}
        if len(now) < len(found):
            self.problems.append("repeated")
        if any(now.get(known) != accuracy for known, accuracy in self.known.items()):
            self.problems.append("lost")
        if any(final.get(known) != accuracy for known, accuracy in self.final.items()):
            self.problems.append("lost")
        self.known, self.final = now, final

    def finish(self) -> None:
        """Hold a finished folder against the run without faults."""
        self.look()
        found = weights_of(self.folder)
        if any(not torch.equal(tensor, found[name]) for name, tensor in self.weights.items()):
            self.problems.append("other weights")
        if len(self.known) != 12 or len(self.final) != 2:
            self.problems.append("wrong end")
        if not (self.folder / "best" / "architecture.json").exists():
            self.problems.append("wrong end")
        hidden = [path for path in self.folder.rglob(".*") if not path.name.startswith(".lock")]
        if hidden:
            self.problems.append("left behind")


def weights_of(folder: Path) -> dict[str, Tensor]:
    """The weights of a run's supernet."""
    return load_file(folder / "supernet" / "checkpoint.safetensors")


Fault = Callable[[subprocess.Popen[str], random.Random], set[int] | None]
"""Does it to a process; the statuses that it may end with, None if nothing could be done."""


def signalled(number: signal.Signals, *, group: bool) -> Fault:
    """A signal to the process, or to all of its session, as terminals and Slurm send it."""

    def fault(process: subprocess.Popen[str], rng: random.Random) -> set[int]:
        (os.killpg if group else os.kill)(process.pid, number)
        return {0, -number, ENDS.get(number, -number)}

    return fault


def child_signalled(number: signal.Signals) -> Fault:
    """A signal to one of the processes that it started."""

    def fault(process: subprocess.Popen[str], rng: random.Random) -> set[int] | None:
        workers = [pid for pid in _session(process) if _works(pid)]
        if not workers:
            return None
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), number)
        return {0, 2}

    return fault


def no_more_disk(process: subprocess.Popen[str], rng: random.Random) -> set[int]:
    """Files cannot grow beyond a few kilobytes any more, as on a full disk."""
    most = rng.choice((0, 1 << 10, 1 << 14))
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    return {0, 2}


FAULTS: dict[str, Fault] = {
    "SIGKILL": signalled(signal.SIGKILL, group=False),
    "SIGKILL to all": signalled(signal.SIGKILL, group=True),
    "SIGTERM": signalled(signal.SIGTERM, group=False),
    "SIGTERM to all": signalled(signal.SIGTERM, group=True),
    "SIGINT": signalled(signal.SIGINT, group=False),
    "SIGINT to all": signalled(signal.SIGINT, group=True),
    "SIGHUP": signalled(signal.SIGHUP, group=False),
    "worker killed": child_signalled(signal.SIGKILL),
    "no more disk": no_more_disk,
}
DAMAGE = "a file damaged"


def damage(case: Case, rng: random.Random) -> bool:
    """Damage a file of the folder, run the command on it, and put the file back."""
    files = [
        p
        for p in case.folder.rglob("*")
        if p.is_file() and p.name != "log.txt" and not p.name.startswith(".lock")
    ]
    if not files:
        return False
    file = rng.choice(sorted(files))
    content = file.read_bytes()
    shutil.copytree(case.folder, case.folder.with_suffix(".whole"))
    middle = rng.randrange(len(content) + 1)
    file.write_bytes(rng.choice((content[:middle], content[:middle] + b"\xff\x00" + content, b"")))
    status, out = case.end(case.start())
    if status not in (0, 2, None):
        case.problems.append("wrong end")
        print(f"{file} damaged: status {status}\n{out}", file=sys.stderr)
    shutil.rmtree(case.folder)
    case.folder.with_suffix(".whole").rename(case.folder)
    return True


def work_through(
    case: Case, seconds: float, rng: random.Random, counts: dict[str, Counter[str]]
) -> int:
    """Bring a run to its end against faults; how many there were."""
    done = 0
    while done < MOST_FAULTS:
        kind = rng.choice([*FAULTS, DAMAGE])
        before = len(case.problems)
        if kind == DAMAGE:
            if not damage(case, rng):
                continue
            ended = False
        else:
            process = case.start()
            time.sleep(rng.uniform(0, seconds))
            allowed = FAULTS[kind](process, rng) if process.poll() is None else None
            if allowed is None:  # too early for a worker, or too late for anything
                allowed, kind = {0}, ""
            status, out = case.end(process)
            ended = status == 0
            if status is not None and status not in allowed:
                case.problems.append("wrong end")
                print(f"{kind}: status {status}\n{out[-2000:]}", file=sys.stderr)
            _kill_all(process)
            case.look()
        if kind:
            done += 1
            counts[kind]["injected"] += 1
            counts[kind].update(case.problems[before:])
        if ended:
            break
    else:
        status, out = case.end(case.start())
        if status != 0:
            case.problems.append("wrong end")
            print(f"left alone: status {status}\n{out[-2000:]}", file=sys.stderr)
    before = len(case.problems)
    case.finish()
    counts["at the end of a folder"].update(["injected", *case.problems[before:]])
    return done


def _session(process: subprocess.Popen[str]) -> list[int]:
    """The processes of a session that are there."""
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                if os.getsid(int(path.name)) == process.pid:
                    found.append(int(path.name))
            except ProcessLookupError:
                continue
    return found


def _works(pid: int) -> bool:
    """Whether a process computes for us: an actor of Ray's, or one that trains."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"ray::")
    except OSError:
        return False


def _kill_all(process: subprocess.Popen[str]) -> None:
    """End what is left of a session."""
    for pid in _session(process):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def table(counts: dict[str, Counter[str]]) -> str:
    """A row for each kind of fault."""
    lines = [f"{'fault':24}{'number':>8}" + "".join(f"{name:>15}" for name in PROBLEMS)]
    for kind, count in counts.items():
        row = "".join(f"{count[name]:15}" for name in PROBLEMS)
        lines.append(f"{kind:24}{count['injected']:8}{row}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--injections", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.monotonic()
        first = Case(Path(scratch) / "first", 0, {})
        status, out = first.end(first.start())
        assert status == 0, out
        seconds = time.monotonic() - begin
        weights = weights_of(first.folder)
        done = number = 0
        while done < options.injections:
            case = Case(Path(scratch) / str(number), rng.choice((0, 0, 2)), weights)
            done += work_through(case, seconds, rng, counts)
            number += 1
            if not case.problems:
                shutil.rmtree(case.folder)
            print(json.dumps({"folder": number, "faults": done, "problems": case.problems}))
            told = f"{done} faults in {number} runs of {seconds:.0f} s\n{table(counts)}\n"
            if options.out:
                options.out.parent.mkdir(parents=True, exist_ok=True)
                options.out.write_text(told)
    print(told)


if __name__ == "__main__":
    main()
