"""The networks as timm models: `timm.create_model("subnet", architecture=FILE)`."""

from pathlib import Path
from typing import Any

from timm.models import register_model
from timm.models._features import FeatureGetterNet

from search_space import DESIGNS, Architecture
from supernet.exported import describe_exported, load_exported
from supernet.network import Network

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# What timm passes to every entry point and only its own builder reads.
_OF_TIMM = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


@register_model
def subnet(
    pretrained: bool = False,
    *,
    architecture: Architecture | str | Path,
    num_classes: int | None = None,
    in_chans: int | None = None,
    drop_path_rate: float = 0.0,
    img_size: int | tuple[int, int] | None = None,
    features_only: bool = False,
    out_indices: tuple[int, ...] | int | None = None,
    **kwargs: Any,
) -> Network | FeatureGetterNet:
    """The network of an architecture, as a timm model.

    Args:
        pretrained: Load the `weights.safetensors` beside the architecture file.
        architecture: The architecture, its JSON file, or the folder that holds it.
        num_classes: Outputs of the classifier. By default those of the weights beside the file, or
            1000 where there are none. Another number than that of loaded weights gives a fresh
            classifier.
        in_chans: Channels of the image; by default those of the weights beside the file, or 3.
        drop_path_rate: Stochastic depth of the last block.
        img_size: Side of the images, or (height, width), for timm's data configuration; by default
            that of the weights beside the file, or 224. The network takes images of any size.
        features_only: Give the maps of the stages, instead of class scores.
        out_indices: Which stages; by default all that hold a map.
        kwargs: Nothing else is taken but what timm itself adds.

    Raises:
        ArchitectureError: If the architecture cannot be read.
        TypeError: If an argument is unknown.
        ValueError: If the weights are missing or of another architecture.
    """
    if unknown := set(kwargs) - set(_OF_TIMM):
        raise TypeError(f"subnet() takes no argument {sorted(unknown)[0]!r}")
    about = None
    if not isinstance(architecture, Architecture):
        file = Path(architecture)
        file = file / "architecture.json" if file.is_dir() else file
        architecture, about = Architecture.load(file), describe_exported(file)
        if pretrained and about is None:
            raise ValueError(f"{file.parent}: pretrained=True, but no weights.safetensors here")
    elif pretrained:
        raise ValueError("pretrained=True needs the architecture's file, which has weights beside")
    if num_classes is None:
        num_classes = about.num_classes if about else 1000
    if in_chans is None:
        in_chans = about.in_chans if about else 3
    model = Network(
        architecture, num_classes=num_classes, in_chans=in_chans, drop_path_rate=drop_path_rate
    )
    if pretrained:
        loaded, about = load_exported(file)
        if in_chans != about.in_chans:
            raise ValueError(
                f"in_chans={in_chans}: the weights in {file.parent} are for {about.in_chans}"
            )
        weights = loaded.state_dict()
        keeps_head = num_classes == about.num_classes
        if not keeps_head:
            weights = {k: v for k, v in weights.items() if not k.startswith("head.")}
        model.load_state_dict(weights, strict=keeps_head)
    size = img_size or (about.image_size if about else 224)
    height, width = (size, size) if isinstance(size, int) else size
    model.pretrained_cfg = model.default_cfg = {
        "architecture": "subnet",
        "input_size": (model.in_chans, height, width),
        "fixed_input_size": False,
        "num_classes": model.num_classes,
        "mean": about.mean if about else IMAGENET_MEAN,
        "std": about.std if about else IMAGENET_STD,
        "crop_pct": 1.0 if about else 0.9,
        "interpolation": "bicubic",
        "classifier": "head",
    }
    if features_only:
        if out_indices is None:
            stages = model.architecture.stages
            out_indices = tuple(i for i, s in enumerate(stages) if not s.pools_sequence)
        return FeatureGetterNet(model, out_indices=out_indices)
    if out_indices is not None:
        raise TypeError("subnet() takes out_indices only with features_only=True")
    return model


def _register_design(name: str, architecture: Architecture) -> None:
    def create(pretrained: bool = False, **kwargs: Any) -> Network | FeatureGetterNet:
        if pretrained:
            raise ValueError(f"{name} has no pretrained weights")
        model: Network | FeatureGetterNet = subnet(architecture=architecture, **kwargs)
        return model

    create.__name__ = create.__qualname__ = name
    create.__module__ = __name__
    register_model(create)


for _design in DESIGNS:
    _register_design(_design.timm_name, _design.architecture)
