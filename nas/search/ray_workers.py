"""Workers that are Ray actors, on this machine or on a cluster."""

import logging
import math
import os
from dataclasses import replace
from typing import Any

import torch

from nas.search.evaluation import ATTEMPTS, EvaluationSetup, Score, evaluate
from nas.utilities.errors import InputError
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
        self._ray = ray = _import_ray()
        self.capacity = count
        if address is None:
            sizes = sum(t.nbytes for t in (*setup.weights.values(), setup.images, setup.labels))
            ray.init(
                address="local",  # whatever cluster RAY_ADDRESS may name
                num_cpus=max(setup.threads * count, os.cpu_count() or 1),
                object_store_memory=max(128 << 20, int(1.5 * sizes)),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        else:
            _connect(ray, address)
        try:
            gpus_each = _gpus_each(ray, count=count, threads=setup.threads, device=setup.device)
        except InputError:
            self.close()
            raise
        on_gpu = gpus_each > 0
        self._actor_class = ray.remote(num_cpus=setup.threads, num_gpus=gpus_each, max_restarts=0)(
            EvaluationActor
        )
        if on_gpu:
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


def check_cluster(address: str, *, count: int, threads: int, device: str) -> None:
    """See that a Ray cluster answers and has what `RayWorkers` would ask it for.

    Raises:
        InputError: If not.
    """
    ray = _import_ray()
    _connect(ray, address)
    try:
        _gpus_each(ray, count=count, threads=threads, device=device)
    finally:
        ray.shutdown()


def _import_ray() -> Any:
    # Ray reads them once, when it is imported. No usage report leaves the user's machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    return ray


def _connect(ray: Any, address: str) -> None:
    import nas
    import search_space
    import supernet

    try:
        # The cluster's machines need torch and timm, but no copy of this project.
        ray.init(
            address=address,
            runtime_env={"py_modules": [nas, search_space, supernet]},
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        line = str(error).strip().splitlines()[0]
        hint = "; a cluster with a token wants RAY_AUTH_MODE=token" if "oken" in line else ""
        raise InputError(f"`ray_address` {address!r} cannot be reached ({line}){hint}") from None


def _gpus_each(ray: Any, *, count: int, threads: int, device: str) -> float:
    """The share of a GPU for each of so many actors; 0 where they run on CPUs.

    Raises:
        InputError: If Ray has not the CPUs or GPUs for so many.
    """
    there = ray.cluster_resources()
    cpus, gpus = there.get("CPU", 0), there.get("GPU", 0)
    on_gpu = torch.device(device).type == "cuda"
    if (on_gpu and not gpus) or cpus < threads * count:
        raise InputError(
            f"`workers` {count} needs {threads * count} CPUs{' and a GPU' if on_gpu else ''}; Ray "
            f"has {cpus:g} CPUs and {gpus:g} GPUs"
        )
    # Actors that outnumber the GPUs share them evenly: 3 on 2 GPUs take a half each.
    return 1 / math.ceil(count / gpus) if on_gpu else 0.0
