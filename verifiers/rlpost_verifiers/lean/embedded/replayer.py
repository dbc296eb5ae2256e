"""The process that has the kernel check declarations, one request after another. Part of the fork server's script.

It is forked before any proof is read and confined like a check; it receives plain data only, never anything that ran as
part of a proof. It is replaced when it has died, after `MAX_REQUESTS` requests, or when it has grown by more than
`MAX_GROWTH_KB`. A proof that ends it ends only its own replay.
"""

import json
import os
import resource
import select
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from rlpost_verifiers.lean.embedded.processes import Budget, die_with_parent, kill_group
    from rlpost_verifiers.lean.embedded.replay import Kernel
    from rlpost_verifiers.lean.embedded.sandbox import Confinement
else:
    from processes import Budget, die_with_parent, kill_group
    from replay import Kernel
    from sandbox import Confinement

MAX_REQUESTS = 256
MAX_GROWTH_KB = 64 << 10
_LAST_WORDS_SECONDS = 1.0


class Replayer:
    """The kernel in a process of its own, connected by two pipes.

    Args:
        kernel: the kernel, which holds the declarations that every request builds on.
        confinement: restrictions that the process enters before it serves.
    """

    def __init__(self, kernel: Kernel, confinement: Confinement) -> None:
        self._kernel, self._confinement = kernel, confinement
        self._pid = self._memory_mb = self._requests = 0
        self._spent = 0.0
        self._pipes = (-1, -1)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Have the kernel check ``request["replay"]`` under the request's limits; the answer is like a check's."""
        start = time.perf_counter()
        if self._requests >= MAX_REQUESTS or self._gone() or self._memory_mb != request["memory_mb"]:
            self._end()
        if not self._pid:
            self._start(request["memory_mb"])
        self._requests += 1
        budget = Budget(self._pid, request["cpu_seconds"], request["wall_seconds"])
        line, exceeded = self._exchange(json.dumps(request).encode() + b"\n", budget)
        answer = _parse(line)
        if answer is None:
            return self._bury(line, exceeded, start)
        self._spent += answer["cpu_seconds"]
        if answer.pop("grown"):
            self._end()
        return {**answer, "signal": 0, "wall_exceeded": False, "seconds": time.perf_counter() - start}

    def forget(self) -> None:
        """Close the pipes to the process; for use in another fork."""
        for pipe in self._pipes:
            if pipe >= 0:
                os.close(pipe)

    def _gone(self) -> bool:
        """Whether the process has died since its last answer, which says nothing about the next request."""
        return self._pid != 0 and os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _start(self, memory_mb: int) -> None:
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        server = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self._serve(theirs_in, theirs_out, (ours_in, ours_out), memory_mb, server)
            finally:
                os._exit(1)
        os.close(theirs_in)
        os.close(theirs_out)
        self._pid, self._memory_mb, self._pipes = pid, memory_mb, (ours_in, ours_out)
        self._requests, self._spent = 0, 0.0

    def _serve(self, source: int, target: int, ours: tuple[int, int], memory_mb: int, server: int) -> None:
        os.setsid()
        die_with_parent(signal.SIGKILL, server)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for pipe in ours:
            os.close(pipe)
        os.dup2(source, 0)
        # If Lean panics, its message goes where the answer would: it is no valid answer, and so ends the process.
        os.dup2(target, 1)
        os.dup2(target, 2)
        resource.setrlimit(resource.RLIMIT_AS, (memory_mb << 20, memory_mb << 20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self._confinement.enter()
        begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with os.fdopen(0, "rb") as requests:
            for line in requests:
                os.write(1, json.dumps(self._check(json.loads(line), begun)).encode() + b"\n")

    def _check(self, request: dict[str, Any], begun: int) -> dict[str, Any]:
        before = _cpu()
        problem = self._kernel.check(json.loads(request["replay"]))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "exit_code": int(bool(problem)),
            "cpu_seconds": _cpu() - before,
            "peak_rss_mb": peak >> 10,
            "grown": peak - begun > MAX_GROWTH_KB,
            "output": json.dumps({"problem": problem}),
        }

    def _exchange(self, request: bytes, budget: Budget) -> tuple[bytes, str]:
        """Send a request and read one line, or less if the process dies or uses up a limit; also names that limit."""
        source, target = self._pipes
        os.set_blocking(target, False)
        watched, said = select.poll(), b""
        watched.register(source, select.POLLIN)
        watched.register(target, select.POLLOUT)
        # The client sends nothing while it waits, so readable input can only mean that it is gone.
        watched.register(0, select.POLLIN)
        while not said.endswith(b"\n"):
            ready = dict(watched.poll(budget.safe_ms()))
            if not ready and (exceeded := budget.exceeded()):
                return said, exceeded
            if 0 in ready:
                raise SystemExit
            if target in ready:
                try:
                    request = request[os.write(target, request) :]
                except BrokenPipeError:
                    request = b""
                if not request:
                    watched.unregister(target)
            if source in ready:
                chunk = os.read(source, 1 << 16)
                if not chunk:
                    return said, ""
                said += chunk
        return said, ""

    def _bury(self, said: bytes, exceeded: str, start: float) -> dict[str, Any]:
        """End a process that gave no answer, and report how it ended and which limit it had used up."""
        spent = self._spent
        if not exceeded:
            # It may still be exiting, and its signal tells what happened.
            pidfd = os.pidfd_open(self._pid)
            select.select([pidfd], [], [], _LAST_WORDS_SECONDS)
            os.close(pidfd)
        status, usage = self._end()
        ended_by = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        return {
            "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
            "signal": {"cpu": signal.SIGXCPU, "wall": 0}.get(exceeded, ended_by),
            "wall_exceeded": exceeded == "wall",
            "seconds": time.perf_counter() - start,
            "cpu_seconds": usage.ru_utime + usage.ru_stime - spent,
            "peak_rss_mb": usage.ru_maxrss >> 10,
            "output": said.decode("utf-8", "replace"),
        }

    def _end(self) -> tuple[int, resource.struct_rusage]:
        if not self._pid:
            return 0, resource.getrusage(resource.RUSAGE_SELF)
        kill_group(self._pid)
        _, status, usage = os.wait4(self._pid, 0)
        self.forget()
        self._pid, self._pipes = 0, (-1, -1)
        return status, usage


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
