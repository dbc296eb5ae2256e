"""A Kimina server: remote REPLs, used over HTTP (https://github.com/project-numina/kimina-lean-server)."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, get_args

from rlpost.errors import UserError
from rlpost.types import Verdict
from rlpost_verifiers.lean.messages import LeanOutput, Run
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.base import ToolchainLean
from rlpost_verifiers.lean.toolchain.kernels import find_version
from rlpost_verifiers.lean.toolchain.kimina_http import Client, Endpoint, NoEndpointError, ServerError
from rlpost_verifiers.lean.toolchain.pin import Question
from rlpost_verifiers.lean.toolchain.records import RecordError, read_record
from rlpost_verifiers.lean.toolchain.ruling import Fault, Reply

# Percent of one core. The server reports the peak over a check's seconds, and current versions not even that when it
# timed out; below this the check was surely kept waiting.
_BUSY_PERCENT = 80.0


class KiminaServer(ToolchainLean):
    """Checks by a Kimina server, which must be able to import ``imports`` and run a Lean that can be trusted.

    The server has limits of its own; what it does not report (memory, and CPU time on its old endpoint) is not known
    here either. A check that times out there is undecided, unless the server reports that it kept a core busy.

    Args:
        url: the server's address, e.g. ``http://localhost:8000``.
        api_key: sent as bearer token; None for none.
        endpoint: ``check`` (``POST /api/check``), ``verify`` (``POST /verify``, of older servers), or ``auto``: the
            old one where the server does not know the new one.
        imports: first lines of every checked file; the server keeps one environment for each.
        timeout_s: seconds the server may spend on one check, importing included.
        batch: number of checks in one request.
        concurrency: number of requests in flight.
        wait_s: seconds beyond the checks' own that a request may wait at the server, e.g. for a free REPL, or spend
            on retries.
        retries: number of retries of a failed request.
        backoff_s: seconds before the first retry; the wait doubles each time and is varied at random.
        lean_version: the Lean version of the server, e.g. ``4.34.0``, for the fingerprint. By default Lean itself is
            asked there before the first statement or whole file, since no endpoint tells.
        allow_old_kernel: judge whole files also by a kernel with known faults (`toolchain.kernels`), by which a model's
            file can prove anything; without it such a Lean judges proofs and declarations only.

    Raises:
        UserError: for a setting that makes no sense. The server is first contacted when there is something to check.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        endpoint: Literal["auto", "check", "verify"] = "auto",
        imports: str = "import Mathlib",
        timeout_s: float = 60.0,
        batch: int = 8,
        concurrency: int = 4,
        wait_s: float = 60.0,
        retries: int = 3,
        backoff_s: float = 1.0,
        lean_version: str = "unknown",
        allow_old_kernel: bool = False,
    ) -> None:
        if endpoint not in ("auto", *get_args(Endpoint)):
            raise UserError(f"endpoint is {endpoint!r}; use 'auto', 'check' or 'verify'")
        for key, value, least in (("timeout_s", timeout_s, 1), ("batch", batch, 1), ("concurrency", concurrency, 1)):
            if value < least:
                raise UserError(f"{key} is {value}; use at least {least}")
        for key, value in (("wait_s", wait_s), ("retries", retries), ("backoff_s", backoff_s)):
            if value < 0:
                raise UserError(f"{key} is {value}; use zero or more")
        self._client = Client(url, api_key, retries, backoff_s)
        self._endpoint: Endpoint = "check" if endpoint == "auto" else endpoint
        self._undecided_endpoint = endpoint == "auto"
        self._asked_version = False
        self._timeout_s, self._batch, self._concurrency, self._wait_s = timeout_s, batch, concurrency, wait_s
        depends = (self._client.url, endpoint)
        super().__init__("lean.kimina", lean_version, imports, timeout_s, depends, allow_old_kernel)

    def _ask(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        if not questions:
            return []
        batches = [questions[start : start + self._batch] for start in range(0, len(questions), self._batch)]
        with ThreadPoolExecutor(self._concurrency, "rlpost-kimina") as pool:
            return [reply for replies in pool.map(self._ask_batch, batches) for reply in replies]

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """See `ToolchainLean.check`."""
        if any(task.mode == "file" for task in tasks):
            self._learn_version()
        return super().check(tasks)

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """See `ToolchainLean.read_statements`."""
        self._learn_version()
        return super().read_statements(tasks)

    def _stop(self) -> None:
        self._client.close()

    def _learn_version(self) -> None:
        """Have the server's Lean tell its version, unless that is known; the fingerprint stays as it is."""
        if self._lean_version != "unknown" or self._asked_version or self._closing.is_set():
            return
        try:
            records = self._request({"0": f"{self._imports.strip()}\n#eval Lean.versionString"})
        except ServerError:
            return  # the checks that follow tell that the server is away, and the next ones ask again
        self._asked_version = True
        reply = self._reply(records["0"]) if "0" in records else None
        if isinstance(reply, Reply):
            self._lean_version = find_version(reply.output) or "unknown"
        self._judge_kernel()

    def _refusal(self, task: ProofTask) -> str | None:
        untold = self._lean_version == "unknown" and not (self._asked_version or self._allow_old_kernel)
        if task.mode == "file" and untold:
            return f"the Kimina server at {self._client.url} did not tell which Lean it runs, which whole files need"
        return super()._refusal(task)

    def _judge_kernel(self) -> None:
        if self._lean_version == "unknown" and not self._asked_version:
            return  # Lean is asked before it matters
        super()._judge_kernel()

    def _ask_batch(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        codes = {str(number): question.source for number, question in enumerate(questions)}
        if self._closing.is_set():
            return [Fault("unavailable", "Lean was closed before the check began")] * len(codes)
        try:
            records = self._request(codes)
        except ServerError as error:
            return [Fault("unavailable", str(error))] * len(codes)
        missing = Fault("unavailable", f"the Kimina server at {self._client.url} left this check out of its answer")
        return [self._reply(records[key]) if key in records else missing for key in codes]

    def _request(self, codes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
        deadline_s = self._timeout_s * len(codes) + self._wait_s
        endpoint = self._endpoint
        try:
            records = self._client.ask(endpoint, codes, self._timeout_s, deadline_s)
        except NoEndpointError:
            if not self._undecided_endpoint or endpoint == "verify":
                raise
            records = self._client.ask("verify", codes, self._timeout_s, deadline_s)
            self._endpoint = "verify"
        # One valid answer tells which endpoint the server has; a proxy's later 404 must not change that.
        self._undecided_endpoint = False
        return records

    def _reply(self, record: Mapping[str, Any]) -> Reply | Fault:
        error, response = record.get("error"), record.get("response")
        if isinstance(error, str) and error:
            return self._read_error(error, record)
        if not isinstance(response, dict):
            return Fault("unavailable", f"the Kimina server answers neither error nor response: {str(record)[:200]}")
        if isinstance(response.get("message"), str):
            return Fault("crashed", f"the server's REPL could not run the check: {response['message'][:200]}")
        try:
            output = read_record(response)
        except RecordError as problem:
            return Fault("unavailable", f"the Kimina server answers nonsense: {problem}")
        seconds = _number(record.get("time"), _number(response.get("time"), 0.0))
        peak = int(_number(_diagnostics(record).get("memory_max"), 0.0)) >> 20
        return Reply(Run(1 if output.errors else 0, 0, False, seconds, 0.0, peak, ""), output)

    def _read_error(self, error: str, record: Mapping[str, Any]) -> Reply | Fault:
        if "timed out" not in error:
            return Fault("unavailable", f"the Kimina server reports: {error[:200]}")
        if _number(_diagnostics(record).get("cpu_max"), 0.0) < _BUSY_PERCENT or "header" in error:
            return Fault("timeout", f"the Kimina server reports: {error[:200]}", self._timeout_s)
        run = Run(None, signal.SIGXCPU, False, self._timeout_s, self._timeout_s, 0, "")
        return Reply(run, LeanOutput((), ()))


def _diagnostics(record: Mapping[str, Any]) -> Mapping[str, Any]:
    found = record.get("diagnostics")
    return found if isinstance(found, dict) else {}


def _number(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else otherwise
