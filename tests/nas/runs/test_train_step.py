from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import SMALL, command

from nas.runs.steps.train import MONITOR_IMAGES, monitored


@pytest.mark.parametrize("images", [1, 128, 600, 2000])
def test_what_is_looked_at_while_training_is_of_every_class_of_a_folder(images: int) -> None:
    labels = (torch.arange(images) * min(10, images)) // images  # class by class
    some = labels[monitored(images)]
    assert some.unique().equal(labels.unique())
    assert min(images, MONITOR_IMAGES // 2) <= len(some) <= MONITOR_IMAGES


def test_a_batch_that_has_no_room_when_it_is_timed_is_refused_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*pixels: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("nas.runs.expected.normalise", full)
    outcome = command("search", *SMALL, "--out", tmp_path / "run")
    assert outcome.status == 2
    assert outcome.err.startswith("error: --batch-size ")
    assert "cpu has too little memory" in outcome.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--workers", "--train-workers"])
def test_one_gpu_of_several_is_no_place_for_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: str
) -> None:
    monkeypatch.setattr("nas.utilities.devices.devices_here", lambda: ["cpu", "cuda", "cuda:1"])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr("nas.runs.configure.check_run", lambda config, data: None)
    spread = {"--workers": "0", "--train-workers": "1"} | {flag: "2"}
    flags = [word for pair in spread.items() for word in pair]
    outcome = command(
        "search",
        *SMALL,
        "--device",
        "cuda:1",
        "--batch-size",
        "4",
        "--out",
        tmp_path / "run",
        *flags,
    )
    assert outcome.status == 2
    assert f"--device cuda:1 with {flag} 2: Ray gives each worker its GPU" in outcome.err
