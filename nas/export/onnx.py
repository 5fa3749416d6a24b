"""Networks as ONNX files."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch
from torch import Tensor, nn

from nas.utilities.errors import InputError

INPUT, OUTPUT = "images", "scores"
"""Names in the file."""

SMALLEST_OPSET, LARGEST_OPSET = 18, 23
"""Versions of ONNX's operators that torch's exporter writes."""


def check_onnx_installed(needed_by: str, *packages: str) -> None:
    """Check that ONNX's packages are there, and others with them.

    Raises:
        InputError: If one is missing; it says how to install all.
    """
    if not all(map(find_spec, ("onnx", "onnxscript", *packages))):
        raise InputError(f"{needed_by} is not installed; pip install 'subnet-search[onnx]'")


@torch.no_grad()
def export_onnx(
    network: nn.Module,
    images: Tensor,
    path: Path,
    *,
    any_batch: bool,
    any_size: bool = False,
    tidy: bool = True,
    opset: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as one ONNX file that holds its weights.

    Args:
        network: In eval mode, on the CPU.
        images: Any images (B, C, H, W), for size, data type and batch.
        path: Of the file.
        any_batch: Let the file take any number of images, instead of B; B must be above 1.
        any_size: Let it take other multiples of 32 for height and width, too.
        tidy: Fold constants and fuse what belongs together.
        opset: Version of the operators; None for the exporter's own.
        metadata: To be kept in the file, by name.

    Raises:
        InputError: If the packages are missing, or a block cannot be exported; it names the block.
    """
    check_onnx_installed("export to ONNX")
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    program = traced(network, images, any_batch=any_batch, any_size=any_size)
    names = ({0: "batch"} if any_batch else {}) | ({2: "height", 3: "width"} if any_size else {})
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=(names,) if names else None,
            opset_version=opset,
            optimize=tidy,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(_what_failed(program, error)) from error
    assert written is not None
    ClearMetadataAndDocStringPass()(written.model)  # it names files of this machine
    written.model.metadata_props.update(metadata or {})
    written.save(path, external_data=False)


def traced(
    network: nn.Module, images: Tensor, *, any_batch: bool, any_size: bool = False
) -> torch.export.ExportedProgram:
    """The graph of a network; arguments as in `export_onnx`.

    Raises:
        InputError: If it cannot be traced.
    """
    network(images)  # what blocks compute once and keep must be made of real tensors
    dim = torch.export.Dim
    shapes: dict[int, Any] = {0: dim("batch")} if any_batch else {}
    if any_size:
        shapes |= {2: 32 * dim("rows", min=2, max=64), 3: 32 * dim("columns", min=2, max=64)}
    try:
        return torch.export.export(network, (images,), dynamic_shapes=(shapes,) if shapes else None)
    except Exception as error:  # of many kinds, from every part of the tracer
        if any_size:
            told = "one graph for all sizes can't be made of this network; leave it out"
            raise InputError(f"`flexible`: {told}") from error
        raise InputError(f"the network can't be traced: {shorten(str(error), 300)}") from error


def onnx_session(path: Path, *, threads: int = 0) -> Any:
    """What runs a file on the CPU; None where onnxruntime is not installed.

    Args:
        path: Of the file.
        threads: That it takes; 0 leaves them to the runtime.
    """
    if find_spec("onnxruntime") is None:
        return None
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # it warns of every constant that it doesn't fold
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _what_failed(program: torch.export.ExportedProgram, error: Exception) -> str:
    """One line that names the operator without a form in ONNX, and the block that uses it."""
    found = re.search(r"torch\.ops\.([\w.]+)", str(error))
    if found is None:
        return f"ONNX: {shorten(str(error), 300)}"
    operator = found[1]
    for node in program.graph.nodes:
        if str(node.target) == operator:
            *_, (block, _) = node.meta["nn_module_stack"].values()
            return f"ONNX: block {block!r} can't be exported: no form of {operator} is known"
    return f"ONNX: no form of {operator} is known"
