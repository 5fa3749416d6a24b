from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from small_runs import SMALL, command


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has come to its end; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "run"
    outcome = command("search", *SMALL, "--steps", "4", "--trials", "6", "--out", folder)
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where there is one: Optuna syncs each line of a journal to the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
