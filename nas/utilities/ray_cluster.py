"""Ray: started on this machine, or a cluster that is joined; and no wait for it without an end."""

from __future__ import annotations

import logging
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nas.utilities.devices import usable_cpus
from nas.utilities.errors import InputError
from nas.utilities.interrupt import Interrupted, handlers_kept, held_back
from nas.utilities.units import format_seconds

logger = logging.getLogger(__name__)

WAIT_SECONDS = 300.0
"""How long a step waits for Ray to give it a worker."""

_TOLD_AFTER = 15.0
"""Seconds of a wait that need no word: a process loads torch before it is a worker."""

_ANSWER_SECONDS = 5.0
"""For a cluster to answer at its address."""

_BETWEEN_CALLS = 5.0
"""Seconds between two calls to the head of a cluster that is worked with."""

_GONE_AFTER = 20.0
"""Seconds without an answer after which it is gone. Ray ends the process after 60."""

_JOIN_SECONDS = 60.0
"""For a process to load Ray and join a cluster."""

_JOIN = """
import sys, ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
except Exception as error:
    sys.exit(" ".join(f"{error} {error.__cause__ or str()}".split()))
"""

_HASTE = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_gcs_server_port_wait_time_s": "2",
    "RAY_gcs_server_request_timeout_seconds": "10",
}
"""For a process that looks whether a cluster can be joined."""

_HINTS = {
    "oken": "the cluster wants its token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN to what "
    "`ray get-auth-token` prints on its head",
    "No node info found": "this machine is not part of the cluster: run `ray start --address=...` "
    "on it first",
}
"""What would help, by a part of what Ray says."""

_LONGEST_FOLDER = 35
"""Characters of a folder that leave room for the names of Ray's sockets in it."""


@dataclass(frozen=True, kw_only=True)
class Demand:
    """The workers that a step asks Ray for.

    Attributes:
        flag: What the user calls their number.
        count: How many.
        threads: CPU threads of each.
        device: Where they compute.
        together: Whether they are of use only when all are there, each on a GPU of its own. Others
            share the GPUs, and the first begins before the last has a place.
    """

    flag: str = "workers"
    count: int
    threads: int
    device: str
    together: bool = False


@dataclass(frozen=True)
class Resources:
    """What one worker takes, by the names that Ray gives it."""

    num_cpus: int
    num_gpus: float


@dataclass(frozen=True)
class _Size:
    """Of a Ray of this machine: what is asked of it."""

    cpus: int
    stored_bytes: int

    def grown(self, other: _Size) -> _Size:
        """Large enough for both."""
        return _Size(max(self.cpus, other.cpus), max(self.stored_bytes, other.stored_bytes))


class RayCluster:
    """The Ray that the steps of a run work with, one after the other.

    A Ray of this machine is started by the first step that needs one and stays for the others,
    until `close`, or the end of a `with`; a cluster is joined and left by each.

    Args:
        address: Of a running cluster (`auto`, `HOST:PORT`); None starts Ray on this machine.
        wait_seconds: How long a step may be without a worker before it is given up.
        tell: Called with what the person at the terminal should know.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        wait_seconds: float = WAIT_SECONDS,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        self.address, self.wait_seconds, self._tell = address, wait_seconds, tell
        self._joined = False
        self._most = _Size(usable_cpus(), 0)
        self._here: _Size | None = None
        self._head, self._gone = ("", 0), False
        self._called = 0.0
        self._silent_since: float | None = None
        self._waits_since: float | None = None
        self._told = False

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def check(self, demands: Sequence[Demand], *, stored_bytes: int = 0) -> None:
        """See, before anything expensive, that Ray will be there for a run.

        Args:
            demands: Of its steps, which never run at once.
            stored_bytes: What workers share through Ray's object store.

        Raises:
            InputError: If Ray could not be started here, or if the cluster cannot be joined or has
                not the CPUs or GPUs.
        """
        if self.address is None:
            _temporary_folder()
            _check_room(stored_bytes)
            self._most = self._most.grown(
                _Size(max(demand.threads * demand.count for demand in demands), stored_bytes)
            )
            return
        ray = _import_ray(here=False)
        self._join(ray, self.address)
        try:
            for demand in demands:
                _resources(ray, demand)
        finally:
            ray.shutdown()

    def start(self, demand: Demand, *, stored_bytes: int = 0) -> tuple[Any, Resources]:
        """Start Ray on this machine, or join the cluster.

        Args:
            demand: The workers that it is for.
            stored_bytes: What they share through Ray's object store.

        Returns:
            The module `ray`, and what each worker takes; `leave` is for when the step is done.

        Raises:
            InputError: As `check`.
        """
        ray = _import_ray(here=self.address is None)
        if self.address is None:
            self._most = self._most.grown(_Size(demand.threads * demand.count, stored_bytes))
            if self._here != self._most:
                self.close()
                _start_here(ray, self._most)
                self._here = self._most
        else:
            self._join(ray, self.address)
        self._head = _host_and_port(ray.get_runtime_context().gcs_address)
        self._silent_since, self._gone = None, False
        self._waits_since, self._told = None, False
        try:
            resources, room = _resources(ray, demand)
        except InputError:
            self.leave()
            raise
        if room < demand.count:
            self._tell(f"Ray has room for {room} of {demand.count} workers; more may join later")
        return ray, resources

    def leave(self, actors: Sequence[Any] = ()) -> None:
        """Be done with Ray for now: a cluster is left, a Ray of this machine stays.

        Args:
            actors: That the step has started; they end.
        """
        import ray

        if self.address is not None:
            ray.shutdown()
        elif not self._gone:
            for actor in actors:
                ray.kill(actor)

    def close(self) -> None:
        """End a Ray of this machine, if one was started."""
        if self._here is not None:
            import ray

            self._here = None
            ray.shutdown()

    def look(self, *, served: bool, missing: str) -> None:
        """To be called by a step again and again while it works with Ray.

        Args:
            served: Whether it has any worker.
            missing: What to say where it has none.

        Raises:
            InputError: If the cluster is gone, or the step has had no worker for too long.
        """
        now = time.monotonic()
        if now - self._called >= _BETWEEN_CALLS:
            self._call_head()
        if served:
            self._waits_since, self._told = None, False
            return
        if self._waits_since is None:
            self._waits_since = now
        waited, limit = now - self._waits_since, format_seconds(self.wait_seconds)
        if waited > self.wait_seconds:
            raise InputError(
                f"`ray_wait` {limit}: {missing} ({_free()}); the same command goes on when there "
                "is room"
            )
        if waited > _TOLD_AFTER and not self._told:
            self._told = True
            self._tell(f"waiting for Ray: {missing} ({_free()}); for {limit} at most")

    def await_head(self) -> None:
        """Wait until the head answers: what dies with it does not fail by itself.

        Raises:
            InputError: If the cluster is gone.
        """
        while not self._call_head():
            time.sleep(_BETWEEN_CALLS)

    def _call_head(self) -> bool:
        """See whether the head is there; Ray itself would wait, and then exit.

        Raises:
            InputError: If it has been silent for too long.
        """
        self._called = time.monotonic()
        try:
            socket.create_connection(self._head, timeout=_BETWEEN_CALLS).close()
        except OSError:
            # Not since the last answer: this process may have been busy with other things.
            if self._silent_since is None:
                self._silent_since = self._called
            if self._called - self._silent_since > _GONE_AFTER:
                self._gone = True
                raise InputError(
                    "the head of the Ray cluster does not answer any more; the same command goes "
                    "on when it is back"
                ) from None
            return False
        self._silent_since = None
        return True

    def _join(self, ray: Any, address: str) -> None:
        _see_that_it_answers(address)
        if not self._joined:
            _see_that_it_lets_join(address)
        _connect(ray, address)
        if not self._joined:
            self._joined = True
            where = ray.get_runtime_context().gcs_address
            self._tell(f"Ray: joined {where}, {_amounts(ray.cluster_resources())}")


def _import_ray(*, here: bool) -> Any:
    # Ray reads them once, when it is imported. No usage report leaves the user's machine.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if here:
        # On any system, its processes then talk through the loopback, and nobody else can.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    import ray

    return ray


def _start_here(ray: Any, size: _Size) -> None:
    if not os.access(Path("~").expanduser(), os.W_OK):
        # Ray would keep the token of its own cluster there.
        os.environ.setdefault("RAY_AUTH_TOKEN", uuid.uuid4().hex)
    try:
        with held_back(), handlers_kept():
            ray.init(
                address="local",  # whatever cluster RAY_ADDRESS may name
                num_cpus=size.cpus,
                object_store_memory=_store_bytes(size.stored_bytes),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                _node_ip_address="127.0.0.1",
                _temp_dir=str(_temporary_folder()),
            )
    except SystemExit:  # by Ray's handler, of a SIGTERM that another thread has taken
        ray.shutdown()
        signal.raise_signal(signal.SIGTERM)
        raise Interrupted from None
    except Exception as error:  # Ray raises what it likes
        ray.shutdown()
        raise InputError(f"Ray cannot start on this machine ({one_line(error)})") from None


def _temporary_folder() -> Path:
    """Where a Ray of this machine keeps its sockets and logs.

    Raises:
        InputError: If there is no folder that can be written and has a path short enough.
    """
    named = (os.environ.get(name) for name in ("RAY_TMPDIR", "TMPDIR"))
    for folder in filter(None, (*named, "/tmp")):
        ours = Path(folder) / "ray"
        if len(os.fsencode(folder)) <= _LONGEST_FOLDER and os.access(
            ours if ours.exists() else folder, os.W_OK | os.X_OK
        ):
            return ours
    raise InputError(
        f"Ray needs a folder that it can write, with a path of at most {_LONGEST_FOLDER} "
        "characters: set RAY_TMPDIR to one"
    )


def _check_room(stored_bytes: int) -> None:
    """See that what workers share has room in memory that is shared, or else on the disk.

    Raises:
        InputError: If not.
    """
    needed = _store_bytes(stored_bytes)
    places = [Path("/dev/shm"), _temporary_folder().parent]
    free = {place: shutil.disk_usage(place).free for place in places if place.is_dir()}
    if max(free.values()) < needed:
        there = " and ".join(f"{bytes_ / 1e9:.1f} GB in {place}" for place, bytes_ in free.items())
        raise InputError(
            f"`workers` share {needed / 1e9:.1f} GB through Ray, and there are {there}; make room, "
            "take fewer `search_images`, or `workers` 0"
        )


def _store_bytes(stored_bytes: int) -> int:
    """Size of the object store of a Ray of this machine."""
    return max(128 << 20, int(1.5 * stored_bytes))


def _connect(ray: Any, address: str) -> None:
    import nas
    import search_space
    import supernet

    try:
        # The cluster's machines need packages from elsewhere, but no copy of this project.
        with handlers_kept():
            ray.init(
                address=address,
                runtime_env={"py_modules": [nas, search_space, supernet]},
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        ray.shutdown()
        why = one_line(error)
        raise InputError(f"`ray_address` {address!r} cannot be joined ({why})") from None


def _see_that_it_answers(address: str) -> None:
    """See that something listens at an address; Ray would try for a minute.

    Raises:
        InputError: If not, or if it is no address.
    """
    if address == "auto":
        return
    head = _host_and_port(address)
    try:
        socket.create_connection(head, timeout=_ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise InputError(f"`ray_address` {address!r} does not answer ({error})") from None


def _see_that_it_lets_join(address: str) -> None:
    """Join a cluster by a process of its own, which can be ended.

    Ray tries for minutes where something else answers, or has another token, and prints all along.

    Raises:
        InputError: If it cannot be joined, with what would help.
    """
    try:
        joined = subprocess.run(
            [sys.executable, "-c", _JOIN, address],
            capture_output=True,
            text=True,
            timeout=_JOIN_SECONDS,
            env=os.environ | _HASTE,
        )
    except subprocess.TimeoutExpired:
        raise InputError(f"`ray_address` {address!r} does not answer as Ray does") from None
    if joined.returncode == 0:
        return
    for said, hint in _HINTS.items():
        if said in joined.stderr:
            raise InputError(f"`ray_address` {address!r}: {hint}")
    line = (joined.stderr.strip().splitlines() or [f"status {joined.returncode}"])[-1]
    raise InputError(f"`ray_address` {address!r} cannot be joined ({line[:300]})")


def _host_and_port(address: str) -> tuple[str, int]:
    """The parts of an address.

    Raises:
        InputError: If it is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or "/" in host:
        raise InputError(f"`ray_address` {address!r} is neither auto nor HOST:PORT")
    return host.strip("[]"), int(port)


def _resources(ray: Any, demand: Demand) -> tuple[Resources, int]:
    """What each of the workers takes, and for how many of them there is room when nobody else is.

    Raises:
        InputError: If there is none for the first, or for all that are needed together.
    """
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = sum(machine.get("GPU", 0) for machine in machines)
    on_gpu = torch.device(demand.device).type == "cuda"
    # Workers that outnumber the GPUs share them evenly: 3 on 2 GPUs take a half each.
    share = 1 if demand.together or not gpus else math.ceil(demand.count / gpus)
    room = sum(
        int(min(machine.get("CPU", 0) // demand.threads, share * machine.get("GPU", 0)))
        if on_gpu
        else int(machine.get("CPU", 0) // demand.threads)
        for machine in machines
    )
    if room < (demand.count if demand.together else 1):
        gpu = f" and {1 / share:.2g} GPUs" if on_gpu else ""
        raise InputError(
            f"`{demand.flag}` {demand.count}: each takes {demand.threads} CPUs{gpu} of one "
            f"machine; Ray has {_amounts(ray.cluster_resources())}, room for {room}"
        )
    return Resources(demand.threads, 1 / share if on_gpu else 0.0), room


def _amounts(resources: dict[str, float]) -> str:
    return f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"


def _free() -> str:
    import ray

    there, free = ray.cluster_resources(), ray.available_resources()
    amounts = [
        f"{free.get(name, 0):g} of {there[name]:g} {name}s"
        for name in ("CPU", "GPU")
        if name in there
    ]
    return f"{' and '.join(amounts)} are free" if amounts else "Ray has no CPUs"


def one_line(error: BaseException) -> str:
    """An error's text on one line, not too long."""
    return " ".join(str(error).split())[:300]
