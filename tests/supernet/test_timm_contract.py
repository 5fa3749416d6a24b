"""What timm's own tests ask of timm's models, asked of ours: of designs of every kind."""

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from samples import NANO, randomise
from timm.models import FeatureInfo, group_parameters
from timm.models._manipulate import adapt_input_conv
from timm.optim import create_optimizer_v2
from timm.utils import AttentionExtract
from torch import Tensor

from search_space import DESIGNS, PublishedDesign, map_sizes
from supernet import ExportedNetwork, Network, parameter_groups, save_exported
from supernet.blocks.ladder import LadderBranch
from supernet.blocks.sharing import HeadGroup

pytestmark = pytest.mark.sampled(2)

SIZE = 64

BY_NAME = {design.timm_name: design.architecture for design in DESIGNS}
SMALLEST = ("shunted_t", "lit_ti", "pslt_tiny", "deit_ti", "psvit_1d_ti", "psvit_2d_ti")
"""Maps and sequences, of several resolutions and of one."""

WITH_CLASS_TOKEN = ("lit_ti", "deit_ti", "psvit_1d_ti")
OF_ONE_MAP = ("deit_ti", "psvit_1d_ti")
"""Designs whose levels are the blocks of a stage."""

every_design = pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.timm_name)
every_kind = pytest.mark.parametrize("name", SMALLEST)
with_and_without_gradients = pytest.mark.parametrize("grad", [False, True], ids=["no grad", "grad"])


def images(batch: int = 2, channels: int = 3) -> Tensor:
    return torch.randn(batch, channels, SIZE, SIZE, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def models() -> dict[str, Network]:
    torch.manual_seed(0)
    names = (*SMALLEST, "lw_plg_vit_a")
    return {name: timm.create_model(name, num_classes=7).eval() for name in names}


@pytest.fixture
def model(models: dict[str, Network], name: str) -> Network:
    """A copy, which a test may change."""
    return copy.deepcopy(models[name])


@every_design
def test_the_configuration_has_the_fields_of_timms_models(design: PublishedDesign) -> None:
    assert design.timm_name in timm.list_models(name_matches_cfg=True)
    with torch.device("meta"):
        model = timm.create_model(design.timm_name)
    config, state = model.default_cfg, model.state_dict()
    assert config is model.pretrained_cfg
    assert config["architecture"] == design.timm_name
    assert config["num_classes"] == model.num_classes == 1000
    assert (config["input_size"], config["fixed_input_size"]) == ((3, 224, 224), False)
    assert (config["crop_pct"], config["interpolation"]) == (0.9, "bicubic")
    assert config["license"] == "mit"
    assert "url" not in config and "hf_hub_id" not in config
    assert config["classifier"] + ".weight" in state
    assert state[config["first_conv"] + ".weight"].shape[1] == 3
    last = map_sizes(224, design.architecture)[-1]
    assert config["pool_size"] == (None if model.num_prefix_tokens else last)


@every_kind
def test_features_and_head_make_the_scores(model: Network, name: str) -> None:
    features = model.forward_features(images())
    pooled = model.forward_head(features, pre_logits=True)
    if name in WITH_CLASS_TOKEN:
        assert features.ndim == 3 and features.shape[2] == model.num_features
        torch.testing.assert_close(pooled, features[:, 0])
    else:
        assert model.output_fmt == "NHWC"
        assert features.shape == (
            2,
            *map_sizes(SIZE, model.architecture)[-1],
            model.num_features,
        )
        torch.testing.assert_close(pooled, features.mean(dim=(1, 2)))
    assert pooled.shape == (2, model.head_hidden_size)
    torch.testing.assert_close(model.forward_head(features), model(images()))


@every_kind
def test_classifier_and_pooling_can_be_taken_away_and_put_back(model: Network, name: str) -> None:
    features = model.forward_features(images())
    model.reset_classifier(0)
    assert model.num_classes == 0
    torch.testing.assert_close(model(images()), model.forward_head(features, pre_logits=True))
    model.reset_classifier(0, "")
    torch.testing.assert_close(model(images()), features)
    model.reset_classifier(5, "avg")
    of_map = features[:, 1:].mean(dim=1) if name in WITH_CLASS_TOKEN else features.mean((1, 2))
    torch.testing.assert_close(model(images()), model.head(of_map))
    assert model(images()).shape == (2, 5)


@every_kind
def test_no_pooling_can_be_asked_for_at_creation(name: str) -> None:
    with torch.no_grad():
        model = timm.create_model(name, num_classes=0, global_pool="")
        assert model(torch.zeros(1, 3, SIZE, SIZE)).ndim == (3 if name in WITH_CLASS_TOKEN else 4)


@pytest.mark.parametrize("name", [*SMALLEST, "pvt_tiny", "plg_vit_t", "lw_plg_vit_a"])
@pytest.mark.sampled(3)
def test_features_only_gives_the_maps_that_feature_info_describes(name: str) -> None:
    with torch.no_grad():
        model = timm.create_model(name, features_only=True, in_chans=1)
        maps = model(torch.zeros(2, 1, 96, 128))
        some = timm.create_model(name, features_only=True, out_indices=(0, 2))
        last = timm.create_model(name, features_only=True, out_indices=(-1,))
    stages = BY_NAME[name].stages
    widths = [stage.width for stage in stages if not stage.pools_sequence]
    if name in OF_ONE_MAP:
        widths = widths * stages[0].depth
    assert model.feature_info.channels() == widths
    assert len(widths) >= 3
    for channels, reduction, found in zip(
        widths, model.feature_info.reduction(), maps, strict=True
    ):
        assert found.shape == (2, channels, math.ceil(96 / reduction), math.ceil(128 / reduction))
    with torch.no_grad():
        assert [m.shape[1] for m in some(torch.zeros(1, 3, 96, 96))] == [widths[0], widths[2]]
        assert [m.shape[1] for m in last(torch.zeros(1, 3, 96, 96))] == widths[-1:]


@every_kind
def test_features_only_holds_no_more_than_it_runs(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name, features_only=True, out_indices=(1,))
    kept = {part.partition(".blocks.")[2].partition(".")[0] or part for part in model.state_dict()}
    if name in OF_ONE_MAP:
        assert {part for part in kept if part.isdigit()} == {"0", "1"}
    else:
        assert len(model.model.stages) == 2
    assert not any("head" in part for part in kept)
    assert model.feature_info.module_name(1) in dict(model.model.named_modules())


@pytest.mark.parametrize("kind", ["getter", "hook", "list", "dict", "fx"])
@pytest.mark.parametrize("name", ["shunted_t", "pslt_tiny", "psvit_2d_ti"])
def test_every_way_of_timm_to_extract_features_gives_the_same(name: str, kind: str) -> None:
    torch.manual_seed(0)
    expected = timm.create_model(name, features_only=True, out_indices=(0, 2)).eval()
    torch.manual_seed(0)
    model = timm.create_model(name, features_only=True, out_indices=(0, 2), feature_cls=kind).eval()
    with torch.no_grad():
        found = model(images())
        maps = list(found.values()) if isinstance(found, dict) else found
        if kind != "getter":
            maps = [m.permute(0, 3, 1, 2) for m in maps]
            assert model.output_fmt == "NHWC"
        torch.testing.assert_close(maps, expected(images()))
    assert model.default_cfg["input_size"] == (3, 224, 224)
    assert "num_classes" not in model.default_cfg


def test_features_of_tokens_come_in_one_way_alone() -> None:
    with pytest.raises(TypeError, match=r"deit_ti\(\) has a class token: .* 'getter' alone"):
        timm.create_model("deit_ti", features_only=True, feature_cls="hook")


@every_kind
def test_intermediates_are_the_maps_of_all_levels_and_the_last_features(
    model: Network, name: str
) -> None:
    features, maps = model.forward_intermediates(images())
    torch.testing.assert_close(features, model.forward_features(images()))
    info = FeatureInfo(copy.deepcopy(model.feature_info), len(model.feature_info))
    expected = [
        (2, channels, *(math.ceil(SIZE / reduction),) * 2)
        for channels, reduction in zip(info.channels(), info.reduction(), strict=True)
    ]
    assert [tuple(found.shape) for found in maps] == expected
    assert len(model.forward_intermediates(images(), 2, intermediates_only=True)) == 2
    (last,) = model.forward_intermediates(images(), [-1], intermediates_only=True)
    torch.testing.assert_close(last, maps[-1])


@every_kind
def test_intermediates_come_in_every_layout(model: Network, name: str) -> None:
    def get(**options: Any) -> Any:
        return model.forward_intermediates(images(), [1], intermediates_only=True, **options)[0]

    given = get()
    torch.testing.assert_close(get(output_fmt="NHWC"), given.permute(0, 2, 3, 1))
    torch.testing.assert_close(get(output_fmt="NLC"), given.flatten(2).transpose(1, 2))
    with pytest.raises(ValueError, match=r"output_fmt='NCL'; legal: 'NCHW', 'NHWC', 'NLC'"):
        get(output_fmt="NCL")


@every_kind
def test_intermediates_come_by_name_and_with_class_tokens(model: Network, name: str) -> None:
    features, maps = model.forward_intermediates(images())
    plain = model.forward_intermediates(images(), output_dict=True)
    torch.testing.assert_close(plain, {"image_features": features, "image_intermediates": maps})
    named = model.forward_intermediates(
        images(), output_dict=True, intermediates_only=True, return_prefix_tokens=True
    )
    pairs = model.forward_intermediates(
        images(), intermediates_only=True, return_prefix_tokens=True
    )
    if name not in WITH_CLASS_TOKEN:
        torch.testing.assert_close([named, pairs], [{"image_intermediates": maps}, maps])
        return
    prefixes = named["image_intermediates_prefix"]
    torch.testing.assert_close(pairs, list(zip(maps, prefixes, strict=True)))
    joined = [0, 0, 0, 1] if name == "lit_ti" else [1] * len(maps)
    assert [prefix.shape[1] for prefix in prefixes] == joined


@pytest.mark.parametrize("name", ["deit_ti"])
def test_blocks_are_closed_by_the_norm_of_their_stage_where_that_is_asked_for(
    model: Network, name: str
) -> None:
    ((raw, token),) = model.forward_intermediates(
        images(), 1, return_prefix_tokens=True, output_fmt="NLC", intermediates_only=True
    )
    ((closed, closed_token),) = model.forward_intermediates(
        images(), 1, return_prefix_tokens=True, norm=True, output_fmt="NLC", intermediates_only=True
    )
    norm = model.stages[0].norm
    torch.testing.assert_close([closed, closed_token], [norm(raw), norm(token)])
    features = model.forward_features(images())
    torch.testing.assert_close(torch.cat((closed_token, closed), dim=1), features)


@every_kind
def test_stopping_early_runs_no_stage_behind_the_last_level_taken(
    model: Network, name: str
) -> None:
    called: list[int] = []
    for index, stage in enumerate(model.stages):
        stage.register_forward_hook(lambda *_, index=index: called.append(index))
    _, (first,) = model.forward_intermediates(images(), [0], stop_early=True)
    assert called == [0]
    torch.testing.assert_close(model.forward_intermediates(images(), [0])[1][0], first)


@every_kind
def test_intermediate_layers_have_the_interface_of_dino(model: Network, name: str) -> None:
    maps = model.forward_intermediates(images(), 2, intermediates_only=True)
    tokens = [found.flatten(2).transpose(1, 2) for found in maps]
    torch.testing.assert_close(model.get_intermediate_layers(images(), 2), tokens)
    torch.testing.assert_close(model.get_intermediate_layers(images(), 2, reshape=True), maps)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*SMALLEST, "lw_plg_vit_a"])
def test_symbolic_traces_give_what_the_model_gives(model: Network, name: str) -> None:
    traced = timm.models.create_feature_extractor(model, {"head": "scores"})
    with torch.no_grad():
        assert torch.equal(traced(images())["scores"], model(images()))
    traced = timm.models.create_feature_extractor(model.train(), {"head": "scores"})
    traced(images())["scores"].mean().backward()
    assert all(parameter.grad is not None for parameter in traced.parameters())


@every_kind
def test_layers_are_the_stem_each_block_and_the_head(model: Network, name: str) -> None:
    layers = group_parameters(model, model.group_matcher())
    blocks = [
        (stage, block)
        for stage, spec in enumerate(model.architecture.stages)
        for block in range(spec.depth)
    ]
    assert len(layers) == 1 + len(blocks) + 1
    assert all(part.startswith("stem.") for part in layers[0])
    assert set(layers[len(layers) - 1]) == {"head.weight", "head.bias"}
    for layer, (stage, block) in enumerate(blocks, start=1):
        expected = {f"stages.{stage}.blocks.{block}."}
        expected |= {f"stages.{stage}.entry."} if block == 0 else set()
        last = block == model.architecture.stages[stage].depth - 1
        expected |= {f"stages.{stage}.norm."} if last else set()
        for part in layers[layer]:
            assert part.startswith(tuple(expected)), (layer, part)
    assert sum(map(len, layers.values())) == len(list(model.parameters()))
    coarse = group_parameters(model, model.group_matcher(coarse=True))
    assert len(coarse) == 1 + len(model.architecture.stages) + 1


def test_timm_decays_learning_rates_layer_by_layer() -> None:
    with torch.device("meta"):
        model = timm.create_model("lit_ti")
    optimizer = create_optimizer_v2(model, "adamw", lr=1.0, layer_decay=0.5)
    scales = {
        id(parameter): group["lr_scale"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert scales[id(model.head.weight)] == 1
    assert scales[id(model.stages[3].blocks[-1].feed_forward.fc1.weight)] == 0.5
    assert scales[id(model.stem.proj.weight)] == 0.5 ** (3 + 4 + 6 + 3 + 1)


@pytest.mark.parametrize("name", ["lit_ti"])
def test_parameter_groups_keep_what_modules_say_of_their_parameters(
    model: Network, name: str
) -> None:
    names = {id(parameter): part for part, parameter in model.named_parameters()}
    undecayed = model.no_weight_decay()
    model.head.bias.requires_grad_(False)

    def rates(key: str, **options: Any) -> dict[str, float]:
        found = {}
        for group in parameter_groups(model, weight_decay=0.05, **options):
            for parameter in group["params"]:
                part = names[id(parameter)]
                assert group["weight_decay"] == (0.0 if part in undecayed else 0.05)
                found[part] = group[key]
        return found

    scales = rates("lr_scale")
    assert scales == {
        part: 0.01 if ".offset." in part else 1.0 for part in scales if part != "head.bias"
    }
    assert len(scales) == len(names) - 1
    assert rates("lr", lr=0.5) == {part: 0.5 * scale for part, scale in scales.items()}
    decayed = rates("lr_scale", layer_decay=0.5)
    assert decayed["head.weight"] == 1
    offset = "stages.3.entry.deformable.offset.weight"
    assert decayed[offset] == pytest.approx(0.01 * decayed["stages.3.blocks.0.norm1.weight"])
    torch.optim.AdamW(parameter_groups(model, weight_decay=0.05, lr=1e-3))
    create_optimizer_v2(parameter_groups(model, weight_decay=0.05), "lamb", lr=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shunted_t", "lit_ti", "pslt_tiny", "psvit_1d_ti"])
def test_gradient_checkpointing_changes_no_gradient_and_no_running_statistic(
    model: Network, name: str
) -> None:
    trained = []
    for enable in (False, True):
        one = copy.deepcopy(model).train()
        one.set_grad_checkpointing(enable)
        one(images()).square().sum().backward()
        gradients = {part: parameter.grad for part, parameter in one.named_parameters()}
        trained.append((gradients, dict(one.named_buffers())))
    torch.testing.assert_close(*trained)
    counts = [b for part, b in trained[1][1].items() if part.endswith("num_batches_tracked")]
    assert all(int(count) == 1 for count in counts)


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """The folder of an exported network with random weights, of three channels and four classes."""
    network = Network(NANO.scaled(0.0), num_classes=4)
    randomise(network.state_dict())
    about = ExportedNetwork(
        num_classes=4,
        image_size=48,
        mean=(0.1, 0.2, 0.3),
        std=(0.4, 0.5, 0.6),
        class_names=("a", "b", "c", "d"),
        crop_pct=0.9,
    )
    (tmp_path / "best").mkdir()
    save_exported(tmp_path / "best", network, about)
    return tmp_path / "best"


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "pickled"])
def test_what_timm_saves_stands_alone_and_timm_loads_it(
    export: Path, tmp_path: Path, safe: bool
) -> None:
    model = timm.create_model("subnet", architecture=export, pretrained=True).eval()
    timm.models.save_for_hf(model, str(tmp_path / "hub"), safe_serialization=safe)
    export.rename(tmp_path / "elsewhere")
    name = f"local-dir:{tmp_path / 'hub'}"
    again = timm.create_model(name, pretrained=True).eval()
    assert again.architecture == model.architecture
    torch.testing.assert_close(again(images()), model(images()), rtol=0, atol=0)
    assert timm.data.resolve_model_data_config(again) == timm.data.resolve_model_data_config(model)
    assert tuple(again.pretrained_cfg["label_names"]) == ("a", "b", "c", "d")
    other = timm.create_model(name, pretrained=True, num_classes=2).eval()
    torch.testing.assert_close(
        other.forward_features(images()), model.forward_features(images()), rtol=0, atol=0
    )
    assert other(images()).shape == (2, 2)
    backbone = timm.create_model(name, pretrained=True, features_only=True).eval()
    torch.testing.assert_close(
        backbone(images()), model.forward_intermediates(images(), intermediates_only=True)
    )


def test_timm_saves_and_loads_designs(tmp_path: Path, models: dict[str, Network]) -> None:
    model = timm.create_model("psvit_2d_ti", num_classes=3).eval()
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    again = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    torch.testing.assert_close(again(images()), model(images()), rtol=0, atol=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_weights_are_adapted_to_other_channels_as_timm_does(export: Path, channels: int) -> None:
    model = timm.create_model("subnet", architecture=export, pretrained=True)
    other = timm.create_model("subnet", architecture=export, pretrained=True, in_chans=channels)
    given, found = model.state_dict(), other.state_dict()
    first = model.pretrained_cfg["first_conv"] + ".weight"
    torch.testing.assert_close(found.pop(first), adapt_input_conv(channels, given.pop(first)))
    torch.testing.assert_close(found, given, rtol=0, atol=0)
    config = timm.data.resolve_model_data_config(other)
    assert config["input_size"] == (channels, 48, 48)
    assert config["mean"] == pytest.approx((0.2,) * channels)
    assert other(images(channels=channels)).shape == (2, 4)


MAPS = {
    "shunted_t": {"stages.0.blocks.0.mixer.groups.rate8": (2, 1, 16 * 16, 2 * 2)},
    "lit_ti": {"stages.2.blocks.5.mixer.groups.full": (2, 5, 4 * 4, 4 * 4)},
    "pslt_tiny": {"stages.2.blocks.0.ladder.branches.2": (2, 4, 4 * 4, 4 * 4)},
    "deit_ti": {"stages.0.blocks.11.mixer.groups.full": (2, 3, 17, 17)},
    "psvit_1d_ti": {"stages.1.blocks.1.mixer.groups.full": (2, 3, 9, 9)},
    "psvit_2d_ti": {
        "stages.1.blocks.0.mixer.groups.full": (2, 3, 4, 4),
        "stages.1.blocks.1.mixer.groups.full": (2, 3, 4, 4),  # borrowed
    },
}
"""Some attention maps of each design, and their shapes: images · windows, heads, queries, keys."""


@every_kind
@with_and_without_gradients
def test_timm_extracts_every_attention_map(model: Network, name: str, grad: bool) -> None:
    with torch.set_grad_enabled(grad):
        expected = model(images())
        extract = AttentionExtract(model, method="hook")
        maps = extract(images())
        torch.testing.assert_close(model(images()), expected, rtol=1e-4, atol=1e-4)
    groups = [part for part, m in model.named_modules() if isinstance(m, HeadGroup | LadderBranch)]
    assert list(maps) == [f"{group}.attn_drop" for group in groups]
    for found in maps.values():
        torch.testing.assert_close(found.sum(dim=-1), torch.ones(found.shape[:-1]))
    for group, shape in MAPS[name].items():
        assert maps[f"{group}.attn_drop"].shape == shape


@pytest.mark.parametrize("name", ["psvit_2d_ti"])
def test_a_borrowed_map_is_the_one_that_was_lent(model: Network, name: str) -> None:
    maps = AttentionExtract(model, method="hook")(images())
    first, second, third = (
        maps[f"stages.1.blocks.{block}.mixer.groups.full.attn_drop"] for block in range(3)
    )
    assert torch.equal(first, second)
    assert not torch.equal(second, third)


@pytest.mark.parametrize("name", ["deit_ti"])
def test_values_mixed_by_an_extracted_map_are_the_output_of_its_heads(
    model: Network, name: str
) -> None:
    group = model.stages[0].blocks[0].mixer.groups["full"]
    seen: dict[str, Tensor] = {}
    handles = [
        group.v.register_forward_hook(lambda m, i, given: seen.update(v=given)),
        group.proj.register_forward_pre_hook(lambda m, given: seen.update(mixed=given[0])),
    ]
    with torch.no_grad():
        maps = AttentionExtract(model, method="hook")(images())
    for handle in handles:
        handle.remove()
    values = seen["v"].flatten(1, 2).unflatten(-1, (3, 64)).transpose(1, 2)  # (B, h, N, d)
    mixed = maps["stages.0.blocks.0.mixer.groups.full.attn_drop"] @ values
    torch.testing.assert_close(seen["mixed"].flatten(1, 2), mixed.transpose(1, 2).flatten(2))
