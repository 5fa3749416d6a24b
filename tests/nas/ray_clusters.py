"""A cluster of Ray on this machine, whose machines are processes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest


@contextmanager
def cluster_of_one() -> Iterator[tuple[Any, Any]]:
    """A cluster and its head, a machine that has room for one worker; others may be added."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_health_check_period_ms", "500")
        # A cluster writes its address there, whatever folder it has, and does not make it.
        Path("/tmp/ray").mkdir(mode=0o777, exist_ok=True)
        cluster = Cluster()
        head = cluster.add_node(
            num_cpus=1,
            object_store_memory=80 << 20,
            temp_dir=f"/tmp/ray-{os.getpid()}",  # Ray's sockets need a short path
            include_dashboard=False,
            include_log_monitor=False,
        )
        try:
            yield cluster, head
        finally:
            cluster.shutdown()
