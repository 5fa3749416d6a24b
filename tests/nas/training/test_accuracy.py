import math
import random
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from small_runs import NANO
from torch import Tensor, nn

from nas.data import Data, load_data, materialise, normalise
from nas.training import accuracy
from nas.training.accuracy import SubnetEvaluator, confusion_matrix, fit, predict
from nas.training.loop import autocast
from nas.utilities.errors import Diverged
from search_space import Architecture
from supernet import Store


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


@pytest.fixture(scope="module")
def images(digits: Data) -> tuple[Tensor, Tensor]:
    return materialise(digits.search, limit=120, seed=0)


@pytest.fixture
def evaluator(digits: Data, images: tuple[Tensor, Tensor]) -> SubnetEvaluator:
    """An evaluator over weights that make most subnets answer differently."""
    store = Store(NANO, num_classes=10, seed=0)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, tensor in store.state_dict().items():
            if tensor.ndim > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5, generator=generator)
            elif name.endswith("bias") or name.endswith("running_mean"):
                tensor.normal_(0, 0.5, generator=generator)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5, generator=generator)
    return SubnetEvaluator(store, *images, mean=digits.mean, std=digits.std, threads=1)


@pytest.fixture
def architectures() -> list[Architecture]:
    return random.Random(0).sample(list(NANO.enumerate()), 8)


def test_a_score_does_not_depend_on_what_was_evaluated_before(
    evaluator: SubnetEvaluator, architectures: list[Architecture]
) -> None:
    forwards = [evaluator.fit(a) for a in architectures]
    backwards = [evaluator.fit(a) for a in reversed(architectures)]
    assert forwards == backwards[::-1]
    assert len(set(forwards)) > 2  # else the test would say nothing


def test_a_score_is_that_of_the_extracted_network(
    evaluator: SubnetEvaluator, architectures: list[Architecture]
) -> None:
    for architecture in architectures:
        alone = fit(
            evaluator.store.extract(architecture),
            evaluator.images,
            evaluator.labels,
            mean=evaluator.mean,
            std=evaluator.std,
        )
        assert evaluator.fit(architecture) == alone


def test_a_score_is_counted_image_by_image(
    evaluator: SubnetEvaluator, architectures: list[Architecture]
) -> None:
    network = evaluator.store.extract(architectures[0])
    with torch.no_grad(), autocast(torch.device("cpu")):
        right = [
            network(normalise(image[None], evaluator.mean, evaluator.std)).argmax() == label
            for image, label in zip(evaluator.images, evaluator.labels, strict=True)
        ]
    # bf16 sums in another order for another batch size: a near tie may fall either way.
    assert abs(evaluator.fit(architectures[0]).accuracy - sum(right) / 120) <= 0.02


def test_train_mode_that_was_left_behind_does_not_matter(
    evaluator: SubnetEvaluator, architectures: list[Architecture]
) -> None:
    for architecture in architectures:
        before = evaluator.fit(architecture)
        evaluator.store.subnet(architecture).train()
        assert evaluator.fit(architecture) == before


def test_evaluating_changes_nothing_in_the_store(
    evaluator: SubnetEvaluator, architectures: list[Architecture]
) -> None:
    before = {name: tensor.clone() for name, tensor in evaluator.store.state_dict().items()}
    for architecture in architectures:
        evaluator.store.subnet(architecture).train()
        evaluator.fit(architecture)
    for name, tensor in evaluator.store.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert not any(gradient.any() for gradient in evaluator.store.gradients.values())


class Perfect(nn.Module):
    """Reads the label off the first pixel; notes how it was called."""

    def __init__(self) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        assert not self.training
        assert not torch.is_grad_enabled()
        self.batches.append(len(images))
        labels = (images[:, 0, 0, 0] * 255).round().long()
        return torch.nn.functional.one_hot(labels, 10).float()


@pytest.fixture
def tens(monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of ten."""
    monkeypatch.setattr(accuracy, "EVALUATION_BATCH", 10)


@pytest.mark.usefixtures("tens")
def test_the_last_batch_counts_though_it_is_not_full() -> None:
    labels = torch.arange(25) % 10
    images = labels.to(torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 2, 2).clone()
    images[3] = 7  # one wrong answer
    network: Any = Perfect()
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    found = fit(network, images, labels, mean=mean, std=std)
    assert network.batches == [10, 10, 5]
    assert found.accuracy == 24 / 25
    # What is right is e against nine times 1, what is wrong 1 against e and eight times 1.
    assert found.loss == pytest.approx(math.log(math.e + 9) - 24 / 25)


@pytest.mark.parametrize(("size", "batches"), [(1024, [4, 1]), (4096, [1] * 5)])
def test_large_images_are_evaluated_a_few_at_a_time(size: int, batches: list[int]) -> None:
    network: Any = Perfect()
    images = torch.zeros(1, dtype=torch.uint8).expand(5, 3, size, size)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    predicted, _ = predict(network, images, mean=mean, std=std)
    assert network.batches == batches
    network.batches.clear()
    assert fit(network, images, predicted, mean=mean, std=std).accuracy == 1
    assert network.batches == batches


class Overflowing(nn.Module):
    """Sure of class 0, but for the image whose first pixel is white: there one score is wrong."""

    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, images: Tensor) -> Tensor:
        scores = torch.eye(10)[0].repeat(len(images), 1)
        scores[images[:, 0, 0, 0] == 1.0, 9] = self.value
        return scores


@pytest.mark.usefixtures("tens")
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_single_score_that_is_no_number_leaves_no_accuracy(value: float) -> None:
    images = torch.zeros(25, 3, 2, 2, dtype=torch.uint8)
    labels = torch.zeros(25, dtype=torch.long)
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    network: Any = Overflowing(value)
    assert fit(network, images, labels, mean=mean, std=std).accuracy == 1
    images[24, 0, 0, 0] = 255
    with pytest.raises(Diverged, match="infinite or not a number"):
        fit(network, images, labels, mean=mean, std=std)


def test_scores_so_far_apart_that_the_loss_is_infinite_leave_no_accuracy() -> None:
    images = torch.zeros(25, 3, 2, 2, dtype=torch.uint8)
    images[23:, 0, 0, 0] = 255  # sure of class 9 there
    labels = torch.zeros(25, dtype=torch.long)
    labels[23:] = 9
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    network: Any = Overflowing(3e38)
    assert fit(network, images, labels, mean=mean, std=std).accuracy == 1
    labels[23:] = 0
    with pytest.raises(Diverged, match="the loss of the network is infinite"):
        fit(network, images, labels, mean=mean, std=std)


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_the_number_of_threads_is_put_back(
    evaluator: SubnetEvaluator, architectures: list[Architecture], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    subnet = evaluator.store.subnet

    def watch(architecture: Architecture) -> object:
        seen.append(torch.get_num_threads())
        return subnet(architecture)

    monkeypatch.setattr(evaluator.store, "subnet", watch)
    evaluator.fit(architectures[0])
    assert torch.get_num_threads() == 2
    evaluator.images = evaluator.images[:, :2]  # two channels: the network raises
    with pytest.raises(RuntimeError):
        evaluator.fit(architectures[0])
    assert torch.get_num_threads() == 2
    assert seen == [1, 1]


def test_a_confusion_matrix_has_true_classes_in_rows_and_predicted_ones_in_columns() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 1, 1]), torch.tensor([0, 2, 1, 1, 0])
    counts = confusion_matrix(labels, predicted, num_classes=3)
    assert counts.tolist() == [[1, 0, 1], [1, 2, 0], [0, 0, 0]]
