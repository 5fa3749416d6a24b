"""A space under hard limits, and whether it can meet them: asked before anything is trained."""

import math
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from operator import add

from nas.latency.table import LatencyTable
from nas.objectives.limits import Limits
from nas.objectives.objective import MACS, PARAMS, Objective
from nas.objectives.settings import DEFAULT_DRAWS, DrawSettings
from nas.utilities.errors import InputError
from nas.utilities.units import format_milliseconds
from search_space import Architecture, Cost, SearchSpace, total_cost
from search_space.extremes import extreme, largest_that_fits, pareto_front_of_costs
from search_space.segments import fastest

SAMPLED = 256
"""Architectures that are costed to say how much of a space the limits leave."""


@dataclass(frozen=True, kw_only=True)
class ConstrainedSpace:
    """A space under limits: what may be trained and evaluated, at which size it is costed.

    Attributes:
        space: The search space.
        limits: The hard limits.
        image_size: Side in pixels at which costs are counted.
        num_classes: Outputs of the classifier.
        tables: By which latency is predicted, for each device that has a limit. Until they are
            there (`with_tables`), limits on latency keep nothing out.
        measured: Devices that are here, where a prediction need not have the last word.
        settings: How far a look for an architecture within the limits goes.
    """

    space: SearchSpace
    limits: Limits
    image_size: int
    num_classes: int
    tables: Mapping[str, LatencyTable] = field(default_factory=dict)
    measured: frozenset[str] = frozenset()
    settings: DrawSettings = DEFAULT_DRAWS

    def with_tables(
        self, tables: Mapping[str, LatencyTable], *, measured: Iterable[str]
    ) -> "ConstrainedSpace":
        """The same space with latency predicted, and then measured on those devices."""
        return replace(self, tables=tables, measured=frozenset(measured))

    @property
    def objectives(self) -> tuple[Objective, ...]:
        """What a run in this space trades off, limits and tells; see `Limits.objectives`."""
        return self.limits.objectives

    def cost(self, architecture: Architecture) -> Cost:
        """Closed-form cost at the space's image size and number of classes."""
        return total_cost(architecture, image_size=self.image_size, num_classes=self.num_classes)

    def costs(self, architecture: Architecture) -> dict[str, float]:
        """The value of each closed-form objective, by name."""
        cost = self.cost(architecture)
        return {o.name: o.value(cost) for o in self.objectives if o.value is not None}

    def predict(self, architecture: Architecture) -> dict[str, float]:
        """Predicted milliseconds of one forward pass, by the name of each latency's objective."""
        return {o.name: table.predict(architecture) for o, table in self._predicted}

    def admits(self, architecture: Architecture) -> bool:
        """Whether an architecture meets the closed-form limits and may meet those on latency.

        Where it will be measured, a prediction may exceed the limit by the margin that the
        table's error asks for; elsewhere it must stay below by as much.
        """
        cost = self.cost(architecture)
        within = all(self._value(o, cost) <= self.limits[o.name] for o in self._limited_forms)
        return within and all(
            milliseconds <= self.limits[name]
            for name, milliseconds in self._judged(architecture).items()
        )

    @cached_property
    def _limited_forms(self) -> tuple[Objective, ...]:
        """The closed-form objectives that have a limit."""
        return tuple(o for o in self.objectives if o.value is not None and o.limit is not None)

    @cached_property
    def _predicted(self) -> tuple[tuple[Objective, LatencyTable], ...]:
        """The latencies that there are tables for, with them."""
        return tuple(
            (o, self.tables[o.device])
            for o in self.objectives
            if o.device is not None and o.device in self.tables
        )

    def _judged(self, architecture: Architecture) -> dict[str, float]:
        """The latency that is held against each limit: the prediction, its margin allowed for."""
        return {
            o.name: self._with_margin(o, table, table.predict(architecture))
            for o, table in self._predicted
        }

    def _with_margin(self, latency: Objective, table: LatencyTable, predicted: float) -> float:
        slack = 1 + table.margin
        return predicted / slack if latency.device in self.measured else predicted * slack

    def extreme(
        self, key: Callable[[Cost], float], *, join: Callable[[float, float], float] = add
    ) -> Architecture:
        """The architecture of the space with the smallest `key(cost)`, exactly.

        Args:
            key: Of a part or a network.
            join: The key of two parts together: their sum, or `max` or `min`.
        """
        return extreme(
            self.space,
            key,
            join=join,
            image_size=self.image_size,
            num_classes=self.num_classes,
        )

    def smallest(self) -> Architecture:
        """The cheapest architecture that meets the limits.

        Raises:
            InputError: If none does, with the reachable range; or if none was found that meets all
                limits together.
        """
        return self._smallest

    @cached_property
    def _smallest(self) -> Architecture:
        cheapest = self._cheapest(MACS)
        if self.admits(cheapest):
            return cheapest
        for objective in self._limited_forms:
            if self.reachable[objective.name][0] > self.limits[objective.name]:
                self._refuse(objective)
        others = [o for o in self._limited_forms if o.name != MACS.name]
        extremes = [cheapest, *map(self._cheapest, others)]
        for objective, table in self._predicted:
            quickest = fastest(self.space, table.time, image_size=self.image_size)
            if self._judged(quickest)[objective.name] > self.limits[objective.name]:
                self._refuse_latency(objective, table, quickest)
            extremes.append(quickest)
        # Each limit can be met alone; what may meet MACs and parameters is not beaten in both.
        front = pareto_front_of_costs(
            self.space, image_size=self.image_size, num_classes=self.num_classes
        )
        together = [a for a in (*extremes, *front, *self._compromises(extremes)) if self.admits(a)]
        if together:
            return min(together, key=lambda architecture: self.cost(architecture).macs)
        fields = [
            f"`{o.field}`" if o.device is None else f"`{o.field}` {o.device}"
            for o in self.objectives
            if o.limit is not None
        ]
        costs = "; ".join(self._costs_in_words(extreme) for extreme in extremes)
        raise InputError(
            f"{', '.join(fields[:-1])} and {fields[-1]} cannot be met together in space "
            f"{self.space.name!r}: the best by each have {costs}"
        )

    def _cheapest(self, objective: Objective) -> Architecture:
        """The architecture with the smallest value of those that meet the limits on peaks.

        Exact: a part over such a limit keeps out every network that it is in, whatever else does.
        Where nothing meets those limits together, it is over one of them. The smallest value of an
        objective that is a peak itself is found without limits.
        """
        if objective.over_parts == "max":
            return self._least(objective)
        peaks = [o for o in self._limited_forms if o.over_parts == "max"]

        def key(cost: Cost) -> float:
            over = any(self._value(o, cost) > self.limits[o.name] for o in peaks)
            return math.inf if over else self._value(objective, cost)

        return self.extreme(key)

    def _least(self, objective: Objective) -> Architecture:
        """The architecture of the whole space with the smallest value, exactly."""
        join = add if objective.over_parts == "sum" else max
        return self.extreme(lambda cost: self._value(objective, cost), join=join)

    def _most(self, objective: Objective) -> Architecture:
        """The architecture of the whole space with the largest value, exactly."""
        join = add if objective.over_parts == "sum" else min
        return self.extreme(lambda cost: -self._value(objective, cost), join=join)

    @cached_property
    def reachable(self) -> dict[str, tuple[float, float]]:
        """The least and the most that each closed form has in the space, limits aside, by name."""
        return {
            objective.name: (
                self._value(objective, self.cost(self._least(objective))),
                self._value(objective, self.cost(self._most(objective))),
            )
            for objective in self.objectives
            if objective.value is not None
        }

    @staticmethod
    def _value(objective: Objective, cost: Cost) -> float:
        assert objective.value is not None
        return objective.value(cost)

    def _compromises(self, extremes: list[Architecture]) -> Iterator[Architecture]:
        """Architectures that meet all limits on cost, on the way from each extreme to there."""
        rng = random.Random(0)
        # MACs and parameters alone need none: what they leave was found exactly.
        needed = self._predicted or {o.name for o in self._limited_forms} - {MACS.name, PARAMS.name}
        for current in extremes if needed and self.space.count() > 1 else ():
            least = self._violation(current)
            for _ in range(self.settings.compromises):
                mutant = self.space.mutate(current, rng)
                violation = self._violation(mutant)
                if violation <= 0:
                    yield mutant
                    break
                if violation < least or rng.random() < math.exp(
                    (least - violation) / self.settings.detour
                ):
                    current, least = mutant, violation

    def _violation(self, architecture: Architecture) -> float:
        """By how much all limits together are exceeded."""
        excess = self.limits.excess(self.costs(architecture) | self._judged(architecture))
        return sum(max(value, 0.0) for value in excess.values())

    def _costs_in_words(self, architecture: Architecture) -> str:
        values = self.costs(architecture) | self.predict(architecture)
        known = (o for o in self.objectives if o.name in values)
        return ", ".join(o.named_amount(values[o.name]) for o in known)

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

    def sample(self, rng: random.Random) -> Architecture:
        """A random architecture that meets the limits.

        Where so many draws would find one, it is drawn at most `settings.draws` times. Else, and if
        they found none, `settings.walk` steps lead from the smallest architecture to others within
        the limits, by which the genes are drawn anew several times.

        Args:
            rng: Decides.
        """
        if self._admitted_share * self.settings.draws >= 1:
            for _ in range(self.settings.draws):
                candidate = self.space.sample(rng)
                if self.admits(candidate):
                    return candidate
        current = self.smallest()
        if self.space.count() > 1:
            for _ in range(self.settings.walk):
                mutant = self.space.mutate(current, rng)
                if self.admits(mutant):
                    current = mutant
        return current

    @cached_property
    def _admitted_share(self) -> float:
        """The share of a random sample of the space that meets the limits."""
        rng = random.Random(0)
        return sum(self.admits(self.space.sample(rng)) for _ in range(SAMPLED)) / SAMPLED

    def check(self) -> list[str]:
        """Check that the closed-form limits can be met.

        Returns:
            What the user should know: limits that don't bind, the share of the space they leave.

        Raises:
            InputError: If a limit is below the reachable range.
        """
        self.smallest()
        notes = []
        for objective in self._limited_forms:
            limit, most = self.limits[objective.name], self.reachable[objective.name][1]
            if limit >= most:
                notes.append(
                    f"the limit of {objective.named_amount(limit)} does not bind: the largest "
                    f"architecture of space {self.space.name!r} has {objective.amount(most)}"
                )
        notes.append(
            f"space {self.space.name!r} holds {self.space.count():,} architectures; "
            f"{self._admitted_share:.0%} of a random sample meet the limits"
        )
        return notes

    def _refuse_latency(
        self, objective: Objective, table: LatencyTable, quickest: Architecture
    ) -> None:
        slowest = fastest(self.space, lambda found: -table.time(found), image_size=self.image_size)
        least, most = table.predict(quickest), table.predict(slowest)
        limit = self.limits[objective.name]
        nearest = self._with_margin(objective, table, least)
        raise InputError(
            f"`{objective.field}` {objective.device}={limit:g}ms is out of reach: space "
            f"{self.space.name!r} spans {format_milliseconds(least)} to "
            f"{format_milliseconds(most)} at {self.image_size} px by prediction "
            f"(give or take {table.margin:.0%}; {table.conditions}); the nearest legal value is "
            f"{_rounded_up(nearest):g}ms"
        )

    def _refuse(self, objective: Objective) -> None:
        least, most = self.reachable[objective.name]
        limit = self.limits[objective.name]
        raise InputError(
            f"`{objective.field}` {objective.amount(limit)} is out of reach: space "
            f"{self.space.name!r} spans {objective.amount(least)} to {objective.amount(most)} at "
            f"{self.image_size} px with {self.num_classes} classes; the nearest legal value is "
            f"{least}"
        )


def _rounded_up(value: float) -> float:
    """A positive value with four digits, none below it."""
    factor = 10.0 ** (3 - math.floor(math.log10(value)))
    return math.ceil(value * factor) / factor
