"""Tables in an answer: Markdown rows between pipes, and comma- or tab-separated values with a header."""

from __future__ import annotations

import csv
import re
from collections.abc import Sequence

from rlpost_verifiers.catalog.marks import Known, Line
from rlpost_verifiers.catalog.names import year_of
from rlpost_verifiers.catalog.titles import Name, Reading, clean, read_title

TITLE_KEYS = (
    *("title", "movie", "film", "book", "game", "product", "item", "name", "show", "series", "album", "song"),
    *("recommendation", "suggestion", "pick", "titel", "título", "titulo", "titre", "titolo", "片名", "标题", "书名", "电影"),
    *("название", "фильм", "película", "livre", "buch", "produkt", "タイトル", "作品"),
)
YEAR_KEYS = ("year", "released", "release", "date", "published", "jahr", "año", "année", "anno", "год", "年份", "年")
_RULE_CELL = re.compile(r"\s*:?-{1,}:?\s*$")
_NUMBER_CELL = re.compile(r"[\s#*_]*\d{0,3}[.)]?[\s*_]*$")


def column_of(names: Sequence[str], keys: Sequence[str]) -> int | None:
    """The column whose name is one of the keys or begins or ends with one, in the order of the keys.

    >>> column_of(["#", "Movie Title", "Year"], TITLE_KEYS), column_of(["Rank", "Genre"], TITLE_KEYS)
    (1, None)
    """
    plain = [re.sub(r"[\W\d_]+", " ", name).strip().lower() for name in names]
    for key in keys:
        for number, name in enumerate(plain):
            if name == key or name.split()[:1] == [key] or name.split()[-1:] == [key]:
                return number
    return None


def mark_tables(text: str, lines: Sequence[Line], known: Known) -> None:
    """Mark the lines of tables: rows become ``cell`` with the readings of their title, headers and rules ``rule``."""
    number = 0
    while number < len(lines):
        for split in (_pipes, _commas, _tabs):
            rows = _block(text, lines, number, split)
            if rows and _read(lines[number : number + len(rows)], rows, known, split is _pipes):
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


def _block(text: str, lines: Sequence[Line], first: int, split) -> list[list[str]]:  # noqa: ANN001
    """The cells of all rows from line ``first`` on; empty where the lines form no table."""
    rows: list[list[str]] = []
    for line in lines[first:]:
        cells = split(text[line.start : line.stop])
        if len(cells) < 2 or line.mark == "blank":
            break
        rows.append(cells)
    return rows if len(rows) >= 2 else []


def _read(lines: Sequence[Line], rows: list[list[str]], known: Known, piped: bool) -> bool:
    header = [clean(cell).strip("*_ ") for cell in rows[0]]
    title, year = column_of(header, TITLE_KEYS), column_of(header, YEAR_KEYS)
    ruled = piped and all(_RULE_CELL.match(cell) for cell in rows[1])
    named = title is not None and all(len(cell.split()) <= 8 for cell in header) and not any(map(year_of, header))
    if not named and not ruled:
        return False
    if not piped and any(len(row) != len(header) for row in rows[1:]):
        return False
    data = rows[2:] if ruled else rows[1:]
    if title is None or not named:
        title = _likeliest(data, len(header), known)
    for line in lines[: len(rows) - len(data)]:
        line.mark = "rule"
    for line, cells in zip(lines[len(rows) - len(data) :], data, strict=True):
        _row(line, cells, title, year, known)
    return True


def _likeliest(rows: Sequence[Sequence[str]], columns: int, known: Known) -> int:
    """The column with most known or dated titles; the first that holds more than numbers where there is none."""

    def worth(number: int) -> tuple[int, int]:
        cells = [row[number] for row in rows if number < len(row)]
        readings = [read_title(cell) for cell in cells]
        good = sum(one.dated or any(known(*name) for name in one.names) for one in readings)
        return good, sum(_NUMBER_CELL.match(cell) is None for cell in cells)

    return max(range(columns), key=lambda number: (worth(number), -number))


def _row(line: Line, cells: Sequence[str], title: int, year: int | None, known: Known) -> None:
    said = cells[title] if title < len(cells) else ""
    if not said.strip() or all(_RULE_CELL.match(cell) for cell in cells):
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
