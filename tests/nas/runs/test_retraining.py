import csv
import io
import json
import math
import shutil
import signal
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import (
    ON_FEW_IMAGES,
    Fork,
    command,
    finish,
    scalars,
    start,
    wait_for,
    without_figures,
)

import nas
import nas.data.digits
import nas.runs.one_retraining
import nas.runs.retraining
import nas.training.tensorboard
from nas.data import Data, Samples, load_data, materialise
from nas.data.dataset import Part
from nas.runs.folder import RunFolder
from nas.runs.job import Execution
from nas.runs.one_retraining import Retrained
from nas.runs.retraining import retrain
from nas.training.accuracy import predict
from nas.training.alone import Point, Recipe, train_alone
from nas.training.schedule import learning_rate
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import SearchSpace
from supernet import Network, load_exported

pytestmark = pytest.mark.usefixtures("undrawn", "few_test_images")

SHORT = Recipe(
    start="scratch",
    steps=5,
    batch_size=8,
    lr=1e-3,
    drop_path=0.2,
    augment="light",
    image_size=32,
    seed=0,
    device="cpu",
)

WITH_TORCH_AND_TIMM_ALONE = """
import sys
for absent in ("optuna", "ray", "pandas", "plotly"):
    sys.modules[absent] = None  # importing it raises ImportError
from nas.cli import main
sys.exit(main())
"""


@pytest.fixture
def run(small_run: Path, tmp_path: Path) -> RunFolder:
    """A copy, that may be changed, of what retraining needs of a run."""
    copy = tmp_path / "run"
    shutil.copytree(small_run / "front", copy / "front")
    shutil.copy(small_run / "config.json", copy)
    return RunFolder(copy)


class Few(Samples):
    """The first images of a split; all of the test split would take most of a short training."""

    def __init__(self, samples: Samples, count: int) -> None:
        self.samples, self.count = samples, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.samples[index]


class Watched(Few):
    """A split that calls somebody for each image that is drawn, with how many were by then."""

    def __init__(self, samples: Samples, on_drawn: Callable[[int], None]) -> None:
        super().__init__(samples, len(samples))
        self.on_drawn, self.drawn = on_drawn, 0

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        self.drawn += 1
        self.on_drawn(self.drawn)
        return super().__getitem__(index)


@pytest.fixture(scope="module")
def data() -> Data:
    digits = load_data("digits", image_size=32, seed=2)
    return replace(digits, test=Few(digits.test, 100))


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What `nas.retrain` would train by, which is not trained."""
    given: dict[str, Any] = {}

    def note(folder: RunFolder, **arguments: Any) -> list[Retrained]:
        given.update(arguments)
        return []

    monkeypatch.setattr(nas.runs.retraining, "retrain", note)
    return given


def train(
    folder: RunFolder,
    data: Data,
    recipe: Recipe = SHORT,
    *,
    top: int = 1,
    name: str = "retrain",
    stop: StopRequest | None = None,
) -> list[Retrained]:
    return train_all(folder, data, {name: recipe}, top=top, stop=stop)


def train_all(
    folder: RunFolder,
    data: Data,
    recipes: Mapping[str, Recipe],
    *,
    top: int = 1,
    workers: int = 0,
    stop: StopRequest | None = None,
    console: Console | None = None,
    tensorboard: bool = False,
) -> list[Retrained]:
    return retrain(
        folder,
        data=data,
        top=top,
        recipes=recipes,
        execution=Execution(workers=workers),
        tensorboard=tensorboard,
        stop=stop or StopRequest(),
        console=console or Console(quiet=True),
    )


def changed(**fields: object) -> Recipe:
    return Recipe.model_validate(SHORT.model_dump() | fields)


def interrupt(folder: RunFolder, data: Data, *, after: int, name: str = "retrain") -> None:
    """Train up to that step, during which somebody asks to stop."""
    stop = StopRequest()

    def on_drawn(count: int) -> None:
        stop.requested = count == after * SHORT.batch_size

    with pytest.raises(Interrupted):
        train(folder, replace(data, train=Watched(data.train, on_drawn)), stop=stop, name=name)


def not_to_train_on(data: Data) -> Data:
    """Data whose train split must not be touched."""

    def fail(count: int) -> None:
        raise AssertionError("it is trained again")

    return replace(data, train=Watched(data.train, fail))


def weights(folder: RunFolder, name: str = "retrain") -> dict[str, torch.Tensor]:
    return load_file(folder.retrained(name) / "1" / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def trained(
    small_run: Path, tmp_path_factory: pytest.TempPathFactory, data: Data
) -> tuple[RunFolder, Retrained]:
    """A run whose best network was retrained without a stop, not to be changed; what came out."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    shutil.copytree(small_run / "front", folder / "front")
    shutil.copy(small_run / "config.json", folder)
    with without_figures():
        (result,) = train(RunFolder(folder), data)
    return RunFolder(folder), result


@pytest.fixture
def done(trained: tuple[RunFolder, Retrained], tmp_path: Path) -> tuple[RunFolder, Retrained]:
    """A copy of it, that may be changed."""
    folder, result = trained
    return RunFolder(shutil.copytree(folder.path, tmp_path / "done")), result


def test_the_most_accurate_of_the_front_are_trained_and_exported(
    run: RunFolder, data: Data
) -> None:
    count = len(list(run.front.iterdir()))
    results = train(run, data, top=2)
    assert [result.rank for result in results] == list(range(1, min(2, count) + 1))
    for result in results:
        folder = run.retrained("retrain") / str(result.rank)
        network, about = load_exported(folder)
        inherited, _ = load_exported(run.front / str(result.rank))
        assert network.architecture == inherited.architecture
        assert result.hash == network.architecture.hash
        assert about.image_size == 32
        assert not same(network.state_dict(), inherited.state_dict())
        assert 0 <= result.exported <= 1
        assert 0 <= result.retrained <= 1
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["result"] == vars(result)
        assert metrics["recipe"] == SHORT.model_dump(mode="json")
        assert "README.md" in {path.name for path in folder.iterdir()}
    left = {path.name for path in run.retrained("retrain").iterdir()}
    assert left == {str(r.rank) for r in results}


def test_a_front_of_fewer_architectures_is_trained_as_it_is(run: RunFolder, data: Data) -> None:
    for folder in list(run.front.iterdir()):
        if folder.name != "1":
            shutil.rmtree(folder)
    assert [result.rank for result in train(run, data, top=5)] == [1]


def test_a_resumed_retraining_equals_an_uninterrupted_one_and_leaves_the_whole_curve(
    run: RunFolder, trained: tuple[RunFolder, Retrained], data: Data
) -> None:
    other, uninterrupted = trained
    interrupt(run, data, after=3)
    assert not (run.retrained("retrain") / "1").exists()
    assert train(run, data) == [uninterrupted]
    assert same(weights(run), weights(other))
    assert {path.name for path in run.retrained("retrain").iterdir()} == {"1"}
    rows = table(run, "curve.csv")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert all(float(row["loss"]) > 0 for row in rows)
    assert [float(row["lr"]) for row in rows] == [learning_rate(s, SHORT) for s in range(5)]


def test_images_that_are_held_out_are_counted_where_memory_is_looked_at(
    run: RunFolder, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[int] = []

    def check(space: SearchSpace, *, images: int, **_: Any) -> None:
        counted.append(images)
        raise InputError("too little memory")

    monkeypatch.setattr(nas.runs.retraining, "check_training", check)
    for share in (0.0, 0.5):
        with pytest.raises(InputError, match="too little memory"):
            nas.retrain(run.path, validate=share, train_size=32, progress=False)
    assert counted[1] - counted[0] == round(0.5 * len(data.train))


def table(folder: RunFolder, name: str, of: str = "retrain") -> list[dict[str, str]]:
    with (folder.retrained(of) / "1" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_tables_tell_how_each_class_of_the_test_split_was_taken(
    trained: tuple[RunFolder, Retrained], data: Data
) -> None:
    run, result = trained
    network, _ = load_exported(run.retrained("retrain") / "1")
    images, labels = materialise(data.test, limit=None, seed=0)
    predicted, _ = predict(network, images, mean=data.mean, std=data.std)
    confusion = table(run, "confusion.csv")
    assert [row["true class"] for row in confusion] == list(data.class_names)
    for true, row in enumerate(confusion):
        for taken, name in enumerate(data.class_names):
            assert int(row[name]) == int(((labels == true) & (predicted == taken)).sum())
    classes = table(run, "classes.csv")
    right = sum(int(row["images"]) * float(row["accuracy"]) for row in classes)
    assert right / 100 == pytest.approx(result.retrained)
    for row, counts in zip(classes, confusion, strict=True):
        name = row["class"]
        assert float(row["accuracy"]) == int(counts[name]) / int(row["images"])


def test_the_card_tells_of_the_least_accurate_classes(
    trained: tuple[RunFolder, Retrained],
) -> None:
    run, _ = trained
    card = (run.retrained("retrain") / "1" / "README.md").read_text()
    _, part = card.split("## Least accurate classes")
    rows = [line.split("|")[1:4] for line in part.splitlines() if line.startswith("| ")][2:7]
    worst = sorted(table(run, "classes.csv"), key=lambda row: float(row["accuracy"]))[:5]
    assert [[cell.strip() for cell in row] for row in rows] == [
        [row["class"], f"{100 * float(row['accuracy']):.1f} %", row["images"]] for row in worst
    ]


def rates(*lrs: float, **fields: object) -> dict[str, Recipe]:
    return {f"lr{lr}": changed(lr=lr, **fields) for lr in lrs}


def diverging_at(lr: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let trainings at that rate fail."""

    def training(network: Network, *, recipe: Recipe, **arguments: Any) -> list[Point]:
        if recipe.lr == lr:
            raise Diverged(f"`lr` {lr:g}: the loss is nan at step 1; try a lower rate")
        return train_alone(network, recipe=recipe, **arguments)

    monkeypatch.setattr(nas.runs.one_retraining, "train_alone", training)


def test_each_of_several_rates_gives_what_it_gives_alone(run: RunFolder, data: Data) -> None:
    (alone,) = train(run, data, changed(lr=5e-4), name="alone")
    faster, slower = train_all(run, data, rates(1e-3, 5e-4))
    assert slower == alone
    assert same(weights(run, "lr0.0005"), weights(run, "alone"))
    assert not same(weights(run, "lr0.001"), weights(run, "alone"))
    assert faster.rank == slower.rank == 1


def test_one_that_fails_is_named_and_the_others_are_trained(
    run: RunFolder, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverging_at(0.5, monkeypatch)
    out = io.StringIO()
    told = r"^1 of 2 were not retrained: front/1 from scratch, lr 0\.5: `lr` 0\.5: the loss is nan"
    with pytest.raises(InputError, match=told):
        train_all(run, data, rates(0.5, 1e-3), console=Console(file=out, width=120))
    assert not (run.retrained("lr0.5") / "1").exists()
    assert (run.retrained("lr0.001") / "1" / "metrics.json").exists()
    lines = out.getvalue().splitlines()
    assert any("front/1 from scratch, lr 0.5 failed: `lr` 0.5" in line for line in lines)
    cells = [line.split() for line in lines]
    assert ["1", "0.5", "failed"] in cells  # the row of the table
    assert any(row[:2] == ["1", "0.001"] and "±" in row for row in cells)


def test_what_belongs_to_another_recipe_is_refused_before_anything_is_trained(
    run: RunFolder, data: Data
) -> None:
    train(run, data, name="lr0.0005")
    with pytest.raises(InputError, match=r"lr0\.0005/1: was retrained otherwise \(lr is 0\.001"):
        train_all(run, not_to_train_on(data), rates(1e-3, 5e-4))


@pytest.mark.slow
@pytest.mark.exhaustive
def test_several_at_a_time_by_ray_give_what_they_give_one_after_the_other(
    run: RunFolder, tmp_path: Path, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # what Ray reads once holds for later clusters
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    few = replace(data, test=Part(load_data("digits", image_size=32, seed=2).test, range(100)))
    other = RunFolder(shutil.copytree(run.path, tmp_path / "one-after-the-other"))
    known = train_all(other, few, rates(1e-3, 5e-4))
    cannot_be_mixed = changed(lr=0.999, batch_size=7, augment="full")
    recipes = {**rates(1e-3, 5e-4), "odd": cannot_be_mixed}
    interrupt(run, data, after=3, name="lr0.001")
    out = io.StringIO()
    with pytest.raises(
        InputError, match=r"^1 of 3 were not retrained: .*lr 0\.999: `batch_size` 7"
    ):
        train_all(run, few, recipes, workers=2, console=Console(file=out, width=200))
    for name in ("lr0.001", "lr0.0005"):
        assert same(weights(run, name), weights(other, name)), name
        assert not list(run.retrained(name).glob(".*"))  # no state is left
    rows = table(run, "curve.csv", "lr0.001")
    assert [row["step"] for row in rows] == ["1", "2", "3", "4", "5"]
    assert "front/1 from scratch, lr 0.999 failed" in out.getvalue()
    assert "3 networks, 2 at a time 15/15" in out.getvalue()
    again = train_all(run, not_to_train_on(few), rates(1e-3, 5e-4), workers=2)
    assert again == known


@pytest.mark.slow
def test_two_commands_retrain_a_run_at_the_same_time_under_two_names(run: RunFolder) -> None:
    few = ("retrain", run.path, "--batch-size", "8", "--train-size", "32")
    long = Fork("-c", ON_FEW_IMAGES, *few, "--steps", "100000", "--name", "long")
    try:
        wait_for("front/1 from scratch 1/", long.stdout)
        short = command(*few, "--steps", "1", "--name", "short")
        again = command(*few, "--steps", "100000", "--name", "long")
    finally:
        long.send_signal(signal.SIGTERM)
        stopped = long.finish()
    assert short.status == 0, short.err
    assert again.status == 2
    (line,) = again.err.splitlines()
    assert line.startswith("error: --name 'long': another process is retraining under this name")
    assert stopped.status == 128 + signal.SIGTERM, stopped.err
    assert (run.retrained("long") / ".1.state.safetensors").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"workers": -1}, "`workers` -1 is not between 0"),
        ({"ray_address": "auto"}, "`ray_address` with `workers` 0: nothing would use Ray"),
        ({"workers": 2, "ray_wait": "soon"}, "`ray_wait` 'soon'"),
        ({"workers": 2, "ray_address": "nowhere"}, "`ray_address` 'nowhere' is neither"),
        ({"lr": []}, "`lr` names no learning rate"),
        ({"lr": [1e-3, 2.0]}, "`lr` Input should be"),
        ({"lr": "fast"}, "`lr` Input should be"),
    ],
)
def test_what_cannot_be_spread_is_refused_by_name(
    run: RunFolder, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=told):
        nas.retrain(run.path, **wrong, train_size=32, progress=False)


@pytest.mark.slow
def test_rates_of_the_command_line_lie_in_folders_named_by_them(run: RunFolder) -> None:
    few = ("retrain", run.path, "--steps", "1", "--batch-size", "8", "--name", "few")
    outcome = command(*few, "--lr", "1e-3,5e-4")
    assert outcome.status == 0, outcome.err
    for name, lr in (("few-lr0.001", 0.001), ("few-lr0.0005", 0.0005)):
        metrics = json.loads((run.retrained(name) / "1" / "metrics.json").read_text())
        assert metrics["recipe"]["lr"] == lr
        assert f" {lr:g} " in outcome.out  # in the table
    refused = command(*few, "--lr", "1e-3,fast")
    assert refused.status == 2
    assert "'fast' is no number" in refused.err


def test_what_is_held_out_of_the_train_split_is_not_trained_on(
    run: RunFolder, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: dict[str, Any] = {}

    def watched(network: Network, **arguments: Any) -> list[Point]:
        given.update(arguments)
        return train_alone(network, **arguments)

    monkeypatch.setattr(nas.runs.one_retraining, "train_alone", watched)
    train(run, data, changed(held_out=0.25))
    images, labels = given["validation"]
    assert len(given["data"].train) + len(labels) == len(data.train)
    assert len(labels) == pytest.approx(0.25 * len(data.train), rel=0.02)
    assert images.shape == (len(labels), 3, 32, 32)
    rows = table(run, "curve.csv")
    assert all(0 <= float(row["accuracy"]) <= 1 for row in rows)
    train(run, data, changed(held_out=0.25), name="again")  # the data of the run are the same
    with pytest.raises(InputError, match=r"validate is 0\.25 there, 0\.0 here"):
        train(run, data)


def test_what_another_recipe_has_begun_or_done_is_not_replaced(
    run: RunFolder, done: tuple[RunFolder, Retrained], data: Data
) -> None:
    other = changed(seed=1)
    refused = r"retrain/1: was retrained otherwise \(seed is 0 there, 1 here\); give another `name`"
    interrupt(run, data, after=2)
    with pytest.raises(InputError, match=refused):
        train(run, data, other)
    finished, result = done
    assert train(run, data) == [result]
    with pytest.raises(InputError, match=refused):
        train(finished, data, other)
    assert train(finished, data, other, name="other") != [result]
    assert train(finished, data) == [result]


def test_a_recipe_of_before_some_of_its_numbers_stood_in_it_had_their_defaults(
    done: tuple[RunFolder, Retrained], data: Data
) -> None:
    run, result = done
    file = run.retrained("retrain") / "1" / "metrics.json"
    metrics = json.loads(file.read_text())
    del metrics["recipe"]["label_smoothing"]
    file.write_text(json.dumps(metrics))
    assert train(run, not_to_train_on(data)) == [result]
    with pytest.raises(InputError, match=r"label_smoothing is 0\.1 there, 0\.2 here"):
        train(run, data, changed(label_smoothing=0.2))


@pytest.mark.parametrize("text", ["{", "[]", '{"hash": "1"}', '{"recipe": {}, "result": {}}'])
def test_damaged_metrics_are_refused_by_name(run: RunFolder, data: Data, text: str) -> None:
    file = run.retrained("retrain") / "1" / "metrics.json"
    file.parent.mkdir(parents=True)
    file.write_text(text)
    with pytest.raises(InputError, match=r"metrics\.json: .*delete it"):
        train(run, data)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "best", "front", "supernet"])
def test_a_retraining_has_a_folder_of_its_own(run: RunFolder, data: Data, name: str) -> None:
    with pytest.raises(InputError, match="`name`"):
        train(run, data, name=name)


def test_from_the_supernet_begins_with_the_inherited_weights(run: RunFolder, data: Data) -> None:
    still = changed(start="supernet", steps=1, lr=1e-12)
    train(run, data, still)
    for name, tensor in load_file(run.front / "1" / "weights.safetensors").items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(weights(run)[name], tensor, atol=1e-6), name
    train(run, data, changed(steps=1, lr=1e-12), name="scratch")
    assert not same(weights(run, "scratch"), weights(run))


def test_other_weights_to_begin_with_are_another_retraining(run: RunFolder, data: Data) -> None:
    still = changed(start="supernet", steps=1)
    train(run, data, still)
    train(run, data, still)  # done already
    file = run.front / "1" / "weights.safetensors"
    with safe_open(file, framework="pt") as before:
        about = before.metadata()
    moved = {n: 1.5 * t if t.is_floating_point() else t for n, t in load_file(file).items()}
    save_file(moved, file, metadata=about)
    with pytest.raises(InputError, match="was retrained otherwise \\(weights is "):
        train(run, data, still)
    train(run, data, changed(steps=1), name="scratch")


def test_an_earlier_retraining_is_gone_on_with_at_another_size(run: RunFolder, data: Data) -> None:
    train(run, data, name="first")
    large = load_data("digits", image_size=64, seed=2)
    large = replace(large, test=Few(large.test, 100))
    still = changed(start="first", image_size=64, steps=1, lr=1e-12)
    (result,) = train(run, large, still, name="large")
    first = weights(run, "first")
    for name, tensor in weights(run, "large").items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tensor, first[name], atol=1e-6), name
    network, _ = load_exported(run.retrained("first") / "1")
    images, labels = materialise(large.test, limit=None, seed=0)
    predicted, _ = predict(network, images, mean=large.mean, std=large.std)
    assert result.exported == int((predicted == labels).sum()) / 100
    _, about = load_exported(run.retrained("large") / "1")
    assert about.image_size == 64
    card = (run.retrained("large") / "1" / "README.md").read_text()
    assert "accuracy with the weights of first, from which it went on" in card


def test_going_on_is_short_and_slow_unless_it_is_asked_otherwise(
    run: RunFolder, data: Data, asked: dict[str, Any]
) -> None:
    train(run, data, name="first")
    few = {"start": "first", "name": "large", "train_size": 64, "progress": False}
    nas.retrain(run.path, batch_size=128, **few)
    recipe = asked["recipes"]["large"]
    assert (recipe.start, recipe.image_size) == ("first", 64)
    assert recipe.steps == 30 * 6400 // 128
    assert (recipe.lr, recipe.weight_decay) == (5e-6 * 128 / 512, 1e-8)
    nas.retrain(run.path, recipe="default", lr=1e-4, epochs=1, **few)
    recipe = asked["recipes"]["large"]
    assert (recipe.steps, recipe.lr, recipe.weight_decay) == (100, 1e-4, 0.05)


def test_weights_that_are_not_there_are_refused_with_those_that_are(
    run: RunFolder, data: Data
) -> None:
    told = "`start` 'second': neither scratch, supernet nor the name of an earlier .*"
    with pytest.raises(InputError, match=told + r"\(there is none\)"):
        nas.retrain(run.path, start="second", progress=False)
    train(run, data, name="first")
    with pytest.raises(InputError, match=told + r"\(first\)"):
        nas.retrain(run.path, start="second", progress=False)
    with pytest.raises(InputError, match=r"first/1: was retrained otherwise \(start is"):
        train(run, data, changed(start="first"), name="first")
    (run.retrained("first") / "1" / "weights.safetensors").unlink()
    with pytest.raises(InputError, match=r"first/1/weights\.safetensors.*; retrain it again"):
        train(run, data, changed(start="first"), name="large")


@pytest.mark.parametrize("size", [0, 10**5])
def test_a_size_that_no_network_takes_is_refused_by_name(run: RunFolder, size: int) -> None:
    with pytest.raises(InputError, match="`train_size` Input should be"):
        nas.retrain(run.path, train_size=size, progress=False)


class StopAfter(StopRequest):
    """A stop that is requested after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def check(self) -> None:
        self.left -= 1
        self.requested = self.left == 0
        super().check()


def test_tensorboard_sees_the_curve_and_of_a_resumed_training_each_step_once(
    run: RunFolder, data: Data
) -> None:
    recipes = {"seen": changed(held_out=0.25)}
    with pytest.raises(Interrupted):
        train_all(run, data, recipes, tensorboard=True, stop=StopAfter(3))
    train_all(run, data, recipes, tensorboard=True)
    read = scalars(run.retrained("seen") / "tensorboard" / "1")
    rows = table(run, "curve.csv", "seen")
    columns = {"train/loss": "loss", "train/lr": "lr", "validation/accuracy": "accuracy"}
    assert read.keys() == columns.keys()
    for tag, column in columns.items():
        assert [step for step, _ in read[tag]] == [1, 2, 3, 4, 5]
        assert [value for _, value in read[tag]] == pytest.approx(
            [float(row[column]) for row in rows]
        )


def test_tensorboard_that_is_not_installed_is_told_in_one_line(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.training.tensorboard, "find_spec", lambda name: None)
    outcome = command("retrain", run.path, "--tensorboard")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    told = "--tensorboard is not installed here; pip install 'subnet-search[tensorboard]'"
    assert line == f"error: {told}"
    assert not run.retrained("retrain").exists()


def test_what_is_done_with_the_same_recipe_is_not_done_again(
    done: tuple[RunFolder, Retrained], data: Data
) -> None:
    run, first = done
    target = run.retrained("retrain")
    files = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    assert train(run, not_to_train_on(data)) == [first]
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == files
    with pytest.raises(AssertionError, match="trained again"):
        train(run, not_to_train_on(data), changed(lr=2e-3), name="faster")


def test_data_of_other_classes_is_refused(run: RunFolder, data: Data) -> None:
    with pytest.raises(InputError, match="other classes"):
        train(run, replace(data, class_names=tuple("abcdefghij")))


def test_the_published_recipe_is_that_of_table_9(run: RunFolder, asked: dict[str, Any]) -> None:
    nas.retrain(run.path, recipe="deit", batch_size=128, train_size=32, progress=False)
    recipe = asked["recipes"]["retrain"]
    epoch = 6400 // 128
    assert recipe.steps == 300 * epoch
    assert recipe.lr == 5e-4 * 128 / 512
    assert learning_rate(5 * epoch - 1, recipe) == recipe.lr > learning_rate(5 * epoch - 2, recipe)
    assert (recipe.weight_decay, recipe.drop_path, recipe.label_smoothing) == (0.05, 0.1, 0.1)
    assert (recipe.augment, recipe.mixup, recipe.cutmix) == ("full", 0.8, 1.0)
    assert (recipe.erasing, recipe.repeats) == (0.25, 3)
    assert (recipe.clip_norm, recipe.ema) == (0.0, 0.0)


def test_what_is_given_beside_a_recipe_wins(run: RunFolder, asked: dict[str, Any]) -> None:
    own = {"epochs": 2, "lr": 1e-3, "drop_path": 0.2, "augment": "light", "ema": 0.9}
    nas.retrain(run.path, recipe="deit", **own, train_size=32, progress=False)
    recipe = asked["recipes"]["retrain"]
    assert recipe.steps == 2 * 100
    assert recipe.warmup_share == 0.5  # at most half of the steps
    for field in own.keys() - {"epochs"}:
        assert getattr(recipe, field) == own[field], field
    nas.retrain(run.path, recipe="deit", steps=7, train_size=32, progress=False)
    assert asked["recipes"]["retrain"].steps == 7


def test_the_default_recipe_is_what_it_always_was(run: RunFolder, asked: dict[str, Any]) -> None:
    nas.retrain(run.path, train_size=32, progress=False)
    # The small run has four steps of eight images, and twice as many are seen.
    assert asked["recipes"] == {"retrain": changed(steps=1, batch_size=64, drop_path=0.05)}


def test_an_unknown_recipe_is_refused_with_those_there_are(run: RunFolder) -> None:
    with pytest.raises(InputError, match="`recipe` 'swin' is none of default, deit"):
        nas.retrain(run.path, recipe="swin", train_size=32, progress=False)


@pytest.mark.slow
def test_flags_of_the_recipe_are_kept_and_resuming_without_them_is_refused(run: RunFolder) -> None:
    few = ("retrain", run.path, "--steps", "1", "--batch-size", "8")
    given = ("--ema", "0.9", "--layer-decay", "0.75", "--validate", "0.1")
    others = ("--class-weights", "balanced", "--accumulate", "2")
    assert command(*few, *given, *others).status == 0
    metrics = json.loads((run.retrained("retrain") / "1" / "metrics.json").read_text())
    assert metrics["recipe"]["ema"] == 0.9
    assert metrics["recipe"]["layer_decay"] == 0.75
    assert metrics["recipe"]["held_out"] == 0.1
    assert metrics["recipe"]["class_weights"] == "balanced"
    assert metrics["recipe"]["accumulate"] == 2
    refused = command(*few)
    assert refused.status == 2
    assert "ema is 0.9 there, 0.0 here" in refused.err
    deit = (*few[:2], "--recipe", "deit", *few[2:], "--name", "deit")
    assert command(*deit).status == 0
    metrics = json.loads((run.retrained("deit") / "1" / "metrics.json").read_text())
    assert metrics["recipe"]["repeats"] == 3
    refused = command(*few, "--name", "deit")
    assert refused.status == 2
    assert "lr is 7.8125e-06 there, 0.001 here" in refused.err


@pytest.mark.slow
def test_epochs_are_passes_over_the_train_split(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.data.digits, "EPOCH_SIZE", 16)
    flags = ("--epochs", "1", "--batch-size", "8", "--train-size", "32")
    assert command("retrain", run.path, *flags).status == 0
    metrics = json.loads((run.retrained("retrain") / "1" / "metrics.json").read_text())
    assert metrics["recipe"]["steps"] == 2


def test_nothing_but_json_safetensors_tables_and_the_card_is_left(
    trained: tuple[RunFolder, Retrained],
) -> None:
    run, _ = trained
    names = {path.name for path in (run.retrained("retrain") / "1").iterdir()}
    assert names == {
        *("README.md", "architecture.json", "architecture.svg", "weights.safetensors"),
        *("metrics.json", "curve.csv", "classes.csv", "confusion.csv", "mistakes.json"),
    }
    with safe_open(run.retrained("retrain") / "1" / "weights.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["class_names"]) == list("0123456789")


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(
    run: RunFolder, data: Data
) -> None:
    with pytest.raises(InputError, match="`device` 'tpu'"):
        train(run, data, changed(device="tpu"))


def test_a_run_that_has_exported_nothing_is_refused(run: RunFolder, data: Data) -> None:
    shutil.rmtree(run.front)
    with pytest.raises(InputError, match="nothing exported yet"):
        train(run, data)


def no_weights(exported: Path) -> None:
    (exported / "weights.safetensors").unlink()


def half_the_weights(exported: Path) -> None:
    file = exported / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def no_json(exported: Path) -> None:
    (exported / "architecture.json").write_text("{")


def another_architecture(exported: Path) -> None:
    file = exported / "architecture.json"
    architecture = json.loads(file.read_text())
    architecture["stages"][0]["depth"] += 1
    file.write_text(json.dumps(architecture))


def an_illegal_architecture(exported: Path) -> None:
    file = exported / "architecture.json"
    architecture = json.loads(file.read_text())
    architecture["stages"][0]["depth"] = "deep"
    file.write_text(json.dumps(architecture))


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [no_weights, half_the_weights, no_json, another_architecture, an_illegal_architecture]
)
def test_a_damaged_export_is_refused_in_one_line(
    run: RunFolder, damage: Callable[[Path], None]
) -> None:
    damage(run.front / "1")
    outcome = command("retrain", run.path, "--steps", "2")
    assert outcome.status == 2
    (line,) = outcome.err.splitlines()
    assert str(run.front / "1") in line
    assert not run.retrained("retrain").exists()


def test_an_export_whose_class_scores_are_no_numbers_is_refused_before_it_is_trained(
    run: RunFolder, data: Data
) -> None:
    path = run.front / "1" / "weights.safetensors"
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
    tensors = load_file(path)
    tensors["head.bias"][0] = math.nan
    save_file(tensors, path, metadata=about)
    with pytest.raises(InputError, match=r"front/1: class scores .* not a number") as raised:
        train(run, not_to_train_on(data))
    assert "\n" not in str(raised.value)


def test_a_retrained_network_whose_class_scores_are_no_numbers_gets_no_accuracy(
    run: RunFolder, data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflow(network: Network, **rest: object) -> None:
        network.head.bias.data.fill_(math.inf)

    monkeypatch.setattr(nas.runs.one_retraining, "train_alone", overflow)
    with pytest.raises(InputError, match=r"`lr` 0.001, try a lower rate: class scores"):
        train(run, data)
    assert not (run.retrained("retrain") / "1").exists()


def test_a_state_that_cannot_be_read_is_refused_by_name(run: RunFolder, data: Data) -> None:
    interrupt(run, data, after=2)
    (state,) = run.retrained("retrain").iterdir()
    state.write_bytes(state.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"cannot be resumed from .*delete it") as raised:
        train(run, data)
    assert str(state) in str(raised.value)


@pytest.mark.slow
def test_results_are_shown_beside_the_inherited_accuracy(run: RunFolder) -> None:
    outcome = command("retrain", run.path, "--steps", "2", "--top", "1")
    assert outcome.status == 0
    for part in ("exported", "retrained", "test split of digits", "±"):
        assert part in " ".join(outcome.out.split())


@pytest.mark.slow
@pytest.mark.exhaustive
def test_retraining_needs_torch_and_timm_alone(run: RunFolder) -> None:
    done = finish(start("-c", WITH_TORCH_AND_TIMM_ALONE, "retrain", run.path, "--steps", "2"))
    assert done.status == 0, done.err[-500:]
    assert (run.retrained("retrain") / "1" / "weights.safetensors").exists()
