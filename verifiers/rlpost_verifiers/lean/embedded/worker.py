"""One worker of the embedded Lean: a thread, its fork server, and the way from a finished process to a verdict."""

from __future__ import annotations

import queue
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rlpost.errors import DataError, InfrastructureError
from rlpost.types import Verdict
from rlpost_verifiers.lean.embedded.client import ZygoteLostError
from rlpost_verifiers.lean.embedded.judge import judge
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits, Server
from rlpost_verifiers.lean.messages import LeanOutput, Reason, Ruling, Run, classify, parse_output
from rlpost_verifiers.lean.source import build_source, build_statement, proof_start_line
from rlpost_verifiers.lean.task import ProofTask

ASSURANCE = "elaborated"
"""Elaborated by Lean in its own process and audited; the kernel was not asked a second time."""

_MAX_MESSAGES = 8
_MAX_MESSAGE_LENGTH = 500
_ATTEMPTS = 2

Job = tuple[ProofTask, "Future[Verdict]"]


class Worker(threading.Thread):
    """Takes checks from the queue, one at a time, to a fork server that only this thread uses.

    Attributes:
        ready: its first server, once that is up.
        pid: process id of the server, 0 while there is none.
        backend: which of ``backends`` the server is: the first without, the second with the prelude kept imported.
    """

    def __init__(
        self,
        jobs: queue.SimpleQueue[Job | None],
        library: Path,
        search_path: Path,
        prelude: Olean,
        limits: Limits,
        backends: tuple[str, str],
        import_once: bool,
    ) -> None:
        super().__init__(name="rlpost-lean", daemon=True)
        self.ready: Future[Server] = Future()
        self.pid = 0
        self.backend = backends[0]
        self._jobs, self._library, self._search_path, self._prelude = jobs, library, search_path, prelude
        self._limits, self._backends, self._import_once = limits, backends, import_once
        self._server: Server | None = None
        self._readable: set[str] = set()
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until a None is taken from the queue."""
        try:
            server = self._running_server()
        except Exception as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(server)
        for task, future in iter(self._jobs.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._check(task))
            except Exception as error:
                future.set_exception(error)
        self._drop_server()

    def stop(self) -> None:
        """From another thread: end the server now, and with it the check in flight; start no other."""
        self._stopping.set()
        server = self._server
        if server is not None:
            server.terminate()

    def _check(self, task: ProofTask) -> Verdict:
        start = time.monotonic()
        lost: InfrastructureError | None = None
        for _ in range(_ATTEMPTS):
            try:
                server = self._running_server()
            except (InfrastructureError, OSError) as error:
                return self._undecided("unavailable", str(error), time.monotonic() - start)
            if self._stopping.is_set():
                return self._undecided(
                    "unavailable", "Lean was closed before the check ended", time.monotonic() - start
                )
            try:
                run = server.run(build_source(task))
                output = parse_output(run.output)
                verdict = self._judge(task, run, output, server.compiled())
                if verdict.reason == "failed":
                    self._require_readable(server, task, output)
                return verdict
            except ZygoteLostError as error:
                lost = error
                self._drop_server()
        return self._undecided("crashed", str(lost), time.monotonic() - start)

    def _require_readable(self, server: Server, task: ProofTask, output: LeanOutput) -> None:
        """Tell a wrong proof from a statement that no proof could satisfy because Lean cannot read it.

        Asked only where Lean complained about something before the proof, and once for each statement.
        """
        statement = build_statement(task)
        if statement in self._readable or all(error.line >= proof_start_line(task) for error in output.errors):
            return
        run = server.run(statement)
        ruling = classify(run, parse_output(run.output), self._limits.cpu_seconds)
        if ruling.outcome == "rejected":
            raise DataError(f"task {task.name!r}: Lean cannot read the statement {task.statement!r}: {ruling.detail}")
        if ruling.outcome == "accepted":
            self._readable.add(statement)

    def _judge(self, task: ProofTask, run: Run, output: LeanOutput, compiled: bytes | None) -> Verdict:
        ruling, axioms = judge(run, output, compiled, self._prelude, self._limits.cpu_seconds)
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

    def _running_server(self) -> Server:
        if self._server is None:
            server = Server(self._library, self._search_path, self._prelude, self._limits, self._import_once)
            self._server, self.pid, self.backend = server, server.pid, self._backends[server.imported]
        return self._server

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server, self.pid = None, 0


def _evidence(ruling: Ruling, output: LeanOutput, proof_line: int, run: Run) -> dict[str, Any]:
    """Plain data for people; positions count from the first line of the proof."""
    messages = [ruling.detail] if ruling.detail and not output.errors else []
    for message in output.messages[:_MAX_MESSAGES]:
        text = message.text.strip()[:_MAX_MESSAGE_LENGTH]
        line = message.line - proof_line + 1
        place = f"{line}:{message.column}" if line > 0 else "the theorem"
        messages.append(f"{message.severity} at {place}: {text}")
    return {"messages": messages, "peak_rss_mb": run.peak_rss_mb}
