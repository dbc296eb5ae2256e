"""Finds the REPL that the package lean-interact has built, where there is one.

lean-interact (0.11) keeps builds under its own folder, as ``cache/<owner>/<repo>/repl_<revision>_lean-toolchain-<Lean
version>``. Making one needs git and lake and is left to that package: ``lean_interact.LeanREPLConfig()``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from rlpost.errors import MissingPackageError

_PROGRAM = Path(".lake", "build", "bin", "repl")
_REMEDY = "set 'command', e.g. ['lake', 'env', '/path/to/repl/.lake/build/bin/repl']"


def repl_command(project: Path | None) -> tuple[str, ...]:
    """The command that runs the REPL for the project's Lean version, or the newest built if the version is unknown.

    Raises:
        MissingPackageError: if lean-interact is not installed or has built no such REPL.
    """
    spec = importlib.util.find_spec("lean_interact")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError(f"no REPL command is given and lean-interact is not installed; {_REMEDY}")
    version = _read_version(project)
    cache = Path(spec.submodule_search_locations[0], "cache")
    built = [path / _PROGRAM for path in cache.glob(f"*/*/repl_*_lean-toolchain-{version or '*'}")]
    programs = sorted((path for path in built if path.is_file()), key=lambda path: path.stat().st_mtime)
    if not programs:
        wanted = f"for Lean {version} " if version else ""
        raise MissingPackageError(f"lean-interact has built no REPL {wanted}in {cache}; {_REMEDY}")
    return ("lake", "env", str(programs[-1]))


def _read_version(project: Path | None) -> str:
    """The toolchain file's version, e.g. ``v4.20.0`` of ``leanprover/lean4:v4.20.0``; empty if there is none."""
    file = project / "lean-toolchain" if project else None
    if file is None or not file.is_file():
        return ""
    return file.read_text(encoding="utf-8").strip().rpartition(":")[2]
