"""The published designs, as architectures.

Each stands beside the figures that its authors print. The remaining designs of the field join here
as their blocks do.
"""

from dataclasses import dataclass

from search_space.architecture import (
    Architecture,
    ConvStem,
    FeedForward,
    FullAttention,
    LocalGlobal,
    Rates,
    Stage,
)


@dataclass(frozen=True, kw_only=True)
class PublishedDesign:
    """A design of the literature and the figures that its authors print.

    Attributes:
        name: The paper's name.
        timm_name: The name under which timm creates it.
        architecture: Our spec of it.
        paper: Where it comes from.
        paper_params: Parameters as printed, in millions, at 1000 classes.
        paper_gmacs: "GFLOPs" as printed, in 10⁹ multiply-adds, at 224 px.
        paper_top1: ImageNet top-1 accuracy as printed, in per cent.
    """

    name: str
    timm_name: str
    architecture: Architecture
    paper: str
    paper_params: float
    paper_gmacs: float
    paper_top1: float


def _shunted(depths: tuple[int, int, int, int], extra_convs: int) -> Architecture:
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


_SHUNTED_PAPER = "Shunted Transformer, CVPR 2022, arXiv 2111.15193"

DESIGNS = (
    PublishedDesign(
        name="Shunted-T",
        timm_name="shunted_t",
        architecture=_shunted((1, 2, 4, 1), extra_convs=0),
        paper=_SHUNTED_PAPER,
        paper_params=11.5,
        paper_gmacs=2.1,
        paper_top1=79.8,
    ),
    PublishedDesign(
        name="Shunted-S",
        timm_name="shunted_s",
        architecture=_shunted((2, 4, 12, 1), extra_convs=1),
        paper=_SHUNTED_PAPER,
        paper_params=22.4,
        paper_gmacs=4.9,
        paper_top1=82.9,
    ),
    PublishedDesign(
        name="Shunted-B",
        timm_name="shunted_b",
        architecture=_shunted((3, 4, 24, 2), extra_convs=2),
        paper=_SHUNTED_PAPER,
        paper_params=39.6,
        paper_gmacs=8.1,
        paper_top1=84.0,
    ),
)
