"""The data of a run stay what they were: they are held against its `data.json`."""

from nas.data import Data
from nas.data.manifest import Manifest
from nas.runs.folder import RunFolder
from nas.utilities.errors import InputError


def keep_data(folder: RunFolder, data: Data) -> list[str]:
    """Write down what the data of a run are, or see that they are still those of before.

    Args:
        folder: Of the run, held by this process.
        data: As they were loaded now.

    Returns:
        Sentences for the user: images that two splits have in common.

    Raises:
        InputError: If they have changed since the run began; it says how.
    """
    known = Manifest.load(folder.data) if folder.data.exists() else None
    manifest = Manifest.of(data, known)
    if known is not None and (difference := known.difference(manifest)):
        where = f"{data.root}: " if data.root else ""
        raise InputError(
            f"{where}the data are not those that {folder.path} began with: {difference}; "
            "put back what was there, or begin another run in another folder"
        )
    if manifest != known:
        manifest.save(folder.data)
    return manifest.leaks(data.root) if data.root else []
