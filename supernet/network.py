"""The network that an architecture describes: an ordinary module, nothing elastic in it."""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from timm.layers.format import Format, nhwc_to
from timm.models._features import feature_take_indices
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from search_space import (
    Architecture,
    Stage,
)
from supernet.blocks.block import WITHOUT_DROP_PATH, Block, build_block
from supernet.blocks.checkpointing import checkpointed
from supernet.blocks.expanded_features import ExpandedFeatures
from supernet.blocks.initial_weights import init_module
from supernet.blocks.local_global import AttentionMaps
from supernet.blocks.parameter_settings import ParameterSetting, parameter_settings
from supernet.blocks.pooling import build_pooling
from supernet.blocks.positions import PositionEmbedding
from supernet.blocks.sequence import ClassToken
from supernet.blocks.stems import build_stem


class NetworkStage(nn.Module):
    """Pooling on entry, positions and class token, the blocks, and a closing norm."""

    def __init__(
        self,
        stage: Stage,
        inputs: int,
        norm_eps: float,
        drop_paths: list[float],
        *,
        bilinear_positions: bool = False,
    ) -> None:
        super().__init__()
        self.grad_checkpointing = False
        # By kind, so that operators that cannot share weights never have the same names.
        self.entry = nn.ModuleDict()
        if stage.pooling:
            self.entry[stage.pooling] = build_pooling(
                stage.pooling, inputs, stage.width, stage.conv_norm
            )
        if stage.position:
            self.entry["position"] = PositionEmbedding(
                stage.position, stage.width, bilinear=bilinear_positions
            )
        if stage.adds_class_token:
            self.entry["class_token"] = ClassToken(
                stage.width, has_position=stage.position is not None
            )
        self.blocks = nn.ModuleList(
            build_block(stage, index, norm_eps, rate) for index, rate in enumerate(drop_paths)
        )
        self.norm = nn.LayerNorm(stage.width, eps=norm_eps) if stage.norm else nn.Identity()

    def forward(self, x: Tensor, outputs: list[Tensor] | None = None) -> Tensor:
        """(B, H, W, inputs) → (B, H', W', C); what each block gives joins `outputs`, if given."""
        for module in self.entry.values():
            x = module(x)
        maps: AttentionMaps | None = None
        for block in self.blocks:
            if self.grad_checkpointing and self.training:
                x, maps = checkpointed(block, x, maps)
            else:
                x, maps = block(x, maps)
            if outputs is not None:
                outputs.append(x)
        x = self.norm(x)
        return x


class Network(nn.Module):
    """The network that an architecture describes.

    Beside `forward` it has what timm asks of its models. The levels that `feature_info` and
    `forward_intermediates` speak of are the stages that hold a map or, where there is one such
    stage alone, its blocks.

    Args:
        architecture: What to build; its canonical form is built.
        num_classes: Outputs of the classifier; 0 for none.
        in_chans: Channels of the image.
        drop_path_rate: Stochastic depth of the last block; it rises from 0 linearly, over the
            blocks that have any.
        global_pool: What the classifier reads, as in `reset_classifier`; by default what the
            architecture's head says.
        draw: Whether to draw the weights; else they are whatever memory holds.

    Raises:
        ValueError: If there is no such pooling.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        global_pool: str | None = None,
        draw: bool = True,
    ) -> None:
        super().__init__()
        architecture = architecture.canonical()
        self.architecture = architecture
        # timm reads these: input size, mean, standard deviation and the like.
        self.pretrained_cfg: dict[str, Any] = {}
        self.default_cfg: dict[str, Any] = self.pretrained_cfg
        self._model_args = {}
        self.num_classes, self.in_chans = num_classes, in_chans
        self.has_class_token = architecture.head.reads_class_token
        self.num_prefix_tokens = int(self.has_class_token)
        self.output_fmt = None if self.has_class_token else "NHWC"
        self.global_pool = "token" if self.has_class_token else "avg"
        if global_pool is not None:
            self._set_global_pool(global_pool)
        stem, stages = architecture.stem, architecture.stages
        self.stem = build_stem(stem, in_chans, stages[0].width)
        bilinear_positions = len(stages) > 1 and all(stage.position for stage in stages)
        self.stages = nn.Sequential()
        inputs = stem.width_of(stages[0].width)
        for stage, drop_paths in zip(stages, _drop_paths(stages, drop_path_rate), strict=True):
            self.stages.append(
                NetworkStage(
                    stage,
                    inputs,
                    architecture.norm_eps,
                    drop_paths,
                    bilinear_positions=bilinear_positions,
                )
            )
            inputs = stage.width
        self.levels_are_blocks = _levels_are_blocks(architecture)
        self.feature_info = feature_levels(architecture)
        expansion = architecture.head.expanded
        self.expand = ExpandedFeatures(inputs, expansion) if expansion else nn.Identity()
        self.num_features = self.head_hidden_size = expansion or inputs
        self.head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        if draw:
            self.init_weights()

    def forward_features(self, image: Tensor) -> Tensor:
        """(B, in_chans, H, W) → the last map (B, H', W', C).

        With a class token: the last tokens (B, 1 + N, C), of which it is the first.
        """
        return self._last_features(self.stages(self.stem(image)))

    def _last_features(self, x: Tensor) -> Tensor:
        x = self.expand(x)
        return x.squeeze(1) if self.has_class_token else x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """What `forward_features` gives → class scores (B, num_classes).

        Without pooling: (B, H', W', num_classes), or (B, 1 + N, num_classes) of tokens.
        """
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, 1:].mean(dim=1) if self.has_class_token else x.mean(dim=(1, 2))
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
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
        output_dict: bool = False,
    ) -> Any:
        """The maps of the levels, as timm asks for them.

        Args:
            x: Images (B, in_chans, H, W).
            indices: Levels to take: the last so many, or these; all by default.
            return_prefix_tokens: Give pairs of a map and its class token (B, 1, C), or (B, 0, C)
                before that joins. Has no effect on a network without one.
            norm: Close the output of a block by the norm of its stage. A stage closes itself.
            stop_early: Leave out the stages behind the last level taken.
            output_fmt: `NCHW`, `NHWC` or `NLC`.
            intermediates_only: Leave the last features out.
            output_dict: Return `image_features`, `image_intermediates` and, where they are asked
                for, `image_intermediates_prefix` by these names.

        Returns:
            The output of `forward_features`, or of the last stage that was run, and the maps, from
            which a class token is left out.

        Raises:
            ValueError: If there is no such format.
        """
        if output_fmt not in ("NCHW", "NHWC", "NLC"):
            raise ValueError(f"output_fmt={str(output_fmt)!r}; legal: 'NCHW', 'NHWC', 'NLC'")
        taken, last = feature_take_indices(len(self.feature_info), indices)
        levels: list[tuple[Tensor, Tensor]] = []
        x = self.stem(x)
        size = x.shape[1:3]
        for stage, spec in zip(self.stages, self.architecture.stages, strict=False):
            if len(levels) > last and (stop_early or intermediates_only):
                break
            assert isinstance(stage, NetworkStage)
            outputs: list[Tensor] = []
            x = stage(x, outputs if self.levels_are_blocks else None)
            if spec.pools_sequence:
                continue
            if spec.pooling:
                size = torch.Size(-(-side // 2) for side in size)
            if self.levels_are_blocks and norm:
                outputs = [stage.norm(output) for output in outputs]
            first = int(spec.class_token)  # what stands before the tokens of the map
            levels += [
                (y.flatten(1, 2)[:, first:].unflatten(1, size), y[:, 0, :first])
                for y in outputs or [x]
            ]
        else:
            x = self._last_features(x)
        maps = [nhwc_to(levels[level][0], Format(output_fmt)) for level in taken]
        prefixes = [levels[level][1] for level in taken]
        pairs = return_prefix_tokens and self.has_class_token
        if output_dict:
            named: dict[str, Any] = {} if intermediates_only else {"image_features": x}
            named["image_intermediates"] = maps
            return {**named, "image_intermediates_prefix": prefixes} if pairs else named
        found = list(zip(maps, prefixes, strict=True)) if pairs else maps
        return found if intermediates_only else (x, found)

    def get_intermediate_layers(
        self,
        x: Tensor,
        n: int | list[int] = 1,
        reshape: bool = False,
        return_prefix_tokens: bool = False,
        norm: bool = False,
    ) -> Any:
        """Levels by the interface of DINO: the last `n`, or these.

        Args:
            x: Images (B, in_chans, H, W).
            n: Levels to take.
            reshape: Give maps (B, C, H', W'), not tokens (B, N, C).
            return_prefix_tokens: As in `forward_intermediates`.
            norm: Likewise.
        """
        return self.forward_intermediates(
            x,
            n,
            return_prefix_tokens=return_prefix_tokens,
            norm=norm,
            output_fmt="NCHW" if reshape else "NLC",
            intermediates_only=True,
        )

    def prune_intermediate_layers(
        self,
        indices: int | list[int] = 1,
        prune_norm: bool = False,
        prune_head: bool = True,
    ) -> list[int]:
        """Drop what lies behind the last level taken, and the classifier; the levels taken.

        The norm of a stage whose blocks are the levels is dropped where `prune_norm` says so.
        """
        taken, last = feature_take_indices(len(self.feature_info), indices)
        if self.levels_are_blocks:
            self.stages = self.stages[:1]
            stage = self.stages[0]
            assert isinstance(stage, NetworkStage)
            stage.blocks = stage.blocks[: last + 1]
            if prune_norm:
                stage.norm = nn.Identity()
        else:
            self.stages = self.stages[: last + 1]
        if prune_head:
            self.expand = nn.Identity()
            self.reset_classifier(0, "")
        return taken

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """How timm groups parameters into layers, from the image to the scores.

        The stem; each block in order, the first of a stage with the pooling before it, the last
        with the norm behind it; the head. With `coarse`: stages in the place of blocks.
        """
        blocks = [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.entry", (0,)),
            (r"^stages\.(\d+)\.norm", MATCH_PREV_GROUP),
        ]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}

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
        """Replace the classifier by a fresh one for that many classes, or by none for 0.

        Args:
            num_classes: How many.
            global_pool: What it reads from now on: `avg`, the mean of the map; `token`, the class
                token, where there is one; or each token of the map, if empty.

        Raises:
            ValueError: If there is no such pooling.
        """
        if global_pool is not None:
            self._set_global_pool(global_pool)
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        init_module(head)
        self.head = head.to(next(self.parameters()))

    def _set_global_pool(self, global_pool: str) -> None:
        legal = ("token", "avg", "") if self.has_class_token else ("avg", "")
        if global_pool not in legal:
            raise ValueError(f"global_pool={global_pool!r}; legal: {', '.join(map(repr, legal))}")
        self.global_pool = global_pool

    @property
    def _model_args(self) -> dict[str, Any]:
        """What timm creates the like again with: the architecture itself, not the file it is in."""
        return self._given_to_timm

    @_model_args.setter
    def _model_args(self, given: dict[str, Any]) -> None:
        if "architecture" in given:
            given = {**given, "architecture": self.architecture.model_dump(mode="json")}
        self._given_to_timm = given

    @torch.no_grad()
    def init_weights(self) -> None:
        """Draw the weights anew, in place, from torch's global generator."""
        for module in self.modules():
            init_module(module)


def _drop_paths(stages: Sequence[Stage], last: float) -> list[list[float]]:
    """The rate of stochastic depth of each block of each stage."""
    dropping = [0 if isinstance(s.mixer, WITHOUT_DROP_PATH) else s.depth for s in stages]
    before = list(accumulate(dropping, initial=0))
    steps = max(sum(dropping) - 1, 1)
    return [
        [last * (start + index) / steps if count else 0.0 for index in range(stage.depth)]
        for stage, count, start in zip(stages, dropping, before, strict=False)
    ]


def feature_levels(architecture: Architecture) -> list[dict[str, Any]]:
    """The levels of a network as timm's `feature_info` has them.

    Of each its channels, how often its side goes into the image's, and its module's name.
    """
    levels: list[dict[str, Any]] = []
    reduction = architecture.stem.stride
    for index, stage in enumerate(architecture.stages):
        if stage.pools_sequence:
            continue
        reduction *= 2 if index else 1
        names = [f"stages.{index}"]
        if _levels_are_blocks(architecture):
            names = [f"stages.{index}.blocks.{block}" for block in range(stage.depth)]
        facts = {"num_chs": stage.width, "reduction": reduction}
        levels += [{**facts, "module": name} for name in names]
    return levels


def _levels_are_blocks(architecture: Architecture) -> bool:
    return sum(not stage.pools_sequence for stage in architecture.stages) == 1


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
