"""Catalog files in layouts other than one named row per line: no line of column names, rows within a JSON object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlpost_verifiers.catalog.names import carried_year

_SEPARATOR = re.compile(r"\ufeff?\"?sep=(.)\"?\s*$")
_YEAR = re.compile(r"(?:1[89]|20)\d\d$")
_MOST = 0.5
"""Share of rows whose cell in the title's column carries a year."""
_NEARLY_ALL = 0.9
_DECODER = json.JSONDecoder(strict=False)


def separator_of(line: str) -> str | None:
    """The delimiter that a first line names, as spreadsheets write it (``sep=;``); None for another line."""
    found = _SEPARATOR.match(line)
    return found[1] if found else None


def is_separator(cells: Sequence[str]) -> bool:
    """Whether the cells of a row are that line."""
    return len(cells) == 2 and cells[0].lstrip("\ufeff") == "sep=" and not cells[1]


def split_colons(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """Cells between two colons, the delimiter of MovieLens' older files."""
    for line in lines:
        yield line.rstrip("\r\n").split(delimiter) if line.strip() else []


def names_of_columns(rows: Sequence[Sequence[str]]) -> list[str] | None:
    """Names for the columns of a file whose first line names none: its rows begin with numbers.

    The title stands where most cells carry a year (``1|Toy Story (1995)|…``), or in the only column of different
    texts (``1,2003,Dinosaur Planet``).

    Args:
        rows: the first rows.

    Returns:
        ``id`` for the first column, ``title``, ``year`` where there is one, ``column 3`` for others; None where the
        first line names columns, or the title's column is not evident.
    """
    rows = [row for row in rows if row]
    if not rows or not all(row[0].strip().isdecimal() for row in rows):
        return None
    width = min(map(len, rows))
    columns = [[row[number].strip() for row in rows] for number in range(width)]
    dated = [sum(carried_year(cell) is not None for cell in cells) >= _MOST * len(rows) for cells in columns]
    titles = [number for number, one in enumerate(dated) if one]
    if not titles:
        titles = [number for number, cells in enumerate(columns) if number and _differ(cells)]
    if len(titles) != 1:
        return None
    names = [f"column {number + 1}" for number in range(max(map(len, rows[:1])))]
    names[0], names[titles[0]] = "id", "title"
    for number, cells in enumerate(columns):
        said = [cell for cell in cells if cell not in ("", "NULL", "\\N")]
        years = sum(_YEAR.match(cell) is not None for cell in said)
        if number and number != titles[0] and said and years >= _NEARLY_ALL * len(said):
            names[number] = "year"
            break
    return names


def _differ(cells: Sequence[str]) -> bool:
    """Whether cells are texts, most of them different and none an address."""
    texts = [cell for cell in cells if any(c.isalpha() for c in cell) and "://" not in cell]
    return len(texts) >= _NEARLY_ALL * len(cells) and len(set(texts)) >= _NEARLY_ALL * len(texts)


def fitted(cells: Sequence[str], names: Sequence[str], delimiter: str) -> Sequence[str]:
    """The cells of a row without quotes whose last column is the title, which may hold the delimiter."""
    if names[-1] != "title" or len(cells) <= len(names):
        return cells
    return [*cells[: len(names) - 1], delimiter.join(cells[len(names) - 1 :])]


def rows_within(value: Any) -> list[dict[str, Any]] | None:
    """The rows that a JSON object holds: its only list of objects, or its values where all are objects (by id).

    >>> rows_within({"applist": {"apps": [{"name": "Hades"}]}}), rows_within({"7": {"name": "Up"}, "8": {"name": "Us"}})
    ([{'name': 'Hades'}], [{'id': '7', 'name': 'Up'}, {'id': '8', 'name': 'Us'}])
    >>> rows_within({"title": "Up", "year": 2009}) is None
    True
    """
    while isinstance(value, dict):
        values = list(value.values())
        lists = [one for one in values if isinstance(one, list) and one and all(isinstance(row, dict) for row in one)]
        if len(lists) == 1 and not any(isinstance(key, str) and key.lower() in ("title", "name") for key in value):
            return lists[0]
        if len(values) > 1 and all(isinstance(one, dict) for one in values):
            return [{"id": key, **one} for key, one in value.items()]
        if len(values) != 1:
            return None
        value = values[0]
    return None


def object_of(text: str) -> Any:
    """The JSON object that a whole text is; None for another text."""
    try:
        value = _DECODER.decode(text.strip())
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None
