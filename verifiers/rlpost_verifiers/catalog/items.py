"""Reads catalogs: every row becomes an item, or is reported with its row number and the reason."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlpost.errors import DataError
from rlpost.plugins.registry import resolve
from rlpost_verifiers.catalog.names import canonical, year_of

MOVIES = Path(__file__).parent / "data" / "movies.jsonl"
"""The catalog that ships: a thousand real films with genre, director and number of votes."""

_TITLES = ("title", "name", "movie", "item")
_YEARS = ("year", "release_year", "release date", "release_date", "date")
_ALIASES = ("aliases", "alias", "aka", "also_known_as")
_IDENTITIES = ("id", "item_id", "movie_id")
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f\u00ad\u200b-\u200f\u202a-\u202e\u2060\ufeff]")
_YEAR_AT_END = re.compile(r"^(?P<title>.*\S)\s*[(\[](?P<year>\d{4})[)\]]$")
_LONGEST = 300

DEFECTS: dict[str, str] = {
    "unreadable": "the line is no row (no JSON object, or another number of columns); left out",
    "no_title": "no title; left out",
    "title_not_text": "the title is a number, taken as text",
    "title_not_usable": "the title is neither text nor a number; left out",
    "title_too_long": f"the title has more than {_LONGEST} characters; left out",
    "title_untidy": "white space or invisible characters in the title; removed",
    "title_misread": "the title's accents were read in a wrong encoding; mended",
    "year_in_title": "the title carries the year; moved to the year",
    "years_differ": "the title carries another year than the year column, which counts",
    "no_year": "no year",
    "year_not_usable": "the year is none that a film can have; taken as missing",
    "year_mended": "the year lay in the future; a hundred years were taken off",
    "alias_not_usable": "an alias is no text; left out",
    "duplicate": "title and year of an earlier row; left out",
    "id_twice": "the id of an earlier row; the row number takes its place",
}
"""Defects of a row, and how each is handled."""
LEFT_OUT = frozenset(("unreadable", "no_title", "title_not_usable", "title_too_long", "duplicate"))


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect of a row (0-based), with the value that has it.

    >>> Defect(3, "no_title", "None").reason
    'no_title'
    """

    row: int
    reason: str
    value: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a catalog; ``attributes`` holds its other columns.

    >>> Item("7", "Alien", 1979).name
    'Alien (1979)'
    """

    id: str
    title: str
    year: int | None
    aliases: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The item as written in a recommendation list: ``Title (Year)``."""
        return self.title if self.year is None else f"{self.title} ({self.year})"


@dataclass(frozen=True, slots=True)
class Catalog:
    """Items in the order of their rows, and the defects of rows."""

    items: tuple[Item, ...]
    defects: tuple[Defect, ...]

    def summary(self) -> str:
        """One line: how many items, and how many rows of each defect."""
        counts = Counter(defect.reason for defect in self.defects)
        told = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
        return f"{len(self.items)} items" + (f"; rows with defects: {told}" if told else "")


def load_catalog(path: str | None = None, columns: Mapping[str, str] | None = None) -> Catalog:
    """Read a catalog from JSONL, CSV or Parquet.

    Args:
        path: path of the file; its suffix determines the format. None: `MOVIES`.
        columns: names of the columns with ``title``, ``year``, ``aliases`` and ``id`` where they are not the usual
            ones. All other columns are attributes.

    Raises:
        DataError: if there is no such file, no title column, or no usable row.
    """
    path = str(MOVIES) if path is None else path
    defects: list[Defect] = []
    rows = list(_rows(path, defects))
    keys = _columns([row for _, row in rows], columns or {}, path)
    items = list(_items(rows, keys, defects))
    if not items:
        raise DataError(f"{path}: no usable item in {len(rows)} rows; see the columns {keys}")
    return Catalog(tuple(items), tuple(sorted(defects, key=lambda defect: defect.row)))


def catalog_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> Catalog:
    """A catalog from rows in memory; see `load_catalog`."""
    numbered = list(enumerate(dict(row) for row in rows))
    defects: list[Defect] = []
    items = list(_items(numbered, _columns([row for _, row in numbered], columns or {}, "catalog"), defects))
    return Catalog(tuple(items), tuple(sorted(defects, key=lambda defect: defect.row)))


def _rows(path: str, defects: list[Defect]) -> Iterator[tuple[int, dict[str, Any]]]:
    file = Path(path).expanduser()
    if not file.is_file():
        raise DataError(f"{path}: no such file; give the path of a catalog")
    if file.suffix == ".parquet":
        yield from enumerate(resolve("sources", "parquet")(str(file)))
        return
    text = file.read_text(encoding="utf-8-sig", errors="replace")
    if file.suffix in (".csv", ".tsv"):
        yield from _csv_rows(text, "\t" if file.suffix == ".tsv" else ",", defects)
        return
    for number, line in enumerate(line for line in text.split("\n") if line.strip()):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            yield number, row
        else:
            defects.append(Defect(number, "unreadable", line[:80]))


def _csv_rows(text: str, delimiter: str, defects: list[Defect]) -> Iterator[tuple[int, dict[str, Any]]]:
    reader = csv.reader(text.splitlines(), delimiter=delimiter)
    names = next(reader, [])
    for number, cells in enumerate(cells for cells in reader if cells):
        if len(cells) == len(names):
            yield number, {name: cell if cell != "" else None for name, cell in zip(names, cells, strict=True)}
        else:
            defects.append(Defect(number, "unreadable", delimiter.join(cells)[:80]))


def _columns(rows: Sequence[Mapping[str, Any]], given: Mapping[str, str], path: str) -> dict[str, str | None]:
    present = dict.fromkeys(name for row in rows for name in row)
    by_lower = {name.lower(): name for name in present}

    def find(kind: str, usual: Sequence[str]) -> str | None:
        if kind in given:
            if given[kind] not in present:
                raise DataError(f"{path}: no column {given[kind]!r} for {kind} (there are {', '.join(present)})")
            return given[kind]
        return next((by_lower[name] for name in usual if name in by_lower), None)

    found = {
        "title": find("title", _TITLES),
        "year": find("year", _YEARS),
        "aliases": find("aliases", _ALIASES),
        "id": find("id", _IDENTITIES),
    }
    if found["title"] is None:
        raise DataError(f"{path}: no column for the title (there are {', '.join(present)}); name it in columns")
    return found


def _items(
    rows: Iterable[tuple[int, dict[str, Any]]], keys: Mapping[str, str | None], defects: list[Defect]
) -> Iterator[Item]:
    seen: set[tuple[str, int | None]] = set()
    identities: set[str] = set()
    for number, row in rows:

        def note(reason: str, value: Any, number: int = number) -> None:
            defects.append(Defect(number, reason, repr(value)[:80]))

        title = _title(row.get(keys["title"] or ""), note)
        if title is None:
            continue
        title, year = _year(title, row.get(keys["year"]) if keys["year"] else None, note)
        place = canonical(title), year
        if place in seen:
            note("duplicate", title)
            continue
        seen.add(place)
        identity = row.get(keys["id"]) if keys["id"] else None
        if identity is not None and str(identity) in identities:
            note("id_twice", identity)
            identity = None
        name = str(number if identity is None else identity)
        identities.add(name)
        used = {key for key in keys.values() if key is not None}
        attributes = {key: value for key, value in row.items() if key not in used}
        yield Item(name, title, year, _aliases(row.get(keys["aliases"]) if keys["aliases"] else None, note), attributes)


def _title(value: Any, note: Any) -> str | None:
    if value is None or (isinstance(value, str) and not _INVISIBLE.sub("", value).strip()):
        note("no_title", value)
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        note("title_not_usable", value)
        return None
    if not isinstance(value, str):
        note("title_not_text", value)
        value = f"{value:g}" if isinstance(value, float) else str(value)
    tidy = " ".join(_INVISIBLE.sub("", value).split())
    if tidy != value:
        note("title_untidy", value)
    if len(tidy) > _LONGEST:
        note("title_too_long", tidy)
        return None
    mended = _mended(tidy)
    if mended != tidy:
        note("title_misread", tidy)
    return mended


def _mended(title: str) -> str:
    """The title with accents repaired that were decoded with a wrong encoding, where the result is plausible."""
    for wrong, right in (("cp1252", "utf-8"), ("latin-1", "utf-8"), ("mac_roman", "cp1252")):
        if title.isascii():
            return title
        try:
            found = title.encode(wrong).decode(right)
        except UnicodeError:
            continue
        if right == "utf-8" or _strange(title) > _strange(found) == 0:
            return found
    return title


def _strange(title: str) -> int:
    """Number of implausible non-ASCII characters: accented capitals inside a word, and anything but letters."""
    odd = 0
    for before, character, after in zip(f" {title}", title, f"{title[1:]} ", strict=False):
        if not character.isascii():
            within = before.isalpha() and not after.isupper()
            odd += not character.isalpha() or (character.isupper() and within)
    return odd


def _year(title: str, value: Any, note: Any) -> tuple[str, int | None]:
    year = year_of(value)
    if value not in (None, "") and year is None:
        note("year_not_usable", value)
    elif year is not None and str(year) not in str(value):
        note("year_mended", value)
    carried = _YEAR_AT_END.match(title)
    if carried and (inner := year_of(int(carried["year"]))) is not None:
        if value in (None, "") or year is None or year == inner:
            note("year_in_title", title)
            return carried["title"], inner
        note("years_differ", title)
        return carried["title"], year
    if year is None and value in (None, ""):
        note("no_year", title)
    return title, year


def _aliases(value: Any, note: Any) -> tuple[str, ...]:
    if value is None or value == "":
        return ()
    found = value if isinstance(value, (list, tuple)) else str(value).split("|") if isinstance(value, str) else [value]
    kept: list[str] = []
    for alias in found:
        if isinstance(alias, str) and alias.strip():
            kept.append(alias.strip())
        else:
            note("alias_not_usable", alias)
    return tuple(kept)
