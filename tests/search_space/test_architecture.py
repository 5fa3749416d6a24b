import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_space import (
    DESIGNS,
    AdaptiveWindow,
    Architecture,
    ArchitectureError,
    ConvStem,
    FeedForward,
    FullAttention,
    Ladder,
    LocalGlobal,
    NoMixer,
    PatchStem,
    Rates,
    Stage,
    map_sizes,
)

WHOLE: dict[str, Any] = {"feed_forward": None, "sharing": 1}
CLASS_TOKEN: dict[str, Any] = {
    "class_token": True,
    "mixer": {"kind": "none"},
    "feed_forward": {"kind": "plain", "ratio": 4},
}
REPOSITORY = Path(__file__).parents[2]
SHUNTED_T = DESIGNS[0].architecture

VARIED = Architecture(
    stem=PatchStem(patch_size=2),
    stages=(
        Stage(width=32, depth=1),
        Stage(
            pooling="conv",
            width=48,
            depth=4,
            sharing=2,
            mixer=LocalGlobal(heads=6, local_heads=2, window=5, aggregation=Rates(rates=(4, 2, 1))),
            feed_forward=FeedForward(kind="detail_specific", ratio=1.5),
        ),
        Stage(
            pooling="max_pool",
            width=64,
            depth=2,
            mixer=LocalGlobal(heads=4, aggregation=AdaptiveWindow(window=3, sampling="max_avg")),
        ),
    ),
)


def one_stage(**fields: Any) -> Architecture:
    return Architecture(stem=PatchStem(), stages=(Stage(**{"width": 32, "depth": 3, **fields}),))


def attention(**fields: Any) -> LocalGlobal:
    return LocalGlobal(**{"heads": 4, "aggregation": FullAttention(), **fields})


def test_importing_the_search_space_does_not_import_torch() -> None:
    program = "import sys, search_space; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


@pytest.mark.parametrize(
    "architecture", [VARIED, *(design.architecture for design in DESIGNS)], ids=lambda a: a.hash
)
def test_json_round_trip_keeps_the_architecture_and_its_hash(architecture: Architecture) -> None:
    again = Architecture.from_json(architecture.to_json())
    assert again == architecture
    assert again.hash == architecture.hash


def test_hash_is_pinned_so_that_a_change_of_schema_or_canonical_form_shows() -> None:
    assert SHUNTED_T.hash == "ee26cf81f1b8d0fb"


def test_hash_does_not_depend_on_the_process() -> None:
    program = "from search_space import DESIGNS; print(DESIGNS[0].architecture.hash)"
    for seed in ("1", "2"):
        printed = subprocess.run(
            [sys.executable, "-c", program],
            cwd=REPOSITORY,
            env={"PYTHONHASHSEED": seed},
            check=True,
            capture_output=True,
            text=True,
        )
        assert printed.stdout.strip() == SHUNTED_T.hash


def test_hash_does_not_depend_on_the_order_of_fields_or_on_how_a_number_is_written() -> None:
    fields = json.loads(SHUNTED_T.to_json())
    fields["stages"] = [dict(reversed(stage.items())) for stage in fields["stages"]]
    fields["stages"][0]["feed_forward"]["ratio"] = 8
    text = json.dumps(dict(reversed(fields.items())))
    assert Architecture.from_json(text).hash == SHUNTED_T.hash


LOCAL = {"local_heads": 4, "aggregation": None}
WITHOUT_EFFECT = {
    "sharing without a mixer": (one_stage(sharing=2), one_stage()),
    "sharing around a ladder": (
        one_stage(sharing=2, width=96, mixer=Ladder(heads=2), feed_forward=None),
        one_stage(width=96, mixer=Ladder(heads=2), feed_forward=None),
    ),
    "norm of convolutions without convolutions": (one_stage(conv_norm="layer"), one_stage()),
    "split of global heads without any": (
        one_stage(mixer=attention(**LOCAL, global_split=2)),
        one_stage(mixer=attention(**LOCAL)),
    ),
    "window without local heads": (
        one_stage(mixer=attention(window=3)),
        one_stage(mixer=attention(window=7)),
    ),
    "aggregation without global heads": (
        one_stage(mixer=attention(local_heads=4, aggregation=Rates(rates=(8, 4)))),
        one_stage(mixer=attention(**LOCAL)),
    ),
}


@pytest.mark.parametrize("pair", WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT.keys())
def test_a_choice_without_effect_does_not_change_the_hash(
    pair: tuple[Architecture, Architecture],
) -> None:
    one, other = pair
    assert one != other
    assert one.hash == other.hash
    assert one.canonical() == other.canonical()


@pytest.mark.parametrize("architecture", [VARIED, SHUNTED_T, one_stage(sharing=2)])
def test_canonical_form_is_its_own_canonical_form(architecture: Architecture) -> None:
    assert architecture.canonical().canonical() == architecture.canonical()


def test_every_choice_with_effect_changes_the_hash() -> None:
    different = [
        one_stage(),
        one_stage(depth=2),
        one_stage(width=64),
        one_stage(feed_forward=FeedForward(ratio=2)),
        one_stage(feed_forward=FeedForward(kind="detail_specific")),
        one_stage(mixer=attention()),
        one_stage(mixer=attention(heads=8)),
        one_stage(mixer=attention(), sharing=2),
        one_stage(mixer=attention(), sharing=3),
        one_stage(mixer=attention(local_heads=1)),
        one_stage(mixer=attention(local_heads=1, window=3)),
        one_stage(mixer=attention(**LOCAL)),
        one_stage(mixer=attention(aggregation=FullAttention(local_term=False))),
        one_stage(mixer=attention(aggregation=Rates(rates=(8, 4)))),
        one_stage(mixer=attention(aggregation=Rates(rates=(8,)))),
        one_stage(mixer=attention(aggregation=AdaptiveWindow())),
        one_stage(mixer=attention(aggregation=AdaptiveWindow(window=5))),
        one_stage(mixer=attention(aggregation=AdaptiveWindow(sampling="max_avg"))),
        one_stage().model_copy(update={"stem": PatchStem(patch_size=8)}),
        one_stage().model_copy(update={"stem": ConvStem()}),
        one_stage().model_copy(update={"stem": ConvStem(width=32)}),
        one_stage().model_copy(update={"stem": ConvStem(extra_convs=1)}),
        Architecture(stem=PatchStem(), stages=(*one_stage().stages, VARIED.stages[1])),
        Architecture(stem=PatchStem(), stages=(*one_stage().stages, VARIED.stages[2])),
    ]
    assert len({architecture.hash for architecture in different}) == len(different)


def test_a_changed_copy_has_the_hash_of_what_it_became() -> None:
    assert SHUNTED_T.hash  # read before the copy is made
    changed = SHUNTED_T.model_copy(update={"stem": PatchStem()})
    assert changed.hash == Architecture.from_json(changed.to_json()).hash != SHUNTED_T.hash


def test_first_layer_of_each_sharing_run_owns_its_map_and_lends_it_only_if_it_is_read() -> None:
    stage = Stage(width=32, depth=5, sharing=2, mixer=attention())
    assert [stage.owns_map(block) for block in range(5)] == [True, False, True, False, True]
    assert [stage.lends_map(block) for block in range(5)] == [True, False, True, False, False]


def test_global_heads_are_split_over_the_rates_and_the_first_rates_take_the_rest() -> None:
    mixer = LocalGlobal(heads=8, local_heads=1, aggregation=Rates(rates=(8, 4, 2)))
    assert mixer.aggregation.heads_per_rate(mixer.global_heads) == {8: 3, 4: 2, 2: 2}


def test_map_sizes_follow_the_strides_of_stem_and_poolings() -> None:
    assert map_sizes(224, SHUNTED_T) == [(56, 56), (28, 28), (14, 14), (7, 7)]
    assert map_sizes((45, 61), SHUNTED_T) == [(11, 15), (6, 8), (3, 4), (2, 2)]
    assert map_sizes(32, SHUNTED_T) == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert map_sizes((33, 50), VARIED) == [(16, 25), (8, 13), (4, 7)]


def test_summary_names_what_distinguishes_the_stages() -> None:
    assert VARIED.summary == (
        "32x1 no mixer ff 4 | conv 48x4 local 2/6 rates-4-2-1 shared by 2 dsff 1.5 | "
        "max 64x2 adaptive-3-max_avg ff 4"
    )


Edit = Callable[[dict[str, Any], list[dict[str, Any]]], Any]

# What a hand might do to the JSON of Shunted-T, and what the error must say.
BROKEN: dict[str, tuple[Edit, list[str]]] = {
    "unknown field": (lambda top, stages: stages[1].update(widht=3), ["stages[1].widht"]),
    "unknown field at the top": (lambda top, stages: top.update(tail=3), ["tail"]),
    "unknown field of two lines": (lambda top, stages: top.update({"a\nb": 3}), ["a"]),
    "missing field": (lambda top, stages: stages[2].pop("depth"), ["stages[2].depth", "required"]),
    "missing stem": (lambda top, stages: top.pop("stem"), ["stem", "required"]),
    "missing aggregation": (
        lambda top, stages: stages[0]["mixer"].pop("aggregation"),
        ["stages[0].mixer", "aggregation is missing"],
    ),
    "wrong type": (
        lambda top, stages: stages[0].update(width="wide"),
        ["stages[0].width", "valid integer", "'wide'"],
    ),
    "wrong type of two lines": (
        lambda top, stages: stages[0].update(width="wide\nwider"),
        ["stages[0].width", "valid integer"],
    ),
    "null stages": (lambda top, stages: top.update(stages=None), ["stages", "array", "None"]),
    "no stages": (lambda top, stages: top.update(stages=[]), ["stages", "at least 1"]),
    "fraction of a block": (
        lambda top, stages: stages[0].update(depth=1.5),
        ["stages[0].depth", "valid integer", "1.5"],
    ),
    "negative depth": (
        lambda top, stages: stages[0].update(depth=-1),
        ["stages[0].depth", "greater than or equal to 1", "-1"],
    ),
    "unknown stem": (
        lambda top, stages: top["stem"].update(kind="konv"),
        ["stem", "'konv'", "'conv'", "'patch'"],
    ),
    "unknown head": (
        lambda top, stages: top["head"].update(kind="max"),
        ["head", "'max'", "'mean'", "'class_token'"],
    ),
    "class token that the head does not read": (
        lambda top, stages: stages[3].update(CLASS_TOKEN),
        ["head.kind='mean'", "'class_token'"],
    ),
    "class token on a map": (
        lambda top, stages: stages[3].update(class_token=True),
        ["stages[3]", "class_token=true", "'none'", "'local_global'", "local_term"],
    ),
    "class token that is dropped again": (
        lambda top, stages: stages[2].update(CLASS_TOKEN),
        ["stages[3].class_token=false", "it stays"],
    ),
    "pooling of a sequence on a map": (
        lambda top, stages: stages[1].update(pooling="max_pool_1d"),
        ["stages[1]", "pooling='max_pool_1d'", "class_token=true"],
    ),
    "ladder that does not divide the width": (
        lambda top, stages: stages[1].update(WHOLE, mixer={"kind": "ladder", "heads": 4}),
        ["stages[1]", "mixer.heads=4", "3 branches", "width=128", "no multiple of 3"],
    ),
    "ladder of too many heads": (
        lambda top, stages: stages[1].update(WHOLE, width=96, mixer={"kind": "ladder", "heads": 5}),
        ["stages[1]", "mixer.heads=5", "width=96", "legal: 1, 2, 4, 8, 16, 32"],
    ),
    "ladder with a feed-forward": (
        lambda top, stages: stages[1].update(width=96, mixer={"kind": "ladder", "heads": 4}),
        ["stages[1]", "feed_forward must be null", "'ladder'"],
    ),
    "attention without a feed-forward": (
        lambda top, stages: stages[1].update(feed_forward=None),
        ["stages[1]", "feed_forward is missing", "'local_global'"],
    ),
    "sharing across a pooling": (
        lambda top, stages: stages[2].update(sharing=5),
        ["stages[2]", "sharing=5", "depth=4", "across a pooling", "1 to 4"],
    ),
    "rate above the map": (
        lambda top, stages: stages[2]["mixer"]["aggregation"].update(rates=[16, 1]),
        ["stages[2].mixer.aggregation", "rate 16", "14 at 224 px", "1 to 14"],
    ),
    "split that does not divide a head": (
        lambda top, stages: stages[1]["mixer"].update(global_split=3),
        ["stages[1]", "mixer.global_split=3", "32 channels", "1, 2, 4, 8, 16, 32"],
    ),
    "stem to stride 2 without a pooling": (
        lambda top, stages: top.update(stem={"kind": "half", "width": 16}),
        ["stages[0].pooling=None", "a stem to stride 2 needs one"],
    ),
    "unknown aggregation": (
        lambda top, stages: stages[0]["mixer"]["aggregation"].update(kind="rate"),
        ["stages[0].mixer.aggregation", "'rate'", "'rates'", "'adaptive'", "'full'"],
    ),
    "unknown feed-forward": (
        lambda top, stages: stages[0]["feed_forward"].update(kind="mlp"),
        ["stages[0].feed_forward.kind", "'plain'", "'detail_specific'", "'mlp'"],
    ),
    "unknown pooling": (
        lambda top, stages: stages[1].update(pooling="avg"),
        ["stages[1].pooling", "'conv'", "'max_pool'", "'avg'"],
    ),
    "heads that do not divide the width": (
        lambda top, stages: stages[0]["mixer"].update(heads=5),
        ["stages[0]", "mixer.heads=5", "width=64", "1, 2, 4, 8, 16, 32, 64"],
    ),
    "more local heads than heads": (
        lambda top, stages: stages[0]["mixer"].update(local_heads=9),
        ["stages[0].mixer", "local_heads=9", "heads=2"],
    ),
    "pooling in the first stage": (
        lambda top, stages: stages[0].update(pooling="conv"),
        ["stages[0].pooling='conv'", "in the first, the stem does it all"],
    ),
    "no pooling in a later stage": (
        lambda top, stages: stages[2].update(pooling=None),
        ["stages[2].pooling=None", "'conv'", "'max_pool'"],
    ),
    "rates that do not decrease": (
        lambda top, stages: stages[0]["mixer"]["aggregation"].update(rates=[4, 8]),
        ["stages[0].mixer.aggregation.rates", "[4, 8]", "decreasing"],
    ),
    "a rate of zero": (
        lambda top, stages: stages[0]["mixer"]["aggregation"].update(rates=[8, 0]),
        ["stages[0].mixer.aggregation.rates[1]", "greater than or equal to 1"],
    ),
    "more rates than global heads": (
        lambda top, stages: stages[0]["mixer"]["aggregation"].update(rates=[8, 4, 2]),
        ["stages[0].mixer", "aggregation.rates=[8, 4, 2]", "3", "2"],
    ),
    "ratio that gives no whole number of channels": (
        lambda top, stages: stages[0]["feed_forward"].update(ratio=1.33),
        ["stages[0]", "feed_forward.ratio=1.33", "whole number"],
    ),
    "infinite ratio": (
        lambda top, stages: stages[0]["feed_forward"].update(ratio=float("inf")),
        ["stages[0]", "feed_forward.ratio"],
    ),
    "a number in quotes": (
        lambda top, stages: stages[0].update(width="64"),
        ["stages[0].width", "valid integer", "'64'"],
    ),
    "schema of another version": (
        lambda top, stages: top.update(schema_version=2),
        ["schema_version", "should be 1", "found 2"],
    ),
}


@pytest.mark.parametrize(("edit", "said"), BROKEN.values(), ids=BROKEN.keys())
def test_error_of_a_hand_edited_file_is_one_line_that_names_file_field_and_what_is_legal(
    edit: Edit, said: list[str], tmp_path: Path
) -> None:
    fields = json.loads(SHUNTED_T.to_json())
    edit(fields, fields["stages"])
    file = tmp_path / "edited.json"
    file.write_text(json.dumps(fields))
    with pytest.raises(ArchitectureError) as raised:
        Architecture.load(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert len(message.splitlines()) == 1
    for part in said:
        assert part in message.removeprefix(str(file))


@pytest.mark.parametrize("text", ["", "{", "null", "[]", "12", "not json\nat all", "\xff\xfe"])
def test_a_file_that_is_no_json_object_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ArchitectureError) as raised:
        Architecture.from_json(text.encode("latin-1"), source="edited.json")
    assert str(raised.value).startswith("edited.json: ")
    assert len(str(raised.value).splitlines()) == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"missing\.json: cannot be read \(No such file"):
        Architecture.load(tmp_path / "missing.json")
    with pytest.raises(ArchitectureError, match=r"architecture\.json: cannot be read"):
        Architecture.load(tmp_path)


def test_loading_a_folder_reads_its_architecture_file(tmp_path: Path) -> None:
    (tmp_path / "architecture.json").write_text(VARIED.to_json())
    assert Architecture.load(tmp_path) == VARIED
    assert Architecture.load(str(tmp_path / "architecture.json")) == VARIED


def test_an_architecture_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        VARIED.stages[0].width = 64  # type: ignore[misc]
    assert isinstance(VARIED.stages[0].mixer, NoMixer)
