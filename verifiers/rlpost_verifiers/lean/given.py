"""Theorems to be proved, from files as people have them: rows of our own sources, or declarations without a proof."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Mapping
from typing import Any

from rlpost.data.jsonl import read_jsonl
from rlpost.data.text import as_text, is_missing, shown
from rlpost.errors import DataError
from rlpost_verifiers.lean.shown import problem_in_words, show_code
from rlpost_verifiers.lean.statements import INFORMAL, NAMES, as_row, declares_theorem
from rlpost_verifiers.lean.task import parse_task

_DECLARATIONS = (
    *("theorem_statement", "formal_statement", "lean4_statement", "lean4_formalization", "lean4_code"),
    *("lean_statement", "statement"),
)
"""Columns in which released data sets keep a declaration, the surest first."""
_HEADERS = ("header", "lean4_src_header", "lean4_header")
_NAMES = (*NAMES, "problem_id", "theorem_name", "theorem_id")
_INFORMAL = (*INFORMAL, "nl_statement", "natural_language", "informal_stmt")
_EXAMPLE = re.compile(r"^example(?![\w'!?.])", re.MULTILINE)
_LONGEST_SHOWN = 400

Given = tuple[dict[str, Any], str | None]
"""A row, and why its theorem cannot be used; None where it can."""


def read_given(path: str, *, id_key: str = "id", fields: Collection[str] | None = None) -> list[Given]:
    """The theorems of a JSON-lines file as rows with ``name``, ``header``, ``context``, ``binders``, ``statement``,
    ``theorem``, ``formal``, ``informal``, ``code`` and ``problem``, next to their own columns.

    A row holds a bare type in ``statement`` (with ``header``, ``binders``, ``context``, as our sources give it), or a
    declaration (``theorem … := by sorry``; an ``example`` is called ``X``) in ``theorem_statement``,
    ``formal_statement``, ``lean4_statement``, ``lean4_formalization``, ``lean4_code``, ``lean_statement`` or
    ``statement``.

    Args:
        path: the file.
        id_key: column of the id. A row without one is called by its name (a repeated one gets ``#2``, ``#3``, …), or
            by its number, from 0.
        fields: columns that the prompt's template shows. Where that is the bare statement alone, binders become a ∀ of
            it, and a theorem that also needs a context cannot be used; None: no template, nothing is changed.

    Raises:
        DataError: for a file that cannot be read or has no rows, or an id that is given twice.
    """
    rows = read_jsonl(path)
    if not rows:
        raise DataError(f"{path}: no rows; give a theorem per line")
    ids = _identities(rows, path, id_key)
    return [_given(row, name, id_key, fields) for row, name in zip(rows, ids, strict=True)]


def _identities(rows: list[dict[str, Any]], path: str, id_key: str) -> list[str]:
    own = [
        None if is_missing(row.get(id_key)) else as_text(row[id_key], f"{path}, row {number}: column {id_key!r}")
        for number, row in enumerate(rows)
    ]
    seen: set[str] = set()
    for number, name in enumerate(own):
        if name is not None and name in seen:
            raise DataError(f"{path}, row {number}: id {shown(name)} is given twice; make ids unique")
        seen.update([name] if name is not None else [])
    found: list[str] = []
    for number, (row, name) in enumerate(zip(rows, own, strict=True)):
        if name is None:
            base = next((row[key] for key in _NAMES if isinstance(row.get(key), str) and row[key]), str(number))
            name, count = base, 1
            while name in seen:
                count += 1
                name = f"{base}#{count}"
            seen.add(name)
        found.append(name)
    return found


def _given(row: dict[str, Any], name: str, id_key: str, fields: Collection[str] | None) -> Given:
    raw = next((row[key] for key in _DECLARATIONS if isinstance(row.get(key), str)), "")
    try:
        read = _row(row, name)
        read = read if fields is None else _visible(read, fields)
    except DataError as error:
        return {**row, id_key: name, "name": name, "statement": raw[:_LONGEST_SHOWN]}, str(error)
    return {**read, id_key: name}, None


def _row(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    statement = row.get("statement")
    bare = isinstance(statement, str) and not declares_theorem(statement)
    column = next((key for key in _DECLARATIONS if isinstance(row.get(key), str) and row[key].strip()), None)
    ours = bare and ("binders" in row or column == "statement")
    if column is None:
        raise DataError(f"no text in {' or '.join(_DECLARATIONS)}")
    if not ours:
        return _from_declaration(row, column)
    parts = {key: "" if is_missing(row.get(key)) else row[key] for key in ("header", "context", "binders", "theorem")}
    read = {**row, **{key: _normal(value) for key, value in parts.items()}, "statement": _normal(statement)}
    task = parse_task({**read, "name": name, "proof": ""}, "the row")
    theorem = task.theorem or "X"
    read = {**read, "name": row.get("name") or name, "theorem": theorem}
    if not isinstance(row.get("formal"), str):
        binders = f" {task.binders}" if task.binders.strip() else ""
        formal = f"theorem {theorem}{binders} : {task.statement} := by"
        read["formal"] = f"{task.context}\n\n{formal}" if task.context.strip() else formal
    if not isinstance(row.get("informal"), str):
        read["informal"] = next((str(row[key]) for key in _INFORMAL if row.get(key)), "")
    if not isinstance(row.get("code"), str):
        read["code"] = show_code(read["formal"], headers=(read["header"],), otherwise=read["formal"])
    if not isinstance(row.get("problem"), str):
        read["problem"] = problem_in_words(row)
    return read


def _from_declaration(row: Mapping[str, Any], column: str) -> dict[str, Any]:
    text: str = row[column]
    if not declares_theorem(text) and len(_EXAMPLE.findall(text)) == 1:
        text = _EXAMPLE.sub("theorem X", text)
    header = next((row[key] for key in _HEADERS if not is_missing(row.get(key))), None)
    name = next((row[key] for key in _NAMES if isinstance(row.get(key), str) and row[key]), None)
    read = as_row({**row, column: text, "header": header}, "", column)
    informal = read["informal"] or next((str(row[key]) for key in _INFORMAL if row.get(key)), "")
    return {**row, **_parts(read), "name": name or read["name"], "informal": informal}


def _parts(read: Mapping[str, Any]) -> dict[str, Any]:
    return {key: read[key] for key in ("header", "context", "binders", "statement", "theorem", "formal")}


def _visible(row: dict[str, Any], fields: Collection[str]) -> dict[str, Any]:
    """The row in a form of which a template with these fields hides nothing that the proof depends on."""
    if "formal" in fields or "statement" not in fields:
        return row
    if row["context"].strip() and "context" not in fields:
        raise DataError("the theorem needs declarations before it, and the prompt's template shows {statement} alone")
    if row["binders"].strip() and "binders" not in fields:
        return {**row, "binders": "", "statement": f"∀ {row['binders'].strip()}, {row['statement'].strip()}"}
    return row


def _normal(value: Any) -> Any:
    return unicodedata.normalize("NFC", value) if isinstance(value, str) else value
