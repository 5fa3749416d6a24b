"""In which field two configurations differ."""

import json
from collections.abc import Iterator, Mapping
from typing import Any


def first_difference(known: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The first field in which two of the same kind differ, in words; None if they are equal.

    Args:
        known: Fields by name, as JSON holds them, of what is there already.
        wanted: Of what is wanted here. Its order counts.

    Returns:
        Such as `steps is 40 there, 60 here`; fields within fields are told by their path.
    """
    there = dict(leaves(known))
    here = dict(leaves(wanted))
    for path in {**here, **there}:
        if there.get(path, _ABSENT) != here.get(path, _ABSENT):
            old, new = (short(some.get(path, _ABSENT)) for some in (there, here))
            return f"{path} is {old} there, {new} here"
    return None


_ABSENT = object()


def leaves(fields: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every field by its path, as in `tryout.first_rung`, with its value."""
    for name, value in fields.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def short(value: object) -> str:
    """A value as JSON, cut where it is long."""
    if value is _ABSENT:
        return "absent"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."
