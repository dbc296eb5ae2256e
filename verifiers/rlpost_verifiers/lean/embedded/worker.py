"""One worker of the embedded Lean: a thread that runs jobs on a fork server of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from rlpost.errors import InfrastructureError
from rlpost_verifiers.lean.embedded.client import ZygoteLostError
from rlpost_verifiers.lean.embedded.olean import Olean
from rlpost_verifiers.lean.embedded.server import Limits, Server

_ATTEMPTS = 2

Work = Callable[[Server, str], Any]
"""A job's function: takes the server and the fingerprint that its verdicts carry."""

Job = tuple[Work, "Future[Any]"]


class UnavailableError(InfrastructureError):
    """No Lean is available: it cannot be started, or was closed."""


class Worker(threading.Thread):
    """Runs jobs from the queue, one at a time, on a fork server that only this thread uses.

    A lost server is replaced and its job is repeated once; if that fails too, the job fails with the error.

    Attributes:
        ready: the first server, once it is running.
        pid: process id of the server, 0 while there is none.
        backend: fingerprint of the current server: the first of ``backends`` if it imports the prelude for every
            check, the second if it keeps the prelude imported.
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
        self._stopping = threading.Event()

    def run(self) -> None:
        """Serve until a None is taken from the queue."""
        try:
            server = self._running_server()
        except Exception as error:
            self.ready.set_exception(error)
            return
        self.ready.set_result(server)
        for work, future in iter(self._jobs.get, None):
            if not future.set_running_or_notify_cancel():
                continue
            try:
                future.set_result(self._do(work))
            except Exception as error:
                future.set_exception(error)
        self._drop_server()

    def stop(self) -> None:
        """End the server and its running job now, and start no other; to be called from another thread."""
        self._stopping.set()
        server = self._server
        if server is not None:
            server.terminate()

    def _do(self, work: Work) -> Any:
        for attempt in range(1, _ATTEMPTS + 1):
            self._require_open()
            try:
                server = self._running_server()
            except (InfrastructureError, OSError) as error:
                raise UnavailableError(str(error)) from error
            # if closed while the server was starting, `stop` has not seen it
            self._require_open()
            try:
                return work(server, self.backend)
            except ZygoteLostError:
                self._drop_server()
                if attempt == _ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _require_open(self) -> None:
        if self._stopping.is_set():
            raise UnavailableError("Lean was closed before the check ended")

    def _running_server(self) -> Server:
        if self._server is None:
            server = Server(self._library, self._search_path, self._prelude, self._limits, self._import_once)
            self._server, self.pid, self.backend = server, server.pid, self._backends[server.imported]
        return self._server

    def _drop_server(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server, self.pid = None, 0
