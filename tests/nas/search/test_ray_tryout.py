"""The short list on Ray where its cluster fails; that it is tried is in the tests of runs."""

import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ray_clusters import cluster_of_one

import nas.utilities.ray_cluster
from nas.search.ray_tryout import climb_on_ray
from nas.search.settings import DEFAULT_TRYOUT
from nas.search.trials import Tried
from nas.utilities.errors import InputError
from nas.utilities.interrupt import StopRequest
from nas.utilities.ray_cluster import RayCluster
from search_space import PRESETS, Architecture


class Endless:
    """Stands for a tryout whose trainings never end; notes that one has begun."""

    settings, device = DEFAULT_TRYOUT, "cpu"

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def done(self, candidate: Architecture, rung: int) -> None:
        return None

    def climb(self, candidate: Architecture, rung: int, **rest: object) -> Tried:
        (self.folder / "begun").touch()
        time.sleep(600)
        return Tried(steps=0)

    def last_saved(self, candidate: Architecture) -> int:
        return 0


@pytest.mark.slow
def test_when_the_head_of_its_cluster_is_lost_a_tryout_ends_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    monkeypatch.setattr(nas.utilities.ray_cluster, "_BETWEEN_CALLS", 0.2)
    monkeypatch.setattr(nas.utilities.ray_cluster, "_GONE_AFTER", 2.0)
    tryout: Any = Endless(tmp_path)
    gone = "does not answer any more; the same command goes on"
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        with cluster_of_one() as (machines, head):

            def lose_it() -> None:
                while not (tmp_path / "begun").exists():
                    time.sleep(0.1)
                head.kill_gcs_server()

            loss = threading.Thread(target=lose_it, daemon=True)
            loss.start()
            with (
                RayCluster(machines.address) as cluster,
                pytest.raises(InputError, match=gone),
            ):
                climb_on_ray(
                    [PRESETS["tiny"].sample(random.Random(5))],
                    0,
                    print,
                    tryout=tryout,
                    workers=1,
                    threads=1,
                    cluster=cluster,
                    stop=StopRequest(),
                    on_step=print,
                )
    finally:
        ray.cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    assert not loss.is_alive()
