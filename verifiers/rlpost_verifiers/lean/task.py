"""One question to Lean: does this text prove that statement?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from rlpost.errors import DataError

Mode = Literal["proof", "declarations", "file"]


@dataclass(frozen=True, slots=True)
class ProofTask:
    """A statement and its candidate proof.

    Attributes:
        statement: a bare type, e.g. ``∀ p : Prop, p → p``.
        proof: the text after ``:=``, a term or a ``by`` block (in file mode a whole file).
        name: a label for people; the theorem in the checked file is always called ``X``.
        header: lines before the theorem: ``open …`` and ``universe …`` only.
        binders: arguments between the name and the colon, e.g. ``(p q : Prop)``.
        mode: ``proof``; ``declarations`` if the proof is a theorem with the declarations that it needs before it; or
            ``file`` if the model writes the whole file, in which a theorem ``X`` is wanted.
        theorem: the theorem's own name: the one that the prompt gives it, and in mode ``declarations`` the full name
            of the theorem that must prove the statement.
        context: the data set's own declarations before the theorem (``def``, ``abbrev``, ``variable``, ``namespace``
            …), which are trusted.

    >>> ProofTask("∀ p : Prop, p → p", "fun _ h => h").name
    'X'
    """

    statement: str
    proof: str
    name: str = "X"
    header: str = ""
    binders: str = ""
    mode: Mode = "proof"
    theorem: str = ""
    context: str = ""


def parse_task(row: Mapping[str, Any], where: str) -> ProofTask:
    """A task from a JSON object; keys other than the task's own are ignored.

    Args:
        row: the object; it must hold the strings ``statement`` and ``proof``.
        where: name of the row in error messages, e.g. ``proofs.jsonl line 3``.

    Raises:
        DataError: for a missing key, a value that is not a string, a blank statement or an unknown mode.

    >>> parse_task({"statement": "True", "proof": "trivial", "difficulty": 1}, "line 1").proof
    'trivial'
    """
    texts: dict[str, str] = {}
    for key in ("statement", "proof", "name", "header", "binders", "theorem", "context"):
        value = row.get(key)
        if value is None:
            if key in ("statement", "proof"):
                raise DataError(f"{where}: no {key!r}; a proof task needs the strings 'statement' and 'proof'")
            continue
        if not isinstance(value, str):
            raise DataError(f"{where}: {key!r} is {value!r}, not a string; write it as text")
        texts[key] = value.replace("\r\n", "\n")
    if not texts["statement"].strip():
        raise DataError(f"{where}: 'statement' is blank; give the type to be proved")
    mode = row.get("mode", "proof")
    if mode not in get_args(Mode):
        raise DataError(f"{where}: 'mode' is {mode!r}; use {', '.join(map(repr, get_args(Mode)))}")
    if mode == "declarations" and not texts.get("theorem", "").strip():
        raise DataError(f"{where}: no 'theorem'; in mode 'declarations' it names the theorem that proves the statement")
    return ProofTask(**texts, mode=mode)
