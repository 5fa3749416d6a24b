"""Hard limits on what an architecture may cost, and the objectives of a run under them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import cached_property

from nas.objectives.objective import ACCURACY, CLOSED_FORM, Objective, latency_name, latency_on
from nas.utilities.errors import InputError

_LATENCY = re.compile(latency_name("(.+)"))


def parse_limits(given: Mapping[str, str | float | None]) -> dict[str, float]:
    """Limits on closed-form objectives by the objective's name, as a user gives them.

    Args:
        given: What was given, by the objective's field: text, or a number in the objective's own
            unit. None and what is missing don't limit.

    Raises:
        InputError: If a field is no objective's, or a limit is no positive number or has an unknown
            unit.
    """
    by_field = {objective.field: objective for objective in CLOSED_FORM.values()}
    for field in given:
        if field not in by_field:
            raise InputError(
                f"`{field}` is no argument, nor a limit; limits: {', '.join(by_field)}"
            )
    return {
        by_field[field].name: by_field[field].parse_limit(str(limit))
        for field, limit in given.items()
        if limit is not None
    }


class Limits(Mapping[str, float]):
    """Upper limits by the name of the objective that each is on: `macs`, `latency_cpu_ms`.

    Args:
        by_name: A limit, or None, which does not limit. Latencies are in milliseconds.

    Raises:
        InputError: If there is no such objective, or it cannot be limited.
    """

    def __init__(self, /, **by_name: float | None) -> None:
        self._by_name = {name: limit for name, limit in by_name.items() if limit is not None}
        for name in self._by_name:
            if name not in CLOSED_FORM and not _LATENCY.fullmatch(name):
                raise InputError(
                    f"{name!r} is no objective that can be limited; there are "
                    f"{', '.join(CLOSED_FORM)} and {latency_name('DEVICE')}"
                )

    def __getitem__(self, name: str) -> float:
        return self._by_name[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def __repr__(self) -> str:
        return f"Limits({', '.join(f'{name}={limit:g}' for name, limit in self.items())})"

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What a run under these limits trades off, limits and tells, in the order of its tables.

        Accuracy, the closed forms that are limited or always there, and the limited latencies.
        """
        closed_forms = (
            replace(objective, limit=self.get(name))
            for name, objective in CLOSED_FORM.items()
            if objective.always or name in self
        )
        devices = (found[1] for name in self if (found := _LATENCY.fullmatch(name)))
        latencies = (latency_on(device, limit=self[latency_name(device)]) for device in devices)
        return (ACCURACY, *closed_forms, *latencies)

    def excess(self, values: Mapping[str, float]) -> dict[str, float]:
        """By how much each limit is exceeded, relative to it; negative where there is room.

        Args:
            values: Of an architecture, by the names of objectives. What has no value is left out.
        """
        return {
            objective.name: objective.excess(values[objective.name])
            for objective in self.objectives
            if objective.limit is not None and objective.name in values
        }
