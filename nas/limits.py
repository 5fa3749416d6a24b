"""Hard limits on cost, and whether a space can meet them: asked before anything is trained."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from nas.errors import InputError
from nas.units import format_count
from search_space import Architecture, Cost, SearchSpace, total_cost

SAMPLED = 256
"""Architectures that are costed to say how much of a space the limits leave."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper limits; None does not limit.

    Attributes:
        macs: Multiply-adds for one image at the image size that costs are counted at.
        params: Parameters.
        latency_ms: Milliseconds for one forward pass under the conditions of the run.
    """

    macs: int | None = None
    params: int | None = None
    latency_ms: float | None = None

    def excess(self, cost: Cost, latency_ms: float | None = None) -> dict[str, float]:
        """By how much each limit is exceeded, relative to it; negative where there is room.

        Latency is included where it is both limited and given.
        """
        values = {"macs": cost.macs, "params": cost.params, "latency_ms": latency_ms}
        limits = {"macs": self.macs, "params": self.params, "latency_ms": self.latency_ms}
        return {
            name: value / limit - 1
            for name, limit in limits.items()
            if limit is not None and (value := values[name]) is not None
        }

    def admits(self, cost: Cost) -> bool:
        """Whether the closed-form limits hold."""
        return all(excess <= 0 for excess in self.excess(cost).values())


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A space under limits: what may be trained and evaluated, at which size it is costed.

    Attributes:
        space: The search space.
        limits: The hard limits.
        image_size: Side in pixels at which MACs are counted.
        num_classes: Outputs of the classifier.
    """

    space: SearchSpace
    limits: Limits
    image_size: int
    num_classes: int

    def cost(self, architecture: Architecture) -> Cost:
        """Closed-form cost at the problem's image size and number of classes."""
        return total_cost(architecture, image_size=self.image_size, num_classes=self.num_classes)

    def admits(self, architecture: Architecture) -> bool:
        """Whether an architecture meets the closed-form limits."""
        return self.limits.admits(self.cost(architecture))

    def extreme(self, key: Callable[[Cost], float]) -> Architecture:
        """The architecture of the space with the smallest additive `key(cost)`, exactly."""
        return self.space.extreme(key, image_size=self.image_size, num_classes=self.num_classes)

    def smallest(self) -> Architecture:
        """The cheapest architecture that meets the limits.

        Raises:
            InputError: If none does, with the reachable range.
        """
        cheapest = self.extreme(lambda cost: cost.macs)
        if self.admits(cheapest):
            return cheapest
        if self.limits.macs is not None and self.cost(cheapest).macs > self.limits.macs:
            self._refuse("--budget", "MACs", self.limits.macs, lambda cost: cost.macs)
        assert self.limits.params is not None
        lightest = self.extreme(lambda cost: cost.params)
        if self.cost(lightest).params > self.limits.params:
            self._refuse("--params", "parameters", self.limits.params, lambda cost: cost.params)
        # Each limit can be met alone; what may meet both is not beaten in both.
        frugal = self.space.frugal(image_size=self.image_size, num_classes=self.num_classes)
        both = [architecture for architecture in frugal if self.admits(architecture)]
        if both:
            return min(both, key=lambda architecture: self.cost(architecture).macs)
        raise InputError(
            f"--budget and --params cannot be met together in space {self.space.name!r}: its "
            f"cheapest architecture has {_amount(self.cost(cheapest).params, 'parameters')}, its "
            f"lightest needs {_amount(self.cost(lightest).macs, 'MACs')}"
        )

    def largest(self) -> Architecture:
        """A large architecture that meets the limits, evenly scaled where such a one does."""
        smallest = self.smallest()
        return self.space.clip(self.admits, start=smallest) or smallest

    def middle(self) -> Architecture:
        """An evenly scaled architecture with about the mean MACs of smallest and largest."""
        mean = (self.cost(self.smallest()).macs + self.cost(self.largest()).macs) / 2
        middle = self.space.clip(
            lambda architecture: self.admits(architecture) and self.cost(architecture).macs <= mean
        )
        return middle or self.smallest()

    @cached_property
    def _budget_binds(self) -> bool:
        largest = self.cost(self.extreme(lambda cost: -cost.macs))
        return self.limits.macs is not None and largest.macs > self.limits.macs

    def sample(self, rng: random.Random, *, at_least: float = 0.0) -> Architecture:
        """A random architecture that meets the limits, with at least that share of the budget.

        A budget that does not bind asks for no share.

        Draws at most 200 times; then mutates the best-placed architecture known towards the limits,
        so that it always ends: what it returns meets the limits, and the share if it was found.
        """
        floor = at_least * self.limits.macs if self.limits.macs and self._budget_binds else 0
        fallback: Architecture | None = None
        for candidate in self._candidates(rng):
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
        keys: list[tuple[str, str, int | None, Callable[[Cost], int]]] = [
            ("--budget", "MACs", self.limits.macs, lambda cost: cost.macs),
            ("--params", "parameters", self.limits.params, lambda cost: cost.params),
        ]
        for flag, unit, limit, key in keys:
            most = key(self.cost(self.extreme(lambda cost, key=key: -key(cost))))  # type: ignore[misc]
            if limit is not None and limit >= most:
                notes.append(
                    f"{flag} {format_count(limit).rstrip()} does not bind: the largest "
                    f"architecture of space {self.space.name!r} has {_amount(most, unit)}"
                )
        rng = random.Random(0)
        admitted = sum(self.admits(self.space.sample(rng)) for _ in range(SAMPLED))
        notes.append(
            f"space {self.space.name!r} holds {self.space.count():,} architectures; "
            f"{admitted / SAMPLED:.0%} of a random sample meet the closed-form limits"
        )
        return notes

    def _candidates(self, rng: random.Random) -> Iterator[Architecture]:
        for _ in range(100):
            yield self.space.sample(rng)
        # Tight limits: walk from the smallest architecture, which meets them, to others that do.
        current = self.smallest()
        for _ in range(100):
            mutant = self.space.mutate(current, rng) if self.space.count() > 1 else current
            if self.admits(mutant):
                current = mutant
                yield mutant

    def _refuse(self, flag: str, unit: str, limit: int, key: Callable[[Cost], int]) -> None:
        least = key(self.cost(self.extreme(key)))
        most = key(self.cost(self.extreme(lambda cost: -key(cost))))
        raise InputError(
            f"{flag} {_amount(limit, unit)} is out of reach: space {self.space.name!r} spans "
            f"{_amount(least, unit)} to {_amount(most, unit)} at {self.image_size} px with "
            f"{self.num_classes} classes; the nearest legal value is {least}"
        )


def _amount(count: int, unit: str) -> str:
    """A count with its unit: `1.99 GMACs`, `473 k parameters`."""
    prefixed = format_count(count)
    return f"{prefixed}{unit}" if unit == "MACs" else f"{prefixed.rstrip()} {unit}"
