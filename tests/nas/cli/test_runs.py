"""`nas runs`, `nas remove` and `nas space`."""

import io
import os
import shutil
from pathlib import Path

import pytest
from small_runs import command

from nas.runs.folder import RunFolder
from nas.runs.inventory import Listed, runs_in
from search_space import PRESETS, SearchSpace
from search_space.encoding import MEANINGS


@pytest.fixture
def results(small_run: Path, tmp_path: Path) -> Path:
    """A folder with a finished run, one that was stopped in training, and something else."""
    folder = tmp_path / "results"
    shutil.copytree(small_run, folder / "finished")
    (folder / "begun").mkdir()
    shutil.copy(small_run / "config.json", folder / "begun" / "config.json")
    (folder / "notes").mkdir()
    return folder


def lines(results: Path) -> dict[str, str]:
    """What `nas runs` prints of each run, by its name."""
    outcome = command("runs", results)
    assert outcome.status == 0, outcome.err
    return {line.split()[0]: " ".join(line.split()) for line in outcome.out.splitlines() if line}


def test_runs_shows_state_best_age_and_size_of_each_run(results: Path) -> None:
    shown = lines(results)
    assert "notes" not in shown
    assert "stopped in training" in shown["begun"]
    assert "finished" in shown["finished"]
    assert "% at" in shown["finished"]
    assert "MMACs" in shown["finished"]
    assert "ago" in shown["finished"]
    assert "MB" in shown["finished"]


def test_a_run_is_running_while_a_process_holds_it(results: Path) -> None:
    with RunFolder(results / "finished").locked():
        assert "running" in lines(results)["finished"]
        outcome = command("remove", results / "finished", "--yes")
        assert outcome.status == 2
        assert "another process is running in this folder" in outcome.err
    assert "finished" in lines(results)["finished"]


def test_looking_at_a_run_does_not_make_it_younger(results: Path) -> None:
    for file in (results / "finished").rglob("*"):
        os.utime(file, (1e9, 1e9))
    for _ in range(2):
        assert Listed.of(results / "finished").changed == 1e9


def test_a_run_that_went_on_and_was_stopped_is_no_longer_finished(results: Path) -> None:
    folder = RunFolder(results / "finished")
    folder.write_config(folder.config)
    later = folder.summary.stat().st_mtime + 5
    os.utime(folder.config_file, (later, later))
    assert Listed.of(folder.path).state == "stopped in the search"


def test_what_is_linked_counts_once_in_all(results: Path) -> None:
    alone = Listed.of(results / "finished")
    second = results / "second" / "supernet"
    second.mkdir(parents=True)
    shutil.copy(results / "finished" / "config.json", second.parent)
    os.link(RunFolder(alone.path).checkpoint, second / "checkpoint.safetensors")
    both = [run for run in runs_in(results) if run.path.name != "begun"]
    weights = RunFolder(alone.path).checkpoint.stat().st_size
    config = RunFolder(alone.path).config_file.stat().st_size
    together = {key: size for run in both for key, size in run.files.items()}
    assert sum(together.values()) == alone.bytes + config
    assert sum(run.bytes for run in both) == alone.bytes + config + weights


def test_a_damaged_table_leaves_the_best_out(results: Path) -> None:
    (results / "finished" / "pareto.csv").write_text("accuracy,macs\nmuch\n")
    assert Listed.of(results / "finished").best == ""


@pytest.mark.parametrize(("answer", "removed"), [("y\n", True), ("no\n", False), ("\n", False)])
def test_remove_asks(
    results: Path, answer: str, removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    outcome = command("remove", results / "finished")
    assert outcome.status == 0, outcome.err
    assert "finished, best" in outcome.out
    assert (results / "finished").exists() != removed
    assert (results / "begun").exists()


def test_remove_does_not_ask_with_yes_and_refuses_where_nobody_can_answer(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    outcome = command("remove", results / "begun")
    assert (outcome.status, outcome.err) == (
        2,
        "error: nobody is there to be asked; give --yes\n",
    )
    assert command("remove", results / "begun", "--yes").status == 0
    assert not (results / "begun").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("runs", "nowhere"), "nowhere: no such folder"),
        (("runs", "."), ".: no runs in it"),
        (("remove", ".", "--yes"), ".: no run here (it has no config.json)"),
        (("space", "huge"), "'huge' is unknown; nano, tiny, base, psvit, or a JSON file"),
        (
            ("space", "nano", "--json", "/dev/null/x"),
            "--json /dev/null/x: the name must end in .json",
        ),
        (("space", "nano", "--json", "/dev/null/x.json"), "--json /dev/null/x.json: cannot be"),
        (("space", "nano", "--json", "notes.txt"), "--json notes.txt: the name must end in .json"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("the user's")
    outcome = command(*arguments)
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: {told}")
    assert outcome.err.count("\n") == 1
    assert (tmp_path / "notes.txt").exists()


@pytest.mark.parametrize("preset", PRESETS)
def test_space_counts_a_preset_and_explains_each_gene_in_a_line(preset: str) -> None:
    outcome = command("space", preset)
    assert outcome.status == 0, outcome.err
    first, second, *rest = outcome.out.splitlines()
    assert first == f"{preset}: {PRESETS[preset].count():,} architectures"
    assert "MACs" in second
    assert "at 224 px" in second
    for gene in {name.rpartition(".")[2] for name in PRESETS[preset].genes}:
        assert f"{gene}: {MEANINGS[gene]}" in rest
    assert len([line for line in rest if line.startswith("    ")]) == len(PRESETS[preset].genes)


def test_the_json_of_a_space_is_printed_or_written_and_can_be_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mine.json"
    assert command("space", "tiny", "--json", file).status == 0
    assert SearchSpace.load(file) == PRESETS["tiny"]
    printed = command("space", file, "--json").out
    assert SearchSpace.model_validate_json(printed) == PRESETS["tiny"]


def test_another_programs_folder_is_neither_held_nor_removed(results: Path) -> None:
    config = results / "bert" / "config.json"
    config.parent.mkdir()
    config.write_text('{"model_type": "bert"}')
    assert "bert" not in lines(results)
    outcome = command("remove", config.parent, "--yes")
    assert outcome.status == 2
    assert "no run here (its config.json is another program's)" in outcome.err
    assert [path.name for path in config.parent.iterdir()] == ["config.json"]
