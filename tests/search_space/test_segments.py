"""The segments of a network, and what a space can have of them."""

import json
import random
from functools import cache
from pathlib import Path

import pytest

from search_space import (
    DESIGNS,
    PRESETS,
    Architecture,
    DepthwiseConvolution,
    PatchStem,
    SearchSpace,
    Stage,
)
from search_space.cost import cost_table
from search_space.segments import Segment, fastest, part_names, segments, space_segments

segments_of = cache(space_segments)
"""Those of a space, listed once for several tests."""

SPACES = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())
SMALL = pytest.mark.parametrize("space", [PRESETS["nano"], PRESETS["psvit"]], ids=["nano", "psvit"])


@pytest.mark.slow
@SPACES
def test_a_space_has_every_segment_of_its_members_and_no_other(space: SearchSpace) -> None:
    everything = segments_of(space)
    rng = random.Random(0)
    found: set[Segment] = set()
    for _ in range(300):
        found |= set(segments(space.sample(rng)))
    assert found <= everything
    if space.count() < 1000:
        assert {s for a in space.enumerate() for s in segments(a)} == everything


def test_a_label_tells_what_the_latency_depends_on() -> None:
    base = PRESETS["base"]
    genes = dict(base.genotype(base.scaled(0.5)))
    shared = base.decode({**genes, "stage3.sharing": 3})
    labels = [
        s.label for s in segments(shared) if s.operator.startswith("mixer") and s.size == (14, 14)
    ]
    assert [label.split()[-2] for label in labels] == ["lend", "borrow", "borrow"] * 3
    narrow = base.decode({**genes, "stage3.width": 128})
    assert not set(labels) & {s.label for s in segments(narrow)}
    assert {s.label for s in segments(shared, image_size=64)}.isdisjoint(labels)


def test_the_canonical_form_decides() -> None:
    base = PRESETS["base"]
    genes = dict(base.genotype(base.scaled(0.0)))
    genes |= {"stage1.mixer": "none", "stage1.sharing": 1}
    assert segments(base.decode(genes)) == segments(base.decode({**genes, "stage1.sharing": 2}))


@pytest.mark.parametrize("design", DESIGNS, ids=lambda design: design.name)
def test_segments_belong_to_the_rows_of_the_cost_table(design: object) -> None:
    architecture = design.architecture  # type: ignore[attr-defined]
    names = part_names(architecture)
    assert len(names) == len(segments(architecture))
    rows = [part.name for part in cost_table(architecture)]
    assert list(dict.fromkeys(names)) == rows


@SMALL
def test_the_fastest_has_the_smallest_sum_of_all(space: SearchSpace) -> None:
    def seconds(label: str) -> float:
        return random.Random(label).uniform(0.1, 1.0)

    def total(found: object) -> float:
        return sum(seconds(segment.label) for segment in found)  # type: ignore[attr-defined]

    quickest = fastest(space, total, image_size=64)
    rng = random.Random(1)
    members = space.enumerate() if space.count() < 1000 else (space.sample(rng) for _ in range(500))
    least = min(total(segments(a, image_size=64)) for a in members)
    assert total(segments(quickest, image_size=64)) <= least + 1e-9


@pytest.mark.slow
def test_the_published_table_lacks_no_segment_of_base_but_of_mixers_that_joined_it_later() -> None:
    table = Path(__file__).parents[2] / "results/reference/latency/latency-base-cpu.json"
    labels = set(json.loads(table.read_text())["segments"])
    found = {segment.label for segment in segments_of(PRESETS["base"])}
    assert labels <= found
    assert all("depthwise" in label or "channels split" in label for label in found - labels)


def test_a_depthwise_mixer_is_timed_by_its_kernel_and_norm_whatever_the_sharing() -> None:
    stage = Stage(width=64, depth=2, sharing=2, mixer=DepthwiseConvolution(), conv_norm="layer")
    found = segments(Architecture(stem=PatchStem(), stages=(stage,)))[1:4]
    mixer = Segment("mixer depthwise", "mixer depthwise 64 kernel 7 layer norm @56x56", (56, 56))
    assert [found[0], found[2]] == [mixer, mixer]
    assert found[1].operator == "feed-forward plain"
