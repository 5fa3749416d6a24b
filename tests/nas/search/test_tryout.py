"""Successive halving of a short list in this process; `tests/nas/runs` does it on Ray Tune."""

import os
import random
import shutil
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import NANO

import nas.search.tryout
from nas.data import Data, load_data, materialise
from nas.search.settings import TryoutSettings
from nas.search.trials import Tried
from nas.search.tryout import (
    FreshWeights,
    OnTried,
    Tryout,
    climb_here,
    finalists,
    halve,
    planned_steps,
)
from nas.training.accuracy import fit
from nas.utilities.errors import Diverged, InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from search_space import Architecture
from supernet import Network, Store

SETTINGS = TryoutSettings(first_rung=2, reduction=2, rungs=3)
SHORT = SETTINGS.model_copy(update={"rungs": 2})


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


@pytest.fixture(scope="module")
def store() -> Store:
    return Store(NANO, num_classes=10, seed=3)


@pytest.fixture(scope="module")
def candidates() -> list[Architecture]:
    rng = random.Random(5)
    return [NANO.sample(rng) for _ in range(4)]


def prepared(
    path: Path, digits: Data, store: Store, candidates: list[Architecture], **changes: Any
) -> Tryout:
    images, labels = materialise(digits.search, limit=40, seed=0)
    values: dict[str, Any] = {
        "folder": path,
        "settings": SETTINGS,
        "data": digits,
        "images": images,
        "labels": labels,
        "image_size": 32,
        "batch_size": 8,
        "seed": 0,
        "device": "cpu",
    }
    tryout = Tryout(**values | changes)
    for candidate in candidates:
        tryout.enter(candidate, store)
    return tryout


def run(tryout: Tryout, candidates: list[Architecture], stop: StopRequest | None = None) -> Any:
    told: list[tuple[str, Tried]] = []
    steps: list[int] = []
    climb = partial(climb_here, tryout=tryout, stop=stop or StopRequest(), on_step=steps.append)
    halve(
        candidates,
        settings=tryout.settings,
        climb=climb,
        on_tried=lambda candidate, tried: told.append((candidate.hash, tried)),
    )
    return told, sum(steps)


@pytest.fixture(scope="module")
def climbed(
    tmp_path_factory: pytest.TempPathFactory,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
) -> tuple[Tryout, list[tuple[str, Tried]], int]:
    """A tryout that is over, not to be changed; what was told of it, and its steps."""
    tryout = prepared(tmp_path_factory.mktemp("climbed"), digits, store, candidates)
    return tryout, *run(tryout, candidates)


def test_half_of_each_rung_climbs_the_next(
    climbed: tuple[Tryout, list[tuple[str, Tried]], int],
) -> None:
    _, told, steps = climbed
    assert [[tried.steps for _, tried in told].count(rung) for rung in (2, 4, 8)] == [4, 2, 1]
    assert steps == planned_steps(SETTINGS, 4) == 4 * 2 + 2 * 2 + 1 * 4
    assert planned_steps(SETTINGS, 4, workers=3) == 2 * 2 + 1 * 2 + 1 * 4


def test_a_rung_is_not_climbed_without_the_one_before(
    tmp_path: Path, digits: Data, store: Store, candidates: list[Architecture]
) -> None:
    tryout = prepared(tmp_path, digits, store, candidates[:1])
    with pytest.raises(InputError, match="it lacks the rung of 2 steps"):
        tryout.climb(candidates[0], 1, stop=StopRequest(), on_step=lambda steps: None)


def test_who_goes_on_is_the_most_accurate_and_where_that_is_too_close_the_smallest_loss(
    candidates: list[Architecture],
) -> None:
    rungs: list[dict[str, tuple[float, float]]] = [
        {"0": (0.90, 0.31), "1": (0.88, 0.29), "2": (0.89, 0.30), "3": (0.70, 0.2)},
        {"1": (0.95, 0.31), "2": (0.90, 0.1)},
        {"1": (0.96, 0.20)},
    ]
    names = {candidate.hash: str(place) for place, candidate in enumerate(candidates)}
    told: list[tuple[str, int]] = []

    def climb(climbing: Sequence[Architecture], rung: int, on_tried: OnTried) -> None:
        for candidate in climbing:
            name = names[candidate.hash]
            accuracy, loss = rungs[rung][name]
            on_tried(candidate, Tried(steps=rung, accuracy=accuracy, loss=loss, images=100))

    halve(
        candidates,
        settings=SETTINGS,
        climb=climb,
        on_tried=lambda candidate, tried: told.append((names[candidate.hash], tried.steps)),
    )
    assert told == [("0", 0), ("1", 0), ("2", 0), ("3", 0), ("1", 1), ("2", 1), ("1", 2)]


def test_those_that_stand_first_come_to_the_final_but_nobody_alone() -> None:
    def tried(accuracy: float, loss: float) -> Tried:
        return Tried(steps=9, accuracy=accuracy, loss=loss, images=100)

    reached = {"a": tried(0.5, 0.1), "b": tried(0.9, 0.31), "c": tried(0.91, 0.32)}
    assert finalists(reached, 2) == ["b", "c"]
    assert finalists(reached, 9) == ["a", "b", "c"]
    assert finalists(reached, 1) == finalists({"a": reached["a"]}, 4) == finalists({}, 4) == []


def test_in_the_final_candidates_begin_with_fresh_weights_in_files_of_their_own(
    tmp_path: Path,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
    climbed: tuple[Tryout, list[tuple[str, Tried]], int],
) -> None:
    folder = Path(shutil.copytree(climbed[0].folder, tmp_path / "over"))
    changes = {"settings": SETTINGS.model_copy(update={"final_steps": 3})}
    tryout = prepared(folder, digits, store, candidates, **changes)
    before = {n: t.clone() for n, t in tryout.weights(candidates[0]).items()}
    final = tryout.final
    for candidate in candidates[:2]:
        final.enter(candidate, FreshWeights(10, seed=1))
    drawn = FreshWeights(10, seed=1).extract(candidates[0]).state_dict()
    assert all(torch.equal(t, drawn[n]) for n, t in final.weights(candidates[0]).items())
    told, steps = run(final, candidates[:2])
    assert steps == 6
    assert [tried.steps for _, tried in told] == [3, 3]
    assert all(torch.equal(t, before[n]) for n, t in tryout.weights(candidates[0]).items())
    assert tryout.reached(candidates[0]).steps in SETTINGS.milestones


def test_candidates_begin_with_what_they_inherit(
    tmp_path: Path, digits: Data, store: Store, candidates: list[Architecture]
) -> None:
    tryout = prepared(tmp_path, digits, store, candidates[:1])
    before = {n: t.clone() for n, t in tryout.weights(candidates[0]).items()}
    for name, tensor in store.subnet(candidates[0]).state_dict().items():
        assert torch.equal(before[name], tensor)
    tryout.climb(candidates[0], 0, stop=StopRequest(), on_step=lambda steps: None)
    assert any(not torch.equal(t, before[n]) for n, t in tryout.weights(candidates[0]).items())


def test_a_tryout_that_is_stopped_anywhere_comes_to_the_same_end_and_trains_nothing_twice(
    tmp_path: Path, digits: Data, store: Store, candidates: list[Architecture]
) -> None:
    # Stopped within a rung and at its end, in the first and in the last.
    candidates, changes = candidates[:2], {"settings": SHORT}
    whole = prepared(tmp_path / "whole", digits, store, candidates, **changes)
    told, planned = run(whole, candidates)
    tryout, trained = prepared(tmp_path / "parts", digits, store, candidates, **changes), 0
    again: list[tuple[str, Tried]] = []
    for _ in range(planned + 2):
        stop = StopRequest()

        def one(steps: int, stop: StopRequest = stop) -> None:
            nonlocal trained
            trained += steps
            stop.requested = True

        try:
            again.clear()
            parts = prepared(tmp_path / "parts", digits, store, candidates, **changes)
            halve(
                candidates,
                settings=parts.settings,
                climb=partial(climb_here, tryout=parts, stop=stop, on_step=one),
                on_tried=lambda candidate, tried: again.append((candidate.hash, tried)),
            )
            break
        except Interrupted:
            pass
    assert again == told
    assert trained == planned
    for candidate in candidates:
        expected = whole.weights(candidate)
        for name, tensor in tryout.weights(candidate).items():
            assert torch.equal(tensor, expected[name])
    assert not list((tmp_path / "parts").glob(".*"))


def test_a_state_that_was_left_at_the_end_of_a_rung_hinders_nobody(
    tmp_path: Path,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
) -> None:
    candidates = candidates[:2]
    tryout = prepared(tmp_path, digits, store, candidates, settings=SHORT)
    stop = StopRequest()
    stop.requested = True  # after its first step, of two
    with pytest.raises(Interrupted):
        tryout.climb(candidates[0], 0, stop=stop, on_step=lambda steps: None)
    (state,) = tmp_path.glob(".*")
    before = state.read_bytes()
    tryout.climb(candidates[0], 0, stop=StopRequest(), on_step=lambda steps: None)
    state.write_bytes(before)  # as if the process had been killed before it removed the state
    told, _ = run(tryout, candidates)
    assert [tried.steps for _, tried in told].count(4) == 1
    assert not list(tmp_path.glob(".*"))


def test_what_a_candidate_reached_is_what_its_weights_are_of(
    tmp_path: Path,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
    climbed: tuple[Tryout, list[tuple[str, Tried]], int],
) -> None:
    entered = prepared(tmp_path, digits, store, candidates[:1])
    assert entered.reached(candidates[0]) == Tried(steps=0)
    tryout, told, _ = climbed
    for candidate in candidates:
        reached = tryout.reached(candidate)
        assert reached == [t for h, t in told if h == candidate.hash][-1]
        network = Network(candidate, num_classes=10)
        network.load_state_dict(tryout.weights(candidate))
        found = fit(network, tryout.images, tryout.labels, mean=digits.mean, std=digits.std)
        assert (reached.accuracy, reached.loss) == found


def test_what_diverges_leaves_the_list_and_is_named(
    tmp_path: Path,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = nas.search.tryout.train_alone

    def diverging(network: Any, **rest: Any) -> None:
        if network.architecture.hash == candidates[1].hash:
            raise Diverged("`lr` 0.001: the loss is nan at step 1; try a lower rate")
        train(network, **rest)

    monkeypatch.setattr(nas.search.tryout, "train_alone", diverging)
    candidates = candidates[:2]
    told, _ = run(prepared(tmp_path, digits, store, candidates, settings=SHORT), candidates)
    ((tried),) = [tried for name, tried in told if name == candidates[1].hash]
    assert tried.accuracy is None
    assert "the loss is nan" in tried.error
    assert [tried.steps for _, tried in told][-1] == 4


def test_what_gives_no_numbers_leaves_the_list_and_is_named(
    tmp_path: Path,
    digits: Data,
    store: Store,
    candidates: list[Architecture],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train = nas.search.tryout.train_alone

    def overflowing(network: Any, **rest: Any) -> None:
        train(network, **rest)
        if network.architecture.hash == candidates[1].hash:
            next(iter(network.head.parameters())).data.fill_(float("inf"))

    monkeypatch.setattr(nas.search.tryout, "train_alone", overflowing)
    candidates = candidates[:2]
    told, _ = run(prepared(tmp_path, digits, store, candidates, settings=SHORT), candidates)
    ((tried),) = [tried for name, tried in told if name == candidates[1].hash]
    assert tried == Tried(steps=0, error="class scores of the network are infinite or not a number")
    assert [tried.steps for _, tried in told][-1] == 4


def test_a_damaged_file_is_named(
    tmp_path: Path, digits: Data, store: Store, candidates: list[Architecture]
) -> None:
    candidates = candidates[:2]
    tryout = prepared(tmp_path, digits, store, candidates)
    path = tmp_path / f"{candidates[1].hash}.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match=candidates[1].hash):
        run(tryout, candidates)


def test_the_last_file_that_a_candidate_has_written_is_known_by_its_time(
    tmp_path: Path, candidates: list[Architecture]
) -> None:
    tryout: Any = Namespace(folder=tmp_path)
    hash = candidates[0].hash
    assert Tryout.last_saved(tryout, candidates[0]) == 0
    for name, written in (f"{hash}.safetensors", 5), (f".{hash}.40.state.safetensors", 9):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(0, written))
    assert Tryout.last_saved(tryout, candidates[0]) == 9
