"""Hostile command lines and damaged files, drawn from a seed.

A case is one command in a folder of its own. Whatever it is, it must end with a status that is
documented, in a few lines, without a traceback, and leave alone what lies beside its folder. No
case trains: searches are resumed at their end or refused in time, and what would measure or trace a
network is replaced (`hurried`).
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import nas
from nas.cli import _parser, main
from nas.data import Samples
from nas.latency.conditions import LatencyConditions
from nas.latency.table import LatencyTable
from nas.runs.latency_tables import LatencyMethods
from nas.utilities.interrupt import StopRequest
from search_space import PRESETS, SearchSpace
from search_space.segments import segments, space_segments

STATUSES = (0, 1, 2)
MOST_LINES = 3
"""On the error stream."""

NANO = PRESETS["nano"]
SEARCH = (
    *("search", "--space", "nano", "--budget", "200MFLOPs", "--proxy-size", "32"),
    *("--batch-size", "8", "--search-images", "40", "--workers", "0", "--seed", "2"),
    *("--steps", "2", "--trials", "4", "--short-list", "2", "--device", "cpu"),
    *("--latency", "phone=40ms", "--latency-table", "table.json", "--out", "run"),
)
RETRAIN = ("retrain", "run", "--steps", "1", "--batch-size", "8")
SEARCH_ON = (*SEARCH[:-1], "begun")
RETRAIN_ON = (*RETRAIN, "--steps", "2", "--name", "begun")
"""These were stopped after a step, and go on from their states."""

LONG = (SEARCH, SEARCH_ON, RETRAIN, RETRAIN_ON)
"""Commands that take a second or more where nothing is wrong."""


@dataclass(frozen=True)
class Case:
    """A command, and what was done to the folder before.

    Attributes:
        kind: What is tried, for tables.
        command: Arguments, or `open` and the name of what a `nas.Run` is asked for.
        damage: Done in the folder.
        told: What the damage is, for people.
    """

    kind: str
    command: tuple[str, ...]
    damage: Callable[[Path], None] = lambda folder: None
    told: str = ""

    def __str__(self) -> str:
        return f"{' '.join(self.command)[:300]!r} {self.told[:200]}"


@dataclass(frozen=True)
class Outcome:
    """What a case came to; `problem` says what should not be, and is empty if all is well."""

    status: int
    out: str
    err: str
    problem: str


# --- the folder ----------------------------------------------------------------------------------


def build(folder: Path) -> None:
    """Fill a folder with what cases are drawn from: a finished run, and files that it takes."""
    (folder / "table.json").write_text(_table(NANO, "phone").to_json())
    (folder / "space.json").write_text(NANO.model_dump_json(indent=2))
    (folder / "a.json").write_text(NANO.scaled(1.0).to_json())
    (folder / "notes.txt").write_text("the user's")
    (folder / "full").mkdir()
    (folder / "full" / "thesis.tex").write_text("ten years of work")
    (folder / "empty").mkdir()
    with chdir(folder):
        for command in (SEARCH, RETRAIN):
            status, _, err = _called(command)
            assert status == 0, err
        for command, module in ((SEARCH_ON, "start"), (RETRAIN_ON, "retraining")):
            with mock.patch(f"nas.runs.{module}.stop_on_signals", _stopped):
                status, _, err = _called(command)
            assert status == 130, err


@contextmanager
def _stopped() -> Iterator[StopRequest]:
    """A stop that was requested before anything began."""
    stop = StopRequest()
    stop.requested = True
    yield stop


def _table(space: SearchSpace, device: str) -> LatencyTable:
    conditions = LatencyConditions(device=device, image_size=224, threads=1)
    found = sorted(segment.label for segment in space_segments(space, image_size=224))
    times = {label: 0.5 for label in found}
    return LatencyTable(space=space.name, conditions=conditions, segments=times)


@contextmanager
def hurried(*, drawing: bool) -> Iterator[None]:
    """Replace what takes long and reads nothing that may be damaged.

    Args:
        drawing: Draw pages and images all the same.
    """
    quick: dict[str, Callable[..., Any]] = {
        "nas.latency.profile.time_segments": lambda architecture, conditions, *_: [
            (segment, 1.0) for segment in segments(architecture, image_size=conditions.image_size)
        ],
        "nas.export.file.export_onnx": lambda network, images, path, **_: path.touch(),
        "nas.export.file.onnx_session": lambda *_, **__: None,
    }
    if not drawing:
        quick |= {f"nas.report.pages.{name}": lambda *_: "" for name in FIGURES}
        quick["nas.runs.retraining.materialise"] = _blank
        quick["plotly.offline.get_plotlyjs"] = lambda: ""
    with ExitStack() as patched:
        for name, value in quick.items():
            patched.enter_context(mock.patch(name, value))
        yield


FIGURES = (
    "pareto_figure",
    "hypervolume_figure",
    "prediction_figure",
    "macs_latency_figure",
    "_plot",
)
"""What takes long in `nas.report.pages`; the other figures are of files that may be damaged."""


def _blank(samples: Samples, **_: Any) -> tuple[Tensor, Tensor]:
    """Black images of class 0."""
    return torch.zeros(len(samples), 3, 32, 32, dtype=torch.uint8), torch.zeros(len(samples)).long()


METHODS = LatencyMethods(profile=lambda *_, **__: _table(NANO, "cpu"))


# --- running -------------------------------------------------------------------------------------


def run(case: Case, template: Path, place: Path) -> Outcome:
    """Run a case in a copy of the template, which is removed again."""
    folder = place / "case"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder, copy_function=_link_or_copy)
    case.damage(folder)
    before = _snapshot(place, without=folder)
    try:
        with chdir(folder):
            status, out, err = _called(case.command)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        told = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"
        return Outcome(-1, "", "", told)
    problem = ""
    if status not in STATUSES:
        problem = f"status {status}"
    elif "Traceback" in out + err:
        problem = "a traceback"
    elif len(err.splitlines()) > MOST_LINES or len(err) > 1200:
        problem = f"{len(err.splitlines())} lines of errors"
    elif status == 2 and not err.startswith("error: "):
        problem = "no error told"
    elif _snapshot(place, without=folder) != before:
        problem = "changed files outside"
    elif (folder / "notes.txt").read_text() != "the user's":
        problem = "changed a file of the user's"
    return Outcome(status, out, err, problem)


def _link_or_copy(source: str, target: str) -> None:
    """Copy what is written on at its end; all else is replaced as a whole, and may be shared."""
    if source.endswith((".journal", ".txt", ".lock")):
        shutil.copyfile(source, target)
    else:
        os.link(source, target)


def _called(command: Sequence[str]) -> tuple[int, str, str]:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        if command[0] == "open":
            status = _opened(*command[1:])
        else:
            with mock.patch.object(sys, "argv", ["nas", *command]):
                try:
                    status = main(methods=METHODS)
                except SystemExit as ended:  # --help
                    status = int(ended.code or 0)
    return status, out.getvalue(), err.getvalue()


def _opened(asked: str) -> int:
    """Ask the run for something, as a notebook does."""
    try:
        value = getattr(nas.open_run("run"), asked)
        if callable(value):
            value()
    except nas.InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _snapshot(place: Path, *, without: Path) -> dict[str, float]:
    entries = (Path(top) / name for top, _, names in os.walk(place) for name in names)
    return {str(p): p.stat().st_mtime for p in entries if without not in p.parents}


# --- command lines -------------------------------------------------------------------------------

HOSTILE = (
    *("", " ", "-", "--", "-1", "0", "1", "2", "3", "7", "32", "33", "64", "224", "1_0", "٣"),
    *("1e3", "0x10", "1.5", "nan", "inf", "-inf", "1e999", "-1e999", "true", "null", "[]", "{}"),
    *("1" + zeros * "0" for zeros in (9, 12, 18, 19, 30, 400, 5000)),
    *("../..", "/", "/dev/null", "/dev/zero", "~", "a" * 300, "a" * 5000, "%s %d", "$(id)", "*"),
    *("naïve \u2265", "\ud800", "\udcff", "new\nline", "tab\t", "\x1b[31m", "'", '"', "`x`", "\\"),
    *("run", "begun", "full", "empty", "a.json", "space.json", "table.json", "notes.txt"),
    *("run/best", "run/front/1", "run/config.json", "run/study.journal", "run/supernet", "none"),
)
"""Values of any flag. Some are legal somewhere, but none that makes a command long."""

LEGAL = {
    "--budget": ("200MFLOPs", "2e9", "1kFLOPs", "2GFLOPs", "1e30", "-1", "0", "nanFLOPs"),
    "--params": ("10M", "1k", "9e99"),
    "--memory": ("64MB", "1B", "48MiB", "1e400MB"),
    "--latency": ("phone=40ms", "15ms", "cpu=1s", "phone=nan", "=", "a=b=1ms", "phone=1e400s"),
    "--latency-table": ("table.json", "a.json", "none.json", "run/latency/phone.json"),
    "--space": ("nano", "tiny", "space.json", "none.json", "a.json", "table.json", "run/x.json"),
    "--data": ("digits", "none", "full", "empty", "notes.txt", "torch/nothing", "run"),
    "--device": ("cpu", "cuda", "cuda:9", "tpu", "cpu:1", "meta"),
    "--out": ("run", "full", "notes.txt", "notes.txt/below", "run/best", "a.json", "run/x.json"),
    "--name": ("retrain", "..", ".", "best", "config.json", "../out", "a/b", ".lock"),
    "--image-size": ("32", "64", "224", "8192", "8193", "31"),
    "--runtime": ("eager", "compile", "tflite"),
}
"""Values that a flag may have, and others that look like them."""

SKIPPED = {"--ray-address", "--workers", "--train-workers"}
"""Flags that would start processes; their numbers are tried one by one elsewhere."""


def command_lines(seed: int) -> Iterator[Case]:
    """Command lines of all commands, without end."""
    commands = _commands()
    for number in range(sys.maxsize):
        rng = random.Random(f"command {seed} {number}")
        name = rng.choice(sorted(commands))
        yield Case(name, tuple(_command_line(rng, name, commands[name])))


def _commands() -> Mapping[str, argparse.ArgumentParser]:
    actions = _parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))


def _command_line(rng: random.Random, name: str, parser: argparse.ArgumentParser) -> list[str]:
    flags = [a for a in parser._actions if a.option_strings and not SKIPPED & {*a.option_strings}]
    groups = [_flag(rng, rng.choice(flags)) for _ in range(rng.randint(0, 5))]
    for action in parser._actions:
        if not action.option_strings and rng.random() < 0.95:
            groups.append([rng.choice(("run", "run/best", "a.json", *HOSTILE))])
        if action.required and action.option_strings and rng.random() < 0.9:
            groups.append(_flag(rng, action))
    if name == "search" and rng.random() < 0.4:
        groups.append(list(SEARCH[1:]))
    rng.shuffle(groups)
    words = [word for group in groups for word in group]
    if words and rng.random() < 0.1:
        words[rng.randrange(len(words))] = rng.choice(HOSTILE)
    # The default space takes seconds to look through.
    small = ["--space", "nano"] if "--space" in parser._option_string_actions else []
    return [name, *(small if rng.random() < 0.9 else []), *words, *_without_work(rng, name)]


def _flag(rng: random.Random, action: argparse.Action) -> list[str]:
    flag = rng.choice(action.option_strings)
    if action.nargs == 0 and rng.random() < 0.95:
        return [flag]
    pool: Sequence[str] = LEGAL.get(flag, ()) or [str(choice) for choice in action.choices or ()]
    value = rng.choice(pool if pool and rng.random() < 0.6 else HOSTILE)
    return [f"{flag}={value}"] if rng.random() < 0.3 else [flag, value]


def _without_work(rng: random.Random, name: str) -> list[str]:
    """Arguments that let a command end before it trains."""
    if name == "search":
        return ["--workers", "0", "--out", rng.choice(("run", "full", "notes.txt", "notes.txt/x"))]
    if name == "remove":
        return ["--yes"]
    if name == "retrain":
        return ["--name", rng.choice(("config.json", "best", "..", "log.txt"))]
    return []


# --- damaged files -------------------------------------------------------------------------------

FRONT, COMPARE = ("front", "run"), ("compare", "run", "begun")
PLOT, DESCRIBE = ("plot", "run"), ("describe", "run/best", "--no-latency")
EXPORT = ("export", "run/front/1", "--out", "model.onnx")
OPEN = {name: ("open", name) for name in ("config", "trials", "front", "network", "supernet")}

READERS: Mapping[str, Sequence[tuple[str, ...]]] = {
    "run/config.json": (OPEN["config"], OPEN["supernet"], RETRAIN, SEARCH),
    "run/summary.json": (PLOT, FRONT, COMPARE, OPEN["front"], OPEN["trials"]),
    "run/study.journal": (PLOT, FRONT, OPEN["trials"], OPEN["front"], SEARCH),
    "run/seconds.json": (SEARCH,),
    "run/latency/phone.json": (SEARCH,),
    "run/best/architecture.json": (DESCRIBE,),
    "run/front/1/architecture.json": (OPEN["network"], EXPORT, RETRAIN),
    "run/front/1/weights.safetensors": (OPEN["network"], OPEN["network"], EXPORT, RETRAIN),
    "run/supernet/checkpoint.safetensors": (OPEN["supernet"], OPEN["supernet"], SEARCH),
    "run/tried/*.safetensors": (SEARCH,),
    "run/retrain/1/metrics.json": (RETRAIN,),
    "run/begun/.1.state.safetensors": (RETRAIN_ON,),
    "begun/supernet/*.safetensors": (SEARCH_ON,),
    "a.json": (("describe", "a.json", "--no-latency"), ("describe", "a.json", "--json")),
    "space.json": (("sample", "--space", "space.json"), (*SEARCH, "--space", "space.json")),
    "table.json": (("describe", "a.json", "--latency-table", "table.json"), SEARCH),
}
"""Files, and the commands that read them."""


def damaged_files(seed: int) -> Iterator[Case]:
    """Damaged files of every kind in turn, without end."""
    files = sorted(READERS)
    for number in range(sys.maxsize):
        rng = random.Random(f"file {seed} {number}")
        pattern = files[number % len(files)]
        how = rng.choice(_ways(pattern))
        command = rng.choice(READERS[pattern])
        yield Case(
            pattern, command, _damage(pattern, how, rng.random()), f"{pattern}: {how.__name__}"
        )


Way = Callable[[bytes, random.Random], bytes]
"""How content becomes other content."""


def _ways(pattern: str) -> Sequence[Way]:
    anything: list[Way] = [cut_short, bits_flipped, emptied, garbage, spliced, nested, a_folder]
    if pattern.endswith(".json"):
        return [*anything, *[json_changed] * 10]
    if pattern.endswith(".journal"):
        return [*anything, *[line_changed] * 6, line_dropped, line_doubled, lines_swapped]
    return [*anything, *[header_changed] * 6]


def _damage(pattern: str, how: Way, seed: float) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        rng = random.Random(seed)
        path = rng.choice(sorted(folder.glob(pattern)))
        content = how(path.read_bytes(), rng)
        path.unlink()
        if how is a_folder:
            path.mkdir()
        else:
            path.write_bytes(content)

    return damage


def a_folder(content: bytes, rng: random.Random) -> bytes:
    """In the place of the file."""
    return b""


def cut_short(content: bytes, rng: random.Random) -> bytes:
    return content[: rng.randrange(len(content))]


def bits_flipped(content: bytes, rng: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.randint(1, 8)):
        # Where there is most to read, rather than anywhere in the weights.
        changed[rng.randrange(min(len(changed), 4000))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def emptied(content: bytes, rng: random.Random) -> bytes:
    return b""


def garbage(content: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 3000))


def spliced(content: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(content))
    return content[:at] + rng.randbytes(rng.randint(1, 40)) + content[at:]


def nested(content: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"[", b'{"a":')) * rng.randint(100, 100_000)


VALUES: Sequence[Any] = (
    *(None, True, False, 0, 1, -1, 2, 0.5, -0.5, 10**9, 2**40, 10**30, 10**400, 1e308, -1e308),
    *(float("nan"), float("inf"), -float("inf"), "", "a", "1", "nan", "../..", "\x00", "a" * 3000),
    *("\ud800", [], {}, [[]], [1, 2], ["a"], {"a": 1}, [0] * 1000, {"kind": "none"}),
)
"""Of any field."""


def changed(data: Any, rng: random.Random) -> Any:
    """JSON data with something in it that should not be."""
    places = list(_places(data))
    if not places:
        return rng.choice(VALUES)
    holder, key = rng.choice(places)
    way = rng.randrange(6)
    if way == 0:
        del holder[key]
    elif way == 1 and isinstance(holder, dict):
        holder[rng.choice(("unknown", "self", "", "a" * 3000))] = rng.choice(VALUES)
    elif way == 1:
        holder.extend(holder * rng.choice((1, 40)))
    else:
        holder[key] = rng.choice(VALUES)
    return data


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every key and index of JSON data, with what holds it."""
    for key, value in list(data.items() if isinstance(data, dict) else enumerate(data)):
        yield data, key
        if isinstance(value, dict | list):
            yield from _places(value)


def json_changed(content: bytes, rng: random.Random) -> bytes:
    return json.dumps(changed(json.loads(content), rng)).encode()


def line_changed(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    at = rng.randrange(len(lines))
    lines[at] = json_changed(lines[at], rng) + b"\n"
    return b"".join(lines)


def line_dropped(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    del lines[rng.randrange(len(lines))]
    return b"".join(lines)


def line_doubled(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    lines.insert(rng.randrange(len(lines)), rng.choice(lines))
    return b"".join(lines)


def lines_swapped(content: bytes, rng: random.Random) -> bytes:
    lines = content.splitlines(keepends=True)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    lines[one], lines[other] = lines[other], lines[one]
    return b"".join(lines)


def header_changed(content: bytes, rng: random.Random) -> bytes:
    """Of a safetensors file; half of the time its metadata, which are JSON in JSON."""
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    metadata = header.get("__metadata__", {})
    if metadata and rng.random() < 0.7:
        key = rng.choice(sorted(metadata))
        metadata[key] = (
            json_changed(metadata[key].encode(), rng).decode()
            if rng.random() < 0.5 and isinstance(json.loads(metadata[key]), dict | list)
            else json.dumps(rng.choice(VALUES))
        )
    else:
        header = changed(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + content[8 + size :]
