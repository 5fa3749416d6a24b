"""Workers that are Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import logging
import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from numpy.typing import NDArray

from nas.search.evaluation import ATTEMPTS, EvaluationSetup, Score, evaluate
from nas.utilities.errors import InputError
from nas.utilities.ray_cluster import Demand, RayCluster, one_line
from nas.utilities.units import format_seconds
from search_space import Architecture

logger = logging.getLogger(__name__)

SHORTEST_LIMIT = 60.0
"""Seconds that an evaluation may always take."""

TIMES_THE_MEDIAN = 20.0
"""An evaluation that takes so many times as long as others is given up."""

ENOUGH_TO_COMPARE = 5
"""Evaluations whose times say what others may take; until then each image may take a second."""


class EvaluationActor:
    """A process of its own that evaluates; lives in a Ray worker."""

    def __init__(self, setup: EvaluationSetup, arrays: Mapping[str, NDArray[Any]]) -> None:
        weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self._evaluator = replace(setup, weights=weights).evaluator()

    def evaluate(self, architecture_json: str) -> Score:
        """Score an architecture."""
        return evaluate(self._evaluator, Architecture.from_json(architecture_json))


@dataclass(frozen=True, kw_only=True)
class _Evaluation:
    """One that waits for an actor, or has one."""

    ticket: int
    architecture: Architecture
    attempt: int = 1
    actor: Any = None
    begun: float = 0.0


class RayWorkers:
    """Evaluates on Ray actors: weights and images go into the object store once.

    Actors of one machine share its copy of the weights, unless they compute on GPUs.

    An actor gets an evaluation only when it is ready: one that has no place on the cluster yet
    holds nothing up, and is used as soon as it has one. An actor that dies, or takes far longer
    than others did, is replaced, and its evaluation given to one that is idle, up to `ATTEMPTS`
    times.

    Args:
        setup: What every actor needs.
        count: Number of actors.
        cluster: Where they live.

    Raises:
        InputError: If Ray cannot be started or joined, or has no room for a single one.
    """

    def __init__(self, setup: EvaluationSetup, *, count: int, cluster: RayCluster) -> None:
        self.capacity, self._cluster = count, cluster
        self._ray, resources = cluster.start(
            Demand(count=count, threads=setup.threads, device=setup.device),
            stored_bytes=sum(
                tensor.nbytes for tensor in (*setup.weights.values(), setup.images, setup.labels)
            ),
        )
        self._actor_class = self._ray.remote(**vars(resources), max_restarts=0)(EvaluationActor)
        if resources.num_gpus:
            # An actor sees its own GPU alone, whatever its number is here.
            setup = replace(setup, device="cuda")
        # What comes out of the object store as an array is shared; a tensor would be a copy.
        arrays = {name: tensor.cpu().numpy() for name, tensor in setup.weights.items()}
        self._setup = self._ray.put(replace(setup, weights={})), self._ray.put(arrays)
        self._first_limit = max(SHORTEST_LIMIT, float(len(setup.labels)))
        self._seconds: list[float] = []
        self._failed_starts = 0
        self._waiting: deque[_Evaluation] = deque()
        self._running: dict[Any, _Evaluation] = {}
        self._idle: list[Any] = []
        self._starting: dict[Any, Any] = {}
        for _ in range(count):
            self._start_actor()

    def submit(self, ticket: int, architecture: Architecture) -> None:
        """Begin an evaluation, or let it wait for an actor."""
        self._waiting.append(_Evaluation(ticket=ticket, architecture=architecture))

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        """The ticket and score of an evaluation that is done; None if none was in that time.

        Raises:
            InputError: If the cluster is gone, no actor starts, or none has a place for too long.
        """
        there = bool(self._idle or self._running)
        self._cluster.look(served=there, missing=f"none of {self.capacity} workers has started")
        self._hand_out()
        if (late := self._late()) is not None:
            limit = format_seconds(self._limit)
            return self._lose(self._running.pop(late), f"no answer within {limit}")
        done, _ = self._ray.wait([*self._starting, *self._running], timeout=timeout)
        if done and done[0] in self._running:
            return self._finish(done[0])
        if done:
            self._welcome(done[0])
        return None

    def close(self) -> None:
        """Stop the actors and leave Ray."""
        running = (evaluation.actor for evaluation in self._running.values())
        self._cluster.leave([*self._starting.values(), *running, *self._idle])

    @property
    def _limit(self) -> float:
        """Seconds after which an evaluation is given up."""
        if len(self._seconds) < ENOUGH_TO_COMPARE:
            return self._first_limit
        return max(SHORTEST_LIMIT, TIMES_THE_MEDIAN * statistics.median(self._seconds))

    def _late(self) -> Any:
        """An evaluation that takes too long; None if there is none."""
        for reference, evaluation in self._running.items():
            if time.monotonic() - evaluation.begun > self._limit:
                done, _ = self._ray.wait([reference], timeout=0)
                if not done:
                    return reference
        return None

    def _start_actor(self) -> None:
        actor = self._actor_class.remote(*self._setup)
        self._starting[actor.__ray_ready__.remote()] = actor

    def _welcome(self, reference: Any) -> None:
        """An actor is ready, or its start has failed."""
        actor = self._starting.pop(reference)
        try:
            self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._failed_starts += 1
            why = str(error).strip().splitlines()[-1]
            logger.warning("a worker did not start: %s", why)
            if not self._idle and not self._running and self._failed_starts >= ATTEMPTS:
                raise InputError(
                    f"`workers` {self.capacity}: none starts on Ray, the last with: {why}"
                ) from None
            if self._failed_starts < ATTEMPTS * self.capacity:
                self._start_actor()
        else:
            self._failed_starts = 0
            self._idle.append(actor)

    def _hand_out(self) -> None:
        while self._idle and self._waiting:
            evaluation = replace(
                self._waiting.popleft(), actor=self._idle.pop(), begun=time.monotonic()
            )
            reference = evaluation.actor.evaluate.remote(evaluation.architecture.to_json())
            self._running[reference] = evaluation

    def _finish(self, reference: Any) -> tuple[int, Score] | None:
        evaluation = self._running.pop(reference)
        try:
            score: Score = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return self._lose(evaluation, f"it died ({one_line(error)})")
        self._seconds.append(time.monotonic() - evaluation.begun)
        self._idle.append(evaluation.actor)
        return evaluation.ticket, score

    def _lose(self, evaluation: _Evaluation, why: str) -> tuple[int, Score] | None:
        """Replace an actor; its evaluation waits for another, or has failed."""
        logger.warning("a worker is replaced (attempt %d): %s", evaluation.attempt, why)
        self._ray.kill(evaluation.actor)
        self._start_actor()
        if evaluation.attempt == ATTEMPTS:
            return evaluation.ticket, Score(error=f"{ATTEMPTS} workers were lost with it: {why}")
        self._waiting.appendleft(replace(evaluation, attempt=evaluation.attempt + 1))
        return None
