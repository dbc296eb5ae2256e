"""Proof tasks from LeanDojo's theorems: a theorem's statement and what stands before it, from its source file.

A benchmark file says where a theorem is and what its goals were, but not what its namespace, its variables and the
``open`` lines of its file are, without which it can neither be stated nor checked. These are in the source, so the
repository has to be at hand, at the commit that was traced.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from rlpost.errors import DataError
from rlpost_verifiers.lean.dojo.benchmark import Position, TheoremTrace
from rlpost_verifiers.lean.shown import imported_modules, show_code
from rlpost_verifiers.lean.statements import split_context, split_theorem, without_comments
from rlpost_verifiers.lean.text import CommentError, blank_comments

Imports = Literal["file", "backend"]

_OPENERS, _CLOSERS = "([{⟨⦃", ")]}⟩⦄"
_LOCAL = re.compile(r"(?:let|have|haveI|letI|let_fun|suffices)(?![\w'.])")
_WHERE = re.compile(r"where(?![\w'])")
_CASE = re.compile(r"\|[^\n]*=>")
# What holds for one command only, and stands before the theorem that is the last one here.
_IN = re.compile(
    r"(?:^|\n)(?P<command>[ \t]*(?:open|variable|set_option|omit|include|universe|local|scoped)\b[^\n]*?)\s+in\s*\Z"
)
# Words of Lean's module system, which a file without `module` may not use.
_MODULE = re.compile(r"^module[ \t]*$", re.MULTILINE)
_PUBLIC_SECTION = re.compile(r"^(?:@\[expose\]\s*)?public (?=(?:noncomputable )?section\b)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Sources:
    """The source files of a traced repository.

    Args:
        folder: the repository, with its packages under ``.lake/packages`` if their theorems are wanted.
    """

    folder: Path

    def text(self, theorem: TheoremTrace) -> str:
        """The file that holds a theorem.

        Raises:
            DataError: if it is not there, or no text.
        """
        path = self.folder / theorem.file_path
        try:
            return _read(path)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error.reason
            raise DataError(
                f"no source of {theorem.full_name}: {path} cannot be read ({reason}); give repo the folder of "
                f"{theorem.url} at commit {theorem.commit[:12]}"
            ) from None


@lru_cache(maxsize=64)
def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\r\n", "\n")


def make_task(theorem: TheoremTrace, sources: Sources, imports: Imports) -> dict[str, Any]:
    """The columns of a proof task and of its prompts, as `rlpost_verifiers.lean.statements.rows` names them.

    Everything before the theorem is its context, earlier theorems with their proofs included.

    Args:
        theorem: the theorem, with its place.
        sources: the repository's files.
        imports: ``file`` puts the file's own imports into the header, so that neither the theorem itself nor anything
            that rests on it is there to be used; ``backend`` leaves them to the verifier's setting.

    Raises:
        DataError: if the source is not there, is not the one that was traced, or cannot be split.
    """
    text = sources.text(theorem)
    start = _index(text, theorem.start, theorem)
    before, signature = text[:start], text[start : start + _signature_end(text[start:])]
    own = split_theorem(f"{signature} := by")
    _require_same(own.name, theorem)
    modules = imported_modules(before)
    header, context = split_context(_as_commands(before))
    lines = [*(f"import {module}" for module in modules if imports == "file"), header, own.header]
    formal = f"{context}\n\n{own.formal}" if context else own.formal
    return {
        "name": theorem.full_name,
        "theorem": own.name,
        "header": "\n".join(line for line in lines if line),
        "context": context,
        "binders": own.binders,
        "statement": own.statement,
        "formal": formal,
        "code": show_code(f"{before}{signature}", otherwise=formal),
        "modules": modules,
    }


def _as_commands(before: str) -> str:
    """What stands before a theorem, without comments, in words that Lean takes at the end of any file."""
    plain = without_comments(unicodedata.normalize("NFC", before))
    plain = _PUBLIC_SECTION.sub("", _MODULE.sub("", plain))
    while found := _IN.search(plain):
        plain = f"{plain[: found.start('command')]}{found['command']}\n"
    return plain


def _index(text: str, place: Position, theorem: TheoremTrace) -> int:
    lines = text.split("\n")
    if place[0] > len(lines) or place[1] > len(lines[place[0] - 1]) + 1:
        raise DataError(
            f"{theorem.file_path} has no line {place[0]}, column {place[1]}, where {theorem.full_name} should begin; "
            f"is it the source at commit {theorem.commit[:12]}?"
        )
    return sum(len(line) + 1 for line in lines[: place[0] - 1]) + place[1] - 1


def _signature_end(text: str) -> int:
    """Where the proof of the declaration at the start of ``text`` begins: its ``:=``, ``where`` or first case.

    A ``let`` or ``have`` of the type has a ``:=`` of its own.
    """
    bare = _blanked(text)
    depth = pending = 0
    for place, character in enumerate(bare):
        if character in _OPENERS:
            depth += 1
        elif character in _CLOSERS:
            depth -= 1
        elif depth:
            continue
        elif bare.startswith(":=", place):
            if not pending:
                return place
            pending -= 1
        elif character == "|" and _line_begins(bare, place) and _CASE.match(bare, place):
            return place
        elif place and not (bare[place - 1].isalnum() or bare[place - 1] in "_.'"):
            if _LOCAL.match(bare, place):
                pending += 1
            elif _WHERE.match(bare, place):
                return place
    return len(bare)


def _blanked(text: str) -> str:
    """``text`` with its comments blanked; the doc comment of a theorem may hold anything."""
    try:
        return blank_comments(text)
    except CommentError as error:
        raise DataError(f"comments cannot be told from code: {error}") from None


def _line_begins(text: str, place: int) -> bool:
    return not text[text.rfind("\n", 0, place) + 1 : place].strip()


def _require_same(name: str, theorem: TheoremTrace) -> None:
    own = name.removeprefix("_root_.")
    if theorem.full_name != own and not theorem.full_name.endswith(f".{own}"):
        raise DataError(
            f"{theorem.file_path}:{theorem.start[0]} declares {name}, not {theorem.full_name}; is it the source at "
            f"commit {theorem.commit[:12]}?"
        )
