"""One trained supernet answers many questions: more trials of a run, and other runs with it."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from small_runs import SMALL, Outcome, command, constrained_nano, small_config, without_figures

from nas import open_run
from nas.runs.configure import configure
from nas.runs.folder import RunFolder
from nas.runs.reuse import TRAINED_WITH, Origin, TrainedSupernet
from nas.search.front import best, judged
from nas.search.trials import SCRATCH_COLUMNS, TRIED_COLUMNS
from nas.utilities.errors import InputError

pytestmark = pytest.mark.usefixtures("undrawn")

FLAGS = ("search", *SMALL, "--steps", "4")
"""Of the fixture `eight`, but for trials, short list and folder; of flags that come twice the last
counts."""


@pytest.fixture(scope="module")
def eight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of eight trials, a batch; not to be changed."""
    folder = tmp_path_factory.mktemp("reuse") / "eight"
    with without_figures():
        outcome = command(*FLAGS, "--trials", "8", "--short-list", "2", "--out", folder)
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def copy(eight: Path, tmp_path: Path) -> Path:
    """A copy of that run, that may be changed."""
    return Path(shutil.copytree(eight, tmp_path / "run"))


def proposed(run: Path) -> pd.DataFrame:
    """What was proposed and what became of it, before anything was trained alone."""
    return open_run(run).trials.drop(columns=["seconds", *TRIED_COLUMNS, *SCRATCH_COLUMNS])


MORE = (*FLAGS, "--trials", "16", "--short-list", "3")


@pytest.fixture(scope="module")
def grown(eight: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A copy of that run with more trials, not to be changed; and what their command printed."""
    folder = Path(shutil.copytree(eight, tmp_path_factory.mktemp("grown") / "run"))
    with without_figures():
        outcome = command(*MORE, "--out", folder)
    assert outcome.status == 0, outcome.err
    return folder, outcome


@pytest.mark.slow
def test_more_trials_give_what_a_run_that_was_begun_with_so_many_gives(
    eight: Path, grown: tuple[Path, Outcome], tmp_path: Path
) -> None:
    whole, (copy, outcome) = tmp_path / "whole", grown
    assert command(*MORE, "--out", whole).status == 0
    assert "supernet: trained already" in outcome.out
    checkpoints = (RunFolder(run).checkpoint for run in (eight, copy))
    assert len({checkpoint.stat().st_mtime_ns for checkpoint in checkpoints}) == 1
    assert RunFolder(copy).config == RunFolder(whole).config
    pd.testing.assert_frame_equal(proposed(copy), proposed(whole))
    listed = set(open_run(whole).trials.dropna(subset="tried")["hash"])
    assert listed <= set(open_run(copy).trials.dropna(subset="tried")["hash"])


def test_what_was_tried_before_there_were_more_trials_is_not_tried_again_and_may_still_be_best(
    eight: Path, grown: tuple[Path, Outcome]
) -> None:
    before = open_run(eight).trials.dropna(subset="tried").set_index("hash")
    copy, outcome = grown
    after = open_run(copy).trials.dropna(subset="tried").set_index("hash")
    assert len(after) > len(before) == 2
    kept = after.loc[before.index]
    assert (kept["tried_steps"] >= before["tried_steps"]).all()
    same = kept["tried_steps"] == before["tried_steps"]
    assert (kept["tried"] == before["tried"])[same].all()
    assert open_run(copy).best["hash"] == best(judged(open_run(copy).trials), [])["hash"]
    assert open_run(copy).best["hash"] in after.index
    summary = json.loads(RunFolder(copy).summary.read_text())
    assert summary["short_list"] == len(after)
    assert f"{len(after)} trained alone" in (copy / "report.html").read_text()
    assert "16 evaluated" in " ".join(outcome.out.split())


def test_fewer_trials_than_before_are_refused_in_one_line_and_change_nothing(copy: Path) -> None:
    before = RunFolder(copy).config_file.read_bytes()
    outcome = command(*FLAGS, "--trials", "7", "--short-list", "2", "--out", copy)
    assert (outcome.status, outcome.err) == (
        2,
        f"error: {copy}: its --trials can only grow, from 8, not shrink to 7; "
        "give 8 or more, or another folder as --out\n",
    )
    assert RunFolder(copy).config_file.read_bytes() == before


# --- another run with the same supernet ----------------------------------------------------------

TIGHTER = ("search", "--budget", "150MFLOPs", "--search-images", "40", "--workers", "0")
"""Another question to the supernet of `eight`; trials, short list and folder are to be added."""


def ask(supernet: Path, out: Path, *more: str | Path) -> Outcome:
    flags = ("--trials", "4", "--short-list", "1", "--supernet", supernet, "--out", out)
    return command(*TIGHTER, *flags, *more)


@pytest.fixture(scope="module")
def asked(eight: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with the supernet of `eight`; not to be changed."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    with without_figures():
        outcome = ask(eight, folder)
    assert outcome.status == 0, outcome.err
    return folder


def test_another_run_searches_the_trained_weights_of_a_run_and_has_them_by_a_link(
    eight: Path, asked: Path
) -> None:
    theirs, ours = RunFolder(eight), RunFolder(asked)
    assert ours.checkpoint.samefile(theirs.checkpoint)
    assert not (asked / "supernet" / "training_state.safetensors").exists()
    known, config = theirs.config, ours.config
    for field in ("space", "data", *TRAINED_WITH):
        assert getattr(config, field) == getattr(known, field), field
    assert (config.budget, config.trials, config.short_list) == (150_000_000, 4, 1)
    trials = open_run(asked).trials
    assert (trials.query("state == 'evaluated'")["macs"] <= 150_000_000).all()
    # What both evaluated they found to be as accurate.
    both = proposed(eight).merge(proposed(asked), on="hash").query("state_x == state_y")
    inherited = both.query("state_x == 'evaluated'")
    assert len(inherited)
    assert (inherited["accuracy_x"] == inherited["accuracy_y"]).all()


def test_the_same_command_again_goes_on_with_the_same_weights(
    eight: Path, asked: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(asked, tmp_path / "run"))
    (run / "summary.json").unlink()
    outcome = ask(eight, run)
    assert outcome.status == 0, outcome.err
    for step in ("supernet: trained already", "search: done already", "short list: tried already"):
        assert step in outcome.out
    assert (run / "summary.json").exists()


def test_summary_report_and_card_say_where_the_weights_come_from(eight: Path, asked: Path) -> None:
    summary = json.loads(RunFolder(asked).summary.read_text())
    assert summary["supernet_run"] == str(eight)
    spent = json.loads((eight / "seconds.json").read_text())["supernet_seconds"]
    assert summary["supernet_seconds"] == pytest.approx(spent)
    assert f"trained by {eight}" in (asked / "report.html").read_text()
    assert str(eight.name) in (asked / "best" / "README.md").read_text()
    assert json.loads(RunFolder(eight).summary.read_text())["supernet_run"] == ""


def test_a_run_goes_on_with_its_weights_when_the_run_that_trained_them_is_gone(
    eight: Path, asked: Path, tmp_path: Path
) -> None:
    run, gone = tmp_path / "run", tmp_path / "gone"
    shutil.copytree(asked, run)
    lost = ask(gone, run)
    assert lost.status == 2
    assert f"--supernet {gone}: no run here" in lost.err
    assert "goes on with its own folder in this place" in lost.err
    outcome = ask(run, run, "--trials", "6")
    assert outcome.status == 0, outcome.err
    assert "6 evaluated" in " ".join(outcome.out.split())
    assert json.loads(RunFolder(run).summary.read_text())["supernet_run"] == str(eight)


def test_a_run_whose_weights_have_changed_is_refused(
    copy: Path, asked: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(asked, tmp_path / "asked"))
    other = RunFolder(copy).checkpoint
    content = bytearray(other.read_bytes())
    content[-1] ^= 1
    other.write_bytes(content)
    outcome = ask(copy, run)
    assert outcome.status == 2
    assert re.fullmatch(
        rf"error: {run}: belongs to another configuration \(supernet is .*\n", outcome.err
    )
    shutil.copy(other, RunFolder(run).checkpoint)
    outcome = ask(asked, run)
    assert outcome.status == 2
    assert f"{RunFolder(run).checkpoint}: not the weights of --supernet {asked}" in outcome.err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--space", "tiny"), "--space contradicts .* was trained with nano, not tiny"),
        (("--proxy-size", "64"), "--proxy-size contradicts .* trained with 32, not 64"),
        (("--seed", "3"), "--seed contradicts .* trained with 2, not 3"),
        (("--steps", "5"), "--steps contradicts .* trained with 4, not 5"),
        (("--epochs", "1"), r"--epochs contradicts .* trained with 4, not \d+"),
        (("--lr", "0.1"), "--lr contradicts .* not 0.1; leave it out"),
        (("--strategy", "sandwich"), "--strategy contradicts .* blockwise, not sandwich"),
        (("--data", "fashion-mnist"), "--data fashion-mnist: not the data of the run, that is dig"),
        (("--train-workers", "2"), "--train-workers 2 with --supernet: nothing is trained"),
        (("--budget", "1MFLOPs"), "--budget 1 MMACs is out of reach"),
    ],
)
def test_what_contradicts_the_training_is_refused_by_its_flag(
    eight: Path, tmp_path: Path, flags: tuple[str, ...], told: str
) -> None:
    outcome = ask(eight, tmp_path / "run", *flags)
    assert outcome.status == 2
    assert re.fullmatch(rf"error: {told}.*\n", outcome.err), outcome.err
    assert not (tmp_path / "run").exists()


def test_what_is_given_as_it_was_is_no_contradiction(eight: Path) -> None:
    same: dict[str, Any] = {"space": "nano", "seed": 2, "steps": 4, "strategy": "blockwise"}
    asked: dict[str, Any] = {"budget": "150MFLOPs", "data": "digits", "trials": 4}
    alone = configure(supernet=eight, **asked)
    assert alone.config == configure(supernet=open_run(eight), **asked, **same).config
    assert alone.config.digest != RunFolder(eight).config.digest


def test_a_run_that_is_not_trained_to_the_end_is_refused(copy: Path, tmp_path: Path) -> None:
    RunFolder(copy).checkpoint.unlink()
    outcome = ask(copy, tmp_path / "run")
    assert outcome.status == 2
    assert outcome.err == (
        f"error: --supernet {copy}: not trained to the end yet; run its command again\n"
    )


def test_limits_beyond_those_of_the_training_bring_a_warning() -> None:
    origin = Origin(run="/a", limits={"macs": 150e6}, image_size=224, seconds=60)
    (first,) = origin.told(constrained_nano(macs=150e6), steps=900)
    assert first == "the supernet was trained by /a (900 steps in 1 min 00 s), and not again"
    _, warning = origin.told(constrained_nano(macs=300e6), steps=900)
    assert "outside those that the supernet was trained for, 150 MMACs at 224 px" in warning
    # The same limit at a smaller size leaves more.
    smaller = origin.model_copy(update={"image_size": 448})
    assert len(smaller.told(constrained_nano(macs=150e6), steps=900)) == 2
    timed = origin.model_copy(update={"limits": {"macs": 150e6, "latency_phone_ms": 5.0}})
    assert len(timed.told(constrained_nano(macs=150e6), steps=900)) == 2
    held = constrained_nano(macs=150e6, latency_ms={"phone": 5.0})
    assert len(timed.told(held, steps=900)) == 1


def test_where_a_disk_has_no_links_the_weights_are_copied(
    eight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    TrainedSupernet.of(eight).lend(folder)
    assert folder.checkpoint.read_bytes() == RunFolder(eight).checkpoint.read_bytes()


@pytest.mark.slow
def test_images_may_be_moved_and_not_changed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for number in range(24):
        file = tmp_path / "bugs" / ("ant", "bee")[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file)
    run, again, third = (tmp_path / name for name in ("run", "again", "third"))
    flags = ("--trials", "2", "--steps", "1", "--short-list", "0", "--loader-workers", "0")
    begun = command(*FLAGS, *flags, "--data", tmp_path / "bugs", "--out", run)
    assert begun.status == 0, begun.err
    moved = (tmp_path / "bugs").rename(tmp_path / "insects")
    assert "where the images of the run were, is no folder" in ask(run, again).err
    flags = ("--short-list", "0", "--loader-workers", "0", "--data", moved)
    outcome = ask(run, again, *flags)
    assert outcome.status == 0, outcome.err
    assert RunFolder(again).config.data == str(moved)
    (moved / "ant" / "0.png").unlink()
    outcome = ask(run, third, *flags)
    assert outcome.status == 2
    told = f"error: --data {moved}: the data are not those that {run} began with: 1 gone"
    assert outcome.err.startswith(told)
    assert not third.exists()


def test_weights_that_a_teacher_taught_want_the_same_teacher_for_the_short_list(
    tmp_path: Path,
) -> None:
    taught = small_config(teacher="resnet18 3ad1424ecab565e5", token_labels=True)
    trained = TrainedSupernet(
        folder=RunFolder(tmp_path),
        config=taught,
        digest="0" * 16,
        origin=Origin(run="there", limits={}, image_size=224, seconds=1.0),
    )
    with pytest.raises(InputError, match=r"`teacher`: resnet18 \w+ taught `supernet`"):
        trained.configured(small_config(), {"budget"})
    again = small_config(teacher=taught.teacher, token_labels=True)
    assert trained.configured(again, {"budget", "teacher"}).supernet == "0" * 16
    other = small_config(teacher="resnet50 00112233445566aa", token_labels=True)
    with pytest.raises(InputError, match=r"`teacher` contradicts `supernet`"):
        trained.configured(other, {"budget", "teacher"})


def test_what_began_with_pretrained_weights_has_no_final_with_them_either_unless_asked(
    eight: Path,
) -> None:
    trained = TrainedSupernet.of(eight)
    begun = replace(trained, config=trained.config.model_copy(update={"init": "0" * 16}))
    assert begun.asked({})["finalists"] == 0
    assert begun.asked({"finalists": 3})["finalists"] == 3
    assert "finalists" not in trained.asked({})
