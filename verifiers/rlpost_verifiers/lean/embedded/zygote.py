"""Fork server around libleanshared: Lean is loaded and initialised once, every check runs in a fork of that state.

Run as a script of its own (``python -S -E zygote.py LIBRARY FOLDER PARENT``), because forking is cheap and safe only
from a small process with one thread. It imports the standard library only. Protocol: first one JSON line with the
library's version, then for each request line one answer line.

    request  {"module": "Cand", "source": "…", "imported": false, "cpu_seconds": 10, "wall_seconds": 30,
              "memory_mb": 6144}
    answer   {"exit_code": 0, "signal": 0, "wall_exceeded": false, "seconds": …, "cpu_seconds": …, "peak_rss_mb": …}

A check runs Lean's command line on the whole file. With "imported" it takes a source without its header and starts from
what the server has imported by then. The server imports when it gets this request, which names the module that the last
check compiled, and imports the same as that module:

    request  {"import": "Cand"}
    answer   {"problem": ""}

Declarations are checked by the kernel alone (`replayer`), which first takes over those of one compiled module:

    request  {"kernel": "/path/of/RLPre.olean"}       answer  {"problem": ""}
    request  {"replay": "{…}", "cpu_seconds": 10, …}

and a confined fork reports what it could do to the machine:

    request  {"probe": "/path/of/a/file", "cpu_seconds": 10, …}

Both answer as a check does. The result is one JSON line: for a probe in ``output.txt``, for the kernel in the answer's
``output``.

A check leaves ``<module>.olean`` (if Lean wrote one) and ``output.txt`` in FOLDER until the next request. The server
ends when its input closes, on SIGTERM, or when its parent dies; it removes FOLDER as it exits.
"""

import ctypes
import gc
import json
import math
import os
import resource
import select
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or __package__:
    from rlpost_verifiers.lean.embedded.import_once import ImportOnce, ImportOnceError
    from rlpost_verifiers.lean.embedded.processes import Budget, die_with_parent, kill_group
    from rlpost_verifiers.lean.embedded.replay import Kernel
    from rlpost_verifiers.lean.embedded.replayer import Replayer
    from rlpost_verifiers.lean.embedded.sandbox import LIBC, Confinement, probe
else:
    # A script imports the modules of its folder without their package, which must not be loaded here.
    from import_once import ImportOnce, ImportOnceError
    from processes import Budget, die_with_parent, kill_group
    from replay import Kernel
    from replayer import Replayer
    from sandbox import LIBC, Confinement, probe

MAX_FILE_BYTES = 16 << 20
MAX_FOLDER_BYTES = 4 * MAX_FILE_BYTES
# Also bounds what can be kept in files that have been removed from the folder.
MAX_OPEN_FILES = 16
MAX_ENTRIES = 1000
FOLDER_WATCH_MS = 100
CHILD_FAILED = 70
# autoImplicit would turn free variables of the theorem into arguments, which would weaken its statement.
OPTIONS = ("--json", "-j1", "-DautoImplicit=false", "-Dlinter.all=false")


class Lean:
    """The two entry points that are stable across Lean versions, and the library's version information.

    Args:
        path: path of libleanshared.
        folder: the working folder, the only one a check may write to.
        search_path: folder with the compiled modules that checked files import.

    Attributes:
        confinement: restrictions that every check enters.
        imported: Lean's frontend with its imports done, None until `import_once`.
        replayer: a kernel with the declarations of a module, None until `open_kernel`.
    """

    def __init__(self, path: str, folder: str, search_path: str) -> None:
        # Lean's interpreter finds native code by dlsym(RTLD_DEFAULT), so its symbols must be global.
        self._library = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
        self._library.lean_main.restype = ctypes.c_int
        # Calling lean_main here as well would be fatal: its option parser keeps state that every fork would inherit.
        self._library.lean_initialize()
        self.confinement = Confinement([search_path], folder)
        if shares_rings():
            self.confinement.missing.append("io_uring rings that every check would share with the fork server")
        self.imported: ImportOnce | None = None
        self.replayer: Replayer | None = None

    def open_kernel(self, compiled: str) -> str:
        """Open a kernel on the declarations of a compiled module; returns why that failed, else empty."""
        try:
            self.replayer = Replayer(Kernel(self._library, compiled), self.confinement)
        except (AttributeError, OSError) as error:
            return str(error)
        freeze()
        return ""

    def import_once(self, module: str) -> str:
        """Import what the compiled module in the working folder imports; returns why that failed, else empty."""
        try:
            self.imported = ImportOnce(self._library, f"{module}.olean", module, self.identity())
        except (ImportOnceError, AttributeError, OSError) as error:
            return str(error)
        freeze()
        return ""

    def identity(self) -> tuple[str, str]:
        """Lean's version and the commit it was built from."""
        return self.text("l_Lean_versionString"), self.text("l_Lean_githash")

    def text(self, symbol: str) -> str:
        """A global constant of type String: 32 bytes of header with the size in the second word, then the bytes."""
        address = ctypes.c_void_p.in_dll(self._library, symbol).value or 0
        size = ctypes.c_uint64.from_address(address + 8).value
        return ctypes.string_at(address + 32, size - 1).decode()

    def main(self, arguments: list[str]) -> int:
        """Run Lean's command line in this process; once per process only."""
        words = [b"lean", *(word.encode() for word in arguments)]
        return self._library.lean_main(len(words), (ctypes.c_char_p * (len(words) + 1))(*words, None))


def shares_rings() -> bool:
    """Whether this process holds io_uring rings, which a fork inherits together with their permissions."""
    # The listing includes its own descriptor, which is closed by the time its link is read.
    links = (f"/proc/self/fd/{descriptor}" for descriptor in os.listdir("/proc/self/fd"))
    return any("io_uring" in os.readlink(link) for link in links if os.path.islink(link))


def run_child(lean: Lean, request: dict[str, Any], server: int) -> int:
    """Confine this process, a fork, serve the request, and return the exit status."""
    os.setsid()
    die_with_parent(signal.SIGKILL, server)
    if lean.replayer is not None:
        # A check must not be able to write to the process that replays other proofs.
        lean.replayer.forget()
    for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    output = os.open("output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    # The server ends a check at its limit; this ends processes that an unconfined check has left running.
    resource.setrlimit(resource.RLIMIT_CPU, (2 * math.ceil(request["cpu_seconds"]) + 1,) * 2)
    resource.setrlimit(resource.RLIMIT_AS, (request["memory_mb"] << 20,) * 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE_BYTES, MAX_FILE_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))
    # Lean's threads take turns anyway; on two cores each of their page faults would interrupt the other core.
    os.sched_setaffinity(0, {LIBC.sched_getcpu()})
    lean.confinement.enter()
    if "probe" in request:
        answer(probe(request["probe"]))
        return 0
    module = request["module"]
    if request["imported"]:
        assert lean.imported is not None, "the import was never asked for"
        return lean.imported.check(module, request["source"])
    return lean.main([*OPTIONS, "-o", f"{module}.olean", f"{module}.lean"])


def fork(lean: Lean, request: dict[str, Any]) -> int:
    """Start the check in a fork and return its process id; the fork itself never returns from here."""
    server = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    status = CHILD_FAILED
    try:
        status = run_child(lean, request, server) & 255
    except BaseException as error:
        # Plain text among Lean's JSON marks the check as crashed.
        os.write(2, f"zygote: {error!r}\n".encode())
    finally:
        os._exit(status)


def check(lean: Lean, request: dict[str, Any]) -> dict[str, Any]:
    """Run one request to its end and describe how it ended."""
    empty_folder()
    if "source" in request and not request["imported"]:
        with open(f"{request['module']}.lean", "w", encoding="utf-8") as file:
            file.write(request["source"])
    start = time.perf_counter()
    pid = fork(lean, request)
    try:
        ending = watch(pid, Budget(pid, request["cpu_seconds"], request["wall_seconds"]))
    finally:
        # Also after a normal end: no other process of the group may outlive its leader.
        kill_group(pid)
        _, status, usage = os.wait4(pid, 0)
    if ending == "abandoned":
        raise SystemExit
    killed = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    limits = {"too much written": signal.SIGXFSZ, "cpu": signal.SIGXCPU}
    return {
        "exit_code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
        "signal": limits.get(ending, killed),
        "wall_exceeded": ending == "wall",
        "seconds": time.perf_counter() - start,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_rss_mb": usage.ru_maxrss >> 10,
    }


def watch(pid: int, budget: Budget) -> str:
    """Wait until the check ends or has to be ended; returns why it has to be, empty if it ended by itself."""
    watched = select.poll()
    pidfd = os.pidfd_open(pid)
    try:
        watched.register(pidfd, select.POLLIN)
        # The client sends nothing while it waits, so readable input can only mean that it is gone.
        watched.register(0, select.POLLIN)
        while not (ready := [fd for fd, _ in watched.poll(min(FOLDER_WATCH_MS, budget.safe_ms()))]):
            if exceeded := budget.exceeded():
                return exceeded
            if too_much_written():
                return "too much written"
        return "abandoned" if 0 in ready else ""
    finally:
        os.close(pidfd)


def too_much_written() -> bool:
    """Whether the folder holds more than a check may write; the kernel limits the size of each file only."""
    total = 0
    for count, entry in enumerate(os.scandir(".")):
        try:
            total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:
            # The check is still running, and has just renamed or removed it.
            continue
        if count >= MAX_ENTRIES or total > MAX_FOLDER_BYTES:
            return True
    return False


def freeze() -> None:
    """Keep garbage collection from touching, and so copying, the pages that forks share; no cycles are made here."""
    gc.collect()
    gc.freeze()
    gc.disable()


def requests() -> Iterator[dict[str, Any]]:
    """The request lines, until the input closes."""
    pending = b""
    while chunk := os.read(0, 1 << 16):
        pending += chunk
        while b"\n" in pending:
            line, pending = pending.split(b"\n", 1)
            yield json.loads(line)


def answer(record: dict[str, Any]) -> None:
    """Write one line to the client."""
    os.write(1, json.dumps(record).encode() + b"\n")


def empty_folder() -> None:
    """Remove what the last check left; an unconfined check can leave more than files."""
    for entry in os.scandir("."):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path)
        else:
            os.unlink(entry.path)


def remove_folder(folder: str) -> None:
    """Remove the working folder."""
    empty_folder()
    os.chdir("/")
    os.rmdir(folder)


def main() -> None:
    """Serve until the client is gone."""
    library, folder, parent = sys.argv[1], sys.argv[2], int(sys.argv[3])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    die_with_parent(signal.SIGTERM, parent)
    os.chdir(folder)
    try:
        lean = Lean(library, folder, os.environ["LEAN_PATH"])
        version, commit = lean.identity()
        answer(
            {
                "version": version,
                "commit": commit,
                "unconfined": lean.confinement.missing,
            }
        )
        freeze()
        for request in requests():
            if "import" in request:
                answer({"problem": lean.import_once(request["import"])})
            elif "kernel" in request:
                answer({"problem": lean.open_kernel(request["kernel"])})
            elif "replay" in request:
                assert lean.replayer is not None, "the kernel was never opened"
                answer(lean.replayer.ask(request))
            else:
                answer(check(lean, request))
            # The next fork must not inherit anything of this request.
            del request
    finally:
        remove_folder(folder)


if __name__ == "__main__":
    main()
