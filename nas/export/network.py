"""Exporting: each architecture of the front as a folder that stands alone."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from nas.data import Data
from nas.utilities.files import make_readable, replacing_folder
from search_space import Architecture, map_sizes
from supernet import ExportedNetwork, Network, save_exported


def export_front(
    folder: Path,
    networks: Iterable[Network],
    *,
    data: Data,
    image_size: int,
    card: Callable[[str, int], str],
) -> None:
    """Write `front/<n>/` for each network, counted from 1, and `best/`, which is the first.

    Folders of an earlier export are replaced.

    Args:
        folder: The run's.
        networks: Of the front, the most accurate first.
        data: Which the weights were trained on.
        image_size: Side in pixels of the images that they were trained on.
        card: The model card of an exported folder, by its name in the run's and by the place of its
            network in the sequence.
    """
    shutil.rmtree(folder / "front", ignore_errors=True)
    for place, network in enumerate(networks):
        for name in (f"front/{place + 1}", *(["best"] if place == 0 else [])):
            text = card(name, place)
            export_network(folder / name, network, data, image_size=image_size, card=text)


def export_network(
    target: Path, network: Network, data: Data, *, image_size: int, card: str
) -> None:
    """Write an exported network's folder so that it is never seen half-written."""
    about = ExportedNetwork(
        num_classes=network.num_classes,
        in_chans=network.in_chans,
        image_size=image_size,
        mean=data.mean,
        std=data.std,
        class_names=data.class_names,
    )
    with replacing_folder(target) as written:
        save_exported(written, network, about)
        make_readable(written / "weights.safetensors")
        (written / "README.md").write_text(card, encoding="utf-8")


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
                "pooling": stage.pooling or "stem",
                "width": stage.width,
                "depth": stage.depth,
                "layers per attention map": stage.sharing,
                "local heads": local,
                "global heads see": seen,
                "feed-forward": (
                    f"{stage.feed_forward.kind} ×{stage.feed_forward.ratio:g}"
                    if stage.feed_forward
                    else "–"
                ),
            }
        )
    return rows
