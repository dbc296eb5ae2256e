"""A pool of Lean REPLs: each process imports a header once and reuses its environment for every check."""

from __future__ import annotations

import os
import shutil
import signal
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rlpost.errors import InfrastructureError, MissingPackageError, UserError
from rlpost_verifiers.lean.messages import LeanOutput, Reason, Run
from rlpost_verifiers.lean.toolchain.base import Threads, ToolchainLean, check_limits
from rlpost_verifiers.lean.toolchain.cli import check_project
from rlpost_verifiers.lean.toolchain.kernels import find_version
from rlpost_verifiers.lean.toolchain.lean_interact import repl_command
from rlpost_verifiers.lean.toolchain.pin import Question, merge_imports
from rlpost_verifiers.lean.toolchain.process import words
from rlpost_verifiers.lean.toolchain.records import RecordError, read_record
from rlpost_verifiers.lean.toolchain.repl_pool import Pool, Slot
from rlpost_verifiers.lean.toolchain.repl_process import ReplLimitError, ReplLostError, ReplProcess
from rlpost_verifiers.lean.toolchain.ruling import Fault, Reply

_ATTEMPTS = 2
# Output of a process that runs out of its address space or stack.
_OUT_OF_MEMORY = (
    "bad_alloc",
    "out of memory",
    "Stack overflow",
    "Cannot allocate memory",
    "INTERNAL PANIC: out of memory",
)


class _ImportFailedError(InfrastructureError):
    """The REPL is running but cannot import the header."""


class LeanRepl(ToolchainLean):
    """A pool of REPL processes (https://github.com/leanprover-community/repl).

    A process is replaced when it has answered ``max_checks_per_process`` checks or holds more than ``max_memory_mb``,
    because the REPL keeps every environment it ever made. It is also replaced when a check runs into a limit, or when
    it dies; in the second case the check is repeated once in a new process.

    Args:
        command: the command that runs the REPL, e.g. ``("lake", "env", "/path/to/repl/.lake/build/bin/repl")``; None
            for the one that lean-interact built.
        project: folder of the Lake project to run in; None for the current folder.
        imports: the header that every check builds on.
        workers: number of processes, and of checks that run at the same time.
        cpu_seconds: CPU time of one check in seconds; a proof that uses it up is rejected.
        wall_seconds: wall-clock time of one check in seconds, by default ``2 * cpu_seconds + 30``.
        start_seconds: wall-clock time in seconds to start a process and import the header.
        memory_mb: address space of one process in MiB.
        max_memory_mb: resident memory at which a process is replaced, in MiB.
        max_checks_per_process: number of checks after which a process is replaced.
        allow_old_kernel: judge whole files also by a kernel with known faults (`toolchain.kernels`), by which a model's
            file can prove anything; without it such a Lean judges proofs and declarations only.

    Raises:
        UserError: for a setting that makes no sense.
        MissingPackageError: if the command does not exist, or none is given and lean-interact has none.
        InfrastructureError: if the REPL does not start or cannot import the header.
    """

    def __init__(
        self,
        command: Sequence[str] | str | None = None,
        project: str | Path | None = None,
        imports: str = "import Mathlib",
        workers: int = 1,
        cpu_seconds: float = 60.0,
        wall_seconds: float | None = None,
        start_seconds: float = 300.0,
        memory_mb: int = 16384,
        max_memory_mb: int = 8192,
        max_checks_per_process: int = 200,
        allow_old_kernel: bool = False,
    ) -> None:
        wall = 2 * cpu_seconds + 30 if wall_seconds is None else wall_seconds
        check_limits(cpu_seconds, wall, memory_mb)
        for key, value in (("start_seconds", start_seconds), ("max_checks_per_process", max_checks_per_process)):
            if value <= 0:
                raise UserError(f"{key} is {value}; use a positive number")
        self._cwd = check_project(project)
        self._command = words(command) if command is not None else repl_command(self._cwd)
        self._cpu, self._wall, self._start_seconds = cpu_seconds, wall, start_seconds
        self._memory_mb, self._max_memory_mb, self._max_checks = memory_mb, max_memory_mb, max_checks_per_process
        if os.sep not in self._command[0] and shutil.which(self._command[0]) is None:
            raise MissingPackageError(f"the REPL's command {self._command[0]!r} is not on the PATH; set 'command'")
        self._threads = Threads(workers)
        self._pool = Pool(workers)
        self._finalizer = weakref.finalize(self, _end, self._threads, self._pool)
        depends = (self._command, str(project), wall, memory_mb)
        try:
            super().__init__("lean.repl", self._probe(imports), imports, cpu_seconds, depends, allow_old_kernel)
        except BaseException:
            self._finalizer()
            raise

    def pids(self) -> list[int]:
        """Process ids of the REPLs that are up."""
        return self._pool.pids()

    @contextmanager
    def process(self, header: str = "") -> Iterator[tuple[ReplProcess, int]]:
        """One of the processes with the number of the environment that imports and the header's own imports make.

        Nobody else uses it during the block. It is replaced afterwards as after a check, and where the block ends with
        a `ReplLostError` or `ReplLimitError`.

        Raises:
            InfrastructureError: after `close`, or if it cannot be started.
        """
        self._require_open()
        slot = self._pool.take()
        try:
            imports, _ = merge_imports(self._imports, header)
            process = self._ready(slot, imports)
            yield process, process.environments[imports]
            process.checks += 1
            self._replace_if_used_up(slot, process)
        except (ReplLostError, ReplLimitError, RecordError):
            self._pool.drop(slot)
            raise
        finally:
            self._pool.put(slot)

    @property
    def limits(self) -> tuple[float, float]:
        """CPU time and wall-clock time of one check, in seconds."""
        return self._cpu, self._wall

    def _ask(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        return self._threads.map(self._ask_one, questions)

    def _stop(self) -> None:
        self._finalizer()

    def _ask_one(self, question: Question) -> Reply | Fault:
        slot = self._pool.take()
        try:
            return self._ask_slot(slot, question)
        finally:
            self._pool.put(slot)

    def _ask_slot(self, slot: Slot, question: Question) -> Reply | Fault:
        start, fault = time.monotonic(), Fault("unavailable", "Lean was closed before the check began")
        for attempt in range(_ATTEMPTS):
            if self._closing.is_set():
                return Fault("unavailable", "Lean was closed before the check ended")
            reason: Reason = "unavailable"
            try:
                process = self._ready(slot, question.imports)
                reason = "crashed"
                return self._ask_process(process, question, slot)
            except _ImportFailedError as error:
                return Fault("unavailable", str(error))
            except ReplLimitError as error:
                self._pool.drop(slot)
                return Reply(_limited_run(error, time.monotonic() - start), read_record({}))
            except (ReplLostError, RecordError) as error:
                self._pool.drop(slot)
                output = getattr(error, "output", "")
                line = next((line for line in output.splitlines() if any(m in line for m in _OUT_OF_MEMORY)), None)
                if attempt and line is not None:
                    # Out of memory twice, the second time alone in a new process: this proof is the cause.
                    run = Run(None, signal.SIGABRT, False, time.monotonic() - start, 0.0, 0, line)
                    return Reply(run, LeanOutput((), (line,)))
                fault = Fault(reason, str(error))
        return fault

    def _ask_process(self, process: ReplProcess, question: Question, slot: Slot) -> Reply | Fault:
        start, cpu = time.monotonic(), process.cpu_seconds()
        answer = process.command(question.body, process.environments[question.imports], self._cpu, self._wall)
        process.checks += 1
        used = process.cpu_seconds() - cpu
        memory = self._replace_if_used_up(slot, process)
        if isinstance(answer.get("message"), str):
            return Fault("crashed", f"the REPL could not run the check: {answer['message'][:200]}")
        output = read_record(answer)
        run = Run(1 if output.errors else 0, 0, False, time.monotonic() - start, used, memory, "")
        return Reply(run, output)

    def _replace_if_used_up(self, slot: Slot, process: ReplProcess) -> int:
        """Drop a process that has answered enough or holds too much; returns its memory in MiB."""
        memory = process.memory_mb()
        if process.checks >= self._max_checks or memory > self._max_memory_mb:
            self._pool.drop(slot)
        return memory

    def _ready(self, slot: Slot, imports: str) -> ReplProcess:
        """The slot's process, started and with the header imported as needed."""
        process = slot.process
        if process is None:
            process = ReplProcess(self._command, self._cwd, self._memory_mb, os.environ)
            self._pool.fill(slot, process)
        if imports not in process.environments:
            try:
                answer = process.command(imports, None, self._start_seconds, self._start_seconds)
                output = read_record(answer)
            except ReplLimitError as error:
                self._pool.drop(slot)
                raise _ImportFailedError(f"importing {imports!r} took more than {self._start_seconds:g} s") from error
            env = answer.get("env")
            if not isinstance(env, int) or output.errors:
                said = output.errors[0].text if output.errors else answer.get("message", answer)
                raise _ImportFailedError(f"the REPL cannot import {imports!r}: {str(said).strip()[:200]}")
            process.environments[imports] = env
        return process

    def _probe(self, imports: str) -> str:
        """Start one process as every check does, and return Lean's version, ``unknown`` if it does not tell."""
        imports = "\n".join(imports.strip().splitlines())
        slot = self._pool.take()
        try:
            process = self._ready(slot, imports)
            env = process.environments[imports]
            answer = process.command("#eval Lean.versionString", env, self._start_seconds, self._start_seconds)
            return find_version(read_record(answer)) or "unknown"
        except (RecordError, ReplLimitError) as error:
            raise InfrastructureError(f"the REPL {self._command[0]!r} does not answer as one: {error}") from error
        finally:
            self._pool.put(slot)


def _limited_run(error: ReplLimitError, seconds: float) -> Run:
    ending = signal.SIGXCPU if error.limit == "cpu" else 0
    return Run(None, ending, error.limit == "wall", seconds, error.cpu_seconds, 0, "")


def _end(threads: Threads, pool: Pool) -> None:
    pool.close()
    threads.close()
