"""Exporting: each architecture of the front as a folder that stands alone."""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from nas.data import Data
from nas.utilities.files import replacing_files
from search_space import Architecture, map_sizes
from search_space.architecture import ARCHITECTURE
from search_space.parts import POOLINGS
from supernet import ExportedNetwork, Network, save_exported
from supernet.exported import WEIGHTS

CARD, PICTURE = "README.md", "architecture.svg"
FILES = (ARCHITECTURE, WEIGHTS, CARD, PICTURE)
"""What an export writes into a folder."""


def export_front(
    folder: Path,
    networks: Iterable[Network],
    *,
    data: Data,
    image_size: int,
    card: Callable[[str, int], str],
    picture: Callable[[int], str],
) -> None:
    """Write `front/<n>/` for each network, counted from 1, and `best/`, which is the first.

    What an earlier export wrote is replaced or removed; other files beside it are let alone.

    Args:
        folder: The run's.
        networks: Of the front, the best first.
        data: Which the weights were trained on.
        image_size: Side in pixels of the images that they were trained on.
        card: The model card of an exported folder, by its name in the run's and by the place of its
            network in the sequence.
        picture: The picture of a network, in SVG, by its place.
    """
    earlier = exported_front(folder)
    exported = []
    for place, network in enumerate(networks):
        for name in (f"front/{place + 1}", *(["best"] if place == 0 else [])):
            export_network(
                folder / name,
                network,
                data,
                image_size=image_size,
                card=card(name, place),
                picture=picture(place),
            )
            exported.append(folder / name)
    for target in earlier:
        if target not in exported:
            _remove(target)


def exported_front(folder: Path, name: str = "front") -> list[Path]:
    """The folders of a run's front that an export wrote, the best network first.

    Args:
        folder: The run's.
        name: Of another folder in it, in which the networks of the front are.
    """
    numbered = (
        path for path in (folder / name).glob("*") if re.fullmatch(r"[1-9][0-9]*", path.name)
    )
    written = (path for path in numbered if any((path / name).exists() for name in FILES))
    return sorted(written, key=lambda path: int(path.name))


def _remove(target: Path) -> None:
    """Remove what an export wrote, and its folder where nothing else is in it."""
    for name in FILES:
        (target / name).unlink(missing_ok=True)
    if not any(target.iterdir()):
        target.rmdir()


def export_network(
    target: Path, network: Network, data: Data, *, image_size: int, card: str, picture: str
) -> None:
    """Write an exported network's files into a folder so that they are never seen half-written.

    Other files in it are let alone.
    """
    about = ExportedNetwork(
        num_classes=network.num_classes,
        in_chans=network.in_chans,
        image_size=image_size,
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
        crop_pct=data.crop,
    )
    with replacing_files(target, last=ARCHITECTURE) as written:
        save_exported(written, network, about)
        (written / CARD).write_text(card, encoding="utf-8")
        (written / PICTURE).write_text(picture, encoding="utf-8")


def stage_rows(architecture: Architecture, image_size: int) -> list[dict[str, object]]:
    """The stages of an architecture as rows for people."""
    rows: list[dict[str, object]] = []
    sizes = map_sizes(image_size, architecture)
    for number, (stage, size) in enumerate(zip(architecture.stages, sizes, strict=True), start=1):
        local, seen = stage.mixer.table_cells
        rows.append(
            {
                "stage": number,
                "map": f"{size[1]} tokens" if stage.class_token else f"{size[0]}×{size[1]}",
                "pooling": POOLINGS[stage.pooling].short if stage.pooling else "stem",
                "width": stage.width,
                "depth": stage.depth,
                "layers per attention map": stage.sharing,
                "local heads": local,
                "global heads see": seen,
                "feed-forward": stage.feed_forward.word.text if stage.feed_forward else "–",
            }
        )
    return rows
