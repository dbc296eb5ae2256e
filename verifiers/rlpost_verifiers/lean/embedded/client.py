"""The client of one fork server."""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from rlpost.errors import InfrastructureError
from rlpost_verifiers.lean.embedded.export import Export
from rlpost_verifiers.lean.messages import Run

_SCRIPT = Path(__file__).with_name("zygote.py")
_MEMORY_FOLDER = Path("/dev/shm")
_START_SECONDS = 60.0
_CLOSE_SECONDS = 5.0
# The event loop that Lean initialises would open io_uring rings: shared memory through which a check could have the
# kernel open and write files on behalf of the fork server, outside the check's confinement.
_NO_RINGS = {"UV_USE_IO_URING": "0"}
# Time past its own limit that a server may stay silent before it counts as dead.
_GRACE_SECONDS = 15.0
# Far above any honest output; keeps a proof that prints megabytes from costing this process as much.
_MAX_OUTPUT_BYTES = 4 << 20
_MAX_MODULE_BYTES = 16 << 20


class ZygoteLostError(InfrastructureError):
    """The fork server died, stopped answering or sent an invalid answer."""


class Zygote:
    """A running fork server; used by one thread, which must be the one that made it.

    Linux ends the server when the thread that started it ends, so a server cannot outlive its client even if that is
    killed.

    Attributes:
        version: Lean's version as the library reports it.
        commit: the commit Lean was built from.
        unconfined: descriptions of the confinement that this machine cannot offer; empty if nothing is missing.
    """

    def __init__(self, library: Path, search_path: Path | None) -> None:
        """Start the server and wait until Lean is initialised.

        Args:
            library: path of libleanshared.
            search_path: folder with the compiled modules that checked files import, None for none.

        Raises:
            ZygoteLostError: if it does not come up; the message ends with what it printed.
        """
        home = _MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None
        self._folder = Path(tempfile.mkdtemp(prefix="rlpost-lean-", dir=home)).resolve()
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the server, closed in close()
        self._buffer = b""
        self._process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(_SCRIPT), str(library), str(self._folder), str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={"LEAN_PATH": str(search_path or self._folder), "LC_ALL": "C.UTF-8", **_NO_RINGS},
            # Ctrl-C at the terminal must reach the caller, who then closes this server in order.
            start_new_session=True,
        )
        try:
            hello = self._read_record(_START_SECONDS)
            self.version, self.commit = str(hello["version"]), str(hello["commit"])
            self.unconfined = tuple(map(str, hello["unconfined"]))
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._process.pid

    def import_once(self, module: str) -> str:
        """Have the server import what ``module``, compiled by the last run, imports; why that failed, else empty.

        Only for a library whose version is known: the internal interface differs from version to version.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        self._send({"import": module})
        return str(self._read_record(_START_SECONDS).get("problem", "no answer"))

    def open_kernel(self, compiled: Path) -> str:
        """Have the server's kernel take over a compiled module's declarations; why that failed, else empty.

        Only for a library whose version is known, as with `import_once`.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        self._send({"kernel": str(compiled)})
        return str(self._read_record(_START_SECONDS).get("problem", "no answer"))

    def replay(self, export: Export, cpu_seconds: float, wall_seconds: float, memory_mb: int) -> Run:
        """Have the kernel check all declarations of ``export`` in a process that runs no proof; needs `open_kernel`.

        The run's output is one JSON line with the key ``problem``, empty if the kernel accepts them all.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        # A JSON string inside the JSON: the server passes it on without parsing it.
        return self._ask({"replay": json.dumps(export)}, cpu_seconds, wall_seconds, memory_mb)

    def probe(self, outside: Path) -> dict[str, str]:
        """What a confined fork can do to the machine: see `rlpost_verifiers.lean.embedded.sandbox.probe`.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        run = self._ask({"probe": str(outside)}, 10.0, 60.0, 6144)
        try:
            return json.loads(run.output)
        except ValueError as error:
            raise self._lost(f"could not be probed: {run.output[:200]!r}") from error

    def run(
        self,
        module: str,
        source: str,
        cpu_seconds: float,
        wall_seconds: float,
        memory_mb: int,
        *,
        imported: bool = False,
    ) -> Run:
        """Let Lean read ``source`` as ``<module>.lean`` in a fork of its own, under the given limits.

        Args:
            module: the file's name without its extension.
            source: the whole file, or with ``imported`` the part after its header.
            cpu_seconds: limit on the CPU time, in seconds.
            wall_seconds: limit on the wall-clock time, in seconds.
            memory_mb: limit on the address space, in MiB.
            imported: start from the environment that `import_once` imported.

        Raises:
            ZygoteLostError: if the server does not answer.
        """
        request = {"module": module, "source": source, "imported": imported}
        return self._ask(request, cpu_seconds, wall_seconds, memory_mb)

    def compiled(self, module: str) -> bytes | None:
        """The module that the last run compiled, or None if it wrote none; a link in its place counts as none."""
        try:
            return self._read_file(f"{module}.olean", _MAX_MODULE_BYTES)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP, errno.EISDIR):
                return None
            raise

    def terminate(self) -> None:
        """Ask the server to end now; the one thing another thread may do. `close` must still be called."""
        self._process.terminate()

    def close(self) -> None:
        """End the server, and with it any check in flight; repeated calls do nothing."""
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                _pipe(pipe).close()
            except BrokenPipeError:
                # A request that the dead server never read is still buffered and can no longer be sent.
                continue
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        # The server removes its folder; one that was killed could not.
        shutil.rmtree(self._folder, ignore_errors=True)

    def _ask(self, request: dict[str, Any], cpu_seconds: float, wall_seconds: float, memory_mb: int) -> Run:
        limits = {"cpu_seconds": cpu_seconds, "wall_seconds": wall_seconds, "memory_mb": memory_mb}
        self._send({**request, **limits})
        answer = self._read_record(wall_seconds + _GRACE_SECONDS)
        try:
            if "output" in answer:
                return Run(**answer)
            output = self._output()
            if len(output) == _MAX_OUTPUT_BYTES:
                # A truncated message would count as a crash, but the proof has hit a limit.
                answer, output = {**answer, "signal": signal.SIGXFSZ}, b""
            return Run(**answer, output=output.decode("utf-8", "replace"))
        except TypeError as error:
            raise self._lost(f"answered {answer!r}") from error

    def _send(self, request: dict[str, Any]) -> None:
        try:
            _pipe(self._process.stdin).write(json.dumps(request).encode() + b"\n")
            _pipe(self._process.stdin).flush()
        except OSError as error:
            raise self._lost(f"takes no request ({error.strerror})") from error

    def _read_record(self, seconds: float) -> dict[str, Any]:
        line = self._read_line(time.monotonic() + seconds)
        try:
            record = json.loads(line)
        except ValueError as error:
            raise self._lost(f"answered {line[:200]!r}") from error
        if not isinstance(record, dict):
            raise self._lost(f"answered {line[:200]!r}")
        return record

    def _read_line(self, deadline: float) -> bytes:
        descriptor = _pipe(self._process.stdout).fileno()
        ready = select.poll()
        ready.register(descriptor, select.POLLIN)
        while b"\n" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not ready.poll(left * 1000):
                self._process.kill()
                raise self._lost("fell silent")
            chunk = os.read(descriptor, 1 << 16)
            if not chunk:
                raise self._lost("ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _output(self) -> bytes:
        try:
            return self._read_file("output.txt", _MAX_OUTPUT_BYTES)
        except FileNotFoundError:
            # The check ended before it was ready to print; its exit status tells why.
            return b""

    def _read_file(self, name: str, limit: int) -> bytes:
        # Whatever a check left in place of the file, reading it must neither follow a link nor wait for a writer.
        with open(os.open(self._folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return file.read(limit)

    def _lost(self, what: str) -> ZygoteLostError:
        self._log.seek(0)
        last = self._log.read().decode("utf-8", "replace").strip().splitlines()[-1:]
        return ZygoteLostError(f"Lean's fork server (pid {self.pid}) {what}{': ' + last[0] if last else ''}")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None, "the server is started with pipes"
    return stream
