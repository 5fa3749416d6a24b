"""The state of a training on disk: tensors by name, the steps done, and whose state it is.

One safetensors file, so that its parts can never be of different steps; nothing is unpickled.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from nas.utilities.differences import first_difference
from nas.utilities.errors import InputError
from nas.utilities.files import replacing


class Checkpoint(NamedTuple):
    """What a file holds.

    Attributes:
        step: Steps done.
        identity: Everything that the training depends on, as JSON holds it.
        tensors: By name.
    """

    step: int
    identity: dict[str, Any]
    tensors: dict[str, Tensor]


def save_checkpoint(
    path: Path, *, step: int, identity: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a checkpoint, or replace one; who reads meanwhile finds the old one or the new one."""
    metadata = {"step": str(step), "identity": json.dumps(identity)}
    with replacing(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def load_checkpoint(path: Path, *, device: str = "cpu") -> Checkpoint:
    """Read a checkpoint, its tensors onto a device.

    Raises:
        InputError: If it is damaged, or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt", device=device) as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        step, identity = int(metadata["step"]), _identity(metadata)
        if step < 0:
            raise ValueError(f"step {step}")
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise unusable(path, error) from None
    return Checkpoint(step, identity, tensors)


def load_identity(path: Path) -> dict[str, Any]:
    """What a checkpoint's training depends on; its tensors are not read.

    Raises:
        InputError: If it is damaged, or no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return _identity(file.metadata() or {})
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise unusable(path, error) from None


def steps_done(path: Path) -> int:
    """The steps that the training of a checkpoint has done, 0 without one; tensors are not read.

    Raises:
        InputError: If it is damaged, or no checkpoint.
    """
    if not path.exists():
        return 0
    try:
        with safe_open(path, framework="pt") as file:
            return int((file.metadata() or {})["step"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise unusable(path, error) from None


def _identity(metadata: Mapping[str, str]) -> dict[str, Any]:
    identity = json.loads(metadata["identity"])
    if not isinstance(identity, dict):
        raise ValueError(f"its identity is a {type(identity).__name__}")
    return identity


def unusable(path: Path, reason: object) -> InputError:
    """The error for a checkpoint that cannot be gone on from."""
    return InputError(
        f"{path}: cannot be resumed from ({reason}); delete it to train from the beginning"
    )


def check_same(path: Path, checkpoint: Checkpoint, identity: Mapping[str, Any]) -> None:
    """Refuse the checkpoint of another training.

    Raises:
        InputError: With the first field that differs.
    """
    if difference := first_difference(checkpoint.identity, identity):
        raise unusable(path, f"it is of another training: {difference}")


def check_fits(path: Path, checkpoint: Checkpoint, tensors: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint that lacks some of these tensors, or has one of another shape or type.

    Raises:
        InputError: With the name of the first.
    """
    for name, tensor in tensors.items():
        found = checkpoint.tensors.get(name)
        if found is None:
            raise unusable(path, f"it lacks {name}")
        if found.shape != tensor.shape:
            raise unusable(path, f"{name} has shape {list(found.shape)}, not {list(tensor.shape)}")
        if found.dtype != tensor.dtype:
            raise unusable(path, f"{name} is of {found.dtype}, not {tensor.dtype}")
