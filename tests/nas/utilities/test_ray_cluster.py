"""Whether Ray will be there, and what is said where it is not."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import pytest
from small_runs import ROOT

import nas.utilities.ray_cluster
from nas.utilities.errors import InputError
from nas.utilities.ray_cluster import Demand, RayCluster

ONE = Demand(count=1, threads=1, device="cpu")


@pytest.mark.parametrize(
    "address", ["nowhere", "nowhere:port", ":6379", "ray://head:10001", "10.0.0.1:", ""]
)
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(InputError, match=r"is neither auto nor HOST:PORT$"):
        RayCluster(address).check([ONE])


def test_an_address_where_nothing_listens_is_refused_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with pytest.raises(InputError, match=rf"^`ray_address` '{address}' does not answer \("):
            RayCluster(address).check([ONE])


@pytest.mark.slow
def test_an_address_where_something_else_listens_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.utilities.ray_cluster, "_JOIN_SECONDS", 3.0)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(InputError, match=r"does not answer as Ray does$"):
            RayCluster(address).check([ONE])


def test_a_step_ends_when_the_head_of_its_cluster_does_not_answer_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nas.utilities.ray_cluster, "_BETWEEN_CALLS", 0.01)
    monkeypatch.setattr(nas.utilities.ray_cluster, "_GONE_AFTER", 0.5)
    cluster = RayCluster()
    with socket.socket() as head:
        head.bind(("127.0.0.1", 0))
        head.listen()
        cluster._head = head.getsockname()
        cluster.look(served=True, missing="nothing")
        time.sleep(0.7)
        cluster.look(served=True, missing="nothing")
    time.sleep(0.7)  # busy with something else
    cluster.look(served=True, missing="nothing")  # it may come back
    time.sleep(0.7)
    with pytest.raises(InputError, match=r"does not answer any more; the same command goes on"):
        cluster.look(served=True, missing="nothing")


def test_a_long_temporary_folder_is_passed_over_for_a_shorter_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    assert nas.utilities.ray_cluster._temporary_folder() == Path("/tmp/ray")


def test_without_a_folder_that_can_be_written_there_is_no_ray_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(InputError, match="set RAY_TMPDIR to one"):
        RayCluster().check([ONE])


def test_what_workers_share_must_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", ["free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda place: usage(2 * 10**9))
    RayCluster().check([ONE], stored_bytes=10**9)
    with pytest.raises(InputError, match=r"^`workers` share 3\.0 GB .* 2\.0 GB in /dev/shm"):
        RayCluster().check([ONE], stored_bytes=2 * 10**9)


LISTENING = """
import glob, json, os
from nas.utilities.ray_cluster import Demand, RayCluster

ray, _ = RayCluster().start(Demand(count=1, threads=1, device="cpu"))

class Actor:
    def process(self):
        return os.getpid()

actor = ray.remote(num_cpus=1)(Actor).remote()
ray.get(actor.process.remote())
addresses = {}
for table in ("/proc/net/tcp", "/proc/net/tcp6"):
    for line in open(table).readlines()[1:]:
        fields = line.split()
        if fields[3] == "0A":
            addresses[f"socket:[{fields[9]}]"] = fields[1].split(":")[0]
ours = {}
for descriptor in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        process, address = descriptor.split("/")[2], addresses.get(os.readlink(descriptor))
        if address and os.getsid(int(process)) == os.getsid(0):
            ours[open(f"/proc/{process}/comm").read().strip()] = address
    except OSError:
        pass
print(json.dumps(ours))
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="sockets are listed by Linux")
def test_a_ray_of_this_machine_listens_on_the_loopback_alone_and_needs_no_home() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LISTENING],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        start_new_session=True,
        env=os.environ | {"HOME": "/proc/nowhere", "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    listening = json.loads(done.stdout)
    assert {"gcs_server", "raylet"} <= listening.keys()
    loopback = "0100007F"
    assert all(address.endswith(loopback) for address in listening.values()), listening
