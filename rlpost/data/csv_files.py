"""Comma- and tab-separated files as rows."""

from __future__ import annotations

import csv
import io
import sys
from typing import Any

from rlpost.data.jsonl import read_text
from rlpost.errors import DataError

_NAMES = {"\t": "tab", ",": "comma", ";": "semicolon", "|": "bar"}


def read_csv(path: str, delimiter: str | None = None) -> list[dict[str, Any]]:
    r"""Rows of a CSV file (RFC 4180) whose first line names the columns. Every value is text; an empty cell is null.

    Args:
        path: the file, UTF-8 with or without a byte order mark.
        delimiter: what separates cells; None: a tab for names in ``.tsv``, else a comma.

    Raises:
        DataError: naming the file and line: another encoding, names that are missing or given twice, a row of more or
            fewer cells than there are names, a quotation mark that is not closed.
    """
    between = delimiter or ("\t" if path.lower().endswith(".tsv") else ",")
    if len(between) != 1:
        raise DataError(f"{path}: delimiter is {between!r}; give one character")
    before = csv.field_size_limit(sys.maxsize)
    try:
        # `newline=""`: line breaks within quotation marks are the cell's
        lines = csv.reader(io.StringIO(read_text(path), newline=""), delimiter=between, strict=True)
        return _rows(lines, path, between)
    finally:
        csv.field_size_limit(before)


def _rows(lines: Any, path: str, between: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    names: list[str] | None = None
    try:
        for cells in lines:
            if not cells:  # a blank line
                continue
            if names is None:
                names = _named(cells, path, between)
            elif len(cells) != len(names):
                raise DataError(
                    f"{path}:{lines.line_num}: {len(cells)} cells, and the first line names {len(names)} columns; "
                    "put cells that hold the delimiter in quotation marks"
                )
            else:
                rows.append({name: cell or None for name, cell in zip(names, cells, strict=True)})
    except csv.Error as error:
        raise DataError(f"{path}:{lines.line_num}: not valid CSV ({error}); mend the line") from None
    return rows


def _named(cells: list[str], path: str, between: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    empty = next((place for place, name in enumerate(names, 1) if not name), None)
    if empty is not None:
        raise DataError(f"{path}: column {empty} has no name in the first line; name every column")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(f"{path}: column {twice!r} is named twice in the first line; rename one")
    other = next((mark for mark in _NAMES if mark != between and len(names) == 1 and mark in names[0]), None)
    if other is not None:
        raise DataError(
            f"{path}: one column, named {names[0][:60]!r}: the cells seem to be separated by a {_NAMES[other]}; set "
            f"the source's delimiter ({{path: …, delimiter: {other!r}}})"
        )
    return names
