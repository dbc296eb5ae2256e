"""Processes that end when their parent process ends, however it ends."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import psutil

_PR_SET_PDEATHSIG = 1
# a line on stdin means that all is done; end of file without a line means that the parent is gone
_GUARD = 'read -r _ || kill -s KILL "$@"'
_GROUP_GUARD = 'read -r _ || kill -s KILL -- "-$1"'


def end_with_parent(number: int = signal.SIGKILL, parent: int | None = None) -> None:
    """Have the kernel signal this process when its parent process is gone; on Linux only.

    Args:
        number: number of the signal.
        parent: process id of the parent if known; then a parent that is already gone is noticed too.
    """
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os.kill(os.getpid(), number)


@contextmanager
def kill_at_exit(processes: Sequence[psutil.Process]) -> Iterator[None]:
    """Kill these processes at the end of the block, or when this process ends before that.

    For processes whose code is not ours, so that they cannot call `end_with_parent` themselves. A shell waits on a
    pipe of which this process holds the other end; it runs in a session of its own, out of reach of Ctrl-C.
    """
    guard = _guard(_GUARD, *(process.pid for process in processes))
    try:
        yield
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        guard.communicate(b"\n")


class GroupGuard:
    """Kills a process group when this process ends without `close`, however it ends; see `kill_at_exit`.

    Args:
        pid: process id of the group's leader.
    """

    def __init__(self, pid: int) -> None:
        self._guard = _guard(_GROUP_GUARD, pid)

    def close(self) -> None:
        """Leave the group alone from now on; repeated calls do nothing."""
        if self._guard.returncode is None:
            self._guard.communicate(b"\n")


def _guard(script: str, *pids: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["/bin/sh", "-c", script, "rlpost-guard", *map(str, pids)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
