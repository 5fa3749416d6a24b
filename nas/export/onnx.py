"""Networks as ONNX files."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten

import torch
from torch import Tensor, nn

from nas.utilities.devices import check_memory
from nas.utilities.errors import InputError
from nas.utilities.files import replacing
from search_space import total_cost
from supernet import ExportedNetwork, load_exported

INPUT, OUTPUT = "images", "scores"
"""Names in the file."""

LARGEST_DIFFERENCE = 1e-3
"""Relative difference to torch's output above which a file is wrong rather than rounded."""


@dataclass(frozen=True, kw_only=True)
class OnnxFile:
    """A file that was written.

    Attributes:
        path: Where it is.
        image_size: Side in pixels of the images that it takes, any number of them.
        about: Channels, normalisation and classes.
        difference: Largest difference of its output to torch's, relative to the largest output;
            None where onnxruntime is not installed.
    """

    path: Path
    image_size: int
    about: ExportedNetwork
    difference: float | None


def write_onnx(exported: Path, out: str | Path | None, *, image_size: int | None) -> OnnxFile:
    """Write the network of an exported or retrained folder as one ONNX file.

    Mean, standard deviation and names of the classes are kept in its metadata, as JSON.

    Args:
        exported: The folder, or its `architecture.json`.
        out: The file, which is never seen half-written and whose name ends in `.onnx`; None for
            `model.onnx` in the folder.
        image_size: Pixels of the images that the file takes; None for those of the training.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        InputError: If the weights cannot be read, the file cannot be written, the packages are
            missing, a block cannot be exported, or the file's output is not that of torch.
    """
    folder = exported if exported.is_dir() else exported.parent
    out = Path(out) if out is not None else folder / "model.onnx"
    if out.is_dir():
        raise InputError(f"`out` {out} is a folder; give the name of a file")
    if out.suffix != ".onnx":  # so that no file of a run is written over
        raise InputError(f"`out` {out}: the name must end in .onnx")
    check_onnx_installed("export to ONNX")
    try:
        network, about = load_exported(exported)
    except ValueError as error:
        raise InputError(str(error)) from None
    size = image_size or about.image_size
    if size < 32:
        raise InputError(f"`image_size` {size} is below 32")
    cost = total_cost(network.architecture, image_size=size, num_classes=about.num_classes)
    check_memory(f"`image_size` {size}", cost.memory_bytes(), "cpu")
    images = torch.randn(3, about.in_chans, size, size, generator=torch.Generator().manual_seed(0))
    metadata = {name: json.dumps(value) for name, value in vars(about).items()}
    metadata["image_size"] = json.dumps(size)
    difference = None
    try:
        with replacing(out) as temporary:
            export_onnx(network, images[:2], temporary, any_batch=True, metadata=metadata)
            if find_spec("onnxruntime"):
                difference = onnx_difference(temporary, network, images)
    except OSError as error:
        raise InputError(f"`out` {out}: cannot be written ({error.strerror})") from None
    return OnnxFile(path=out, image_size=size, about=about, difference=difference)


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
    tidy: bool = True,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a network as one ONNX file that holds its weights, for images of one size.

    Args:
        network: In eval mode, on the CPU.
        images: Any images (B, C, S, S), for size, data type and batch.
        path: Of the file.
        any_batch: Let the file take any number of images, instead of B; B must be above 1.
        tidy: Fold constants and fuse what belongs together.
        metadata: To be kept in the file, by name.

    Raises:
        InputError: If the packages are missing, or a block cannot be exported; it names the block.
    """
    check_onnx_installed("export to ONNX")
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    network(images)  # what blocks compute once and keep must be made of real tensors
    try:
        program = torch.export.export(
            network,
            (images,),
            dynamic_shapes=({0: torch.export.Dim("batch")},) if any_batch else None,
        )
    except Exception as error:  # of many kinds, from every part of the tracer
        raise InputError(
            f"ONNX: the network can't be traced: {shorten(str(error), 300)}"
        ) from error
    try:
        written = torch.onnx.export(
            program,
            dynamo=True,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: "batch"},) if any_batch else None,
            optimize=tidy,
            verbose=False,
        )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(_what_failed(program, error)) from error
    assert written is not None
    ClearMetadataAndDocStringPass()(written.model)  # it names files of this machine
    written.model.metadata_props.update(metadata or {})
    written.save(path, external_data=False)


def onnx_difference(path: Path, network: nn.Module, images: Tensor) -> float:
    """The largest difference of a file's output to torch's, relative to the largest output.

    Needs onnxruntime.

    Raises:
        InputError: If it is above `LARGEST_DIFFERENCE`.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (scores,) = session.run([OUTPUT], {INPUT: images.numpy()})
    with torch.inference_mode():
        expected = network(images)
    largest = (torch.from_numpy(scores) - expected).abs().max() / expected.abs().max()
    difference = float(largest)
    if not difference <= LARGEST_DIFFERENCE:
        raise InputError(f"ONNX: the file's output differs from torch's by {difference:.1g}")
    return difference


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
