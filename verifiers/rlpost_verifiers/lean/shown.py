"""What a prompt shows of a proof task: the file that the model is to complete, as its data set wrote it.

Provers were trained on whole files: imports, options, ``open`` lines, a comment with the problem in words, and the
theorem up to its ``:= by``. What is checked (`rlpost_verifiers.lean.statements`) is cut from the same text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from rlpost_verifiers.lean.text import CommentError, blank_comments

_IMPORT_LINE = re.compile(r"[ \t]*(?:public )?(?:meta )?import (?:all )?(?P<module>[\w.«»]+)[ \t]*")
_THEOREM = re.compile(r"(?:^|(?<=\s))(?:theorem|lemma)\s")
_MODIFIERS = re.compile(r"(?:(?:@\[[^\[\]]*\]|\b(?:private|protected|nonrec|noncomputable|public))\s*)+\Z")
_PROOF = re.compile(r"\s*:=\s*(?:by)?\s*(?:sorry|admit)?\s*\Z")
_ENDS = re.compile(r"(?:\s*^end\b[^\n]*)+\s*\Z", re.MULTILINE)
_COMMENT = re.compile(r"\A\s*/-+\s*(.*?)\s*-/\s*\Z", re.DOTALL)
_PROBLEMS = ("problem", "natural_language", "informal_statement", "informal_stmt", "nl_statement", "informal_prefix")
_NO_PROBLEM = ("", "None", "nan")


def imported_modules(text: str) -> list[str]:
    r"""The modules that the lines of ``text`` import, in order and once each.

    >>> imported_modules("import Mathlib\npublic import Aesop\nimport Mathlib\nopen Nat")
    ['Mathlib', 'Aesop']
    """
    found = (_IMPORT_LINE.fullmatch(line) for line in text.splitlines())
    return list(dict.fromkeys(match["module"] for match in found if match))


def show_code(text: str, comment: str = "", headers: tuple[str, ...] = (), otherwise: str = "") -> str:
    r"""The file that a prompt shows, which ends with the theorem's ``:= by``.

    Args:
        text: the declaration as the data set holds it, with comments, and with or without a ``sorry``.
        comment: a comment in Lean, with the problem in words, that goes before the theorem unless ``text`` has one.
        headers: lines that stand before it in the file, such as the data set's own column ``header``; a line that
            comes again is left out, and imports go first.
        otherwise: what is shown of ``text`` where its comments cannot be told from its code.

    >>> print(show_code("theorem t : 1 = 1 := by\n  sorry", "/-- One. -/\n", ("import Mathlib\n\nopen Nat\n\n",)))
    import Mathlib
    <BLANKLINE>
    open Nat
    <BLANKLINE>
    /-- One. -/
    theorem t : 1 = 1 := by
    """
    body = _with_comment(_cut(_normal(text), otherwise), _normal(comment).strip())
    parts = [found for part in headers if (found := _normal(part).strip("\n"))]
    if len(parts) <= 1 and not (parts and imported_modules(body)):
        shown = [_without_repeated(part, body) for part in parts] + [body]
    else:
        modules = imported_modules("\n".join((*parts, body)))
        shown = ["\n".join(f"import {module}" for module in modules)]
        for index, part in enumerate(parts):
            later = "\n".join((*parts[index + 1 :], body))
            shown.append(_without_repeated(_without_imports(part), later))
        shown.append(_without_imports(body))
    return "\n\n".join(part for part in shown if part.strip())


def problem_in_words(row: Mapping[str, Any]) -> str:
    """The problem of a row in natural language, without the marks of a comment; empty where there is none.

    >>> problem_in_words({"informal_prefix": "/-- Show that one is one. -/ "})
    'Show that one is one.'
    """
    for key in _PROBLEMS:
        value = row.get(key)
        if isinstance(value, str) and value.strip() not in _NO_PROBLEM:
            found = _COMMENT.fullmatch(value)
            return (found[1] if found else value).strip()
    return ""


def _normal(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n")


def _cut(text: str, otherwise: str) -> str:
    """``text`` up to its theorem's ``:= by``, without the proof that is missing and what follows it."""
    try:
        bare = blank_comments(text)
    except CommentError:
        return otherwise
    end = len(_ENDS.sub("", bare).rstrip())
    proof = _PROOF.search(bare, 0, end)
    end = proof.start() if proof else end
    return f"{text[:end].strip()} := by"


def _with_comment(code: str, comment: str) -> str:
    if not comment.startswith("/-") or "/--" in code:
        return code
    theorem = _THEOREM.search(blank_comments(code)) if "/-" not in comment[2:] else None
    if theorem is None:
        return code
    start = theorem.start()
    modified = _MODIFIERS.search(code[:start])
    start = modified.start() if modified else start
    return f"{code[:start]}{comment}\n{code[start:]}"


def _without_imports(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if not _IMPORT_LINE.fullmatch(line)).strip("\n")


def _without_repeated(text: str, later: str) -> str:
    known = {_said(line) for line in later.splitlines()}
    return "\n".join(line for line in text.split("\n") if not line.strip() or _said(line) not in known).strip("\n")


def _said(line: str) -> str:
    """A header line, or for an option only its name: a later line sets it again."""
    words = line.split()
    return " ".join(words[:2] if words[:1] == ["set_option"] and words[-1] != "in" else words)
