"""Exporting: each architecture of the front as a folder that stands alone."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nas.data import Data
from nas.objectives.constrained_space import ConstrainedSpace
from nas.report.cards import ModelFacts, model_card
from nas.report.facts import RunFacts, latency_text
from nas.runs.folder import RunFolder
from nas.utilities.files import make_readable, replacing_folder
from search_space import Architecture, InvertedResidual, Ladder, LocalGlobal, map_sizes
from supernet import ExportedNetwork, Network, Store, save_exported


def export_front(
    folder: RunFolder,
    store: Store,
    front: Sequence[Mapping[Any, Any]],
    *,
    constrained: ConstrainedSpace,
    data: Data,
    facts: RunFacts,
    architectures: Mapping[str, Architecture],
) -> None:
    """Write `front/<n>/` for each row, 1 being the most accurate, and `best/`, which is the first.

    Folders of an earlier export are replaced.

    Args:
        folder: The run's.
        store: The shared weights that the networks are extracted from.
        front: Rows of the table of trials, the most accurate first.
        constrained: Under which the front was found.
        data: Which the weights were trained on.
        facts: For the model cards.
        architectures: By hash.
    """
    shutil.rmtree(folder.front, ignore_errors=True)
    for number, row in enumerate(front, start=1):
        network = store.extract(architectures[str(row["hash"])])
        targets = [folder.front / str(number)] + [folder.best] * (number == 1)
        for target in targets:
            name = str(target.relative_to(folder.path))
            card = model_card(_model_facts(name, row, network, constrained, data, facts), facts)
            export_network(target, network, data, image_size=facts.proxy_size, card=card)


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
        mixer = stage.mixer
        local, seen = "none", "–"
        if isinstance(mixer, Ladder | InvertedResidual):
            local = "ladder" if isinstance(mixer, Ladder) else "MV2-SE"
        elif isinstance(mixer, LocalGlobal):
            local = f"{mixer.local_heads} of {mixer.heads}"
            seen = mixer.aggregation.label if mixer.aggregation else "–"
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


def _model_facts(
    name: str,
    row: Mapping[Any, Any],
    network: Network,
    constrained: ConstrainedSpace,
    data: Data,
    facts: RunFacts,
) -> ModelFacts:
    return ModelFacts(
        name=name,
        number=int(row["number"]),
        hash=str(row["hash"]),
        summary=str(row["summary"]),
        accuracy=float(row["accuracy"]),
        macs=int(row["macs"]),
        params=int(row["params"]),
        latency={c.device: latency_text(row, c) for c in facts.latency_columns},
        stages=stage_rows(network.architecture, constrained.image_size),
        class_names=data.class_names,
        mean=data.mean,
        std=data.std,
    )
