"""Parent side of the comparing process: sends questions with a deadline, and restarts a process that was lost."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import select
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from rlpost.errors import InfrastructureError, MissingPackageError

_START_S = 120.0
_POLL_S = 0.1
_CPU_GRACE_S = 0.5
"""The process itself stops a question at its CPU limit; if it cannot, it is killed this many CPU seconds later."""
_WALL_FACTOR = 10.0
"""Wall-clock limit of a question, in CPU limits: a busy machine grants a process little CPU."""
_END_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Result of one comparison, with a message (``said``) for the evidence.

    >>> Finding("correct", "4 against 4", 0.002, 0.002).reason
    'correct'
    """

    reason: str
    said: str
    seconds: float
    cpu_seconds: float | None
    own_fault: bool = True
    """Whether the answer caused it: False for a lost process, a gold answer that cannot be read, or if wall clock ran
    out without the CPU being used."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the comparing process is asked.

    Attributes:
        gold: the gold answer.
        answers: the answers of one text, which must all be right; with ``check``, forms of the gold answer itself.
        strict: whether an answer for a number must be a finished number.
        asks_percent: whether the question asks for a percentage.
        check: only ask whether the gold answer accepts itself in one of these forms.

    >>> Question("4", ("4.0",)).strict
    True
    """

    gold: str
    answers: tuple[str, ...]
    strict: bool = True
    asks_percent: bool = False
    check: bool = False


class Comparer:
    """One comparing process. Not thread-safe.

    Args:
        timeout_s: CPU limit of one question, in seconds.
        memory_mb: limit on the address space of the process, in MiB.

    Raises:
        MissingPackageError: if math-verify is not installed.
    """

    def __init__(self, timeout_s: float, memory_mb: int) -> None:
        if importlib.util.find_spec("math_verify") is None:
            raise MissingPackageError("verifier 'math' needs the package math-verify; pip install 'rlpost[math]'")
        self._timeout_s, self._memory_mb = timeout_s, memory_mb
        self._process: subprocess.Popen[bytes] | None = None
        self._ready, self._buffer = False, b""
        self._start()

    def ask(self, asked: Question) -> Finding:
        """Compare answers with the gold one, or check the gold answer.

        Raises:
            InfrastructureError: if no process can be started.
        """
        process = self._up()
        question = {**asdict(asked), "cpu_seconds": self._timeout_s}
        began, cpu = time.perf_counter(), _cpu_seconds(process.pid)
        try:
            assert process.stdin is not None
            process.stdin.write(json.dumps(question).encode() + b"\n")
            process.stdin.flush()
        except OSError:
            return self._lost("it was gone before the question", began)
        while True:
            row = self._line(process, _POLL_S)
            took = time.perf_counter() - began
            if row is not None:
                return Finding(row["reason"], row["said"], took, row["cpu_seconds"], row["reason"] != "bad_gold")
            used = _cpu_seconds(process.pid) - cpu
            if process.poll() is not None:
                return self._lost(f"it ended with status {process.returncode}", began)
            if used > self._timeout_s + _CPU_GRACE_S:
                self._end()
                return Finding("timeout", f"more than {self._timeout_s:g} s of CPU", took, used)
            if took > _WALL_FACTOR * self._timeout_s:
                self._end()
                said = f"{took:.0f} s went by and {used:.1f} s of CPU"
                return Finding("timeout", said, took, used, own_fault=False)

    def close(self) -> None:
        """End the process."""
        self._end()

    def _lost(self, how: str, began: float) -> Finding:
        self._end()
        return Finding("crashed", f"the comparing process was lost: {how}", time.perf_counter() - began, None, False)

    def _start(self) -> None:
        script = Path(__file__).with_name("child.py")
        # -P: without it the script's folder comes first on the path, and its files could shadow other modules
        command = [sys.executable, "-P", str(script), str(os.getpid()), str(self._memory_mb)]
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env
        )
        self._ready, self._buffer = False, b""

    def _up(self) -> subprocess.Popen[bytes]:
        """The process, started if necessary, once it has reported that it is ready."""
        if self._process is None or (self._process.poll() is not None and self._ready):
            self._end()
            self._start()
        process = self._process
        assert process is not None
        end = time.monotonic() + _START_S
        while not self._ready:
            if self._line(process, _POLL_S) is not None:
                self._ready = True
            elif process.poll() is not None:
                said = process.stderr.read().decode(errors="replace").strip().splitlines() if process.stderr else []
                self._end()
                raise InfrastructureError(
                    f"the comparing process of verifier 'math' does not start ({said[-1] if said else 'no message'}); "
                    "pip install --force-reinstall 'rlpost[math]'"
                )
            elif time.monotonic() > end:
                self._end()
                raise InfrastructureError(
                    f"the comparing process of verifier 'math' was not ready after {_START_S:g} s"
                )
        return process

    def _line(self, process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any] | None:
        """The next line of the process, parsed; None if there is none within ``seconds``."""
        assert process.stdout is not None
        if b"\n" not in self._buffer:
            if not select.select([process.stdout], [], [], seconds)[0]:
                return None
            read = os.read(process.stdout.fileno(), 2**16)
            if not read:  # the pipe is closed: the process is about to end
                time.sleep(seconds)
                return None
            self._buffer += read
        line, newline, rest = self._buffer.partition(b"\n")
        if not newline:
            return None
        self._buffer = rest
        return json.loads(line)

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait(_END_S)
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):  # raised where a question was never read
                    pipe.close()


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.Error:
        return 0.0
    return times.user + times.system
