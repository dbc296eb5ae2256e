"""Splits Lean declarations: ``theorem name binders : type := by`` into header, binders and bare type.

For data sets such as miniF2F, whose rows hold a whole declaration without its proof.
"""

from __future__ import annotations

import logging
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlpost.config.choices import check_choices
from rlpost.data.decontaminate import normalise_text
from rlpost.errors import DataError
from rlpost.plugins.registry import resolve
from rlpost_verifiers.lean.dojo.retrieval import add_premises
from rlpost_verifiers.lean.shown import imported_modules, problem_in_words, show_code

_log = logging.getLogger(__name__)

_COMMENT = re.compile(r"/-|-/|--[^\n]*")
_KEYWORD = re.compile(r"(?:^|(?<=\s))(?:theorem|lemma)\s+(?P<name>[^\s:({\[⦃]+)")
_HEADER_LINE = re.compile(r"(?:open|universe)\b(?!.*\bin$).*")
_OPTION = re.compile(r"set_option[ ]+(?P<name>[\w.]+)[ ]+(?P<value>\w+)")
# Options that decide what Lean accepts. Those that change what it prints are left out: not every Lean has them.
_DECISIVE = re.compile(
    r"maxHeartbeats|maxRecDepth|synthInstance\.max(?:Heartbeats|Size)|autoImplicit|relaxedAutoImplicit|backward\.[\w.]+"
)
_OWN_MODIFIERS = re.compile(r"(?:(?:@\[[^\[\]]*\]|\b(?:private|protected|nonrec|noncomputable))\s*)+\Z")
_ENDS = re.compile(r"(?:\s*^end\b[^\n]*)+\s*\Z", re.MULTILINE)
_UNIVERSES = re.compile(r"\{([\w, ]+)\}\s*")
_SORRY = re.compile(r"(?<![\w.])(?:sorry|admit)(?![\w'!?])")
_PAIRS = {"(": ")", "[": "]", "{": "}", "⟨": "⟩", "⦃": "⦄"}
_CLOSING = {closing: opening for opening, closing in _PAIRS.items()}
_COLUMNS = ("theorem_statement", "formal_statement", "statement")
NAMES = ("theorem_full_name", "full_name", "name", "id")
INFORMAL = ("informal_statement", "informal_prefix", "informal")


@dataclass(frozen=True, slots=True)
class Statement:
    """A theorem without its proof.

    Attributes:
        name: the theorem's name as written.
        header: its ``open`` and ``universe`` lines, and the options that decide what Lean accepts; imports are left to
            the backend.
        binders: arguments between the name and the colon.
        statement: the bare type.
        formal: the declaration as written, with its context, up to and including ``:= by``.
        context: everything else before the theorem that Lean needs to read it: definitions, variables, namespaces.
    """

    name: str
    header: str
    binders: str
    statement: str
    formal: str
    context: str = ""


def split_theorem(text: str) -> Statement:
    r"""Split a declaration into its parts.

    Args:
        text: optional header lines and declarations, then one ``theorem`` or ``lemma``, with or without ``:= by`` or
            ``:= sorry`` at its end. Comments are left out, and so is an ``end`` after the theorem.

    Raises:
        DataError: if there is no theorem, more than one, no type, a bracket that does not close, a proof, or a context
            that leaves something out by ``sorry``.

    >>> one = split_theorem("open Nat\ntheorem two (n : ℕ) (h : n = 1) :\n  n + n = 2 := by\n")
    >>> (one.name, one.header, one.binders, one.statement)
    ('two', 'open Nat', '(n : ℕ) (h : n = 1)', 'n + n = 2')
    """
    plain = without_comments(unicodedata.normalize("NFC", text))
    declarations = list(_KEYWORD.finditer(plain))
    if len(declarations) != 1:
        raise DataError(f"{len(declarations)} theorems where one is needed")
    found = declarations[0]
    body = _ENDS.sub("", plain[found.end() :])
    colon, assign = outer_cuts(body)
    if colon is None:
        raise DataError("no colon outside brackets, so no type")
    proof = "" if assign is None else " ".join(body[assign + 2 :].split())
    if proof not in ("", "by", "sorry", "by sorry"):
        raise DataError(f"a proof follows ({proof[:30]!r}); give the statement alone")
    binders, statement = body[:colon].strip(), body[colon + 1 : assign].strip()
    if not statement:
        raise DataError("the type is empty")
    if outer_cuts(statement)[1] is not None:
        # Lean would take a `let … := …` of the type for the beginning of the proof.
        statement = f"({statement})"
    header, context = split_context(plain[: found.start()])
    name, formal = found["name"], f"{found[0].strip()}{body[:assign].rstrip()} := by"
    if name.endswith(".") and (universes := _UNIVERSES.match(binders)):  # theorem t.{u, v} …
        name, binders = name[:-1], binders[universes.end() :]
        header = "\n".join(
            part for part in (header, f"universe {' '.join(universes[1].replace(',', ' ').split())}") if part
        )
    shown = f"{context}\n\n{formal}" if context else formal
    return Statement(name, header, binders, statement, shown, context)


def split_context(text: str) -> tuple[str, str]:
    r"""What stands before a theorem, without comments: header lines, and the rest from the first other command on.

    Imports, options that change only what Lean prints, and modifiers and attributes of the theorem itself are left out.

    Raises:
        DataError: for a ``sorry``.

    >>> split_context("import Mathlib\nset_option maxHeartbeats 0\nopen Nat\n\nabbrev answer : ℕ := 3\n\n@[simp]\n")
    ('set_option maxHeartbeats 0\nopen Nat', 'abbrev answer : ℕ := 3')
    """
    lines = _OWN_MODIFIERS.sub("", text).splitlines()
    header: list[str] = []
    while lines:
        line = lines[0].strip()
        option = _OPTION.fullmatch(line)
        if _HEADER_LINE.fullmatch(line):
            header.append(line)
        elif option:
            if _DECISIVE.fullmatch(option["name"]):
                header.append(f"set_option {option['name']} {option['value']}")
        elif line and not imported_modules(line) and line != "noncomputable section":
            break
        lines.pop(0)
    context = "\n".join(line.rstrip() for line in lines if not imported_modules(line)).strip()
    if missing := _SORRY.search(context):
        raise DataError(f"{missing[0]!r} stands in the declarations before the theorem; write out what it leaves open")
    return "\n".join(header), context


def rows(
    path: str | Sequence[str],
    header: str = "",
    column: str | None = None,
    split: str | None = None,
    duplicates: Literal["drop", "keep"] = "drop",
    exclude: str | Sequence[str] = (),
    unreadable: Literal["refuse", "drop"] = "refuse",
    declarations: Literal["keep", "unreadable"] = "keep",
    imports: Literal["backend", "rows"] = "backend",
    retrieve: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The data source ``lean_statements``: JSONL or Parquet files of declarations as proof tasks.

    Args:
        path: path of one file, or of several.
        header: lines for every row, before its own: imports, options, ``open`` and ``universe``, laid out as the
            prompt is to show them.
        column: name of the column that holds the declaration; None: the first present of ``theorem_statement`` (as
            "Rewarding the Unlikely" released it), ``formal_statement`` and ``statement``.
        split: keep only rows whose column ``split`` has this value; None keeps all rows.
        duplicates: ``drop`` or ``keep`` later rows that repeat an earlier statement under another name or spacing.
        exclude: files whose statements are left out, such as held-out test sets (decontamination).
        unreadable: ``refuse`` a row that cannot be split into its parts, or ``drop`` it with a warning that names it;
            how many were dropped is said in the end.
        declarations: what becomes of a row with definitions or variables before its theorem: ``keep`` them as its
            context, or treat it as ``unreadable``.
        imports: what is imported to check a row: what the ``backend`` is set to, or besides that what the ``rows``
            (and ``header``) import, which the embedded Lean refuses.
        retrieve: arguments of `rlpost_verifiers.lean.dojo.retrieval.add_premises` (``{corpus: FILE, k: 10}``), which
            adds the column ``premises``: what of LeanDojo's corpus may help to prove the statement.

    Returns:
        The rows' own columns with ``id``, ``name``, ``theorem`` (its name in the declaration), ``header``,
        ``context``, ``binders``, ``statement``, ``formal`` (the theorem without comments), ``informal``, ``code`` (the
        file to complete, as the row writes it, up to ``:= by``) and ``problem`` (in words, or empty). Lines of
        ``header`` are part of every check: ``open``, ``universe``, and options such as ``maxHeartbeats``.

    Raises:
        DataError: naming file, row and reason.
    """
    settings = _Settings(column, unreadable, declarations, imports)
    _read_lines(header, "header")
    held_out = {_key(row) for row in _read(_paths(exclude), "", None, settings)}
    seen: set[str] = set()
    names: dict[str, int] = {}
    result: list[dict[str, Any]] = []
    dropped = {"stated before": 0, "held out": 0}
    for row in _read(_paths(path), header, split, settings):
        key = _key(row)
        reason = "held out" if key in held_out else "stated before" if duplicates == "drop" and key in seen else None
        if reason is not None:
            dropped[reason] += 1
            continue
        seen.add(key)
        names[row["name"]] = names.get(row["name"], 0) + 1
        count = names[row["name"]]
        result.append({**row, "id": row["name"] if count == 1 else f"{row['name']}#{count}"})
    if any(dropped.values()):
        _log.warning("%s: %d rows stated before and %d held out were left out", path, *dropped.values())
    if retrieve is None:
        return result
    return add_premises(result, **retrieve)


Imports = Literal["backend", "rows"]


@dataclass(frozen=True, slots=True)
class _Settings:
    column: str | None
    unreadable: Literal["refuse", "drop"]
    declarations: Literal["keep", "unreadable"]
    imports: Imports

    def __post_init__(self) -> None:
        check_choices(self, "lean_statements: ")


def _read(paths: Iterable[str], header: str, split: str | None, settings: _Settings) -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = []
    dropped = 0
    for path in paths:
        found = resolve("sources", "parquet" if path.endswith(".parquet") else "jsonl")(path)
        for number, row in enumerate(found):
            if split is not None and row.get("split") != split:
                continue
            try:
                read = as_row(row, header, settings.column, settings.imports)
                if read["context"] and settings.declarations == "unreadable":
                    raise DataError(f"declarations stand before the theorem ({read['context'][:60]!r})")
                result.append(read)
            except DataError as error:
                if settings.unreadable == "refuse":
                    raise DataError(f"{path}, row {number}: {error}; mend it, or set unreadable: drop") from None
                _log.warning("%s, row %d left out: %s", path, number, error)
                dropped += 1
    if dropped:
        _log.warning("%d rows were left out because they cannot be read, %d are left", dropped, len(result))
    return result


def declares_theorem(text: str) -> bool:
    """Whether a text holds a ``theorem`` or ``lemma``, rather than a bare type.

    >>> declares_theorem("theorem t : True := by sorry"), declares_theorem("∀ p : Prop, p → p")
    (True, False)
    """
    return _KEYWORD.search(without_comments(text)) is not None


def as_row(row: dict[str, Any], header: str, column: str | None, imports: Imports = "backend") -> dict[str, Any]:
    """A row with a declaration as a proof task; see `rows`.

    Raises:
        DataError: if it has none, or one that cannot be split into its parts.
    """
    key = column or next((name for name in _COLUMNS if name in row), None)
    text = row.get(key) if key is not None else None
    if not isinstance(text, str):
        raise DataError(f"no text in column {key or ' or '.join(_COLUMNS)} (there are {', '.join(row)})")
    parts = split_theorem(text)
    own = row.get("header") or ""
    lines = (_read_lines(header, "header"), _read_lines(own, "column header"), parts.header)
    name = next((str(row[key]) for key in NAMES if row.get(key)), parts.name)
    informal = next((str(row[key]) for key in INFORMAL if row.get(key)), "")
    comment = str(row.get("informal_prefix") or "")
    code = show_code(text, comment, (header, own), parts.formal)
    if imports == "rows":
        lines = ("\n".join(f"import {module}" for module in imported_modules(code)), *lines)
    return {
        **row,
        "name": name,
        "theorem": parts.name,
        "header": "\n".join(line for line in dict.fromkeys("\n".join(lines).splitlines()) if line.strip()),
        "context": parts.context,
        "binders": parts.binders,
        "statement": parts.statement,
        "formal": parts.formal,
        "informal": informal,
        "code": code,
        "problem": problem_in_words(row),
    }


def _read_lines(text: Any, what: str) -> str:
    """The header lines of a text that stands before a declaration in its file."""
    if not isinstance(text, str):
        raise DataError(f"{what} holds {str(text)[:40]!r}, not text")
    header, context = split_context(without_comments(unicodedata.normalize("NFC", text)))
    if context:
        raise DataError(f"{what} holds a definition ({context[:60]!r}); put it before the theorem")
    return header


def _key(row: dict[str, Any]) -> str:
    return normalise_text(f"{row['context']} {row['binders']} : {row['statement']}")


def _paths(given: str | Sequence[str]) -> list[str]:
    return [given] if isinstance(given, str) else list(given)


def without_comments(text: str) -> str:
    """``text`` with blanks in place of comments; block comments nest, a line comment ends with its line."""
    pieces: list[str] = []
    depth, position = 0, 0
    for mark in _COMMENT.finditer(text):
        if mark.start() < position:
            continue
        if depth == 0:
            pieces.append(text[position : mark.start()])
        if mark[0] == "/-":
            depth += 1
        elif mark[0] == "-/":
            depth = max(depth - 1, 0)
        elif depth:
            # what looks like a line comment can contain the end of the surrounding block comment
            position = mark.start() + 2
            continue
        position = mark.end()
        pieces.append(" ")
    return "".join(pieces) + ("" if depth else text[position:])


def outer_cuts(body: str) -> tuple[int | None, int | None]:
    """Indices of the first ``:`` and the last ``:=`` outside brackets, None where there is none."""
    open_: list[str] = []
    colon: int | None = None
    assign: int | None = None
    for place, character in enumerate(body):
        if character in _PAIRS:
            open_.append(character)
        elif character in _CLOSING:
            if not open_ or open_.pop() != _CLOSING[character]:
                raise DataError(f"{character!r} closes nothing")
        elif character == ":" and not open_:
            if body.startswith(":=", place):
                assign = place
            elif colon is None:
                colon = place
    if open_:
        raise DataError(f"{open_[-1]!r} is never closed")
    return colon, assign
