import pytest

from nas.utilities.errors import InputError
from nas.utilities.units import (
    format_accuracy,
    format_count,
    format_milliseconds,
    format_seconds,
    parse_duration,
    parse_latency,
    parse_macs,
    parse_params,
)


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("2GFLOPs", 2_000_000_000),
        ("2GMACs", 2_000_000_000),
        ("2 gflops", 2_000_000_000),
        (" 2 G FLOPs ", 2_000_000_000),
        ("2GFLOPS", 2_000_000_000),
        ("2gmac", 2_000_000_000),
        ("600MFLOPs", 600_000_000),
        ("600 mmacs", 600_000_000),
        ("2e9", 2_000_000_000),
        ("2E9 FLOPs", 2_000_000_000),
        ("+2.5e+8", 250_000_000),
        ("1.5G", 1_500_000_000),
        (".5GMACs", 500_000_000),
        ("250kMACs", 250_000),
        ("1TFLOP", 1_000_000_000_000),
        ("1", 1),
    ],
)
def test_a_budget_is_read_in_every_form_that_people_write(text: str, macs: int) -> None:
    assert parse_macs(text) == macs


@pytest.mark.parametrize(
    ("text", "params"),
    [
        ("10M", 10_000_000),
        (" 9.5 m ", 9_500_000),
        ("1.2B", 1_200_000_000),
        ("1.2g", 1_200_000_000),
        ("500k params", 500_000),
        ("10000000", 10_000_000),
        ("1e7", 10_000_000),
    ],
)
def test_a_number_of_parameters_is_read_in_every_form(text: str, params: int) -> None:
    assert parse_params(text) == params


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("15ms", 15.0),
        ("15 MS", 15.0),
        ("0.015s", 15.0),
        (".015 s", 15.0),
        ("1.5e-2s", 15.0),
        ("900us", 0.9),
        ("900 µs", 0.9),
    ],
)
def test_a_latency_is_read_in_every_form(text: str, milliseconds: float) -> None:
    assert parse_latency(text) == pytest.approx(milliseconds)


NO_POSITIVE_NUMBERS = ("", " ", "two", "G", "-2", "0", "0.0", "nan", "NaN", "inf", "-inf", "1e999")


@pytest.mark.parametrize(
    "text",
    [
        *NO_POSITIVE_NUMBERS,
        "-2GFLOPs",
        "0GFLOPs",
        "NaN GFLOPs",
        "infFLOPs",
        "0.2",
        "2GHz",
        "2GB",
        "2ms",
        "2 Gparams",
        "GFLOPs",
        "2,5GFLOPs",
        "2GFLOPs 3GFLOPs",
        "2e9e9",
        "1e308GFLOPs",
    ],
)
def test_a_budget_that_is_none_is_refused_in_one_line_that_names_the_flag(text: str) -> None:
    with pytest.raises(InputError, match=r"^`budget` .+") as raised:
        parse_macs(text)
    assert repr(text) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "text", [*NO_POSITIVE_NUMBERS, "-10M", "0M", "nan M", "10MB", "10MFLOPs", "10ms", "1e308B"]
)
def test_a_number_of_parameters_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^`params` .+"):
        parse_params(text)


@pytest.mark.parametrize(
    "text", [*NO_POSITIVE_NUMBERS, "15", "1.5e1", "-15ms", "0ms", "nanms", "inf s", "15m", "1e308s"]
)
def test_a_latency_that_is_none_or_has_no_unit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^`latency` .+"):
        parse_latency(text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90.0), ("5min", 300.0), ("1.5 H", 5400.0), ("0.5 s", 0.5)]
)
def test_a_duration_is_read_in_every_form(text: str, seconds: float) -> None:
    assert parse_duration(text, "ray_wait") == pytest.approx(seconds)


@pytest.mark.parametrize("text", [*NO_POSITIVE_NUMBERS, "5", "5m", "90ms", "-1min", "1e308h"])
def test_a_duration_that_is_none_or_has_no_unit_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"^`ray_wait` .+"):
        parse_duration(text, "ray_wait")


def test_a_refusal_names_the_flag_that_it_was_told() -> None:
    with pytest.raises(InputError, match=r"^`elsewhere` "):
        parse_macs("much", field="elsewhere")


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1_990_000_000, "1.99 G"),
        (612_345_678, "612 M"),
        (999_600_000, "1 G"),
        (999_400_000, "999 M"),
        (168_538, "169 k"),
        (7, "7 "),
        (0, "0 "),
    ],
)
def test_counts_are_shown_with_three_digits_and_a_prefix(count: int, text: str) -> None:
    assert format_count(count) == text


@pytest.mark.parametrize("macs", [10**power * lead for power in range(12) for lead in (1, 2, 5)])
def test_a_count_that_is_shown_can_be_typed(macs: int) -> None:
    assert parse_macs(f"{format_count(macs)}MACs") == macs


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (48.4, "48 s"),
        (59.7, "1 min 00 s"),
        (302, "5 min 02 s"),
        (3599.6, "1 h 00 min"),
        (11_400, "3 h 10 min"),
    ],
)
def test_durations_never_show_sixty_seconds_or_minutes(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0.012345, "0.0123 ms"), (7.25, "7.25 ms"), (999.4, "999 ms"), (1250.4, "1250 ms")],
)
def test_latencies_are_written_without_exponents(milliseconds: float, text: str) -> None:
    assert format_milliseconds(milliseconds) == text


@pytest.mark.parametrize(
    ("right", "images", "text"),
    [
        (360, 400, "90.0 ± 1.5 %"),
        (9, 9, "100.0 ± 5.0 %"),
        (0, 9, "0.0 ± 5.0 %"),
        (10_000, 10_000, "100.0 ± 0.0 %"),
    ],
)
def test_an_accuracy_has_an_error_at_both_ends_too(right: int, images: int, text: str) -> None:
    assert format_accuracy(right / images, images) == text
