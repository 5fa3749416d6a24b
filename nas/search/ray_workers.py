"""Workers that are Ray actors, on this machine or on a cluster."""

import logging
from dataclasses import replace
from typing import Any

from nas.search.evaluation import ATTEMPTS, EvaluationSetup, Score, evaluate
from nas.utilities.ray_cluster import start_ray
from search_space import Architecture

logger = logging.getLogger(__name__)


class EvaluationActor:
    """A process of its own that evaluates; lives in a Ray worker."""

    def __init__(self, setup: EvaluationSetup) -> None:
        self._evaluator = setup.evaluator()

    def evaluate(self, architecture_json: str) -> Score:
        """Score an architecture."""
        return evaluate(self._evaluator, Architecture.from_json(architecture_json))


class RayWorkers:
    """Evaluates on Ray actors: weights and images go into the object store once.

    An actor that dies is built anew and its evaluation tried again, up to `ATTEMPTS` times.

    Args:
        setup: What every actor needs.
        count: Number of actors.
        address: Of a running Ray cluster (`auto`, `HOST:PORT`); None starts Ray on this machine.

    Raises:
        InputError: If the cluster cannot be reached, or never has the CPUs or GPUs for so many.
    """

    def __init__(self, setup: EvaluationSetup, *, count: int, address: str | None = None) -> None:
        sizes = sum(t.nbytes for t in (*setup.weights.values(), setup.images, setup.labels))
        self._ray, resources = start_ray(
            count=count,
            threads=setup.threads,
            device=setup.device,
            address=address,
            stored_bytes=sizes,
        )
        ray, self.capacity = self._ray, count
        self._actor_class = ray.remote(**vars(resources), max_restarts=0)(EvaluationActor)
        if resources.num_gpus:
            # An actor sees its own GPU alone, whatever its number is here.
            weights = {name: tensor.cpu() for name, tensor in setup.weights.items()}
            setup = replace(setup, device="cuda", weights=weights)
        self._setup = ray.put(setup)
        self._actors = [self._new_actor() for _ in range(count)]
        self._idle = list(range(count))
        self._running: dict[Any, tuple[int, Architecture, int, int]] = {}

    def submit(self, ticket: int, architecture: Architecture) -> None:
        """Begin an evaluation."""
        self._start(ticket, architecture, attempt=1)

    def next_score(self, timeout: float) -> tuple[int, Score] | None:
        """The ticket and score of an evaluation that is done; None if none was in that time."""
        done, _ = self._ray.wait(list(self._running), timeout=timeout)
        if not done:
            return None
        ticket, architecture, actor, attempt = self._running.pop(done[0])
        self._idle.append(actor)
        try:
            score: Score = self._ray.get(done[0])
        except self._ray.exceptions.RayError as error:
            logger.warning("worker %d died (attempt %d): %s", actor, attempt, error)
            self._actors[actor] = self._new_actor()
            if attempt < ATTEMPTS:
                self._start(ticket, architecture, attempt=attempt + 1)
                return None
            score = Score(error=f"the worker died {ATTEMPTS} times: {error}")
        return ticket, score

    def close(self) -> None:
        """Stop the actors and leave Ray."""
        self._ray.shutdown()

    def _start(self, ticket: int, architecture: Architecture, *, attempt: int) -> None:
        actor = self._idle.pop()
        reference = self._actors[actor].evaluate.remote(architecture.to_json())
        self._running[reference] = (ticket, architecture, actor, attempt)

    def _new_actor(self) -> Any:
        return self._actor_class.remote(self._setup)
