"""How long a run will take, told before it is begun."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from nas.data import normalise, train_batches
from nas.runs.job import Job
from nas.search.tryout import planned_steps
from nas.training.checkpoint import steps_done
from nas.training.loop import autocast, told_of_the_batch
from nas.utilities.seeding import preserved_global_generators
from nas.utilities.units import format_seconds
from supernet import Network

SUPERNET = 2.0
"""Times as long as a training step of the largest subnet is a step of the supernet, that of its
teacher included, as measured in `tiny` and `base` on two CPU cores."""

EVALUATION, TRYOUT = 0.5, 0.75
"""Likewise (results/reference/expected-time.txt) an evaluation beside a forward pass of its images,
and a step of the tryout beside a training step: the networks that are proposed are smaller."""

ON_A_WORKER = 2.0
"""Times as long as here either takes on a worker, of several that share the cores, with its
start."""

_TIMED = 3  # calls, or fewer
_SECONDS = 3.0  # in all


def expected_time(job: Job) -> str:
    """How long the parts of a run will take, by a few steps that are timed now, in words.

    Of a training that goes on the steps count that are left.
    A step that waits for images takes as long as they do.

    Raises:
        InputError: If no network can be trained on such batches here.
    """
    with told_of_the_batch(job.config.batch_size, job.config.device):
        return _expected_time(job)


def _expected_time(job: Job) -> str:
    config, workers = job.config, max(1, job.execution.workers)
    images, labels = _batch(job)
    loading = _seconds(lambda: _batch(job))
    with preserved_global_generators():
        network = Network(job.constrained.largest(), num_classes=job.data.num_classes)
    network = network.to(config.device)
    pixels = normalise(images.to(config.device), job.data.mean, job.data.std)
    labels = labels.to(config.device)

    def forward() -> None:
        with torch.no_grad(), autocast(pixels.device):
            network.eval()(pixels).sum().item()

    def step() -> None:
        with autocast(pixels.device):
            scores = network.train()(pixels)
        loss = F.cross_entropy(scores.float(), labels)
        loss.backward()
        network.zero_grad()
        loss.item()  # what was asked of a GPU is done

    ask = job.teacher.asker(job.data, pixels.device) if job.teacher else None

    def answers() -> None:
        if ask is not None:
            ask(pixels).scores.sum().item()

    if pixels.device.type != "cpu":
        step()  # the first call loads the kernels, for as long as hundreds of others take
    stepping, passing = _seconds(step), _seconds(forward)
    taught = _seconds(answers)
    helpers = job.execution.loader_workers
    loaded = loading / helpers if helpers else 0.0
    beside = 0.0 if helpers else loading
    left = config.steps - steps_done(job.folder.training_state)
    training = left * max(
        loaded, (SUPERNET * stepping + taught) / job.execution.train_workers + beside
    )
    share = ON_A_WORKER if job.execution.workers else 1.0
    each = share * EVALUATION * passing * len(job.labels) / len(labels)
    searching = config.trials * each / workers
    rungs, listed = config.tryout.milestones, min(config.short_list, config.trials)
    steps = planned_steps(config.tryout, listed, workers=workers)
    if config.finalists:  # the first of whom may have come to the first rung alone
        steps += planned_steps(config.tryout.final, config.finalists, workers=workers)
        steps += rungs[-1] - rungs[0]
    trying = steps * max(loaded, share * TRYOUT * stepping + taught + beside) if steps else 0.0
    parts = {"training": training, "search": searching, "short list": trying}
    told = ", ".join(f"{name} {format_seconds(seconds)}" for name, seconds in parts.items())
    return f"expected time: {format_seconds(sum(parts.values()))} ({told})"


def _batch(job: Job) -> tuple[Tensor, Tensor]:
    """A batch of training images and their labels, loaded in this process."""
    size, seed = job.config.batch_size, job.config.seed
    return next(train_batches(job.data, batch_size=size, seed=seed, steps=1))


def _seconds(run: Callable[[], object]) -> float:
    """The median time of a call, after one that is not counted if there is time for others."""
    times: list[float] = []
    while len(times) <= _TIMED and sum(times) < _SECONDS:
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:] or times)
