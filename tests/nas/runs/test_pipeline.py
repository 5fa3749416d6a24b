import json
import logging
import math
import re
import resource
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pandas as pd
import pytest
import torch
from optuna.trial import TrialState
from safetensors.torch import load_file
from small_runs import (
    NANO,
    ROOT,
    SMALL,
    FakeWorkers,
    Fork,
    Outcome,
    command,
    fake_table,
    wait_for,
    without_figures,
)

import nas
import nas.runs.steps.search
import nas.runs.steps.train
import nas.search.driver
import nas.search.tryout
import nas.search.workers
from nas import open_run
from nas.latency.conditions import LatencyConditions
from nas.latency.measure import Latency
from nas.latency.profile import ProfilingEffort, profile
from nas.latency.table import LatencyTable
from nas.runs.folder import RunFolder
from nas.runs.latency_tables import LatencyMethods
from nas.search.evaluation import Score
from nas.search.settings import SearchSettings
from nas.search.study import load_study, records
from nas.search.trials import SCRATCH_COLUMNS, TRIED_COLUMNS
from nas.training.accuracy import SubnetEvaluator
from nas.training.supernet import states
from nas.utilities.commands import typed
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import Interrupted
from nas.utilities.units import accuracy_error
from search_space import Architecture, total_cost

SMALL_RUN = ("search", *SMALL, "--steps", "4", "--trials", "6")
"""The command of the fixture `small_run`, but for its folder."""


def searching(supernet: Path) -> tuple[str | Path, ...]:
    """The command of a run that searches the supernet of another; trials and folder are missing."""
    return ("search", *SMALL, "--supernet", supernet)


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def copy(small_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, that may be changed."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.mark.slow
def test_a_run_leaves_what_the_design_says_and_nothing_else(small_run: Path) -> None:
    left = set(files(small_run))
    front = len(pd.read_csv(small_run / "pareto.csv"))
    exported = {"best", *(f"front/{number}" for number in range(1, front + 1))}
    assert left - {".lock", ".lock.data", ".lock.drawing", "summary.json", "seconds.json"} == {
        "config.json",
        "data.json",
        "log.txt",
        "environment.json",
        "supernet/checkpoint.safetensors",
        "supernet/curve.csv",
        "study.journal",
        "trials.csv",
        "pareto.csv",
        "pareto.html",
        "report.html",
        *(
            f"{folder}/{name}"
            for folder in exported
            for name in (
                "architecture.json",
                "architecture.svg",
                "weights.safetensors",
                "README.md",
            )
        ),
    }


def test_the_files_of_a_run_agree_with_each_other(small_run: Path) -> None:
    trials = pd.read_csv(small_run / "trials.csv")
    known = records(load_study(small_run / "study.journal"))
    assert trials["hash"].tolist() == [record.hash for record in known.values()]
    assert (trials["state"] == "evaluated").sum() == 6
    evaluated = trials[trials["state"] == "evaluated"]
    assert (evaluated["macs"] <= 200_000_000).all()
    assert evaluated["accuracy"].between(0, 1).all()
    genes = trials[list(NANO.genes)].to_dict("records")
    assert [NANO.decode(chosen).hash for chosen in genes] == trials["hash"].tolist()
    front = pd.read_csv(small_run / "pareto.csv")
    assert set(front["hash"]) <= set(evaluated["hash"])
    environment = json.loads((small_run / "environment.json").read_text())
    assert environment["packages"]["torch"]
    assert environment["training_dtype"] in ("float32", "bfloat16")
    config = RunFolder(small_run).config
    assert (config.budget, config.space.name, config.trials) == (200_000_000, "nano", 6)
    log = (small_run / "log.txt").read_text()
    assert "--budget 200MFLOPs" in log
    assert "step 4/4" in log


def test_the_same_command_again_does_nothing_twice(copy: Path) -> None:
    before = files(copy)
    stamp = (copy / "supernet" / "checkpoint.safetensors").stat().st_mtime_ns
    outcome = command(*SMALL_RUN, "--out", copy)
    assert outcome.status == 0, outcome.err
    assert "trained already" in outcome.out
    assert "done already" in outcome.out
    assert "expected time" not in outcome.out
    assert (copy / "supernet" / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    after = files(copy)
    assert after.keys() == before.keys()
    for name in ("config.json", "trials.csv", "pareto.csv", "seconds.json"):
        assert after[name] == before[name], name
    assert len(after["study.journal"].splitlines()) - len(before["study.journal"].splitlines()) <= 1


@pytest.mark.usefixtures("undrawn")
def test_the_summary_says_both_sizes_the_best_and_what_to_type_next(copy: Path) -> None:
    outcome = command(*SMALL_RUN, "--out", copy)
    text = " ".join(outcome.out.split())
    for part in ("32 px", "224 px", "200 MMACs", "best", "smallest", "largest", "6 evaluated"):
        assert part in text
    assert typed("retrain", copy) in outcome.out.replace("\n", "")
    best = json.loads((copy / "best" / "architecture.json").read_text())
    assert str(best["stages"][0]["width"]) in text


def test_plot_draws_the_report_of_a_finished_run_anew(copy: Path) -> None:
    for name in ("report.html", "pareto.html", "pareto.csv", "trials.csv"):
        (copy / name).unlink()
    outcome = command("plot", copy)
    assert (outcome.status, outcome.err) == (0, "")
    assert "6 evaluated architectures are too few to say" in (copy / "report.html").read_text()
    trials = pd.read_csv(copy / "trials.csv")
    best = trials.sort_values(["accuracy", "macs"], ascending=[False, True]).iloc[0]
    assert best["summary"].split(" | ")[0] in (copy / "pareto.html").read_text()


def test_a_run_that_died_while_it_exported_is_brought_to_its_end(copy: Path) -> None:
    before = files(copy)
    for name in ("best", "front/1", "report.html"):
        path = copy / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (copy / "front" / "99").mkdir()
    assert command(*SMALL_RUN, "--out", copy).status == 0
    after = files(copy)
    assert after.keys() == before.keys()
    for name in ("best/architecture.json", "front/1/architecture.json"):
        assert after[name] == before[name]


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_read_is_refused_by_name(copy: Path) -> None:
    checkpoint = copy / "supernet" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:500])
    outcome = command(*SMALL_RUN, "--out", copy)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert str(checkpoint) in line
    assert "delete it" in line
    checkpoint.unlink()
    assert command(*SMALL_RUN, "--out", copy).status == 0


@pytest.mark.usefixtures("undrawn")
def test_states_of_training_that_were_left_beside_the_checkpoint_are_removed(copy: Path) -> None:
    # A process that is killed between the two leaves all.
    folder = RunFolder(copy)
    for state in states(folder.training_state):
        shutil.copy(folder.checkpoint, state)
    assert command(*SMALL_RUN, "--out", copy).status == 0
    left = {path.name for path in folder.checkpoint.parent.iterdir()}
    assert left == {folder.checkpoint.name, folder.curve.name}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_in_which_every_evaluation_failed_says_so_and_names_no_best(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(evaluator: SubnetEvaluator, architecture: Architecture) -> Score:
        return Score(error="Traceback (most recent call last):\nRuntimeError: out of memory")

    monkeypatch.setattr(nas.search.workers, "evaluate", evaluate)
    out = tmp_path / "run"
    outcome = command(*searching(small_run), "--trials", "1", "--out", out)
    assert outcome.status == 1
    assert "out of memory" in outcome.out
    assert outcome.err == (
        "error: no architecture was evaluated: the search ended early: "
        "10 evaluations in a row failed\n"
    )
    assert typed("retrain") not in outcome.out
    assert not (out / "best").exists()


@pytest.mark.usefixtures("undrawn")
def test_a_run_that_was_killed_while_its_last_scores_were_told_tells_them_later(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """Stands for SIGKILL."""

    def dies(*_: object) -> None:
        raise Killed

    flags = (*searching(small_run), "--trials", "3", "--out", tmp_path / "run")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(nas.search.driver, "tell", dies)
        command(*flags)
    journal = RunFolder(tmp_path / "run").journal
    running = [TrialState.RUNNING]
    assert len(load_study(journal).get_trials(states=running)) == 3  # all that were evaluated
    assert command(*flags).status == 0
    assert not load_study(journal).get_trials(states=running)


def test_no_more_workers_are_started_than_a_batch_has_work_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[int] = []

    def start_workers(setup: object, *, count: int, cluster: object) -> FakeWorkers:
        started.append(count)
        return FakeWorkers(count)

    monkeypatch.setattr(nas.runs.steps.search, "RayWorkers", start_workers)
    job = MagicMock()
    job.config.search = SearchSettings(batch=3)
    for job.execution.workers in (2, 20):
        with nas.runs.steps.search._workers(job, MagicMock()):
            pass
    assert started == [2, 3]


@pytest.mark.usefixtures("undrawn")
def test_a_run_leaves_logging_as_it_found_it(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = logging.getLogger("nas")
    monkeypatch.setattr(ours, "propagate", True)
    monkeypatch.setattr(ours, "level", logging.ERROR)
    handlers = list(ours.handlers)
    assert command(*SMALL_RUN, "--out", copy).status == 0
    assert (ours.propagate, ours.level, ours.handlers) == (True, logging.ERROR, handlers)


# --- latency -------------------------------------------------------------------------------------

AT_64 = ("search", *SMALL, "--trials", "3", "--image-size", "64", "--device", "cpu")


@pytest.fixture
def at_64(small_run: Path) -> tuple[str | Path, ...]:
    """The command of a run that searches the supernet of another for images of 64 px."""
    return (*AT_64, "--supernet", small_run)


def never(*args: object, **rest: object) -> None:
    pytest.fail("measured")


NEVER = LatencyMethods(profile=never, meter=never)


def table_by_formula(space: object, conditions: LatencyConditions, *_: object, **__: object) -> Any:
    """Stands for `profile`: a table that takes no time."""
    assert space == NANO
    return fake_table(**conditions.model_dump(), margin=0.05)


class Clock:
    """Stands for `latency_meter`: what is measured takes so long.

    Args:
        milliseconds: Of each measurement in turn; the last goes on.
    """

    def __init__(self, *milliseconds: float) -> None:
        self.milliseconds = list(milliseconds)
        self.conditions: list[LatencyConditions] = []

    def __call__(self, table: LatencyTable) -> Callable[[object], Latency]:
        def measure(network: object) -> Latency:
            self.conditions.append(table.conditions)
            first, *rest = self.milliseconds
            self.milliseconds = rest or [first]
            return Latency(median_ms=first, iqr_ms=0.25, repeats=10)

        return measure


@pytest.mark.usefixtures("undrawn", "short_measurements")
@pytest.mark.slow
def test_a_run_with_a_latency_measures_a_table_and_the_front_and_measures_nothing_again(
    tmp_path: Path,
) -> None:
    def quick_profile(space: object, conditions: object, effort: object, **rest: Any) -> Any:
        return profile(
            space, conditions, ProfilingEffort(sightings=1, fitted=2, held_out=1), **rest
        )

    few = NANO.model_copy(update={"name": "few", "stages": NANO.stages[:2]})
    (tmp_path / "few.json").write_text(few.model_dump_json())
    out = tmp_path / "run"
    flags = ("--space", tmp_path / "few.json", "--steps", "1", "--latency", "10s")
    command_line = (*AT_64, *flags, "--out", out)
    outcome = command(*command_line, methods=LatencyMethods(profile=quick_profile))
    assert outcome.status == 0, outcome.err
    kept = (out / "latency" / "cpu.json").read_bytes()
    table = LatencyTable.load(out / "latency" / "cpu.json")
    table.check_covers(few, "cpu.json")
    assert (table.conditions.device, table.conditions.image_size) == ("cpu", 64)

    trials = pd.read_csv(out / "trials.csv")
    assert (trials["state"] == "evaluated").sum() == 3
    predicted = {a.hash: table.predict(a) for a in few.enumerate()}
    for _, trial in trials.iterrows():
        assert trial["latency_cpu_predicted_ms"] == pytest.approx(predicted[trial["hash"]])
    front = pd.read_csv(out / "pareto.csv")
    assert (front["latency_cpu_measured_ms"] > 0).all()
    assert (front["latency_cpu_iqr_ms"] >= 0).all()
    assert table.reference is not None
    assert (front["latency_cpu_slowdown"] > 0).all()
    assert (front["latency_cpu_ms"] == front["latency_cpu_measured_ms"]).all()
    conditions = "float32, batch 1"
    for text in (outcome.out, (out / "best" / "README.md").read_text()):
        assert conditions in " ".join(text.split())

    outcome = command(*command_line, methods=NEVER)
    assert outcome.status == 0, outcome.err
    assert (out / "latency" / "cpu.json").read_bytes() == kept
    pd.testing.assert_frame_equal(pd.read_csv(out / "trials.csv"), trials)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_with_a_table_that_was_given_nothing_is_measured_for_a_device_that_is_not_here(
    at_64: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    given = fake_table("phone", image_size=64, margin=0.05)
    (tmp_path / "phone.json").write_text(given.to_json())
    flags = ("--latency", "phone=1s", "--latency-table", tmp_path / "phone.json")
    outcome = command(*at_64, *flags, "--out", tmp_path / "run", methods=NEVER)
    assert outcome.status == 0, outcome.err
    assert LatencyTable.load(tmp_path / "run" / "latency" / "phone.json") == given
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    predicted = {a.hash: given.predict(a) for a in NANO.enumerate()}
    for _, trial in trials.iterrows():
        assert trial["latency_phone_ms"] == pytest.approx(predicted[trial["hash"]])
        assert trial["latency_phone_predicted_ms"] == trial["latency_phone_ms"]
    assert trials["latency_phone_measured_ms"].isna().all()
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    best = json.loads((tmp_path / "run" / "best" / "architecture.json").read_text())
    milliseconds = predicted[Architecture.model_validate(best).hash]
    assert f"| latency on phone | {milliseconds:.2f} ms predicted |" in card
    assert "The device is not here" in (tmp_path / "run" / "report.html").read_text()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_with_a_table_that_was_given_the_front_is_measured_where_the_device_is_here(
    at_64: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    clock = Clock(77.5)
    methods = LatencyMethods(profile=never, meter=clock)
    given = fake_table("cpu", image_size=64, margin=0.05, batch_size=2, dtype="bfloat16")
    (tmp_path / "cpu.json").write_text(given.to_json())
    flags = ("--latency", "1s", "--latency-table", tmp_path / "cpu.json")
    conditions = ("--latency-batch", "2", "--latency-dtype", "bfloat16")
    outcome = command(*at_64, *flags, *conditions, "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 0, outcome.err
    front = pd.read_csv(tmp_path / "run" / "pareto.csv")
    assert (front["latency_cpu_measured_ms"] == 77.5).all()
    assert len(clock.conditions) >= len(front)
    for timed in clock.conditions:
        assert (timed.device, timed.image_size) == ("cpu", 64)
        assert (timed.batch_size, timed.dtype, timed.runtime) == (2, "bfloat16", "eager")


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_what_is_measured_to_be_too_slow_is_not_exported_and_the_run_says_so(
    at_64: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    methods = LatencyMethods(profile=table_by_formula, meter=Clock(990.0, 20.0))
    outcome = command(*at_64, "--latency", "900ms", "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 0, outcome.err
    text = " ".join(outcome.out.split())
    assert "measured on cpu: 990 ms, over the limit of 900 ms" in text
    assert "measured on cpu: 20 ms, within the limit of 900 ms" in text
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    (slow,) = trials[trials["state"] == "infeasible"].to_dict("records")
    assert slow["violation"] == "latency_cpu_ms +10.0% over"
    assert slow["accuracy"] == trials["accuracy"].max()  # the best is measured first
    exported = {Architecture.load(f).hash for f in (tmp_path / "run" / "front").iterdir()}
    assert exported == set(pd.read_csv(tmp_path / "run" / "pareto.csv")["hash"])
    assert slow["hash"] not in exported


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_if_all_are_measured_to_be_too_slow_the_run_ends_without_a_best(
    at_64: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    methods = LatencyMethods(profile=table_by_formula, meter=Clock(1250.0))
    outcome = command(*at_64, "--latency", "1s", "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 1
    assert len(outcome.err.splitlines()) == 1
    assert "slow" in outcome.err
    assert not (tmp_path / "run" / "best").exists()
    assert (tmp_path / "run" / "report.html").exists()


@pytest.mark.parametrize("here", [True, False])
def test_a_latency_out_of_reach_is_refused_and_leaves_no_folder_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, here: bool
) -> None:
    methods = LatencyMethods(profile=table_by_formula)
    flags: tuple[str | Path, ...] = ("--latency", "1us")
    if not here:
        (tmp_path / "phone.json").write_text(fake_table("phone", image_size=64).to_json())
        flags = ("--latency", "phone=1us", "--latency-table", tmp_path / "phone.json")
        monkeypatch.setattr(RunFolder, "claimed_for", never)  # it is known before
    before = files(tmp_path)
    outcome = command(*AT_64, *flags, "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    told = re.search(r"--latency (\w+)=0\.001ms is out of reach.*legal value is (\S+)ms$", line)
    assert told is not None, line
    assert told[1] == ("cpu" if here else "phone")
    assert files(tmp_path) == before
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_table_that_was_not_finished_is_measured_by_the_same_command_again(
    at_64: tuple[str | Path, ...],
    tmp_path: Path,
) -> None:
    def interrupted(*args: object, **rest: object) -> None:
        raise Interrupted

    out = tmp_path / "run"
    stopped_methods = LatencyMethods(profile=interrupted)
    outcome = command(*at_64, "--latency", "1s", "--out", out, methods=stopped_methods)
    assert outcome.status == 130
    assert "To go on" in outcome.out
    assert not (out / "latency" / "cpu.json").exists()
    methods = LatencyMethods(profile=table_by_formula, meter=Clock(20.0))
    outcome = command(*at_64, "--latency", "1s", "--out", out, methods=methods)
    assert outcome.status == 0, outcome.err
    kept = out / "latency" / "cpu.json"
    chip = LatencyTable.load(kept).conditions.chip
    kept.write_text(kept.read_text().replace(chip, "another chip"))
    outcome = command(*at_64, "--latency", "1s", "--out", out, methods=methods)
    assert outcome.status == 2
    assert f"{kept}: taken with chip 'another chip', but the run asks for {chip!r}" in outcome.err


# --- memory --------------------------------------------------------------------------------------

MEMORY = {a.hash: 4 * total_cost(a, image_size=64, num_classes=10).peak for a in NANO.enumerate()}
"""Peak activation memory at 64 px, in bytes."""


@pytest.mark.slow
def test_a_memory_is_a_hard_limit_and_an_objective_of_a_run(
    at_64: tuple[str | Path, ...], tmp_path: Path
) -> None:
    limit = 200_000
    assert min(MEMORY.values()) < limit < max(MEMORY.values())
    flags = ("--trials", "6", "--memory", f"{limit}B", "--out", tmp_path / "run")
    outcome = command(*at_64, *flags)
    assert outcome.status == 0, outcome.err
    trials, front = (pd.read_csv(tmp_path / "run" / n) for n in ("trials.csv", "pareto.csv"))
    assert trials.columns.tolist()[4:8] == ["macs", "params", "memory", "loss"]
    assert trials["memory"].tolist() == [MEMORY[name] for name in trials["hash"]]
    assert (trials["memory"] > limit).tolist() == (trials["state"] == "infeasible").tolist()
    assert (trials["state"] == "evaluated").sum() == 6
    assert (front["memory"] <= limit).all()
    assert RunFolder(tmp_path / "run").config.memory == limit
    study = load_study(tmp_path / "run" / "study.journal")
    assert study.metric_names == ["accuracy", "macs", "memory"]
    best = Architecture.load(tmp_path / "run" / "best").hash
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert f"| memory | {MEMORY[best]:,} B ({MEMORY[best] / 1e3:.3g} kB) | peak activation" in card
    assert "memory at 64 px" in outcome.out
    report = (tmp_path / "run" / "report.html").read_text()
    assert f"{limit / 1e3:.3g} kB of memory" in report
    assert "memory at 64 px (MB)" in report


@pytest.fixture(scope="module")
def in_memory_and_time(
    small_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Outcome]:
    """A run under limits on memory and on the latency of this machine; what it printed."""
    place = tmp_path_factory.mktemp("memory")
    (place / "cpu.json").write_text(fake_table("cpu", image_size=64, margin=0.05).to_json())
    limits = ("--latency", "10s", "--latency-table", place / "cpu.json", "--memory", "64MB")
    methods = LatencyMethods(profile=never, meter=Clock(20.0))
    with without_figures():
        outcome = command(
            *(*AT_64, *limits, "--supernet", small_run, "--out", place / "run"), methods=methods
        )
    assert outcome.status == 0, outcome.err
    return place / "run", outcome


@pytest.mark.slow
def test_a_memory_that_does_not_bind_is_told_and_keeps_nothing_out(
    in_memory_and_time: tuple[Path, Outcome],
) -> None:
    _, outcome = in_memory_and_time
    text = " ".join(outcome.out.split())
    most = f"{max(MEMORY.values()) / 1e3:.3g} kB"
    assert "the limit of 64 MB of memory does not bind: the largest architecture of" in text
    assert f"'nano' has {most}" in text
    assert "100% of a random sample meet the limits" in text


def test_a_memory_out_of_reach_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    outcome = command(*AT_64, "--memory", "1kB", "--out", tmp_path / "run")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    least, most = (f"{end(MEMORY.values()) / 1e3:.3g} kB" for end in (min, max))
    assert f"--memory 1 kB is out of reach: space 'nano' spans {least} to {most} at 64 px" in line
    assert line.endswith(f"nearest legal value is {min(MEMORY.values())}")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_memory_and_a_measured_latency_are_objectives_together(
    in_memory_and_time: tuple[Path, Outcome],
) -> None:
    run, outcome = in_memory_and_time
    study = load_study(run / "study.journal")
    assert study.metric_names == ["accuracy", "macs", "memory", "latency_cpu_ms"]
    front = pd.read_csv(run / "pareto.csv")
    assert front["memory"].tolist() == [MEMORY[name] for name in front["hash"]]
    assert (front["latency_cpu_measured_ms"] == 20.0).all()
    assert (front["latency_cpu_ms"] == front["latency_cpu_measured_ms"]).all()
    assert "budget 200 MMACs, 64 MB of memory, 10000 ms on cpu" in " ".join(outcome.out.split())
    card = (run / "best" / "README.md").read_text()
    assert card.index("| memory |") < card.index("| latency on cpu |")


# --- Ctrl-C and SIGKILL --------------------------------------------------------------------------


LONG = (ROOT / "run_search.py", *SMALL, "--steps", "40", "--trials", "24")


def stopped(process: Fork, line: str, sent: signal.Signals) -> str:
    """Send a signal as soon as a line is printed; all that was printed."""
    read = wait_for(line, process.stdout)
    process.send_signal(sent)
    status, out, err = process.finish()
    assert "Traceback" not in err
    assert status == (-9 if sent == signal.SIGKILL else 128 + sent)
    return read + out


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.sampled(2)
def test_a_run_that_is_stopped_in_training_and_in_search_comes_to_the_same_end(
    tmp_path: Path, sent: signal.Signals
) -> None:
    folder = RunFolder(tmp_path / "run")
    arguments = (*LONG, "--out", folder.path)

    out = stopped(Fork(*arguments), "training the supernet 1/", sent)
    assert "training the teacher 1/" in out
    assert not folder.checkpoint.exists()
    kept = [state.exists() for state in states(folder.training_state)]
    assert kept == [sent != signal.SIGKILL, True]  # the teacher was whole
    if sent != signal.SIGKILL:
        assert "To go on" in out
        assert typed("search", *arguments[1:]) in out

    out = stopped(Fork(*arguments), "searching ", sent)
    assert "training the teacher" not in out
    assert ("To go on" in out) == (sent != signal.SIGKILL)
    before = [r.hash for r in records(load_study(folder.journal)).values()]
    assert len(before) > 0

    done = Fork(*arguments).finish()
    assert done.status == 0, done.err
    assert "trained already" in done.out
    after = records(load_study(folder.journal))
    assert [record.hash for record in after.values()][: len(before)] == before
    evaluated = [record.hash for record in after.values() if record.state == "evaluated"]
    assert len(evaluated) == len(set(evaluated)) == 24
    assert folder.best.exists()
    assert not [name for name in files(folder.path) if "/." in name or ".tmp" in name]


@pytest.mark.slow
def test_retraining_that_is_stopped_goes_on_where_it_was(copy: Path) -> None:
    arguments = ("-m", "nas", "retrain", copy, "--steps", "24", "--batch-size", "8")
    out = stopped(Fork(*arguments), "from scratch 1/", signal.SIGHUP)
    assert typed(*arguments[2:]) in out
    (state,) = (copy / "retrain").iterdir()
    assert state.name.endswith(".safetensors")
    done = Fork(*arguments).finish()
    assert done.status == 0, done.err
    assert (copy / "retrain" / "1" / "metrics.json").exists()
    assert "from scratch 1/24" not in done.out


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_what_was_trained_alone_is_ranked_and_exported_with_those_weights(
    small_run: Path, tmp_path: Path
) -> None:
    sizes = ("--short-list", "3", "--finalists", "0", "--trials", "6")
    trying = (*searching(small_run), *sizes, "--out", tmp_path / "run")
    outcome = command(*trying)
    assert outcome.status == 0, outcome.err
    folder = RunFolder(tmp_path / "run")
    trials = pd.read_csv(folder.path / "trials.csv")
    tried = trials[trials["state"] == "evaluated"].dropna(subset="tried")
    # Three are trained alone for a step, then one of them for three and nine.
    assert sorted(tried["tried_steps"]) == [1, 1, 9]
    front = pd.read_csv(folder.path / "pareto.csv")
    assert set(front["hash"]) <= set(tried["hash"])
    run = open_run(folder.path)
    assert (tried["tried_images"] == 40).all()
    # All whose accuracies lie within the errors of so few images may be the best.
    most = tried["tried"].max()
    errors = [math.hypot(accuracy_error(most, 40), accuracy_error(a, 40)) for a in tried["tried"]]
    near = tried[most - tried["tried"] <= errors]
    assert run.best["tried_loss"] == near["tried_loss"].min()
    assert front["standing"].min() == run.best["standing"] == 1
    for rank, row in run.front.iterrows():
        assert run.architecture(rank).hash == row["hash"]
        own = load_file(folder.tried / f"{row['hash']}.safetensors")
        for name, tensor in run.network(rank).state_dict().items():
            assert torch.equal(tensor, own[name])
    card = (folder.best / "README.md").read_text()
    assert f"trained alone for {run.best['tried_steps']:.0f} steps" in " ".join(card.split())
    assert "alone at 32 px" in outcome.out

    again = command(*trying)
    assert again.status == 0, again.err
    assert "short list: tried already" in again.out
    assert pd.read_csv(folder.path / "trials.csv").equals(trials)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_what_is_too_slow_leaves_the_short_list_before_it_is_trained(
    at_64: tuple[str | Path, ...], tmp_path: Path
) -> None:
    methods = LatencyMethods(profile=table_by_formula, meter=Clock(990.0, 20.0))
    flags = ("--short-list", "2", "--finalists", "0", "--latency", "900ms", "--trials", "4")
    outcome = command(*at_64, *flags, "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 0, outcome.err
    trials = pd.read_csv(tmp_path / "run" / "trials.csv")
    (slow,) = trials[trials["state"] == "infeasible"].to_dict("records")
    assert math.isnan(slow["tried"])
    tried = trials[trials["state"] == "evaluated"].dropna(subset="tried")
    assert len(tried) == 2
    assert (tried["latency_cpu_measured_ms"] == 20.0).all()


@pytest.mark.usefixtures("undrawn")
def test_where_all_of_the_short_list_fails_what_is_exported_is_measured(
    at_64: tuple[str | Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(*_: object, **__: object) -> None:
        raise Diverged("the loss is nan")

    monkeypatch.setattr(nas.search.tryout, "train_alone", diverges)
    clock = Clock(20.0)
    methods = LatencyMethods(profile=table_by_formula, meter=clock)
    flags = ("--short-list", "2", "--latency", "900ms", "--trials", "4")
    outcome = command(*at_64, *flags, "--out", tmp_path / "run", methods=methods)
    assert outcome.status == 0, outcome.err
    run = nas.open_run(tmp_path / "run")
    assert run.trials["tried"].isna().all()
    assert (run.front["latency_cpu_measured_ms"] == 20.0).all()
    assert "not retrained" in " ".join(outcome.out.split())


@pytest.fixture(scope="module")
def trying_four(small_run: Path) -> tuple[str | Path, ...]:
    """The command of a run that trains four alone, and two from scratch."""
    sizes = ("--short-list", "4", "--trials", "6", "--finalists", "2")
    return (ROOT / "run_search.py", *searching(small_run)[1:], *sizes)


@pytest.fixture(scope="module")
def killed_in_tryout(
    trying_four: tuple[str | Path, ...], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of a run that was killed in its tryout."""
    folder = tmp_path_factory.mktemp("killed") / "run"
    stopped(Fork(*trying_four, "--out", folder), "trying 4 alone ", signal.SIGKILL)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param("0", "0", id="alone"),
        pytest.param("1", "2", id="on Ray", marks=pytest.mark.exhaustive),
    ],
)
def test_a_tryout_that_is_killed_and_stopped_goes_on_where_it_was(
    killed_in_tryout: Path,
    trying_four: tuple[str | Path, ...],
    tmp_path: Path,
    before: str,
    after: str,
) -> None:
    folder = RunFolder(shutil.copytree(killed_in_tryout, tmp_path / "run"))
    arguments = (*trying_four, "--out", folder.path, "--workers")
    stopped(Fork(*arguments, before), "trying 4 alone ", signal.SIGTERM)
    stopped(Fork(*arguments, before), "trying 2 from scratch ", signal.SIGKILL)
    assert not folder.best.exists()
    done = Fork(*arguments, after).finish()
    assert done.status == 0, done.err
    trials = pd.read_csv(folder.path / "trials.csv")
    assert len(trials[trials["state"] == "evaluated"].dropna(subset="tried")) == 4
    assert trials["tried_steps"].max() == 9  # the first rung has one step
    final = trials.dropna(subset="scratch")
    assert list(final["scratch_steps"]) == [9, 9]
    run = open_run(folder.path)
    assert run.best["hash"] in set(final["hash"])
    assert run.best["tried_steps"] == 9
    weights = load_file(folder.tried / f"{run.best['hash']}.safetensors")  # not the fresh ones
    assert all(torch.equal(t, weights[n]) for n, t in run.network(1).state_dict().items())
    assert not [name for name in files(folder.path) if "/." in name or ".tmp" in name]
    if after != "0":  # the same goes on, and comes to the same, as in this process
        here = shutil.copytree(killed_in_tryout, tmp_path / "here")
        assert Fork(*trying_four, "--out", here, "--workers", "0").finish().status == 0
        columns = ["hash", *TRIED_COLUMNS, *SCRATCH_COLUMNS]
        assert trials[columns].equals(pd.read_csv(here / "trials.csv")[columns])
        assert "tried already" in Fork(*trying_four, "--out", here).finish().out
        grown = Fork(*trying_four, "--finalists", "3", "--out", here, "--workers", "0").finish()
        assert "trying 3 from scratch" in grown.out


def test_a_short_list_longer_than_what_is_evaluated_is_refused(tmp_path: Path) -> None:
    outcome = command(*SMALL_RUN, "--short-list", "7", "--out", tmp_path / "run")
    assert outcome.status == 2
    assert "--short-list 7 is longer than what is evaluated: 6" in outcome.err
    assert not (tmp_path / "run").exists()


def test_paths_in_brackets_are_shown_as_they_are_where_there_is_no_sign_but_ascii(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    folder = tmp_path / "runs[" / "b]" / "[/bold]birds[v2]"
    flags = ("--trials", "2", "--out", folder)
    status, out, err = Fork(ROOT / "run_search.py", *searching(small_run)[1:], *flags).finish()
    assert (status, err) == (0, "")
    assert f"run folder: {folder}" in out.splitlines()
    assert f"report: {folder / 'report.html'}" in out.splitlines()
    assert "?" in out  # for the ± of an accuracy
    assert out.isascii()
    # What is printed to go on with can be typed.
    retrain = next(line for line in out.splitlines() if " retrain " in line)
    assert str(folder) in shlex.split(retrain)


def test_a_disk_without_room_is_told_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=3e6))
    outcome = command(*SMALL_RUN, "--out", tmp_path / "run")
    assert outcome.status == 2
    assert re.search(r"run: some \d+ MB will be written here, and 3 MB are free", outcome.err)
    assert "training" not in outcome.out
    assert not (tmp_path / "run").exists()


def test_a_training_that_goes_on_needs_no_room_for_what_it_has_written(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed: list[float] = []

    def room(folder: Path, size: float) -> None:
        needed.append(size)
        raise InputError("enough")

    monkeypatch.setattr(nas.runs.steps.train, "check_room", room)
    folder = RunFolder(copy)
    folder.checkpoint.unlink()
    command(*SMALL_RUN, "--out", copy)
    folder.training_state.write_bytes(bytes(100_000))
    command(*SMALL_RUN, "--out", copy)
    first, second = needed
    assert first - second == 100_000


@pytest.mark.slow
def test_a_disk_that_is_full_in_the_middle_is_one_line_and_the_run_goes_on_later(
    tmp_path: Path,
) -> None:
    arguments = (ROOT / "run_search.py", *SMALL_RUN[1:], "--out", tmp_path / "run")
    process = Fork(*arguments)
    wait_for("training the supernet", process.stdout)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (0, 0))  # no file grows any more
    status, out, err = process.finish()
    assert status == 2
    assert re.fullmatch(r"error: .*run.*: .*File too large.*\n", err)
    assert "Traceback" not in out
    done = Fork(*arguments).finish()
    assert done.status == 0, done.err
