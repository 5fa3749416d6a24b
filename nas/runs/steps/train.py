"""The first step of a run: training the supernet."""

import math

import torch

from nas.runs.job import Job
from nas.training.accuracy import SubnetEvaluator
from nas.training.supernet import Progress, train_supernet
from nas.utilities.progress import LiveLine
from supernet import Store

MONITOR_IMAGES = 256
"""Of the search split, for a look at current accuracies."""


def train(job: Job) -> None:
    """Train the supernet, unless that is done."""
    if job.folder.checkpoint.exists():
        job.console.print("supernet: trained already", highlight=False)
        job.folder.training_state.unlink(missing_ok=True)
        return
    store = Store(
        job.config.space,
        num_classes=job.data.num_classes,
        device=job.config.device,
        seed=job.config.seed,
        beside=job.config.strategy.beside(job.config.space),
    )
    monitor = SubnetEvaluator(
        store,
        job.images[:MONITOR_IMAGES],
        job.labels[:MONITOR_IMAGES],
        mean=job.data.mean,
        std=job.data.std,
        threads=torch.get_num_threads(),
    )
    job.console.print(
        f"supernet: {store.numel() / 1e6:.1f} M shared weights, trained at "
        f"{job.config.proxy_size} px; costs are counted at {job.config.image_size} px",
        highlight=False,
    )
    line = LiveLine(job.console, "training", total=job.config.steps)

    def show(progress: Progress) -> None:
        current = " ".join(f"{k} {v:.0%}" for k, v in progress.accuracies.items())
        loss = "" if math.isnan(progress.loss) else f"loss {progress.loss:.2f} "
        line.update(progress.step, f"{loss}{current}".rstrip())

    with line, job.clock.measuring("supernet_seconds"):
        train_supernet(
            store,
            settings=job.config,
            constrained=job.constrained,
            data=job.data,
            state=job.folder.training_state,
            checkpoint=job.folder.checkpoint,
            monitor=monitor,
            stop=job.stop,
            on_progress=show,
            loader_workers=job.execution.loader_workers,
        )
