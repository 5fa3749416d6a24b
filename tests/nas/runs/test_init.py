"""`--init`: a supernet that begins with weights that exist."""

from pathlib import Path

import pytest
import torch
from authors_checkpoints import checkpoint, filled
from safetensors.torch import load_file
from small_runs import SMALL, command, constrained_nano

from nas.data import load_data, materialise
from nas.export.pretrained import read_pretrained
from nas.runs.config import RunConfig
from nas.runs.configure import configure
from nas.training.settings import SupernetTraining
from nas.training.supernet import SupernetTask
from nas.utilities.errors import InputError
from supernet import ExportedNetwork, Network, load_exported, save_exported


def authors_file(folder: Path, name: str) -> Path:
    file = folder / f"{name}.pth"
    torch.save({"model": filled(checkpoint(name))}, file)
    return file


def test_an_authors_checkpoint_of_a_member_is_part_of_the_configuration(tmp_path: Path) -> None:
    file = authors_file(tmp_path, "Shunted-T")
    configured = configure(budget="2.5GFLOPs", init=file, steps=2)
    assert configured.init is not None
    assert configured.config.init == configured.init.digest
    assert configured.config.digest != configured.config.model_copy(update={"init": None}).digest
    # Of its 11,553,576, a classifier of a thousand classes has 513 thousand.
    assert configured.init.told(num_classes=10) == (
        "the supernet begins with the weights of Shunted-T, without its classifier of other "
        "classes: 11,040,576 parameters, 309 tensors; its other weights are drawn"
    )


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("PVT-Tiny", "PVT-Tiny is no member of the space: the stem or the number of stages"),
        ("Shunted-S", "Shunted-S is no member of the space: the stem or the number of stages"),
    ],
)
def test_a_design_that_is_no_member_is_refused(tmp_path: Path, name: str, told: str) -> None:
    file = authors_file(tmp_path, name)
    with pytest.raises(InputError, match=f"^`init` {file}: {told}"):
        configure(budget="2.5GFLOPs", init=file)


@pytest.mark.parametrize(
    ("file", "told"),
    [("absent.pth", "no such file"), ("text.pth", "no checkpoint that can be read")],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, file: str, told: str) -> None:
    (tmp_path / "text.pth").write_text("weights")
    outcome = command("search", *SMALL, "--init", tmp_path / file, "--out", tmp_path / "run")
    assert outcome.status == 2
    assert outcome.err.startswith(f"error: --init {tmp_path / file}: {told}")
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_network_of_grey_images_is_refused(tmp_path: Path) -> None:
    space = constrained_nano().space
    grey = Network(space.scaled(0.0), num_classes=2, in_chans=1)
    about = ExportedNetwork(
        num_classes=2, in_chans=1, image_size=32, mean=(0.5,), std=(0.2,), class_names=("a", "b")
    )
    save_exported(tmp_path, grey, about)
    with pytest.raises(InputError, match="takes images of 1 channels; legal: 3"):
        configure(budget="200MFLOPs", space=space, init=tmp_path)


def test_the_store_of_a_task_begins_with_the_network(tmp_path: Path) -> None:
    constrained = constrained_nano()
    data = load_data("digits", image_size=32, seed=0)
    images, labels = materialise(data.search, limit=4, seed=0)
    given = Network(constrained.space.scaled(1.0), num_classes=10)
    task = SupernetTask(
        settings=SupernetTraining(steps=2),
        constrained=constrained,
        data=data,
        images=images,
        labels=labels,
        device="cpu",
        state=tmp_path / "state",
        checkpoint=tmp_path / "checkpoint",
        init=given,
    )
    views = task.new_store().subnet(given.architecture).state_dict()
    assert all(torch.equal(views[name], tensor) for name, tensor in given.state_dict().items())


@pytest.mark.usefixtures("undrawn")
@pytest.mark.slow
def test_a_run_begins_with_what_another_exported(small_run: Path, tmp_path: Path) -> None:
    given, run = small_run / "best", tmp_path / "run"
    flags = *SMALL, "--strategy", "single-path", "--steps", "1", "--lr", "1e-9", "--trials", "2"
    search = "search", *flags, "--out", run
    began = command(*search, "--init", given)
    assert began.status == 0, began.err
    told = "the supernet begins with the weights of best: "
    assert told in " ".join(began.out.split())
    assert told in (run / "report.html").read_text()
    config = RunConfig.model_validate_json((run / "config.json").read_text())
    assert config.init == read_pretrained(given).digest
    # Trained at next to no rate, they are what they were.
    network, _ = load_exported(given)
    weights = load_file(run / "supernet" / "checkpoint.safetensors")
    for name, parameter in network.named_parameters():
        prefix = weights[name][tuple(map(slice, parameter.shape))]
        torch.testing.assert_close(prefix, parameter.detach(), rtol=0, atol=1e-6)

    again = command(*search, "--init", given / "architecture.json")
    assert again.status == 0, again.err
    assert "supernet: trained already" in again.out
    for other in ((), ("--init", small_run / "front" / "2")):
        refused = command(*search, *other)
        assert refused.status == 2
        assert "init" in refused.err
