"""The closed-form cost against independent counters that run the built network."""

import itertools
import random
from collections.abc import Callable

import pytest
import torch
from samples import (
    BASE,
    LARGER,
    MINIATURE,
    NANO,
    PSVIT,
    SMALL_PSVIT,
    TINY,
    UNUSUAL,
    per_choice,
)
from torch.utils.flop_counter import FlopCounterMode

from search_space import (
    DESIGNS,
    Architecture,
    FeedForward,
    FullAttention,
    LocalGlobal,
    PatchStem,
    PublishedDesign,
    SearchSpace,
    SpatialReduction,
    Stage,
    cost_table,
    total_cost,
)
from supernet import Network
from supernet.blocks import fast_paths
from supernet.counting import (
    counted_cost,
    counted_parts,
    fvcore_activations,
    fvcore_macs,
    fvcore_parts,
)
from supernet.network import skeleton

pytestmark = pytest.mark.sampled(2)

Size = tuple[int, int]
PerChoice = Callable[[SearchSpace], tuple[Architecture, ...]]
SIZES = {"224": (224, 224), "64": (64, 64), "odd": (45, 61)}
CLASSES = 10
RUN = 1_000_000_000
"""A network of more multiply-adds is not run to be counted, but simulated."""


def spaces(*chosen: SearchSpace) -> pytest.MarkDecorator:
    """A test of each space; those of the largest networks with `--exhaustive` alone."""
    params = [
        pytest.param(
            space,
            id=space.name,
            marks=pytest.mark.exhaustive if space.name in (BASE.name, PSVIT.name) else (),
        )
        for space in chosen
    ]
    return pytest.mark.parametrize("space", params)


def designs(*chosen: PublishedDesign) -> pytest.MarkDecorator:
    """A test of each design; the larger of a kind with `--exhaustive` alone."""
    params = [
        pytest.param(
            design,
            id=design.name,
            marks=pytest.mark.exhaustive if design.name in LARGER else (),
        )
        for design in chosen
    ]
    return pytest.mark.parametrize("design", params)


def build(architecture: Architecture, size: Size) -> tuple[Network, torch.Tensor]:
    """A network and an image to count on; small ones run faster than they are simulated."""
    macs = total_cost(architecture, image_size=size, num_classes=CLASSES).macs
    device = "meta" if macs > RUN else "cpu"
    network = skeleton(architecture, num_classes=CLASSES).to_empty(device=device)
    return network.eval(), torch.zeros(1, 3, *size, device=device)


def assert_torch_counts_the_same(architecture: Architecture, size: Size) -> None:
    counted = counted_cost(*build(architecture, size))
    cost = total_cost(architecture, image_size=size, num_classes=CLASSES)
    assert cost == counted, (architecture.summary, size)


def assert_fvcore_counts_the_same_macs(
    architecture: Architecture, size: Size, *, grad: bool
) -> None:
    with torch.set_grad_enabled(grad):  # attention as explicit products, or as the fused kernel
        counted = fvcore_macs(*build(architecture, size))
    cost = total_cost(architecture, image_size=size, num_classes=CLASSES)
    assert cost.macs == counted, (architecture.summary, size)


def assert_fvcore_counts_the_same_activations(architecture: Architecture, size: Size) -> None:
    with torch.no_grad():
        counted = fvcore_activations(*build(architecture, size))
    cost = total_cost(architecture, image_size=size, num_classes=CLASSES)
    assert cost.activations == counted, (architecture.summary, size)


@pytest.mark.slow
@spaces(MINIATURE, NANO, SMALL_PSVIT, UNUSUAL, BASE, PSVIT)
@per_choice
@pytest.mark.sampled(2)
def test_costs_equal_the_count_of_the_running_network_for_every_choice_of_every_gene(
    space: SearchSpace, per_choice: PerChoice
) -> None:
    for architecture in per_choice(space):
        assert_torch_counts_the_same(architecture, SIZES["224"])


@pytest.mark.slow
@spaces(MINIATURE, NANO, SMALL_PSVIT, UNUSUAL, PSVIT)
@per_choice
def test_costs_equal_the_count_for_every_choice_of_every_gene_at_an_odd_size(
    space: SearchSpace, per_choice: PerChoice
) -> None:
    for architecture in per_choice(space):
        assert_torch_counts_the_same(architecture, SIZES["odd"])


@pytest.mark.slow
@spaces(TINY, NANO, BASE, PSVIT)
@pytest.mark.sampled(2)
def test_costs_equal_the_count_of_the_running_network_for_random_architectures(
    space: SearchSpace,
) -> None:
    rng = random.Random(0)
    for size in 5 * list(SIZES.values()):
        assert_torch_counts_the_same(space.sample(rng), size)


@pytest.mark.slow
@spaces(MINIATURE, NANO, SMALL_PSVIT, UNUSUAL, PSVIT)
@per_choice
@pytest.mark.sampled(2)
def test_macs_equal_fvcores_count_for_every_choice_of_every_gene(
    space: SearchSpace, per_choice: PerChoice
) -> None:
    sizes = itertools.cycle([(64, 64), (45, 61)])
    for architecture, size in zip(per_choice(space), sizes, strict=False):
        assert_fvcore_counts_the_same_macs(architecture, size, grad=False)


@pytest.mark.slow
@spaces(NANO, SMALL_PSVIT, UNUSUAL, PSVIT)
@per_choice
@pytest.mark.sampled(2)
def test_activations_equal_fvcores_count_for_every_choice_of_every_gene(
    space: SearchSpace, per_choice: PerChoice
) -> None:
    sizes = itertools.cycle([(45, 61), (64, 64)])
    for architecture, size in zip(per_choice(space), sizes, strict=False):
        assert_fvcore_counts_the_same_activations(architecture, size)


@pytest.mark.slow
@spaces(TINY, NANO, BASE, PSVIT)
@pytest.mark.parametrize("grad", [True, False], ids=["explicit", "fused"])
@pytest.mark.sampled(2)
def test_macs_equal_fvcores_count_for_random_architectures(space: SearchSpace, grad: bool) -> None:
    rng = random.Random(1)
    for size in ((64, 64), (45, 61)):
        assert_fvcore_counts_the_same_macs(space.sample(rng), size, grad=grad)


@pytest.mark.slow
@spaces(TINY, NANO, BASE, PSVIT)
def test_activations_equal_fvcores_count_for_random_architectures(space: SearchSpace) -> None:
    rng = random.Random(2)
    for size in ((64, 64), (45, 61)):
        assert_fvcore_counts_the_same_activations(space.sample(rng), size)


def test_linear_layers_of_large_maps_count_the_same_where_they_run_as_convolutions() -> None:
    network = skeleton(NANO.scaled(1.0), num_classes=CLASSES).to_empty(device="cpu").eval()
    image = torch.zeros(1, 3, 256, 256)
    with torch.inference_mode():
        assert fast_paths.open_paths(image).linear_as_convolution
    assert fast_paths.SEVERAL_TOKENS <= (256 // 4) ** 2  # of the first stage's map
    assert counted_cost(network, image) == total_cost(
        NANO.scaled(1.0), image_size=256, num_classes=CLASSES
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_attention_maps_count_only_where_they_are_lent(depth: int) -> None:
    heads, tokens = 3, 14 * 14
    mixer = LocalGlobal(heads=heads, aggregation=FullAttention(local_term=False))
    costs = []
    for sharing in (1, 2):
        stage = Stage(width=192, depth=depth, sharing=min(sharing, depth), mixer=mixer)
        architecture = Architecture(stem=PatchStem(patch_size=16), stages=(stage,))
        costs.append(counted_cost(*build(architecture, (224, 224))).activations)
    borrowers = depth // 2
    lent, queries_and_keys = heads * tokens**2, 2 * tokens * 192
    assert costs[1] - costs[0] == borrowers * (lent - queries_and_keys)


@pytest.mark.slow
@spaces(MINIATURE, SMALL_PSVIT, UNUSUAL, PSVIT)
@per_choice
@pytest.mark.sampled(2)
def test_each_part_costs_what_its_modules_are_counted_to(
    space: SearchSpace, per_choice: PerChoice
) -> None:
    for architecture in per_choice(space):
        assert_parts_are_counted_the_same(architecture)


def assert_parts_are_counted_the_same(architecture: Architecture) -> None:
    counted = counted_parts(*build(architecture, (45, 61)))
    for part in cost_table(architecture, image_size=(45, 61), num_classes=CLASSES):
        assert part.cost == counted[part.name], (architecture.summary, part.name)


def test_fvcore_counts_the_same_multiply_adds_of_each_part_expansion_and_class_token_included() -> (
    None
):
    by_name = {design.name: design.architecture for design in DESIGNS}
    for architecture in (by_name["LW-PLG-ViT-R"], by_name["PVT-Tiny"]):
        assert_parts_are_counted_the_same(architecture)
        with torch.no_grad():
            counted = fvcore_parts(*build(architecture, (64, 64)))
        table = cost_table(architecture, image_size=64, num_classes=CLASSES)
        assert {part.name: counted.get(part.name, 0) for part in table} == {
            part.name: part.cost.macs for part in table
        }
        assert counted[""] == sum(part.cost.macs for part in table)


def test_a_reduction_reads_the_padding_of_a_map_that_its_rate_does_not_divide() -> None:
    mixer = LocalGlobal(heads=1, aggregation=SpatialReduction(rate=8))
    stage = Stage(width=32, depth=1, mixer=mixer, feed_forward=FeedForward(ratio=1))
    architecture = Architecture(stem=PatchStem(patch_size=4), stages=(stage,))
    counted = counted_cost(*build(architecture, (36, 36)))  # 9 x 9 tokens, read as 16 x 16
    assert counted.peak == 32 * (16 * 16 + 2 * 2)
    assert total_cost(architecture, image_size=36, num_classes=CLASSES) == counted


def test_an_operator_that_the_counter_does_not_know_is_an_error() -> None:
    class Product(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.einsum("bchw,bchv->bcwv", x, x)

    with pytest.raises(NotImplementedError, match="bmm"):
        counted_cost(Product(), torch.zeros(1, 3, 8, 8, device="meta"))


def test_channels_of_the_image_are_costed() -> None:
    for architecture in (NANO.scaled(0.0), UNUSUAL.scaled(0.0)):
        network = skeleton(architecture, num_classes=0, in_chans=1).eval()
        counted = counted_cost(network, torch.zeros(1, 1, 64, 64, device="meta"))
        assert total_cost(architecture, image_size=64, num_classes=0, in_chans=1) == counted


# 10^9 multiply-adds of the authors' code at 224 px without the attention products.
WITHOUT_PRODUCTS = {
    "Shunted-T": 1.9967,
    "Shunted-S": 4.6464,
    "Shunted-B": 7.6040,
    "LIT-Ti": 3.4585,
    "LIT-S": 3.8922,
    "LIT-M": 8.0540,
    "LIT-B": 14.3096,
    "PSLT-Tiny": 0.8575,
    "PSLT": 1.9074,
    "PSLT-Large": 3.3714,
    "DeiT-Ti": 1.0749,
    "DeiT-S": 4.2412,
    "PVT-Tiny": 1.8565,
}


def attention_products(network: Network, image: torch.Tensor) -> int:
    with torch.no_grad(), FlopCounterMode(display=False, depth=0) as counter:
        network(image)
    counts = counter.get_flop_counts()["Global"].items()
    return sum(n for op, n in counts if "bmm" in str(op) or "attention" in str(op)) // 2


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
@designs(*DESIGNS)
@pytest.mark.sampled(4)
def test_published_designs_cost_what_the_running_network_is_counted_to(
    design: PublishedDesign, size: Size
) -> None:
    assert_torch_counts_the_same(design.architecture, size)


@pytest.mark.slow
@designs(*(design for design in DESIGNS if design.exact))
@pytest.mark.sampled(3)
def test_exact_designs_have_the_published_macs(design: PublishedDesign) -> None:
    network = skeleton(design.architecture, num_classes=1000)
    products = attention_products(network, torch.zeros(1, 3, 224, 224, device="meta"))
    rest = round((total_cost(design.architecture).macs - products) / 1e9, 4)
    assert rest == WITHOUT_PRODUCTS[design.name]
