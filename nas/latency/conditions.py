"""Under which conditions networks are timed: what stands beside every latency."""

from dataclasses import replace
from importlib.util import find_spec
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from nas.utilities.bounds import Batch, Processes
from nas.utilities.devices import check_memory, chip_name, is_here
from search_space import Architecture, total_cost
from search_space.bounds import Pixels

DtypeName = Literal["float32", "bfloat16", "float16"]
RuntimeName = Literal["eager", "compile", "onnx"]
"""torch as it is, `torch.compile`, ONNX Runtime."""


def runtime_version(runtime: str) -> str:
    """The package behind a runtime and its version; without a version if it is not installed."""
    if runtime != "onnx":
        import torch

        return f"torch {torch.__version__}"
    if not find_spec("onnxruntime"):
        return "onnxruntime"
    import onnxruntime

    return f"onnxruntime {onnxruntime.__version__}"


def _chip(fields: dict[str, Any]) -> str:
    return chip_name(fields["device"])


def _version(fields: dict[str, Any]) -> str:
    return runtime_version(fields["runtime"]) if is_here(fields["device"]) else ""


class LatencyConditions(BaseModel):
    """Under which conditions networks are timed.

    Attributes:
        device: `cpu`, `cuda` or `cuda:N`.
        chip: What the device is called by its maker. Unless given it is read off this machine, and
            empty if the device is not here.
        runtime: What runs the networks: one of `RuntimeName` for a device that is here, any
            name for another.
        version: Of the runtime; likewise.
        dtype: Of weights and images: one of `DtypeName` for a device that is here, any name for
            another.
        batch_size: Images in one forward pass.
        image_size: Side of the images in pixels.
        threads: CPU threads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    chip: str = Field(default_factory=_chip)
    runtime: str = "eager"
    version: str = Field(default_factory=_version)
    dtype: str = "float32"
    batch_size: Batch = 1
    image_size: Pixels
    threads: Processes

    def check_room(self, architecture: Architecture) -> None:
        """See that a network has room in the memory of the device, which must be here.

        Raises:
            InputError: If not.
        """
        cost = total_cost(architecture, image_size=self.image_size)
        whole = replace(cost, peak=self.batch_size * cost.peak)
        what = f"a network at {self.image_size} px in batches of {self.batch_size}"
        check_memory(what, whole.memory_bytes(2), self.device)  # in the smallest data type

    def __str__(self) -> str:
        return (
            f"{self.chip or self.device}, {self.dtype}, batch {self.batch_size}, "
            f"{self.threads} CPU threads, {self.image_size} px, {self.runtime} ({self.version})"
        )
