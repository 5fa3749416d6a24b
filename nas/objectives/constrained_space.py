"""A space under hard limits, and whether it can meet them: asked before anything is trained."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

from nas.latency.table import LatencyTable
from nas.objectives.limits import Limits
from nas.utilities.errors import InputError
from nas.utilities.units import format_count, format_milliseconds
from search_space import Architecture, Cost, SearchSpace, total_cost
from search_space.extremes import extreme, largest_that_fits, pareto_front_of_costs
from search_space.segments import fastest

COMPROMISES = 400
"""Steps from each extreme in the look for an architecture that meets all limits together."""

DETOUR = 0.03
"""Violation by which such a step may go back now and then, to get around what blocks the way."""

SAMPLED = 256
"""Architectures that are costed to say how much of a space the limits leave."""


@dataclass(frozen=True, kw_only=True)
class ConstrainedSpace:
    """A space under limits: what may be trained and evaluated, at which size it is costed.

    Attributes:
        space: The search space.
        limits: The hard limits.
        image_size: Side in pixels at which MACs are counted.
        num_classes: Outputs of the classifier.
        tables: By which latency is predicted, for each device that has a limit. Until they are
            there (`with_tables`), limits on latency keep nothing out.
        measured: Devices that are here, where a prediction need not have the last word.
    """

    space: SearchSpace
    limits: Limits
    image_size: int
    num_classes: int
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    measured: frozenset[str] = frozenset()

    def with_tables(
        self, tables: Mapping[str, LatencyTable], *, measured: Iterable[str]
    ) -> "ConstrainedSpace":
        """The same space with latency predicted, and then measured on those devices."""
        return replace(self, tables=tables, measured=frozenset(measured))

    def cost(self, architecture: Architecture) -> Cost:
        """Closed-form cost at the space's image size and number of classes."""
        return total_cost(architecture, image_size=self.image_size, num_classes=self.num_classes)

    def predict(self, architecture: Architecture) -> dict[str, float]:
        """Predicted milliseconds of one forward pass, by device."""
        return {device: table.predict(architecture) for device, table in self.tables.items()}

    def admits(self, architecture: Architecture) -> bool:
        """Whether an architecture meets the closed-form limits and may meet those on latency.

        Where it will be measured, a prediction may exceed the limit by the margin that the
        table's error asks for; elsewhere it must stay below by as much.
        """
        cost, limits = self.cost(architecture), self.limits
        if limits.macs is not None and cost.macs > limits.macs:
            return False
        if limits.params is not None and cost.params > limits.params:
            return False
        return all(
            milliseconds <= limits.latency_ms[device]
            for device, milliseconds in self._judged(architecture).items()
        )

    def _judged(self, architecture: Architecture) -> dict[str, float]:
        """The latency that is held against each limit: the prediction, its margin allowed for."""
        return {
            device: self._with_margin(device, predicted)
            for device, predicted in self.predict(architecture).items()
        }

    def _with_margin(self, device: str, predicted: float) -> float:
        slack = 1 + self.tables[device].margin
        return predicted / slack if device in self.measured else predicted * slack

    def extreme(self, key: Callable[[Cost], float]) -> Architecture:
        """The architecture of the space with the smallest additive `key(cost)`, exactly."""
        return extreme(self.space, key, image_size=self.image_size, num_classes=self.num_classes)

    def smallest(self) -> Architecture:
        """The cheapest architecture that meets the limits.

        Raises:
            InputError: If none does, with the reachable range; or if none was found that meets all
                limits together.
        """
        return self._smallest

    @cached_property
    def _smallest(self) -> Architecture:
        cheapest = self.extreme(lambda cost: cost.macs)
        if self.admits(cheapest):
            return cheapest
        if self.limits.macs is not None and self.cost(cheapest).macs > self.limits.macs:
            self._refuse("`budget`", "MACs", self.limits.macs, lambda cost: cost.macs)
        extremes = [cheapest]
        if self.limits.params is not None:
            lightest = self.extreme(lambda cost: cost.params)
            if self.cost(lightest).params > self.limits.params:
                self._refuse("`params`", "parameters", self.limits.params, lambda c: c.params)
            extremes.append(lightest)
        for device, table in self.tables.items():
            quickest = fastest(self.space, table.time, image_size=self.image_size)
            if self._judged(quickest)[device] > self.limits.latency_ms[device]:
                self._refuse_latency(device, table, quickest)
            extremes.append(quickest)
        # Each limit can be met alone; what may meet MACs and parameters is not beaten in both.
        frugal = pareto_front_of_costs(
            self.space, image_size=self.image_size, num_classes=self.num_classes
        )
        together = [a for a in (*extremes, *frugal, *self._compromises(extremes)) if self.admits(a)]
        if together:
            return min(together, key=lambda architecture: self.cost(architecture).macs)
        fields = [
            *(["`budget`"] if self.limits.macs is not None else []),
            *(["`params`"] if self.limits.params is not None else []),
            *(f"`latency` {device}" for device in self.limits.latency_ms),
        ]
        costs = "; ".join(self._costs_in_words(extreme) for extreme in extremes)
        raise InputError(
            f"{', '.join(fields[:-1])} and {fields[-1]} cannot be met together in space "
            f"{self.space.name!r}: the best by each alone have {costs}"
        )

    def _compromises(self, extremes: list[Architecture]) -> Iterator[Architecture]:
        """Architectures that meet all limits on cost, on the way from each extreme to there."""
        rng = random.Random(0)
        for current in extremes if self.tables and self.space.count() > 1 else ():
            least = self._violation(current)
            for _ in range(COMPROMISES):
                mutant = self.space.mutate(current, rng)
                violation = self._violation(mutant)
                if violation <= 0:
                    yield mutant
                    break
                if violation < least or rng.random() < math.exp((least - violation) / DETOUR):
                    current, least = mutant, violation

    def _violation(self, architecture: Architecture) -> float:
        """By how much all limits together are exceeded."""
        excess = self.limits.excess(self.cost(architecture), self._judged(architecture))
        return sum(max(value, 0.0) for value in excess.values())

    def _costs_in_words(self, architecture: Architecture) -> str:
        cost = self.cost(architecture)
        latency = "".join(
            f", {format_milliseconds(milliseconds)} on {device}"
            for device, milliseconds in self.predict(architecture).items()
        )
        return f"{_amount(cost.macs, 'MACs')}, {_amount(cost.params, 'parameters')}{latency}"

    def largest(self) -> Architecture:
        """A large architecture that meets the limits, evenly scaled where such a one does."""
        smallest = self.smallest()
        return largest_that_fits(self.space, self.admits, start=smallest) or smallest

    def middle(self) -> Architecture:
        """An evenly scaled architecture with about the mean MACs of smallest and largest."""
        mean = (self.cost(self.smallest()).macs + self.cost(self.largest()).macs) / 2
        middle = largest_that_fits(
            self.space,
            lambda architecture: self.admits(architecture) and self.cost(architecture).macs <= mean,
        )
        return middle or self.smallest()

    @cached_property
    def _budget_binds(self) -> bool:
        largest = self.cost(self.extreme(lambda cost: -cost.macs))
        return self.limits.macs is not None and largest.macs > self.limits.macs

    def sample(
        self, rng: random.Random, *, at_least: float = 0.0, novelty: float = 1.0
    ) -> Architecture:
        """A random architecture that meets the limits, with at least that share of the budget.

        A budget that does not bind asks for no share.

        Draws at most 200 times; then mutates the best-placed architecture known towards the limits,
        so that it always ends: what it returns meets the limits, and the share if it was found.

        Args:
            rng: Decides.
            at_least: Share of the budget.
            novelty: Chance that a gene which is no size is drawn, as in `SearchSpace.sample`.
        """
        floor = at_least * self.limits.macs if self.limits.macs and self._budget_binds else 0
        fallback: Architecture | None = None
        for candidate in self._candidates(rng, novelty):
            if self.admits(candidate):
                if self.cost(candidate).macs >= floor:
                    return candidate
                if fallback is None or self.cost(candidate).macs > self.cost(fallback).macs:
                    fallback = candidate
        return fallback or self.smallest()

    def check(self) -> list[str]:
        """Check that the closed-form limits can be met.

        Returns:
            What the user should know: limits that don't bind, the share of the space they leave.

        Raises:
            InputError: If a limit is below the reachable range.
        """
        self.smallest()
        notes = []
        keys: list[tuple[str, int | None, Callable[[Cost], int]]] = [
            ("MACs", self.limits.macs, lambda cost: cost.macs),
            ("parameters", self.limits.params, lambda cost: cost.params),
        ]
        for unit, limit, key in keys:
            most = self._most(key)
            if limit is not None and limit >= most:
                notes.append(
                    f"the limit of {_amount(limit, unit)} does not bind: the largest "
                    f"architecture of space {self.space.name!r} has {_amount(most, unit)}"
                )
        rng = random.Random(0)
        admitted = sum(self.admits(self.space.sample(rng)) for _ in range(SAMPLED))
        notes.append(
            f"space {self.space.name!r} holds {self.space.count():,} architectures; "
            f"{admitted / SAMPLED:.0%} of a random sample meet the limits"
        )
        return notes

    def _refuse_latency(self, device: str, table: LatencyTable, quickest: Architecture) -> None:
        slowest = fastest(self.space, lambda found: -table.time(found), image_size=self.image_size)
        least, most = table.predict(quickest), table.predict(slowest)
        limit = self.limits.latency_ms[device]
        nearest = self._with_margin(device, least)
        raise InputError(
            f"`latency` {device}={limit:g}ms is out of reach: space {self.space.name!r} spans "
            f"{format_milliseconds(least)} to {format_milliseconds(most)} at {self.image_size} px "
            f"by prediction (give or take {table.margin:.0%}; {table.conditions}); the nearest "
            f"legal value is {_rounded_up(nearest):g}ms"
        )

    def _candidates(self, rng: random.Random, novelty: float) -> Iterator[Architecture]:
        for _ in range(100):
            yield self.space.sample(rng, novelty=novelty)
        # Tight limits: walk from the smallest architecture, which meets them, to others that do.
        current = self.smallest()
        for _ in range(100):
            mutant = self.space.mutate(current, rng) if self.space.count() > 1 else current
            if self.admits(mutant):
                current = mutant
                yield mutant

    def _most(self, key: Callable[[Cost], int]) -> int:
        return key(self.cost(self.extreme(lambda cost: -key(cost))))

    def _refuse(self, field: str, unit: str, limit: int, key: Callable[[Cost], int]) -> None:
        least = key(self.cost(self.extreme(key)))
        most = self._most(key)
        raise InputError(
            f"{field} {_amount(limit, unit)} is out of reach: space {self.space.name!r} spans "
            f"{_amount(least, unit)} to {_amount(most, unit)} at {self.image_size} px with "
            f"{self.num_classes} classes; the nearest legal value is {least}"
        )


def _rounded_up(value: float) -> float:
    """A positive value with four digits, none below it."""
    factor = 10.0 ** (3 - math.floor(math.log10(value)))
    return math.ceil(value * factor) / factor


def _amount(count: int, unit: str) -> str:
    """A count with its unit: `1.99 GMACs`, `473 k parameters`."""
    prefixed = format_count(count)
    return f"{prefixed}{unit}" if unit == "MACs" else f"{prefixed.rstrip()} {unit}"
