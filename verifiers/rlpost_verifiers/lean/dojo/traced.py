"""A repository that LeanDojo has traced, read from its folder without asking any server.

``TracedRepo.load_from_disk`` asks GitHub for every dependency and for Lean's own commit, copies the folder into
LeanDojo's cache and may start ray. None of that is needed to read what the trace says, so the files are read here one
by one, each by LeanDojo's own `TracedFile`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlpost.errors import DataError
from rlpost_verifiers.lean.dojo.benchmark import (
    Position,
    Premise,
    TheoremTrace,
    TracedStep,
    make_premise,
    make_step,
)
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo

if TYPE_CHECKING:
    from rlpost_verifiers.lean.dojo.imports import TracedFile, TracedTheorem

_PACKAGES = Path(".lake/packages")
# What LeanDojo raises for a file that is not what it expects; most of its checks are assertions.
_UNREADABLE = (AssertionError, AttributeError, IndexError, KeyError, OSError, RuntimeError, SyntaxError, ValueError)


@dataclass(frozen=True, slots=True)
class _Repository:
    """The three facts that LeanDojo's readers take from a `LeanGitRepo`, which cannot be made without its cache."""

    url: str
    commit: str
    name: str


def read_theorems(folder: str) -> list[TheoremTrace]:
    """The theorems of the repository itself, in the order of its files; those of its packages are left out.

    ``url`` is the URL of the repository's remote ``origin``, or its folder where there is none.

    Args:
        folder: the root of a traced repository, a git work tree with ``*.trace.xml`` files under ``.lake/build/ir``.

    Raises:
        DataError: if the folder is not a traced repository, or a source file has changed since it was traced.
        MissingPackageError: if LeanDojo is not installed.
    """
    root, repository = _open(folder)
    theorems: list[TheoremTrace] = []
    for path in _trace_files(root, packages=False):
        try:
            file = _load(root, path, repository)
            theorems += [_theorem(found) for found in file.get_traced_theorems() if found.theorem.full_name is not None]
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
    return theorems


def read_premises(folder: str) -> list[Premise]:
    """The definitions and theorems of the repository's files and all its traced packages, in the order of the files.

    Args:
        folder: the root of a traced repository, see `read_theorems`.

    Raises:
        DataError: as `read_theorems`.
        MissingPackageError: as `read_theorems`.
    """
    root, repository = _open(folder)
    premises: list[Premise] = []
    for path in _trace_files(root, packages=True):
        try:
            file = _load(root, path, repository)
            records = [_plain(record) for record in file.get_premise_definitions()]
        except _UNREADABLE as error:
            raise _unreadable(path, error) from error
        found = [make_premise(record, str(file.path), f"{path}, premise {n}") for n, record in enumerate(records)]
        premises += [premise for premise in found if premise is not None]
    return premises


def _open(folder: str) -> tuple[Path, _Repository]:
    import_lean_dojo()
    git = importlib.import_module("git")
    root = Path(folder).expanduser().resolve()
    try:
        work_tree = git.Repo(root)
        commit = str(work_tree.head.commit.hexsha)
        origins = [remote.url for remote in work_tree.remotes if remote.name == "origin"]
    except (git.InvalidGitRepositoryError, git.NoSuchPathError, ValueError):
        raise DataError(
            f"{folder}: not a git repository with a commit; give the root of a traced repository, or a benchmark file"
        ) from None
    return root, _Repository(str(origins[0]) if origins else str(root), commit, root.name)


def _trace_files(root: Path, *, packages: bool) -> Iterator[Path]:
    """LeanDojo's trace files in alphabetical order, so that equal folders give equal rows."""
    found = [
        path
        for path in sorted(root.glob("**/*.trace.xml"))
        if packages or not path.relative_to(root).is_relative_to(_PACKAGES)
    ]
    if not found:
        raise DataError(f"{root}: holds no *.trace.xml; trace the repository first (lean_dojo.trace)")
    yield from found


def _load(root: Path, path: Path, repository: _Repository) -> TracedFile:
    lean_dojo: Any = import_lean_dojo()
    file = lean_dojo.TracedFile.from_xml(root, path, repository)
    file.traced_repo = lean_dojo.TracedRepo(repository, {}, root, [file], None)
    return file


def _theorem(found: TracedTheorem) -> TheoremTrace:
    origin = found.theorem
    return TheoremTrace(
        url=origin.repo.url,
        commit=origin.repo.commit,
        file_path=str(origin.file_path),
        full_name=origin.full_name,
        start=_position(found.start),
        end=_position(found.end),
        steps=tuple(_steps(found)),
        statement=found.get_theorem_statement(),
    )


def _steps(found: TracedTheorem) -> Iterator[TracedStep]:
    for number, step in enumerate(found.get_traced_tactics()):
        annotated = list(step.get_annotated_tactic())
        where = f"{found.theorem.full_name}, tactic {number}"
        yield make_step(step.tactic, annotated, step.state_before, step.state_after, where)


def _position(pos: Any) -> Position:
    line, column = pos
    return line, column


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {**record, "start": list(record["start"]), "end": list(record["end"])}


def _unreadable(path: Path, error: Exception) -> DataError:
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return DataError(f"{path}: LeanDojo cannot read it ({detail}); was the source changed since? trace it again")
