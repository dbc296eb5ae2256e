"""Reads catalogs: every row becomes an item, or is reported with its row number and the reason."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any

from rlpost.data.jsonl import existing_file
from rlpost.errors import DataError
from rlpost_verifiers.catalog.building import Builder
from rlpost_verifiers.catalog.cache import content_key, made_once
from rlpost_verifiers.catalog.cells import clean_title, further_names, split_year
from rlpost_verifiers.catalog.files import Row, read_rows
from rlpost_verifiers.catalog.records import DEFECTS, LEFT_OUT, Defect, Item
from rlpost_verifiers.catalog.store import Defects, Items, Store

__all__ = ["DEFECTS", "LEFT_OUT", "MOVIES", "SHIPPED", "Catalog", "Defect", "Item", "catalog_of", "load_catalog"]

MOVIES = Path(__file__).parent / "data" / "movies.jsonl"
"""The catalog that ships: a thousand real films with genre, director and number of votes."""
SHIPPED = {"movies": MOVIES, "goods": MOVIES.with_name("goods.jsonl")}
"""Catalogs that ship, by the names that stand for their paths. ``goods``: made-up goods without years, with category,
brand, price and number of ratings.
"""

_USUAL: dict[str, tuple[str, ...]] = {
    "title": (
        *("title", "name", "movie_title", "primarytitle", "app_name", "product_title", "product_name", "item_name"),
        *(
            "book_title",
            "track_name",
            "game_title",
            "song_title",
            "paper_title",
            "movie_name",
            "book_name",
            "game_name",
        ),
        *("show_name", "movie", "film", "item", "game", "product", "titel", "titre", "título", "titulo", "titolo"),
        *("název", "tytuł", "название", "标题", "片名", "书名", "名称", "タイトル", "作品名", "제목"),
    ),
    "year": (
        *("year", "release_year", "release_date", "startyear", "publication_year", "year_of_release"),
        *("original_publication_year", "yearpublished", "year_published", "published", "date"),
        *("premiered", "jahr", "erscheinungsjahr", "année", "annee", "año"),
        *("anno", "ano", "rok", "год", "年份", "年", "公開年", "연도"),
    ),
    "id": (
        *("id", "item_id", "movie_id", "movieid", "itemid", "parent_asin", "asin", "tconst", "imdb_id", "tmdb_id"),
        *("book_id", "bookid", "goodreads_book_id", "product_id", "productid", "appid", "app_id", "steam_appid"),
        *("game_id", "track_id", "news_id", "paper_id", "arxiv_id", "isbn", "isbn13", "sku", "show_id", "business_id"),
        *("anime_id", "artist_id", "album_id", "song_id", "video_id", "recipe_id", "beer_id", "gmap_id", "joke_id"),
    ),
}
"""Usual names of columns in small letters, the commonest first."""
_ALIASES = frozenset(
    (
        *("aliases", "alias", "aka", "akas", "also_known_as", "original_title", "originaltitle", "english_title"),
        *("alternative_title", "alternative_titles", "alternate_titles", "alt_title", "title_without_series"),
    )
)
_KNOWN_AS = re.compile(r"aka|a\.k\.a|also known", re.IGNORECASE)
_ENCODE = json.JSONEncoder(default=str, ensure_ascii=False).encode
_QUOTE = encode_basestring
_SEPARATORS = "|"
_GAPS = re.compile(r"[\s._-]+")
_FIRST_ROWS = 1000
"""Number of rows whose columns are the catalog's columns."""
_SMALL = 1_000_000
"""Files of fewer bytes are read anew each time, which takes less than half a second."""


@dataclass(frozen=True, slots=True)
class Catalog:
    """Items in the order of their rows, and the defects of rows."""

    items: Items
    defects: Defects

    @property
    def store(self) -> Store:
        """The arrays that hold both."""
        return self.items.store

    @property
    def dated(self) -> bool:
        """Whether any item has a year."""
        return bool((self.store.arrays["year"] > 0).any())

    def summary(self) -> str:
        """One line: how many items, and how many rows of each defect."""
        told = ", ".join(f"{count} {reason}" for reason, count in self.defects.counts().items())
        return f"{len(self.items)} items" + (f"; rows with defects: {told}" if told else "")

    def write_defects(self, file: Path) -> None:
        """Write each defect as a JSON line with ``row``, ``reason``, ``value`` and what is done about it.

        Raises:
            OSError: if the file cannot be written.
        """
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_name(f"{file.name}.{os.getpid()}")
        with part.open("w", encoding="utf-8", errors="backslashreplace") as opened:
            for one in self.defects:
                told = {"row": one.row, "reason": one.reason, "value": one.value, "handled": DEFECTS[one.reason]}
                opened.write(json.dumps(told, ensure_ascii=False) + "\n")
        os.replace(part, file)

    def head(self, count: int) -> Catalog:
        """The catalog's first ``count`` items, and all its defects."""
        if count >= len(self.items):
            return self
        builder = Builder()
        for number, item in enumerate(islice(self.items, count)):
            content = json.dumps(dict(item.attributes))
            builder.add(number, item.id, item.title, item.year, item.aliases, content)
        return Catalog(Items(builder.finish(merge=False)), self.defects)


def load_catalog(path: str | None = None, columns: Mapping[str, str] | None = None) -> Catalog:
    """Read a catalog from JSON (lines or an array), CSV or a relative of it, or Parquet, in UTF-8 or another encoding.

    Of a large file the arrays are kept in rlpost's cache folder, by its content, and mapped by every process that
    loads it (`rlpost_verifiers.catalog.cache`).

    Args:
        path: path of the file, or ``movies`` or ``goods`` for one that ships, where there is no file of that name.
            None: `MOVIES`.
        columns: names of the columns with ``title``, ``year``, ``aliases`` and ``id`` where they are not the usual
            ones. All other columns are attributes.

    Raises:
        DataError: if there is no such file, no title column, several, no usable row, or its encoding cannot be told.
    """
    path = str(MOVIES) if path is None else path
    if path in SHIPPED and not Path(path).is_file():
        path = str(SHIPPED[path])
    file = existing_file(path)
    given = dict(columns or {})

    def build(folder: Path | None) -> Store:
        waiting: list[tuple[int, str, Any]] = []
        rows = read_rows(path, lambda *defect: waiting.append(defect))
        return _built(rows, given, path, folder, waiting)

    if file.stat().st_size < _SMALL:
        store = build(None)
    else:
        key = content_key(file, f"{file.suffix} {sorted(given.items())}")
        store = made_once(key, lambda folder: build(folder).save(folder), Store.mapped)
    return Catalog(Items(store), Defects(store))


def catalog_of(rows: Iterable[Mapping[str, Any]], columns: Mapping[str, str] | None = None) -> Catalog:
    """A catalog from rows in memory; see `load_catalog`."""
    numbered = ((number, dict(row), None) for number, row in enumerate(rows))
    store = _built(numbered, columns or {}, "catalog", None, [])
    return Catalog(Items(store), Defects(store))


def _built(
    rows: Iterator[Row], given: Mapping[str, str], path: str, folder: Path | None, waiting: list[tuple[int, str, Any]]
) -> Store:
    """The store of a catalog's rows. ``waiting``: defects that the reader of the file reports on its way."""
    first = list(islice(rows, _FIRST_ROWS))
    if not first:
        raise DataError(f"{path}: no row that can be read" + (f" ({waiting[0][2]!r:.60})" if waiting else ""))
    keys = _Keys.found([row for _, row, _ in first], given, path)
    builder = Builder(folder, keys.used)
    number = -1
    for number, row, text in chain(first, rows):
        while waiting:
            builder.note(*waiting.pop())
        _add(builder, number, row, text, keys)
    for defect in waiting:
        builder.note(*defect)
    if not len(builder):
        raise DataError(f"{path}: no usable item in {number + 1} rows; see the columns {keys.told()}")
    return builder.finish()


def _add(builder: Builder, number: int, row: dict[str, Any], text: str | None, keys: _Keys) -> None:
    def note(reason: str, value: Any) -> None:
        builder.note(number, reason, value)

    raw = row.get(keys.title)
    title = clean_title(raw, note)
    if title is None:
        return
    title, year = split_year(title, row.get(keys.year) if keys.year else None, note)
    aliases: list[str] = []
    if raw not in (title, f"{title} ({year})") or title[-1] == ")" or _known_as(title):
        aliases = further_names(raw, title, year)
    for column in keys.aliases:
        aliases += [name for name in _listed(row.get(column), note) if name != title and name not in aliases]
    identity = row.get(keys.id) if keys.id else None
    if text is None:
        text = _as_json(row)
    builder.add(number, None if identity is None else _identity(identity), title, year, aliases, text.rstrip())


def _plain(name: str) -> str:
    """A column's name in small letters, its words joined by ``_`` (``Book-Title``, ``Release Year``)."""
    return _GAPS.sub("_", name.strip().lower())


def _known_as(title: str) -> bool:
    """Whether a title may hold two names."""
    if not title.isascii():
        return _KNOWN_AS.search(title) is not None
    small = title.lower()
    return "aka" in small or "a.k.a" in small or "also known" in small


def _as_json(row: Mapping[str, Any]) -> str:
    """A row as JSON. Cells of CSV are texts and nothing, for which an encoder of its own takes half the time."""
    pieces: list[str] = []
    for name, value in row.items():
        if type(name) is not str or not (value is None or type(value) is str):
            return _ENCODE(row)
        pieces.append(f"{_QUOTE(name)}: {'null' if value is None else _QUOTE(value)}")
    return f"{{{', '.join(pieces)}}}"


def _identity(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _listed(value: Any, note: Callable[[str, Any], None]) -> list[str]:
    """The names in a cell of aliases."""
    if value is None or value == "" or value != value:
        return []
    listed = value.split(_SEPARATORS) if isinstance(value, str) else value
    found = listed if isinstance(listed, (list, tuple)) else [listed]
    kept: list[str] = []
    for alias in found:
        if isinstance(alias, str) and alias.strip():
            kept.append(alias.strip())
        elif alias is not None and alias != "":
            note("alias_not_usable", alias)
    return kept


@dataclass(frozen=True, slots=True)
class _Keys:
    """Names of a catalog's columns."""

    title: str
    year: str | None
    id: str | None
    aliases: tuple[str, ...]

    @property
    def used(self) -> tuple[str, ...]:
        """The columns that are no attributes."""
        return tuple(name for name in (self.title, self.year, self.id, *self.aliases) if name is not None)

    def told(self) -> str:
        """The columns, for messages."""
        return f"title: {self.title}, year: {self.year}, id: {self.id}, aliases: {', '.join(self.aliases) or None}"

    @classmethod
    def found(cls, rows: Sequence[Mapping[str, Any]], given: Mapping[str, str], path: str) -> _Keys:
        """The columns of rows: those given, else those with a usual name."""
        present = list(dict.fromkeys(name for row in rows for name in row if isinstance(name, str)))
        there = f"there are {', '.join(present)}"
        if unknown := sorted(set(given) - {"title", "year", "id", "aliases"}):
            raise DataError(f"{path}: columns names {unknown[0]!r}; give title, year, aliases or id")

        def find(kind: str) -> str | None:
            if kind in given:
                if given[kind] not in present:
                    raise DataError(f"{path}: no column {given[kind]!r} for {kind} ({there})")
                return given[kind]
            for usual in _USUAL.get(kind, ()):
                named = [name for name in present if _plain(name) == usual]
                if len(named) > 1:
                    raise DataError(f"{path}: columns {' and '.join(map(repr, named))} for {kind}; name one in columns")
                if named:
                    return named[0]
            return None

        title = find("title")
        if title is None:
            raise DataError(f"{path}: no column for the title ({there}); name it in columns")
        aliases = [name for name in present if _plain(name) in _ALIASES and name != title]
        if "aliases" in given:
            aliases = [name for name in [find("aliases")] if name is not None]
        return cls(title, find("year"), find("id"), tuple(aliases))
