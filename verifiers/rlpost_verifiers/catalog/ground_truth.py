"""Ground truth of a data row as catalog items: relevant, seen, and relevant to another row."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlpost.errors import DataError
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import Catalog
from rlpost_verifiers.catalog.names import ARTICLES, canonical, year_of
from rlpost_verifiers.catalog.store import ARTICLE_CODES
from rlpost_verifiers.catalog.titles import parse_title

_LONGEST_MENTION = 20
"""Most words of a title that a running text mentions."""
_FOUR_DIGITS = re.compile(r"[0-9]{4}")


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Ground truth of one row, as positions in the catalog.

    Attributes:
        relevant: the relevant items, each with its relevance (1.0 unless the data gives a weight).
        seen: items the user has already seen.
        elsewhere: items that are relevant in another row of the same conversation.
        outside: number of relevant names that no item of the catalog has.
    """

    relevant: Mapping[int, float]
    seen: frozenset[int]
    elsewhere: frozenset[int]
    outside: int = 0


RELEVANT_KEY, SEEN_KEY, ELSEWHERE_KEY = "groundtruth_with_release_year", "seen_titles", "relevant_elsewhere"
"""Columns of the published data with the relevant items, the seen items, and the relevant items of other rows."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Names of the columns with the relevant items, the seen items, and the relevant items of other rows."""

    relevant: str = RELEVANT_KEY
    seen: str = SEEN_KEY
    elsewhere: str = ELSEWHERE_KEY


class Reader:
    """Reads the ground truth of rows. Each column is a list of ``Title (Year)`` texts, ``[title, year]`` pairs or
    mappings with ``title``, ``year`` and ``weight``; names are looked up in the same index as a model's answers.

    Args:
        catalog: the catalog's items.
        index: the index of that catalog.
        columns: names of the three columns.
    """

    def __init__(self, catalog: Catalog, index: CatalogIndex, columns: Columns):
        self.catalog, self.index, self.columns = catalog, index, columns

    def ground_truth(self, row: Mapping[str, Any], required: bool = True) -> GroundTruth:
        """The ground truth of a row.

        Args:
            row: the row's columns.
            required: whether at least one relevant item has to be in the catalog.

        Raises:
            DataError: if one is required and none is in the catalog, or a column has another form.
        """
        keys = self.columns
        if keys.relevant not in row and required:
            raise DataError(f"no column {keys.relevant!r} (there are {', '.join(row)}); set relevant_key")
        relevant: dict[int, float] = {}
        lost: list[str] = []
        for title, year, weight in names_of(row.get(keys.relevant), keys.relevant):
            found = self._numbers(title, year)
            if len(found) == 1:
                relevant[found[0]] = weight
            else:
                lost.append(title if year is None else f"{title} ({year})")
        if not relevant and required:
            raise DataError(f"none of its relevant items is in the catalog ({', '.join(lost[:3]) or 'it names none'})")
        seen, others = (
            self.numbers(row.get(keys.seen), keys.seen),
            self.numbers(row.get(keys.elsewhere), keys.elsewhere),
        )
        return GroundTruth(relevant, frozenset(seen - set(relevant)), frozenset(others - set(relevant)), len(lost))

    def mentioned(self, text: str) -> frozenset[int]:
        """Items that a text mentions: the title with its year, or without a year if it has more than one word.

        The article counts: "The Thing" is a film, "thing" is not.
        """
        words = _spoken(text).split()
        found: set[int] = set()
        for start in range(len(words)):
            article = words[start] if words[start] in ARTICLES else ""
            for stop in range(start + 1, min(start + _LONGEST_MENTION, len(words)) + 1):
                key = " ".join(words[start + bool(article) : stop])
                if not key:
                    continue
                year = int(words[stop]) if stop < len(words) and _FOUR_DIGITS.fullmatch(words[stop]) else None
                for item, dated, kind in self.index.store.names(key):
                    if kind == ARTICLE_CODES[article] and _meant(stop - start, year, dated):
                        found.add(item)
        return frozenset(found)

    def numbers(self, value: Any, key: str) -> set[int]:
        """The items that the names in a column match; what matches none is left out.

        Raises:
            DataError: for a column in another form.
        """
        return {number for title, year, _ in names_of(value, key) for number in self._numbers(title, year)}

    def _numbers(self, title: str, year: int | None) -> list[int]:
        """The item that a name matches; for a title without a year that several items share, all of them."""
        match = self.index.find(title, year)
        if match is not None:
            return [match.item]
        return self.index.sharing(title) if year is None else []


def _spoken(text: str) -> str:
    """The canonical form, but with a leading article kept."""
    return canonical(f"x {text}").removeprefix("x ")


def _meant(words: int, year: int | None, known: int) -> bool:
    return words > 1 if year is None else year == known


def names_of(value: Any, key: str) -> Iterable[tuple[str, int | None, float]]:
    """Title, year and weight of every entry of a column.

    Raises:
        DataError: for an entry in a form that `Reader` does not take.
    """
    value = value.tolist() if hasattr(value, "tolist") else value  # arrays, as Parquet readers give them
    if value is None:
        return
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise DataError(f"column {key!r} holds {value!r}; a list of titles is needed")
    for entry in value:
        entry = entry.tolist() if hasattr(entry, "tolist") else entry
        if isinstance(entry, str):
            title, year = parse_title(entry)
            yield title or entry, year, 1.0
        elif isinstance(entry, Mapping) and entry.get("title") is not None:
            yield str(entry["title"]), year_of(entry.get("year")), _weight(entry.get("weight"), key)
        elif isinstance(entry, Sequence) and 1 <= len(entry) <= 2 and isinstance(entry[0], (str, int)):
            yield str(entry[0]), year_of(entry[1]) if len(entry) == 2 else None, 1.0
        else:
            raise DataError(f"column {key!r} holds {entry!r}; write 'Title (Year)', [title, year] or a mapping")


def _weight(value: Any, key: str) -> float:
    if value is None:  # tables fill in missing fields
        return 1.0
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise DataError(f"column {key!r} holds the weight {value!r}; a finite number is needed")
    return float(value)
