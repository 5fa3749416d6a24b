import random

import pytest

from search_space import (
    DESIGNS,
    PRESETS,
    AdaptiveWindow,
    LocalGlobal,
    Rates,
    SearchSpace,
    map_sizes,
    total_cost,
)

presets = pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())


def gmacs(space: SearchSpace, percentile: int) -> float:
    rng = random.Random(0)
    costs = sorted(total_cost(space.sample(rng)).macs for _ in range(400))
    return costs[4 * percentile] / 1e9


@presets
def test_preset_stands_under_its_name(space: SearchSpace) -> None:
    assert PRESETS[space.name] is space


@presets
def test_every_sample_costs_something_at_every_size(space: SearchSpace) -> None:
    rng = random.Random(1)
    for _ in range(200):
        architecture = space.sample(rng)
        assert architecture in space
        for image_size in (32, 33, 64, 224, (45, 61)):
            assert min(min(size) for size in map_sizes(image_size, architecture)) >= 1
            assert total_cost(architecture, image_size=image_size).macs > 0


@pytest.mark.slow
@presets
@pytest.mark.sampled(2)
def test_every_choice_of_every_gene_is_reached_by_some_architecture(space: SearchSpace) -> None:
    rng = random.Random(2)
    seen: dict[str, set[object]] = {gene: set() for gene in space.genes}
    for _ in range(2000):
        for gene, value in space.genotype(space.sample(rng)).items():
            seen[gene].add(value)
    assert seen == {gene: set(choices) for gene, choices in space.genes.items()}


def test_nano_is_small_enough_to_enumerate() -> None:
    assert PRESETS["nano"].count() <= 500


def test_most_of_tiny_lies_between_50_and_500_million_macs() -> None:
    assert gmacs(PRESETS["tiny"], 5) > 0.05
    assert gmacs(PRESETS["tiny"], 95) < 0.5


def test_most_of_base_lies_between_half_and_five_billion_macs() -> None:
    assert gmacs(PRESETS["base"], 5) > 0.5
    assert gmacs(PRESETS["base"], 95) < 5


def test_base_contains_shunted_t_and_psvit_its_own_tiny_ones() -> None:
    contained = {
        name: {design.name for design in DESIGNS if design.architecture in space}
        for name, space in PRESETS.items()
    }
    assert contained == {
        "nano": set(),
        "tiny": set(),
        "base": {"Shunted-T"},
        "psvit": {"PSViT-1D-Ti", "PSViT-2D-Ti"},
    }


@pytest.mark.parametrize("name", ["tiny", "base"])
def test_every_idea_is_a_choice(name: str) -> None:
    rng = random.Random(4)
    stages = [stage for _ in range(300) for stage in PRESETS[name].sample(rng).stages]
    assert {stage.pooling for stage in stages} == {None, "conv", "max_pool", "light", "deformable"}
    mixers = {"none", "local_global", "split_local_global", "depthwise", "ladder"}
    assert {stage.mixer.kind for stage in stages} == mixers
    kinds = {stage.feed_forward.kind for stage in stages if stage.feed_forward}
    assert kinds == {"plain", "detail_specific", "ccf_plus"}
    assert all(stage.conv_norm == "layer" for stage in stages if stage.mixer.kind == "ladder")


def test_base_spans_shunted_local_and_plg_attention_and_none() -> None:
    rng, found = random.Random(3), set()
    for _ in range(300):
        for stage in PRESETS["base"].sample(rng).stages:
            mixer = stage.mixer
            if not isinstance(mixer, LocalGlobal):
                found.add(mixer.kind)
            elif not mixer.global_heads:
                found.add("windows only")
            elif not mixer.local_heads and isinstance(mixer.aggregation, Rates):
                found.add("shunted")
            elif mixer.local_heads and isinstance(mixer.aggregation, AdaptiveWindow):
                found.add("parallel local and global")
    assert found == {
        *("none", "ladder", "depthwise", "windows only", "shunted"),
        *("parallel local and global", "split_local_global"),
    }
