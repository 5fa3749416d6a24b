"""What a built network costs, counted while it runs: independent of the closed form.

By torch, and by fvcore, which reads a trace and is slow.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode, flop_registry, sdpa_flop_count

from search_space import Cost

aten = torch.ops.aten
READ = {
    aten.conv1d: 1,
    aten.conv2d: 1,
    aten.linear: 1,
    aten.matmul: 2,
    aten.scaled_dot_product_attention: 3,
}
"""The counted operators, and how many of their first arguments are activations that they read."""

CPU_ATTENTION = aten._scaled_dot_product_flash_attention_for_cpu
"""Fused attention on a CPU, which torch counts on other devices alone."""

FUSED_ATTENTION = "aten::scaled_dot_product_attention"
FREE = ("layer_norm", "batch_norm", "upsample_bilinear2d", "adaptive_avg_pool2d", "grid_sampler")
"""Operators that fvcore counts and the papers don't."""


def counted_cost(module: nn.Module, *inputs: Any) -> Cost:
    """Cost of one forward pass in evaluation: torch's count of MACs, ours of activations.

    On the `meta` device nothing is computed.

    Args:
        module: A network or a part of one, run in the mode that it is in, without gradients.
        inputs: What it is called with, for one image.

    Raises:
        NotImplementedError: If it runs an operator that torch counts and `READ` lacks.
    """
    # Inference mode shows operators as they are called; elsewhere they are taken apart first, and
    # on the meta device fused attention turns into explicit products.
    flops = FlopCounterMode(
        display=False, depth=0, custom_mapping={CPU_ATTENTION: _attention_flops}
    )
    elements = _ElementCounter()
    # Torch's counter would hang hooks on parameters that want gradients, which this mode forbids.
    weights = {name: weight.detach() for name, weight in module.named_parameters()}
    with torch.inference_mode(), flops, elements:
        functional_call(module, weights, inputs)
    return Cost(
        params=sum(parameter.numel() for parameter in module.parameters()),
        macs=flops.get_total_flops() // 2,  # torch counts a multiply-add as two
        activations=elements.activations,
        peak=elements.peak,
    )


def counted_parts(network: nn.Module, image: Tensor) -> dict[str, Cost]:
    """What each part of a network costs, run alone on what it is given in one forward pass.

    Args:
        network: In evaluation, on the device of the image.
        image: One (1, C, H, W).

    Returns:
        Costs by the names of `search_space.cost_table`.
    """
    calls: list[tuple[str, nn.Module, tuple[Any, ...]]] = []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs, part=part: calls.append((part, module, inputs))
        )
        for name, module in network.named_modules()
        if (part := _part_of(name)) is not None
    ]
    with torch.no_grad():
        network(image)
    for hook in hooks:
        hook.remove()
    counted: dict[str, Cost] = {}
    for part, module, inputs in calls:
        counted[part] = counted.get(part, Cost()) + counted_cost(module, *inputs)
    return counted


def _part_of(module: str) -> str | None:
    """The row of `search_space.cost_table` that a module is, or is one of; None of others."""
    if not re.fullmatch(r"stem|stages\.\d+\.(entry\.\w+|blocks\.\d+|norm)|expand|head", module):
        return None
    return re.sub(r"(?<=entry)\.\w+$", "", "head" if module == "expand" else module)


def _attention_flops(
    queries: torch.Size, keys: torch.Size, values: torch.Size, *_: object, **__: object
) -> int:
    return int(sdpa_flop_count(queries, keys, values))


class _ElementCounter(TorchDispatchMode):
    """Counts what the operators of `READ` write, and the most that one reads and writes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.activations = self.peak = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        operator = func.overloadpacket
        if operator in READ:
            result = func(*args, **kwargs)
            written = result.numel()
            self.activations += written
            read = sum(tensor.numel() for tensor in args[: READ[operator]])
            self.peak = max(self.peak, read + written)
            return result
        if operator in flop_registry:
            raise NotImplementedError(f"{func} is counted by torch and is not among {list(READ)}")
        with self:
            result = func.decompose(*args, **kwargs)
        return func(*args, **kwargs) if result is NotImplemented else result


def fvcore_macs(network: nn.Module, image: Tensor) -> int:
    """Multiply-adds of one forward pass as fvcore counts them; the image is not on `meta`.

    Where gradients are wanted, attention runs as explicit products; otherwise it is fused.
    """
    return fvcore_parts(network, image)[""]


def fvcore_parts(network: nn.Module, image: Tensor) -> dict[str, int]:
    """The same of each part, by the names of `search_space.cost_table`, and "" for the whole."""
    from fvcore.nn import FlopCountAnalysis

    def attention(inputs: Sequence[torch._C.Value], outputs: Sequence[torch._C.Value]) -> int:
        queries, keys = (value.type().sizes() for value in inputs[:2])  # type: ignore[attr-defined]
        batch, heads, tokens, dim = queries
        return int(2 * batch * heads * tokens * keys[-2] * dim)

    analysis = FlopCountAnalysis(network, image).set_op_handle(FUSED_ATTENTION, attention)
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    macs: dict[str, int] = {}
    for module, operators in analysis.by_module_and_operator().items():
        if (part := _part_of(module) if module else "") is not None:
            counted = sum(n for operator, n in operators.items() if operator not in FREE)
            macs[part] = macs.get(part, 0) + int(counted)
    return macs


def fvcore_activations(network: nn.Module, image: Tensor) -> int:
    """Elements that convolutions, linear layers and attention write, as fvcore counts them.

    Call it without gradients, or every attention map counts; the image is not on `meta`.
    """
    from fvcore.nn import ActivationCountAnalysis
    from fvcore.nn.jit_handles import generic_activation_jit

    analysis = ActivationCountAnalysis(network, image)
    analysis.set_op_handle(FUSED_ATTENTION, generic_activation_jit())
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(analysis.total())
