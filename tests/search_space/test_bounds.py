"""Numbers far beyond what is sensible are refused where they are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from search_space import DESIGNS, PRESETS, Architecture, ArchitectureError, SearchSpace
from search_space.bounds import LARGEST_FILE, MOST_BODIES, MOST_CHOICES, MOST_STAGES, read_limited

DESIGN = next(design for design in DESIGNS if design.timm_name == "lit_s").architecture


def refusal(model: type[Architecture | SearchSpace], data: Any, path: Path) -> str:
    file = path / "edited.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data))
    with pytest.raises(ArchitectureError) as raised:
        model.load(file)
    message = str(raised.value)
    assert message.startswith(f"{file}: ")
    assert len(message.removeprefix(str(file))) < 420
    assert "\n" not in message
    return message


def set_in_stage(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["stages"][0].update(changes)


def set_in_mixer(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda data: data["stages"][3].update(mixer={"kind": "local_global", **changes})


@pytest.mark.parametrize(
    ("change", "field", "legal"),
    [
        (set_in_stage(**{100_000 * "a": 1}), "stages[0].aaa", "..."),
        (set_in_stage(depth=10**9), "stages[0].depth", "equal to 1000"),
        (set_in_stage(width=2**40), "stages[0].width", "equal to 65536"),
        (set_in_stage(sharing=10**400), "stages[0].sharing", "equal to 1000"),
        (set_in_stage(position=10**6), "stages[0].position", "equal to 1024"),
        (set_in_mixer(heads=10**9), "stages[3].mixer.heads", "equal to 65536"),
        (set_in_mixer(heads=1, window=10**9), "stages[3].mixer.window", "equal to 1024"),
        (set_in_stage(feed_forward={"ratio": float("inf")}), "feed_forward.ratio", "finite"),
        (set_in_stage(feed_forward={"ratio": float("nan")}), "feed_forward.ratio", "finite"),
        (set_in_stage(feed_forward={"ratio": 65}), "feed_forward.ratio", "equal to 64"),
        (lambda data: data.update(norm_eps=float("nan")), "norm_eps", "finite"),
        (lambda data: data.update(stages=data["stages"] * 1000), "stages", f"most {MOST_STAGES}"),
        (lambda data: data["stem"].update(patch_size=10**9), "stem.patch_size", "equal to 1024"),
    ],
)
def test_an_architecture_of_impossible_size_is_refused_with_field_and_bound(
    change: Callable[[dict[str, Any]], object], field: str, legal: str, tmp_path: Path
) -> None:
    data = DESIGN.model_dump(mode="json")
    change(data)
    message = refusal(Architecture, data, tmp_path)
    assert field in message
    assert legal in message


@pytest.mark.parametrize(
    ("changes", "field", "legal"),
    [
        ({"depth": [10**9]}, "stages[1].depth[0]", "equal to 1000"),
        ({"ratio": [float("inf")]}, "stages[1].ratio[0]", "finite"),
        ({"local_ratio": [float("nan")]}, "stages[1].local_ratio[0]", "finite"),
        ({"sharing": [1] * 10_000}, "stages[1].sharing", f"most {MOST_CHOICES}"),
        ({"pooling": ["conv"] * 10_000}, "stages[1].pooling", f"most {MOST_CHOICES}"),
        (
            {"depth": [*range(1, 101)], "ratio": [*range(1, 65)], "sharing": [1, 2]},
            "stages[1]",
            f"up to {MOST_BODIES:,}",
        ),
    ],
)
def test_a_space_of_impossible_choices_is_refused_with_field_and_bound(
    changes: dict[str, Any], field: str, legal: str, tmp_path: Path
) -> None:
    data = PRESETS["nano"].model_dump(mode="json")
    data["stages"][1] |= changes
    message = refusal(SearchSpace, data, tmp_path)
    assert field in message
    assert legal in message


@pytest.mark.parametrize("name", ["../../etc/passwd", "", "a" * 65, "new\nline", ".hidden"])
def test_a_space_is_called_what_a_file_can_be_called(name: str, tmp_path: Path) -> None:
    data = PRESETS["nano"].model_dump(mode="json") | {"name": name}
    assert "name: " in refusal(SearchSpace, data, tmp_path)


@pytest.mark.parametrize("model", [Architecture, SearchSpace])
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000, "recursion limit"),
        ('{"stages": ' + '{"a": ' * 100_000, "recursion limit"),
        (" " * (LARGEST_FILE + 1), "larger than 16 MiB"),
    ],
    ids=["lists", "objects", "gigantic"],
)
def test_json_of_impossible_depth_or_length_is_refused(
    model: type[Architecture | SearchSpace], text: str, told: str, tmp_path: Path
) -> None:
    assert told in refusal(model, text, tmp_path)


def test_no_more_is_read_of_a_file_than_may_be_in_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"{}")
    assert read_limited(tmp_path / "file") == b"{}"
    with pytest.raises(OSError, match="larger than 16 MiB"):
        read_limited("/dev/zero")
