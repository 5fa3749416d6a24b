"""The published designs, as architectures.

Each stands beside the figures that its authors print. Where a paper's tables could not be had, the
design is our own spec of its idea, and marked so.
"""

from dataclasses import dataclass

from search_space.architecture import Architecture, Stage
from search_space.parts import (
    AdaptiveWindow,
    Aggregation,
    ClassTokenHead,
    ConvStem,
    FeedForward,
    FullAttention,
    HalfStem,
    InvertedResidual,
    Ladder,
    LocalGlobal,
    MeanHead,
    NoMixer,
    PatchStem,
    Pooling,
    Rates,
    SpatialReduction,
    SplitLocalGlobal,
)

Widths = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PublishedDesign:
    """A design of the literature and the figures that its authors print.

    Attributes:
        name: The paper's name.
        timm_name: The name under which timm creates it.
        architecture: Our spec of it.
        paper: Where it comes from.
        exact: Whether parameters and multiply-adds equal those of the authors' code; otherwise the
            stage tables are our own.
        paper_params: Parameters as printed, in millions, at 1000 classes; None if not known.
        paper_gmacs: "GFLOPs" as printed, in 10⁹ multiply-adds, at 224 px.
        paper_top1: ImageNet top-1 accuracy as printed, in per cent.
    """

    name: str
    timm_name: str
    architecture: Architecture
    paper: str
    exact: bool = True
    paper_params: float | None = None
    paper_gmacs: float | None = None
    paper_top1: float | None = None


PLAIN = FullAttention(local_term=False)


# --- Shunted Transformer -----------------------------------------------------------------------


def _shunted(depths: Widths, extra_convs: int) -> Architecture:
    widths, ratios = (64, 128, 256, 512), (8, 8, 4, 4)
    rates = ((8, 4), (4, 2), (2, 1))
    return Architecture(
        stem=ConvStem(width=64, extra_convs=extra_convs),
        stages=tuple(
            Stage(
                pooling="conv" if index else None,
                width=width,
                depth=depth,
                mixer=LocalGlobal(
                    heads=width // 32,
                    aggregation=Rates(rates=rates[index]) if index < 3 else FullAttention(),
                ),
                feed_forward=FeedForward(kind="detail_specific", ratio=ratio),
            )
            for index, (width, depth, ratio) in enumerate(zip(widths, depths, ratios, strict=True))
        ),
    )


# --- LIT ---------------------------------------------------------------------------------------


def _lit_tiny() -> Architecture:
    """Absolute positions in every stage, a class token in the last."""
    rows = ((64, 3, 8, 56), (128, 4, 8, 28), (320, 6, 4, 14), (512, 3, 4, 7))
    return Architecture(
        stem=PatchStem(),
        stages=tuple(
            Stage(
                pooling="deformable" if index else None,
                width=width,
                depth=depth,
                mixer=(
                    NoMixer() if index < 2 else LocalGlobal(heads=width // 64, aggregation=PLAIN)
                ),
                feed_forward=FeedForward(ratio=ratio),
                position=side,
                class_token=index == 3,
                norm=index == 3,
            )
            for index, (width, depth, ratio, side) in enumerate(rows)
        ),
        head=ClassTokenHead(),
    )


def _lit(width: int, depths: Widths, heads: int) -> Architecture:
    """Relative positions over the whole map in the stages with attention."""
    stages = []
    for index, depth in enumerate(depths):
        relative = FullAttention(local_term=False, relative=14 if index == 2 else 7)
        attention = LocalGlobal(heads=heads * 2**index, aggregation=relative)
        stages.append(
            Stage(
                pooling="deformable" if index else None,
                width=width * 2**index,
                depth=depth,
                mixer=attention if index > 1 else NoMixer(),
                feed_forward=FeedForward(ratio=4),
                norm=index == 3,
            )
        )
    return Architecture(stem=PatchStem(), stages=tuple(stages), norm_eps=1e-5)


# --- PSLT --------------------------------------------------------------------------------------


def _pslt(width: int) -> Architecture:
    """MV2-SE in the first two stages, ladders in the last two."""
    convolutional = [
        Stage(
            pooling="mv2_se",
            width=width * factor,
            depth=2,
            mixer=InvertedResidual(),
            feed_forward=None,
            norm=False,
        )
        for factor in (2, 4)
    ]
    ladders = [
        Stage(
            pooling=pooling,
            width=width * factor,
            depth=depth,
            mixer=Ladder(heads=heads),
            feed_forward=None,
            norm=last,
        )
        for pooling, factor, depth, heads, last in _PSLT_LADDERS
    ]
    return Architecture(
        stem=HalfStem(width=width), stages=(*convolutional, *ladders), norm_eps=1e-5
    )


_PSLT_LADDERS: tuple[tuple[Pooling, int, int, int, bool], ...] = (
    ("mv2_se", 8, 10, 4, False),
    ("merging", 16, 3, 8, True),
)


# --- DeiT and PVT, the baselines ---------------------------------------------------------------


def _deit(width: int) -> Architecture:
    stage = Stage(
        width=width,
        depth=12,
        mixer=LocalGlobal(heads=width // 64, aggregation=PLAIN),
        position=14,
        class_token=True,
    )
    stem = PatchStem(patch_size=16, norm=False)
    return Architecture(stem=stem, stages=(stage,), head=ClassTokenHead())


def _pvt_tiny() -> Architecture:
    rows = ((64, 8, 8, 56), (128, 8, 4, 28), (320, 4, 2, 14), (512, 4, 1, 7))
    stages = []
    for index, (width, ratio, rate, side) in enumerate(rows):
        reduction: Aggregation = SpatialReduction(rate=rate) if rate > 1 else PLAIN
        stages.append(
            Stage(
                pooling="patch" if index else None,
                width=width,
                depth=2,
                mixer=LocalGlobal(heads=width // 64, aggregation=reduction),
                feed_forward=FeedForward(ratio=ratio),
                position=side,
                class_token=index == 3,
                norm=index == 3,
            )
        )
    return Architecture(stem=PatchStem(), stages=tuple(stages), head=ClassTokenHead())


# --- PSViT: our spec ---------------------------------------------------------------------------


def _psvit(widths: Widths, depths: Widths, *, sequence: bool) -> Architecture:
    """DeiT's layers in three segments, pooled between them, maps shared in pairs.

    The 1D family is a sequence behind a class token, the 2D family a map.
    """
    pooling: Pooling = "max_pool_1d" if sequence else "max_pool"
    stages = tuple(
        Stage(
            pooling=pooling if index else None,
            width=width,
            depth=depth,
            sharing=2,
            mixer=LocalGlobal(heads=width // 64, aggregation=PLAIN),
            position=None if index else 14,
            class_token=sequence,
            norm=index == len(widths) - 1,
        )
        for index, (width, depth) in enumerate(zip(widths, depths, strict=True))
    )
    stem = PatchStem(patch_size=16, norm=False)
    return Architecture(stem=stem, stages=stages, head=ClassTokenHead() if sequence else MeanHead())


# --- PLG-ViT and its light-weight variants: our spec -------------------------------------------


def _plg_tiny() -> Architecture:
    """Half of the channels local, half on a window sampled by maximum and mean; CCF."""
    return Architecture(
        stem=HalfStem(width=64, convs=1),
        stages=tuple(
            Stage(
                pooling="fused_mbconv",
                width=width,
                depth=depth,
                mixer=SplitLocalGlobal(
                    heads=width // 32,
                    local_heads=width // 64,
                    aggregation=AdaptiveWindow(sampling="max_avg"),
                ),
                feed_forward=FeedForward(kind="ccf", ratio=4),
                norm=index == 3,
            )
            for index, (width, depth) in enumerate(
                zip((64, 128, 256, 512), (3, 4, 16, 5), strict=True)
            )
        ),
    )


def _lw_plg(widths: Widths, depths: Widths, local: Widths, split: Widths) -> Architecture:
    """A ratio of its own in each stage, more global heads than local ones, CCF+."""
    return Architecture(
        stem=HalfStem(width=16, convs=1),
        stages=tuple(
            Stage(
                pooling="light",
                width=width,
                depth=depth,
                mixer=SplitLocalGlobal(
                    heads=width // 16,
                    local_heads=local_heads,
                    aggregation=AdaptiveWindow(),
                    global_split=global_split,
                ),
                feed_forward=FeedForward(kind="ccf_plus", ratio=3),
                norm=index == 3,
            )
            for index, (width, depth, local_heads, global_split) in enumerate(
                zip(widths, depths, local, split, strict=True)
            )
        ),
        head=MeanHead(expansion=640),
    )


_SHUNTED = "Shunted Transformer, CVPR 2022, arXiv 2111.15193"
_LIT = "Less is More: Pay Less Attention in Vision Transformers, AAAI 2022, arXiv 2105.14217"
_PSLT = "PSLT, TPAMI 2023, arXiv 2304.03481"
_DEIT = "DeiT, ICML 2021, arXiv 2012.12877"
_PVT = "Pyramid Vision Transformer, ICCV 2021, arXiv 2102.12122"
_PSVIT = "PSViT, 2021, arXiv 2108.03428"
_PLG = "PLG-ViT, 2023, arXiv 2307.09120"


def _design(
    name: str,
    timm_name: str,
    architecture: Architecture,
    paper: str,
    *figures: float | None,
    exact: bool = True,
) -> PublishedDesign:
    params, gmacs, top1 = (*figures, None, None, None)[:3]
    return PublishedDesign(
        name=name,
        timm_name=timm_name,
        architecture=architecture,
        paper=paper,
        exact=exact,
        paper_params=params,
        paper_gmacs=gmacs,
        paper_top1=top1,
    )


DESIGNS = (
    _design("Shunted-T", "shunted_t", _shunted((1, 2, 4, 1), 0), _SHUNTED, 11.5, 2.1, 79.8),
    _design("Shunted-S", "shunted_s", _shunted((2, 4, 12, 1), 1), _SHUNTED, 22.4, 4.9, 82.9),
    _design("Shunted-B", "shunted_b", _shunted((3, 4, 24, 2), 2), _SHUNTED, 39.6, 8.1, 84.0),
    _design("LIT-Ti", "lit_ti", _lit_tiny(), _LIT, 19, 3.6, 81.1),
    _design("LIT-S", "lit_s", _lit(96, (2, 2, 6, 2), 3), _LIT, 27, 4.1, 81.5),
    _design("LIT-M", "lit_m", _lit(96, (2, 2, 18, 2), 3), _LIT, 48, 8.6, 83.0),
    _design("LIT-B", "lit_b", _lit(128, (2, 2, 18, 2), 4), _LIT, 86, 15.0, 83.4),
    _design("PSLT-Tiny", "pslt_tiny", _pslt(24), _PSLT),
    _design("PSLT", "pslt", _pslt(36), _PSLT, 9.2, 1.9, 79.9),
    _design("PSLT-Large", "pslt_large", _pslt(48), _PSLT),
    _design("DeiT-Ti", "deit_ti", _deit(192), _DEIT, 5, 1.3, 72.2),
    _design("DeiT-S", "deit_s", _deit(384), _DEIT, 22, 4.6, 79.9),
    _design("PVT-Tiny", "pvt_tiny", _pvt_tiny(), _PVT, 13.2, 1.9, 75.1),
    _design(
        "PSViT-1D-Ti",
        "psvit_1d_ti",
        _psvit((192, 192, 256), (4, 6, 2), sequence=True),
        _PSVIT,
        exact=False,
    ),
    _design(
        "PSViT-1D-S",
        "psvit_1d_s",
        _psvit((384, 384, 512), (4, 6, 2), sequence=True),
        _PSVIT,
        exact=False,
    ),
    _design(
        "PSViT-2D-Ti",
        "psvit_2d_ti",
        _psvit((192, 192, 256), (4, 6, 2), sequence=False),
        _PSVIT,
        exact=False,
    ),
    _design(
        "PSViT-2D-S",
        "psvit_2d_s",
        _psvit((384, 384, 512), (4, 6, 2), sequence=False),
        _PSVIT,
        exact=False,
    ),
    _design("PLG-ViT-T", "plg_vit_t", _plg_tiny(), _PLG, 27, None, 83.4, exact=False),
    _design(
        "LW-PLG-ViT-A",
        "lw_plg_vit_a",
        _lw_plg((32, 64, 144, 224), (2, 2, 6, 2), (1, 1, 2, 4), (1, 1, 1, 2)),
        _PLG,
        5,
        exact=False,
    ),
    _design(
        "LW-PLG-ViT-R",
        "lw_plg_vit_r",
        _lw_plg((48, 96, 160, 240), (1, 2, 4, 2), (1, 2, 3, 4), (1, 1, 1, 2)),
        _PLG,
        5,
        exact=False,
    ),
)
