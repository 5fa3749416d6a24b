"""The closed-form cost against two independent counters that run the built network."""

import itertools
import random

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from samples import BASE, NANO, PSVIT, TINY, UNUSUAL, one_per_choice
from torch.utils.flop_counter import FlopCounterMode

from search_space import DESIGNS, Architecture, PublishedDesign, SearchSpace, total_cost
from supernet import Network
from supernet.network import skeleton

Size = tuple[int, int]
SIZES = {"224": (224, 224), "64": (64, 64), "odd": (45, 61)}
CLASSES = 10


def spaces(*chosen: SearchSpace) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("space", chosen, ids=[space.name for space in chosen])


def build(architecture: Architecture, size: Size) -> tuple[Network, torch.Tensor]:
    """A network and an image to count on; small ones run faster than they are simulated."""
    device = "meta" if max(size) > 64 else "cpu"
    network = skeleton(architecture, num_classes=CLASSES).to_empty(device=device)
    return network.eval(), torch.zeros(1, 3, *size, device=device)


def counted_by_torch(network: Network, image: torch.Tensor) -> dict[str, int]:
    """Multiply-adds by operator; torch counts each as two."""
    with FlopCounterMode(display=False, depth=0) as counter:
        network(image)
    return {str(op): flops // 2 for op, flops in counter.get_flop_counts()["Global"].items()}


def counted_by_fvcore(network: Network, image: torch.Tensor) -> int:
    """Multiply-adds of convolutions, linear layers and attention products."""

    def attention(inputs: list[torch._C.Value], outputs: list[torch._C.Value]) -> int:
        queries, keys = (value.type().sizes() for value in inputs[:2])
        batch, heads, tokens, dim = queries
        return 2 * batch * heads * tokens * keys[-2] * dim

    analysis = FlopCountAnalysis(network, image)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
    by_operator = analysis.by_operator()
    uncounted = (
        "layer_norm",
        "batch_norm",
        "upsample_bilinear2d",
        "adaptive_avg_pool2d",
        "grid_sampler",
    )
    return int(sum(count for op, count in by_operator.items() if op not in uncounted))


def number_of_parameters(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def assert_torch_counts_the_same(architecture: Architecture, size: Size) -> None:
    network, image = build(architecture, size)
    with torch.no_grad():
        counted = sum(counted_by_torch(network, image).values())
    cost = total_cost(architecture, image_size=size, num_classes=CLASSES)
    assert cost.params == number_of_parameters(network), architecture.summary
    assert cost.macs == counted, (architecture.summary, size)


def assert_fvcore_counts_the_same(architecture: Architecture, size: Size, *, grad: bool) -> None:
    with torch.set_grad_enabled(grad):  # attention as explicit products, or as the fused kernel
        counted = counted_by_fvcore(*build(architecture, size))
    cost = total_cost(architecture, image_size=size, num_classes=CLASSES)
    assert cost.macs == counted, (architecture.summary, size)


@spaces(NANO, TINY, BASE, PSVIT, UNUSUAL)
@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_params_and_macs_equal_torchs_count_for_every_choice_of_every_gene(
    space: SearchSpace, size: Size
) -> None:
    for architecture in one_per_choice(space):
        assert_torch_counts_the_same(architecture, size)


@spaces(NANO, TINY, BASE, PSVIT)
def test_params_and_macs_equal_torchs_count_for_random_architectures(space: SearchSpace) -> None:
    rng = random.Random(0)
    for size in 20 * list(SIZES.values()):
        assert_torch_counts_the_same(space.sample(rng), size)


@spaces(NANO, BASE, PSVIT, UNUSUAL)
def test_macs_equal_fvcores_count_for_every_choice_of_every_gene(space: SearchSpace) -> None:
    sizes = itertools.cycle([(64, 64), (45, 61)])
    for architecture, size in zip(one_per_choice(space), sizes, strict=False):
        assert_fvcore_counts_the_same(architecture, size, grad=False)


@spaces(NANO, TINY, BASE, PSVIT)
@pytest.mark.parametrize("grad", [True, False], ids=["explicit", "fused"])
def test_macs_equal_fvcores_count_for_random_architectures(space: SearchSpace, grad: bool) -> None:
    rng = random.Random(1)
    for size in ((64, 64), (45, 61)):
        assert_fvcore_counts_the_same(space.sample(rng), size, grad=grad)


def test_channels_of_the_image_are_costed() -> None:
    for architecture in (NANO.scaled(0.0), UNUSUAL.scaled(0.0)):
        network = skeleton(architecture, num_classes=0, in_chans=1)
        counted = counted_by_torch(network, torch.zeros(1, 1, 64, 64, device="meta"))
        cost = total_cost(architecture, image_size=64, num_classes=0, in_chans=1)
        assert cost.params == number_of_parameters(network)
        assert cost.macs == sum(counted.values())


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


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_published_designs_as_built_have_the_published_counts(design: PublishedDesign) -> None:
    for size in SIZES.values():
        network = skeleton(design.architecture, num_classes=1000)
        with torch.no_grad():
            counted = counted_by_torch(network, torch.zeros(1, 3, *size, device="meta"))
        cost = total_cost(design.architecture, image_size=size)
        assert cost.params == number_of_parameters(network)
        assert cost.macs == sum(counted.values())
        products = sum(macs for op, macs in counted.items() if "bmm" in op or "attention" in op)
        if size == (224, 224) and design.exact:
            rest = round((cost.macs - products) / 1e9, 4)
            assert rest == WITHOUT_PRODUCTS[design.name]
