"""The network that an architecture describes: an ordinary module, nothing elastic in it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.layers import DropPath
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search_space import Architecture, LocalGlobal, Stage
from supernet.blocks.feed_forward import build_feed_forward
from supernet.blocks.layout import BlockNorm
from supernet.blocks.local_global import AttentionMaps, LocalGlobalAttention
from supernet.blocks.pooling import build_pooling
from supernet.blocks.sharing import MapRole
from supernet.blocks.stems import build_stem


class Block(nn.Module):
    """Pre-norm residual block: token mixing, where the stage has any, then the feed-forward."""

    def __init__(self, stage: Stage, index: int, drop_path: float) -> None:
        super().__init__()
        width = stage.width
        self.mixer: LocalGlobalAttention | None = None
        if isinstance(stage.mixer, LocalGlobal):
            if not stage.owns_map(index):
                role = MapRole.BORROW
            else:
                role = MapRole.LEND if stage.lends_map(index) else MapRole.OWN
            self.norm1 = BlockNorm(width)
            self.mixer = LocalGlobalAttention(stage.mixer, width, role)
        self.norm2 = BlockNorm(width)
        self.feed_forward = build_feed_forward(stage.feed_forward.kind, width, stage.hidden)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor, maps: AttentionMaps | None) -> tuple[Tensor, AttentionMaps | None]:
        """(B, H, W, C) and the maps lent by an earlier block → the same for the next one."""
        if self.mixer is not None:
            y, maps = self.mixer(self.norm1(x), maps)
            x = x + self.drop_path(y)
        x = x + self.drop_path(self.feed_forward(self.norm2(x)))
        return x, maps


class NetworkStage(nn.Module):
    """Pooling on entry, the blocks, and a closing norm."""

    def __init__(self, stage: Stage, inputs: int, drop_paths: list[float]) -> None:
        super().__init__()
        self.pooling = (
            build_pooling(stage.pooling, inputs, stage.width) if stage.pooling else nn.Identity()
        )
        self.blocks = nn.ModuleList(
            Block(stage, index, drop_path) for index, drop_path in enumerate(drop_paths)
        )
        self.norm = BlockNorm(stage.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, H', W', C)."""
        x = self.pooling(x)
        maps: AttentionMaps | None = None
        for block in self.blocks:
            x, maps = block(x, maps)
        x = self.norm(x)
        return x


class Network(nn.Module):
    """The network that an architecture describes.

    Args:
        architecture: What to build; its canonical form is built.
        num_classes: Outputs of the classifier; 0 for none.
        in_chans: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; earlier ones rise to it linearly.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        architecture = architecture.canonical()
        self.architecture = architecture
        # timm reads these: input size, mean, standard deviation and the like.
        self.pretrained_cfg: dict[str, Any] = {}
        self.default_cfg: dict[str, Any] = self.pretrained_cfg
        self.num_classes, self.in_chans = num_classes, in_chans
        self.stem = build_stem(architecture.stem, in_chans, architecture.stages[0].width)
        depth = sum(stage.depth for stage in architecture.stages)
        rates = iter([drop_path_rate * i / max(depth - 1, 1) for i in range(depth)])
        self.stages = nn.ModuleList()
        inputs = architecture.stages[0].width
        for stage in architecture.stages:
            drop_paths = [next(rates) for _ in range(stage.depth)]
            self.stages.append(NetworkStage(stage, inputs, drop_paths))
            inputs = stage.width
        self.num_features = inputs
        self.head = nn.Linear(inputs, num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def forward_features(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → the last stage's map (B, H', W', C)."""
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        assert isinstance(x, Tensor)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last stage's map (B, H', W', C) → class scores (B, num_classes)."""
        x = x.mean(dim=(1, 2))
        if not pre_logits:
            x = self.head(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → class scores (B, num_classes)."""
        return self.forward_head(self.forward_features(image))

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        """Replace the classifier by a fresh one for that many classes, or by none for 0."""
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        _init_module(self.head)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw the weights anew, in place, from torch's global generator."""
        for module in self.modules():
            _init_module(module)


@torch.no_grad()
def _init_module(module: nn.Module) -> None:
    """Truncated normal for linear layers, fan-out normal for convolutions (as PVT, Shunted)."""
    match module:
        case nn.Linear():
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case nn.Conv2d():
            kernel = module.kernel_size[0] * module.kernel_size[1]
            fan_out = kernel * module.out_channels // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_out))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        case nn.LayerNorm() | nn.BatchNorm2d():
            module.reset_parameters()
        case LocalGlobalAttention():
            nn.init.zeros_(module.bias)
        case _:
            pass


class _WithoutInit(TorchFunctionMode):
    """Skips torch's initialisers: drawing weights takes most of the time of building a network."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def skeleton(
    architecture: Architecture, *, num_classes: int, in_chans: int = 3, drop_path_rate: float = 0.0
) -> Network:
    """A network without storage, on the `meta` device: names and shapes, to be given tensors."""
    with torch.device("meta"), _WithoutInit():
        return Network(
            architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            drop_path_rate=drop_path_rate,
        )
