"""Comparing runs: from their folders to a page and two tables."""

from collections.abc import Sequence
from pathlib import Path

from nas.data.manifest import Manifest
from nas.report.comparison import Comparable, Compared
from nas.report.pages import write_comparison
from nas.runs.run import Run
from nas.utilities.differences import leaves, short
from nas.utilities.errors import InputError

SIZES = ("proxy_size", "image_size", "search_images")
"""What runs must have in common beside their data."""


def compare(runs: Sequence[Run], out: Path) -> list[Comparable]:
    """Write `compare.html`, `runs.csv` and `fronts.csv` into a folder.

    Args:
        runs: Two or more that have searched.
        out: The folder; what else lies in it stays.

    Returns:
        The runs, in groups whose numbers may be held against each other.

    Raises:
        InputError: If there are fewer, one has not searched, or the folder cannot be written.
    """
    if len(runs) < 2:
        raise InputError("two runs or more are needed to compare")
    paths = [run.path.resolve() for run in runs]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"{path}: given twice")
    names = [path.name for path in paths]
    groups: list[tuple[Run, list[Compared]]] = []
    for run, path in zip(runs, paths, strict=True):
        known = Compared(
            name=path.name if names.count(path.name) == 1 else str(path),
            trials=run.trials,
            run=run.summary,
            settings={k: short(v) for k, v in leaves(run.config.model_dump(mode="json"))},
        )
        for first, members in groups:
            if _comparable(first, run):
                members.append(known)
                break
        else:
            groups.append((run, [known]))
    compared = [Comparable(runs=members) for _, members in groups]
    try:
        write_comparison(out, compared)
    except OSError as error:
        raise InputError(f"`out` {out}: cannot be written ({error.strerror})") from None
    return compared


def _comparable(one: Run, other: Run) -> bool:
    """Whether accuracies are of the same images at the same size, and costs of the same size."""
    ours, theirs = one.summary, other.summary
    if any(getattr(ours, field) != getattr(theirs, field) for field in SIZES):
        return False
    if not all(run.folder.data.exists() for run in (one, other)):
        return (ours.data, ours.num_classes) == (theirs.data, theirs.num_classes)
    known, others = (Manifest.load(run.folder.data) for run in (one, other))
    named = known.name == others.name or bool(known.files)  # a folder may be moved
    return named and known.difference(others) is None
