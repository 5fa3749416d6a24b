"""The loop, with a learner that takes no time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import nas.training.loop
from nas.data import Data, Samples, normalise, train_batches
from nas.training.loop import CHECKPOINT_SECONDS, Session, train
from nas.training.schedule import learning_rate
from nas.training.settings import TrainingSettings
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest

SETTINGS = TrainingSettings(steps=6, batch_size=4, lr=0.1, seed=3)
IDENTITY = {"steps": 6, "strategy": {"name": "none"}}


class Noise(Samples):
    """Twenty images of noise, drawn anew each time."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.randint(255, (3, 4, 4), dtype=torch.uint8), index % 2


DATA = Data(
    name="noise",
    train=Noise(),
    search=Noise(),
    test=Noise(),
    class_names=("even", "odd"),
    mean=(0.4, 0.5, 0.6),
    std=(0.2, 0.2, 0.2),
    epoch_size=20,
    notes=(),
)


class Linear:
    """A linear layer under gradient descent with momentum, which learns from two losses a step."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.layer = nn.Linear(48, 2)
        self.moment = torch.zeros_like(self.layer.weight)
        self.scale = 1.0
        self.batches: list[tuple[int, Tensor, Tensor]] = []
        self.gradients: list[Tensor] = []
        self.rates: list[float] = []

    def losses(self, step: int, images: Tensor, labels: Tensor) -> Iterator[Tensor]:
        self.batches.append((step, images, labels))
        yield nn.functional.cross_entropy(self.layer(images.flatten(1)), labels)
        assert self.layer.weight.grad is not None  # went backward before the next loss
        yield self.scale * self.layer.weight.square().mean()

    def update(self, *, lr: float) -> None:
        gradient = self.layer.weight.grad
        assert gradient is not None
        self.gradients.append(gradient.clone())
        self.rates.append(lr)
        with torch.no_grad():
            self.moment.mul_(0.9).add_(gradient)
            self.layer.weight -= lr * self.moment
        self.layer.zero_grad()

    def state_dict(self) -> dict[str, Tensor]:
        return {"weights.weight": self.layer.weight.detach(), "optimizer.moment": self.moment}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            self.layer.weight.copy_(state["weights.weight"])
        self.moment.copy_(state["optimizer.moment"])


class Crash(Exception):
    """Stands for SIGKILL: training has no chance to save."""


def run(
    path: Path,
    learner: Linear | None = None,
    *,
    stop_after: int | None = None,
    crash_after: int | None = None,
    identity: Mapping[str, Any] = IDENTITY,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    crash: Exception | None = None,
) -> tuple[Linear, list[tuple[int, Sequence[float]]]]:
    """Train as a process does that is interrupted or killed after a step, or neither."""
    learner = learner or Linear()
    stop = StopRequest()
    shown: list[tuple[int, Sequence[float]]] = []

    def on_step(step: int, losses: Sequence[float]) -> None:
        shown.append((step, losses))
        stop.requested = step == stop_after
        if step == crash_after:
            raise crash or Crash

    train(
        learner,
        Session(
            data=DATA,
            device=torch.device("cpu"),
            stop=stop,
            checkpoint_seconds=checkpoint_seconds,
        ),
        settings=SETTINGS,
        state=path / "state.safetensors",
        identity=identity,
        on_step=on_step,
    )
    return learner, shown


def test_every_batch_of_the_seed_is_learned_once_and_normalised(tmp_path: Path) -> None:
    learner, _ = run(tmp_path)
    wanted = train_batches(DATA, batch_size=4, seed=3, steps=6)
    for number, (found, (images, labels)) in enumerate(zip(learner.batches, wanted, strict=True)):
        assert found[0] == number
        assert torch.equal(found[1], normalise(images, DATA.mean, DATA.std))
        assert torch.equal(found[2], labels)


def test_gradients_of_all_losses_add_up_before_the_weights_move_once(tmp_path: Path) -> None:
    learner, shown = run(tmp_path)
    fresh = Linear()
    _, images, labels = learner.batches[0]
    both = [
        nn.functional.cross_entropy(fresh.layer(images.flatten(1)), labels),
        fresh.layer.weight.square().mean(),
    ]
    torch.stack(both).sum().backward()
    torch.testing.assert_close(learner.gradients[0], fresh.layer.weight.grad)
    assert len(learner.gradients) == 6
    assert shown[0][1] == pytest.approx([loss.item() for loss in both])


def test_each_step_has_the_learning_rate_of_the_schedule(tmp_path: Path) -> None:
    learner, shown = run(tmp_path)
    assert learner.rates == [learning_rate(step, SETTINGS) for step in range(6)]
    assert [step for step, _ in shown] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("after", [1, 4, 6])
def test_a_stopped_training_saves_and_goes_on_as_if_nothing_had_been(
    tmp_path: Path, after: int
) -> None:
    straight, shown = run(tmp_path / "straight")
    with pytest.raises(Interrupted):
        run(tmp_path / "stopped", stop_after=after)
    resumed, rest = run(tmp_path / "stopped")
    assert rest == shown[after:]
    for name, tensor in straight.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor)


def test_a_training_that_is_stopped_before_its_first_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: Any, **__: Any) -> Iterator[tuple[Tensor, Tensor]]:
        raise Interrupted(2)
        yield

    with monkeypatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(nas.training.loop, "train_batches", waits)
        run(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run(tmp_path, crash_after=4, checkpoint_seconds=-1.0)
    _, shown = run(tmp_path)
    assert [step for step, _ in shown] == [4, 5, 6]


def test_between_checkpoints_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run(tmp_path, crash_after=4, checkpoint_seconds=math.inf)
    assert list(tmp_path.iterdir()) == []
    _, shown = run(tmp_path, checkpoint_seconds=math.inf)
    assert [step for step, _ in shown] == [1, 2, 3, 4, 5, 6]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_told_with_the_rate_and_moves_nothing(
    tmp_path: Path, value: float
) -> None:
    learner = Linear()
    learner.scale = value  # of the second loss of each step
    before = learner.layer.weight.detach().clone()
    with pytest.raises(
        InputError, match=rf"^`lr` 0\.1: the loss is {value} at step 1; try a lower"
    ):
        run(tmp_path, learner, checkpoint_seconds=-1.0)
    assert torch.equal(learner.layer.weight, before)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_is_refused_and_left_alone(tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop_after=2)
    state = tmp_path / "state.safetensors"
    kept = state.read_bytes()
    with pytest.raises(InputError, match=r'strategy\.name is "none" there, "other" here') as raised:
        run(tmp_path, identity={**IDENTITY, "strategy": {"name": "other"}})
    assert str(state) in str(raised.value)
    assert state.read_bytes() == kept


@pytest.mark.parametrize("absent", ["weights.weight", "optimizer.moment"])
def test_a_checkpoint_without_some_of_the_state_is_refused(tmp_path: Path, absent: str) -> None:
    with pytest.raises(Interrupted):
        run(tmp_path, stop_after=2)
    state = tmp_path / "state.safetensors"
    tensors = load_file(state)
    del tensors[absent]
    save_file(tensors, state, metadata={"step": "2", "identity": '{"steps": 6}'})
    with pytest.raises(InputError, match=f"cannot be resumed from .*it lacks {absent}"):
        run(tmp_path, identity={"steps": 6})


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    ],
)
def test_too_little_memory_is_told_with_the_size_of_the_batch(
    tmp_path: Path, error: Exception
) -> None:
    with pytest.raises(InputError, match="`batch_size` 4: cpu has too little memory"):
        run(tmp_path, crash_after=1, crash=error)


def test_a_single_image_that_batch_norm_cannot_take_is_told_with_the_size_of_the_batch(
    tmp_path: Path,
) -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel") as found:
        torch.nn.BatchNorm2d(3)(torch.ones(1, 3, 1, 1))
    with pytest.raises(InputError, match="`batch_size` 4: too few for the batch norms"):
        run(tmp_path, crash_after=1, crash=found.value)


def test_other_errors_of_a_training_stay_what_they_are(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        run(tmp_path, crash_after=1, crash=RuntimeError("mat1 and mat2 cannot be multiplied"))
