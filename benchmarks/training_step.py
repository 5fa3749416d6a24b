"""Where the time of a training step of the supernet goes, part by part.

    python -m benchmarks.training_step --threads 1 > results/reference/training_step.txt

Steps of the blockwise strategy in which the stages of a random subnet learn from the teacher, on
random images; the median of each part in milliseconds. `teacher learns` is the other kind of step.
"""

import argparse
import random
import statistics
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn import functional as F

import nas  # noqa: F401  (tunes OpenMP before torch is loaded)
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.training.distillation import stage_errors
from nas.training.loop import autocast
from nas.training.strategies.blockwise import teacher_of
from search_space import PRESETS
from supernet import Store, StoreAdamW

BUDGETS = {"base": 2e9, "tiny": 3e8}
UNCOUNTED = 3


def parts(space_name: str, *, batch_size: int, size: int, steps: int) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    space = PRESETS[space_name]
    limits = Limits(macs=BUDGETS[space_name])
    constrained = ConstrainedSpace(space=space, limits=limits, image_size=224, num_classes=10)
    teacher = teacher_of(space)
    store = Store(space, num_classes=10, beside=(teacher,))
    optimizer, rng = StoreAdamW(store), random.Random(0)
    images = torch.randn(batch_size, 3, size, size)
    labels = torch.randint(10, (batch_size,))
    times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        times[part].append(1000 * (time.perf_counter() - start))

    teaching = store.subnet(teacher).train()
    for _ in range(UNCOUNTED + steps):
        subnet = constrained.sample(rng)
        with timed("build subnet"):
            network = store.subnet(subnet).train()
        with timed("teacher forward"), torch.no_grad(), autocast(images.device):
            _, maps = teaching.forward_with_maps(images)
        with timed("stages forward"):
            loss = stage_errors(network, maps)
        with timed("stages backward"):
            loss.backward()
        with timed("optimizer"):
            optimizer.step([], lr=1e-4, beside=list(network.stage_parameters()))
        with timed("teacher learns"):
            with autocast(images.device):
                scores = teaching(images)
            F.cross_entropy(scores.float(), labels).backward()
            optimizer.step([teaching], lr=1e-4)
    return {part: statistics.median(some[UNCOUNTED:]) for part, some in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels of the images")
    parser.add_argument("--steps", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
    for name in BUDGETS:
        found = parts(name, batch_size=options.batch_size, size=options.size, steps=options.steps)
        told = ", ".join(f"{part} {value:.0f}" for part, value in found.items())
        print(f"{name}, {options.batch_size} images, {options.threads} threads: {told}", flush=True)


if __name__ == "__main__":
    main()
