"""Ends processes together with their parent or at their limits. Part of the fork server's script."""

import ctypes
import os
import signal
import time

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
# Low bits of a clock id: the nanoseconds that the scheduler gave to a process (linux/posix-timers.h).
_CPUCLOCK_SCHED = 2


class Budget:
    """The CPU time, threads included, and wall-clock time that a process may use from now on.

    The kernel's own limit on CPU time (``RLIMIT_CPU``) is too coarse to reject a proof by: it charges a whole tick to
    the process that runs when one falls, and next to other busy processes it ended checks at 0.82 s of 1 s. This
    class uses the clock that the process itself would read.

    Args:
        pid: process id of a child that has not been waited for.
        cpu_seconds: CPU time in seconds.
        wall_seconds: wall-clock time in seconds.
    """

    def __init__(self, pid: int, cpu_seconds: float, wall_seconds: float) -> None:
        self._clock = ~pid << 3 | _CPUCLOCK_SCHED
        self._cpu_end = time.clock_gettime(self._clock) + cpu_seconds
        self._wall_end = time.perf_counter() + wall_seconds

    def exceeded(self) -> str:
        """The limit that is used up: ``"cpu"``, also if both are, ``"wall"``, or ``""``."""
        if time.clock_gettime(self._clock) >= self._cpu_end:
            return "cpu"
        return "wall" if time.perf_counter() >= self._wall_end else ""

    def safe_ms(self) -> float:
        """Milliseconds in which a process that runs on one core at a time can use up neither limit."""
        cpu = self._cpu_end - time.clock_gettime(self._clock)
        return 1000 * max(0.001, min(cpu, self._wall_end - time.perf_counter()))


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
        # The process is between fork and setsid, and has no group yet.
        os.kill(pid, signal.SIGKILL)
