"""What every network must do: one suite over published designs and architectures of every kind."""

import copy
import random

import pytest
import torch
from samples import NANO, PSVIT, TINY, UNUSUAL, larger_exhaustive, randomise
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from search_space import DESIGNS, Architecture, MeanHead, map_sizes
from supernet import Network
from supernet.network import skeleton

pytestmark = pytest.mark.sampled(2)

SIZES = [32, 33, 64, (45, 61)]
PSVIT_LARGEST = {
    layout: PSVIT.decode({**PSVIT.genotype(PSVIT.scaled(1.0)), "layout": layout})
    for layout in PSVIT.layout
}
NETWORKS = {
    **{design.name: design.architecture for design in DESIGNS},
    "nano, smallest": NANO.scaled(0.0),
    "nano, largest": NANO.scaled(1.0),
    **{f"tiny, sample {seed}": TINY.sample(random.Random(seed)) for seed in range(4)},
    **{f"psvit, {layout}": PSVIT_LARGEST[layout] for layout in PSVIT.layout},
    **{f"unusual, sample {seed}": UNUSUAL.sample(random.Random(seed)) for seed in range(4)},
}
SMALL = NANO.scaled(0.0)


def images(size: int | tuple[int, int], batch: int = 3, channels: int = 3) -> Tensor:
    height, width = (size, size) if isinstance(size, int) else size
    return torch.randn(
        batch, channels, height, width, generator=torch.Generator().manual_seed(batch)
    )


@pytest.fixture(scope="class")
def network(request: pytest.FixtureRequest) -> Network:
    """Weights are randomised: those of a fresh network hide what is unused."""
    network = skeleton(NETWORKS[request.param], num_classes=7).to_empty(device="cpu")
    state = network.state_dict()
    for tensor in state.values():
        tensor.zero_()
    randomise(state)
    return network.requires_grad_(True)


@pytest.mark.parametrize("network", larger_exhaustive(NETWORKS), indirect=True)
class TestEveryNetwork:
    @pytest.mark.slow
    @pytest.mark.parametrize("size", SIZES, ids=str)
    @pytest.mark.sampled(4)
    def test_runs_forward_and_backward_at_any_size_on_maps_of_the_planned_sizes(
        self, network: Network, size: int | tuple[int, int]
    ) -> None:
        features = network.eval().forward_features(images(size))
        scores = network(images(size))
        high, wide = map_sizes(size, network.architecture)[-1]
        mean = isinstance(network.architecture.head, MeanHead)
        assert features.shape == (3, *((high, wide) if mean else (wide,)), network.num_features)
        assert scores.shape == (3, 7)
        pooled = network.forward_head(features, pre_logits=True)
        torch.testing.assert_close(pooled, features.mean((1, 2)) if mean else features[:, 0])
        torch.testing.assert_close(network.head(pooled), scores)
        network.zero_grad()
        network.train()(images(size)).square().sum().backward()
        gradients = [parameter.grad for parameter in network.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)

    @pytest.mark.slow
    @pytest.mark.sampled(4)
    def test_every_parameter_gets_a_gradient(self, network: Network) -> None:
        network.zero_grad()
        # Large enough for more than one token in the last stage.
        network.train()(images(128)).square().sum().backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            # A shift of all keys shifts all scores of a query alike, which softmax ignores.
            assert parameter.grad.any() or name.endswith(".k.bias"), name

    @pytest.mark.slow
    def test_an_image_is_judged_by_itself(self, network: Network) -> None:
        with torch.no_grad():
            batch, alone = images(45), images(45)[1:2]
            torch.testing.assert_close(
                network.eval()(batch)[1:2], network(alone), rtol=1e-4, atol=1e-4
            )

    @pytest.mark.slow
    @pytest.mark.sampled(4)
    def test_the_maps_of_its_stages_do_not_depend_on_whether_gradients_are_wanted(
        self, network: Network
    ) -> None:
        batch = images(64).double()  # in single precision random weights let errors grow
        given = batch.clone()
        precise = copy.deepcopy(network).double().eval()
        expected = precise.forward_intermediates(batch)
        with torch.no_grad():  # other ways are then taken
            torch.testing.assert_close(
                precise.forward_intermediates(batch), expected, rtol=1e-7, atol=1e-7
            )
        assert torch.equal(batch, given)

    @pytest.mark.slow
    @pytest.mark.sampled(4)
    def test_state_dict_holds_all_that_the_output_depends_on(self, network: Network) -> None:
        again = skeleton(network.architecture, num_classes=7).to_empty(device="cpu")
        again.load_state_dict(network.state_dict())
        with torch.no_grad():
            torch.testing.assert_close(again.eval()(images(32)), network.eval()(images(32)))


def weights_of(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return Network(SMALL, num_classes=5).state_dict()


def test_fresh_weights_depend_on_the_seed_alone() -> None:
    torch.testing.assert_close(weights_of(1), weights_of(1), rtol=0, atol=0)
    assert not torch.equal(weights_of(1)["head.weight"], weights_of(2)["head.weight"])


def test_fresh_weights_follow_the_rules_of_the_field() -> None:
    weights = weights_of(0)
    assert float(weights["stages.2.blocks.0.feed_forward.fc1.weight"].std()) == pytest.approx(
        0.02, rel=0.1
    )
    pooling = weights["stages.2.entry.conv.conv.weight"]  # fan-out: 64 channels of 3 x 3
    assert float(pooling.std()) == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.05)
    depthwise = weights["stages.2.blocks.0.feed_forward.detail.weight"]  # one channel each
    assert float(depthwise.std()) == pytest.approx((2 / 9) ** 0.5, rel=0.1)
    for name, tensor in weights.items():
        if tensor.ndim == 1:
            assert torch.equal(tensor, torch.full_like(tensor, float(tensor[0]))), name
            ones = name.endswith(("weight", "running_var"))
            assert float(tensor[0]) == (1.0 if ones else 0.0), name


def test_initial_weights_can_be_drawn_anew_in_place() -> None:
    network = Network(SMALL, num_classes=5)
    randomise(network.state_dict())
    again, weight = Network(SMALL, num_classes=5), network.head.weight
    for one in (network, again):
        torch.manual_seed(1)
        one.init_weights()
    assert network.head.weight is weight
    torch.testing.assert_close(
        dict(network.named_parameters()), dict(again.named_parameters()), rtol=0, atol=0
    )


@pytest.mark.parametrize(("classes", "outputs"), [(0, 64), (7, 7)])
def test_no_classes_give_the_pooled_features(classes: int, outputs: int) -> None:
    network = Network(SMALL, num_classes=classes).eval()
    scores = network(images(32))
    assert scores.shape == (3, outputs)
    if not classes:
        torch.testing.assert_close(scores, network.forward_features(images(32)).mean((1, 2)))


def test_images_may_have_any_number_of_channels() -> None:
    assert Network(SMALL, num_classes=7, in_chans=1)(images(32, channels=1)).shape == (3, 7)
    assert Network(UNUSUAL.scaled(0.0), in_chans=5)(images(32, channels=5)).shape == (3, 1000)


def test_reset_classifier_replaces_the_head_and_nothing_else() -> None:
    network = Network(SMALL, num_classes=5).eval()
    features = network.forward_features(images(32))
    old = network.get_classifier()
    network.reset_classifier(9)
    assert network.num_classes == 9
    assert network.get_classifier() is network.head is not old
    assert network(images(32)).shape == (3, 9)
    assert float(network.head.weight.detach().std()) == pytest.approx(0.02, rel=0.15)
    torch.testing.assert_close(network.forward_features(images(32)), features)
    network.reset_classifier(0)
    torch.testing.assert_close(network(images(32)), features.mean((1, 2)))


def test_stochastic_depth_rises_linearly_and_acts_in_training_alone() -> None:
    architecture = TINY.scaled(1.0)
    network = Network(architecture, num_classes=5, drop_path_rate=0.5)
    blocks = [block for stage in network.stages for block in stage.blocks]
    rates = [getattr(block.drop_path2, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.5 * i / (len(blocks) - 1) for i in range(len(blocks))])

    batch = images(32, batch=16)
    steady = Network(architecture, num_classes=5).eval()
    steady.load_state_dict(network.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(batch), steady(batch))
        network.train()
        assert not torch.allclose(network(batch), network(batch), atol=1e-4)
        steady.train()
        torch.testing.assert_close(steady(batch), steady(batch))


def test_stochastic_depth_of_pslt_rises_over_its_ladder_blocks() -> None:
    network = skeleton(NETWORKS["PSLT"], num_classes=5, drop_path_rate=0.2)
    rates = [
        float(getattr(module, "drop_prob", 0.0))
        for name, module in network.named_modules()
        if name.endswith("drop_path2")
    ]  # three branches in each of 13 blocks
    assert rates == pytest.approx([0.2 * (index // 3) / 12 for index in range(39)])


@pytest.mark.parametrize(
    ("name", "bilinear"), [("PVT-Tiny", True), ("LIT-Ti", True), ("DeiT-Ti", False)]
)
def test_positions_are_resized_linearly_in_pyramids_and_as_timm_does_in_vits(
    name: str, bilinear: bool
) -> None:
    network = skeleton(NETWORKS[name], num_classes=5)
    embedding = network.stages[0].entry["position"].to_empty(device="cpu")
    embedding.draw_weights()
    side = embedding.side
    size = (side + 3, side - 2)
    table = embedding.table.view(1, side, side, -1)
    if bilinear:
        maps = table.permute(0, 3, 1, 2)
        resized = nn.functional.interpolate(maps, size=size, mode="bilinear")
        expected = resized.permute(0, 2, 3, 1)
    else:
        tokens = resample_abs_pos_embed(
            table.flatten(1, 2), list(size), [side, side], num_prefix_tokens=0
        )
        expected = tokens.unflatten(1, size)
    torch.testing.assert_close(embedding(torch.zeros_like(expected)), expected)


def test_canonical_architecture_is_built() -> None:
    stage = SMALL.stages[0].model_copy(update={"conv_norm": "layer"})
    redundant = Architecture(stem=SMALL.stem, stages=(stage, *SMALL.stages[1:]))
    assert redundant != SMALL
    assert Network(redundant).architecture == SMALL


def test_skeleton_has_the_names_and_shapes_of_the_network_and_no_storage() -> None:
    for architecture in (NANO.scaled(1.0), UNUSUAL.scaled(1.0)):
        built = Network(architecture, num_classes=5, in_chans=1).state_dict()
        planned = skeleton(architecture, num_classes=5, in_chans=1).state_dict()
        assert {name: (t.shape, t.dtype) for name, t in planned.items()} == {
            name: (t.shape, t.dtype) for name, t in built.items()
        }
        assert all(tensor.is_meta for tensor in planned.values())
