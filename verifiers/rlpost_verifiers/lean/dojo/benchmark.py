"""LeanDojo's benchmark files: theorems with their tactic traces, and the premises that proofs may use.

The formats are those of LeanDojo Benchmark 4 (Yang et al., "LeanDojo: Theorem Proving with Retrieval-Augmented
Language Models", NeurIPS 2023, section 4): ``random/train.json`` and its siblings hold a list of theorems,
``corpus.jsonl`` one Lean file per line. Nothing here needs the package lean_dojo.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

from rlpost.data.jsonl import existing_file, parse_lines
from rlpost.errors import DataError

_T = TypeVar("_T")
_NAMES = {str: "text", list: "a list", dict: "an object"}

Position = tuple[int, int]
"""Line and column, both counted from 1."""


@dataclass(frozen=True, slots=True)
class TracedStep:
    """One tactic of a human proof, with the states before and after it.

    Attributes:
        tactic: text of the tactic, e.g. ``rw [add_comm]``.
        annotated: the text with each premise marked, e.g. ``rw [<a>add_comm</a>]``; the plain text if not annotated.
        premises: full names of the marked premises, in order.
        state_before: pretty-printed goals before the tactic.
        state_after: pretty-printed goals after it; ``no goals`` at the end.
    """

    tactic: str
    annotated: str
    premises: tuple[str, ...]
    state_before: str
    state_after: str


@dataclass(frozen=True, slots=True)
class TheoremTrace:
    """A theorem, its position, and its tactics in the order of the file (nested ones included).

    Attributes:
        url: URL of the repository.
        commit: commit of the repository.
        file_path: path of the file inside the repository.
        full_name: fully qualified name.
        start: position of its beginning in the file.
        end: position of its end in the file.
        steps: the tactics; empty for a theorem proved by a term.
        statement: source text up to the proof; None where the benchmark leaves it out.
    """

    url: str
    commit: str
    file_path: str
    full_name: str
    start: Position
    end: Position
    steps: tuple[TracedStep, ...]
    statement: str | None = None

    @property
    def id(self) -> str:
        """A name unique in one repository: ``full_name@file:line``."""
        return f"{self.full_name}@{self.file_path}:{self.start[0]}"


@dataclass(frozen=True, slots=True)
class Premise:
    """A definition or theorem that a proof may use.

    >>> Premise("Nat.succ_le", "theorem succ_le : ...", "Init/Nat.lean", (7, 1), (7, 30), "commandtheorem").id
    'Nat.succ_le@Init/Nat.lean:7'
    """

    full_name: str
    code: str
    path: str
    start: Position
    end: Position
    kind: str

    @property
    def id(self) -> str:
        """A name unique in one corpus: ``full_name@file:line``."""
        return f"{self.full_name}@{self.path}:{self.start[0]}"


def read_theorems(path: str) -> list[TheoremTrace]:
    """All theorems of a benchmark file such as ``random/train.json``, those without a tactic proof included.

    Raises:
        DataError: naming the file, the theorem's index (from 0) and the value that is missing or of the wrong type.
    """
    try:
        found = json.loads(existing_file(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not valid JSON ({error.msg}, line {error.lineno}); give a benchmark file such as train.json"
        ) from None
    if not isinstance(found, list):
        raise DataError(f"{path}: holds {_describe(found)}, not a list of theorems; give a file such as train.json")
    return [_theorem(item, f"{path}, theorem {number}") for number, item in enumerate(found)]


@dataclass(frozen=True, slots=True)
class CorpusFile:
    """A line of ``corpus.jsonl``: a Lean file with the files that it imports itself, and its premises in order."""

    path: str
    imports: tuple[str, ...]
    premises: tuple[Premise, ...]


def read_premises(path: str) -> list[Premise]:
    """All premises of a ``corpus.jsonl``. Those without a name are left out: nothing could refer to them.

    Raises:
        DataError: naming the file, line, premise and the value that is missing or of the wrong type.
    """
    return [premise for file in read_corpus(path, imports=False) for premise in file.premises]


def read_corpus(path: str, imports: bool = True) -> list[CorpusFile]:
    """The files of a ``corpus.jsonl`` in order, with their named premises; ``imports``: whether they are needed.

    Raises:
        DataError: as `read_premises`.
    """
    try:
        text = existing_file(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 ({error.reason} at byte {error.start}); convert the file") from None
    files: list[CorpusFile] = []
    for place, line in parse_lines(text, path):
        row = _object(line, place)
        file = _get(row, "path", str, place)
        records = enumerate(_get(row, "premises", list, place))
        premises = (make_premise(item, file, f"{place}, premise {number}") for number, item in records)
        imported = tuple(str(name) for name in _get(row, "imports", list, place)) if imports else ()
        files.append(CorpusFile(file, imported, tuple(premise for premise in premises if premise is not None)))
    return files


def make_premise(item: Any, path: str, where: str) -> Premise | None:
    """A premise from LeanDojo's record of it; None if it has no name.

    Args:
        item: ``{"full_name", "code", "start", "end", "kind"}``.
        path: path of the file that contains it.
        where: name of the record in error messages.

    Raises:
        DataError: for a value that is missing or of the wrong type.

    >>> record = {"full_name": "two", "code": "def two := 2", "start": [1, 1], "end": [1, 13], "kind": "commanddef"}
    >>> make_premise(record, "A.lean", "premise 0").id
    'two@A.lean:1'
    """
    row = _object(item, where)
    if row.get("full_name") is None:
        return None
    return Premise(
        full_name=_get(row, "full_name", str, where),
        code=_get(row, "code", str, where),
        path=path,
        start=_position(row, "start", where),
        end=_position(row, "end", where),
        kind=_get(row, "kind", str, where),
    )


def make_step(tactic: str, annotated: Any, state_before: str, state_after: str, where: str) -> TracedStep:
    """A step from its parts.

    Args:
        tactic: plain text of the tactic.
        annotated: LeanDojo's pair of marked text and premises (objects with a ``full_name``), or None.
        state_before: goals before the tactic.
        state_after: goals after the tactic.
        where: name of the step in error messages.

    Raises:
        DataError: if ``annotated`` is something else.

    >>> make_step("exact h", ["exact <a>h</a>", [{"full_name": "A.h"}]], "⊢ p", "no goals", "step 0").premises
    ('A.h',)
    """
    match annotated:
        case None:
            return TracedStep(tactic, tactic, (), state_before, state_after)
        case [str(marked), [*premises]]:
            names = tuple(_get(_object(item, where), "full_name", str, where) for item in premises)
            return TracedStep(tactic, marked, names, state_before, state_after)
        case _:
            raise DataError(
                f"{where}: 'annotated_tactic' is {_describe(annotated)}, expected a pair of text and a list of premises"
            )


def _theorem(item: Any, where: str) -> TheoremTrace:
    row = _object(item, where)
    steps = _get(row, "traced_tactics", list, where)
    return TheoremTrace(
        url=_get(row, "url", str, where),
        commit=_get(row, "commit", str, where),
        file_path=_get(row, "file_path", str, where),
        full_name=_get(row, "full_name", str, where),
        start=_position(row, "start", where),
        end=_position(row, "end", where),
        steps=tuple(_step(step, f"{where}, tactic {number}") for number, step in enumerate(steps)),
        statement=None if row.get("theorem_statement") is None else _get(row, "theorem_statement", str, where),
    )


def _step(item: Any, where: str) -> TracedStep:
    row = _object(item, where)
    before, after = _get(row, "state_before", str, where), _get(row, "state_after", str, where)
    return make_step(_get(row, "tactic", str, where), row.get("annotated_tactic"), before, after, where)


def _object(item: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(item, dict):
        raise DataError(f"{where}: expected an object, got {_describe(item)}")
    return cast("dict[str, Any]", item)


def _get(row: Mapping[str, Any], key: str, kind: type[_T], where: str) -> _T:
    if key not in row:
        raise DataError(f"{where}: no {key!r} (there are {', '.join(row) or 'no keys'}); is it a LeanDojo benchmark?")
    value = row[key]
    if not isinstance(value, kind):
        raise DataError(f"{where}: {key!r} is {_describe(value)}, expected {_NAMES[kind]}")
    return value


def _position(row: Mapping[str, Any], key: str, where: str) -> Position:
    match _get(row, key, list, where):
        case [int(line), int(column)] if line >= 1 and column >= 1:
            return line, column
        case other:
            raise DataError(f"{where}: {key!r} is {_describe(other)}, expected line and column, counted from 1")


def _describe(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:59]}…"
