"""The closed form against hand-made sums; tests/supernet holds it against built networks."""

import random
from typing import Any

import pytest

from search_space import (
    DESIGNS,
    PRESETS,
    Architecture,
    ConvStem,
    Cost,
    FeedForward,
    FullAttention,
    LocalGlobal,
    PatchStem,
    Pooling,
    Stage,
    cost_table,
    total_cost,
)
from search_space.cost import block_cost, body_cost, entry_cost, stem_cost
from search_space.operators import window_grid

SHUNTED_T = DESIGNS[0].architecture


@pytest.mark.parametrize("space", PRESETS.values(), ids=PRESETS.keys())
@pytest.mark.parametrize("image_size", [224, 64, (45, 61)])
def test_rows_of_the_cost_table_add_up_to_the_total(space: Any, image_size: Any) -> None:
    rng = random.Random(0)
    for architecture in [space.sample(rng) for _ in range(10)]:
        task: dict[str, Any] = {"image_size": image_size, "num_classes": 7, "in_chans": 1}
        table = cost_table(architecture, **task)
        assert sum((part.cost for part in table), Cost()) == total_cost(architecture, **task)
        assert len({part.name for part in table}) == len(table)


def test_cost_table_follows_the_forward_pass_and_names_its_maps() -> None:
    table = cost_table(SHUNTED_T)
    rows = [(part.name, part.map_size) for part in table]
    assert rows[:5] == [
        ("stem", (56, 56)),
        ("stages.0.blocks.0", (56, 56)),
        ("stages.0.norm", (56, 56)),
        ("stages.1.entry", (28, 28)),
        ("stages.1.blocks.0", (28, 28)),
    ]
    assert rows[-1] == ("head", (1, 1))
    assert sum(".blocks." in name for name, _ in rows) == 1 + 2 + 4 + 1


def test_image_sides_enter_separately() -> None:
    wide = total_cost(SHUNTED_T, image_size=(64, 96))
    assert wide == total_cost(SHUNTED_T, image_size=(96, 64))
    assert wide.macs != total_cost(SHUNTED_T, image_size=96).macs
    assert total_cost(SHUNTED_T, image_size=(64, 64)) == total_cost(SHUNTED_T, image_size=64)


def test_cost_at_an_odd_size_equals_the_sum_made_by_hand() -> None:
    architecture = Architecture(
        stem=PatchStem(patch_size=4),
        stages=(
            Stage(width=8, depth=1, feed_forward=FeedForward(ratio=2)),
            Stage(pooling="max_pool", width=16, depth=1, feed_forward=FeedForward(ratio=1)),
        ),
    )
    first, second = 11 * 15, 6 * 8  # tokens of 45 x 61 pixels at stride 4, then halved upwards
    macs = 3 * 8 * 16 * first + 2 * 8 * 16 * first  # stem; feed-forward
    macs += 9 * 8 * 16 * first + 2 * 16 * 16 * second  # convolution before the pool; feed-forward
    macs += 16 * 10
    params = (3 * 8 * 16 + 8) + 2 * 8  # stem and its norm
    params += 2 * 8 + (2 * 8 * 16 + 16 + 8) + 2 * 8  # block, and the stage's norm
    params += (9 * 8 * 16 + 16) + 2 * 16 + (2 * 16 * 16 + 32) + 2 * 16
    params += 16 * 10 + 10
    activations = 8 * first + (16 + 8) * first  # stem; feed-forward
    activations += 16 * first + (16 + 16) * second + 10
    peak = 3 * 45 * 61 + 8 * first  # the stem reads the whole image
    assert peak > (8 + 16) * first
    cost = total_cost(architecture, image_size=(45, 61), num_classes=10)
    assert cost == Cost(params=params, macs=macs, activations=activations, peak=peak)


def test_costs_add_up_but_working_sets_follow_one_another() -> None:
    first, second = Cost(1, 20, 300, 4000), Cost(5, 60, 700, 3000)
    assert first + second == Cost(6, 80, 1000, 4000) == second + first
    assert first * 3 == first + first + first


def test_memory_holds_the_weights_and_the_largest_working_set() -> None:
    cost = Cost(params=1000, macs=7, activations=9, peak=200)
    assert cost.memory_bytes() == 4 * 1200
    assert cost.memory_bytes(bytes_per_element=2) == 2 * 1200


def test_the_largest_working_set_is_that_of_the_largest_part() -> None:
    table = cost_table(SHUNTED_T)
    largest = max(table, key=lambda part: part.cost.peak)
    assert largest.name == "stages.0.blocks.0"
    assert largest.cost.peak == 2 * 8 * 64 * 56 * 56  # the depthwise conv of the feed-forward
    assert total_cost(SHUNTED_T).peak == largest.cost.peak


def test_an_odd_map_is_read_with_the_padding_that_is_written_out() -> None:
    def pooling(kind: Pooling) -> Cost:
        stage = Stage(pooling=kind, width=16, depth=1)
        return entry_cost(stage, 8, (11, 15), (6, 8))

    assert pooling("conv").peak == 8 * 11 * 15 + 16 * 6 * 8
    assert pooling("patch").peak == 8 * 12 * 16 + 16 * 6 * 8


def test_no_classes_cost_no_classifier() -> None:
    with_classes, without = (total_cost(SHUNTED_T, num_classes=n) for n in (1000, 0))
    assert with_classes.params - without.params == 512 * 1000 + 1000
    assert with_classes.macs - without.macs == 512 * 1000


@pytest.mark.parametrize("extra_convs", [0, 1, 2])
def test_shunted_stem_has_the_published_parameters(extra_convs: int) -> None:
    stem = ConvStem(width=64, extra_convs=extra_convs)
    assert stem_cost(stem, 64, (224, 224), 3).params == 26_112 + 36_992 * extra_convs


@pytest.mark.parametrize(
    ("index", "attention"), [*enumerate([345_344, 395_776, 594_944, 1_055_744])]
)
def test_shunted_blocks_have_the_published_parameters(index: int, attention: int) -> None:
    width, rate, ratio = (64, 128, 256, 512)[index], (8, 4, 2, 0)[index], (8, 8, 4, 4)[index]
    if rate:
        assert attention == width**2 * (4 + 1.25 * rate**2) + 20 * width
    else:
        assert attention == 4 * width**2 + 14 * width
    feed_forward = 2 * ratio * width**2 + (11 * ratio + 1) * width
    norms = 2 * 2 * width
    block = block_cost(SHUNTED_T.stages[index], 0, (7, 7))
    assert block.params == attention + feed_forward + norms


def test_a_layer_that_borrows_its_map_saves_what_deit_ti_saves() -> None:
    mixer = LocalGlobal(heads=3, aggregation=FullAttention(local_term=False))
    stage = Stage(width=192, depth=2, sharing=2, mixer=mixer)
    owner, borrower = (block_cost(stage, block, (197, 1)) for block in (0, 1))
    assert owner.params - borrower.params == 2 * 192**2 + 2 * 192 == 74_112
    assert owner.macs - borrower.macs == 2 * 197 * 192**2 + 197**2 * 192
    assert owner.activations - borrower.activations == 2 * 197 * 192 + 3 * 197**2
    assert round((owner.macs - borrower.macs) / 1e6, 3) == 21.976


def test_a_map_that_nobody_borrows_is_no_activation() -> None:
    mixer = LocalGlobal(heads=3, aggregation=FullAttention(local_term=False))
    stage = Stage(width=192, depth=3, sharing=2, mixer=mixer)
    lender, _, owner = (block_cost(stage, block, (197, 1)) for block in range(3))
    assert lender.activations - owner.activations == 3 * 197**2
    assert (lender.params, lender.macs) == (owner.params, owner.macs)
    assert body_cost(stage, (197, 1)) == sum(
        (block_cost(stage, block, (197, 1)) for block in range(3)), Cost(params=2 * 192)
    )


def test_copies_of_an_architecture_cost_the_same_and_stay_equal_to_it() -> None:
    rng = random.Random(0)
    for architecture in [PRESETS["base"].sample(rng) for _ in range(20)]:
        cost = total_cost(architecture)
        copy = Architecture.from_json(architecture.to_json())
        assert copy == architecture and hash(copy) == hash(architecture)
        assert total_cost(copy) == cost
        assert copy.model_dump() == architecture.model_dump()


def test_stages_that_differ_in_one_choice_are_costed_apart() -> None:
    stage = SHUNTED_T.stages[1]
    assert stage.feed_forward is not None
    deeper = stage.model_copy(update={"depth": stage.depth + 1})
    wider = stage.model_copy(
        update={"feed_forward": stage.feed_forward.model_copy(update={"ratio": 2.0})}
    )
    costs = {body_cost(one, (28, 28)) for one in (stage, deeper, wider)}
    assert len(costs) == 3
    assert stage != deeper != wider != stage


@pytest.mark.parametrize("window", [1, 3, 7])
def test_windows_cover_a_side_and_pad_less_than_one_token_each(window: int) -> None:
    for side in range(1, 60):
        count, tokens = window_grid(side, window)
        assert tokens <= window
        assert 0 <= count * tokens - side < count
        assert count == 1 or (count - 1) * window < side
