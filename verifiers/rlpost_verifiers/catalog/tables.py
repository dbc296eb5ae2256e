"""Tables in an answer: Markdown rows between pipes, and comma- or tab-separated values with a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from rlpost_verifiers.catalog.marks import Known, Line
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.titles import Name, Reading, clean, read_title

TITLE_KEYS = (
    *("title", "movie", "film", "book", "game", "product", "item", "name", "show", "series", "album", "song"),
    *(
        "recommendation",
        "suggestion",
        "pick",
        "titel",
        "título",
        "titulo",
        "titre",
        "titolo",
        "片名",
        "标题",
        "书名",
        "电影",
    ),
    *("название", "фильм", "película", "livre", "buch", "produkt", "タイトル", "作品"),
)
YEAR_KEYS = ("year", "released", "release", "date", "published", "jahr", "año", "année", "anno", "год", "年份", "年")
_OF_TITLES = frozenset(
    ("id", "ids", "no", "number", "rank", "rating", "score", "url", "link", "price", "type", "count", "genre")
)
"""Last words of columns that tell something of an item (``item_id``, ``movie rating``)."""
_ANOTHERS = re.compile(
    r".*\b(?:(?:you|i)(?:['’]ve)? (?:already )?(?:liked?|loved?|enjoy(?:ed)?|saw|seen|watched|read|played|mentioned)"
    r"|similar to|because of|based on|reminds? (?:me|you) of|like this|in common)\b",
    re.IGNORECASE,
)
"""Names of columns with titles that are not the recommended ones."""
_MOST_COLUMNS = 100
"""Columns among which the title's is looked for."""
_RULE_CELL = re.compile(r"\s*:?-{1,}:?\s*$")
_NUMBER_CELL = re.compile(r"[\s#*_]*\d{0,3}[.)]?[\s*_]*$")


def column_of(names: Sequence[str], keys: Sequence[str]) -> int | None:
    """The column whose name is one of the keys or begins or ends with one, in the order of the keys.

    >>> column_of(["#", "Movie Title", "Year"], TITLE_KEYS), column_of(["Rank", "Genre"], TITLE_KEYS)
    (1, None)
    """
    return _column_of(tuple(names[:_MOST_COLUMNS]), tuple(keys))


@lru_cache(maxsize=4096)
def _column_of(names: tuple[str, ...], keys: tuple[str, ...]) -> int | None:
    told = [re.sub(r"[\W\d_]+", " ", name).lower().split() for name in names]
    for key in keys:
        for number, words in enumerate(told):
            if words and (words[-1] == key or (words[0] == key and words[-1] not in _OF_TITLES)):
                return number
    return None


def mark_tables(text: str, lines: Sequence[Line], known: Known) -> None:
    """Mark the lines of tables: rows become ``cell`` with the readings of their title, headers and rules ``rule``."""
    number = 0
    while number < len(lines):
        for split in (_pipes, _commas, _tabs):
            rows = _block(text, lines, number, split)
            if rows:
                _read(lines[number : number + len(rows)], rows, known)
                number += len(rows) - 1
                break
        number += 1


def _pipes(said: str) -> list[str]:
    if "|" not in said:
        return []
    return [cell.strip() for cell in said.strip().removeprefix("|").removesuffix("|").split("|")]


def _commas(said: str) -> list[str]:
    if "," not in said:
        return []
    try:
        return next(csv.reader([said.strip()], skipinitialspace=True), [])
    except csv.Error:
        return []


def _tabs(said: str) -> list[str]:
    return said.strip("\n").split("\t") if "\t" in said.strip() else []


def _block(text: str, lines: Sequence[Line], first: int, split: Callable[[str], list[str]]) -> list[list[str]]:
    """The cells of all rows of the table that begins at line ``first``; empty if none begins there."""

    def cells(number: int) -> list[str]:
        line = lines[number]
        found = split(text[line.start : line.stop]) if number < len(lines) and line.mark != "blank" else []
        return found if len(found) >= 2 else []

    if first + 1 >= len(lines) or not (header := cells(first)) or not (second := cells(first + 1)):
        return []
    ruled = split is _pipes and _is_rule(second)
    if not ruled and not (_is_header(header) and (split is _pipes or len(header) == len(second))):
        return []
    rows = [header]
    for number in range(first + 1, len(lines)):
        row = cells(number)
        if not row or (split is not _pipes and len(row) != len(header)):
            break
        rows.append(row)
    return rows


def _is_rule(cells: Sequence[str]) -> bool:
    return all(_RULE_CELL.match(cell) for cell in cells)


def _is_header(cells: Sequence[str]) -> bool:
    plain = [clean(cell).strip("*_ ") for cell in cells]
    short = all(len(cell.split()) <= 8 for cell in plain)
    return short and column_of(plain, TITLE_KEYS) is not None and not any(map(year_of, plain))


def _read(lines: Sequence[Line], rows: Sequence[Sequence[str]], known: Known) -> None:
    header = [clean(cell).strip("*_ ") for cell in rows[0]]
    heads = 2 if _is_rule(rows[1]) else 1
    others = {number for number, name in enumerate(header) if _ANOTHERS.match(name)}
    header = ["" if number in others else name for number, name in enumerate(header)]
    title = column_of(header, TITLE_KEYS) if _is_header(header) else None
    year = column_of(header, YEAR_KEYS)
    if title is None:
        title = _likeliest(rows[heads:], len(header), others, known)
    for line in lines[:heads]:
        line.mark = "rule"
    for line, cells in zip(lines[heads:], rows[heads:], strict=True):
        _row(line, cells, title, year, known)


def _likeliest(rows: Sequence[Sequence[str]], columns: int, others: set[int], known: Known) -> int:
    """The column with most known or dated titles; the first that holds more than numbers where there is none. The
    columns ``others`` hold what the user likes already: they count only where there is no further one.
    """

    def worth(number: int) -> tuple[int, int]:
        cells = [row[number] for row in rows if number < len(row)]
        readings = [read_title(cell) for cell in cells]
        good = sum(one.dated or any(known(*name) for name in one.names) for one in readings)
        return good, sum(_NUMBER_CELL.match(cell) is None for cell in cells)

    return max(range(columns), key=lambda number: (number not in others, worth(number), -number))


def _row(line: Line, cells: Sequence[str], title: int, year: int | None, known: Known) -> None:
    said = cells[title] if title < len(cells) else ""
    if not said.strip() or _is_rule(cells):
        line.mark = "rule"
        return
    reading = read_title(said)
    names: tuple[Name, ...] = reading.names
    if year is not None and year < len(cells) and not reading.dated:
        found = year_of(cell) if len(cell := clean(cells[year]).strip("*_ ()")) >= 4 else None
        names = tuple((name, found) for name, _ in names)
    line.mark, line.body = "cell", said
    line.reading = Reading(names, True, False, "")
    line.known = next((name for name in names if known(*name)), None)
