"""The folder of a run: its layout and its lock."""

import logging
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from nas.runs.config import EXTENDABLE, RunConfig
from nas.utilities.differences import first_difference
from nas.utilities.errors import InputError
from nas.utilities.files import read_json, write_text

_OWN_FOLDERS = ("best", "front", "latency", "supernet", "tensorboard", "tried")
"""Folders within a run's that are not for retrainings."""

_LOCK = ".lock"
"""The lock of the folder; those of its retrainings have `-` and their names behind it."""

_DRAWING = 60.0
"""Seconds, of which another drawing takes a few."""

_READING = 600.0
"""Seconds, of which another process takes as long as its disk needs for all images."""

_MOMENT = 2.0
"""Seconds, of which another retraining holds the whole folder for a few thousandths."""


class RunFolder:
    """Where a run keeps what it knows.

    Args:
        path: The folder.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.json"
        self.data = self.path / "data.json"
        self.log = self.path / "log.txt"
        self.environment = self.path / "environment.json"
        self.checkpoint = self.path / "supernet" / "checkpoint.safetensors"
        self.origin = self.path / "supernet" / "origin.json"
        self.curve = self.path / "supernet" / "curve.csv"
        self.training_state = self.path / "supernet" / "training_state.safetensors"
        self.summary = self.path / "summary.json"
        self.summary_so_far = self.path / "summary_so_far.json"
        self.journal = self.path / "study.journal"
        self.best = self.path / "best"
        self.front = self.path / "front"
        self.tried = self.path / "tried"
        self.tensorboard = self.path / "tensorboard"

    @classmethod
    def existing(cls, path: str | Path) -> "RunFolder":
        """The folder of an earlier run.

        Raises:
            InputError: If there is no run in it.
        """
        folder = cls(path)
        if not folder.config_file.is_file():
            raise InputError(f"{path}: no run here (it has no config.json)")
        return folder

    @property
    def searched(self) -> bool:
        """Whether the process that worked in it last has searched, and draws the report itself.

        Each writes the configuration when it begins and the summary when it has searched.
        """
        begun = self.config_file.stat().st_mtime
        return self.summary.exists() and self.summary.stat().st_mtime >= begun

    @property
    def finished(self) -> bool:
        """Whether that process came to the end of its run.

        The summary so far it removes last.
        """
        return self.searched and not self.summary_so_far.exists()

    def latency_table(self, device: str) -> Path:
        """Where the latency table of a device is kept."""
        return self.path / "latency" / f"{device.replace(':', '-')}.json"

    def retrained(self, name: str) -> Path:
        """Where a retraining of that name goes.

        Raises:
            InputError: If the name is not that of a folder of its own in the run's.
        """
        target = self.path / name
        taken = target.exists() and not target.is_dir()
        if target.parent != self.path or name in ("..", *_OWN_FOLDERS) or taken:
            raise InputError(f"`name` {name!r} is no name for a new folder in {self.path}")
        return target

    @property
    def config(self) -> RunConfig:
        """The configuration that the folder belongs to.

        Raises:
            InputError: If config.json is damaged.
        """
        return read_json(self.config_file, RunConfig, remedy="put back what the run wrote")

    def write_config(self, config: RunConfig) -> None:
        """Write down the configuration that the folder belongs to."""
        write_text(self.config_file, config.model_dump_json(indent=2) + "\n")

    @contextmanager
    def claimed_for(self, config: RunConfig) -> Iterator[None]:
        """Hold the folder for one process and one configuration, creating it if needed.

        What is `EXTENDABLE` may be more than it was.

        Raises:
            InputError: If another process holds it, it belongs to another configuration, it holds
                other files, or it cannot be written; or what was found out in the block. What a
                new run has written by then is removed again.
        """
        with self.locked():
            new = not self.config_file.exists()
            before = set(self.path.iterdir())  # hidden files, where there is no run
            if new:
                self.write_config(config)
            else:
                self._check_same(config)
            try:
                yield
            except InputError:
                if new and not any(self.checkpoint.parent.glob("*.safetensors")):
                    self._remove_all_but(before)
                raise

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process alone.

        Raises:
            InputError: If another process holds it or a part of it, or it cannot be written or is
                no run's.
        """
        with self._held(_LOCK, f"{self.path}: another process is running in this folder"):
            for part in self.path.glob(f"{_LOCK}-*"):
                with self._held(part.name, f"{self.path}: another process is retraining here"):
                    pass
            yield

    @contextmanager
    def locked_for_retraining(self, name: str) -> Iterator[None]:
        """Hold the retraining of that name for this process; others may go on beside it.

        Raises:
            InputError: If another process holds that retraining or the whole folder, it cannot be
                written, or the name cannot be used.
        """
        self.retrained(name)
        running = f"{self.path}: another process is running in this folder"
        retraining = (
            f"`name` {name!r}: another process is retraining under this name; wait for it, or give "
            "another"
        )
        with ExitStack() as part:
            with self._held(_LOCK, running, wait=_MOMENT):
                part.enter_context(self._held(f"{_LOCK}-{name}", retraining))
            yield

    def locked_for_drawing(self) -> AbstractContextManager[None]:
        """Hold the pages for this process; it waits while another draws them.

        Raises:
            InputError: If that one takes too long, or the folder cannot be written.
        """
        refusal = f"{self.path}: another process is drawing the report"
        return self._held(f"{_LOCK}.drawing", refusal, wait=_DRAWING)

    def locked_for_data(self) -> AbstractContextManager[None]:
        """Hold what the folder tells of its data for this process; it waits while another does.

        Raises:
            InputError: If that one takes too long, or the folder cannot be written.
        """
        refusal = f"{self.path}: another process is reading the data of this run"
        return self._held(f"{_LOCK}.data", refusal, wait=_READING)

    @contextmanager
    def _held(self, name: str, refusal: str, *, wait: float = 0.0) -> Iterator[None]:
        """Hold a lock of the folder, if that is a run's or empty.

        Args:
            name: Of the lock's file.
            refusal: What to say if another process holds it.
            wait: Seconds for it to let go.
        """
        try:
            if self.path.is_dir() and not self.config_file.exists():
                others = [p.name for p in self.path.iterdir() if not p.name.startswith(".")]
                if others:
                    raise InputError(
                        f"{self.path}: holds other files ({sorted(others)[0]}) and no run; "
                        "give an empty or a new folder as `out`"
                    )
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / name)
            lock.acquire(timeout=wait)
        except Timeout:
            raise InputError(refusal) from None
        except OSError as error:
            raise InputError(f"{self.path}: cannot be written ({error.strerror})") from None
        try:
            yield
        finally:
            lock.release()

    def _remove_all_but(self, kept: set[Path]) -> None:
        """Remove what a run has written, and the folder if it held nothing before but our lock."""
        if {path.name for path in kept} <= {_LOCK}:
            shutil.rmtree(self.path, ignore_errors=True)
            return
        for path in set(self.path.iterdir()) - kept:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

    def _check_same(self, config: RunConfig) -> None:
        known, wanted = (c.model_dump(mode="json") for c in (self.config, config))
        if self.config.data_folder and config.data_folder:
            # It may have been moved; whether its images are the same, data.json tells.
            del known["data"], wanted["data"]
        grown = {field: (known.pop(field), wanted.pop(field)) for field in EXTENDABLE}
        if difference := first_difference(known, wanted):
            raise InputError(
                f"{self.path}: belongs to another configuration ({difference}); "
                "give another folder as `out`"
            )
        for field, (there, here) in grown.items():
            if here < there:
                raise InputError(
                    f"{self.path}: its `{field}` can only grow, from {there}, not shrink to "
                    f"{here}; give {there} or more, or another folder as `out`"
                )


class _Log(logging.FileHandler):
    """A log that cannot be written, on a full disk, is no error beside those of the results."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Nothing, where `logging` prints a traceback."""

    def close(self) -> None:
        with suppress(OSError):
            super().close()


@contextmanager
def logging_to(folder: RunFolder) -> Iterator[None]:
    """Let everything of ours that is logged go to the run's log as well."""
    handler = _Log(folder.log, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    ours = logging.getLogger("nas")
    before = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()
        ours.level, ours.propagate = before
