"""One store, many subnets: each must be the network that its extraction is."""

import random
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
import torch
from safetensors.torch import load_file, save_file
from samples import (
    BASE,
    MINIATURE,
    NANO,
    SMALL_PSVIT,
    TINY,
    UNUSUAL,
    one_per_choice,
    per_choice,
    randomise,
)
from small_runs import Fork
from torch import Tensor

from search_space import DESIGNS, Architecture, SearchSpace
from search_space.coverage import corners
from supernet import ExportedNetwork, Network, Store, count_shared_weights, save_exported
from supernet.network import skeleton
from supernet.store import CACHED_SUBNETS

PerChoice = Callable[[SearchSpace], tuple[Architecture, ...]]
SPACES = {space.name: space for space in (NANO, MINIATURE, UNUSUAL, SMALL_PSVIT)}
SIZES = {"32": (32, 32), "64": (64, 64), "odd": (45, 61)}
TASK = ExportedNetwork(
    num_classes=5, image_size=64, mean=(0.5,) * 3, std=(0.2,) * 3, class_names=tuple("abcde")
)

every_space = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())
one_space_at_a_time = pytest.mark.parametrize(
    "space", SPACES.values(), ids=SPACES.keys(), scope="module"
)


def images(size: tuple[int, int], batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


def random_store(space: SearchSpace) -> Store:
    store = Store(space, num_classes=TASK.num_classes, draw=False)
    randomise(store.state_dict())
    return store


@pytest.fixture(scope="module")
def stores() -> dict[str, Store]:
    return {name: random_store(space) for name, space in SPACES.items()}


@pytest.fixture
def nano() -> Store:
    return random_store(NANO)


def members(space: SearchSpace, count: int, seed: int = 0) -> list[Architecture]:
    rng = random.Random(seed)
    return [space.sample(rng) for _ in range(count)]


def outputs(network: Network) -> dict[str, Tensor]:
    with torch.no_grad():
        return {name: network.eval()(images(size)) for name, size in SIZES.items()}


def storages(tensors: dict[str, Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}


FRESH_PROCESS = """
import sys
from pathlib import Path
import torch
from safetensors.torch import load_file, save_file
from supernet import load_exported

root, outputs = Path(sys.argv[1]), {}
images = load_file(root / "images.safetensors")
with torch.no_grad():
    for folder in sorted(path.parent for path in root.glob("*/architecture.json")):
        network, _ = load_exported(folder)
        for size, batch in images.items():
            outputs[f"{folder.name}/{size}"] = network(batch)
save_file(outputs, root / "outputs.safetensors")
"""


@dataclass
class Judged:
    """What one architecture gave in the store, extracted, and from its files elsewhere."""

    architecture: Architecture
    in_store: dict[str, Tensor]
    extracted: dict[str, Tensor]
    shares_storage: bool
    fresh: dict[str, Tensor]


@pytest.fixture(scope="module")
def judged(
    space: SearchSpace,
    per_choice: PerChoice,
    stores: dict[str, Store],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[list[Judged]]:
    """One architecture for every choice of every gene of a space, and some random ones."""
    root, store = tmp_path_factory.mktemp("exported"), stores[space.name]
    everything = []
    for architecture in [*per_choice(space), *members(space, 2)]:
        network = store.extract(architecture)
        folder = root / architecture.hash
        folder.mkdir(exist_ok=True)
        save_exported(folder, network, TASK)
        everything.append(
            Judged(
                architecture,
                in_store=outputs(store.subnet(architecture)),
                extracted=outputs(network),
                shares_storage=not storages(network.state_dict()).isdisjoint(
                    storages(store.state_dict() | store.gradients)
                ),
                fresh={},
            )
        )
    save_file({name: images(size) for name, size in SIZES.items()}, root / "images.safetensors")
    done = Fork("-c", FRESH_PROCESS, root).finish()
    assert done.status == 0, done.err
    fresh = load_file(root / "outputs.safetensors")
    for one in everything:
        one.fresh = {size: fresh[f"{one.architecture.hash}/{size}"] for size in SIZES}
    yield everything
    shutil.rmtree(root)  # hundreds of megabytes that pytest would keep


@pytest.mark.slow
@one_space_at_a_time
@per_choice
class TestEveryChoiceOfEveryGene:
    @pytest.mark.slow
    def test_subnet_in_the_store_equals_the_extracted_network(
        self, space: SearchSpace, per_choice: PerChoice, judged: list[Judged]
    ) -> None:
        for one in judged:
            torch.testing.assert_close(one.in_store, one.extracted, msg=one.architecture.summary)

    def test_extracted_network_equals_its_files_loaded_in_a_fresh_process(
        self, space: SearchSpace, per_choice: PerChoice, judged: list[Judged]
    ) -> None:
        for one in judged:
            torch.testing.assert_close(one.extracted, one.fresh, msg=one.architecture.summary)

    def test_extracted_network_shares_no_storage_with_the_store(
        self, space: SearchSpace, per_choice: PerChoice, judged: list[Judged]
    ) -> None:
        assert not any(one.shares_storage for one in judged)

    @pytest.mark.slow
    def test_gradients_in_the_store_equal_those_of_the_extracted_network(
        self, space: SearchSpace, per_choice: PerChoice, stores: dict[str, Store]
    ) -> None:
        store, batch = stores[space.name], images((37, 50))
        for architecture in per_choice(space):
            extracted, subnet = store.extract(architecture).train(), store.subnet(architecture)
            for network in (extracted, subnet.train()):
                network(batch).square().mean().backward()
            rest = {name: gradient.clone() for name, gradient in store.gradients.items()}
            for name, parameter in extracted.named_parameters():
                prefix = tuple(map(slice, parameter.shape))
                torch.testing.assert_close(rest[name][prefix], parameter.grad, msg=name)
                rest[name][prefix] = 0
            assert not any(gradient.any() for gradient in rest.values())
            for name, buffer in extracted.named_buffers():
                prefix = tuple(map(slice, buffer.shape))
                torch.testing.assert_close(store.buffers[name][prefix], buffer, msg=name)
            for gradient in store.gradients.values():
                gradient.zero_()


@pytest.mark.slow
@every_space
def test_different_architectures_compute_different_functions(
    space: SearchSpace, stores: dict[str, Store]
) -> None:
    """Else the comparisons above would say little: a gene that is ignored passes them."""
    store = stores[space.name]
    with torch.no_grad():
        scores = {
            architecture.hash: store.subnet(architecture).eval()(images(SIZES["64"]))
            for architecture in [*one_per_choice(space), *members(space, 4)]
        }
    seen = torch.stack(list(scores.values())).flatten(1)
    distances = torch.cdist(seen, seen).fill_diagonal_(float("inf"))
    assert distances.min() > 1e-3


class TestSubnets:
    def test_gradients_of_several_subnets_add_up_in_the_store(self, nano: Store) -> None:
        chosen, batch = members(NANO, 3), images((32, 32))
        expected = {name: torch.zeros_like(t) for name, t in nano.parameters.items()}
        for architecture in chosen:
            extracted = nano.extract(architecture)
            extracted(batch).square().sum().backward()
            for name, parameter in extracted.named_parameters():
                expected[name][tuple(map(slice, parameter.shape))] += parameter.grad
            nano.subnet(architecture).eval()(batch).square().sum().backward()
        torch.testing.assert_close(nano.gradients, expected)

    @pytest.mark.slow
    @every_space
    def test_every_tensor_of_a_subnet_is_the_prefix_of_the_stores(
        self, space: SearchSpace, stores: dict[str, Store]
    ) -> None:
        store = stores[space.name]
        narrower = 0
        for architecture in members(space, 10, seed=1):
            for name, tensor in store.subnet(architecture).state_dict().items():
                whole = store.state_dict()[name]
                assert tensor.data_ptr() == whole.data_ptr()
                assert tensor.stride() == whole.stride()
                torch.testing.assert_close(tensor, whole[tuple(map(slice, tensor.shape))])
                narrower += tensor.shape != whole.shape
        assert narrower > 0

    def test_narrow_subnet_uses_the_prefix_of_the_wide_ones_weights(self, nano: Store) -> None:
        genotype = NANO.genotype(NANO.scaled(1.0))
        narrow, wide = (
            dict(nano.subnet(NANO.decode({**genotype, "stage2.width": w})).named_parameters())
            for w in (32, 64)
        )
        both = narrow.keys() & wide.keys()
        assert any(narrow[name].shape != wide[name].shape for name in both)
        for name in both:
            assert torch.equal(narrow[name], wide[name][tuple(map(slice, narrow[name].shape))])

    def test_same_architecture_gives_the_same_module(self, nano: Store) -> None:
        architecture = NANO.scaled(1.0)
        first, second, third = architecture.stages
        shared, written_otherwise = (
            Architecture(
                stem=architecture.stem,
                stages=(first, second.model_copy(update={"sharing": 2, **changes}), third),
            )
            for changes in ({}, {"conv_norm": "layer"})
        )
        subnet = nano.subnet(architecture)
        assert nano.subnet(Architecture.from_json(architecture.to_json())) is subnet
        assert nano.subnet(written_otherwise) is nano.subnet(shared) is not subnet

    def test_subnet_that_left_the_cache_still_views_the_store(self, nano: Store) -> None:
        largest = NANO.scaled(1.0)
        old = nano.subnet(largest)
        for architecture in list(NANO.enumerate())[: CACHED_SUBNETS + 1]:
            nano.subnet(architecture)
        again = nano.subnet(largest)
        assert again is not old
        assert storages(old.state_dict()) == storages(again.state_dict())
        assert len(nano._subnets) == CACHED_SUBNETS

    def test_subnet_that_is_used_between_others_stays_in_the_cache(self, nano: Store) -> None:
        largest = NANO.scaled(1.0)
        kept = nano.subnet(largest)
        for architecture in list(NANO.enumerate())[: CACHED_SUBNETS + 1]:
            nano.subnet(architecture)
            assert nano.subnet(largest) is kept

    def test_extracted_network_does_not_follow_the_store(self, nano: Store) -> None:
        extracted = nano.extract(NANO.scaled(0.0))
        before = outputs(extracted)
        for tensor in nano.state_dict().values():
            tensor.zero_()
        torch.testing.assert_close(outputs(extracted), before, rtol=0, atol=0)

    def test_extracted_network_is_contiguous_trainable_and_in_eval_mode(self, nano: Store) -> None:
        extracted = nano.extract(NANO.scaled(0.0))
        assert not extracted.training
        assert all(tensor.is_contiguous() for tensor in extracted.state_dict().values())
        assert all(p.requires_grad and p.grad is None for p in extracted.parameters())

    def test_a_store_begins_with_the_weights_of_a_network(self, nano: Store) -> None:
        given = Network(NANO.scaled(0.5), num_classes=TASK.num_classes)
        randomise(given.state_dict(), seed=1)
        before = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
        nano.begin_with(given.eval())
        torch.testing.assert_close(outputs(nano.extract(NANO.scaled(0.5))), outputs(given))
        # All that lies beyond the prefixes is as it was.
        used = {name: tuple(map(slice, t.shape)) for name, t in given.state_dict().items()}
        for name, tensor in nano.state_dict().items():
            if name in used:
                before[name][used[name]] = given.state_dict()[name]
            assert torch.equal(tensor, before[name]), name

    def test_a_classifier_of_other_classes_is_left_out(self, nano: Store) -> None:
        drawn = nano.parameters["head.weight"].clone()
        nano.begin_with(Network(NANO.scaled(0.5), num_classes=TASK.num_classes + 1))
        assert torch.equal(nano.parameters["head.weight"], drawn)

    def test_a_store_begins_with_no_network_of_another_space(self, nano: Store) -> None:
        with pytest.raises((KeyError, ValueError)):
            nano.begin_with(Network(TINY.scaled(1.0), num_classes=TASK.num_classes))

    def test_an_architecture_of_another_space_is_refused(self, nano: Store) -> None:
        with pytest.raises((KeyError, ValueError)):
            nano.subnet(DESIGNS[0].architecture)
        largest = NANO.scaled(1.0)
        stage = largest.stages[0].model_copy(update={"width": 96})
        wider = Architecture(stem=largest.stem, stages=(stage, *largest.stages[1:]))
        with pytest.raises(ValueError, match=r"of shape \[.*96.*\] exceeds \["):
            nano.subnet(wider)


class TestWeights:
    @pytest.mark.slow
    @pytest.mark.parametrize("space", [NANO, TINY, BASE, UNUSUAL], ids=lambda space: space.name)
    @pytest.mark.sampled(3)
    def test_corners_cover_every_parameter_of_every_member(self, space: SearchSpace) -> None:
        store = Store(space, num_classes=5, draw=False)
        shapes = {name: tuple(tensor.shape) for name, tensor in store.state_dict().items()}
        largest = {name: (0,) * len(shape) for name, shape in shapes.items()}
        for architecture in [*members(space, 10), *corners(space)]:
            for name, tensor in skeleton(architecture, num_classes=5).state_dict().items():
                assert len(tensor.shape) == len(shapes[name])
                largest[name] = tuple(map(max, largest[name], tensor.shape))
        assert largest == shapes  # none is larger, and none of the store's is never needed

    @pytest.mark.slow
    def test_feed_forwards_whose_turns_fall_to_whole_blocks_are_covered_too(self) -> None:
        fields = NANO.model_dump(mode="json")
        fields["stages"][0] |= {"ratio": [2]}
        fields["stages"][1] |= {"mixer": ["local_global", "mv2_se"], "local_ratio": [0]}
        fields["stages"][2] |= {"width": [64], "local_ratio": [0]}
        space = SearchSpace.model_validate(fields)
        store = Store(space, num_classes=5)
        for architecture in space.enumerate():
            store.subnet(architecture)

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "stage",
        [
            {"mixer": ["split_local_global"], "local_ratio": [0.25], "width": [96, 128]},
            {
                "mixer": ["split_local_global"],
                "local_ratio": [0.25],
                "width": [96, 128],
                "aggregation": [{"kind": "rates", "rates": [r]} for r in (4, 2)],
            },
            {"mixer": ["ladder"], "local_ratio": [0], "width": [64, 96]},
            {"mixer": ["ladder", "mv2_se"], "local_ratio": [0], "width": [32, 96]},
        ],
        ids=[
            *("a quarter of three heads", "with two rates"),
            *("a ladder of too few", "a ladder beside a whole block"),
        ],
    )
    def test_mixers_that_a_width_makes_another_are_covered_too(self, stage: dict) -> None:
        fields = NANO.model_dump(mode="json") | {"head_dim": 32, "ladder_head_dim": 16}
        fields["stages"][1] |= {"feed_forward": ["plain", "detail_specific"], **stage}
        fields["stages"][2] |= {"width": [64], "local_ratio": [0]}
        space = SearchSpace.model_validate(fields)
        store = Store(space, num_classes=5)
        for architecture in space.enumerate():
            store.subnet(architecture)

    def test_store_of_a_task_has_its_channels_and_classes(self) -> None:
        store = Store(NANO, num_classes=3, in_chans=1)
        network = store.subnet(NANO.scaled(0.0)).eval()
        assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 3)
        assert store.extract(NANO.scaled(0.0))(torch.zeros(2, 1, 32, 32)).shape == (2, 3)

    def test_fresh_store_depends_on_the_seed_alone(self) -> None:
        torch.manual_seed(1)
        first = Store(NANO, num_classes=5, seed=3)
        follows = torch.rand(1)
        torch.manual_seed(1)
        torch.testing.assert_close(follows, torch.rand(1), rtol=0, atol=0)  # generator untouched
        again, other = (Store(NANO, num_classes=5, seed=seed) for seed in (3, 4))
        torch.testing.assert_close(first.state_dict(), again.state_dict(), rtol=0, atol=0)
        assert not torch.equal(first.parameters["head.weight"], other.parameters["head.weight"])

    def test_fresh_store_is_drawn_by_the_rules_of_a_fresh_network(self) -> None:
        store = Store(TINY, num_classes=5)
        torch.manual_seed(0)
        network = Network(TINY.scaled(1.0), num_classes=5)
        for name, tensor in network.state_dict().items():
            mine = store.state_dict()[name]
            assert mine.isfinite().all()
            if tensor.numel() > 1000:
                assert float(mine.std()) == pytest.approx(float(tensor.std()), rel=0.15), name
            elif not tensor.is_floating_point() or tensor.std() == 0:
                assert torch.equal(mine, tensor), name

    def test_weights_that_are_not_drawn_are_no_numbers_until_others_are_loaded(
        self, nano: Store
    ) -> None:
        store = Store(NANO, num_classes=TASK.num_classes, draw=False)
        assert all(tensor.isnan().all() for tensor in store.parameters.values())
        store.load_state_dict(nano.state_dict())
        torch.testing.assert_close(store.state_dict(), nano.state_dict(), rtol=0, atol=0)

    def test_state_round_trip_gives_live_subnets_the_new_weights(self, nano: Store) -> None:
        architecture = NANO.scaled(0.0)
        other = Store(NANO, num_classes=TASK.num_classes, seed=7)
        live = other.subnet(architecture)
        assert not torch.allclose(
            outputs(live)["32"], outputs(nano.subnet(architecture))["32"], atol=1e-3
        )
        other.load_state_dict({name: tensor.clone() for name, tensor in nano.state_dict().items()})
        torch.testing.assert_close(outputs(live), outputs(nano.extract(architecture)))
        torch.testing.assert_close(other.state_dict(), nano.state_dict())
        assert storages(other.state_dict()).isdisjoint(storages(nano.state_dict()))

    def test_state_of_another_store_is_refused_by_name(self, nano: Store) -> None:
        state = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
        before = {name: tensor.clone() for name, tensor in state.items()}
        randomise(state, seed=1)
        lacking = {name: tensor for name, tensor in state.items() if name != "head.bias"}
        with pytest.raises(ValueError, match=r"another supernet: head\.bias is missing"):
            nano.load_state_dict(lacking)
        with pytest.raises(ValueError, match=r"another supernet: tail is .*unknown"):
            nano.load_state_dict(state | {"tail": torch.zeros(1)})
        with pytest.raises(ValueError, match=r"head\.weight has shape \[7, 96\], not \[5, 96\]"):
            nano.load_state_dict(state | {"head.weight": torch.zeros(7, 96)})
        torch.testing.assert_close(nano.state_dict(), before, rtol=0, atol=0)

    def test_store_for_evaluation_uses_the_given_tensors_without_a_copy(self, nano: Store) -> None:
        weights = {name: tensor.clone() for name, tensor in nano.state_dict().items()}
        store = Store(NANO, num_classes=TASK.num_classes, weights=weights)
        for architecture in members(NANO, 3):
            subnet = store.subnet(architecture)
            assert storages(subnet.state_dict()) <= storages(weights)
            torch.testing.assert_close(outputs(subnet), outputs(nano.subnet(architecture)))
            torch.testing.assert_close(outputs(store.extract(architecture)), outputs(subnet))
        assert not store.gradients

    def test_number_of_weights_is_that_of_the_parameters(self, nano: Store) -> None:
        for_evaluation = Store(NANO, num_classes=TASK.num_classes, weights=nano.state_dict())
        assert nano.numel() == sum(tensor.numel() for tensor in nano.parameters.values())
        assert for_evaluation.numel() == nano.numel()

    @every_space
    def test_weights_are_counted_without_a_store(
        self, space: SearchSpace, stores: dict[str, Store]
    ) -> None:
        count = count_shared_weights(space, num_classes=TASK.num_classes)
        assert count == stores[space.name].numel()
