import pytest

from nas.utilities.differences import first_difference


def test_equal_configurations_do_not_differ_whatever_their_order() -> None:
    assert first_difference({"a": 1, "b": {"c": [2]}}, {"b": {"c": [2]}, "a": 1}) is None


@pytest.mark.parametrize(
    ("known", "wanted", "told"),
    [
        ({"steps": 40, "lr": 1}, {"lr": 1, "steps": 60}, "steps is 40 there, 60 here"),
        ({"data": "digits"}, {"data": None}, 'data is "digits" there, null here'),
        (
            {"strategy": {"name": "sandwich", "labels": 0.0}},
            {"strategy": {"name": "sandwich", "labels": 0.5}},
            "strategy.labels is 0.0 there, 0.5 here",
        ),
        ({"steps": 40}, {"steps": 40, "seed": 1}, "seed is absent there, 1 here"),
        ({"steps": 40, "seed": 1}, {"steps": 40}, "seed is 1 there, absent here"),
        ({"limits": {}}, {"limits": {"cpu": 1}}, "limits.cpu is absent there, 1 here"),
    ],
)
def test_the_first_field_that_differs_is_told_with_both_values(
    known: dict[str, object], wanted: dict[str, object], told: str
) -> None:
    assert first_difference(known, wanted) == told


def test_a_long_value_is_cut() -> None:
    told = first_difference({"stages": list(range(100))}, {"stages": []})
    assert told == "stages is [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11... there, [] here"
