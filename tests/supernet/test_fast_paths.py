"""Every fast path against the plain computation that it stands for, and what hooks see of it."""

from collections.abc import Callable

import pytest
import torch
from samples import randomise
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.module import register_module_forward_hook

from search_space.parts import ConvNormKind
from supernet.blocks import fast_paths
from supernet.blocks.layers import DepthwiseConv, MapConv, MapLinear, ResidualDepthwiseConv
from supernet.blocks.norms import MapBatchNorm, build_conv_norm

WIDTH = 12


def image_map(height: int, width: int, batch: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, height, width, WIDTH, generator=generator)


def tensors(*shape: int, number: int) -> list[Tensor]:
    return [torch.randn(shape, requires_grad=True) for _ in range(number)]


def test_paths_of_training_and_of_inference_are_never_open_together() -> None:
    x = image_map(3, 3)
    training = fast_paths.open_paths(x)
    with torch.no_grad():
        inference = fast_paths.open_paths(x)
        assert not fast_paths.open_paths(x.half()).linear_as_convolution
        with torch.autocast("cpu", torch.bfloat16):
            assert not fast_paths.open_paths(x).linear_as_convolution
    assert any(training)
    assert any(inference)
    assert not any(one and other for one, other in zip(training, inference, strict=True))


def test_only_what_helps_any_device_is_open_off_the_cpu() -> None:
    with torch.no_grad():
        assert {
            name
            for name, is_open in fast_paths.open_paths(image_map(3, 3).to("meta"))._asdict().items()
            if is_open
        } == {"merged_steps", "channels_last_image"}
    assert not any(fast_paths.open_paths(image_map(3, 3).to("meta")))


def test_a_traced_computation_takes_no_path_that_depends_on_the_size() -> None:
    seen: list[fast_paths.Paths] = []

    def traced(x: Tensor) -> Tensor:
        seen.append(fast_paths.open_paths(x))
        return x + 1

    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            torch.jit.trace(traced, image_map(3, 3), check_trace=False)
    assert not any(
        paths.linear_as_convolution or paths.few_tokens_as_product or paths.merged_steps
        for paths in seen
    )


@pytest.mark.parametrize("bias", [True, False])
def test_linear_layer_of_a_map_is_one_function_with_and_without_gradients(bias: bool) -> None:
    linear, x = MapLinear(WIDTH, 8, bias=bias), image_map(72, 64, batch=1)
    assert x.shape[:3].numel() > fast_paths.SEVERAL_TOKENS
    expected = F.linear(x, linear.weight, linear.bias)
    torch.testing.assert_close(linear(x), expected)
    narrow = MapLinear(WIDTH - 4, 8, bias=bias)  # its weight a view with gaps, as in a store
    narrow.weight = nn.Parameter(linear.weight.detach()[:, : WIDTH - 4])
    with torch.no_grad():
        assert fast_paths.open_paths(x).linear_as_convolution
        y = linear(x)
        torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
        assert y.is_contiguous()
        part = x[..., : WIDTH - 4]
        expected = F.linear(part, narrow.weight, narrow.bias)
        torch.testing.assert_close(narrow(part), expected, atol=1e-5, rtol=1e-4)


CONVOLUTIONS = {
    "reduction": {"kernel_size": 3, "stride": 3},
    "pointwise": {"kernel_size": 1},
    "pooling": {"kernel_size": 3, "stride": 2, "padding": 1},
    "before a pool": {"kernel_size": 3, "padding": 1},
}


@pytest.mark.parametrize("size", [(6, 9), (7, 5), (3, 3)])
@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS.keys())
def test_convolution_of_a_map_is_one_function_with_and_without_gradients(
    options: dict[str, int], size: tuple[int, int]
) -> None:
    conv = MapConv(WIDTH, 8, **options)
    randomise(conv.state_dict())
    x = image_map(*size).requires_grad_()
    reference = nn.Conv2d.forward(conv, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), reference)
    assert fast_paths.open_paths(x).convolution_as_product
    y = conv(x)
    torch.testing.assert_close(y, reference, atol=1e-5, rtol=1e-5)
    weights = torch.randn(reference.shape)
    inputs = (x, conv.weight, conv.bias)
    gradients, expected = (
        torch.autograd.grad((out * weights).sum(), inputs) for out in (y, reference)
    )
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (1, 4), (3, 1), (3, 4)])
@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_convolution_is_one_function_with_and_without_gradients(
    size: tuple[int, int], kernel_size: int, bias: bool
) -> None:
    conv = DepthwiseConv(WIDTH, kernel_size, bias=bias)
    randomise(conv.state_dict())
    x = image_map(*size).requires_grad_()
    reference = nn.Conv2d.forward(conv, x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    with torch.no_grad():
        torch.testing.assert_close(conv(x), reference, atol=1e-5, rtol=1e-5)
    y = conv(x)
    torch.testing.assert_close(y, reference, atol=1e-5, rtol=1e-5)
    weights = torch.randn(x.shape)
    inputs = (x, *conv.parameters())
    gradients, expected = (
        torch.autograd.grad((out * weights).sum(), inputs) for out in (y, reference)
    )
    torch.testing.assert_close(gradients, expected, atol=1e-4, rtol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16


def test_a_depthwise_convolution_by_plane_gives_and_learns_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conv, x = DepthwiseConv(WIDTH), image_map(6, 5).requires_grad_()
    inputs = (x, *conv.parameters())

    def results() -> list[Tensor]:
        y = conv(x)
        return [y, *torch.autograd.grad(y.square().sum(), inputs)]

    expected = results()
    given: list[Tensor] = []
    convolve = F.conv2d

    def noted(planes: Tensor, *arguments: Tensor, **settings: int) -> Tensor:
        given.append(planes)
        return convolve(planes, *arguments, **settings)

    on_a_gpu = fast_paths.Paths(depthwise_by_plane=True)
    monkeypatch.setattr(fast_paths, "open_paths", lambda x: on_a_gpu)
    monkeypatch.setattr(F, "conv2d", noted)
    torch.testing.assert_close(results(), expected)
    monkeypatch.setattr(fast_paths, "SMALL_BATCH", x.numel() - 1)
    torch.testing.assert_close(results(), expected)
    small, large = given
    assert small.is_contiguous()
    assert large.data_ptr() == x.data_ptr()


@pytest.mark.parametrize("size", [(2, 2), (4, 5)])
def test_a_residual_depthwise_convolution_adds_the_map_in_its_kernel(
    size: tuple[int, int],
) -> None:
    plain, residual = DepthwiseConv(WIDTH), ResidualDepthwiseConv(WIDTH)
    randomise(plain.state_dict())
    residual.load_state_dict(plain.state_dict())
    x = image_map(*size).requires_grad_()
    weights = torch.randn(x.shape)
    results = []
    for conv, y in ((plain, x + plain(x)), (residual, residual(x))):
        gradients = torch.autograd.grad((y * weights).sum(), (x, *conv.parameters()))
        results.append((y, *gradients))
    torch.testing.assert_close(results[1], results[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masked", ["nothing", "keys", "biased"])
def test_attention_is_one_function_with_and_without_gradients(masked: str) -> None:
    q, k, v = tensors(2, 3, 5, 4, number=3)
    hidden = torch.zeros(2, 1, 1, 5, dtype=torch.bool)
    hidden[..., 1:3] = masked == "keys"
    bias = torch.randn(1, 3, 5, 5) if masked == "biased" else torch.zeros(1, 3, 5, 5)
    scores = torch.einsum("ghnd,ghmd->ghnm", q, k) / 2 + bias
    expected = scores.masked_fill(hidden, -torch.inf).softmax(-1) @ v
    mask = {"nothing": None, "keys": ~hidden, "biased": bias}[masked]
    assert fast_paths.open_paths(q).explicit_attention
    torch.testing.assert_close(fast_paths.attention(q, k, v, mask), expected)
    with torch.no_grad():
        torch.testing.assert_close(
            fast_paths.attention(q, k, v, mask), expected, atol=1e-5, rtol=1e-4
        )


def test_the_image_of_inverted_residuals_lies_channels_last_where_no_gradients_are_wanted() -> None:
    image = torch.randn(2, 3, 6, 6)
    assert fast_paths.image_for_inverted_residuals(image) is image
    with torch.no_grad():
        changed = fast_paths.image_for_inverted_residuals(image)
    assert changed.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(changed, image)


def steps(kind: ConvNormKind = "batch", bias: bool = True) -> list[fast_paths.Step]:
    """Everything that a chain merges: activations, and norms alone and about a linear layer."""
    modules: list[fast_paths.Step] = [
        *(MapLinear(WIDTH, 16, bias=bias), F.gelu, build_conv_norm(kind, 16)),
        *(DepthwiseConv(16), nn.Sequential(nn.GELU(), nn.ReLU()), build_conv_norm(kind, 16)),
        *(MapLinear(16, WIDTH, bias=bias), build_conv_norm(kind, WIDTH)),
    ]
    for seed, step in enumerate(modules):
        if isinstance(step, nn.Module):
            randomise(step.eval().state_dict(), seed)
    return modules


def one_by_one(x: Tensor, chained: list[fast_paths.Step]) -> Tensor:
    for step in chained:
        x = step(x)
    return x


@pytest.mark.parametrize("kind", ["batch", "layer"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("grad", [True, False])
def test_a_chain_is_one_step_after_the_other(kind: ConvNormKind, bias: bool, grad: bool) -> None:
    chained, x = steps(kind, bias), image_map(4, 5)
    given = x.clone()
    with torch.set_grad_enabled(grad):
        y = fast_paths.chain(x, *chained)
    torch.testing.assert_close(y, one_by_one(x, chained), atol=1e-5, rtol=1e-4)
    assert torch.equal(x, given)


@pytest.mark.parametrize("first", [F.gelu, nn.ReLU(), MapBatchNorm(WIDTH).eval()])
def test_a_chain_never_writes_over_what_it_is_given(first: fast_paths.Step) -> None:
    x = image_map(3, 3)
    given = x.clone()
    with torch.no_grad():
        y = fast_paths.chain(x, first)
    torch.testing.assert_close(y, first(x))
    assert torch.equal(x, given)


def test_a_chain_without_gradients_but_in_training_has_the_statistics_of_the_batch() -> None:
    chained, x = steps(), image_map(4, 5)
    evaluated = one_by_one(x, chained)
    norms = [step.train() for step in chained if isinstance(step, MapBatchNorm)]
    before = [norm.running_mean.clone() for norm in norms if norm.running_mean is not None]
    with torch.no_grad():
        trained = fast_paths.chain(x, *chained)
    assert not torch.allclose(trained, evaluated, atol=1e-2)
    for norm, old in zip(norms, before, strict=True):
        assert norm.running_mean is not None
        assert not torch.equal(norm.running_mean, old)


def test_a_chain_keeps_half_precision() -> None:
    chained = [step.half() if isinstance(step, nn.Module) else step for step in steps()]
    with torch.no_grad():
        assert fast_paths.chain(image_map(3, 3).half(), *chained).dtype == torch.float16
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        x = fast_paths.chain(image_map(3, 3), *steps()[:3])
        assert x.dtype == one_by_one(image_map(3, 3), steps()[:3]).dtype == torch.bfloat16


Register = Callable[[nn.Module, Callable[..., None]], object]

HOOKS: dict[str, Register] = {
    "forward": lambda module, hook: module.register_forward_hook(hook),
    "before forward": lambda module, hook: module.register_forward_pre_hook(
        lambda module, inputs: hook(module, inputs, module.forward(*inputs))
    ),
    "of all modules": lambda module, hook: register_module_forward_hook(
        lambda called, *values: hook(called, *values) if called is module else None
    ),
}


@pytest.mark.parametrize("register", HOOKS.values(), ids=HOOKS.keys())
@pytest.mark.parametrize("index", [0, 2, 3, 5, 6, 7])
def test_a_hook_at_any_step_sees_its_call_and_what_it_keeps_does_not_change(
    register: Register, index: int
) -> None:
    chained, x = steps(), image_map(4, 5)
    hooked = chained[index]
    assert isinstance(hooked, nn.Module)
    kept: list[tuple[Tensor, Tensor]] = []

    def keep(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        kept.extend((tensor, tensor.clone()) for tensor in (*inputs, output))

    handle = register(hooked, keep)
    with torch.no_grad():
        y = fast_paths.chain(x, *chained)
    handle.remove()  # type: ignore[attr-defined]
    expected_input = one_by_one(x, chained[:index])
    torch.testing.assert_close(y, one_by_one(x, chained), atol=1e-5, rtol=1e-4)
    assert len(kept) == 2
    torch.testing.assert_close(kept[0][0], expected_input)
    torch.testing.assert_close(kept[1][0], hooked(expected_input))
    for tensor, clone in kept:
        assert torch.equal(tensor, clone)


def test_a_step_whose_class_or_forward_is_another_one_is_called() -> None:
    calls: list[str] = []

    class Noted(MapLinear):
        def forward(self, x: Tensor) -> Tensor:
            calls.append("class")
            return super().forward(x)

    first, *rest = steps()
    noted = Noted(WIDTH, 16)
    noted.load_state_dict(first.state_dict())  # type: ignore[union-attr]
    last = rest[-2]
    assert isinstance(last, MapLinear)
    forward = last.forward
    with torch.no_grad():
        expected = one_by_one(image_map(3, 3), [first, *rest])
        found = fast_paths.chain(image_map(3, 3), noted, *rest)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
        last.forward = lambda x: (calls.append("forward"), forward(x))[1]  # type: ignore
        found = fast_paths.chain(image_map(3, 3), first, *rest)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    assert calls == ["class", "forward"]
