"""The networks as timm models: `timm.create_model("subnet", architecture=FILE)`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from timm.layers import is_scriptable
from timm.models import (
    build_model_with_cfg,
    generate_default_cfgs,
    register_model,
    register_notrace_module,
    resolve_pretrained_cfg,
)
from timm.models._pretrained import PretrainedCfg
from torch import nn

from search_space import DESIGNS, Architecture, map_sizes
from search_space.architecture import architecture_file
from search_space.operators import Size
from supernet.authors import checkpoint_filter_fn, take_authors_names
from supernet.blocks.block import Block, WholeBlock
from supernet.blocks.stems import FIRST_CONVOLUTIONS
from supernet.exported import WEIGHTS, ExportedNetwork, describe_exported, load_exported
from supernet.network import Network, feature_levels

TAKEN = ("num_classes", "in_chans", "drop_path_rate", "global_pool", "img_size")
"""Arguments of a model."""

NEUTRAL: dict[str, float] = {
    **{f"{part}drop_rate": 0.0 for part in ("", "pos_", "patch_", "proj_", "attn_")},
    "drop_block_rate": 0.0,
    "bn_momentum": 0.1,
    "bn_eps": 1e-5,
    "dynamic_img_size": True,
    "strict_img_size": False,
}
"""Arguments of timm's other models, and the one value at which they change nothing here."""

_OF_THE_BUILDER = (
    *("pretrained_cfg_overlay", "pretrained_model_args", "cache_dir"),
    *("features_only", "out_indices", "feature_cls", "feature_cfg"),
)
"""What timm's builder reads itself."""


def _default_cfg(architecture: Architecture, **changes: Any) -> PretrainedCfg:
    """What timm is told of an architecture: its images are ImageNet's unless something else is."""
    cfg = PretrainedCfg(
        crop_pct=0.9,
        first_conv=f"stem.{FIRST_CONVOLUTIONS[type(architecture.stem)]}",
        classifier="head",
    )
    cfg = replace(cfg, **changes)
    return replace(cfg, pool_size=_pool_size(architecture, cfg.input_size[1:]))


def _pool_size(architecture: Architecture, image_size: Sequence[int]) -> Size | None:
    """Height and width of the map that the head pools; None of a sequence."""
    is_map = not architecture.head.reads_class_token
    return map_sizes(image_size, architecture)[-1] if is_map else None


def _exported_cfg(
    architecture: Architecture, about: ExportedNetwork, weights: Path
) -> PretrainedCfg:
    return _default_cfg(
        architecture,
        file=str(weights),
        input_size=(about.in_chans, about.image_size, about.image_size),
        num_classes=about.num_classes,
        mean=about.mean,
        std=about.std,
        crop_pct=about.crop_pct,
        crop_mode=about.crop_mode,
        interpolation=about.interpolation,
        label_names=about.class_names,
    )


# Read by `register_model`.
default_cfgs = generate_default_cfgs(
    {design.timm_name: _default_cfg(design.architecture, license="mit") for design in DESIGNS}
)


@register_model
def subnet(
    pretrained: bool = False,
    *,
    architecture: Architecture | Mapping[str, Any] | str | Path,
    pretrained_cfg: Any = None,
    **kwargs: Any,
) -> nn.Module:
    """The network of an architecture, as a timm model.

    Args:
        pretrained: Load the `weights.safetensors` beside the architecture file. For another number
            of classes the classifier is a fresh one; for another of channels the first convolution
            is adapted as timm does it.
        architecture: The architecture, its JSON file, the folder that holds it, or what its JSON
            says.
        pretrained_cfg: What is known of other weights than those beside the file.
        kwargs: `num_classes`, `in_chans`, `drop_path_rate`, `global_pool`; `img_size`, for the data
            configuration (the network takes images of any size); `features_only` and what goes with
            it. Classes, channels and images are by default those of the weights beside the file,
            or ImageNet's.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        TypeError: If an argument is unknown, or its value cannot be had.
        ValueError: If the weights are missing or of another architecture.
    """
    missing = "pretrained=True needs the architecture's file, which has weights beside"
    if isinstance(architecture, Mapping):
        architecture = Architecture.from_json(json.dumps(architecture))
    elif not isinstance(architecture, Architecture):
        file = architecture_file(architecture)
        architecture, about = Architecture.load(file), describe_exported(file)
        if about is not None:
            pretrained_cfg = _exported_cfg(architecture, about, file.parent / WEIGHTS)
            if pretrained:
                load_exported(file)  # refuses what doesn't fit
        missing = f"{file.parent}: pretrained=True, but no {WEIGHTS} here"
    cfg = pretrained_cfg or _default_cfg(architecture)
    return _create("subnet", architecture, pretrained, cfg, missing, kwargs)


def _create(
    name: str,
    architecture: Architecture,
    pretrained: bool,
    pretrained_cfg: Any,
    missing: str,
    kwargs: Mapping[str, Any],
) -> nn.Module:
    """The model of that name; `missing` says what is wrong where there are no weights."""
    kwargs = {key: value for key, value in kwargs.items() if value is not None}
    _check_arguments(name, kwargs)
    cfg = resolve_pretrained_cfg(name, pretrained_cfg, kwargs.pop("pretrained_cfg_overlay", None))
    if pretrained and not (cfg.has_weights or cfg.state_dict):
        raise ValueError(missing)
    if architecture.head.reads_class_token and kwargs.get("feature_cls", "getter") != "getter":
        raise TypeError(f"{name}() has a class token: its features come by 'getter' alone")
    feature_cfg = {
        "feature_cls": "getter",
        "out_indices": tuple(range(len(feature_levels(architecture)))),
        "flatten_sequential": True,
        **kwargs.pop("feature_cfg", {}),
    }

    def build(*, img_size: object = None, **settings: Any) -> Network:
        network = Network(architecture, **settings)
        _keep_parts_whole(network)
        network.register_load_state_dict_pre_hook(take_authors_names)  # type: ignore[no-untyped-call]
        return network

    model: nn.Module = build_model_with_cfg(
        build,
        name,
        pretrained,
        pretrained_cfg=cfg.to_dict(),
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=feature_cfg,
        **{key: value for key, value in kwargs.items() if key not in NEUTRAL},
    )
    _describe(model, architecture, kwargs.get("img_size"))
    return model


def _check_arguments(name: str, kwargs: Mapping[str, Any]) -> None:
    """Refuse what is unknown or cannot be had.

    Raises:
        TypeError: If there is such an argument.
    """
    for key, value in kwargs.items():
        if key in NEUTRAL:
            if value != NEUTRAL[key]:
                raise TypeError(f"{name}() takes {key}={NEUTRAL[key]} alone, not {value!r}")
        elif key not in TAKEN and key not in _OF_THE_BUILDER:
            raise TypeError(f"{name}() takes no argument {key!r}")
    if "out_indices" in kwargs and not kwargs.get("features_only"):
        raise TypeError(f"{name}() takes out_indices only with features_only=True")
    if is_scriptable():
        raise TypeError(f"{name}() cannot be scripted: compile or trace it, or export it to ONNX")


def _keep_parts_whole(network: Network) -> None:
    """Symbolic traces call the parts of blocks and don't look into them.

    What they compute depends on the size of the map, which such a trace doesn't know.
    """
    for module in network.modules():
        is_part = type(module).__module__.startswith("supernet.blocks.")
        if is_part and not isinstance(module, Block | WholeBlock):
            register_notrace_module(type(module))


def _describe(model: Any, architecture: Architecture, img_size: int | Sequence[int] | None) -> None:
    """Let a model's configuration speak of the images and classes that this very model is for."""
    cfg: dict[str, Any] = dict(model.pretrained_cfg)
    size = (img_size, img_size) if isinstance(img_size, int) else img_size
    height, width = size or cfg["input_size"][1:]
    cfg["input_size"] = (model.in_chans, height, width)
    cfg["pool_size"] = _pool_size(architecture, (height, width))
    for key in ("mean", "std"):
        values = tuple(cfg[key])
        if len(values) != model.in_chans:  # as timm's scripts have it
            values = (sum(values) / len(values),) * model.in_chans
        cfg[key] = values
    if "num_classes" in cfg and cfg["num_classes"] != model.num_classes:
        cfg["num_classes"] = model.num_classes
        cfg.pop("label_names", None)
    model.pretrained_cfg = model.default_cfg = cfg


def _register_design(name: str, architecture: Architecture) -> None:
    def create(
        pretrained: bool = False,
        *,
        pretrained_cfg: Any = None,
        **kwargs: Any,
    ) -> nn.Module:
        missing = (
            f"{name} has no pretrained weights but those of its authors that you have: "
            "pretrained_cfg_overlay=dict(file=FILE)"
        )
        return _create(name, architecture, pretrained, pretrained_cfg, missing, kwargs)

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    register_model(create)


for _design in DESIGNS:
    _register_design(_design.timm_name, _design.architecture)
