"""The first step of a run: training the supernet."""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from nas.runs.expected import expected_time
from nas.runs.job import Job
from nas.training.curve import CurveWriter, curve_written
from nas.training.ray_training import train_on_ray
from nas.training.supernet import Progress, SupernetTask, states
from nas.utilities.devices import usable_cpus
from nas.utilities.files import check_room
from nas.utilities.progress import LiveLine
from search_space import total_cost
from supernet import count_shared_weights

MONITOR_IMAGES = 128
"""Of the search split at most, for a look at current accuracies."""

_FLOAT = 4  # bytes


def train(job: Job) -> None:
    """Train the supernet, unless that is done."""
    if job.folder.checkpoint.exists():
        job.console.print("supernet: trained already")
        for left_over in states(job.folder.training_state):
            left_over.unlink(missing_ok=True)
        return
    some = monitored(len(job.images))
    task = SupernetTask(
        settings=job.config,
        constrained=job.constrained,
        data=job.data,
        images=job.images[some],
        labels=job.labels[some],
        device=job.config.device,
        state=job.folder.training_state.resolve(),
        checkpoint=job.folder.checkpoint.resolve(),
        init=job.init.network if job.init else None,
        teacher=job.teacher,
        loader_workers=job.execution.loader_workers,
    )
    if job.execution.train_workers == 1:
        store = task.new_store()
        weights = store.numel()
    else:  # each process has a store of its own
        store = None
        weights = count_shared_weights(job.constrained.space, num_classes=job.data.num_classes)
    check_room(job.folder.path, _bytes_written(job, weights))
    job.console.print(expected_time(job))
    job.console.print(
        f"supernet: {weights / 1e6:.1f} M shared weights, trained at "
        f"{job.config.proxy_size} px; costs are counted at {job.config.image_size} px",
    )
    with (
        curve_written(job.folder.curve) as curve,
        _lines(job, curve) as show,
        job.clock.measuring("supernet_seconds"),
    ):
        if store is not None:
            task.train(store, stop=job.stop, on_progress=show)
        else:
            here = job.execution.ray_address is None
            threads = usable_cpus() // job.execution.train_workers if here else 0
            train_on_ray(
                task,
                count=job.execution.train_workers,
                threads=max(threads, job.config.threads),
                cluster=job.cluster,
                stop=job.stop,
                on_progress=show,
            )


def monitored(images: int) -> slice:
    """Which of so many images are looked at: spread, since a folder's lie class by class."""
    return slice(None, None, max(1, math.ceil(images / MONITOR_IMAGES)))


def _bytes_written(job: Job, weights: int) -> int:
    """Of checkpoints and exported networks, while they take the places of earlier ones.

    What an earlier process has written of them is not written again.

    Args:
        job: The run.
        weights: Of the supernet.
    """
    there = sum(file.stat().st_size for file in states(job.folder.training_state) if file.exists())
    largest = job.constrained.largest()
    network = total_cost(largest, num_classes=job.data.num_classes).params
    # A state of training has the weights and two moments of each; the old is there until the new
    # is whole. Exported networks are the listed ones at most.
    state = 2 * (3 * _FLOAT)
    listed, finalists = job.config.short_list, job.config.finalists
    networks = (listed * (state + 2 * _FLOAT) + finalists * _FLOAT) * network
    return max(0, (state + _FLOAT) * weights + networks - there)


@contextmanager
def _lines(job: Job, curve: CurveWriter) -> Iterator[Callable[[Progress], None]]:
    """A live line for each part of a training, one after the other; to be told its progress.

    What is told is written into the curve and for TensorBoard as well.
    """
    with ExitStack() as shown:
        line: LiveLine | None = None
        current = ""

        def show(progress: Progress) -> None:
            nonlocal line, current
            curve.add(progress)
            title = f"training the {progress.part}"
            if line is None or line.title != title:
                shown.close()
                line = shown.enter_context(LiveLine(job.console, title, total=progress.steps))
            if progress.accuracies:
                current = " ".join(f"{k} {v:.0%}" for k, v in progress.accuracies.items())
            line.update(progress.step, f"loss {progress.loss:.2f} {current}".rstrip())
            looked = {f"accuracy/{role}": value for role, value in progress.accuracies.items()}
            values = {"train/loss": progress.loss, **looked}
            job.scalars.write(progress.part, progress.step, values)

        yield show
