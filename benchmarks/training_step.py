"""Where the time of a training step of the supernet goes, part by part.

    python -m benchmarks.training_step --threads 1 > results/reference/training_step.txt

Steps of the blockwise strategy on random images; the median of each part in milliseconds. `stages`
learn side by side from the teacher's maps, `teacher learns` is a step of the teacher before that.

With `--train-workers N`, `images per second` of the whole training instead: N processes of one
thread beside one process of N threads, at the same global batch, one after the other.

    python -m benchmarks.training_step --train-workers 2 >> results/reference/training_step.txt

On a GPU: `--device cuda --steps 20 --uncounted 20`. Kernels are made for every new shape; with
`--uncounted 4 --steps 8` these are the greater part of the time.
"""

import argparse
import random
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch.nn import functional as F

from nas.data import load_data, materialise
from nas.objectives.constrained_space import ConstrainedSpace
from nas.objectives.limits import Limits
from nas.training.distillation import map_error, side_by_side
from nas.training.loop import autocast
from nas.training.ray_training import train_on_ray
from nas.training.settings import SupernetTraining, TrainingSettings
from nas.training.strategies import Blockwise
from nas.training.supernet import Progress, SupernetTask
from nas.training.teacher import Teacher, TeacherLearner
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import RayCluster
from search_space import PRESETS
from supernet import Store, StoreAdamW

BUDGETS = {"base": 2e9, "tiny": 3e8}


def constrained(space_name: str) -> ConstrainedSpace:
    """A preset under its budget."""
    limits = Limits(macs=BUDGETS[space_name])
    return ConstrainedSpace(
        space=PRESETS[space_name], limits=limits, image_size=224, num_classes=10
    )


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what was queued; a CPU queues nothing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parts(
    space_name: str,
    *,
    batch_size: int,
    size: int,
    steps: int,
    uncounted: int,
    device: torch.device,
) -> dict[str, float]:
    """Median milliseconds of each part of a step."""
    chosen, rng = constrained(space_name), random.Random(0)
    space = chosen.space
    store = Store(space, num_classes=10, device=device)
    teacher = Teacher(space, num_classes=10).to(device)
    optimizer = StoreAdamW(store)
    settings = TrainingSettings(steps=1, batch_size=batch_size, lr=1e-3, seed=0)
    learner = TeacherLearner(teacher, settings)
    images = torch.randn(batch_size, 3, size, size, device=device)
    labels = torch.randint(10, (batch_size,), device=device)
    times: dict[str, list[float]] = defaultdict(list)

    @contextmanager
    def timed(part: str) -> Iterator[None]:
        synchronize(device)
        start = time.perf_counter()
        yield
        synchronize(device)
        times[part].append(1000 * (time.perf_counter() - start))

    for _ in range(uncounted + steps):
        subnet = chosen.sample(rng)
        with timed("build subnet"):
            network = store.subnet(subnet).train()
        with timed("teacher forward"), torch.no_grad(), autocast(images.device):
            maps = teacher.eval()(images).maps
        with timed("stages forward"), autocast(images.device):
            scores, found = side_by_side(network, images, maps)
            errors = [map_error(*pair) for pair in zip(found, maps, strict=True)]
            loss = torch.stack(errors).mean() + F.cross_entropy(scores.float(), labels)
        with timed("stages backward"):
            loss.backward()
        with timed("optimizer"):
            optimizer.step([network], lr=1e-4)
        with timed("teacher learns"):
            for loss in learner.losses(0, images, labels):
                loss.backward()
            learner.update(lr=1e-4)
    return {part: statistics.median(some[uncounted:]) for part, some in times.items()}


def images_per_second(
    space_name: str, *, batch_size: int, size: int, steps: int, workers: int, threads: int
) -> float:
    """Of the supernet's steps, from the first one to the last."""
    data = load_data("digits", image_size=size, seed=0)
    few, labels = materialise(data.search, limit=4, seed=0)
    seen: list[tuple[float, int]] = []

    def note(progress: Progress) -> None:
        if progress.part == "supernet":
            seen.append((time.monotonic(), progress.step))

    with tempfile.TemporaryDirectory() as folder:
        task = SupernetTask(
            settings=SupernetTraining(
                steps=steps, batch_size=batch_size, lr=3e-4, strategy=Blockwise(teacher=0.1)
            ),
            constrained=constrained(space_name),
            data=data,
            images=few,
            labels=labels,
            device="cpu",
            state=Path(folder) / "state.safetensors",
            checkpoint=Path(folder) / "checkpoint.safetensors",
        )
        if workers == 1:
            torch.set_num_threads(threads)
            task.train(task.new_store(), stop=StopRequest(), on_progress=note)
        else:
            train_on_ray(
                task,
                count=workers,
                threads=threads,
                cluster=RayCluster(),
                stop=StopRequest(),
                on_progress=note,
            )
    (start, first), (end, last) = seen[0], seen[-1]
    return batch_size * (last - first) / (end - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--size", type=int, default=64, help="pixels of the images")
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--uncounted", type=int, default=3, help="steps before those")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--train-workers", type=int, default=1)
    options = parser.parse_args()
    shared = {name: getattr(options, name) for name in ("batch_size", "size", "steps")}
    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore", message=".*gradient layout contract.*")
    for name in BUDGETS:
        if options.train_workers > 1:
            count = options.train_workers
            one = images_per_second(name, workers=1, threads=count, **shared)
            several = images_per_second(name, workers=count, threads=1, **shared)
            print(
                f"{name}, {options.batch_size} images: {one:.1f} images per second in one process "
                f"of {count} threads, {several:.1f} in {count} of one, ratio {several / one:.2f}",
                flush=True,
            )
            continue
        found = parts(name, uncounted=options.uncounted, device=options.device, **shared)
        told = ", ".join(f"{part} {value:.0f}" for part, value in found.items())
        where = f"{options.threads} threads" if options.device.type == "cpu" else options.device
        print(f"{name}, {options.batch_size} images, {where}: {told}", flush=True)


if __name__ == "__main__":
    main()
