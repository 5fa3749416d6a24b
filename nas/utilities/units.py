"""Quantities as people type and read them: `2GFLOPs`, `15ms`, `10M`, `64MB`."""

import math
import re
from collections.abc import Sequence

from nas.utilities.bounds import LARGEST
from nas.utilities.errors import InputError

_NUMBER = r"\s*([+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?|[+-]?(?:nan|inf))\s*"
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_SECONDS = {"us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}


def parse_macs(text: str, field: str = "budget") -> int:
    """Multiply-adds from `2GFLOPs`, `2 gmacs`, `600MFLOPs` or `2e9`.

    A FLOP is a multiply-add here, as in the papers of the field.

    Raises:
        InputError: If it is no positive number, or has an unknown unit.
    """
    pattern = _NUMBER + r"([kmgt]?)\s*(?:flops?|macs?)?\s*"
    return _count(text, pattern, field, "such as 2GFLOPs, 600MFLOPs, 2GMACs or 2e9")


def parse_params(text: str, field: str = "params") -> int:
    """A number of parameters from `10M`, `9.5m`, `1.2B` or `10000000`.

    Raises:
        InputError: If it is no positive number, or has an unknown unit.
    """
    pattern = _NUMBER + r"([kmgbt]?)\s*(?:params|parameters)?\s*"
    return _count(text, pattern, field, "such as 10M or 9500000")


def parse_memory(text: str, field: str = "memory") -> int:
    """Bytes from `64MB`, `900 kB`, `48MiB` or `1e6`; a MB is 1e6 bytes, a MiB is 2^20.

    Raises:
        InputError: If it is no positive number, or has an unknown unit.
    """
    match = re.fullmatch(_NUMBER + r"(?:([kmgt])(i?))?\s*(?:b|bytes?)?\s*", text.lower())
    if match is None:
        raise InputError(
            f"`{field}` {text!r} is no number with a known unit, such as 64MB, 48MiB or 900kB"
        )
    power = "kmgt".index(match[2]) + 1 if match[2] else 0
    return _whole(match[1], (1024 if match[3] else 1000) ** power, text, field)


def parse_amount(text: str, field: str, unit: str) -> float:
    """An amount of any unit, with a prefix from k to T or without one, as in `5mJ` or `1.2 kJ`.

    Args:
        text: What the user typed; it may leave the unit out.
        field: What it is for.
        unit: Its name.

    Raises:
        InputError: If it is no positive number, or has another unit.
    """
    name = unit.strip()
    pattern = _NUMBER + r"([kmgt]?)\s*" + f"(?:{re.escape(name.lower())})?" + r"\s*"
    match = re.fullmatch(pattern, text.lower())
    if match is None:
        raise InputError(f"`{field}` {text!r} is no number with a known unit, such as 5{name}")
    value = _positive(match[1], text, field) * _PREFIXES[match[2]]
    if value > LARGEST:
        raise InputError(f"`{field}` {text!r} is more than {LARGEST:g}")
    return value


def parse_latency(text: str, field: str = "latency") -> float:
    """Milliseconds from `15ms`, `0.015s` or `900us`.

    Raises:
        InputError: If it is no positive number, or has no unit or an unknown one.
    """
    match = re.fullmatch(_NUMBER + r"(us|µs|ms|s)\s*", text.lower())
    if match is None:
        raise InputError(f"`{field}` {text!r} is no time with a unit, such as 15ms or 0.015s")
    milliseconds = _positive(match[1], text, field) * _SECONDS[match[2]] * 1e3
    if milliseconds > LARGEST:
        raise InputError(f"`{field}` {text!r} is more than {LARGEST:g} ms")
    return milliseconds


def parse_duration(text: str, field: str) -> float:
    """Seconds from `90s`, `5min` or `1.5h`.

    Raises:
        InputError: If it is no positive number, or has no unit or an unknown one.
    """
    match = re.fullmatch(_NUMBER + r"(s|min|h)\s*", text.lower())
    if match is None:
        raise InputError(f"`{field}` {text!r} is no time with a unit, such as 90s, 5min or 2h")
    seconds = _positive(match[1], text, field) * _SECONDS[match[2]]
    if seconds > LARGEST:
        raise InputError(f"`{field}` {text!r} is more than {LARGEST:g} s")
    return seconds


def format_count(count: float) -> str:
    """A count for people, to go before its unit: `1.99 G`, `612 M`, `7 `."""
    # A count just below a prefix rounds up into it: 999.6 M is 1 G.
    for prefix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(count) >= 0.9995 * factor:
            return f"{count / factor:.3g} {prefix}"
    return f"{count:.3g} "


def format_milliseconds(milliseconds: float) -> str:
    """A latency for people: `7.25 ms`, `412 ms`, `1250 ms`."""
    return f"{milliseconds:.3g} ms" if milliseconds < 999.5 else f"{milliseconds:.0f} ms"


def format_accuracy(accuracy: float, images: int) -> str:
    """An accuracy with its `accuracy_error`: `90.0 ± 1.5 %`.

    Args:
        accuracy: 0 to 1.
        images: That it was measured on.
    """
    return f"{100 * accuracy:.1f} ± {100 * accuracy_error(accuracy, images):.1f} %"


def accuracy_error(accuracy: float, images: int) -> float:
    """The standard error of an accuracy that comes of the number of images.

    It is half of Wilson's interval of one standard error (Wilson, 1927): as usual where many images
    are right and many wrong, and not zero where all are right.

    Args:
        accuracy: 0 to 1.
        images: That it was measured on.
    """
    variance = accuracy * (1 - accuracy) / images + 1 / (4 * images**2)
    return math.sqrt(variance) / (1 + 1 / images)


def first_of(names: Sequence[str], most: int = 3) -> str:
    """The first few of many names, and how many more there are: `ant, bee, cat and 7 more`."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def format_seconds(seconds: float) -> str:
    """A duration for people: `48 s`, `5 min 02 s`, `3 h 10 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _count(text: str, pattern: str, field: str, examples: str) -> int:
    match = re.fullmatch(pattern, text.lower())
    if match is None:
        raise InputError(f"`{field}` {text!r} is no number with a known unit, {examples}")
    return _whole(match[1], _PREFIXES[match[2]], text, field)


def _whole(number: str, factor: float, text: str, field: str) -> int:
    value = _positive(number, text, field) * factor
    if not 1 <= value <= LARGEST:
        raise InputError(f"`{field}` {text!r} is not between 1 and {LARGEST:g}")
    return round(value)


def _positive(number: str, text: str, field: str) -> float:
    value = float(number)
    if not math.isfinite(value) or value <= 0:
        raise InputError(f"`{field}` {text!r} must be a positive, finite number")
    return value


def scaled_side(side: int, crop: float) -> int:
    """To what an image's side in pixels is scaled before its middle is kept, as timm rounds it.

    Args:
        side: In pixels, of the middle.
        crop: What the middle is of it, as a share.
    """
    return math.floor(side / crop)
