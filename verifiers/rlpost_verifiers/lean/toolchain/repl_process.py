"""One REPL process and its protocol: a JSON object and a blank line in either direction.

The protocol is that of https://github.com/leanprover-community/repl: ``{"cmd": …, "env": …}`` is answered by
``{"env": …, "messages": […], "sorries": […]}`` over several lines, or by ``{"message": …}`` if it could not be run.
Each open ``sorry`` has a ``proofState``, and ``{"tactic": …, "proofState": …}`` leads from one to the next.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import IO, Any, Literal, cast

import psutil

from rlpost.errors import InfrastructureError
from rlpost.system.processes import GroupGuard
from rlpost_verifiers.lean.toolchain.process import family, family_cpu_seconds, kill_group, limited

_POLL_SECONDS = 0.25
_MAX_ANSWER_BYTES = 32 << 20
_CHUNK = 1 << 16


class ReplLostError(InfrastructureError):
    """The REPL died or sent an invalid answer; it must be closed.

    Attributes:
        output: text that it wrote to its error stream.
    """

    output = ""


class ReplLimitError(InfrastructureError):
    """A command used up a limit and the REPL was ended.

    Attributes:
        limit: ``cpu`` for CPU time, ``wall`` for wall-clock time.
        cpu_seconds: CPU time that the command had used by then.
    """

    limit: Literal["cpu", "wall"] = "wall"
    cpu_seconds = 0.0


class ReplProcess:
    """A running REPL; used by one thread at a time.

    Attributes:
        checks: number of commands it answered, imports not counted.
        environments: environment numbers by imported header.
    """

    def __init__(
        self, command: Sequence[str], cwd: Path | None, memory_mb: int, environment: Mapping[str, str]
    ) -> None:
        """Start the REPL; nothing is imported yet.

        Raises:
            ReplLostError: if it cannot be started.
        """
        self.checks = 0
        self.environments: dict[str, int] = {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process, closed in close()
        self._pending = b""
        try:
            self._process = subprocess.Popen(
                limited(command, memory_mb),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,
                bufsize=0,
            )
        except OSError as error:
            self._log.close()
            raise ReplLostError(f"the REPL {command[0]!r} cannot be started: {error.strerror}") from error
        # an idle REPL ends with its input, but one that runs an endless proof would outlive a killed parent
        self._guard = GroupGuard(self._process.pid)
        os.set_blocking(_pipe(self._process.stdin).fileno(), False)

    @property
    def pid(self) -> int:
        """Process id of its group leader."""
        return self._process.pid

    def memory_mb(self) -> int:
        """Resident memory in MiB, children included."""
        total = 0
        for process in family(self.pid):
            try:
                total += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
        return total >> 20

    def cpu_seconds(self) -> float:
        """CPU time used since it was started, children included."""
        return family_cpu_seconds(self.pid)

    def command(self, text: str, env: int | None, cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
        """Run Lean commands and return the REPL's answer.

        Args:
            text: the commands.
            env: number of the environment to start from, None for an empty one.
            cpu_seconds: limit on the CPU time, in seconds.
            wall_seconds: limit on the wall-clock time, in seconds.

        Raises:
            ReplLostError: if it dies or its answer is not a JSON object.
            ReplLimitError: if a limit is reached; the REPL is ended then.
        """
        return self.ask({"cmd": text} if env is None else {"cmd": text, "env": env}, cpu_seconds, wall_seconds)

    def tactic(self, text: str, state: int, cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
        """Run a tactic on a numbered proof state and return the REPL's answer; arguments and errors as of `command`."""
        return self.ask({"tactic": text, "proofState": state}, cpu_seconds, wall_seconds)

    def ask(self, request: Mapping[str, Any], cpu_seconds: float, wall_seconds: float) -> dict[str, Any]:
        """Send one request and return the answer; limits and errors as of `command`."""
        data = json.dumps(request, ensure_ascii=False).encode() + b"\n\n"
        if self._has_spoken():
            raise self._lost("answered what it was not asked")
        start_cpu, deadline = self.cpu_seconds(), monotonic() + wall_seconds
        try:
            self._send(data, deadline)
            raw = self._receive(deadline, start_cpu, cpu_seconds)
        except ReplLimitError:
            self.kill()
            raise
        try:
            answer = json.loads(raw)
        except ValueError as error:
            raise self._lost(f"answered {raw[:200]!r}") from error
        if not isinstance(answer, dict):
            raise self._lost(f"answered {raw[:200]!r}")
        return cast("dict[str, Any]", answer)

    def kill(self) -> None:
        """End the REPL now; may be called from another thread. `close` must still be called."""
        if self._process.returncode is None:
            kill_group(self._process.pid)

    def close(self) -> None:
        """End the REPL with everything it started; repeated calls do nothing."""
        # A REPL under lake survives the kill of its parent: end the whole group, and close its input.
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            _pipe(pipe).close()
        self._process.wait()
        self._guard.close()
        self._log.close()

    def _send(self, data: bytes, deadline: float) -> None:
        descriptor = _pipe(self._process.stdin).fileno()
        while data:
            left = deadline - monotonic()
            if left <= 0:
                raise ReplLimitError("the REPL did not take its input")
            try:
                if _ready(descriptor, select.POLLOUT, left):
                    data = data[os.write(descriptor, data[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError as error:
                raise self._lost("ended") from error
            except OSError as error:
                raise self._lost(f"takes no input ({error.strerror})") from error

    def _receive(self, deadline: float, start_cpu: float, cpu_limit: float) -> bytes:
        descriptor = _pipe(self._process.stdout).fileno()
        while True:
            text = self._pending.lstrip()
            if (end := text.find(b"\n\n")) >= 0:
                self._pending = text[end:]
                return text[:end]
            if _ready(descriptor, select.POLLIN, min(_POLL_SECONDS, deadline - monotonic())):
                chunk = os.read(descriptor, _CHUNK)
                if not chunk:
                    raise self._lost("ended")
                self._pending = text + chunk
                if len(self._pending) > _MAX_ANSWER_BYTES:
                    raise self._lost("answered without end")
                continue
            used = self.cpu_seconds() - start_cpu
            if used >= cpu_limit or monotonic() >= deadline:
                error = ReplLimitError(f"the REPL used {used:.1f} s of CPU time and did not answer")
                error.limit, error.cpu_seconds = "cpu" if used >= cpu_limit else "wall", used
                raise error

    def _has_spoken(self) -> bool:
        """Whether unread output is left that would be taken for the answer to the next command."""
        descriptor = _pipe(self._process.stdout).fileno()
        if _ready(descriptor, select.POLLIN, 0.0):
            self._pending += os.read(descriptor, _CHUNK)
        return bool(self._pending.strip())

    def _lost(self, what: str) -> ReplLostError:
        self._log.seek(0)
        output = self._log.read(_CHUNK).decode("utf-8", "replace").strip()
        last = output.splitlines()[-1:]
        error = ReplLostError(f"the REPL (pid {self.pid}) {what}{': ' + last[0][:200] if last else ''}")
        error.output = output
        return error


def _ready(descriptor: int, event: int, seconds: float) -> bool:
    poller = select.poll()
    poller.register(descriptor, event)
    return bool(poller.poll(max(0.0, seconds) * 1000))


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the REPL is started with pipes"
    return stream
