"""A network as one file for other runtimes: ONNX, torch.export, or bare weights."""

import copy
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from nas.export.onnx import (
    INPUT,
    LARGEST_OPSET,
    OUTPUT,
    SMALLEST_OPSET,
    check_onnx_installed,
    export_onnx,
    onnx_session,
    traced,
)
from nas.utilities.devices import check_memory
from nas.utilities.errors import InputError
from nas.utilities.files import replacing
from search_space import total_cost
from search_space.bounds import LARGEST_IMAGE
from search_space.parts.spec import Spec
from supernet import ExportedNetwork, Network, load_exported

Format = Literal["onnx", "torch-export", "safetensors"]

SUFFIXES: Mapping[Format, str] = {
    "onnx": ".onnx",
    "torch-export": ".pt2",
    "safetensors": ".safetensors",
}

LARGEST_DIFFERENCE = {"float32": 1e-3, "float16": 3e-2}
"""Relative difference to torch's float32 output above which a file is wrong rather than rounded."""

Side = Annotated[int, Field(ge=32, le=LARGEST_IMAGE)]


class FileSettings(Spec):
    """What a file is to be like.

    Attributes:
        format: `onnx`; `torch-export`, for `torch.export.load`; `safetensors`, weights alone, with
            architecture and data configuration in the header.
        image_size: (height, width) of the images that it takes; None for those of the training.
        flexible: Take other heights and widths, too: multiples of 32. ONNX alone.
        batch: Images that it takes at a time; None for any number.
        dtype: Of weights and scores.
        pixels: Take uint8 pixels from 0 to 255 and normalise them, instead of normalised images.
        softmax: Give probabilities instead of class scores.
        opset: Version of ONNX's operators; None for the exporter's own.
    """

    format: Format = "onnx"
    image_size: tuple[Side, Side] | None = None
    flexible: bool = False
    batch: Annotated[int, Field(ge=1, le=1024)] | None = None
    dtype: Literal["float32", "float16"] = "float32"
    pixels: bool = False
    softmax: bool = False
    opset: Annotated[int, Field(ge=SMALLEST_OPSET, le=LARGEST_OPSET)] | None = None

    @property
    def torch_dtype(self) -> torch.dtype:
        """Of weights and scores."""
        return torch.float16 if self.dtype == "float16" else torch.float32

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        if self.opset is not None and self.format != "onnx":
            raise ValueError(f"opset is ONNX's; the format is {self.format}")
        if self.flexible and self.format != "onnx":
            # A graph of torch's keeps to the sizes at which our fast paths would branch as here.
            raise ValueError(f"flexible is for ONNX alone; the format is {self.format}")
        graph = self.pixels, self.softmax, self.batch, self.image_size
        if self.format == "safetensors" and any(graph):
            raise ValueError("format safetensors holds weights: it has a dtype and nothing else")
        return self


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A file that was written.

    Attributes:
        path: Where it is.
        settings: What it is like.
        image_size: (height, width) of the images that it takes.
        about: Channels, normalisation and classes.
        difference: Largest difference of its output to torch's in float32, relative to the largest
            output; None of weights alone, and where onnxruntime is not installed.
        agreeing: On how many of the images that both were given they name the same class; where the
            file takes any size, also on how many of larger ones.
        images: How many images of a size that were.
    """

    path: Path
    settings: FileSettings
    image_size: tuple[int, int]
    about: ExportedNetwork
    difference: float | None = None
    agreeing: tuple[int, ...] = ()
    images: int = 0


class Deployed(nn.Module):
    """A network with what a file does before and behind it.

    Args:
        network: In eval mode, on the CPU.
        about: Its normalisation.
        settings: What the file is like.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, about: ExportedNetwork, settings: FileSettings) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self.register_buffer("mean", 255 * torch.tensor(about.mean).view(-1, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(about.std).view(-1, 1, 1))
        self.dtype = settings.torch_dtype
        self.to(self.dtype).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Scores or probabilities (B, classes) of images or uint8 pixels (B, C, H, W)."""
        if self.settings.pixels:
            images = (images.to(self.dtype) - self.mean) / self.std
        scores: Tensor = self.network(images)
        return scores.softmax(dim=-1) if self.settings.softmax else scores

    def taken(self, pixels: Tensor) -> Tensor:
        """What it takes of uint8 pixels (B, C, H, W)."""
        if self.settings.pixels:
            return pixels
        return (pixels.to(self.dtype) - self.mean) / self.std


def write_file(
    exported: Path, out: str | Path | None, settings: FileSettings, pixels: Tensor | None = None
) -> NetworkFile:
    """Write the network of an exported or retrained folder as one file, and check its output.

    Size, crop, normalisation and names of the classes are kept in its metadata, as JSON.

    Args:
        exported: The folder, or its `architecture.json`.
        out: The file, which is never seen half-written; None for `model.<suffix>` in the folder.
        settings: What it is like.
        pixels: Images to check it with, uint8 (N, C, H, W) of its size; None takes random ones.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        InputError: If the weights cannot be read, the file cannot be written, the packages are
            missing, a block cannot be exported, or the file's output is not that of torch.
    """
    folder = exported if exported.is_dir() else exported.parent
    suffix = SUFFIXES[settings.format]
    out = Path(out) if out is not None else folder / f"model{suffix}"
    if out.is_dir():
        raise InputError(f"`out` {out} is a folder; give the name of a file")
    if out.suffix != suffix or out.resolve() == (folder / "weights.safetensors").resolve():
        # So that no file of a run is written over.
        raise InputError(f"`out` {out}: the name must end in {suffix}, and be none of the export's")
    if settings.format == "onnx":
        check_onnx_installed("export to ONNX")
    try:
        network, about = load_exported(exported)
    except ValueError as error:
        raise InputError(str(error)) from None
    height, width = size = settings.image_size or (about.image_size, about.image_size)
    cost = total_cost(network.architecture, image_size=size, num_classes=about.num_classes)
    check_memory(f"`image_size` {height}x{width}", cost.memory_bytes(), "cpu")
    metadata = {name: json.dumps(value) for name, value in vars(about).items()}
    metadata |= {"image_size": json.dumps(size), "settings": settings.model_dump_json()}
    if pixels is None:
        generator = torch.Generator().manual_seed(0)
        shape = 4, about.in_chans, height, width
        pixels = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    file = NetworkFile(path=out, settings=settings, image_size=size, about=about)
    try:
        with replacing(out) as temporary:
            if settings.format == "safetensors":
                state = network.to(settings.torch_dtype).state_dict()
                metadata["architecture"] = network.architecture.to_json()
                weights = {name: tensor.contiguous() for name, tensor in state.items()}
                save_file(weights, temporary, metadata=metadata)
                return file
            return _traced_file(file, temporary, network, pixels, metadata)
    except OSError as error:
        raise InputError(f"`out` {out}: cannot be written ({error.strerror})") from None


@torch.no_grad()
def _traced_file(
    file: NetworkFile,
    temporary: Path,
    network: Network,
    pixels: Tensor,
    metadata: Mapping[str, str],
) -> NetworkFile:
    """Write a graph, run it on the pixels, and hold what it gives against torch."""
    settings, batch = file.settings, file.settings.batch
    if batch is not None:  # whole ones
        pixels = pixels.repeat(math.ceil(batch / len(pixels)), 1, 1, 1)
        pixels = pixels[: len(pixels) // batch * batch]
    plain = Deployed(network, file.about, settings.model_copy(update={"dtype": "float32"}))
    deployed = Deployed(copy.deepcopy(network), file.about, settings)
    example = deployed.taken(pixels[:batch] if batch else pixels[:2].expand(2, -1, -1, -1))
    if settings.format == "onnx":
        export_onnx(
            deployed,
            example,
            temporary,
            any_batch=batch is None,
            any_size=settings.flexible,
            opset=settings.opset,
            metadata=metadata,
        )
        session = onnx_session(temporary)
        if session is None:
            return file
    else:
        program = traced(deployed, example, any_batch=batch is None)
        torch.export.save(program, temporary, extra_files=dict(metadata))
        module = torch.export.load(temporary).module()

    def run(images: Tensor) -> Tensor:
        if settings.format == "onnx":
            return torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])
        scores: Tensor = module(images)
        return scores

    sizes = [pixels]
    if settings.flexible:
        height, width = file.image_size
        sizes.append(resized(pixels, (height + 32, width + 64)))
    for some in sizes:
        expected = plain(plain.taken(some))
        batches = deployed.taken(some).split(batch or len(some))
        given = torch.cat([run(images) for images in batches]).float()
        difference = float((given - expected).abs().max() / expected.abs().max())
        if not difference <= LARGEST_DIFFERENCE[settings.dtype]:
            raise InputError(
                f"{settings.format}: the file's output differs from torch's by {difference:.1g}"
            )
        same = given.argmax(dim=1) == expected.argmax(dim=1)
        file = replace(
            file,
            difference=max(difference, file.difference or 0.0),
            agreeing=(*file.agreeing, int(same.sum())),
            images=len(same),
        )
    return file


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (B, C, H, W), uint8, at another (height, width)."""
    larger = F.interpolate(pixels.float(), size, mode="bicubic", antialias=True)
    return larger.round().clamp(0, 255).to(torch.uint8)


def forward_pass(file: NetworkFile, *, threads: int) -> Callable[[], object] | None:
    """A call that runs a file on a batch, of one image where it takes any number.

    None of weights alone, and where onnxruntime is not installed.
    """
    settings, about = file.settings, file.about
    shape = settings.batch or 1, about.in_chans, *file.image_size
    images = torch.zeros(shape, dtype=torch.uint8 if settings.pixels else settings.torch_dtype)
    match settings.format:
        case "onnx":
            session = onnx_session(file.path, threads=threads)
            return session and partial(session.run, [OUTPUT], {INPUT: images.numpy()})
        case "torch-export":
            module = torch.export.load(file.path).module()
            return torch.no_grad()(partial(module, images))
        case _:
            return None
