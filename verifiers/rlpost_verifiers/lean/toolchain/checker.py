"""Replays a compiled module in Lean's kernel with `leanchecker`, which toolchains include from Lean 4.28 on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rlpost_verifiers.lean.messages import Ruling
from rlpost_verifiers.lean.toolchain.process import Limits, Processes

Replaying = Literal["auto", "off", "require"]

# Its output when the kernel refuses a constant, or when one differs from what the kernel makes of its declaration.
_REFUSED = ("(kernel)", "found a problem in", "Invalid constructor", "Invalid recursor")


def find_checker(command: Sequence[str], prefix: str) -> tuple[str, ...] | None:
    """The command of the toolchain's own ``leanchecker``, or None if it has none.

    Args:
        command: the command that runs Lean; words before ``lean`` (such as ``lake env``) are kept.
        prefix: the output of ``lean --print-prefix``.
    """
    program = Path(prefix) / "bin" / "leanchecker"
    if not prefix or not os.access(program, os.X_OK):
        return None
    before = command[:-1] if Path(command[-1]).name == "lean" else ()
    return (*before, str(program))


def replay(
    command: Sequence[str],
    module: str,
    folder: Path,
    cwd: Path,
    environment: Mapping[str, str],
    limits: Limits,
    processes: Processes,
) -> Ruling:
    """Have the kernel check every constant of ``<folder>/<module>.olean`` again.

    Accepted only if the checker reports success; rejected if it names a fault or uses up its CPU time; undecided if it
    could not finish for any other reason.
    """
    path = os.pathsep.join(filter(None, (str(folder), environment.get("LEAN_PATH", ""))))
    try:
        run = processes.run([*command, module], limits, folder, cwd, {**environment, "LEAN_PATH": path})
    except OSError as error:
        return Ruling("undecided", "unavailable", f"leanchecker cannot be run: {error.strerror}")
    line = next((line.strip()[:200] for line in run.output.splitlines() if line.strip()), "no message")
    if run.exit_code == 0:
        return Ruling("accepted", "proved")
    if run.exit_code == 1 and any(mark in run.output for mark in _REFUSED):
        return Ruling("rejected", "kernel_rejected", f"leanchecker: {line}")
    if run.cpu_seconds >= limits.cpu_seconds:
        return Ruling("rejected", "timeout", f"used its {limits.cpu_seconds:g} s of CPU time in the kernel replay")
    if run.wall_exceeded:
        return Ruling("undecided", "timeout", f"leanchecker did not end in {limits.wall_seconds:g} s")
    return Ruling("undecided", "crashed", f"leanchecker ended with status {run.exit_code}: {line}")
