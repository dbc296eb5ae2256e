"""Runs external programs under limits: each in a process group of its own that is ended whatever happens."""

from __future__ import annotations

import contextlib
import glob
import math
import os
import resource
import select
import shlex
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

import psutil

from rlpost_verifiers.lean.messages import Run

# Limits are set by a shell that then becomes the program: code between fork and exec is unsafe where threads are.
_LIMITER = 'ulimit -c 0; ulimit -f {blocks}; {cpu}ulimit -v {kib}; exec "$@"'
# The kernel's limit on CPU time counts ticks, by which a busy machine charges a fifth too much and more: it is only for
# processes that have left the watched family.
_CPU = "ulimit -t {seconds}; "
_BLOCK = 512
_POLL_SECONDS = 0.25
_LISTS_CHILDREN = Path("/proc/thread-self/children").exists()
# Far above any honest output; a proof that prints more is ended by the limit on file size.
_MAX_FILE_MB = 64
_MAX_OUTPUT_BYTES = 4 << 20
_MAX_ERROR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of one process.

    Attributes:
        cpu_seconds: CPU time in seconds, that of its child processes included.
        wall_seconds: wall-clock time in seconds.
        memory_mb: address space in MiB; the compiled libraries that Lean maps into memory count.
    """

    cpu_seconds: float
    wall_seconds: float
    memory_mb: int


def words(command: Sequence[str] | str) -> tuple[str, ...]:
    """A command as a tuple of words; a string is split as a shell would.

    >>> words("lake env lean")
    ('lake', 'env', 'lean')
    """
    return tuple(shlex.split(command)) if isinstance(command, str) else tuple(command)


def limited(command: Sequence[str], memory_mb: int, cpu_seconds: float | None = None) -> list[str]:
    """``command`` with limits on its address space, the files it writes and, if given, a loose one on its CPU time."""
    cpu = "" if cpu_seconds is None else _CPU.format(seconds=2 * math.ceil(cpu_seconds) + 1)
    blocks = (_MAX_FILE_MB << 20) // _BLOCK
    return ["/bin/sh", "-c", _LIMITER.format(blocks=blocks, cpu=cpu, kib=memory_mb << 10), "sh", *command]


def kill_group(pid: int) -> None:
    """Kill every process of the group that ``pid`` leads; one that is gone is fine."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        # A group whose members have all ended may be reported as one or the other.
        return


def family(pid: int) -> list[psutil.Process]:
    """A process and all its descendants that are still running."""
    found: list[psutil.Process] = []
    new = [pid]
    while new:
        try:
            found.append(psutil.Process(new.pop()))
            new += _children(found[-1])
        except psutil.NoSuchProcess:
            continue
    return found


def _children(parent: psutil.Process) -> list[int]:
    """Ids of child processes as the kernel lists them for each thread: psutil would read every process, per check."""
    if not _LISTS_CHILDREN:
        return [child.pid for child in parent.children()]
    found: list[int] = []
    for file in glob.glob(f"/proc/{parent.pid}/task/*/children"):
        with contextlib.suppress(OSError):  # a thread that is gone by now
            found += map(int, Path(file).read_text().split())
    return found


def family_cpu_seconds(pid: int) -> float:
    """CPU time that a process has used, that of its children included."""
    total = 0.0
    for process in family(pid):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


class Processes:
    """The running processes of a backend, so that closing it can end them all."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._live: set[int] = set()
        self._closed = False

    def kill_all(self) -> None:
        """End every process, and each that is started from now on."""
        with self._lock:
            self._closed = True
            for pid in self._live:
                kill_group(pid)

    def pids(self) -> list[int]:
        """Process ids of the group leaders that are up."""
        with self._lock:
            return sorted(self._live)

    def run(
        self, command: Sequence[str], limits: Limits, folder: Path, cwd: Path, environment: Mapping[str, str]
    ) -> Run:
        """Run ``command`` until it ends or uses up a limit.

        Args:
            command: program and arguments.
            limits: limits on its CPU time, wall-clock time and address space.
            folder: a private folder for the files that collect its output.
            cwd: working directory.
            environment: environment variables.

        Raises:
            OSError: if the program cannot be started.
        """
        start = monotonic()
        out, err = folder / "stdout", folder / "stderr"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(
                limited(command, limits.memory_mb, limits.cpu_seconds),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
            )
        exceeded, used, status, usage = self._wait(process, limits)
        exit_code, ending = (None, int(signal.SIGXCPU)) if exceeded == "cpu" else _decode(status)
        output = _read(out, _MAX_OUTPUT_BYTES)
        if ending or exit_code not in (0, 1) or not output.strip():
            # A crash reports on the other stream; of a process that ended well only the messages count.
            output += "" if exit_code == 0 else f"\n{_read(err, _MAX_ERROR_BYTES)}"
        seconds, peak = monotonic() - start, usage.ru_maxrss >> 10
        # A process killed together with the parent that would have waited for it counts in the first figure only.
        cpu = max(used, usage.ru_utime + usage.ru_stime)
        return Run(exit_code, ending, exceeded == "wall", seconds, cpu, peak, output)

    def _wait(self, process: subprocess.Popen[bytes], limits: Limits) -> tuple[str, float, int, resource.struct_rusage]:
        with self._lock:
            self._live.add(process.pid)
            if self._closed:
                kill_group(process.pid)
        try:
            exceeded, used = _watch(process.pid, limits)
        finally:
            # Reaped last: its process id stays taken until nobody can send it a signal any more.
            with self._lock:
                kill_group(process.pid)
                self._live.discard(process.pid)
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        return exceeded, used, status, usage


def _watch(pid: int, limits: Limits) -> tuple[str, float]:
    """Wait until a process ends or uses up a limit; returns that limit, empty if none, and the last CPU time read."""
    end, used = monotonic() + limits.wall_seconds, 0.0
    pidfd = os.pidfd_open(pid)
    try:
        ended = select.poll()
        ended.register(pidfd, select.POLLIN)
        while not ended.poll(1000 * max(0.0, min(_POLL_SECONDS, end - monotonic()))):
            used = family_cpu_seconds(pid)
            if used >= limits.cpu_seconds:
                return "cpu", used
            if monotonic() >= end:
                return "wall", used
        return "", used
    finally:
        os.close(pidfd)


def _decode(status: int) -> tuple[int | None, int]:
    """Exit status or signal; a program that passes on how its own child ended (as lake does) is read the same way."""
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return None, -code
    return (None, code - 128) if code > 128 else (code, 0)


def _read(path: Path, limit: int) -> str:
    with path.open("rb") as file:
        raw = file.read(limit + 1)
    if len(raw) > limit:
        # Half a line is no message, and would pass for a crash.
        raw = raw[: raw.rfind(b"\n", 0, limit) + 1 or limit]
    return raw.decode("utf-8", "replace")
