"""StoreAdamW against torch's AdamW on networks that stand alone."""

import math
from collections.abc import Callable, Sequence

import pytest
import torch
from samples import MINIATURE, NANO, randomise
from torch import Tensor, nn

from search_space import Architecture
from supernet import Network, Store, StoreAdamW

LARGEST, SMALLEST = NANO.scaled(1.0), NANO.scaled(0.0)


def member(**genes: object) -> Architecture:
    """The largest of nano, but for these genes (`stage2_width=32`)."""
    named = {gene.replace("_", ".", 1): value for gene, value in genes.items()}
    return NANO.decode({**NANO.genotype(LARGEST), **named})  # type: ignore[arg-type]


@pytest.fixture
def store() -> Store:
    store = Store(NANO, num_classes=5)
    randomise(store.state_dict())
    return store


def backward(network: Network, seed: int, scale: float = 1.0) -> None:
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(seed))
    loss = nn.functional.cross_entropy(network.train()(images), torch.tensor([0, 1, 2, 3]))
    (scale * loss).backward()


def reference(network: nn.Module, weight_decay: float = 0.05) -> torch.optim.AdamW:
    matrices = [p for p in network.parameters() if p.ndim > 1]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
    groups = [
        {"params": matrices, "weight_decay": weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1.0)


def copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in tensors.items()}


def used_by(store: Store, *architectures: Architecture) -> dict[str, Tensor]:
    """Of every weight of the store, where some of these architectures use it."""
    masks = {name: torch.zeros(t.shape, dtype=torch.bool) for name, t in store.parameters.items()}
    for architecture in architectures:
        for name, parameter in store.subnet(architecture).named_parameters():
            masks[name][tuple(map(slice, parameter.shape))] = True
    return masks


@pytest.mark.slow
@pytest.mark.parametrize("clip_norm", [1e9, 0.05], ids=["unclipped", "clipped"])
@pytest.mark.parametrize(
    "architecture",
    [LARGEST, SMALLEST, member(stage2_width=32), member(stage3_local_ratio=1.0)],
    ids=lambda architecture: architecture.summary,
)
def test_steps_of_one_architecture_alone_are_those_of_torchs_adamw(
    store: Store, architecture: Architecture, clip_norm: float
) -> None:
    alone = store.extract(architecture)
    theirs = reference(alone)
    ours = StoreAdamW(store, weight_decay=0.05, clip_norm=clip_norm)
    for step, lr in enumerate([1e-2, 1e-3, 5e-3]):
        subnet = store.subnet(architecture)
        backward(subnet, seed=step)
        for mine, other in zip(subnet.parameters(), alone.parameters(), strict=True):
            assert mine.grad is not None
            other.grad = mine.grad.clone()
        norm = ours.step([subnet], lr=lr)

        their_norm = nn.utils.clip_grad_norm_(alone.parameters(), clip_norm)
        for group in theirs.param_groups:
            group["lr"] = lr
        theirs.step()
        assert norm == pytest.approx(float(their_norm), rel=1e-5)
        assert clip_norm > 1 or norm > clip_norm
    weights = dict(store.extract(architecture).named_parameters())
    torch.testing.assert_close(weights, dict(alone.named_parameters()))


def test_weights_that_no_network_of_a_step_used_do_not_move_nor_do_their_moments(
    store: Store,
) -> None:
    optimizer = StoreAdamW(store)
    for step, architecture in enumerate([LARGEST, member(stage3_local_ratio=1.0)]):
        backward(store.subnet(architecture), seed=step)  # everything has moments now
        optimizer.step([store.subnet(architecture)], lr=1e-2)

    before = [copies(store.parameters), copies(optimizer.first), copies(optimizer.second)]
    backward(store.subnet(SMALLEST), seed=2)
    optimizer.step([store.subnet(SMALLEST)], lr=1e-2)

    masks = used_by(store, SMALLEST)
    assert any(not mask.any() for mask in masks.values())  # a weight that it lacks altogether
    assert any(mask.any() and not mask.all() for mask in masks.values())  # and one it has in part
    after = [store.parameters, optimizer.first, optimizer.second]
    for old, new in zip(before, after, strict=True):
        for name, mask in masks.items():
            assert torch.equal(old[name][~mask], new[name][~mask]), name
            assert not mask.any() or not torch.equal(old[name][mask], new[name][mask]), name


def test_two_networks_step_the_union_of_what_they_use_exactly_once(store: Store) -> None:
    """One is wider in stage 2 and the other in stage 3: unions that are no rectangles."""
    pair = [
        member(stage2_width=64, stage3_width=64),
        member(stage2_width=32, stage3_width=96),
    ]
    shapes = [
        tuple(store.subnet(one).get_parameter("stages.2.entry.conv.conv.weight").shape[:2])
        for one in pair
    ]
    assert shapes == [(64, 64), (96, 32)]
    optimizer = StoreAdamW(store, clip_norm=1e9)
    for architecture in pair:
        backward(store.subnet(architecture), seed=0)

    # Torch's AdamW on copies of the whole tensors, of which only the used part is then looked at.
    whole = nn.ParameterDict(
        {name.replace(".", "/"): nn.Parameter(t.clone()) for name, t in store.parameters.items()}
    )
    theirs = reference(whole)
    for name, gradient in store.gradients.items():
        whole[name.replace(".", "/")].grad = gradient.clone()
    for group in theirs.param_groups:
        group["lr"] = 1e-2
    theirs.step()

    before = copies(store.parameters)
    optimizer.step([store.subnet(one) for one in pair], lr=1e-2)
    for name, mask in used_by(store, *pair).items():
        expected = torch.where(mask, whole[name.replace(".", "/")].data, before[name])
        torch.testing.assert_close(store.parameters[name], expected, msg=name)


@pytest.mark.parametrize("most", [1.0, 3.0])
def test_bias_correction_counts_the_steps_of_each_weight(store: Store, most: float) -> None:
    """A weight that joins late takes its first step as if it were the first of all."""
    optimizer = StoreAdamW(store, weight_decay=0.0, clip_norm=1e9, most_catching_up=most)
    plain = member(stage2_feed_forward="plain")
    for step in range(3):
        backward(store.subnet(plain), seed=step)
        optimizer.step([store.subnet(plain)], lr=1e-4)
    before = copies(store.parameters)
    backward(store.subnet(LARGEST), seed=3)
    optimizer.step([store.subnet(LARGEST)], lr=1e-2)
    name = "stages.1.blocks.0.feed_forward.detail.weight"
    moved = (store.parameters[name] - before[name]).abs()
    # AdamW's first step is the rate, which is as many times larger as it may be for a weight that
    # has everything to learn.
    assert float(moved.median()) == pytest.approx(most * 1e-2, rel=1e-2)


def test_a_weight_that_was_trained_in_half_of_the_steps_has_twice_the_rate(store: Store) -> None:
    optimizer = StoreAdamW(store, weight_decay=0.0, clip_norm=1e9)
    for name in optimizer.steps:  # as if there had been so many steps
        rare = name.startswith("stages.1.blocks.0.feed_forward.detail.")
        optimizer.steps[name].fill_(49 if rare else 99)
    for moments, value in ((optimizer.first, 1e-3), (optimizer.second, 1e-6)):
        for moment in moments.values():
            moment.fill_(value)
    before = copies(store.parameters)
    for gradient in store.gradients.values():
        gradient.fill_(1e-3)
    optimizer.step([store.subnet(LARGEST)], lr=1e-2)
    moved = {name: (t - before[name]).abs().max() for name, t in store.parameters.items()}
    corrections = {n: (1 - 0.9**n, (1 - 0.999**n) ** 0.5) for n in (50, 100)}
    rate = {n: first / second for n, (first, second) in corrections.items()}
    ratio = moved["stages.1.blocks.0.feed_forward.detail.weight"] / moved["head.weight"]
    assert float(ratio) == pytest.approx(2 * rate[100] / rate[50], rel=1e-3)


def test_gradients_of_what_was_used_are_combined_before_they_are_clipped(store: Store) -> None:
    combined: list[Tensor] = []

    def scale(gradients: Sequence[Tensor]) -> None:
        combined.extend(gradient.clone() for gradient in gradients)
        for gradient in gradients:
            gradient.mul_(3.0)

    narrow = member(stage2_width=32)
    backward(store.subnet(narrow), seed=0)
    backward(store.subnet(LARGEST), seed=1)  # elsewhere there are gradients, too
    whole = copies(store.gradients)
    masks = used_by(store, narrow)
    expected = torch.cat([whole[name][mask] for name, mask in masks.items()]).norm()
    optimizer = StoreAdamW(store, clip_norm=1e9, combine=scale)
    norm = optimizer.step([store.subnet(narrow)], lr=1e-2)
    assert sum(g.numel() for g in combined) == sum(int(mask.sum()) for mask in masks.values())
    assert norm == pytest.approx(3 * float(expected), rel=1e-5)
    for name, mask in masks.items():
        torch.testing.assert_close(optimizer.first[name], 0.1 * 3 * whole[name] * mask, msg=name)


def test_gradients_are_zero_after_a_step_and_stay_attached(store: Store) -> None:
    optimizer = StoreAdamW(store)
    subnets = [store.subnet(architecture) for architecture in (LARGEST, SMALLEST)]
    for step in range(2):
        for subnet in subnets:
            backward(subnet, seed=step)
        assert any(gradient.any() for gradient in store.gradients.values())
        optimizer.step(subnets, lr=1e-3)
        assert not any(gradient.any() for gradient in store.gradients.values())
        for subnet in subnets:
            for name, parameter in subnet.named_parameters():
                assert parameter.grad is not None
                assert parameter.grad.data_ptr() == store.gradients[name].data_ptr()
                assert parameter.data_ptr() == store.parameters[name].data_ptr()


def test_gradients_of_another_scale_are_clipped_to_the_same_norm(store: Store) -> None:
    architecture, moments = SMALLEST, []
    for scale in (10.0, 1000.0):
        optimizer = StoreAdamW(store, clip_norm=0.1)
        backward(store.subnet(architecture), seed=0, scale=scale)
        optimizer.step([store.subnet(architecture)], lr=0.0)
        moments.append(torch.cat([first.flatten() for first in optimizer.first.values()]))
    assert float(moments[0].norm()) == pytest.approx(0.1 * (1 - 0.9), rel=1e-3)
    torch.testing.assert_close(*moments, rtol=1e-3, atol=1e-7)


def test_matrices_decay_and_norms_and_biases_do_not(store: Store) -> None:
    before = copies(store.parameters)
    subnet = store.subnet(LARGEST)
    StoreAdamW(store, weight_decay=0.5).step([subnet], lr=0.1)  # gradients are zero
    for name, parameter in subnet.named_parameters():
        old = before[name][tuple(map(slice, parameter.shape))]
        kept = 1 - 0.5 * 0.1 if old.ndim > 1 else 1.0
        torch.testing.assert_close(parameter.data, old * kept, msg=name)


def test_resumed_optimizer_steps_as_the_uninterrupted_one(store: Store) -> None:
    def train(optimizer: StoreAdamW, steps: range) -> None:
        for step in steps:
            architectures = (LARGEST, SMALLEST) if step % 2 else (member(stage2_width=32),)
            for architecture in architectures:
                backward(optimizer.store.subnet(architecture), seed=step)
            optimizer.step([optimizer.store.subnet(a) for a in architectures], lr=1e-3)

    first = StoreAdamW(store)
    train(first, range(3))
    resumed_store = Store(NANO, num_classes=5, seed=9)
    resumed_store.load_state_dict(copies(store.state_dict()))
    resumed = StoreAdamW(resumed_store)
    resumed.load_state_dict(copies(first.state_dict()))
    train(first, range(3, 6))
    train(resumed, range(3, 6))
    torch.testing.assert_close(resumed_store.state_dict(), store.state_dict(), rtol=0, atol=0)
    torch.testing.assert_close(resumed.state_dict(), first.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("cut", [lambda kernel: kernel[:, :, :1], lambda kernel: kernel.flatten(1)])
def test_shapes_that_differ_beyond_inputs_and_outputs_are_refused_by_name(
    store: Store, cut: Callable[[Tensor], Tensor]
) -> None:
    name = "stages.1.entry.conv.conv.weight"
    subnet, other = store.subnet(LARGEST), store.extract(LARGEST)
    conv = other.get_submodule(name.removesuffix(".weight"))
    conv.weight = nn.Parameter(cut(other.get_parameter(name).detach()))
    with pytest.raises(ValueError, match=rf"{name} has the shapes .* first two dimensions only"):
        StoreAdamW(store).step([subnet, other], lr=1e-3)


def test_the_store_knows_how_every_parameter_trains() -> None:
    store = Store(MINIATURE, num_classes=5)
    assert store.parameter_settings.keys() == store.parameters.keys()
    for name, setting in store.parameter_settings.items():
        is_table = name.endswith(".table")
        assert setting.decayed == (store.parameters[name].ndim > 1 and not is_table), name
        assert setting.lr_scale == (0.01 if ".offset." in name else 1.0), name
    assert {setting.lr_scale for setting in store.parameter_settings.values()} == {1.0, 0.01}


def test_restarted_it_steps_as_a_new_one_does() -> None:
    store, other = (Store(NANO, num_classes=5, seed=1) for _ in range(2))
    architecture = NANO.scaled(1.0)
    optimizer = StoreAdamW(store)
    for step in range(3):
        backward(store.subnet(architecture), seed=step)
        optimizer.step([store.subnet(architecture)], lr=0.01)
    optimizer.restart()
    other.load_state_dict(store.state_dict())
    for weights, stepping in ((store, optimizer), (other, StoreAdamW(other))):
        backward(weights.subnet(architecture), seed=7)
        stepping.step([weights.subnet(architecture)], lr=0.01)
    torch.testing.assert_close(store.state_dict(), other.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [math.inf, math.nan])
def test_a_gradient_that_is_not_finite_changes_nothing(wrong: float) -> None:
    store = Store(NANO, num_classes=10, seed=0)
    optimizer = StoreAdamW(store)
    network = store.subnet(SMALLEST)
    network(torch.randn(2, 3, 32, 32)).sum().backward()
    next(iter(store.gradients.values())).flatten()[0] = wrong
    before = {name: tensor.clone() for name, tensor in store.state_dict().items()}
    moments = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    assert not math.isfinite(optimizer.step([network], lr=1.0))
    assert all(torch.equal(tensor, before[name]) for name, tensor in store.state_dict().items())
    for name, tensor in optimizer.state_dict().items():
        assert torch.equal(tensor, moments[name]), name
    assert not any(gradient.any() for gradient in store.gradients.values())
