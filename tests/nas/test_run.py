import json
import logging
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
from runs import ROOT, SMALL, command, finish, start, wait_for
from safetensors.torch import load_file

from nas.evaluation import SubnetEvaluator
from nas.run_folder import RunFolder
from nas.study import load_study, records
from nas.workers import Score
from search_space import Architecture

SMALL_RUN = ("search", *SMALL, "--steps", "4", "--trials", "6")
"""The command of the fixture `small_run`, but for its folder."""


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


def test_a_run_leaves_what_the_design_says_and_nothing_else(small_run: Path) -> None:
    left = set(files(small_run))
    front = len(pd.read_csv(small_run / "pareto.csv"))
    exported = {"best", *(f"front/{number}" for number in range(1, front + 1))}
    assert left - {".lock", "facts.json", "seconds.json"} == {
        "config.json",
        "log.txt",
        "environment.json",
        "supernet/checkpoint.safetensors",
        "study.journal",
        "trials.csv",
        "pareto.csv",
        "pareto.html",
        "report.html",
        *(
            f"{folder}/{name}"
            for folder in exported
            for name in ("architecture.json", "weights.safetensors", "README.md")
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
    front = pd.read_csv(small_run / "pareto.csv")
    assert set(front["hash"]) <= set(evaluated["hash"])
    environment = json.loads((small_run / "environment.json").read_text())
    assert environment["packages"]["torch"]
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
    assert (copy / "supernet" / "checkpoint.safetensors").stat().st_mtime_ns == stamp
    after = files(copy)
    assert after.keys() == before.keys()
    for name in ("config.json", "trials.csv", "pareto.csv", "seconds.json"):
        assert after[name] == before[name], name
    assert len(after["study.journal"].splitlines()) - len(before["study.journal"].splitlines()) <= 1


def test_the_summary_says_both_sizes_the_best_and_what_to_type_next(copy: Path) -> None:
    outcome = command(*SMALL_RUN, "--out", copy)
    text = " ".join(outcome.out.split())
    for part in ("32 px", "224 px", "200 MMACs", "best", "smallest", "largest", "6 evaluated"):
        assert part in text
    assert f"python -m nas retrain {copy}" in outcome.out.replace("\n", "")
    best = json.loads((copy / "best" / "architecture.json").read_text())
    assert str(best["stages"][0]["width"]) in text


def test_plot_draws_the_report_of_a_finished_run_anew(copy: Path) -> None:
    for name in ("report.html", "pareto.html", "pareto.csv", "trials.csv"):
        (copy / name).unlink()
    outcome = command("plot", copy)
    assert (outcome.status, outcome.err) == (0, "")
    assert (copy / "report.html").stat().st_size > 100_000
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


def test_a_state_of_training_that_was_left_beside_the_checkpoint_is_removed(copy: Path) -> None:
    # A process that is killed between the two leaves both.
    folder = RunFolder(copy)
    shutil.copy(folder.checkpoint, folder.training_state)
    assert command(*SMALL_RUN, "--out", copy).status == 0
    assert not folder.training_state.exists()


def test_the_same_configuration_gives_the_same_results(small_run: Path, tmp_path: Path) -> None:
    assert command(*SMALL_RUN, "--out", tmp_path / "again").status == 0
    again = load_file(RunFolder(tmp_path / "again").checkpoint)
    for name, tensor in load_file(RunFolder(small_run).checkpoint).items():
        assert tensor.equal(again[name]), name
    tables = [
        pd.read_csv(folder / "trials.csv").drop(columns="seconds")
        for folder in (small_run, tmp_path / "again")
    ]
    pd.testing.assert_frame_equal(*tables)


def test_a_run_in_which_every_evaluation_failed_says_so_and_names_no_best(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def evaluate(evaluator: SubnetEvaluator, architecture: Architecture) -> Score:
        return Score(error="Traceback (most recent call last):\nRuntimeError: out of memory")

    monkeypatch.setattr("nas.workers.evaluate", evaluate)
    out = copy.parent / "other"
    outcome = command(*SMALL_RUN[:-1], "1", "--steps", "1", "--out", out)
    assert outcome.status == 1
    assert "out of memory" in outcome.out
    assert outcome.err == (
        "error: no architecture was evaluated: the search ended early: "
        "10 evaluations in a row failed\n"
    )
    assert "python -m nas retrain" not in outcome.out
    assert not (out / "best").exists()


def test_a_run_leaves_logging_as_it_found_it(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = logging.getLogger("nas")
    monkeypatch.setattr(ours, "propagate", True)
    monkeypatch.setattr(ours, "level", logging.ERROR)
    handlers = list(ours.handlers)
    assert command(*SMALL_RUN, "--out", copy).status == 0
    assert (ours.propagate, ours.level, ours.handlers) == (True, logging.ERROR, handlers)


@pytest.mark.slow
def test_a_latency_limit_is_measured_reported_and_kept(tmp_path: Path) -> None:
    out = tmp_path / "run"
    flags = ("--steps", "2", "--trials", "3", "--image-size", "64", "--latency", "10s")
    outcome = command("search", *SMALL, *flags, "--out", out)
    assert outcome.status == 0, outcome.err
    trials = pd.read_csv(out / "trials.csv")
    evaluated = trials[trials["state"] == "evaluated"]
    assert len(evaluated) == 3
    assert (evaluated["latency_ms"] > 0).all()
    assert (evaluated["latency_iqr_ms"] >= 0).all()
    conditions = "float32, batch 1"
    for text in (outcome.out, (out / "best" / "README.md").read_text()):
        assert conditions in " ".join(text.split())


# --- Ctrl-C and SIGKILL --------------------------------------------------------------------------


LONG = (ROOT / "run_search.py", *SMALL, "--steps", "40", "--trials", "24")


def stopped(process: subprocess.Popen[str], line: str, sent: signal.Signals) -> tuple[int, str]:
    """Send a signal as soon as a line is printed; the status and all that was printed."""
    assert process.stdout is not None
    read = wait_for(line, process.stdout)
    process.send_signal(sent)
    status, out, err = finish(process)
    assert "Traceback" not in err
    return status, read + out


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_run_that_is_stopped_in_training_and_in_search_comes_to_the_same_end(
    tmp_path: Path, sent: signal.Signals
) -> None:
    folder = RunFolder(tmp_path / "run")
    arguments = (*LONG, "--out", folder.path)

    status, out = stopped(start(*arguments), "training 1/", sent)
    assert not folder.checkpoint.exists()
    assert status == (-9 if sent == signal.SIGKILL else 130)
    assert folder.training_state.exists() == (sent != signal.SIGKILL)
    if sent != signal.SIGKILL:
        assert "To go on" in out
        assert f"python run_search.py {' '.join(map(str, arguments[1:]))}" in out

    status, out = stopped(start(*arguments), "searching ", sent)
    assert status == (-9 if sent == signal.SIGKILL else 130)
    assert ("To go on" in out) == (sent != signal.SIGKILL)
    before = [r.hash for r in records(load_study(folder.journal)).values()]
    assert len(before) > 0

    done = finish(start(*arguments))
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
    status, out = stopped(start(*arguments), "from scratch 1/", signal.SIGINT)
    assert status == 130
    assert f"python -m nas {' '.join(map(str, arguments[2:]))}" in out
    (state,) = (copy / "retrain").iterdir()
    assert state.name.endswith(".safetensors")
    done = finish(start(*arguments))
    assert done.status == 0, done.err
    assert (copy / "retrain" / "1" / "metrics.json").exists()
    assert "from scratch 1/24" not in done.out
