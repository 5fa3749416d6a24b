"""Several processes that train one supernet, started by Ray Train."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from nas.training.ranks import TorchRanks
from nas.training.supernet import Progress, SupernetTask
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, StopRequest
from nas.utilities.ray_cluster import Demand, RayCluster, one_line

logger = logging.getLogger(__name__)

ATTEMPTS = 3
"""How often the processes are started before a training is given up."""

_SETTINGS = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
_LOOK_SECONDS = 0.2
"""Between two looks at what the processes have told."""

_DESK_SECONDS = 120.0
"""For an answer from the desk, whose process has to start."""


class Desk:
    """Where Ray Train is at work and the first rank tells how far it is; a Ray actor.

    It lives on the driver's machine. In a process of its own Ray Train can be ended at any time,
    and leaves Ctrl-C to us.
    """

    def __init__(self) -> None:
        self._told: list[Progress] = []
        self._problem = ""
        self._stop, self._at_work = False, False

    def fit(self, task: SupernetTask, *, count: int, threads: int, gpus: float) -> None:
        """Let the processes train until they are done."""
        os.environ.update(_SETTINGS)
        import ray
        from ray import train
        from ray.train.torch import TorchTrainer

        desk = ray.get_runtime_context().current_actor

        class Deaths(train.UserCallback):
            """Tells of them at the desk."""

            def after_exception(self, run_context: Any, worker_exceptions: Any) -> None:
                ray.get(desk.leave.remote())

        with tempfile.TemporaryDirectory() as scratch:
            TorchTrainer(
                _learn,
                train_loop_config={"task": task, "desk": desk, "threads": threads},
                scaling_config=train.ScalingConfig(
                    num_workers=count,
                    use_gpu=bool(gpus),
                    resources_per_worker={"CPU": threads, "GPU": gpus},
                ),
                run_config=train.RunConfig(
                    name="supernet",
                    storage_path=scratch,
                    failure_config=train.FailureConfig(max_failures=ATTEMPTS - 1),
                    callbacks=[Deaths()],  # type: ignore[list-item]  # annotated as Train 1 was
                ),
            ).fit()

    def arrive(self) -> None:
        """The processes have started."""
        self._at_work = True

    def leave(self) -> None:
        """One of them has died, and all are to start again."""
        self._at_work = False

    def tell(self, progress: Progress) -> bool:
        """A step is done; whether to stop."""
        self._told.append(progress)
        return self._stop

    def refuse(self, problem: str) -> None:
        """The training cannot go on, and another attempt would not help."""
        self._problem = problem

    def look(self, stop: bool) -> tuple[list[Progress], str, bool]:
        """Steps since the last look, what was refused, whether they work; hands on whether to stop.

        Only one thread looks, while another may tell.
        """
        self._stop = stop
        count = len(self._told)
        steps, self._told[:count] = self._told[:count], []
        return steps, self._problem, self._at_work


def train_on_ray(
    task: SupernetTask,
    *,
    count: int,
    threads: int,
    cluster: RayCluster,
    stop: StopRequest,
    on_progress: Callable[[Progress], None],
) -> None:
    """Let so many processes train a supernet together.

    If one of them dies, all start again from the last saved state, `ATTEMPTS` times at most.

    Args:
        task: The training. All machines must see its folder.
        count: How many processes; on GPUs each has one.
        threads: CPU threads of each.
        cluster: Where they run.
        stop: Handed on to the processes, which save.
        on_progress: Called with the `Progress` of every step, in their order; after a death, which
            begins again at the last saved state, of some of them again.

    Raises:
        Interrupted: If a stop was requested; the state was saved.
        InputError: If Ray has no room for all, or gives none for too long, if the training cannot
            go on, or if its processes died too often.
    """
    task.state.parent.mkdir(parents=True, exist_ok=True)
    demand = Demand(
        flag="train_workers", count=count, threads=threads, device=task.device, together=True
    )
    ray, resources = cluster.start(demand)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    desk = ray.remote(num_cpus=0, max_concurrency=4, scheduling_strategy=here)(Desk).remote()
    try:
        fitting = desk.fit.remote(task, count=count, threads=threads, gpus=resources.num_gpus)
        problem, going = "", True
        while going and not problem:
            done, _ = ray.wait([fitting], timeout=_LOOK_SECONDS)
            going = not done  # asked before the look, so that the last one sees all
            looked = ray.get(desk.look.remote(stop.requested), timeout=_DESK_SECONDS)
            steps, problem, at_work = looked
            for progress in steps:
                on_progress(progress)
            if going and not at_work:
                stop.check()
            missing = f"the {count} processes that train have not started"
            cluster.look(served=at_work or not going, missing=missing)
        if not problem:
            ray.get(fitting)
    except ray.exceptions.RayTaskError as error:
        logger.error("training on Ray failed: %s", error)
        raise InputError(
            f"`train_workers` {count}: a process that trains died {ATTEMPTS} times, or its place "
            "was lost; the same command, also with fewer of them, goes on from the last saved state"
        ) from None
    except ray.exceptions.RayError as error:
        raise InputError(
            f"`train_workers` {count}: Ray was lost ({one_line(error)}); the same command goes on "
            "from the last saved state"
        ) from None
    finally:
        cluster.leave([desk])
    if problem:
        raise InputError(problem)
    if not task.checkpoint.exists():
        raise Interrupted


def _learn(config: dict[str, Any]) -> None:
    """Be one of the ranks; lives in a Ray worker."""
    import ray
    from ray.train.torch import get_device

    task, desk = config["task"], config["desk"]
    torch.set_num_threads(config["threads"])
    ray.get(desk.arrive.remote())
    device = get_device()
    ranks, stop = TorchRanks(device), StopRequest()

    def tell(progress: Progress) -> None:
        stop.requested = ray.get(desk.tell.remote(progress))

    if not task.state.parent.is_dir():
        folder = task.state.parent
        told = f"{folder}: a machine of the cluster does not see it; all must, to train together"
        ray.get(desk.refuse.remote(told))
        return
    try:
        task = replace(task, device=str(device))
        task.train(task.new_store(), stop=stop, on_progress=tell, ranks=ranks)
    except InputError as error:
        ray.get(desk.refuse.remote(str(error)))
    except Interrupted:
        logger.info("stopped")
