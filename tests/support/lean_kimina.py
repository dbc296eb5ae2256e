"""A Kimina server for tests, with both endpoints over real HTTP, and servers that are broken in one way each."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from support.lean_engine import answer

# Status and body of an HTTP response.
Answer = tuple[int, bytes]
Respond = Callable[[str, Any], Answer]


def kimina(lean: Sequence[str], endpoints: tuple[str, ...] = ("/api/check", "/verify")) -> Respond:
    """A server whose project's files all start with ``prelude``."""

    def respond(path: str, body: Any) -> Answer:
        if path not in endpoints:
            return 404, b'{"detail":"Not Found"}'
        old = path == "/verify"
        key, code = ("custom_id", "proof") if old else ("id", "code")
        with ThreadPoolExecutor(2) as pool:
            work = [(entry[code], body["timeout"]) for entry in body["codes" if old else "snippets"]]
            found = list(pool.map(lambda pair: check(lean, *pair), work))
        results = [
            {key: entry[key], **record}
            for entry, record in zip(body["codes" if old else "snippets"], found, strict=True)
        ]
        if not old:
            for record in results:
                record["diagnostics"] = {"repl_uuid": "0", "cpu_max": 99.0, "memory_max": 120 << 20}
        return 200, json.dumps({"results": results}).encode()

    return respond


def check(lean: Sequence[str], code: str, timeout: float) -> dict[str, Any]:
    """One result record; as in the real server the imports become a header, and lines are counted after it."""
    lines = code.split("\n")
    body = next(index for index, line in enumerate(lines) if line.strip() and not line.startswith("import "))
    header = "prelude\n" + "".join(f"{line}\n" for line in lines[:body] if line.strip())
    start = time.monotonic()
    try:
        found = answer(lean, header, "\n".join(lines[body:]), timeout)
    except subprocess.TimeoutExpired:
        return {"error": f"Lean REPL command timed out in {timeout} seconds", "time": timeout}
    return {"time": time.monotonic() - start, "response": {"env": 1, **found}}


@contextmanager
def serve(respond: Respond) -> Iterator[tuple[str, list[tuple[str, Any, dict[str, str]]]]]:
    """The address of a server that answers as ``respond`` says, and the requests it has seen."""
    seen: list[tuple[str, Any, dict[str, str]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append((self.path, body, dict(self.headers)))
            status, data = respond(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                # The client gave up, as some tests intend.
                return

        def log_message(self, format: str, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
