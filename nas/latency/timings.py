"""What a profile has timed so far, kept so that one that was stopped goes on."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from nas.utilities.files import write_text

Timing = dict[str, Any]
"""What was found out about one network, as JSON holds it."""


class Timings:
    """Answers what was timed before, and has timed what was not.

    Args:
        table: The file that they are for. Timings are kept beside it, a line of JSON each, by every
            profile in a file of its own; None keeps them for this process alone. A line that was
            cut off is timed again.
    """

    def __init__(self, table: Path | None = None) -> None:
        self._table = table
        self._file: Path | None = None
        self._known: dict[str, Timing] = {}

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Take up the timings of the same profile.

        Args:
            identity: What the timings depend on, as JSON holds it.
        """
        if self._table is None:
            return
        text = json.dumps(identity, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:6]
        self._file = self._table.with_name(f".{self._table.name}.{digest}.timings")
        rows = _rows(self._file) if self._file.exists() else []
        if not rows or rows[0] != {"of": dict(identity)}:
            rows = [{"of": dict(identity)}]
        write_text(self._file, "".join(json.dumps(row) + "\n" for row in rows))
        self._known = {row["key"]: row["timing"] for row in rows[1:]}

    def of(self, key: str, time: Callable[[], Timing]) -> Timing:
        """What was timed under a key; times it now if nothing was."""
        if key not in self._known:
            self._known[key] = time()
            if self._file is not None:
                with self._file.open("a", encoding="utf-8") as file:
                    file.write(json.dumps({"key": key, "timing": self._known[key]}) + "\n")
        return self._known[key]

    def forget(self) -> None:
        """Remove the file: the table that they were for is there."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)


def _rows(file: Path) -> list[Any]:
    """The rows of a file up to the first that is damaged."""
    rows: list[Any] = []
    for line in file.read_bytes().splitlines():
        try:
            row = json.loads(line)
            if rows and not (isinstance(row["key"], str) and isinstance(row["timing"], dict)):
                break
        except (ValueError, KeyError, TypeError):
            break
        rows.append(row)
    return rows
