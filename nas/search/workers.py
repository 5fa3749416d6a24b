"""Who evaluates: this process, or Ray actors on this machine or on a cluster.

Both do the same: architectures go in with a ticket, scores come out with it, in any order. Scores
don't depend on who computed them.
"""

from collections import deque
from typing import Protocol

from nas.search.evaluation import EvaluationSetup, Score, evaluate
from search_space import Architecture


class Workers(Protocol):
    """Evaluates architectures."""

    @property
    def capacity(self) -> int:
        """How many evaluations may be under way at once."""

    def submit(self, ticket: int, architecture: Architecture) -> None:
        """Begin an evaluation."""

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        """The ticket and score of an evaluation that is done; None if none was in that time."""

    def close(self) -> None:
        """Let go of processes and memory."""


class InProcess:
    """Evaluates in this process, one at a time; Ray is not imported."""

    capacity = 1

    def __init__(self, setup: EvaluationSetup) -> None:
        self._evaluator = setup.evaluator()
        self._waiting: deque[tuple[int, Architecture]] = deque()

    def submit(self, ticket: int, architecture: Architecture) -> None:
        """Begin an evaluation."""
        self._waiting.append((ticket, architecture))

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        """The ticket and score of an evaluation that is done; evaluates it now."""
        ticket, architecture = self._waiting.popleft()
        return ticket, evaluate(self._evaluator, architecture)

    def close(self) -> None:
        """Nothing to let go of."""
