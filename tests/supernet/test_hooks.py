"""What tools that look into networks rely on: over published designs and samples of `base`."""

import random
from collections.abc import Iterator, Mapping

import pytest
import torch
from samples import BASE, LARGER, larger_exhaustive, randomise
from torch import Tensor, nn
from torch.nn import functional as F

from search_space import DESIGNS, Architecture
from supernet import Network
from supernet.network import skeleton

pytestmark = pytest.mark.sampled(2)

NETWORKS = {
    **{design.name: design.architecture for design in DESIGNS},
    **{f"base, sample {seed}": BASE.sample(random.Random(seed)) for seed in range(3)},
}
SHORT = {
    name: architecture.model_copy(
        update={
            "stages": tuple(
                stage.model_copy(update={"depth": min(stage.depth, stage.sharing)})
                for stage in architecture.stages[:: max(1, len(architecture.stages) - 1)]
            )
        }
    )
    for name, architecture in NETWORKS.items()
}
"""First and last stages, with as few blocks as have every role: what compiles takes long."""

SHUNTED = SHORT["Shunted-T"].stages
SHORT["mixed"] = SHORT["PLG-ViT-T"].model_copy(
    update={
        "stages": (
            SHORT["PLG-ViT-T"].stages[-1],
            SHUNTED[0].model_copy(update={"pooling": SHUNTED[1].pooling}),
            SHUNTED[1],
        )
    }
)

SIZE = 64
DROP_PATHS = ("drop_path1", "drop_path2")

distinct_networks = pytest.mark.parametrize("name", [n for n in NETWORKS if n not in LARGER])
every_network = pytest.mark.parametrize("name", larger_exhaustive(NETWORKS))
with_and_without_gradients = pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])


def build(
    name: str,
    drop_path_rate: float = 0.0,
    architectures: Mapping[str, Architecture] = NETWORKS,
) -> Network:
    """In evaluation, with randomised weights: those of a fresh network hide what is unused."""
    network = skeleton(architectures[name], num_classes=7, drop_path_rate=drop_path_rate)
    network = network.to_empty(device="cpu")
    for tensor in network.state_dict().values():
        tensor.zero_()
    randomise(network.state_dict())
    return network.requires_grad_(True).eval()


def images(batch: int = 1) -> Tensor:
    return torch.randn(batch, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


def tensors_of(value: object) -> Iterator[Tensor]:
    """The tensors within a module's inputs or outputs."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, dict):
        yield from tensors_of(list(value.values()))


def assert_kept_tensors_stay(network: Network, hooked: list[tuple[str, nn.Module]]) -> None:
    """What hooks at these modules keep of inputs and outputs is unchanged behind the forward."""
    kept: list[tuple[str, Tensor, Tensor]] = []
    called: set[str] = set()

    def keep(name: str, values: object) -> None:
        called.add(name)
        kept.extend((name, tensor, tensor.detach().clone()) for tensor in tensors_of(values))

    handles = [
        module.register_forward_hook(
            lambda _, inputs, output, name=name: keep(name, (inputs, output))
        )
        for name, module in hooked
    ]
    network(images())
    for handle in handles:
        handle.remove()
    assert called == {
        name for name, module in hooked if not isinstance(module, nn.ModuleList | nn.ModuleDict)
    }
    assert not {name for name, tensor, clone in kept if not torch.equal(tensor, clone)}


@pytest.mark.slow
@with_and_without_gradients
@every_network
@pytest.mark.sampled(4)
def test_what_hooks_at_all_modules_keep_does_not_change(name: str, grad: bool) -> None:
    network = build(name)
    with torch.set_grad_enabled(grad):
        assert_kept_tensors_stay(network, list(network.named_modules()))


@pytest.mark.parametrize("name", ["Shunted-T", "PSLT-Tiny", "LW-PLG-ViT-A", "base, sample 0"])
def test_what_a_hook_at_some_modules_keeps_does_not_change(name: str) -> None:
    """The others may then be merged with their neighbours."""
    network = build(name)
    modules = list(network.named_modules())
    with torch.no_grad():
        for first in range(5):
            assert_kept_tensors_stay(network, modules[first::5])


@pytest.mark.slow
@every_network
@pytest.mark.sampled(3)
def test_hooks_change_no_output(name: str) -> None:
    network = build(name).double()
    with torch.no_grad():
        expected = network(images().double())
        for module in network.modules():
            module.register_forward_hook(lambda module, inputs, output: None)
        torch.testing.assert_close(network(images().double()), expected)


@pytest.mark.slow
@every_network
@pytest.mark.sampled(3)
def test_full_backward_hooks_at_all_modules_see_the_gradients_of_their_outputs(name: str) -> None:
    network = build(name)
    network(images()).square().sum().backward()
    expected = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
    network.zero_grad()
    seen: set[str] = set()
    for part, module in network.named_modules():
        module.register_full_backward_hook(lambda *_, part=part: seen.add(part))
    network(images()).square().sum().backward()
    called = {
        part
        for part, module in network.named_modules()
        if not isinstance(module, nn.ModuleList | nn.ModuleDict)
    }
    assert seen == called
    found = {n: p.grad for n, p in network.named_parameters() if p.grad is not None}
    torch.testing.assert_close(found, expected)


def drop_paths(network: Network) -> list[nn.Module]:
    return [m for n, m in network.named_modules() if n.rpartition(".")[2] in DROP_PATHS]


@pytest.mark.slow
@every_network
@pytest.mark.sampled(3)
def test_every_residual_branch_has_a_drop_path_of_its_own(name: str) -> None:
    calls: list[nn.Module] = []
    network = build(name, drop_path_rate=0.5)
    for module in network.modules():
        if module in drop_paths(network):
            module.register_forward_hook(lambda module, *_: calls.append(module))
    with torch.no_grad():
        network(images())
    assert calls == drop_paths(network)
    assert len(calls) == len(set(calls))


@pytest.mark.parametrize("name", ["Shunted-T", "LIT-Ti", "PSLT-Tiny", "base, sample 0"])
def test_gradients_at_a_drop_path_are_those_of_its_output_alone(name: str) -> None:
    """As Grad-CAM takes them: activation and gradient by hooks, against the output's own part."""
    network = build(name, drop_path_rate=0.2)
    module = drop_paths(network)[-2]
    activations: list[Tensor] = []
    gradients: list[Tensor] = []
    handles = [
        module.register_forward_hook(lambda m, i, output: activations.append(output)),
        module.register_full_backward_hook(lambda m, i, given: gradients.append(given[0])),
    ]
    network(images())[0, 3].backward()
    for handle in handles:
        handle.remove()

    # Again with the module's output replaced by a leaf: what the score owes to that place alone.
    leaf = activations[0].detach().clone().requires_grad_()
    module.register_forward_hook(lambda m, i, output: leaf)
    (expected,) = torch.autograd.grad(network(images())[0, 3], leaf)
    assert len(activations) == len(gradients) == 1
    assert expected.abs().max() > 0
    torch.testing.assert_close(gradients[0], expected)
    torch.testing.assert_close(activations[0], leaf)


def step(network: Network, batch: Tensor, labels: Tensor) -> Tensor:
    """The loss of a training step."""
    return F.cross_entropy(network(batch), labels)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "mixed",
        *(pytest.param(n, marks=pytest.mark.exhaustive) for n in NETWORKS if n not in LARGER),
    ],
)
def test_a_training_step_compiles_as_one_graph(name: str) -> None:
    network = build(name, architectures=SHORT).train()
    labels = torch.tensor([1, 2])
    torch.compiler.reset()
    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    state = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    losses, gradients = [], []
    for function in (compiled, step):
        network.load_state_dict(state)
        network.zero_grad()
        loss = function(network, images(2), labels)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(
            torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None])
        )
    torch.testing.assert_close(*losses, rtol=1e-3, atol=1e-3)
    found, expected = gradients
    assert float((found - expected).norm()) < 1e-2 * float(expected.norm())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@distinct_networks
def test_a_trace_without_gradients_can_be_called_with_them(name: str) -> None:
    network = build(name, architectures=SHORT)
    with torch.no_grad():
        traced = torch.jit.trace(network, images(2), check_trace=False)
        torch.testing.assert_close(traced(images(2)), network(images(2)), rtol=1e-3, atol=1e-3)
    traced(images(2)).square().sum().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)


@pytest.mark.slow
@with_and_without_gradients
@every_network
@pytest.mark.sampled(4)
def test_half_precision_stays_half(name: str, grad: bool) -> None:
    torch.manual_seed(0)
    network = Network(NETWORKS[name], num_classes=7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0  # of a fresh PSLT, maps are else too small for half precision
    with torch.no_grad():
        network.train()(images(8))
        expected = network.eval()(images())
    with torch.set_grad_enabled(grad):
        found = network.half()(images().half())
    assert found.dtype == torch.float16
    torch.testing.assert_close(found.float(), expected, atol=0.02, rtol=0.05)
