"""HTTP client of a Kimina server: both of its endpoints, retries, and validation of answers."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError
from typing import Any, Literal, cast
from urllib.parse import urlsplit

import httpx2

from rlpost.errors import InfrastructureError, UserError, first_line

Endpoint = Literal["check", "verify"]

PATHS: dict[Endpoint, str] = {"check": "/api/check", "verify": "/verify"}
# No such path, no such method, and the first 2.x servers, whose /api/check took one snippet under another key.
_NO_SUCH_ENDPOINT = (404, 405, 422)
# Busy (no REPL free), or a fault that a second try may not meet again.
_WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
_MAX_ANSWER_BYTES = 64 << 20
_MAX_BACKOFF = 30.0


class ServerError(InfrastructureError):
    """The server is unreachable, busy or sends an invalid answer; the message says which in one line."""


class NoEndpointError(ServerError):
    """The server is up and does not know this endpoint."""


class _FaultyError(ServerError):
    """A failure that may not recur on a retry."""


class Client:
    """Requests to one server, from any thread; they run in an event loop of their own, so that `close` can cancel them.

    Args:
        url: the server's address, e.g. ``http://localhost:8000``.
        api_key: sent as bearer token, None for none.
        retries: number of retries after the first try.
        backoff_s: seconds before the first retry; each following wait is twice as long, up to half a minute, and varied
            at random.

    Raises:
        UserError: for an invalid address.
    """

    def __init__(self, url: str, api_key: str | None, retries: int, backoff_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url is {url!r}; give the server's address, e.g. 'http://localhost:8000'")
        self.url, self._retries, self._backoff_s = url.rstrip("/"), retries, backoff_s
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        self._headers = headers if api_key is None else {**headers, "Authorization": f"Bearer {api_key}"}
        self._loop = asyncio.new_event_loop()
        self._closed = False
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def ask(
        self, endpoint: Endpoint, codes: Mapping[str, str], timeout_s: float, deadline_s: float
    ) -> dict[str, dict[str, Any]]:
        """The server's record for each code, by id; ids it leaves out or answers twice are missing.

        Args:
            endpoint: ``check``, the new endpoint, or ``verify``, the old one.
            codes: Lean files by id.
            timeout_s: seconds the server may spend on one code.
            deadline_s: seconds this call may take, retries and waits included.

        Raises:
            NoEndpointError: if the server does not know the endpoint.
            ServerError: if it cannot be reached or does not answer as a Kimina server, and after `close`.
        """
        if self._closed:
            raise ServerError("Lean was closed before the check ended")
        asked = self._ask(endpoint, codes, timeout_s, deadline_s)
        try:
            return asyncio.run_coroutine_threadsafe(asked, self._loop).result()
        except CancelledError:
            raise ServerError("Lean was closed before the check ended") from None

    def close(self) -> None:
        """Cancel every request; repeated calls do nothing."""
        if not self._closed:
            self._closed = True
            asyncio.run_coroutine_threadsafe(self._break_off(), self._loop)

    async def _break_off(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        self._loop.stop()

    async def _ask(
        self, endpoint: Endpoint, codes: Mapping[str, str], timeout_s: float, deadline_s: float
    ) -> dict[str, dict[str, Any]]:
        body = json.dumps(_request(endpoint, codes, timeout_s), ensure_ascii=False).encode()
        deadline = self._loop.time() + deadline_s
        for attempt in range(self._retries + 1):
            try:
                return _read(endpoint, await self._post(PATHS[endpoint], body, deadline), codes)
            except _FaultyError as error:
                # Jitter, so that clients which failed together do not come back together.
                wait = min(_MAX_BACKOFF, self._backoff_s * 2**attempt) * random.uniform(0.5, 1.5)
                if attempt == self._retries or self._loop.time() + wait >= deadline:
                    raise ServerError(f"{error} ({attempt + 1} tries)") from error
                await asyncio.sleep(wait)
        raise AssertionError("the last try returns or raises")

    async def _post(self, path: str, body: bytes, deadline: float) -> bytes:
        where, raw = f"the Kimina server at {self.url}", bytearray()
        # A connection for each request: a check takes seconds, and a server may drop idle ones at any moment.
        client = httpx2.AsyncClient(headers=self._headers, timeout=None, trust_env=False)
        try:
            # One deadline for the whole request: a timeout per read would start again with each byte of a slow answer.
            async with (
                asyncio.timeout_at(deadline),
                client,
                client.stream("POST", self.url + path, content=body) as found,
            ):
                async for chunk in found.aiter_bytes():
                    raw += chunk
                    if len(raw) > _MAX_ANSWER_BYTES:
                        raise _FaultyError(f"the Kimina server answers more than {_MAX_ANSWER_BYTES >> 20} MiB")
        except TimeoutError as error:
            raise ServerError(f"{where} did not answer in time") from error
        except httpx2.TransportError as error:
            raise _FaultyError(f"{where} cannot be reached: {_reason(error)}") from error
        _require_success(
            found.status_code, f"{where} answers {path} with status {found.status_code}: {_quote(bytes(raw))}"
        )
        return bytes(raw)


def _require_success(status: int, said: str) -> None:
    if status in _NO_SUCH_ENDPOINT:
        raise NoEndpointError(said)
    if status in (401, 403):
        raise ServerError(f"{said}; set 'api_key'")
    if status != 200:
        raise (_FaultyError if status in _WORTH_A_RETRY else ServerError)(said)


def _reason(error: BaseException) -> str:
    """The operating system's message, which httpx2 wraps several times in less specific ones."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)


def _quote(raw: bytes) -> str:
    return repr(raw[:100].decode("utf-8", "replace"))


def _request(endpoint: Endpoint, codes: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    seconds = max(1, round(timeout_s))
    if endpoint == "check":
        snippets = [{"id": key, "code": code} for key, code in codes.items()]
        return {"snippets": snippets, "timeout": seconds, "debug": True, "reuse": True}
    proofs = [{"custom_id": key, "proof": code} for key, code in codes.items()]
    return {"codes": proofs, "timeout": seconds, "infotree_type": None, "disable_cache": False}


def _read(endpoint: Endpoint, raw: bytes, codes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The records by id. A bare list is valid too: early 2.x servers answered without the key ``results``."""
    try:
        answer: Any = json.loads(raw)
    except ValueError as error:
        raise _FaultyError(f"the Kimina server answers no JSON: {_quote(raw)}") from error
    results = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(results, list):
        raise _FaultyError(f"the Kimina server answers no results: {str(answer)[:100]!r}")
    records: dict[str, dict[str, Any]] = {}
    twice: set[str] = set()
    for record in cast("Sequence[Any]", results):
        key = str(record.get("id" if endpoint == "check" else "custom_id")) if isinstance(record, dict) else ""
        if key in records:
            twice.add(key)
        if key in codes:
            records[key] = record
    # Which of two answers is meant cannot be known.
    return {key: record for key, record in records.items() if key not in twice}
