"""A network of a run as one file for other runtimes, checked with images and timed."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import Tensor

from nas.data import load_data, materialise
from nas.export.file import FileSettings, NetworkFile, forward_pass, resized, write_file
from nas.latency.measure import Latency, time_calls
from nas.runs.config import RunConfig
from nas.runs.configure import illegal_field
from nas.runs.folder import RunFolder
from nas.utilities.devices import threads, usable_cpus
from nas.utilities.errors import InputError
from search_space import ArchitectureError
from search_space.architecture import architecture_file
from supernet.exported import describe_exported

IMAGES = 64
"""Of the search split, that a file is checked with."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A file that was written, checked and timed.

    Attributes:
        file: The file, and how its output agrees with torch's.
        source: What it was checked with.
        latency: Of a batch on this machine's CPUs; None of weights alone, and where its runtime
            is not installed.
        threads: That it had.
    """

    file: NetworkFile
    source: str
    latency: Latency | None
    threads: int


def deploy(
    network: str | Path,
    *,
    out: str | Path | None,
    data: str | None,
    **fields: Any,
) -> Deployment:
    """Write an exported network as a file, check it with images of its data, and time it.

    Args:
        network: The folder of an export, or its `architecture.json`.
        out: The file.
        data: Where images are; None takes the run's that the folder lies in, if they are there.
        fields: Of `FileSettings`.

    Raises:
        InputError: If something of it is wrong, or the file's output is not that of torch.
    """
    try:
        settings = FileSettings(**fields)
    except ValidationError as error:
        raise illegal_field(error) from None
    if data and settings.format == "safetensors":
        raise InputError("`data`: safetensors holds weights, which are not checked with images")
    if not isinstance(network, str | Path):
        raise InputError(
            f"`network` is of type {type(network).__name__}; give a folder, such as `best` of a "
            "run's `path`"
        )
    exported = Path(network)
    pixels, source = None, "random images"
    if settings.format != "safetensors" and (found := _images(exported, data, settings)):
        pixels, source = found
    file = write_file(exported, out, settings, pixels)
    count = usable_cpus()
    with threads(count):
        run = forward_pass(file, threads=count)
        latency = time_calls(run, "cpu") if run is not None else None
    return Deployment(file=file, source=source, latency=latency, threads=count)


def _images(exported: Path, data: str | None, settings: FileSettings) -> tuple[Tensor, str] | None:
    """Pixels (N, 3, H, W) and where they are from; None where there are none.

    Raises:
        InputError: If images were asked for that are not there.
    """
    try:
        about = describe_exported(architecture_file(exported))
    except ArchitectureError:
        raise
    except ValueError:  # what is wrong with the weights is said where they are loaded
        return None
    if about is None or about.in_chans != 3:
        return None
    try:
        run = _run_around(exported)
        source = data or (run.data if run is not None else None)
        if source is None:
            return None
        seed = run.seed if run is not None else 0
        split = load_data(source, image_size=about.image_size, seed=seed).search
        images, _ = materialise(split, limit=IMAGES, seed=0)
    except InputError:
        if data:
            raise
        return None
    if settings.image_size not in (None, images.shape[2:]):
        images = resized(images, settings.image_size)
    return images, f"{len(images)} images of {source}"


def _run_around(exported: Path) -> RunConfig | None:
    """The configuration of the run that a folder lies in, if it does."""
    for folder in exported.resolve().parents:
        if (folder / "config.json").exists():
            with suppress(InputError):  # another program's file of that name
                return RunFolder(folder).config
    return None
