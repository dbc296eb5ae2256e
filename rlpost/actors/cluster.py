"""The Ray cluster of a run: started here and stopped, or joined and left."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from ray.exceptions import RayError

import ray
from rlpost.actors.cluster_probe import prepare_to_join
from rlpost.actors.placement import Node, Plan
from rlpost.config.schema import ClusterSection
from rlpost.errors import InfrastructureError, PlacementError, describe_error, first_line
from rlpost.system.processes import kill_at_exit

_OBJECT_STORE_BYTES = 2 * 2**30
_INLINE_BYTES = 32 * 2**10
_KNOCK_S = 5.0
_POLL_S = 1.0
_PREFIX = "rlpost-ray-"
# an agent's command line before it has set its process title, and that title
_AGENT = re.compile(r"/dashboard/agent\.py$|/runtime_env/agent/main\.py$|^ray::\w+Agent\b")


@contextmanager
def cluster(section: ClusterSection) -> Iterator[None]:
    """A Ray cluster for the duration of a block: a local one is started and stopped, another is joined and left.

    If this process is connected to a cluster already, as within another such block or in a notebook after
    ``ray.init``, that cluster is used and left running.

    Raises:
        InfrastructureError: if Ray does not start, or the address cannot be reached or joined.
    """
    if ray.is_initialized():
        yield
        return
    # workers otherwise run at nice 15: on a shared machine their imports take five times as long
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # what an actor returns below this size is kept in the driver's own memory, by default up to 100 kB for each group
    os.environ.setdefault("RAY_max_direct_call_object_size", str(_INLINE_BYTES))
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "rlpost"}
    if section.address == "local":
        sweep(Path(tempfile.gettempdir()))
        # a short path: Ray puts Unix sockets below it, whose names are limited to 107 bytes
        with (
            tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as folder,
            _temporary_files_in(folder),
        ):
            with _signals_kept(), _start_explained():
                ray.init(
                    address="local",
                    num_cpus=section.cpus or os.cpu_count(),
                    include_dashboard=False,
                    object_store_memory=_OBJECT_STORE_BYTES,
                    _temp_dir=folder,
                    **common,
                )
            with kill_at_exit(_agents()):
                try:
                    yield
                finally:
                    ray.shutdown()
        return
    check_reachable(section.address)
    prepare_to_join(section.address, section.start_timeout_s)
    try:
        with _signals_kept():
            ray.init(address=section.address, **common)
    except (ConnectionError, ValueError, RuntimeError, RayError) as error:
        raise InfrastructureError(
            f"cluster.address: the Ray cluster at {section.address!r} answered and is gone ({first_line(error)}); see "
            "`ray status` there"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextmanager
def _start_explained() -> Iterator[None]:
    """Ray starts within half a minute or raises whatever part of it failed: one line for each."""
    try:
        yield
    except Exception as error:
        ray.shutdown()  # what it had started by then
        raise InfrastructureError(
            f"cluster.address: local: Ray does not start here ({describe_error(error)}); see what holds the machine's "
            "cores, memory, /dev/shm and /tmp, or try rlpost doctor"
        ) from None


def _agents() -> list[psutil.Process]:
    """The agents of the Ray node that this process has started; if the driver is killed, they outlive it by a minute.

    They notice within seconds that their raylet is gone, and then try for 60 s to tell the driver.
    """
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # it has ended since
            if any(_AGENT.search(argument) for argument in process.cmdline()):
                found.append(process)
    return found


def sweep(parent: Path) -> None:
    """Remove the temporary folders of earlier drivers that were killed: ours, if their process is gone."""
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Restore the SIGTERM handler that Ray replaces by its own: Ray's ends the driver, ours lets the step finish."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Processes started in the block put temporary files into ``folder``: vLLM leaves one over at every start."""
    before = os.environ.get("TMPDIR")
    os.environ["TMPDIR"] = folder
    try:
        yield
    finally:
        if before is None:
            del os.environ["TMPDIR"]
        else:
            os.environ["TMPDIR"] = before


def check_reachable(address: str) -> None:
    """Connect to ``host:port`` before Ray does, because Ray retries a dead address for minutes.

    Raises:
        InfrastructureError: if nothing answers there.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # "auto": Ray looks the address up and fails at once if there is none
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
    except OSError as error:
        raise InfrastructureError(
            f"cluster.address: nobody answers at {address!r} ({error}); start a cluster with `ray start --head`, or "
            "use address local"
        ) from None


def nodes() -> list[Node]:
    """The cluster's machines that are alive, the driver's own first."""
    here = ray.get_runtime_context().get_node_id()
    found = [
        Node(
            id=entry["NodeID"],
            address=entry["NodeManagerAddress"],
            cpus=int(entry["Resources"].get("CPU", 0)),
            gpus=int(entry["Resources"].get("GPU", 0)),
            # Ray has subtracted its object store; actors can still use that memory, as they read objects in place
            memory_gb=sum(entry["Resources"].get(name, 0.0) for name in ("memory", "object_store_memory")) / 2**30,
        )
        for entry in ray.nodes()
        if entry["Alive"]
    ]
    return sorted(found, key=lambda node: (node.id != here, node.address, node.id))


def this_machine(section: ClusterSection) -> Node:
    """The resources that a local cluster would have, without starting one."""
    import torch

    memory = psutil.virtual_memory().available / 2**30
    return Node("local", "127.0.0.1", section.cpus or os.cpu_count() or 1, torch.cuda.device_count(), memory)


def wait_for_placement(
    find: Callable[[Sequence[Node]], Plan], section: ClusterSection, log: Callable[[str], None]
) -> Plan:
    """A plan that the cluster's nodes can hold; waits for nodes to join, except on a local cluster.

    Args:
        find: makes a plan for a list of nodes.
        section: address and deadline.
        log: called with a line about the resources that are waited for.

    Raises:
        PlacementError: if resources are missing, with numbers; at once on this machine, at the deadline elsewhere.
    """
    end, told = time.monotonic() + section.start_timeout_s, ""
    while True:
        plan = find(nodes())
        if not plan.missing:
            return plan
        lacking = "; ".join(plan.missing)
        waited = "" if section.address == "local" else f" after {section.start_timeout_s:g} s"
        if section.address == "local" or time.monotonic() > end:
            raise PlacementError(f"the cluster cannot hold the run{waited}: {lacking}; see `rlpost plan`")
        if lacking != told:
            log(f"waiting up to {max(end - time.monotonic(), 0):.0f} s for nodes: {lacking}")
            told = lacking
        time.sleep(_POLL_S)
