import json
import random
import stat
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file
from small_runs import NANO, Fork

import nas.export.network
from nas.data import Data, load_data
from nas.export.network import export_front, export_network, exported_front, stage_rows
from nas.runs.folder import RunFolder
from search_space import PRESETS, Architecture
from supernet import Network, Store, load_exported

FILES = {"README.md", "architecture.json", "architecture.svg", "weights.safetensors"}
TEXTS = {"card": "a card", "picture": "<svg/>"}

RUN_IT = """
import sys, timm, torch, supernet
from safetensors.torch import load_file, save_file
model = timm.create_model("subnet", architecture=sys.argv[1], pretrained=True).eval()
with torch.no_grad():
    save_file({"logits": model(load_file(sys.argv[2])["images"])}, sys.argv[3])
"""


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.slow
def test_an_exported_network_is_what_was_evaluated(small_run: Path, tmp_path: Path) -> None:
    folder = RunFolder(small_run)
    store = Store(NANO, num_classes=10, weights=load_file(folder.checkpoint))
    images = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    save_file({"images": images}, tmp_path / "images")
    subnet = store.subnet(Architecture.load(folder.best)).eval()
    with torch.no_grad():
        expected = subnet(images)
    done = Fork("-c", RUN_IT, folder.best, tmp_path / "images", tmp_path / "logits").finish()
    assert done.status == 0, done.err
    assert torch.equal(load_file(tmp_path / "logits")["logits"], expected)


def test_the_front_is_exported_by_accuracy_and_its_first_is_the_best(small_run: Path) -> None:
    trials = pd.read_csv(small_run / "trials.csv")
    front = pd.read_csv(small_run / "pareto.csv")
    exported = [small_run / "front" / str(number + 1) for number in range(len(front))]
    assert names(small_run / "front") == {path.name for path in exported}
    hashes = [Architecture.load(path).hash for path in exported]
    assert hashes == front.sort_values("accuracy", ascending=False)["hash"].tolist()
    best = trials.sort_values(["accuracy", "macs"], ascending=[False, True]).iloc[0]
    assert hashes[0] == best["hash"]
    assert Architecture.load(small_run / "best").hash == hashes[0]
    weights = load_file(exported[0] / "weights.safetensors")
    for name, tensor in load_file(small_run / "best" / "weights.safetensors").items():
        assert torch.equal(tensor, weights[name])


def test_every_exported_folder_stands_alone(small_run: Path) -> None:
    for folder in (small_run / "best", *(small_run / "front").iterdir()):
        assert names(folder) == FILES
        network, about = load_exported(folder)
        assert network.architecture == Architecture.load(folder)
        assert (about.num_classes, about.image_size) == (10, 32)
        assert about.class_names == tuple("0123456789")
        card = (folder / "README.md").read_text()
        assert network.architecture.hash in card
        assert "224 px" in card
        assert "32 px" in card


def test_exported_files_are_as_readable_as_any_other(small_run: Path) -> None:
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (small_run / "best").iterdir()}
    ordinary = stat.S_IMODE((small_run / "config.json").stat().st_mode)
    assert modes == {ordinary}


def test_an_export_replaces_the_files_of_an_earlier_one_and_no_others(
    tmp_path: Path, digits: Data
) -> None:
    target = tmp_path / "front" / "1"
    for size in (0.0, 1.0):
        network = Network(NANO.scaled(size), num_classes=10)
        texts = {"card": f"a card of {size}", "picture": f"a picture of {size}"}
        export_network(target, network, digits, image_size=32, **texts)
        (target / "notes.txt").write_text("the user's")
    assert names(target) == FILES | {"notes.txt"}
    assert names(target.parent) == {"1"}
    assert (target / "README.md").read_text() == "a card of 1.0"
    assert (target / "architecture.svg").read_text() == "a picture of 1.0"
    assert load_exported(target)[0].architecture == NANO.scaled(1.0).canonical()


def test_a_smaller_front_removes_what_the_larger_left_but_nothing_of_the_user_s(
    tmp_path: Path, digits: Data
) -> None:
    def export(count: int) -> None:
        networks = [Network(NANO.scaled(0.0), num_classes=10) for _ in range(count)]
        export_front(
            tmp_path,
            networks,
            data=digits,
            image_size=32,
            card=lambda *_: "a card",
            picture=lambda _: "<svg/>",
        )

    export(3)
    (tmp_path / "front" / "3" / "notes.txt").write_text("the user's")
    for name in ("2-old", "notes"):
        (tmp_path / "front" / name).mkdir()
    (tmp_path / "best" / "notes.txt").write_text("the user's")
    export(1)
    assert names(tmp_path / "front") == {"1", "3", "2-old", "notes"}
    assert names(tmp_path / "front" / "3") == {"notes.txt"}
    assert names(tmp_path / "best") == FILES | {"notes.txt"}
    assert exported_front(tmp_path) == [tmp_path / "front" / "1"]


def test_architecture_json_is_there_only_while_all_belongs_together(
    tmp_path: Path, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = Network(NANO.scaled(0.0), num_classes=10)
    export_network(tmp_path / "best", network, digits, image_size=32, **TEXTS)
    seen: list[bool] = []
    replace = Path.replace

    def watched(path: Path, target: Path) -> Path:
        seen.append((tmp_path / "best" / "architecture.json").exists())
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", watched)
    export_network(tmp_path / "best", network, digits, image_size=32, **TEXTS)
    assert seen == [False] * len(FILES)
    assert names(tmp_path / "best") == FILES


def test_an_export_that_fails_leaves_the_earlier_one(
    tmp_path: Path, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "best"
    old = Network(NANO.scaled(0.0), num_classes=10)
    export_network(target, old, digits, image_size=32, **TEXTS)

    def disk_full(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(nas.export.network, "save_exported", disk_full)
    with pytest.raises(OSError, match="no space"):
        export_network(
            target,
            Network(NANO.scaled(1.0), num_classes=10),
            digits,
            image_size=32,
            card="new",
            picture="new",
        )
    assert names(tmp_path) == {"best"}
    assert (target / "README.md").read_text() == TEXTS["card"]
    loaded, _ = load_exported(target)
    assert loaded.architecture == NANO.scaled(0.0).canonical()


@pytest.mark.parametrize("preset", PRESETS)
def test_the_stages_of_any_architecture_read_as_rows(preset: str) -> None:
    rng = random.Random(0)
    for _ in range(20):
        architecture = PRESETS[preset].sample(rng)
        rows = stage_rows(architecture, 224)
        assert [row["width"] for row in rows] == [stage.width for stage in architecture.stages]
        sides = {"nano": 56, "tiny": 56, "base": 56, "psvit": 14}
        tokens = "197 tokens" if architecture.stages[0].class_token else "{0}×{0}"
        assert rows[0]["map"] == tokens.format(sides[preset])
        assert rows[0]["pooling"] == "stem"
        json.dumps(rows)
