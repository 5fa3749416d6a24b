import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nas.training.checkpoint import (
    check_fits,
    check_same,
    load_checkpoint,
    save_checkpoint,
    steps_done,
)
from nas.utilities.errors import InputError

IDENTITY = {"steps": 9, "strategy": {"name": "sandwich", "labels": 0.0}}
TENSORS = {"weights.a": torch.arange(6.0).view(2, 3), "optimizer.a": torch.tensor(3.0)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "below" / "state.safetensors"
    save_checkpoint(path, step=4, identity=IDENTITY, tensors=TENSORS)
    return path


def test_what_is_saved_is_read_back(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    assert (checkpoint.step, checkpoint.identity) == (4, IDENTITY)
    torch.testing.assert_close(checkpoint.tensors, TENSORS, rtol=0, atol=0)
    assert steps_done(path) == 4
    assert steps_done(path.with_name("absent.safetensors")) == 0


def test_nothing_but_the_checkpoint_is_left_and_a_later_one_takes_its_place(path: Path) -> None:
    save_checkpoint(path, step=5, identity=IDENTITY, tensors=TENSORS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    assert load_checkpoint(path).step == 5


def test_a_saving_that_fails_leaves_the_checkpoint_before_it(path: Path) -> None:
    shared = torch.zeros(2)
    with pytest.raises(RuntimeError):  # safetensors refuses tensors that share memory
        save_checkpoint(path, step=5, identity=IDENTITY, tensors={"a": shared, "b": shared[:1]})
    assert load_checkpoint(path).step == 4
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def no_safetensors(path: Path) -> None:
    path.write_text("nothing of the kind")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def metadata(**changes: str) -> Callable[[Path], None]:
    """Damage that leaves the tensors and writes that metadata alone."""
    known = {"step": "4", "identity": json.dumps(IDENTITY)} | changes

    def damage(path: Path) -> None:
        save_file(load_file(path), path, {k: text for k, text in known.items() if text != "none"})

    return damage


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        no_safetensors,
        empty,
        a_folder,
        metadata(step="none"),
        metadata(step="four"),
        metadata(identity="none"),
        metadata(identity="{"),
        metadata(identity="[]"),
    ],
)
def test_a_damaged_or_foreign_file_is_refused_in_one_line_with_its_name(
    path: Path, damage: Callable[[Path], None]
) -> None:
    damage(path)
    with pytest.raises(InputError, match=r"cannot be resumed from \(.*\); delete it") as raised:
        load_checkpoint(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"steps": 10}, "steps is 9 there, 10 here"),
        ({"strategy": {"name": "single-path"}}, 'name is "sandwich" there, "single-path" here'),
        ({"strategy": {"name": "sandwich", "labels": 0.5}}, "labels is 0.0 there, 0.5 here"),
    ],
)
def test_a_checkpoint_of_another_training_is_refused_with_the_field_that_differs(
    path: Path, changes: dict[str, Any], told: str
) -> None:
    checkpoint = load_checkpoint(path)
    check_same(path, checkpoint, IDENTITY)
    with pytest.raises(InputError, match=told) as raised:
        check_same(path, checkpoint, IDENTITY | changes)
    assert str(path) in str(raised.value)


def test_a_checkpoint_of_other_tensors_is_refused_with_the_first_of_them(path: Path) -> None:
    checkpoint = load_checkpoint(path)
    check_fits(path, checkpoint, {"weights.a": torch.zeros(2, 3)})
    with pytest.raises(InputError, match=r"weights\.a has shape \[2, 3\], not \[3, 2\]"):
        check_fits(path, checkpoint, {"weights.a": torch.zeros(3, 2)})
    with pytest.raises(InputError, match=r"it lacks weights\.b"):
        check_fits(path, checkpoint, TENSORS | {"weights.b": torch.zeros(1)})
