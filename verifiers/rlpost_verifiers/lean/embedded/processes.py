"""Processes that end with the one they belong to. Part of the fork server's script."""

import ctypes
import os
import signal

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1


def die_with_parent(signal_number: int, parent: int) -> None:
    """Have the kernel signal this process when its parent ends, also if that has already happened."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal_number)


def kill_group(pid: int) -> None:
    """Kill every process of the check."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        # It was caught between fork and setsid: there is no group yet, only the process.
        os.kill(pid, signal.SIGKILL)
