"""The pages of a run after a retraining."""

import base64
import csv
import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fuzzing import hurried
from PIL import Image
from small_runs import command

import nas
from nas.data import load_data
from nas.runs.drawing import kept_trainings
from nas.runs.folder import RunFolder
from nas.runs.one_retraining import _png
from nas.runs.same_data import data_again


@pytest.fixture(scope="module")
def retrained(small_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which one network was retrained; not to be changed."""
    run = Path(shutil.copytree(small_run, tmp_path_factory.mktemp("drawn") / "run"))
    outcome = command("retrain", run, "--top", "1", "--steps", "2", "--validate", "0.1")
    assert outcome.status == 0, outcome.err
    assert f"report: {run / 'report.html'}" in outcome.out.replace("\n", "")
    return run


@pytest.fixture
def copy(retrained: Path, tmp_path: Path) -> Path:
    """One that may be changed."""
    return Path(shutil.copytree(retrained, tmp_path / "run"))


def test_a_retraining_lets_the_page_of_the_run_tell_of_it(retrained: Path) -> None:
    page = (retrained / "report.html").read_text()
    assert "<h2>Trained alone</h2>" in page
    assert "href='retrain/1/report.html'" in page
    (row,) = pd.read_csv(retrained / "retrained.csv").to_dict("records")
    metrics = json.loads((retrained / "retrain" / "1" / "metrics.json").read_text())["result"]
    assert (row["folder"], row["steps"]) == ("retrain/1", 2)
    assert row["retrained"] == metrics["retrained"]
    assert row["hash"] == nas.open_run(retrained).best["hash"]


def test_the_plot_joins_a_retrained_network_to_what_it_inherited(retrained: Path) -> None:
    run = nas.open_run(retrained)
    figure = run.figure()
    (point,) = (trace for trace in figure.data if trace.name == "retrained, test split")
    (row,) = pd.read_csv(retrained / "retrained.csv").to_dict("records")
    assert list(point.y) == pytest.approx([100 * row["retrained"]])
    (line,) = (trace for trace in figure.data if trace.line.color == point.marker.color)
    assert line.y[:2] == pytest.approx((100 * row["inherited"], 100 * row["retrained"]))
    assert line.x[0] == line.x[1] == point.x[0]
    assert point.hovertext[0].startswith("<b>retrain/1</b>")


def test_the_surest_mistakes_are_pictures_of_the_test_split_in_the_page(retrained: Path) -> None:
    folder = retrained / "retrain" / "1"
    mistakes = json.loads((folder / "mistakes.json").read_text())
    sure = [mistake["probability"] for mistake in mistakes]
    assert len(mistakes) == 10
    assert sure == sorted(sure, reverse=True)
    config = RunFolder(retrained).config
    data = load_data(data_again(config, None), image_size=32, seed=config.seed, augment="light")
    page = (folder / "report.html").read_text()
    for mistake in mistakes:
        image, label = data.test[mistake["image"]]
        assert data.class_names[label] == mistake["truth"] != mistake["predicted"]
        assert f"data:image/png;base64,{mistake['png']}" in page
        picture = Image.open(BytesIO(base64.b64decode(mistake["png"])))
        assert torch.tensor(np.asarray(picture)).equal(image.permute(1, 2, 0))


def test_pictures_of_large_images_are_small() -> None:
    written = base64.b64decode(_png(torch.zeros(3, 300, 600, dtype=torch.uint8)))
    assert Image.open(BytesIO(written)).size == (224, 112)


def test_the_page_of_a_retrained_network_has_every_class_with_its_images(retrained: Path) -> None:
    folder = retrained / "retrain" / "1"
    page = (folder / "report.html").read_text()
    with (folder / "classes.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            name, images = row["class"], int(row["images"])
            assert f"<span>{name}</span></td><td><span>{images:,}</span>" in page
    assert "<h2>Confusion</h2>" in page


def test_the_curves_of_a_run_are_kept(retrained: Path) -> None:
    known = kept_trainings(RunFolder(retrained))
    supernet = [point for point in known.supernet if point.part == "supernet"]
    assert [point.step for point in supernet] == [1, 2, 3, 4]
    assert None not in supernet[-1].accuracies
    (network,) = known.retrained
    assert [point.step for point in network.curve] == [1, 2]
    assert network.curve[-1].accuracy is not None
    assert sum(map(sum, network.confusion)) == network.test_images


def test_a_retraining_of_before_there_were_pictures_is_shown_without(copy: Path) -> None:
    folder = copy / "retrain" / "1"
    for name in ("mistakes.json", "report.html", "curve.csv", "confusion.csv"):
        (folder / name).unlink()
    assert command("plot", copy).status == 0
    assert "<h2>" not in (folder / "report.html").read_text()


@pytest.mark.parametrize("name", ["mistakes.json", "curve.csv", "confusion.csv", "metrics.json"])
def test_a_damaged_file_of_a_retraining_is_named(copy: Path, name: str) -> None:
    (copy / "retrain" / "1" / name).write_text("[1, 2]\nx\n")
    with hurried(drawing=False):
        outcome = command("plot", copy)
    (line,) = outcome.err.splitlines()
    assert (outcome.status, line.startswith("error: ")) == (2, True)
    assert f"retrain/1/{name}" in line


def cut_script(text: str) -> str:
    return text.replace('"png": "', '"png": "\'><script>', 1)


def negative(text: str) -> str:
    return text.replace('"probability": 0', '"probability": 7', 1)


@pytest.mark.parametrize("change", [cut_script, negative])
def test_pictures_that_are_none_are_refused(copy: Path, change: Callable[[str], str]) -> None:
    path = copy / "retrain" / "1" / "mistakes.json"
    path.write_text(change(path.read_text()))
    outcome = command("plot", copy)
    assert outcome.status == 2
    assert "mistakes.json" in outcome.err


def test_a_report_that_cannot_be_drawn_costs_no_retraining(copy: Path) -> None:
    (copy / "summary.json").write_text("{")
    outcome = command("retrain", copy, "--top", "1", "--steps", "2", "--validate", "0.1")
    assert outcome.status == 0, outcome.err
    assert "the report was not redrawn" in outcome.out
