"""Ray itself: started here or joined, and left."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

import ray
from rlpost.config.schema import ClusterSection
from rlpost.errors import InfrastructureError

_OBJECT_STORE_BYTES = 2 * 2**30
_KNOCK_S = 5.0
_PREFIX = "rlpost-ray-"


@contextmanager
def cluster(section: ClusterSection) -> Iterator[None]:
    """A Ray cluster for the length of a block: a local one is started and stopped, another is joined and left.

    Raises:
        InfrastructureError: if the address cannot be reached.
    """
    # workers otherwise run at nice 15: on a shared machine their imports take five times as long
    os.environ.setdefault("RAY_worker_niceness", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    common = {"logging_level": logging.ERROR, "log_to_driver": False, "namespace": "rlpost"}
    if section.address == "local":
        sweep(Path(tempfile.gettempdir()))
        # a short path: Ray puts Unix sockets below it, whose names are limited to 107 bytes
        with (
            tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{os.getpid()}-", ignore_cleanup_errors=True) as folder,
            _temporary_files_in(folder),
        ):
            ray.init(
                address="local",
                num_cpus=section.cpus or os.cpu_count(),
                include_dashboard=False,
                object_store_memory=_OBJECT_STORE_BYTES,
                _temp_dir=folder,
                **common,
            )
            try:
                yield
            finally:
                ray.shutdown()
        return
    check_reachable(section.address)
    try:
        ray.init(address=section.address, **common)
    except (ConnectionError, ValueError, RuntimeError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InfrastructureError(
            f"cluster.address: no Ray cluster at {section.address!r} ({first}); start one with `ray start --head`, or "
            "use address local"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


def sweep(parent: Path) -> None:
    """Remove what drivers that were killed outright have left: our folders whose process is gone."""
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdigit() and not psutil.pid_exists(int(owner)) and folder.stat().st_uid == os.getuid():
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _temporary_files_in(folder: str) -> Iterator[None]:
    """Processes started in the block put temporary files into ``folder``: vLLM leaves one behind at every start."""
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
    """Knock at ``host:port`` first: Ray itself tries a dead address again and again for minutes.

    Raises:
        InfrastructureError: if nobody answers.
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


def resources() -> tuple[int, int]:
    """Cores and GPUs of the cluster."""
    found = ray.cluster_resources()
    return int(found.get("CPU", 1)), int(found.get("GPU", 0))
