import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import SMALL, Outcome, command, without_figures

from nas.data import load_data
from nas.runs.configure import data_identity
from nas.runs.folder import RunFolder
from nas.runs.same_data import data_again, keep_data
from nas.utilities.errors import InputError

ON_IMAGES = (*SMALL, "--steps", "2", "--trials", "2", "--loader-workers", "0")


pytestmark = pytest.mark.usefixtures("undrawn", "few_test_images")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds images in `bugs` and a run on them in `run`."""
    place = tmp_path_factory.mktemp("same-data")
    generator = np.random.default_rng(0)
    for name in ("ant", "bee"):
        (place / "bugs" / name).mkdir(parents=True)
        for number in range(12):
            pixels = generator.integers(0, 255, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / "bugs" / name / f"{number}.png")
    with without_figures():
        done = search(place / "bugs", place / "run")
    assert done.status == 0, done.err
    return place


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Path:
    """A copy that may be changed; its run believes its images where `finished` has them."""
    shutil.copytree(finished, tmp_path / "place")
    return tmp_path / "place"


def search(images: Path, run: Path) -> Outcome:
    return command("search", *ON_IMAGES, "--data", images, "--out", run)


def retrain(run: Path, *more: str | Path) -> Outcome:
    return command("retrain", run, "--steps", "2", "--loader-workers", "0", *more)


def test_a_run_goes_on_with_images_that_were_moved(place: Path) -> None:
    (place / "bugs").rename(place / "insects")
    again = search(place / "insects", place / "run")
    assert again.status == 0, again.err
    assert "search: done already" in again.out
    assert str(place / "insects") in (place / "run" / "config.json").read_text()
    retrained = retrain(place / "run")  # finds them by itself now
    assert retrained.status == 0, retrained.err


def test_a_run_begun_with_a_tilde_knows_its_folder(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(place))
    assert data_identity("~/bugs") == str(place / "bugs")
    assert data_again(RunFolder(place / "run").config, "~/bugs") == str(place / "bugs")


def test_who_looks_at_the_data_of_a_run_waits_for_who_does(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(place / "run")
    data = load_data(str(place / "bugs"), image_size=32, seed=0)
    monkeypatch.setattr("nas.runs.folder._READING", 0.1)
    with folder.locked_for_data(), pytest.raises(InputError, match="is reading the data"):
        keep_data(folder, data)


def test_retraining_is_told_where_images_that_were_moved_are(place: Path, finished: Path) -> None:
    config = place / "run" / "config.json"
    config.write_text(config.read_text().replace(str(finished / "bugs"), "/gone/bugs"))
    lost = retrain(place / "run")
    assert (lost.status, lost.out) == (2, "")
    assert "--data: /gone/bugs, where the images of the run were, is no folder" in lost.err
    found = retrain(place / "run", "--data", place / "bugs")
    assert found.status == 0, found.err


@pytest.mark.parametrize("do", ["search", "retrain"])
def test_a_run_is_refused_on_images_that_have_changed(place: Path, do: str) -> None:
    (place / "bugs" / "ant" / "3.png").unlink()
    before = (place / "run" / "data.json").read_bytes()
    if do == "search":
        refused = search(place / "bugs", place / "run")
    else:
        refused = retrain(place / "run", "--data", place / "bugs")
    assert refused.status == 2
    assert "the data are not those that" in refused.err and "1 gone (ant/3.png)" in refused.err
    assert "Traceback" not in refused.err
    assert (place / "run" / "data.json").read_bytes() == before
    assert not (place / "run" / "retrain" / "1").exists()


def test_other_data_are_not_taken_for_those_of_a_run(place: Path) -> None:
    refused = retrain(place / "run", "--data", "digits")
    assert refused.status == 2
    assert "--data digits: not the data of the run, a folder with the images of" in refused.err


def test_no_run_is_put_among_the_images(place: Path) -> None:
    refused = search(place / "bugs", place / "bugs" / "run")
    assert refused.status == 2
    assert "lies in the folder of images" in refused.err
    assert not (place / "bugs" / "run").exists()


def test_images_in_two_splits_and_small_classes_are_said_before_training(place: Path) -> None:
    for split in ("train", "test"):
        shutil.copytree(place / "bugs", place / "both" / split)
    for number in range(3, 12):
        (place / "both" / "train" / "bee" / f"{number}.png").unlink()
    done = search(place / "both", place / "other")
    assert done.status == 0, done.err
    said = done.out[: done.out.index("supernet")]
    assert "leak: " in said and "images of test are in train, too" in said
    assert "expected time: " in said
    assert "classes of fewer than 10 training images: bee (" in said
