from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from small_runs import SMALL, command, without_figures

import nas.data.digits
import nas.latency.measure
from nas.objectives.objective import CLOSED_FORM, Objective


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has come to its end; not to be changed."""
    folder = tmp_path_factory.mktemp("small") / "run"
    outcome = command("search", *SMALL, "--steps", "4", "--trials", "6", "--out", folder)
    assert outcome.status == 0, outcome.err
    return folder


@pytest.fixture
def undrawn() -> Iterator[None]:
    """Pages without figures, for tests that do not look at these."""
    with without_figures():
        yield


@pytest.fixture
def few_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small test split of the embedded data; to draw all takes longer than a short training."""
    monkeypatch.setattr(nas.data.digits, "TEST_CANVASES", 100)


@pytest.fixture
def short_measurements(monkeypatch: pytest.MonkeyPatch) -> None:
    """Latencies that are measured in no time, and are no more to be relied on."""
    monkeypatch.setattr(nas.latency.measure, "WARM_UP_SECONDS", 0.0)
    monkeypatch.setattr(nas.latency.measure, "MEASURED_SECONDS", 0.0)
    monkeypatch.setattr(nas.latency.measure, "MOST_ROUNDS", 1)


@pytest.fixture
def energy(monkeypatch: pytest.MonkeyPatch) -> Objective:
    """An objective that is added in one entry: energy, by rule of thumb."""
    added = Objective(
        name="energy",
        label="energy",
        unit="mJ",
        definition="energy of one image at {image_size} px",
        # Horowitz, 2014: 4.6 pJ for a multiply-add, 640 pJ to fetch 4 bytes from memory.
        value=lambda cost: 4.6e-9 * cost.macs + 640e-9 * cost.activations,
    )
    monkeypatch.setitem(CLOSED_FORM, "energy", added)
    return added


@pytest.fixture
def memory_path() -> Iterator[Path]:
    """A folder in memory, where there is one: Optuna syncs each line of a journal to the disk."""
    memory = Path("/dev/shm")
    with TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)
