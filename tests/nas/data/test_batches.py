import multiprocessing
import os
import random
import signal
import time
from itertools import chain

import numpy as np
import pytest
import torch
from torch import Tensor

import nas.data.batches
from nas.data import Data, Samples, materialise, normalise, train_batches
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest


class Noise(Samples):
    """Item i is labelled i; its pixels are drawn from all three global generators."""

    def __init__(self, size: int, broken: int | None = None) -> None:
        self.size = size
        self.broken = broken

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.broken:
            raise InputError("dog.jpg: broken image")
        image = torch.randint(256, (3, 4, 4), dtype=torch.uint8)
        image[0, 0, 0] = random.randrange(256)
        image[0, 0, 1] = int(np.random.randint(256))
        return image, index


def noise(size: int = 10, broken: int | None = None) -> Data:
    return Data(
        name="noise",
        train=Noise(size, broken),
        search=Noise(size),
        test=Noise(size),
        class_names=tuple(map(str, range(size))),
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        epoch_size=size,
        notes=(),
    )


def flat(batches: list[tuple[Tensor, Tensor]]) -> list[int]:
    return list(chain.from_iterable([*x.flatten().tolist(), *y.tolist()] for x, y in batches))


def test_batches_are_full_uint8_images_and_int64_labels() -> None:
    batches = list(train_batches(noise(), batch_size=4, seed=0, steps=6))
    assert len(batches) == 6
    for images, labels in batches:
        assert images.shape == (4, 3, 4, 4) and images.dtype == torch.uint8
        assert labels.shape == (4,) and labels.dtype == torch.int64


@pytest.mark.parametrize("workers", [0, 2])
def test_a_batch_depends_on_seed_and_number_alone(workers: int) -> None:
    whole = list(train_batches(noise(), batch_size=4, seed=7, steps=6))
    random.seed(99)
    np.random.seed(98)
    torch.manual_seed(97)
    entered_later = list(
        train_batches(noise(), batch_size=4, seed=7, first_step=2, steps=4, workers=workers)
    )
    assert flat(entered_later) == flat(whole[2:])


def test_other_seeds_give_other_batches_and_no_two_draws_are_augmented_alike() -> None:
    first = list(train_batches(noise(), batch_size=10, seed=0, steps=2))
    other = list(train_batches(noise(), batch_size=10, seed=1, steps=2))
    assert flat(first) != flat(other)
    assert first[0][1].tolist() != first[1][1].tolist()
    images = torch.cat([images for images, _ in first]).flatten(1)
    assert len(images.unique(dim=0)) == 20


@pytest.mark.parametrize("workers", [0, 1])
def test_the_parts_of_a_batch_put_together_are_the_batch_and_augmented_alike(workers: int) -> None:
    asked = {"batch_size": 6, "seed": 7, "first_step": 1, "steps": 3}  # across an epoch's border
    whole = list(train_batches(noise(), **asked))
    parts = [
        train_batches(noise(), **asked, part=(number, 3), workers=workers) for number in range(3)
    ]
    for (images, labels), *pieces in zip(whole, *parts, strict=True):
        assert [len(some_labels) for _, some_labels in pieces] == [2, 2, 2]
        assert torch.equal(torch.cat([some_images for some_images, _ in pieces]), images)
        assert torch.equal(torch.cat([some_labels for _, some_labels in pieces]), labels)


def test_every_epoch_shows_each_image_once_across_the_borders_of_batches() -> None:
    drawn = [
        label
        for _, labels in train_batches(noise(10), batch_size=4, seed=3, steps=5)
        for label in labels.tolist()
    ]
    assert sorted(drawn[:10]) == sorted(drawn[10:]) == list(range(10))


def test_a_batch_may_be_larger_than_the_data() -> None:
    ((_, labels),) = train_batches(noise(3), batch_size=7, seed=0, steps=1)
    assert labels.bincount().tolist() in ([3, 2, 2], [2, 3, 2], [2, 2, 3])


@pytest.mark.parametrize("workers", [0, 1])
def test_drawing_leaves_the_global_generators_as_they_were(workers: int) -> None:
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    list(train_batches(noise(), batch_size=2, seed=0, steps=2, workers=workers))
    materialise(Noise(4), limit=None, seed=0, workers=workers)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]
    assert torch.equal(torch.get_rng_state(), states[2])


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_image_raises_its_one_line_also_out_of_a_worker(workers: int) -> None:
    with pytest.raises(InputError) as caught:
        list(train_batches(noise(broken=3), batch_size=4, seed=0, steps=9, workers=workers))
    assert str(caught.value) == "dog.jpg: broken image"
    with pytest.raises(InputError, match=r"^dog\.jpg: broken image$"):
        materialise(Noise(5, broken=4), limit=None, seed=0, workers=workers)


def test_materialise_keeps_the_order_and_is_the_same_with_workers() -> None:
    images, labels = materialise(Noise(300), limit=None, seed=0)
    assert images.shape == (300, 3, 4, 4) and images.dtype == torch.uint8
    assert labels.tolist() == list(range(300))
    again, _ = materialise(Noise(300), limit=None, seed=0, workers=2)
    assert torch.equal(images, again)


def test_materialise_takes_at_most_the_limit_and_the_seed_chooses() -> None:
    _, labels = materialise(Noise(300), limit=20, seed=0)
    assert len(set(labels.tolist())) == 20
    assert labels.tolist() == sorted(labels.tolist())
    assert torch.equal(materialise(Noise(300), limit=20, seed=0)[1], labels)
    assert not torch.equal(materialise(Noise(300), limit=20, seed=1)[1], labels)
    assert len(materialise(Noise(5), limit=20, seed=0)[1]) == 5


def test_normalise_gives_zero_mean_and_unit_variance_for_the_given_statistics() -> None:
    images = torch.randint(256, (8, 3, 16, 16), dtype=torch.uint8)
    scaled = images.double() / 255
    std, mean = torch.std_mean(scaled, dim=(0, 2, 3), correction=0)
    normal = normalise(images, tuple(mean.tolist()), tuple(std.tolist()))
    assert normal.dtype == torch.float32
    std, mean = torch.std_mean(normal, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-5, rtol=0)


class Slow(Noise):
    """Its worker sleeps, hangs or is killed at image 3."""

    def __init__(self, what: str) -> None:
        super().__init__(8)
        self.what = what

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == 3 and self.what == "sleeps":
            time.sleep(0.3)
        elif index == 3:
            os.kill(os.getpid(), getattr(signal, self.what))
        return super().__getitem__(index)


def test_a_worker_that_is_slow_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.data.batches, "_LOOK_SECONDS", 0.05)
    images, labels = materialise(Slow("sleeps"), limit=None, seed=0, workers=1)
    assert labels.tolist() == list(range(8))
    assert not images.is_shared()  # containers have little shared memory


@pytest.mark.parametrize(
    ("what", "told"), [("SIGKILL", "a process that loads images died"), ("SIGSTOP", "no images")]
)
def test_a_worker_that_dies_or_hangs_is_told_in_one_line(
    what: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nas.data.batches, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(nas.data.batches, "_PATIENCE_SECONDS", 0.5)
    with pytest.raises(InputError, match=f"`loader_workers` 1: {told}"):
        materialise(Slow(what), limit=None, seed=0, workers=1)
    assert not multiprocessing.active_children()


def test_a_stop_is_heeded_while_a_worker_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nas.data.batches, "_LOOK_SECONDS", 0.05)
    stop = StopRequest()
    stop.requested = True
    with pytest.raises(Interrupted):
        materialise(Slow("SIGSTOP"), limit=None, seed=0, workers=1, stop=stop)
    assert not multiprocessing.active_children()


def test_a_repeated_image_is_drawn_in_a_row_and_augmented_anew_each_time() -> None:
    once = list(train_batches(noise(), batch_size=5, seed=0, steps=2))
    thrice = list(train_batches(noise(), batch_size=5, seed=0, steps=6, repeats=3))
    order = torch.cat([labels for _, labels in once])
    assert torch.equal(torch.cat([labels for _, labels in thrice]), order.repeat_interleave(3))
    images = torch.cat([images for images, _ in thrice]).flatten(1)
    assert len(images.unique(dim=0)) == 30
    (resumed,) = train_batches(noise(), batch_size=5, seed=0, first_step=4, steps=1, repeats=3)
    assert torch.equal(resumed[0], thrice[4][0])
