"""A network trained alone by a recipe."""

import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from given_teachers import MODEL, teacher_file
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from small_runs import NANO
from torch import Tensor
from torch.nn.functional import cross_entropy

import nas.training.alone
from nas.data import Data, load_data, materialise, normalise, train_batches
from nas.training.accuracy import Fit, fit
from nas.training.alone import (
    NetworkLearner,
    Point,
    Recipe,
    balanced_weights,
    identity_of,
    new_network,
    train_alone,
)
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.distillation import token_loss
from nas.training.given_teacher import Answers, GivenTeacher, given_teacher, named
from nas.training.loop import autocast
from nas.training.schedule import learning_rate
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from supernet import Network, parameter_groups

ARCHITECTURE = NANO.sample(random.Random(1))

SHORT = Recipe(
    start="scratch",
    steps=5,
    batch_size=8,
    lr=1e-3,
    drop_path=0.2,
    augment="light",
    image_size=32,
    seed=0,
    device="cpu",
)


def changed(recipe: Recipe, **fields: Any) -> Recipe:
    return Recipe.model_validate(recipe.model_dump() | fields)


FULL = changed(SHORT, augment="full")
BRIEF = changed(FULL, steps=3)
AVERAGED = changed(SHORT, ema=0.5, layer_decay=0.8)


class Crash(Exception):
    """Stands for SIGKILL: training has no chance to save."""


@pytest.fixture(scope="module")
def digits() -> Data:
    return load_data("digits", image_size=32, seed=0)


def inherited() -> Network:
    torch.manual_seed(7)
    return Network(ARCHITECTURE, num_classes=10)


def train(
    path: Path,
    data: Data,
    recipe: Recipe = SHORT,
    *,
    network: Network | None = None,
    stop_after: int | None = None,
    crash_after: int | None = None,
    checkpoint_seconds: float = math.inf,
    validation: tuple[Tensor, Tensor] | None = None,
    teacher: GivenTeacher | None = None,
) -> tuple[dict[str, Tensor], list[tuple[int, float]], list[Point]]:
    """The final weights, the steps and losses that were shown, and the curve."""
    if network is None:
        network = new_network(ARCHITECTURE, recipe, num_classes=10, given=inherited())
    stop = StopRequest()
    shown: list[tuple[int, float]] = []

    def on_progress(point: Point) -> None:
        shown.append((point.step, point.loss))
        stop.requested = point.step == stop_after
        if point.step == crash_after:
            raise Crash
        torch.rand(3)  # the process draws something else meanwhile

    curve = train_alone(
        network,
        data=data,
        recipe=recipe,
        state=path / "state.safetensors",
        stop=stop,
        on_progress=on_progress,
        validation=validation,
        teacher=teacher,
        checkpoint_seconds=checkpoint_seconds,
    )
    return network.state_dict(), shown, curve


def without_tensor(state: Path, name: str) -> None:
    step, identity, tensors = load_checkpoint(state)
    del tensors[name]
    save_checkpoint(state, step=step, identity=identity, tensors=tensors)


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module", params=[SHORT, FULL, AVERAGED], ids=["light", "full", "averaged"])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return Recipe.model_validate(request.param)


@pytest.fixture(scope="module")
def uninterrupted(
    recipe: Recipe, digits: Data, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Tensor], list[tuple[int, float]], list[Point]]:
    """What `train` gives; not to be changed."""
    return train(tmp_path_factory.mktemp("straight"), digits, recipe)


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, SHORT.steps])
def test_a_resumed_training_equals_an_uninterrupted_one(
    tmp_path: Path,
    digits: Data,
    recipe: Recipe,
    uninterrupted: tuple[dict[str, Tensor], list[tuple[int, float]], list[Point]],
    after: int,
) -> None:
    straight, shown, curve = uninterrupted
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", digits, recipe, stop_after=after)
    resumed, rest, whole = train(tmp_path / "stopped", digits, recipe)
    assert same(resumed, straight)
    assert rest == shown[after:]
    assert whole == curve


def test_a_training_that_was_killed_goes_on_from_its_last_checkpoint(
    tmp_path: Path, digits: Data
) -> None:
    with pytest.raises(Crash):
        train(tmp_path, digits, crash_after=4, checkpoint_seconds=-1.0)
    _, shown, curve = train(tmp_path, digits)
    assert [step for step, _ in shown] == [4, 5]
    assert [point.step for point in curve] == [1, 2, 3, 4, 5]


def test_the_curve_has_the_loss_and_the_learning_rate_of_every_step(
    tmp_path: Path, digits: Data
) -> None:
    _, shown, curve = train(tmp_path, digits)
    assert [(point.step, point.loss) for point in curve] == shown
    assert [point.lr for point in curve] == [learning_rate(step, SHORT) for step in range(5)]


def test_the_default_recipe_is_adamw_on_smoothed_labels_with_a_cosine(
    tmp_path: Path, digits: Data
) -> None:
    recipe = changed(SHORT, drop_path=0.0, start="supernet")
    trained, shown, _ = train(tmp_path, digits, recipe)
    network = new_network(ARCHITECTURE, recipe, num_classes=10, given=inherited()).train()
    optimizer = torch.optim.AdamW(parameter_groups(network, weight_decay=0.05))
    losses = []
    batches = train_batches(digits, batch_size=8, seed=0, steps=5)
    for step, (images, labels) in enumerate(batches):
        with autocast(torch.device("cpu")):
            scores = network(normalise(images, digits.mean, digits.std))
        loss = cross_entropy(scores.float(), labels, label_smoothing=0.1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        for group in optimizer.param_groups:
            group["lr"] = 1e-3 * group["lr_scale"] * (1 + math.cos(math.pi * max(0, step - 1) / 4))
            group["lr"] /= 2
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert [loss for _, loss in shown] == pytest.approx(losses, rel=1e-3)
    for name, tensor in network.state_dict().items():
        assert torch.allclose(trained[name].float(), tensor.float(), rtol=0.02, atol=1e-3), name


def test_the_state_is_left_to_the_caller_and_says_whose_it_is(tmp_path: Path, digits: Data) -> None:
    train(tmp_path, digits, checkpoint_seconds=-1.0)
    checkpoint = load_checkpoint(tmp_path / "state.safetensors")
    assert checkpoint.step == 5
    assert checkpoint.identity == identity_of(ARCHITECTURE, SHORT)
    assert checkpoint.identity["architecture"] == ARCHITECTURE.hash
    assert checkpoint.identity["label_smoothing"] == 0.1


def test_a_state_of_another_recipe_or_network_is_refused(tmp_path: Path, digits: Data) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=2)
    with pytest.raises(InputError, match=r"label_smoothing is 0\.1 there, 0\.2 here"):
        train(tmp_path, digits, changed(SHORT, label_smoothing=0.2))
    other = Network(NANO.scaled(1.0), num_classes=10)
    with pytest.raises(InputError, match="architecture is"):
        train(tmp_path, digits, network=other)


def test_a_state_without_moments_is_refused(tmp_path: Path, digits: Data) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=2)
    state = tmp_path / "state.safetensors"
    identity = SHORT.model_dump_json()[:-1] + f',"architecture":"{ARCHITECTURE.hash}"}}'
    weights = {name: t for name, t in load_file(state).items() if name.startswith("weights.")}
    save_file(weights, state, metadata={"step": "2", "identity": identity})
    with pytest.raises(InputError, match=r"cannot be resumed from .*moments"):
        train(tmp_path, digits)


def test_the_loss_is_the_cross_entropy_with_smoothed_labels(digits: Data) -> None:
    images, labels = materialise(digits.search, limit=8, seed=0)
    normalised = normalise(images, digits.mean, digits.std)
    recipe = changed(SHORT, drop_path=0.0)
    network = inherited()
    (loss,) = NetworkLearner(network, recipe, num_classes=10).losses(0, normalised, labels)
    with autocast(torch.device("cpu")):
        surprise = -network(normalised).float().log_softmax(dim=1)
    expected = 0.9 * surprise[torch.arange(8), labels].mean() + 0.1 * surprise.mean()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-3)
    (sharp,) = NetworkLearner(network, changed(recipe, label_smoothing=0.0), num_classes=10).losses(
        0, normalised, labels
    )
    wanted = surprise[torch.arange(8), labels].mean()
    assert float(sharp.detach()) == pytest.approx(float(wanted.detach()), rel=1e-3)


def test_a_teachers_answers_for_the_augmented_images_have_half_of_the_loss(digits: Data) -> None:
    images, labels = materialise(digits.search, limit=8, seed=0)
    normalised = normalise(images, digits.mean, digits.std)
    recipe = changed(FULL, drop_path=0.0, accumulate=2)
    asked: list[Tensor] = []
    answers = torch.randn(8, 10, generator=torch.Generator().manual_seed(0))

    def teacher(seen: Tensor) -> Answers:
        asked.append(seen)
        return Answers(answers.split(4)[len(asked) - 1])

    def losses(**given: Any) -> float:
        network = inherited().eval()
        learner = NetworkLearner(network, recipe, num_classes=10, **given)
        network.eval()  # the same whatever else is in the batch
        parts = learner.losses(0, normalised.clone(), labels)  # which are mixed in place
        return sum(float(part.detach()) for part in parts)

    alone, taught = losses(), losses(teacher=teacher)
    augmented = torch.cat(asked)
    assert augmented.shape == normalised.shape
    assert not torch.equal(augmented, normalised)
    with autocast(torch.device("cpu")), torch.no_grad():
        surprise = -inherited().eval()(augmented).float().log_softmax(dim=1)
    theirs = float((answers.softmax(dim=1) * surprise).sum(dim=1).mean())
    assert taught == pytest.approx(0.5 * alone + 0.5 * theirs, rel=5e-3)


def test_token_labels_come_beside_with_half_a_weight(digits: Data) -> None:
    images = torch.randn(8, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(8)
    places = torch.randn(8, 10, 3, 3, generator=torch.Generator().manual_seed(1))
    answers = Answers(places.mean(dim=(2, 3)), places)

    def loss(*, token_labels: bool) -> float:
        recipe = changed(SHORT, drop_path=0.0, token_labels=token_labels)
        learner = NetworkLearner(inherited(), recipe, num_classes=10, teacher=lambda _: answers)
        (found,) = learner.losses(0, images, labels)
        return float(found.detach())

    network = inherited().train()
    with autocast(torch.device("cpu")), torch.no_grad():
        scores = network.head(network.forward_features(images)).float()
    expected = float(token_loss(scores, places))
    found = loss(token_labels=True) - loss(token_labels=False)
    assert found == pytest.approx(0.5 * expected, rel=2e-2)


def test_a_training_with_a_teacher_goes_on_with_that_teacher_alone(
    tmp_path: Path, digits: Data
) -> None:
    one, other = (
        given_teacher(
            f"{MODEL}:{teacher_file(tmp_path / f'{seed}', seed=seed, size=32)}",
            digits,
            token_labels=False,
        )
        for seed in (0, 1)
    )
    recipe = changed(SHORT, **named(one))
    straight, shown, _ = train(tmp_path / "straight", digits, recipe, teacher=one)
    without, _, _ = train(tmp_path / "without", digits)
    assert not same(straight, without)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", digits, recipe, teacher=one, stop_after=2)
    with pytest.raises(InputError, match="another training: teacher is"):
        train(tmp_path / "stopped", digits, changed(SHORT, **named(other)), teacher=other)
    resumed, rest, _ = train(tmp_path / "stopped", digits, recipe, teacher=one)
    assert same(resumed, straight)
    assert rest == shown[2:]


def test_with_ema_the_network_has_the_moving_average_of_the_weights_in_the_end(
    tmp_path: Path, digits: Data
) -> None:
    recipe = changed(SHORT, ema=0.5)
    network = new_network(ARCHITECTURE, recipe, num_classes=10, given=inherited())
    learner = NetworkLearner(network, recipe, num_classes=10)
    average: dict[str, Tensor] = {}
    for step, (images, labels) in enumerate(train_batches(digits, batch_size=8, seed=0, steps=5)):
        (loss,) = learner.losses(step, normalise(images, digits.mean, digits.std), labels)
        loss.backward()
        learner.update(lr=learning_rate(step, recipe))
        decay = min(0.5, 1 - (1 + step) ** (-2 / 3))
        weights = {name: tensor.double() for name, tensor in network.state_dict().items()}
        old = average or weights
        average = {name: decay * old[name] + (1 - decay) * weights[name] for name in weights}
    trained, _, _ = train(tmp_path, digits, recipe)
    for name, tensor in trained.items():
        if tensor.is_floating_point():
            assert torch.allclose(tensor.double(), average[name], atol=1e-6), name
    assert not same(trained, dict(network.state_dict()))


def test_the_average_of_the_weights_is_a_part_of_the_state(tmp_path: Path, digits: Data) -> None:
    with pytest.raises(Interrupted):
        train(tmp_path, digits, AVERAGED, stop_after=2)
    without_tensor(tmp_path / "state.safetensors", "average.head.bias")
    with pytest.raises(InputError, match=r"cannot be resumed from .*average\.head\.bias"):
        train(tmp_path, digits, AVERAGED)


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_with_a_validation_the_network_has_the_weights_that_were_best_on_it(
    tmp_path: Path, digits: Data, ema: float
) -> None:
    validation = materialise(digits.search, limit=60, seed=0)
    recipe = changed(SHORT, ema=ema, lr=0.02)
    trained, _, curve = train(tmp_path / "whole", digits, recipe, validation=validation)
    network = Network(ARCHITECTURE, num_classes=10)
    network.load_state_dict(trained)
    found = fit(network, *validation, mean=digits.mean, std=digits.std)
    accuracies = [point.accuracy for point in curve if point.accuracy is not None]
    assert len(accuracies) == 5  # of a training of so few steps each is measured
    assert found.accuracy == max(accuracies)
    with pytest.raises(Interrupted):
        train(tmp_path / "stopped", digits, recipe, stop_after=4, validation=validation)
    resumed, _, again = train(tmp_path / "stopped", digits, recipe, validation=validation)
    assert same(resumed, trained)
    assert again == curve


def test_the_best_weights_stay_while_those_that_follow_are_worse(
    tmp_path: Path, digits: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, Tensor]] = []
    accuracies = iter([0.3, 0.5, 0.4, 0.5, 0.2])  # of equal ones the later

    def measure(network: Network, *_: Any, **__: Any) -> Fit:
        seen.append({name: tensor.clone() for name, tensor in network.state_dict().items()})
        return Fit(accuracy=next(accuracies), loss=1.0)

    monkeypatch.setattr(nas.training.alone, "fit", measure)
    validation = materialise(digits.search, limit=10, seed=0)
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=4, validation=validation)
    trained, _, curve = train(tmp_path, digits, validation=validation)
    assert same(trained, seen[3])
    assert [point.accuracy for point in curve] == [0.3, 0.5, 0.4, 0.5, 0.2]


def test_a_state_without_the_best_weights_is_refused(tmp_path: Path, digits: Data) -> None:
    validation = materialise(digits.search, limit=10, seed=0)
    with pytest.raises(Interrupted):
        train(tmp_path, digits, stop_after=2, validation=validation)
    without_tensor(tmp_path / "state.safetensors", "best.head.bias")
    with pytest.raises(InputError, match=r"cannot be resumed from .*best\.head\.bias"):
        train(tmp_path, digits, validation=validation)


def test_validating_does_not_change_the_training(tmp_path: Path, digits: Data) -> None:
    validation = materialise(digits.search, limit=20, seed=0)
    _, plain, _ = train(tmp_path / "plain", digits)
    _, validated, _ = train(tmp_path / "validated", digits, validation=validation)
    assert validated == plain


def test_a_long_training_is_validated_at_most_twenty_times_and_in_the_end(
    tmp_path: Path, digits: Data
) -> None:
    validation = materialise(digits.search, limit=10, seed=0)
    recipe = changed(SHORT, steps=50, batch_size=1)
    _, _, curve = train(tmp_path, digits, recipe, validation=validation)
    measured = [point.step for point in curve if point.accuracy is not None]
    assert measured == [*range(3, 49, 3), 50]


def test_layer_decay_slows_the_layers_near_the_image() -> None:
    def rates(layer_decay: float) -> dict[int, float]:
        learner = NetworkLearner(network, changed(SHORT, layer_decay=layer_decay), num_classes=10)
        groups = learner.optimizer.param_groups
        return {id(p): group["lr_scale"] for group in groups for p in group["params"]}

    network = inherited()
    stem, head = next(network.stem.parameters()), network.head.bias
    assert rates(1.0)[id(stem)] == rates(1.0)[id(head)] == 1
    assert rates(0.5)[id(head)] == 1
    assert rates(0.5)[id(stem)] < 0.5**2


def test_balanced_classes_weigh_the_same_in_sum() -> None:
    weights = balanced_weights([0] * 6 + [2] * 2, num_classes=4)
    assert weights.tolist() == pytest.approx([8 / 12, 0, 2, 0])


def test_class_weights_multiply_the_loss_of_the_images_of_a_class(digits: Data) -> None:
    images, labels = materialise(digits.search, limit=8, seed=0)
    normalised = normalise(images, digits.mean, digits.std)
    recipe = changed(SHORT, drop_path=0.0, label_smoothing=0.0)
    weights = torch.arange(1.0, 11.0)
    network = inherited()
    learner = NetworkLearner(network, recipe, num_classes=10, class_weights=weights)
    (loss,) = learner.losses(0, normalised, labels)
    with autocast(torch.device("cpu")):
        surprise = -network(normalised).float().log_softmax(dim=1)[torch.arange(8), labels]
    expected = float((weights[labels] * surprise).mean().detach())
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-3)


def test_a_rare_class_that_weighs_much_is_not_what_images_of_another_become(digits: Data) -> None:
    images, _ = materialise(digits.search, limit=1, seed=0)
    normalised = normalise(images, digits.mean, digits.std)
    recipe = changed(SHORT, drop_path=0.0, label_smoothing=0.1)
    weights = torch.tensor([0.5, *[100.0] * 9])
    learner = NetworkLearner(inherited(), recipe, num_classes=10, class_weights=weights)
    head = learner.network.head
    with torch.no_grad():
        head.weight.zero_()
        head.bias.copy_(torch.tensor([0.91, *[0.01] * 9]).log())  # what smoothing asks for
    (loss,) = learner.losses(0, normalised, torch.tensor([0]))
    loss.backward()
    assert head.bias.grad is not None
    assert head.bias.grad.abs().max() < 0.1  # as large as the weights where targets weigh


@pytest.mark.parametrize("parts", [2, 3, 100])
def test_gradients_of_the_parts_of_a_batch_add_up_to_that_of_the_whole(
    digits: Data, parts: int
) -> None:
    images, labels = materialise(digits.search, limit=8, seed=0)
    normalised = normalise(images, digits.mean, digits.std)

    def gradient(accumulate: int) -> tuple[float, Tensor]:
        recipe = changed(SHORT, drop_path=0.0, accumulate=accumulate)
        network = inherited()
        learner = NetworkLearner(network, recipe, num_classes=10)
        network.eval()  # the statistics of a batch would be those of a part
        losses = []
        for loss in learner.losses(0, normalised, labels):
            loss.backward()
            losses.append(float(loss.detach()))
        assert len(losses) == min(accumulate, 8)
        assert network.head.bias.grad is not None
        return sum(losses), network.head.bias.grad

    (loss, whole), (total, summed) = gradient(1), gradient(parts)
    assert total == pytest.approx(loss, rel=1e-2)
    assert torch.allclose(summed, whole, atol=2e-2 * float(whole.abs().max()))


def test_full_augmentation_mixes_pairs_and_erases_parts(digits: Data) -> None:
    images, labels = materialise(digits.search, limit=8, seed=0)
    normalised = normalise(images, digits.mean, digits.std)

    def augmented(**fields: float) -> tuple[Tensor, Tensor]:
        learner = NetworkLearner(inherited(), changed(FULL, **fields), num_classes=10)
        random.seed(0)
        torch.manual_seed(0)
        return learner.augment(normalised.clone(), labels)

    plain, targets = augmented(mixup=0.0, cutmix=0.0, erasing=0.0)
    assert torch.equal(plain, normalised)
    assert (targets.max(dim=1).values > 0.9).all()
    erased, targets = augmented(mixup=0.0, cutmix=0.0, erasing=1.0)
    assert ((erased != normalised).flatten(1).any(dim=1)).all()
    assert (targets.max(dim=1).values > 0.9).all()
    for only in ({"mixup": 0.8, "cutmix": 0.0}, {"mixup": 0.0, "cutmix": 1.0}):
        mixed, targets = augmented(**only, erasing=0.0)
        assert not torch.equal(mixed, normalised)
        assert (targets.max(dim=1).values < 0.9).any()


def test_an_odd_batch_cannot_be_mixed(tmp_path: Path, digits: Data) -> None:
    with pytest.raises(InputError, match=r"`batch_size` 7.*even"):
        train(tmp_path, digits, changed(FULL, batch_size=7))
    train(tmp_path, digits, changed(FULL, batch_size=7, mixup=0.0, cutmix=0.0))


def test_a_loss_that_is_no_number_is_told_with_the_rate(tmp_path: Path, digits: Data) -> None:
    network = inherited()
    with torch.no_grad():
        network.get_parameter("head.bias").fill_(float("nan"))
    with pytest.raises(InputError, match=r"`lr` 0\.001: the loss is nan at step 1"):
        train(tmp_path, digits, network=network)
    assert list(tmp_path.iterdir()) == []


def test_a_network_from_the_supernet_begins_with_its_weights() -> None:
    given = inherited()
    from_supernet, from_scratch, again = (
        new_network(ARCHITECTURE, changed(SHORT, start=start), num_classes=10, given=given)
        for start in ("supernet", "scratch", "scratch")
    )
    assert same(from_supernet.state_dict(), given.state_dict())
    assert not same(from_scratch.state_dict(), given.state_dict())
    assert same(from_scratch.state_dict(), again.state_dict())


@pytest.fixture(scope="module")
def by_default(digits: Data, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    return train(tmp_path_factory.mktemp("default"), digits, BRIEF)[0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("start", "supernet"),
        ("steps", 6),
        ("batch_size", 6),
        ("lr", 2e-3),
        ("seed", 1),
        ("weight_decay", 0.5),
        ("betas", (0.8, 0.999)),
        ("betas", (0.9, 0.99)),
        ("eps", 1e-4),
        ("clip_norm", 1e-3),
        ("warmup_share", 0.7),
        ("drop_path", 0.5),
        ("augment", "light"),
        ("label_smoothing", 0.2),
        ("mixup", 0.0),
        ("cutmix", 0.0),
        ("erasing", 0.0),
        ("ema", 0.5),
        ("ema", 0.2),
        ("layer_decay", 0.5),
        ("class_weights", "balanced"),
        ("accumulate", 2),
        ("repeats", 2),
    ],
)
def test_the_result_depends_on_every_number_of_the_recipe(
    tmp_path: Path, digits: Data, by_default: dict[str, Tensor], field: str, value: object
) -> None:
    assert not same(train(tmp_path, digits, changed(BRIEF, **{field: value}))[0], by_default)


def test_a_limit_of_0_on_the_gradients_is_none(tmp_path: Path, digits: Data) -> None:
    unlimited, far, near = (
        train(tmp_path / f"{limit}", digits, changed(SHORT, steps=2, clip_norm=limit))[0]
        for limit in (0.0, 1e9, 1e-3)
    )
    assert same(unlimited, far)
    assert not same(unlimited, near)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("drop_path", 1.0),
        ("label_smoothing", -0.1),
        ("steps", 0),
        ("lr", 0),
        ("augment", "much"),
        ("ema", 1.0),
        ("layer_decay", 0.0),
        ("accumulate", 0),
        ("repeats", 0),
        ("clip_norm", -1.0),
    ],
)
def test_a_recipe_that_cannot_be_is_refused_by_field(field: str, value: object) -> None:
    with pytest.raises(ValidationError, match=field):
        changed(SHORT, **{field: value})
