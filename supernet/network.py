"""The network that an architecture describes: an ordinary module, nothing elastic in it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils.checkpoint import checkpoint

from search_space import (
    Architecture,
    Stage,
)
from supernet.blocks import fast_paths
from supernet.blocks.block import Block, build_block
from supernet.blocks.initial_weights import init_module
from supernet.blocks.layers import MapConv
from supernet.blocks.layout import to_channels_first
from supernet.blocks.local_global import AttentionMaps
from supernet.blocks.norms import BranchNorm
from supernet.blocks.parameter_settings import ParameterSetting, parameter_settings
from supernet.blocks.pooling import build_pooling
from supernet.blocks.positions import PositionEmbedding
from supernet.blocks.sequence import ClassToken
from supernet.blocks.stems import build_stem


class NetworkStage(nn.Module):
    """Pooling on entry, positions and class token, the blocks, and a closing norm."""

    def __init__(self, stage: Stage, inputs: int, norm_eps: float, drop_paths: list[float]) -> None:
        super().__init__()
        self.grad_checkpointing = False
        # By kind, so that operators that cannot share weights never have the same names.
        self.entry = nn.ModuleDict()
        if stage.pooling:
            self.entry[stage.pooling] = build_pooling(
                stage.pooling, inputs, stage.width, stage.conv_norm
            )
        if stage.position:
            self.entry["position"] = PositionEmbedding(stage.position, stage.width)
        if stage.adds_class_token:
            self.entry["class_token"] = ClassToken(
                stage.width, has_position=stage.position is not None
            )
        self.blocks = nn.ModuleList(
            build_block(stage, index, norm_eps, rate) for index, rate in enumerate(drop_paths)
        )
        self.norm = nn.LayerNorm(stage.width, eps=norm_eps) if stage.norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, H', W', C)."""
        for module in self.entry.values():
            x = module(x)
        maps: AttentionMaps | None = None
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x, maps = checkpoint(block, x, maps, use_reentrant=False)
            else:
                x, maps = block(x, maps)
        x = self.norm(x)
        return x


class ExpandedFeatures(nn.Module):
    """Conv 3×3 that expands the channels of the last map, layer norm, GELU (LW-PLG-ViT)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = MapConv(inputs, outputs, kernel_size=3, padding=1, bias=False)
        self.norm = BranchNorm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """(B, H, W, inputs) → (B, H, W, outputs)."""
        return fast_paths.chain(x, self.conv, self.norm, F.gelu)


class Network(nn.Module):
    """The network that an architecture describes.

    Beside `forward` it has what timm asks of its models: `forward_features`, `forward_head`,
    `forward_intermediates`, `reset_classifier`, `set_grad_checkpointing`, `no_weight_decay`.

    Args:
        architecture: What to build; its canonical form is built.
        num_classes: Outputs of the classifier; 0 for none.
        in_chans: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; earlier ones rise to it linearly.
        draw: Whether to draw the weights; else they are whatever memory holds.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        draw: bool = True,
    ) -> None:
        super().__init__()
        architecture = architecture.canonical()
        self.architecture = architecture
        # timm reads these: input size, mean, standard deviation and the like.
        self.pretrained_cfg: dict[str, Any] = {}
        self.default_cfg: dict[str, Any] = self.pretrained_cfg
        self.num_classes, self.in_chans = num_classes, in_chans
        stem, stages = architecture.stem, architecture.stages
        self.stem = build_stem(stem, in_chans, stages[0].width)
        depth = sum(stage.depth for stage in stages)
        rates = iter([drop_path_rate * i / max(depth - 1, 1) for i in range(depth)])
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        inputs = stem.width_of(stages[0].width)
        reduction = stem.stride
        for index, stage in enumerate(stages):
            drop_paths = [next(rates) for _ in range(stage.depth)]
            self.stages.append(NetworkStage(stage, inputs, architecture.norm_eps, drop_paths))
            inputs = stage.width
            reduction *= 2 if index else 1
            self.feature_info.append(
                {"num_chs": inputs, "reduction": reduction, "module": f"stages.{index}"}
            )
        expansion = architecture.head.expanded
        self.expand = ExpandedFeatures(inputs, expansion) if expansion else nn.Identity()
        self.num_features = self.head_hidden_size = expansion or inputs
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if draw:
            self.init_weights()

    def forward_features(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → the last stage's map (B, H', W', C)."""
        x = self.stem(image)
        for stage in self.stages:
            x = stage(x)
        x = self.expand(x)
        assert isinstance(x, Tensor)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """The last stage's map (B, H', W', C) → class scores (B, num_classes)."""
        x = x[:, 0, 0] if self.architecture.head.reads_class_token else x.mean(dim=(1, 2))
        if not pre_logits:
            x = self.head(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → class scores (B, num_classes)."""
        return self.forward_head(self.forward_features(image))

    def segment_starts(self) -> list[nn.Module]:
        """The module that each segment begins with, in the order of `search_space.segments`."""
        starts: list[nn.Module] = [self.stem]
        for stage in self.stages:
            assert isinstance(stage, NetworkStage)
            starts += list(stage.entry.values())[:1]
            for block in stage.blocks:
                if isinstance(block, Block):
                    starts += [block.norm1] if block.mixer is not None else []
                    starts.append(block.norm2)
                else:
                    starts.append(block)
            starts += [] if isinstance(stage.norm, nn.Identity) else [stage.norm]
        return [*starts, self.expand]

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps of the stages, as timm asks for them.

        Args:
            x: Images (B, in_chans, H, W).
            indices: Stages to take: the last so many, or these.
            norm: Has no effect: the norm that closes a stage, where there is one, is part of it.
            stop_early: Leave out the stages behind the last one taken.
            output_fmt: `NCHW` alone.
            intermediates_only: Return the maps alone.

        Returns:
            The maps (B, C, H', W'), a class token left out; before them the output of
            `forward_features` unless `intermediates_only`.

        Raises:
            ValueError: If a stage that is taken holds a sequence pooled in one dimension.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt={output_fmt!r}; legal: 'NCHW'")
        taken, last = feature_take_indices(len(self.stages), indices)
        maps: list[Tensor] = []
        x = self.stem(x)
        size = x.shape[1:3]
        for index, (stage, spec) in enumerate(
            zip(self.stages, self.architecture.stages, strict=False)
        ):
            if index > last and (stop_early or intermediates_only):
                break
            x = stage(x)
            if spec.pooling:
                size = torch.Size(-(-side // 2) for side in size)
            if index in taken:
                if spec.pools_sequence:
                    raise ValueError(f"stage {index} holds a sequence, which is no map")
                tokens = x[:, 0, 1:].unflatten(1, size) if spec.class_token else x
                maps.append(to_channels_first(tokens))
        return maps if intermediates_only else (self.expand(x), maps)

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop the stages behind the last one taken, and the classifier; the stages taken."""
        taken, last = feature_take_indices(len(self.stages), indices)
        self.stages = self.stages[: last + 1]
        if prune_head:
            self.expand = nn.Identity()
            self.reset_classifier(0)
        return taken

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Compute each block's activations anew in the backward pass instead of keeping them."""
        for stage in self.stages:
            assert isinstance(stage, NetworkStage)
            stage.grad_checkpointing = enable

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that are not decayed."""
        return {name for name, setting in self.parameter_settings().items() if not setting.decayed}

    def parameter_settings(self) -> dict[str, ParameterSetting]:
        """How each parameter trains, by its name: as its module says."""
        return parameter_settings(self)

    def get_classifier(self) -> nn.Module:
        """The classifier."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one for that many classes, or by none for 0."""
        if global_pool is not None:
            raise ValueError(f"global_pool={global_pool!r}: the architecture's head pools")
        self.num_classes = num_classes
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        init_module(self.head)

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw the weights anew, in place, from torch's global generator."""
        for module in self.modules():
            init_module(module)


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
            draw=False,
        )
