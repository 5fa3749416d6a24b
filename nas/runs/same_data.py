"""The data of a run stay what they were: they are held against its `data.json`."""

from pathlib import Path

from nas.data import Data, OwnDataset
from nas.data.manifest import Manifest
from nas.data.own_dataset import OWN_DATASET
from nas.runs.config import RunConfig
from nas.runs.folder import RunFolder
from nas.utilities.errors import InputError


def keep_data(folder: RunFolder, data: Data, *, trained: RunFolder | None = None) -> list[str]:
    """Write down what the data of a run are, or see that they are still those of before.

    Args:
        folder: Of the run, held by this process.
        data: As they were loaded now.
        trained: Of the run that trained the supernet, if it is another: its data must be the same.

    Returns:
        Sentences for the user: images that two splits have in common.

    Raises:
        InputError: If they have changed since the run began; it says how.
    """
    with folder.locked_for_data():  # two retrainings may begin at once
        begun = folder if folder.data.exists() or trained is None else trained
        known = Manifest.load(begun.data) if begun.data.exists() else None
        manifest = Manifest.of(data, known)
        if known is not None and (difference := known.difference(manifest)):
            where = f"{data.root}: " if data.root else ""
            if begun is not folder:
                where = f"`data` {where}"
            raise InputError(
                f"{where}the data are not those that {begun.path} began with: {difference}; "
                "put back what was there, or begin another run in another folder"
            )
        if manifest != known or begun is not folder:
            manifest.save(folder.data)
    return manifest.leaks(data.root) if data.root else []


def data_again(config: RunConfig, given: str | Path | OwnDataset | None) -> str | OwnDataset:
    """What `load_data` is to load for a run that exists.

    Args:
        config: Of the run.
        given: Where the user says that its data are; None for where they were.

    Raises:
        InputError: If it is other data, or the run's are not there.
    """
    if isinstance(given, OwnDataset):
        if given.identity != config.data:
            raise InputError(f"`data`: the run has {config.data}, not {given.identity}")
        return given
    if config.data.startswith(OWN_DATASET):
        raise InputError(f"`data`: the run was made from {config.data}; give it again, from Python")
    if given is None:
        if config.data_folder and not config.data_folder.is_dir():
            raise InputError(
                f"`data`: {config.data}, where the images of the run were, is no folder; "
                "say where they are now"
            )
        return config.data
    folder = Path(given).expanduser()
    if config.data_folder and folder.is_dir():
        return str(folder.resolve())
    if str(given) != config.data:
        wanted = "a folder with the images of" if config.data_folder else "that is"
        raise InputError(f"`data` {given}: not the data of the run, {wanted} {config.data}")
    return config.data
