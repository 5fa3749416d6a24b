"""Pictures of architectures, and what their words mean."""

import itertools
import random
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import pytest

from nas.report.description import PartLatency
from nas.report.legend import legend
from nas.report.picture import LETTER, TEXT_SIZE, WIDTH, architecture_svg, folds
from search_space import (
    DESIGNS,
    PRESETS,
    Architecture,
    FullAttention,
    LocalGlobal,
    PatchStem,
    Stage,
    cost_table,
)

SVG = "{http://www.w3.org/2000/svg}"
BEST = PRESETS["base"].scaled(0.5)


def members() -> list[tuple[str, Architecture]]:
    """Every published design, and some members of every named space."""
    rng = random.Random(0)
    drawn = [(f"{s.name}-{n}", s.sample(rng)) for s in PRESETS.values() for n in range(8)]
    ends = [(f"{s.name}-{x:g}", s.scaled(x)) for s in PRESETS.values() for x in (0.0, 1.0)]
    return [*((design.name, design.architecture) for design in DESIGNS), *drawn, *ends]


ALL = pytest.mark.parametrize(
    "architecture", [a for _, a in members()], ids=[n for n, _ in members()]
)


def picture(architecture: Architecture, **changes: object) -> ET.Element:
    settings: dict[str, object] = {"name": "it", "image_size": 224, "num_classes": 10}
    return ET.fromstring(architecture_svg(architecture, **settings | changes))


def attention(depth: int, sharing: int) -> Stage:
    mixer = LocalGlobal(heads=2, aggregation=FullAttention(local_term=False))
    return Stage(width=64, depth=depth, sharing=sharing, mixer=mixer)


def latency(architecture: Architecture, device: str) -> PartLatency:
    parts = [part.name for part in cost_table(architecture)]
    return PartLatency(device=device, milliseconds=dict.fromkeys(parts, 2.0), how="made up")


@dataclass(frozen=True)
class Box:
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Box") -> bool:
        beside = self.right <= other.left or other.right <= self.left
        return not (beside or self.bottom <= other.top or other.bottom <= self.top)


def box(text: ET.Element) -> Box:
    """Where a text stands, its letters as wide as a wide font has them."""
    size = float(text.get("font-size", TEXT_SIZE))
    assert text.text is not None
    width = len(text.text) * LETTER * size / TEXT_SIZE
    before = {"start": 0.0, "middle": 0.5, "end": 1.0}[text.get("text-anchor", "start")]
    x, y = float(text.get("x", 0)), float(text.get("y", 0))
    return Box(x - before * width, y - 0.7 * size, x + (1 - before) * width, y + 0.2 * size)


def titles(svg: ET.Element) -> list[str]:
    """What hovering tells."""
    return [
        title.text or "" for group in svg.iter(f"{SVG}g") for title in group.iter(f"{SVG}title")
    ]


@ALL
def test_every_design_and_member_draws_inside_the_picture_with_no_text_over_another(
    architecture: Architecture,
) -> None:
    svg = picture(architecture, latency=[latency(architecture, "cpu")])
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    boxes = [box(text) for text in svg.iter(f"{SVG}text")]
    for rect in svg.iter(f"{SVG}rect"):
        x, y, w, h = (float(rect.attrib[name]) for name in ("x", "y", "width", "height"))
        assert x >= 0 and y >= 0 and x + w <= width and y + h <= height
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)
    assert all(b.left >= 0 and b.right <= WIDTH and b.bottom <= height for b in boxes)


@ALL
def test_channels_of_the_drawn_groups_are_those_of_the_blocks(architecture: Architecture) -> None:
    for stage in architecture.canonical().stages:
        groups = stage.mixer.groups(stage.width)
        assert sum(group.channels for group in groups) == (stage.width if stage.mixer.mixes else 0)


@pytest.mark.parametrize("depth", range(1, 8))
@pytest.mark.parametrize("sharing", range(1, 5))
def test_folded_blocks_are_all_blocks_and_those_of_a_row_are_alike(
    depth: int, sharing: int
) -> None:
    if sharing > depth:
        return
    stage, unfolded = attention(depth, sharing), []
    for fold in folds(stage):
        roles = [stage.map_role(first) for first, count in fold.rows for _ in range(count)]
        unfolded += roles * fold.times
    assert unfolded == [stage.map_role(block) for block in range(depth)]
    assert sum(len(fold.rows) for fold in folds(stage)) <= 4


def test_twenty_four_blocks_are_drawn_once_with_how_often() -> None:
    shunted = next(design.architecture for design in DESIGNS if design.name == "Shunted-B")
    texts = [text.text for text in picture(shunted).iter(f"{SVG}text")]
    assert texts.count("×24") == 1
    assert texts.count("rates-2-1") == 1


def test_a_borrowed_attention_map_is_drawn_so_below_the_block_that_lends_it() -> None:
    architecture = Architecture(stem=PatchStem(), stages=(attention(4, 2),))
    svg = picture(architecture)
    texts = [text.text for text in svg.iter(f"{SVG}text")]
    assert {"borrows that map", "×2"} <= set(texts)
    assert texts.index("borrows that map") > texts.index("shared by 2")
    assert sum("attention map borrowed" in title for title in titles(svg)) == 1
    alone = picture(Architecture(stem=PatchStem(), stages=(attention(4, 1),)))
    assert not any("borrowed" in title for title in titles(alone))


def test_bars_show_what_each_part_takes_of_the_multiply_adds_and_of_the_time() -> None:
    svg = picture(BEST, latency=[latency(BEST, "cpu"), latency(BEST, "phone")])
    parts = cost_table(BEST, num_classes=10)
    told = titles(svg)
    for what in ("multiply-adds", "time on cpu", "time on phone"):
        assert len([title for title in told if title.endswith(f"% of {what}")]) == len(parts)
    macs = sum(part.cost.macs for part in parts)
    assert f"stem: {parts[0].cost.macs / macs:.1%} of multiply-adds" in told
    assert f"stem: {1 / len(parts):.1%} of time on phone" in told
    assert not any("time" in title for title in titles(picture(BEST)))


def test_a_map_without_tokens_and_times_of_nothing_are_drawn_all_the_same() -> None:
    architecture = Architecture(stem=PatchStem(patch_size=64), stages=(attention(1, 1),))
    nothing = dict.fromkeys((part.name for part in cost_table(architecture)), 0.0)
    times = PartLatency(device="cpu", milliseconds=nothing, how="made up")
    svg = picture(architecture, image_size=32, num_classes=0, latency=[times])
    assert "stem: 0.0% of time on cpu" in titles(svg)


def test_a_reader_who_does_not_see_it_is_told_every_stage() -> None:
    svg = picture(BEST, name="the <best> & only")
    title, description = svg.find(f"{SVG}title"), svg.find(f"{SVG}desc")
    assert title is not None and title.text == "the <best> & only"
    assert description is not None and description.text is not None
    assert svg.get("role") == "img"
    for number, stage in enumerate(BEST.canonical().stages, start=1):
        assert f"stage {number}: " in description.text
        assert str(stage) in description.text


def test_a_file_of_its_own_has_a_background_and_a_part_of_a_page_has_none() -> None:
    alone, part = picture(BEST, standalone=True), picture(BEST)
    assert [rect.get("class") for rect in alone.iter(f"{SVG}rect")].count("paper") == 1
    assert alone.find(f"{SVG}style") is not None
    assert part.find(f"{SVG}style") is None
    assert not [rect for rect in part.iter(f"{SVG}rect") if rect.get("class")]


def test_the_legend_has_every_word_of_the_summaries_with_a_sentence() -> None:
    architectures = [architecture for _, architecture in members()]
    entries = legend(architectures)
    known = {text for texts, _ in entries for text in texts}
    for stage in (stage for architecture in architectures for stage in architecture.stages):
        left = f" {stage} "
        for text in sorted(known, key=len, reverse=True):
            left = left.replace(f" {text} ", "  ")
        assert not left.strip()
    assert all(len(meaning) > 10 for _, meaning in entries)


def test_words_that_differ_in_their_numbers_stand_together_in_the_legend() -> None:
    stages = (
        attention(2, 2).model_copy(update={"norm": False}),
        Stage(pooling="light", width=128, depth=1, feed_forward={"kind": "plain", "ratio": 2}),
    )
    entries = dict(
        (meaning, texts)
        for texts, meaning in legend([Architecture(stem=PatchStem(), stages=stages)])
    )
    assert ["64x2", "128x1"] in entries.values()
    assert ["ff 4", "ff 2"] in entries.values()
    assert "LW-PLG-ViT" in next(m for m, texts in entries.items() if texts == ["light"])
