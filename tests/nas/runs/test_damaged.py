"""Files of a run that are damaged, and folders that cannot be written."""

import errno
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fuzzing import hurried
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import SMALL, Outcome, command, fake_table, small_config

import nas
from nas.runs.folder import RunFolder
from nas.runs.latency_tables import kept_table
from nas.search.study import load_study, records
from nas.utilities.errors import InputError
from search_space import PRESETS

FLAGS = (*SMALL, "--steps", "4", "--trials", "6")
"""Of `small_run`."""


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged."""
    return Path(shutil.copytree(small_run, tmp_path / "run"))


@pytest.fixture(autouse=True)
def without_figures() -> Iterator[None]:
    """Drawing takes most of the time of a run that is done."""
    with hurried(drawing=False):
        yield


def search(run: Path, *more: str | Path) -> Outcome:
    return command("search", *FLAGS, *more, "--out", run)


def refused(outcome: Outcome, *told: str) -> None:
    assert outcome.status == 2, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("error: ")
    assert all(part in line for part in told), line


def lines_of(journal: Path) -> list[bytes]:
    return journal.read_bytes().splitlines(keepends=True)


# --- the journal ---------------------------------------------------------------------------------


def garbage(lines: list[bytes], at: int) -> None:
    lines[at] = b"\xff\x00 no JSON\n"


def other_json(lines: list[bytes], at: int) -> None:
    lines[at] = b"[1, 2]\n"


def unknown_entry(lines: list[bytes], at: int) -> None:
    lines[at] = b'{"op_code": 99, "worker_id": "x"}\n'


@pytest.mark.slow
@pytest.mark.parametrize("damage", [garbage, other_json, unknown_entry])
@pytest.mark.parametrize("place", [0.5, 1.0], ids=["in the middle", "at the end"])
def test_a_damaged_line_is_named_and_cutting_before_it_goes_on(
    run: Path, damage: Callable[[list[bytes], int], None], place: float
) -> None:
    journal = RunFolder(run).journal
    lines = lines_of(journal)
    at = round(place * (len(lines) - 1))
    damage(lines, at)
    journal.write_bytes(b"".join(lines))
    for outcome in (command("plot", run), search(run)):
        refused(outcome, f"study.journal: damaged: line {at + 1} ", "put back a copy, or cut")
        assert journal.read_bytes() == b"".join(lines)
    with pytest.raises(InputError, match=f"line {at + 1}"):
        _ = nas.open_run(run).trials
    journal.write_bytes(b"".join(lines[:at]))
    kept = records(load_study(journal))
    if damage is garbage:
        assert search(run).status == 0
        after = records(load_study(journal))
        assert {number: after[number] for number in kept} == kept
        assert sum(record.was_evaluated for record in after.values()) == 6


def lost_record(entry: dict[str, object]) -> object:
    return None if "record" in str(entry.get("user_attr", "")) else entry


def field_of(**changes: object) -> Callable[[dict[str, object]], object]:
    """Change those fields of every record."""

    def change(entry: dict[str, object]) -> object:
        attributes = entry.get("user_attr", {})
        assert isinstance(attributes, dict)
        if "record" in attributes:
            attributes["record"] |= changes
        return entry

    return change


def other_values(entry: dict[str, object]) -> object:
    return entry | {"values": [0.99, 1.0]} if entry.get("values") else entry


def nothing_kept(entry: dict[str, object]) -> object:
    return None


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lost_record, "trial 0 has lost its record"),
        (field_of(state="won"), "trial 0: state: "),
        (field_of(accuracy="high"), "trial 0: accuracy: "),
        (field_of(loss=-1000.0), "trial 0: loss: "),
        (field_of(costs={"macs": float("nan")}), "trial 0: costs.macs: "),
        (field_of(architecture={}), "trial 0: stem: "),
        (field_of(accuracy=0.123), "trial 0 has other values than its record"),
        (other_values, "trial 0 has other values than its record"),
        (nothing_kept, "it holds no study"),
    ],
)
def test_no_evaluation_is_lost_or_changed_without_a_word(
    run: Path, change: Callable[[dict[str, object]], object], told: str
) -> None:
    journal = RunFolder(run).journal
    changed = [change(json.loads(line)) for line in lines_of(journal)]
    text = "".join(json.dumps(entry) + "\n" for entry in changed if entry is not None)
    journal.write_text(text)
    refused(command("plot", run), f"study.journal: damaged: {told}")
    assert journal.read_text() == text


def test_a_run_without_its_journal_is_not_given_an_empty_one(run: Path) -> None:
    journal = RunFolder(run).journal
    journal.unlink()
    refused(command("plot", run), "study.journal: no such file")
    assert not journal.exists()


def test_a_lock_that_a_killed_process_left_beside_the_journal_blocks_nobody(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run.parent)
    (run / "study.journal.lock").symlink_to("run/study.journal")  # as Optuna locks: it dangles
    study = load_study(Path("run/study.journal"))
    study.set_user_attr("short list", [])
    assert load_study(Path("run/study.journal")).user_attrs["short list"] == []


# --- the other files -----------------------------------------------------------------------------


def test_damaged_bookkeeping_of_seconds_stops_no_run(run: Path) -> None:
    (run / "seconds.json").write_text('{"search_seconds": NaN}')
    assert search(run).status == 0
    assert "seconds.json: search_seconds: " in (run / "log.txt").read_text()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"num_classes": 0}, "num_classes: "),
        ({"limits": {"macs": "few"}}, "limits.macs: "),
        ({"limits": {"beauty": 1}}, "'beauty'"),
        ({"limits": {"macs": 2e8, "latency_phone_ms": 4}}, "says nothing of latency_phone_ms"),
        ({"reachable": {}}, "says nothing of macs"),
        ({"reachable": {"macs": [1]}}, "reachable.macs"),
        ({"notes": 3}, "notes: "),
    ],
)
def test_a_damaged_summary_is_named_with_its_field(
    run: Path, changes: dict[str, object], told: str
) -> None:
    file = RunFolder(run).summary
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    refused(command("plot", run), told)
    with pytest.raises(InputError):
        _ = nas.open_run(run).front


def test_a_damaged_summary_is_written_anew_by_the_search(run: Path) -> None:
    file = RunFolder(run).summary
    whole = json.loads(file.read_text())
    file.write_text("{")
    refused(command("plot", run), "summary.json: ", "run the search's command again")
    assert search(run).status == 0
    assert json.loads(file.read_text()).keys() == whole.keys()
    assert command("plot", run).status == 0


@pytest.mark.parametrize("name", ["head.bias", "head.weight"])
@pytest.mark.parametrize("damage", ["missing", "of another shape"])
def test_a_supernet_that_is_none_of_the_space_is_refused(run: Path, name: str, damage: str) -> None:
    file = RunFolder(run).checkpoint
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    weights = load_file(file)
    if damage == "missing":
        del weights[name]
    else:
        weights[name] = weights[name].reshape(-1)[:-1].clone()
    save_file(weights, file, metadata=metadata)
    refused(search(run), "checkpoint.safetensors: cannot be resumed from", "delete it")
    with pytest.raises(InputError, match=r"checkpoint\.safetensors"):
        nas.open_run(run).supernet()


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "JSON"),
        (fake_table("tablet").to_json(), "on 'tablet', not 'phone'"),
        (fake_table("phone", image_size=64).to_json(), "image_size 64, but the run asks for 224"),
        (fake_table("phone", space=PRESETS["tiny"]).to_json(), "lacks segments"),
    ],
    ids=lambda value: value[:20],
)
def test_a_kept_latency_table_of_something_else_is_refused(
    tmp_path: Path, content: str, told: str
) -> None:
    path = tmp_path / "phone.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"phone\.json: .*{told}.*; delete it"):
        kept_table(path, small_config(latency_ms={"phone": 40.0}), "phone")
    path.write_text(fake_table("phone").to_json())
    assert kept_table(path, small_config(), "phone") == fake_table("phone")


@pytest.mark.slow
def test_a_damaged_file_of_the_tryout_is_named_and_made_again_where_it_is_deleted(
    small_run: Path, tmp_path: Path
) -> None:
    flags = (*SMALL[:-1], "1", "--supernet", small_run, "--trials", "2", "--out", tmp_path / "run")
    assert command("search", *flags).status == 0
    (path,) = (tmp_path / "run" / "tried").glob("*.safetensors")
    whole = load_file(path)
    save_file(whole, path, metadata={"step": "2", "identity": '{"fits": {"2": ["high", 1.0]}}'})
    refused(
        command("search", *flags), f"{path.name}: cannot be resumed from", "2[0]: ", "delete it"
    )
    path.unlink()
    assert command("search", *flags).status == 0
    assert load_file(path).keys() == whole.keys()


def test_metrics_of_a_retraining_that_are_damaged_are_named(run: Path) -> None:
    retrain = ("retrain", run, "--steps", "1", "--batch-size", "4")
    assert command(*retrain).status == 0
    file = run / "retrain" / "1" / "metrics.json"
    whole = file.read_text()
    for changes, told in (
        ({"result": None}, "result: "),
        ({"result": json.loads(whole)["result"] | {"retrained": 7}}, "result.retrained: "),
        ({"recipe": {}}, "recipe.steps: "),
    ):
        file.write_text(json.dumps(json.loads(whole) | changes))
        refused(command(*retrain), f"metrics.json: {told}", "delete it to train again")
    file.write_text(whole)
    assert "retrained already" in command(*retrain).out


def test_folders_of_the_user_s_in_front_are_passed_over(run: Path) -> None:
    for name in ("2-notes", "notes", "99"):
        (run / "front" / name).mkdir()
    (run / "front" / "1.txt").write_text("the user's")
    with pytest.raises(InputError, match="has exported 1 to"):
        nas.open_run(run).network(98)
    assert search(run).status == 0
    assert (run / "front" / "1.txt").read_text() == "the user's"


def test_while_another_process_draws_the_pages_are_left_to_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.runs.folder, "_DRAWING", 0.1)
    before = (run / "report.html").stat().st_mtime_ns
    with RunFolder(run).locked_for_drawing():
        refused(command("plot", run), "another process is drawing the report")
    assert (run / "report.html").stat().st_mtime_ns == before
    assert command("plot", run).status == 0


def test_a_metrics_file_of_the_user_s_is_no_retraining(run: Path) -> None:
    theirs = run / "analysis" / "a"
    theirs.mkdir(parents=True)
    (theirs / "metrics.json").write_text("{}")
    assert command("plot", run).status == 0
    assert not list(theirs.glob("*.html"))


# --- what cannot be written ----------------------------------------------------------------------


def test_a_full_disk_ends_in_one_line_and_leaves_the_earlier_files(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, text: str, **_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = {path: path.read_bytes() for path in run.rglob("*.csv")}
    monkeypatch.setattr(Path, "write_text", full)
    refused(command("plot", run), "trials.csv: No space left on device")
    assert {path: path.read_bytes() for path in run.rglob("*.csv")} == before
    assert not [path for path in run.rglob(".*") if not path.name.startswith(".lock")]


def test_a_log_that_cannot_be_written_hinders_nobody(run: Path) -> None:
    log = RunFolder(run).log
    log.unlink()
    log.symlink_to("/dev/full")
    if not Path("/dev/full").exists():
        pytest.skip("needs a file that is always full")
    outcome = search(run)
    assert (outcome.status, outcome.err) == (0, "")


def test_a_folder_that_cannot_be_written_ends_in_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "mkdir", read_only)  # root may write anywhere
    refused(command("plot", run), f"{run}: cannot be written (Permission denied)")
