"""In-memory lookup of catalog items by title and year; each match reports its level.

``exact``: the canonical title (or an alias) and the year. ``year``: the title, and a year within the tolerance; the
nearest one counts. ``title``: the title alone, where query or item has no year. ``fuzzy``: a title similar enough to be
a misspelling, and a year within the tolerance. Where two items match equally well, none is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from rlpost.errors import MissingPackageError
from rlpost_verifiers.catalog.items import Item
from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.sequels import agree

Level = Literal["exact", "year", "title", "fuzzy"]

_GRAM = 3
_BUCKETS = 2**21
"""Number of hash buckets for trigrams: four times the distinct trigrams of 1M titles of film length."""
_RAREST = 6
"""Number of a query's rarest trigrams that are used to find candidates."""
_MOST_OF_A_GRAM = 20_000
"""Trigrams that occur in more titles are ignored: they do not discriminate."""
_CANDIDATES = 64


@dataclass(frozen=True, slots=True)
class Match:
    """A matched item: its position in the catalog, the level, and the similarity of the titles (100: equal).

    >>> Match(3, "exact").score
    100.0
    """

    item: int
    level: Level
    score: float = 100.0


class CatalogIndex:
    """Index of a catalog's titles and aliases.

    Args:
        items: the catalog's items, in order.
        tolerance: largest accepted difference between years, in years.
        similarity: smallest title similarity at the level ``fuzzy``, 0 to 100 (`rapidfuzz.fuzz.ratio` of the canonical
            forms); None: no fuzzy matching.

    Raises:
        MissingPackageError: if ``similarity`` is given and rapidfuzz is not installed.
    """

    def __init__(self, items: Sequence[Item], tolerance: int = 2, similarity: float | None = None):
        self.tolerance, self.similarity = tolerance, similarity
        self.years = [item.year for item in items]
        self._by_title: dict[str, int | tuple[int, ...]] = {}
        for number, item in enumerate(items):
            self._add(canonical(item.title), number)
            for alias in item.aliases:
                self._add(canonical(alias), number)
        self._grams = _Grams(list(self._by_title)) if similarity is not None else None

    def __len__(self) -> int:
        """Number of items."""
        return len(self.years)

    def find(self, title: str, year: int | None = None) -> Match | None:
        """The item that matches a title and a year; None if none or more than one does.

        Args:
            title: the title in any spelling that `canonical` unifies.
            year: release year; None if it is not known.
        """
        key = canonical(title)
        found = self._by_title.get(key)
        if found is None:
            return self._similar(key, year) if self._grams is not None else None
        if isinstance(found, int) and year is not None and self.years[found] == year:
            return Match(found, "exact")
        return self._among((found,) if isinstance(found, int) else found, year)

    def find_all(self, asked: Iterable[tuple[str, int | None]]) -> list[Match | None]:
        """`find` for several titles, in order."""
        return [self.find(title, year) for title, year in asked]

    def _add(self, key: str, number: int) -> None:
        known = self._by_title.get(key)
        if known is None:
            self._by_title[key] = number
        elif isinstance(known, int):
            if known != number:
                self._by_title[key] = (known, number)
        elif number not in known:
            self._by_title[key] = (*known, number)

    def _among(self, candidates: tuple[int, ...], year: int | None) -> Match | None:
        """The candidate (all share the title) with the nearest year, None if none or several are nearest."""
        if year is None:
            return Match(candidates[0], "title") if len(candidates) == 1 else None
        nearest, chosen, dated = self.tolerance + 1, -1, False
        for number in candidates:
            known = self.years[number]
            if known is None:
                continue
            dated = True
            apart = abs(known - year)
            if apart < nearest:
                nearest, chosen = apart, number
            elif apart == nearest:
                chosen = -1  # ambiguous: two items are equally near
        if nearest <= self.tolerance:
            return None if chosen < 0 else Match(chosen, "year" if nearest else "exact")
        undated = [number for number in candidates if self.years[number] is None]
        return Match(undated[0], "title") if len(undated) == 1 and not dated else None

    def _similar(self, key: str, year: int | None) -> Match | None:
        """The item with the most similar title, if it is similar enough and no other item ties with it."""
        assert self._grams is not None
        assert self.similarity is not None
        best: tuple[float, Match] | None = None
        for score, found in self._grams.nearest(key, self.similarity):
            if best is not None and score < best[0]:
                break
            place = self._by_title[found]
            match = self._among((place,) if isinstance(place, int) else place, year)
            if match is None or not agree(key, found):
                continue
            if best is not None and best[1].item != match.item:
                return None
            best = score, Match(match.item, "fuzzy", score)
        return best[1] if best else None


class _Grams:
    """Trigram index: finds titles that share trigrams with a query, among which rapidfuzz finds the similar ones."""

    def __init__(self, keys: list[str]):
        try:
            from rapidfuzz import fuzz, process
        except ImportError as error:
            raise MissingPackageError(
                "catalog: fuzzy matching needs rapidfuzz; pip install 'rlpost[catalog]'"
            ) from error
        self._process, self._ratio, self._keys = process, fuzz.ratio, keys
        owners, buckets = _postings(keys)
        order = np.argsort(buckets, kind="stable")
        self._owners = owners[order]
        self._starts = np.searchsorted(buckets[order], np.arange(_BUCKETS + 1)).astype(np.int64)

    def nearest(self, key: str, similarity: float) -> list[tuple[float, str]]:
        """(score, title) of up to 8 titles that are similar enough, best first."""
        buckets = np.unique(_buckets(np.array([ord(c) for c in f" {key} "], np.int64)))
        sizes = self._starts[buckets + 1] - self._starts[buckets]
        order = np.argsort(sizes)
        usable = [int(buckets[i]) for i in order if 0 < sizes[i] <= _MOST_OF_A_GRAM][:_RAREST]
        if not usable:
            return []
        owners = self._likeliest([self._owners[self._starts[b] : self._starts[b + 1]] for b in usable])
        names = [self._keys[owner] for owner in owners.tolist()]
        found = self._process.extract(key, names, scorer=self._ratio, score_cutoff=similarity, limit=8)
        return sorted(((float(score), name) for name, score, _ in found), key=lambda pair: (-pair[0], pair[1]))

    def _likeliest(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """The titles that occur in most of the pieces (titles that contain one trigram), at most `_CANDIDATES`."""
        shared = np.zeros(len(self._keys), np.uint8)
        for piece in pieces:
            shared[piece] += 1
        found: list[np.ndarray] = []
        room = _CANDIDATES
        every = np.concatenate(pieces)
        of_each = shared[every]
        # counting per title is faster than sorting the concatenated pieces
        for count in range(len(pieces), 0, -1):
            found.append(np.unique(every[of_each == count])[:room])
            room -= len(found[-1])
            if room <= 0:
                break
        return np.concatenate(found)


def _buckets(codes: np.ndarray) -> np.ndarray:
    """Hash bucket of each trigram in a sequence of character codes."""
    if len(codes) < _GRAM:
        return np.zeros(0, np.int64)
    mixed = (codes[:-2] * 0x9E3779B1 + codes[1:-1] * 0x85EBCA77 + codes[2:] * 0xC2B2AE3D) & 0xFFFFFFFF
    return (mixed ^ (mixed >> 15)) & (_BUCKETS - 1)


def _postings(keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Title number and bucket of every trigram in all titles."""
    text = "".join(f" {key} " for key in keys)
    codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.int64)
    lengths = np.fromiter((len(key) + 2 for key in keys), np.int64, len(keys))
    owners = np.repeat(np.arange(len(keys), dtype=np.int32), lengths)
    same = owners[:-2] == owners[2:]
    return owners[:-2][same], _buckets(codes)[same].astype(np.int32)
