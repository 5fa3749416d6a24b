import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_runs import command, finish, start

import nas.runs.retraining
from nas.data import Data, load_data
from nas.runs.folder import RunFolder
from nas.runs.retraining import Recipe, Retrained, retrain
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from supernet import load_exported

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

FULL = replace(SHORT, augment="full")

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


@pytest.fixture(autouse=True)
def _few_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two thousand test images take most of the time of a short training."""
    materialise = nas.runs.retraining.materialise
    monkeypatch.setattr(
        nas.runs.retraining,
        "materialise",
        lambda samples, limit, seed, workers: materialise(samples, limit=100, seed=seed),
    )


def train(
    folder: RunFolder,
    recipe: Recipe = SHORT,
    *,
    top: int = 1,
    name: str = "retrain",
    epochs: int | None = None,
    stop: StopRequest | None = None,
) -> list[Retrained]:
    return retrain(
        folder,
        top=top,
        recipe=recipe,
        name=name,
        epochs=epochs,
        loader_workers=0,
        stop=stop or StopRequest(),
        console=Console(quiet=True),
    )


def interrupt_after(steps: int, monkeypatch: pytest.MonkeyPatch) -> StopRequest:
    """A stop that is requested during that step."""
    stop = StopRequest()
    learning_rate = nas.runs.retraining.learning_rate

    def request(step: int, *, steps: int, peak: float) -> float:
        stop.requested = step + 1 == after
        return learning_rate(step, steps=steps, peak=peak)

    after = steps
    monkeypatch.setattr(nas.runs.retraining, "learning_rate", request)
    return stop


def refuse_to_train(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **kwargs: object) -> float:
        raise AssertionError("it is trained again")

    monkeypatch.setattr(nas.runs.retraining, "learning_rate", fail)


def weights(folder: RunFolder, name: str = "retrain") -> dict[str, torch.Tensor]:
    return load_file(folder.retrained(name) / "1" / "weights.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_most_accurate_of_the_front_are_trained_and_exported(run: RunFolder) -> None:
    count = len(list(run.front.iterdir()))
    results = train(run, top=2)
    assert [result.rank for result in results] == list(range(1, min(2, count) + 1))
    for result in results:
        folder = run.retrained("retrain") / str(result.rank)
        network, about = load_exported(folder)
        inherited, _ = load_exported(run.front / str(result.rank))
        assert network.architecture == inherited.architecture
        assert result.hash == network.architecture.hash
        assert about.image_size == 32
        assert not same(network.state_dict(), inherited.state_dict())
        assert 0 <= result.inherited <= 1
        assert 0 <= result.retrained <= 1
        metrics = json.loads((folder / "metrics.json").read_text())
        assert metrics["result"] == vars(result)
        assert metrics["recipe"]["steps"] == SHORT.steps
        assert "README.md" in {path.name for path in folder.iterdir()}
    left = {path.name for path in run.retrained("retrain").iterdir()}
    assert left == {str(r.rank) for r in results}


def test_a_front_of_fewer_architectures_is_trained_as_it_is(run: RunFolder) -> None:
    for folder in list(run.front.iterdir()):
        if folder.name != "1":
            shutil.rmtree(folder)
    assert [result.rank for result in train(run, top=5)] == [1]


@pytest.mark.parametrize("recipe", [SHORT, FULL], ids=["light", "full"])
@pytest.mark.parametrize("after", [1, 3, SHORT.steps])
def test_a_resumed_retraining_equals_an_uninterrupted_one(
    run: RunFolder, tmp_path: Path, recipe: Recipe, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = RunFolder(shutil.copytree(run.path, tmp_path / "uninterrupted"))
    uninterrupted = train(other, recipe)
    with monkeypatch.context() as patch:
        stop = interrupt_after(after, patch)
        with pytest.raises(Interrupted):
            train(run, recipe, stop=stop)
    assert not (run.retrained("retrain") / "1").exists()
    torch.rand(3)  # the process draws something else meanwhile
    assert train(run, recipe) == uninterrupted
    assert same(weights(run), weights(other))
    assert {path.name for path in run.retrained("retrain").iterdir()} == {"1"}


def test_what_another_recipe_has_begun_or_done_is_not_replaced(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = replace(SHORT, seed=1)
    refused = r"retrain/1: was retrained otherwise \(seed is 0 there, 1 here\); give another `name`"
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train(run, SHORT, stop=interrupt_after(2, patch))
    with pytest.raises(InputError, match=refused):
        train(run, other)
    done = train(run, SHORT)
    with pytest.raises(InputError, match=refused):
        train(run, other)
    assert train(run, other, name="other") != done
    assert train(run, SHORT) == done


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp", "best", "front", "supernet"])
def test_a_retraining_has_a_folder_of_its_own(run: RunFolder, name: str) -> None:
    with pytest.raises(InputError, match="`name`"):
        train(run, name=name)


def test_from_the_supernet_begins_with_the_inherited_weights(run: RunFolder) -> None:
    still = replace(SHORT, start="supernet", steps=1, lr=1e-12)
    train(run, still)
    for name, tensor in load_file(run.front / "1" / "weights.safetensors").items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(weights(run)[name], tensor, atol=1e-6), name
    train(run, replace(still, start="scratch"), name="scratch")
    assert not same(weights(run, "scratch"), weights(run))


def test_what_is_done_with_the_same_recipe_is_not_done_again(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = train(run)
    target = run.retrained("retrain")
    files = {path: path.stat().st_mtime_ns for path in target.rglob("*")}
    with monkeypatch.context() as patch:
        refuse_to_train(patch)
        assert train(run) == first
    assert {path: path.stat().st_mtime_ns for path in target.rglob("*")} == files
    with monkeypatch.context() as patch, pytest.raises(AssertionError, match="trained again"):
        refuse_to_train(patch)
        train(run, replace(SHORT, lr=2e-3), name="faster")


def test_epochs_are_passes_over_the_train_split(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_epochs(*args: Any, **kwargs: Any) -> Data:
        return replace(load_data(*args, **kwargs), epoch_size=24)

    monkeypatch.setattr(nas.runs.retraining, "load_data", small_epochs)
    train(run, epochs=2)
    metrics = json.loads((run.retrained("retrain") / "1" / "metrics.json").read_text())
    assert metrics["recipe"]["steps"] == 2 * 24 / SHORT.batch_size


def test_nothing_but_json_safetensors_and_the_card_is_left(run: RunFolder) -> None:
    train(run)
    names = {path.name for path in (run.retrained("retrain") / "1").iterdir()}
    assert names == {"README.md", "architecture.json", "weights.safetensors", "metrics.json"}
    with safe_open(run.retrained("retrain") / "1" / "weights.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["class_names"]) == list("0123456789")


def test_an_odd_batch_cannot_be_mixed(run: RunFolder) -> None:
    with pytest.raises(InputError, match=r"`batch_size` 7.*even"):
        train(run, replace(FULL, batch_size=7))
    assert not run.retrained("retrain").exists()


def test_a_device_that_is_not_there_is_refused_before_anything_is_read(run: RunFolder) -> None:
    with pytest.raises(InputError, match="`device` 'tpu'"):
        train(run, replace(SHORT, device="tpu"))


def test_a_run_that_has_exported_nothing_is_refused(run: RunFolder) -> None:
    shutil.rmtree(run.front)
    with pytest.raises(InputError, match="nothing exported yet"):
        train(run)


def test_a_loss_that_is_no_number_is_told_with_the_rate(run: RunFolder) -> None:
    file = run.front / "1" / "weights.safetensors"
    with safe_open(file, framework="pt") as opened:
        metadata = opened.metadata()
    tensors = {
        name: torch.full_like(tensor, float("nan")) if name == "head.bias" else tensor
        for name, tensor in load_file(file).items()
    }
    save_file(tensors, file, metadata=metadata)
    with pytest.raises(InputError, match=r"`lr` 0\.001: the loss is nan"):
        train(run, replace(SHORT, start="supernet"))


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


def test_a_state_that_cannot_be_read_is_refused_by_name(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        train(run, stop=interrupt_after(2, patch))
    (state,) = run.retrained("retrain").iterdir()
    state.write_bytes(state.read_bytes()[:-50])
    with pytest.raises(InputError, match=r"cannot be read .*delete it") as raised:
        train(run)
    assert str(state) in str(raised.value)


def test_results_are_shown_beside_the_inherited_accuracy(run: RunFolder) -> None:
    outcome = command("retrain", run.path, "--steps", "2", "--top", "1")
    assert outcome.status == 0
    for part in ("inherited", "retrained", "test split of digits", "±"):
        assert part in " ".join(outcome.out.split())


@pytest.mark.slow
def test_retraining_needs_torch_and_timm_alone(run: RunFolder) -> None:
    done = finish(start("-c", WITH_TORCH_AND_TIMM_ALONE, "retrain", run.path, "--steps", "2"))
    assert done.status == 0, done.err[-500:]
    assert (run.retrained("retrain") / "1" / "weights.safetensors").exists()
