"""Lean's command line: one process per check, in a project or not, with a kernel replay where the toolchain has one."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from rlpost.errors import InfrastructureError, MissingPackageError, UserError
from rlpost_verifiers.lean.messages import Ruling, Run, parse_output, ran_out_of_address_space
from rlpost_verifiers.lean.toolchain.base import Threads, ToolchainLean, check_limits
from rlpost_verifiers.lean.toolchain.checker import Replaying, find_checker, replay
from rlpost_verifiers.lean.toolchain.pin import Question
from rlpost_verifiers.lean.toolchain.process import Limits, Processes, words
from rlpost_verifiers.lean.toolchain.ruling import Fault, Reply

MODULE = "RlpostCheck"
_VERSION = re.compile(r"Lean \(version ([^,\s)]+)")
_START_SECONDS = 120.0
_REMEDY = "install a Lean toolchain (https://lean-lang.org/install) or set 'command' to one"


class LeanCli(ToolchainLean):
    """``lean --json`` for each check, e.g. in a Lake project with Mathlib.

    Each check runs in a process group of its own with limits on CPU time, address space and file size, and in a
    private folder. Options stay at Lean's or the project's defaults: because the statement is elaborated before the
    model's text, ``autoImplicit`` cannot weaken it.

    Args:
        command: the command that runs Lean: ``lean``, or ``lake env lean`` in a project; a string or a list of words.
        project: folder of the Lake project to run in; None for no project.
        imports: first lines of every checked file.
        workers: number of checks that run at the same time.
        cpu_seconds: CPU time of one check in seconds, importing included; a proof that uses it up is rejected.
        wall_seconds: wall-clock time of one check in seconds, by default ``2 * cpu_seconds + 30``; running out of it
            without having used the CPU time leaves the check undecided.
        memory_mb: address space of one check in MiB. Mathlib's compiled files, which Lean maps into memory, take
            about 6000 MiB of it.
        leanchecker: ``auto`` replays accepted proofs in the kernel where the toolchain can, ``require`` refuses a
            toolchain that cannot, ``off`` never does.
        checker_command: the command that runs the replay, by default ``leanchecker`` of the toolchain in use.
        allow_old_kernel: judge whole files also by a kernel with known faults (`toolchain.kernels`), by which a model's
            file can prove anything; without it such a Lean judges proofs and declarations only.

    Raises:
        UserError: for a setting that makes no sense, or a toolchain without leanchecker where it is required.
        MissingPackageError: if the command does not run or is not Lean 4.
    """

    def __init__(
        self,
        command: Sequence[str] | str = "lean",
        project: str | Path | None = None,
        imports: str = "import Mathlib",
        workers: int = 1,
        cpu_seconds: float = 60.0,
        wall_seconds: float | None = None,
        memory_mb: int = 16384,
        leanchecker: Replaying = "auto",
        checker_command: Sequence[str] | None = None,
        allow_old_kernel: bool = False,
    ) -> None:
        wall = 2 * cpu_seconds + 30 if wall_seconds is None else wall_seconds
        check_limits(cpu_seconds, wall, memory_mb)
        if leanchecker not in get_args(Replaying):
            raise UserError(f"leanchecker is {leanchecker!r}; use {' or '.join(map(repr, get_args(Replaying)))}")
        self._command, self._cwd = words(command), check_project(project)
        self._limits = Limits(cpu_seconds, wall, memory_mb)
        self._threads = Threads(workers)
        self._processes = Processes()
        self._room: dict[str, bool] = {}
        version = lean_version(self._command, self._cwd)
        self._checker = self._find_checker(leanchecker, checker_command)
        depends = (self._command, str(project), self._limits, self._checker)
        super().__init__("lean.cli", version, imports, cpu_seconds, depends, allow_old_kernel)
        self._finalizer = weakref.finalize(self, _end, self._threads, self._processes)

    def _ask(self, questions: Sequence[Question]) -> list[Reply | Fault]:
        return self._threads.map(self._ask_one, questions)

    def _stop(self) -> None:
        self._finalizer()

    def _ask_one(self, question: Question) -> Reply | Fault:
        if self._closing.is_set():
            return Fault("unavailable", "Lean was closed before the check began")
        with tempfile.TemporaryDirectory(prefix="rlpost-lean-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            compiled = ["-o", str(folder / f"{MODULE}.olean")] if self._checker else []
            try:
                run = self._elaborate(folder, question.source, self._limits, *compiled)
            except OSError as error:
                return Fault("unavailable", f"{self._command[0]!r} cannot be run: {error.strerror}")
            output = parse_output(run.output)
            if ran_out_of_address_space(output) and not self._has_room(question.imports):
                detail = f"memory_mb {self._limits.memory_mb} is too little address space for Lean's own threads"
                return Fault("unavailable", f"{detail} and files; raise it")
            replayed = self._replay(folder) if run.exit_code == 0 else None
        if self._closing.is_set():
            return Fault("unavailable", "Lean was closed before the check ended")
        header_lines = question.imports.count("\n") + 1
        return Reply(run, output, header_lines, replayed)

    def _elaborate(self, folder: Path, text: str, limits: Limits, *further: str) -> Run:
        """Run Lean on a text, in a private folder; OSError if it cannot be started."""
        source = folder / f"{MODULE}.lean"
        source.write_text(text, encoding="utf-8")
        command = [*self._command, "--json", "-j1", "-R", str(folder), *further, str(source)]
        return self._processes.run(command, limits, folder, self._cwd or folder, os.environ)

    def _has_room(self, imports: str) -> bool:
        """Whether Lean can do its imports in three quarters of its address space.

        Only then is a proof that runs out of it at fault: Lean's threads and mapped files reserve gigabytes before
        Lean reads the proof.
        """
        if imports not in self._room:
            less = Limits(self._limits.cpu_seconds, self._limits.wall_seconds, self._limits.memory_mb * 3 // 4)
            with tempfile.TemporaryDirectory(prefix="rlpost-lean-", ignore_cleanup_errors=True) as name:
                run = self._elaborate(Path(name), f"{imports}\n", less)
            self._room[imports] = run.exit_code == 0
        return self._room[imports]

    def _replay(self, folder: Path) -> Ruling | None:
        if self._checker is None:
            return None
        if not (folder / f"{MODULE}.olean").is_file():
            return Ruling("undecided", "crashed", "Lean reported success and wrote no module to replay")
        cwd = self._cwd or folder
        return replay(self._checker, MODULE, folder, cwd, os.environ, self._limits, self._processes)

    def _find_checker(self, mode: Replaying, command: Sequence[str] | None) -> tuple[str, ...] | None:
        if mode == "off":
            return None
        if command is not None:
            return tuple(command)
        checker = find_checker(self._command, _output(self._command, "--print-prefix", self._cwd))
        if checker is None and mode == "require":
            raise UserError(
                "leanchecker is 'require' and this toolchain has none; use a newer Lean, or leanchecker: auto"
            )
        return checker


def lean_version(command: Sequence[str], cwd: Path | None = None) -> str:
    """The version of Lean 4 that a command runs.

    Raises:
        MissingPackageError: if it does not run, or is not Lean 4.
    """
    text = _output(command, "--version", cwd)
    found = _VERSION.search(text)
    if found is None or not found[1].startswith("4."):
        raise MissingPackageError(f"{' '.join(command)!r} is not Lean 4 (it says {text[:80]!r}); {_REMEDY}")
    return found[1]


def check_project(project: str | Path | None) -> Path | None:
    """The folder to run in, absolute.

    Raises:
        UserError: if it does not exist.
    """
    if project is None:
        return None
    folder = Path(project).expanduser().absolute()
    if not folder.is_dir():
        raise UserError(f"project {str(project)!r} is not a folder; give the folder of a Lake project")
    return folder


def _end(threads: Threads, processes: Processes) -> None:
    processes.kill_all()
    threads.close()


def _output(given: Sequence[str], argument: str, cwd: Path | None) -> str:
    command = [*given, argument]
    try:
        run = subprocess.run(command, capture_output=True, cwd=cwd, timeout=_START_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise InfrastructureError(f"{' '.join(command)!r} did not end in {_START_SECONDS:g} s") from error
    except (OSError, ValueError) as error:
        raise MissingPackageError(f"{command[0]!r} cannot be run ({error}); {_REMEDY}") from error
    text = run.stdout.decode("utf-8", "replace").strip()
    if run.returncode != 0:
        said = run.stderr.decode("utf-8", "replace").strip() or text or "nothing"
        raise MissingPackageError(
            f"{' '.join(command)!r} ended with status {run.returncode} (it says {said.splitlines()[0][:80]!r}); "
            f"{_REMEDY}"
        )
    return text
