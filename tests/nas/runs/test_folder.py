import json
import os
import signal
import stat
from pathlib import Path

import pytest
from pydantic import FiniteFloat
from safetensors import SafetensorError
from small_runs import Fork, small_config, wait_for

from nas.runs.config import EXTENDABLE
from nas.runs.folder import RunFolder
from nas.training.supernet import states
from nas.utilities.errors import InputError
from nas.utilities.files import read_json, replacing, replacing_files, write_json, write_text
from nas.utilities.interrupt import Interrupted
from search_space import PRESETS

HOLD = """
import signal, sys
from nas.runs.folder import RunFolder
folder, names = RunFolder(sys.argv[1]), sys.argv[2:]
with folder.locked_for_retraining(names[0]) if names else folder.locked():
    print("held", flush=True)
    signal.pause()
"""

DIE_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from nas.utilities.files import replacing
with replacing(Path(sys.argv[1])) as temporary:
    temporary.write_text("half of the n")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def snapshot(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def refusal(folder: RunFolder, **changes: object) -> str:
    """The one line that a claim is refused with."""
    with pytest.raises(InputError) as raised, folder.claimed_for(small_config(**changes)):
        pytest.fail("the claim was granted")
    message = str(raised.value)
    assert message.startswith(str(folder.path))
    assert "\n" not in message
    return message


def test_a_claim_creates_the_folder_and_keeps_the_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "results" / "new")
    with folder.claimed_for(small_config()):
        assert folder.config == small_config()
    assert RunFolder.existing(folder.path).config == small_config()


def test_an_empty_folder_can_be_claimed(tmp_path: Path) -> None:
    with RunFolder(tmp_path).claimed_for(small_config()):
        pass


def test_the_same_configuration_claims_the_folder_again(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        with folder.claimed_for(small_config()):
            write_text(folder.path / "result.txt", "kept")
    assert (folder.path / "result.txt").read_text() == "kept"


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("budget", 3, ("budget", "200000000", "3")),
        ("params", 9, ("params", "null", "9")),
        ("seed", 5, ("seed", "0", "5")),
        ("data", "/photos", ("data", "digits", "/photos")),
        ("lr", 0.05, ("lr", "0.05")),
        ("space", PRESETS["tiny"], ("space", "nano", "tiny")),
    ],
)
def test_another_configuration_is_refused_with_the_field_that_differs(
    tmp_path: Path, field: str, value: object, told: tuple[str, ...]
) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claimed_for(small_config()):
        write_text(folder.path / "result.txt", "kept")
    before = snapshot(folder.path)
    message = refusal(folder, **{field: value})
    assert all(part in message for part in told), message
    assert snapshot(folder.path) == before


@pytest.mark.parametrize("field", EXTENDABLE)
def test_what_can_be_extended_may_grow_and_never_shrink(tmp_path: Path, field: str) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claimed_for(small_config(**{field: 5})):
        pass
    message = refusal(folder, **{field: 4})
    assert f"`{field}` can only grow, from 5, not shrink to 4; give 5 or more" in message
    with folder.claimed_for(small_config(**{field: 6})):
        pass


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    before = snapshot(tmp_path)
    assert "thesis.tex" in refusal(RunFolder(tmp_path))
    assert snapshot(tmp_path) == before


def test_a_folder_is_claimed_again_after_its_first_process_died_early(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    # What a SIGKILL leaves between the lock and the configuration.
    Fork("-c", DIE_WHILE_WRITING, folder.config_file).finish()
    (folder.path / ".lock").touch()
    with folder.claimed_for(small_config()):
        assert folder.config == small_config()


def test_two_processes_cannot_run_in_one_folder(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claimed_for(small_config()):
        pass
    process = Fork("-c", HOLD, folder.path)
    try:
        wait_for("held", process.stdout)
        assert "another process" in refusal(folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.finish()
    # The lock dies with its process.
    with folder.claimed_for(small_config()):
        pass


def test_retrainings_of_other_names_go_on_beside_each_other_and_no_run_does(
    tmp_path: Path,
) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claimed_for(small_config()):
        pass
    process = Fork("-c", HOLD, folder.path, "slow")
    try:
        wait_for("held", process.stdout)
        with folder.locked_for_retraining("fast"):
            pass
        refused = r"^`name` 'slow': another process is retraining under this name; wait .*, or give"
        with pytest.raises(InputError, match=refused), folder.locked_for_retraining("slow"):
            pytest.fail("it was granted")
        assert "another process is retraining here" in refusal(folder)
    finally:
        process.send_signal(signal.SIGKILL)
        process.finish()
    with folder.locked_for_retraining("slow"):
        pass
    with folder.claimed_for(small_config()):
        pass


def test_no_retraining_goes_on_beside_the_run(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with folder.claimed_for(small_config()):
        message = "run: another process is running in this folder"
        with pytest.raises(InputError, match=message), folder.locked_for_retraining("slow"):
            pytest.fail("it was granted")


def test_the_lock_is_given_back_when_the_block_raises(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    with pytest.raises(RuntimeError), folder.claimed_for(small_config()):
        raise RuntimeError
    with folder.claimed_for(small_config()):
        pass


def fails(folder: RunFolder, error: Exception) -> None:
    """Claim a folder for a block that writes something and then raises."""
    with pytest.raises(type(error)), folder.claimed_for(small_config()):
        write_text(folder.latency_table("cpu"), "{}")
        raise error


def test_a_new_folder_is_removed_when_the_input_turns_out_to_be_bad(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fails(folder, InputError("out of reach"))
    assert not folder.path.exists()
    with folder.claimed_for(small_config(seed=1)):  # as if it had never been
        assert folder.config == small_config(seed=1)


def test_hidden_files_are_left_alone_when_the_input_turns_out_to_be_bad(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config").write_text("ten years of work")
    fails(RunFolder(tmp_path), InputError("out of reach"))
    assert snapshot(tmp_path).keys() - {".lock"} == {".git/config"}


def test_a_folder_is_kept_after_any_other_end(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    fails(folder, Interrupted())
    assert folder.latency_table("cpu").exists()
    fails(folder, InputError("it was there before"))
    assert folder.latency_table("cpu").exists()


@pytest.mark.parametrize("name", ["checkpoint", "training_state", "teacher_training_state"])
def test_a_new_folder_is_kept_once_something_was_trained(tmp_path: Path, name: str) -> None:
    folder = RunFolder(tmp_path / "run")
    trained = folder.path / "supernet" / f"{name}.safetensors"
    assert trained in (folder.checkpoint, *states(folder.training_state))
    with pytest.raises(InputError), folder.claimed_for(small_config()):
        write_text(trained, "trained for days")
        raise InputError("the data cannot be read")
    assert trained.read_text() == "trained for days"


def test_each_device_has_a_latency_table_of_its_own(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    names = {folder.latency_table(d).name for d in ("cpu", "cuda", "cuda:0", "cuda:1", "phone")}
    assert len(names) == 5
    assert not any(":" in name for name in names)


@pytest.mark.parametrize("below", ["file", "file/run", "file/deep/run"])
def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("no folder")
    before = snapshot(tmp_path)
    assert "cannot be written" in refusal(RunFolder(tmp_path / below))
    assert snapshot(tmp_path) == before


def test_a_folder_without_a_run_is_no_earlier_run(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(InputError, match="no run here"):
            RunFolder.existing(path)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "told"),
    [("{", "JSON"), ('{"steps": "few"}', "steps"), ('{"stepps": 3}', "stepps"), ("[]", "")],
)
def test_a_broken_configuration_is_refused_by_file_and_field(
    tmp_path: Path, text: str, told: str
) -> None:
    config = json.loads(small_config().model_dump_json())
    if text.startswith('{"'):
        text = json.dumps(config | json.loads(text))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json: .") as raised:
        _ = RunFolder(tmp_path).config
    assert told in str(raised.value)
    assert ": :" not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_replacing_writes_all_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    with replacing(path) as temporary:
        temporary.write_text("two")
        assert path.read_text() == "one"
    assert snapshot(tmp_path) == {"new/file.txt": b"two"}


def test_replacing_leaves_the_old_file_when_the_block_raises(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert snapshot(tmp_path) == {"file.txt": b"old"}


def test_a_writer_that_is_killed_leaves_the_old_file_and_no_rubbish_for_long(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")
    assert Fork("-c", DIE_WHILE_WRITING, path).finish().status == -9
    assert path.read_text() == "old"
    write_text(path, "new")
    assert snapshot(tmp_path) == {"file.txt": b"new"}


def test_files_are_as_readable_as_the_user_lets_any_file_be(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "file.json", {"key": "value"})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file.json").stat().st_mode) == 0o640
    assert json.loads((tmp_path / "file.json").read_text()) == {"key": "value"}


def test_files_of_a_folder_are_replaced_together_and_others_stay(tmp_path: Path) -> None:
    folder = tmp_path / "best"
    for content in ("old", "new"):
        with replacing_files(folder, last="b") as written:
            for name in ("a", "b"):
                (written / name).write_text(content)
        (folder / "notes").write_text("the user's")
    new = {"a": b"new", "b": b"new", "notes": b"the user's"}
    assert snapshot(folder) == new
    with pytest.raises(RuntimeError), replacing_files(folder, last="b") as written:
        (written / "a").write_text("half of the n")
        raise RuntimeError
    assert snapshot(folder) == new
    assert [path.name for path in tmp_path.iterdir()] == ["best"]


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    left = tmp_path / ".best.new"
    left.mkdir()
    (left / ".tmpXyZ").write_text("of a library that writes a temporary file itself")
    with replacing_files(tmp_path / "best", last="a") as written:
        (written / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["best"]
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["a"]


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match=str(tmp_path / "file" / "a.json")):
        write_json(tmp_path / "file" / "a.json", {})
    with pytest.raises(OSError) as raised, replacing(tmp_path / "a.safetensors"):
        raise SafetensorError("no space left on device")
    assert raised.value.filename == str(tmp_path / "a.safetensors")
    assert raised.value.strerror == "no space left on device"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "JSON"),
        (b"\xff\x00garbage", "JSON"),
        (b"[" * 100_000, "recursion"),
        (b'{"a": "much"}', "a: Input should be a valid number"),
        (b'{"a": NaN}', "a: Input should be a finite number"),
        (b'{"a": 1e999}', "a: Input should be a finite number"),
        (b"[1]", "Input should be an object"),
        (b" " * (1 << 24) + b"{}", "larger than 16 MiB"),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_json_of_the_kind_is_refused_in_one_line_with_what_to_do(
    tmp_path: Path, content: bytes, told: str
) -> None:
    file = tmp_path / "seconds.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file}: .*{told}.*; delete it$") as raised:
        read_json(file, dict[str, FiniteFloat], remedy="delete it")
    assert "\n" not in str(raised.value)
