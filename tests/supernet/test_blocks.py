"""Every block against a naive computation of its definition, written here with loops."""

import math

import pytest
import torch
from samples import randomise
from torch import Tensor, nn
from torch.nn import functional as F

from search_space import (
    AdaptiveWindow,
    Aggregation,
    ConvStem,
    FullAttention,
    LocalGlobal,
    PatchStem,
    Rates,
    SplitLocalGlobal,
    Stage,
)
from search_space.operators import MapRole
from supernet.blocks.feed_forward import build_feed_forward
from supernet.blocks.global_attention import AdaptiveHeads, FullHeads, ReducedHeads
from supernet.blocks.local_attention import WindowHeads
from supernet.blocks.local_global import LocalGlobalAttention, SplitLocalGlobalAttention
from supernet.blocks.norms import GlobalResponseNorm
from supernet.blocks.pooling import build_pooling
from supernet.blocks.sharing import HeadGroup
from supernet.blocks.stems import build_stem
from supernet.network import NetworkStage

WIDTH, HEADS, DIM = 12, 2, 4
OWN, LEND, BORROW = "own", "lend", "borrow"

KINDS = {
    "windows": (WindowHeads, {"window": 3}),
    "rate": (ReducedHeads, {"rate": 3}),
    "rate 1": (ReducedHeads, {"rate": 1}),
    "full": (FullHeads, {"local_term": True}),
    "full-plain": (FullHeads, {"local_term": False}),
    "reduction": (ReducedHeads, {"rate": 3, "shunted": False}),
    "full with relative positions": (FullHeads, {"local_term": False, "relative": 3}),
    "adaptive": (AdaptiveHeads, {"window": 3, "average": False}),
    "adaptive with average": (AdaptiveHeads, {"window": 3, "average": True}),
}
SIZES = [(3, 3), (4, 5), (7, 6), (2, 1)]  # filled windows, padded ones, several, and a tiny map

every_kind = pytest.mark.parametrize("kind", KINDS)


def group_of(kind: str, role: MapRole, seed: int = 0) -> HeadGroup:
    build, options = KINDS[kind]
    group = build(WIDTH, HEADS, DIM, role, **options)
    randomise(group.state_dict(), seed)
    return group


def image_map(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(2, height, width, WIDTH, generator=torch.Generator().manual_seed(seed))


def attention_maps(queries: Tensor, keys: Tensor, bias: Tensor | None = None) -> Tensor:
    """(N, h*d) and (M, h*d) of one set of tokens -> (h, N, M), one dot product at a time."""
    maps = torch.zeros(HEADS, len(queries), len(keys))
    bias = torch.zeros_like(maps) if bias is None else bias
    for head in range(HEADS):
        channels = slice(head * DIM, (head + 1) * DIM)
        for i, query in enumerate(queries[:, channels]):
            products = [float(query @ key) / math.sqrt(DIM) for key in keys[:, channels]]
            scores = [p + float(b) for p, b in zip(products, bias[head, i], strict=True)]
            weights = [math.exp(score) for score in scores]
            maps[head, i] = torch.tensor(weights) / sum(weights)
    return maps


def apply_maps(maps: Tensor, values: Tensor) -> Tensor:
    """(h, N, M) and (M, h*d) -> (N, h*d)."""
    per_head = values.view(len(values), HEADS, DIM)
    return torch.cat([maps[head] @ per_head[:, head] for head in range(HEADS)], dim=1)


def depthwise(conv: nn.Module, x: Tensor) -> Tensor:
    """The 3x3 convolution of every channel of a map (H, W, c) with a kernel of its own."""
    padded, out = F.pad(x, (0, 0, 1, 1, 1, 1)), torch.zeros_like(x)
    for i in range(x.shape[0]):
        for j in range(x.shape[1]):
            patch = padded[i : i + 3, j : j + 3]
            out[i, j] = torch.einsum("abc,cab->c", patch, conv.weight[:, 0]) + conv.bias
    return out


def reduced(group: ReducedHeads, x: Tensor) -> Tensor:
    """GELU(LN(conv r x r)) of a map (H, W, C), zeros where a patch leaves the map; PVT: no GELU."""
    rate = group.rate
    rows, columns = math.ceil(x.shape[0] / rate), math.ceil(x.shape[1] / rate)
    out = torch.zeros(rows, columns, WIDTH)
    for i in range(rows):
        for j in range(columns):
            patch = torch.zeros(rate, rate, WIDTH)
            seen = x[i * rate : (i + 1) * rate, j * rate : (j + 1) * rate]
            patch[: seen.shape[0], : seen.shape[1]] = seen
            y = torch.einsum("abi,oiab->o", patch, group.reduce.weight) + group.reduce.bias
            y = (y - y.mean()) / torch.sqrt(y.var(unbiased=False) + 1e-5)
            y = y * group.norm.weight + group.norm.bias
            out[i, j] = y
            if group.value_conv is not None:
                out[i, j] = y * 0.5 * (1 + torch.erf(y / math.sqrt(2)))
    return out


def relative_bias(group: FullHeads, height: int, width: int) -> Tensor | None:
    """(h, N, N): the table's entry for each pair of places, the table stretched over the map."""
    if group.position_bias is None:
        return None
    side = group.position_bias.side
    table = group.position_bias.table.view(2 * side - 1, 2 * side - 1, HEADS)
    if (height, width) != (side, side):
        table = F.interpolate(
            table.permute(2, 0, 1)[None], size=(2 * height - 1, 2 * width - 1), mode="bicubic"
        )[0].permute(1, 2, 0)
    places = [(i, j) for i in range(height) for j in range(width)]
    bias = torch.zeros(HEADS, len(places), len(places))
    for query, (i, j) in enumerate(places):
        for key, (k, m) in enumerate(places):
            bias[:, query, key] = table[i - k + height - 1, j - m + width - 1]
    return bias


def sampled(group: AdaptiveHeads, x: Tensor) -> Tensor:
    """The maximum, or maximum plus mean, of every bin of a map (H, W, C)."""
    high, wide = min(group.window, x.shape[0]), min(group.window, x.shape[1])
    out = torch.zeros(high, wide, WIDTH)
    for i in range(high):
        for j in range(wide):
            top, bottom = i * x.shape[0] // high, -(-(i + 1) * x.shape[0] // high)
            left, right = j * x.shape[1] // wide, -(-(j + 1) * x.shape[1] // wide)
            tokens = x[top:bottom, left:right].flatten(0, 1)
            out[i, j] = tokens.max(0).values + (tokens.mean(0) if group.average else 0)
    return out


def naive(group: HeadGroup, x: Tensor, owner: HeadGroup, seen_by_owner: Tensor) -> Tensor:
    """A head group on one map (H, W, C); its attention map is the owner's on the map it saw."""
    height, width, _ = x.shape
    if isinstance(group, WindowHeads):
        high, wide = (math.ceil(side / math.ceil(side / group.window)) for side in (height, width))
        out = torch.zeros(height, width, WIDTH)
        for top in range(0, height, high):
            for left in range(0, width, wide):
                part = (slice(top, top + high), slice(left, left + wide))  # cut at the border
                tokens, owned = x[part].flatten(0, 1), seen_by_owner[part].flatten(0, 1)
                maps = attention_maps(owner.q(owned), owner.k(owned))
                y = group.proj(apply_maps(maps, group.v(tokens)))
                out[part] = y.view(out[part].shape)
        return out
    if isinstance(group, ReducedHeads):
        assert isinstance(owner, ReducedHeads)
        keys = owner.k(reduced(owner, seen_by_owner)).flatten(0, 1)
        v = group.v(reduced(group, x))
        if group.value_conv is not None:
            v = v + depthwise(group.value_conv, v)
        maps = attention_maps(owner.q(seen_by_owner).flatten(0, 1), keys)
        return group.proj(apply_maps(maps, v.flatten(0, 1))).view(height, width, WIDTH)
    if isinstance(group, FullHeads):
        owned, v = seen_by_owner.flatten(0, 1), group.v(x)
        bias = relative_bias(owner, height, width)
        y = apply_maps(attention_maps(owner.q(owned), owner.k(owned), bias), v.flatten(0, 1))
        if group.value_conv is not None:
            y = y + depthwise(group.value_conv, v).flatten(0, 1)
        return group.proj(y).view(height, width, WIDTH)
    assert isinstance(group, AdaptiveHeads) and isinstance(owner, AdaptiveHeads)
    window = sampled(group, x)
    owned = sampled(owner, seen_by_owner).flatten(0, 1)
    maps = attention_maps(owner.q(owned), owner.k(owned))
    y = apply_maps(maps, group.v(window).flatten(0, 1)).view(*window.shape[:2], HEADS * DIM)
    y = F.interpolate(y.permute(2, 0, 1)[None], size=(height, width), mode="bilinear")
    return group.proj(y[0].permute(1, 2, 0))  # upsampled first: the block projects first


@torch.no_grad()
def naive_batch(group: HeadGroup, x: Tensor, owner: HeadGroup, seen_by_owner: Tensor) -> Tensor:
    parts = [naive(group, *maps) for maps in zip(x, [owner] * len(x), seen_by_owner, strict=True)]
    return torch.stack(parts)


@pytest.mark.parametrize("size", SIZES)
@every_kind
def test_head_group_computes_its_definition(kind: str, size: tuple[int, int]) -> None:
    group, x = group_of(kind, OWN), image_map(*size)
    y, attention = group(x, None, None)
    torch.testing.assert_close(y, naive_batch(group, x, group, x), atol=1e-5, rtol=1e-4)
    assert attention is None


@pytest.mark.parametrize("size", SIZES)
@every_kind
def test_borrowing_layer_applies_the_owners_map_to_values_of_its_own(
    kind: str, size: tuple[int, int]
) -> None:
    owner, borrower = group_of(kind, LEND, seed=0), group_of(kind, BORROW, seed=1)
    x, later = image_map(*size, seed=0), image_map(*size, seed=1)
    _, attention = owner(x, None, None)
    y, handed_on = borrower(later, attention, None)
    expected = naive_batch(borrower, later, owner, x)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    assert handed_on is attention


@every_kind
def test_borrowing_layer_has_no_queries_and_keys_and_all_else(kind: str) -> None:
    def names(role: MapRole) -> set[str]:
        return {name.split(".")[0] for name, _ in group_of(kind, role).named_parameters()}

    assert names(OWN) == names(LEND)
    assert names(LEND) - names(BORROW) - {"position_bias"} == {"q", "k"}
    assert names(BORROW) < names(LEND)


@every_kind
def test_gradient_of_a_borrower_reaches_the_owners_queries_and_keys(kind: str) -> None:
    owner, borrower = group_of(kind, LEND), group_of(kind, BORROW)
    _, attention = owner(image_map(4, 5), None, None)
    y, _ = borrower(image_map(4, 5, seed=1), attention, None)
    (y * image_map(4, 5, seed=2)).sum().backward()
    for projection in (owner.q, owner.k):
        assert projection.weight.grad.abs().sum() > 0
    assert owner.v.weight.grad is None
    assert owner.proj.weight.grad is None


@pytest.mark.parametrize("size", SIZES)
@every_kind
def test_explicit_and_fused_attention_agree(kind: str, size: tuple[int, int]) -> None:
    x = image_map(*size)
    owning, lending = group_of(kind, OWN), group_of(kind, LEND)
    explicit, _ = owning(x, None, None)
    lent, _ = lending(x, None, None)
    with torch.no_grad():
        fused, _ = owning(x, None, None)
    torch.testing.assert_close(explicit, fused, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(lent, fused, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("grad", [False, True], ids=["fused", "explicit"])
def test_tokens_of_other_windows_and_of_the_padding_have_no_influence(grad: bool) -> None:
    group, x = group_of("windows", OWN), image_map(4, 5)  # windows of 2 x 3, one column padded
    with torch.set_grad_enabled(grad):
        y, _ = group(x, None, None)
        corner, _ = group(x[:, 2:, 3:], None, None)
    torch.testing.assert_close(y[:, 2:, 3:], corner)


def test_windows_shrink_to_maps_smaller_than_they_are() -> None:
    windows, full = WindowHeads(WIDTH, HEADS, DIM, OWN, window=7), group_of("full-plain", OWN)
    windows.load_state_dict(full.state_dict())
    x = image_map(2, 5)
    torch.testing.assert_close(windows(x, None, None)[0], full(x, None, None)[0])


def test_bias_of_the_output_projection_is_added_once() -> None:
    mixer = LocalGlobal(heads=4, local_heads=1, window=3, aggregation=Rates(rates=(4, 2)))
    layer = LocalGlobalAttention(mixer, 16, OWN)
    randomise(layer.state_dict())
    assert list(layer.groups) == ["local", "rate4", "rate2"]
    x = torch.randn(2, 5, 6, 16)
    y, maps = layer(x, None)
    parts = sum(group(x, None, None)[0] for group in layer.groups.values())
    torch.testing.assert_close(y, parts + layer.bias)
    assert maps is None


def test_each_part_of_split_channels_sees_its_own_alone() -> None:
    mixer = SplitLocalGlobal(
        heads=4, local_heads=1, window=3, aggregation=AdaptiveWindow(window=2), global_split=2
    )
    layer = SplitLocalGlobalAttention(mixer, 16, OWN)
    randomise(layer.state_dict())
    assert list(layer.parts) == ["local", "global4"]
    x = torch.randn(2, 5, 6, 16)
    y, maps = layer(x, None)
    local, seen = layer.parts["local"].groups["local"], layer.parts["global4"].groups["adaptive"]
    assert (local.heads, seen.heads) == (1, 6)
    assert local.q.weight.shape == local.proj.weight.shape == (4, 4)
    assert seen.q.weight.shape == seen.proj.weight.shape == (12, 12)
    for part, channels in (
        (layer.parts["local"], slice(4)),
        (layer.parts["global4"], slice(4, 16)),
    ):
        torch.testing.assert_close(y[..., channels], part(x[..., channels].contiguous(), None)[0])
    assert maps is None
    other = x.clone()
    other[..., 4:] += 1
    torch.testing.assert_close(layer(other, None)[0][..., :4], y[..., :4])


@pytest.mark.parametrize("local_heads", [0, 4])
def test_channels_are_not_split_where_all_heads_are_of_one_kind(local_heads: int) -> None:
    fields = {"heads": 4, "local_heads": local_heads, "aggregation": AdaptiveWindow()}
    split, union = SplitLocalGlobal(**fields), LocalGlobal(**fields)
    assert split.canonical() == union.canonical()
    assert split.cost(16, OWN, (5, 6)) == union.cost(16, OWN, (5, 6))


def test_split_channels_lend_and_borrow_the_maps_of_both_parts() -> None:
    mixer = SplitLocalGlobal(heads=4, local_heads=2, window=3, aggregation=AdaptiveWindow(window=2))
    lending, borrowing = (SplitLocalGlobalAttention(mixer, 16, role) for role in (LEND, BORROW))
    for layer in (lending, borrowing):
        randomise(layer.state_dict())
    x = torch.randn(2, 5, 6, 16)
    _, maps = lending(x, None)
    assert set(maps) == {"local", "adaptive"}
    y, handed_on = borrowing(x, maps)
    assert set(handed_on) == set(maps)
    assert not torch.allclose(y, borrowing(x, lending(x + torch.randn_like(x), None)[1])[0])


AGGREGATIONS: dict[str, Aggregation] = {
    "rates": Rates(rates=(4, 2)),
    "adaptive": AdaptiveWindow(window=3),
    "full": FullAttention(),
}


@pytest.mark.parametrize("aggregation", AGGREGATIONS.values(), ids=AGGREGATIONS.keys())
def test_stage_lends_each_map_to_its_run_alone(aggregation: Aggregation) -> None:
    mixer = LocalGlobal(heads=4, local_heads=2, window=3, aggregation=aggregation)
    stage = NetworkStage(Stage(width=16, depth=5, sharing=2, mixer=mixer), 16, 1e-6, [0.0] * 5)
    randomise(stage.state_dict())
    blocks = list(stage.blocks)
    assert [block.mixer.groups["local"].role for block in blocks] == [
        LEND,
        BORROW,
        LEND,
        BORROW,
        OWN,
    ]
    x = torch.randn(2, 5, 6, 16)
    y = x
    maps = None
    for index, block in enumerate(blocks):
        mixed, lent = block.mixer(block.norm1(y), maps if index in (1, 3) else None)
        maps = lent if index in (0, 2) else None
        y = y + mixed
        y = y + block.feed_forward(block.norm2(y))
    torch.testing.assert_close(stage(x), stage.norm(y))


def pooling(kind: str, inputs: int, outputs: int, conv_norm: str = "layer") -> nn.Module:
    module = build_pooling(kind, inputs, outputs, conv_norm)
    randomise(module.state_dict())
    return module


def normed(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], norm.weight, norm.bias, eps=1e-5)


def depthwise_of(x: Tensor, conv: nn.Conv2d) -> Tensor:
    y = F.conv2d(x.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=1, groups=x.shape[-1])
    return y.permute(0, 2, 3, 1)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
@pytest.mark.parametrize("kind", ["fused_mbconv", "light"])
def test_patch_embeddings_of_plg_mix_before_they_halve(kind: str, size: tuple[int, int]) -> None:
    x = torch.randn(2, *size, 8)
    pool = pooling(kind, 8, 12)
    activation, squeezed = (F.gelu, 2) if kind == "fused_mbconv" else (F.silu, 1)
    mixing = pool.mixing
    y = activation(depthwise_of(normed(x, mixing.norm), mixing.depthwise))
    mean = y.mean((1, 2), keepdim=True)
    assert mixing.squeeze.fc1.weight.shape == (squeezed, 8)
    gate = mixing.squeeze.fc2(activation(mixing.squeeze.fc1(mean))).sigmoid()
    y = x + mixing.proj(y * gate)
    if kind == "fused_mbconv":
        y = F.conv2d(y.permute(0, 3, 1, 2), pool.conv.weight, stride=2, padding=1)
        y = y.permute(0, 2, 3, 1)
    else:
        y = depthwise_of(pool.pointwise(y)[:, ::2, ::2], pool.depthwise)
    torch.testing.assert_close(pool(x), normed(y, pool.norm), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (1, 1)])
def test_poolings_halve_the_map_rounding_up_and_compute_their_definition(
    size: tuple[int, int],
) -> None:
    x = torch.randn(2, *size, 8)
    first = x.permute(0, 3, 1, 2)

    pool = pooling("conv", 8, 12)
    y = F.conv2d(first, pool.conv.weight, pool.conv.bias, stride=2, padding=1).permute(0, 2, 3, 1)
    torch.testing.assert_close(pool(x), normed(y, pool.norm))

    pool = pooling("patch", 8, 12)
    even = F.pad(first, (0, size[1] % 2, 0, size[0] % 2))
    y = F.conv2d(even, pool.conv.weight, pool.conv.bias, stride=2).permute(0, 2, 3, 1)
    torch.testing.assert_close(pool(x), normed(y, pool.norm))

    pool = pooling("merging", 8, 12)
    corners = torch.stack([even[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], dim=2)
    y = normed(corners.flatten(1, 2).permute(0, 2, 3, 1), pool.norm)
    torch.testing.assert_close(pool(x), y @ pool.reduction.weight.T)

    pool = pooling("max_pool", 8, 12)
    full = F.conv2d(first, pool.conv.weight, pool.conv.bias, padding=1)
    full = F.pad(full, (1, 1, 1, 1), value=-math.inf)
    y = full.unfold(2, 3, 2).unfold(3, 3, 2).amax((-2, -1)).permute(0, 2, 3, 1)
    torch.testing.assert_close(pool(x), y)
    assert y.shape == (2, math.ceil(size[0] / 2), math.ceil(size[1] / 2), 12)


def test_feed_forwards_compute_their_definition() -> None:
    x = image_map(4, 5)
    plain = build_feed_forward("plain", WIDTH, 20)
    randomise(plain.state_dict())
    torch.testing.assert_close(plain(x), plain.fc2(F.gelu(plain.fc1(x))))

    detailed = build_feed_forward("detail_specific", WIDTH, 20)
    randomise(detailed.state_dict())
    hidden = detailed.fc1(x)
    detail = torch.stack([depthwise(detailed.detail, one) for one in hidden])
    expected = detailed.fc2(F.gelu(hidden + detail))
    torch.testing.assert_close(detailed(x), expected, atol=1e-5, rtol=1e-4)

    ccf = build_feed_forward("ccf", WIDTH, 20)
    randomise(ccf.state_dict())
    hidden = F.gelu(normed(ccf.fc1(x), ccf.norm1))
    hidden = torch.stack([depthwise(ccf.depthwise, one) for one in hidden])
    expected = ccf.fc2(F.gelu(normed(hidden, ccf.norm2)))
    torch.testing.assert_close(ccf(x), expected, atol=1e-5, rtol=1e-4)

    plus = build_feed_forward("ccf_plus", WIDTH, 20)
    randomise(plus.state_dict())
    hidden = F.gelu(normed(plus.fc1(x), plus.norm1))
    deep = F.gelu(torch.stack([depthwise(plus.depthwise, one) for one in hidden]))
    deep = torch.stack([responded(plus.response_norm, one) for one in deep])
    weight = torch.cat((plus.fc2.weight, plus.fc3.weight), dim=1)
    expected = F.linear(torch.cat((hidden, deep), dim=-1), weight, plus.fc2.bias)
    torch.testing.assert_close(plus(x), expected, atol=1e-5, rtol=1e-4)


def responded(norm: GlobalResponseNorm, x: Tensor) -> Tensor:
    """GRN of a map (H, W, C), channel by channel."""
    lengths = [math.sqrt(float((x[..., c] ** 2).sum())) for c in range(x.shape[-1])]
    mean = sum(lengths) / len(lengths)
    channels = [
        norm.gamma[c] * x[..., c] * lengths[c] / (mean + 1e-6) + norm.beta[c] + x[..., c]
        for c in range(x.shape[-1])
    ]
    return torch.stack(channels, dim=-1)


def test_global_response_norm_is_the_identity_at_initialisation() -> None:
    x = image_map(4, 5)
    torch.testing.assert_close(GlobalResponseNorm(WIDTH)(x), x)


@pytest.mark.parametrize("extra_convs", [0, 1, 2])
def test_convolutional_stem_has_the_layers_of_shunted_transformer(extra_convs: int) -> None:
    stem = build_stem(ConvStem(width=8, extra_convs=extra_convs), 3, 12)
    convs = [module for module in stem.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.kernel_size[0], conv.stride[0], conv.bias is None) for conv in convs] == [
        (7, 2, True),
        *[(3, 1, True)] * extra_convs,
        (2, 2, False),
    ]
    assert sum(isinstance(module, nn.BatchNorm2d) for module in stem.modules()) == 1 + extra_convs
    assert stem(torch.randn(2, 3, 45, 61)).shape == (2, 11, 15, 12)


def test_patch_stem_embeds_patches_and_ignores_what_does_not_fill_one() -> None:
    stem = build_stem(PatchStem(patch_size=4), 3, 12)
    randomise(stem.state_dict())
    image = torch.randn(2, 3, 11, 17)
    patches = image[:, :, :8, :16].unfold(2, 4, 4).unfold(3, 4, 4)
    y = torch.einsum("bchwij,ocij->bhwo", patches, stem.proj.weight) + stem.proj.bias
    y = F.layer_norm(y, (12,), stem.norm.weight, stem.norm.bias, eps=1e-5)
    torch.testing.assert_close(stem(image), y, atol=1e-5, rtol=1e-4)


def test_layer_norms_have_the_epsilons_of_shunted_transformer() -> None:
    mixer = LocalGlobal(heads=4, aggregation=Rates(rates=(4, 2)))
    stage = NetworkStage(Stage(pooling="conv", width=16, depth=1, mixer=mixer), 8, 1e-6, [0.0])
    epsilons = {
        name: module.eps
        for name, module in stage.named_modules()
        if isinstance(module, nn.LayerNorm)
    }
    assert epsilons == {
        "entry.conv.norm": 1e-5,
        "blocks.0.norm1": 1e-6,
        "blocks.0.norm2": 1e-6,
        "blocks.0.mixer.groups.rate4.norm": 1e-5,
        "blocks.0.mixer.groups.rate2.norm": 1e-5,
        "norm": 1e-6,
    }
