"""Asking a Kimina server over HTTP: both of its endpoints, retries, and what can be wrong with an answer."""

from __future__ import annotations

import http.client
import json
import random
import socket
import threading
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from rlpost.errors import InfrastructureError, UserError

Endpoint = Literal["check", "verify"]

PATHS: dict[Endpoint, str] = {"check": "/api/check", "verify": "/verify"}
# No such path, no such method, and the first 2.x servers, whose /api/check took one snippet under another key.
_NO_SUCH_ENDPOINT = (404, 405, 422)
# Busy (no REPL free), or a fault that a second try may not meet again.
_WORTH_A_RETRY = (408, 425, 429, 500, 502, 503, 504)
_MAX_ANSWER_BYTES = 64 << 20
_MAX_BACKOFF = 30.0
_CHUNK = 1 << 16


class ServerError(InfrastructureError):
    """The server is away, busy or answers nonsense; the message says so in one line."""


class NoEndpointError(ServerError):
    """The server is up and does not know this endpoint."""


class _FaultyError(ServerError):
    """Worth another try."""


class Client:
    """Conversations with one server, from any thread.

    Args:
        url: its address, e.g. ``http://localhost:8000``.
        api_key: sent as bearer token, None for none.
        retries: further tries after the first.
        backoff_s: seconds before the first retry; each following wait is twice as long, up to half a minute.

    Raises:
        UserError: for an address that is none.
    """

    def __init__(self, url: str, api_key: str | None, retries: int, backoff_s: float) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(f"url is {url!r}; give the server's address, e.g. 'http://localhost:8000'")
        self.url = url.rstrip("/")
        self._api_key, self._retries, self._backoff_s = api_key, retries, backoff_s
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._live: set[http.client.HTTPConnection] = set()

    def ask(
        self, endpoint: Endpoint, codes: Mapping[str, str], timeout_s: float, deadline_s: float
    ) -> dict[str, dict[str, Any]]:
        """The server's record for each code, by id; ids it leaves out or answers twice are missing.

        Args:
            endpoint: the new one or the old one.
            codes: Lean files by id.
            timeout_s: seconds the server may spend on one code.
            deadline_s: seconds this call may take, retries and waits included.

        Raises:
            NoEndpointError: if the server does not know the endpoint.
            ServerError: if it cannot be reached or does not answer as a Kimina server, and after `close`.
        """
        body = json.dumps(_request(endpoint, codes, timeout_s), ensure_ascii=False).encode()
        deadline = monotonic() + deadline_s
        for attempt in range(self._retries + 1):
            try:
                return _read(endpoint, self._post(PATHS[endpoint], body, deadline), codes)
            except _FaultyError as error:
                # Jitter, so that clients which failed together do not come back together.
                wait = min(_MAX_BACKOFF, self._backoff_s * 2**attempt) * random.uniform(0.5, 1.5)
                last = attempt == self._retries or monotonic() + wait >= deadline
                if last or self._closing.wait(wait):
                    raise ServerError(f"{error} ({attempt + 1} tries)") from error
        raise AssertionError("the last try returns or raises")

    def close(self) -> None:
        """Break off every request; repeated calls do nothing."""
        self._closing.set()
        with self._lock:
            for connection in self._live:
                _break_off(connection)

    def _post(self, path: str, body: bytes, deadline: float) -> bytes:
        parts = urlsplit(self.url)
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=max(0.01, deadline - monotonic()))
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self._api_key is not None:
            headers["Authorization"] = f"Bearer {self._api_key}"
        where = f"the Kimina server at {self.url}"
        with self._lock:
            self._live.add(connection)
        try:
            connection.request("POST", parts.path + path, body, headers)
            if self._closing.is_set():
                raise ServerError("Lean was closed before the check ended")
            answer = connection.getresponse()
            status, raw = answer.status, _read_until(connection, answer, deadline)
        except TimeoutError as error:
            raise ServerError(f"{where} did not answer in time") from error
        except (OSError, http.client.HTTPException) as error:
            said = getattr(error, "strerror", None) or repr(error)
            raise _FaultyError(f"{where} cannot be reached: {said}") from error
        finally:
            with self._lock:
                self._live.discard(connection)
            connection.close()
        _require_success(status, f"{where} answers {path} with status {status}: {_quote(raw)}")
        return raw


def _require_success(status: int, said: str) -> None:
    if status in _NO_SUCH_ENDPOINT:
        raise NoEndpointError(said)
    if status in (401, 403):
        raise ServerError(f"{said}; set 'api_key'")
    if status != 200:
        raise (_FaultyError if status in _WORTH_A_RETRY else ServerError)(said)


def _break_off(connection: http.client.HTTPConnection) -> None:
    try:
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # Not connected yet, or not any more: there is nothing to break off.
        return


def _quote(raw: bytes) -> str:
    return repr(raw[:100].decode("utf-8", "replace"))


def _request(endpoint: Endpoint, codes: Mapping[str, str], timeout_s: float) -> dict[str, Any]:
    seconds = max(1, round(timeout_s))
    if endpoint == "check":
        snippets = [{"id": key, "code": code} for key, code in codes.items()]
        return {"snippets": snippets, "timeout": seconds, "debug": True, "reuse": True}
    proofs = [{"custom_id": key, "proof": code} for key, code in codes.items()]
    return {"codes": proofs, "timeout": seconds, "infotree_type": None, "disable_cache": False}


def _read_until(connection: http.client.HTTPConnection, answer: http.client.HTTPResponse, deadline: float) -> bytes:
    """The whole answer. A socket's own timeout starts anew with each byte, so a trickle would never end."""
    pieces: list[bytes] = []
    size = 0
    while chunk := answer.read1(_CHUNK):
        pieces.append(chunk)
        size += len(chunk)
        left = deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        if size > _MAX_ANSWER_BYTES:
            raise _FaultyError(f"the Kimina server answers more than {_MAX_ANSWER_BYTES >> 20} MiB")
        if connection.sock is not None:
            connection.sock.settimeout(left)
    if answer.length:
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(pieces)


def _read(endpoint: Endpoint, raw: bytes, codes: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The records by id. A list stands for itself: early 2.x servers answered without the word ``results``."""
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
