"""Lookup of catalog items by title and year; each match reports its level.

``exact``: the canonical title (or an alias) and the year. ``year``: the title, and a year within the tolerance; the
nearest one counts. ``title``: the title alone, where query or item has no year. ``fuzzy``: a title similar enough to be
a misspelling, and a year within the tolerance. ``prefix``: the beginning of one item's title. ``id``: an item's id.

A title is looked for with its article first, then with any; as a title first, then as an alias. So of two films that
differ by an article each is found by its own name, and `Thing` finds `The Thing`, the only one. Where two items match
equally well, none is returned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rlpost_verifiers.catalog.building import Builder
from rlpost_verifiers.catalog.grams import Grams
from rlpost_verifiers.catalog.names import carried_year, key_of
from rlpost_verifiers.catalog.prefixes import Prefixes
from rlpost_verifiers.catalog.records import Item
from rlpost_verifiers.catalog.sequels import agree
from rlpost_verifiers.catalog.shortened import title_without_rest
from rlpost_verifiers.catalog.store import ALIAS, ARTICLE_CODES, SHORT, Items, Store

Level = Literal["exact", "year", "title", "fuzzy", "prefix", "id"]


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
        items: the catalog's items, in order; those of a loaded catalog bring their index with them.
        tolerance: largest accepted difference between years, in years.
        similarity: smallest title similarity at the level ``fuzzy``, 0 to 100 (`rapidfuzz.fuzz.ratio` of the canonical
            forms); None: no fuzzy matching. Titles with other numbers are never similar: ``Rocky II``, ``Rocky III``.
        prefix: whether the first words of one item's title find it, where no other title begins with them.
        ids: whether an item's id finds it.

    Raises:
        MissingPackageError: if ``similarity`` is given and rapidfuzz is not installed.
    """

    def __init__(
        self,
        items: Sequence[Item],
        tolerance: int = 2,
        similarity: float | None = None,
        prefix: bool = False,
        ids: bool = False,
    ):
        self.tolerance, self.similarity, self.ids = tolerance, similarity, ids
        self.store = items.store if isinstance(items, Items) else _store_of(items)
        self._grams = Grams.of(self.store) if similarity is not None else None
        self._prefixes = Prefixes.of(self.store) if prefix else None

    def __len__(self) -> int:
        """Number of items."""
        return len(self.store)

    def find(self, title: str, year: int | None = None) -> Match | None:
        """The item that matches a title and a year; None if none or more than one does.

        Args:
            title: the title in any spelling that `canonical` unifies; a year in brackets at its end counts where
                ``year`` is None.
            year: release year; None if it is not known.
        """
        key, article = key_of(title)
        found = [name for name in self.store.names(key) if name[2] < SHORT]
        if len(found) == 1 and year is not None and found[0][1] == year:
            return Match(found[0][0], "exact")
        if found:
            return self._among(found, year, ARTICLE_CODES[article])
        if year is None and (carried := carried_year(title)) is not None:
            return self.find(*carried)
        if self.ids and (owner := self.store.owner_of_id(title.strip())) is not None:
            return Match(owner, "id")
        match = self._similar(key, year, ARTICLE_CODES[article]) if self._grams is not None else None
        return match if match is not None or self._prefixes is None else self._shortened(key, year)

    def find_all(self, asked: Iterable[tuple[str, int | None]]) -> list[Match | None]:
        """`find` for several titles, in order."""
        return [self.find(title, year) for title, year in asked]

    def shortened(self, title: str, year: int | None) -> int | None:
        """The only item of a year of which a title is a shorter or longer name; None if none or several are.

        >>> films = [Item("0", "Star Wars: Episode V - The Empire Strikes Back", 1980), Item("1", "Borat", 2006)]
        >>> index = CatalogIndex(films)
        >>> index.shortened("The Empire Strikes Back", 1980), index.shortened("Borat: Cultural Learnings", 2006)
        (0, 1)
        >>> index.shortened("Star Wars", 1977) is None
        True
        """
        if year is None or self.sharing(title):  # "John Wick (2023)" names another part, in a wrong year
            return None
        rest = title_without_rest(title)
        joined = key_of(title)[0].replace(" ", "")
        for name, shorter in ((title, True), *(() if rest is None else ((rest, False),)), (joined, True)):
            found = {
                item
                for item, dated, kind in self.store.names(key_of(name)[0])
                # "Mission: Mangal" is not "Mission: Impossible": only one of the two may be cut
                if dated == year and (kind < ALIAS or (shorter and kind >= SHORT))
            }
            if found:
                return found.pop() if len(found) == 1 else None
        return None

    def sharing(self, title: str) -> list[int]:
        """All items with a title, in any year and with any article; none of those that have it as an alias only."""
        return list(dict.fromkeys(item for item, _, kind in self.store.names(key_of(title)[0]) if kind < ALIAS))

    def _among(self, names: Sequence[tuple[int, int, int]], year: int | None, article: int) -> Match | None:
        """The best of names with one canonical form: with the same article, then as titles, then all."""
        for alike in (
            lambda kind: kind == article,
            lambda kind: kind & 3 == article,
            lambda kind: kind < ALIAS,
            lambda kind: True,
        ):
            match = self._nearest([(item, dated) for item, dated, kind in names if alike(kind)], year)
            if match is not None:
                return match
        return None

    def _nearest(self, candidates: Sequence[tuple[int, int]], year: int | None) -> Match | None:
        """The candidate (all share the title) with the nearest year, None if none or several are nearest."""
        if year is None:
            items = {item for item, _ in candidates}
            undated = {item for item in items if self.store.year(item) is None}
            items = undated if len(undated) == 1 else items
            return Match(items.pop(), "title") if len(items) == 1 else None
        apart = {item: self.tolerance + 1 for item, dated in candidates if dated}
        for item, dated in candidates:
            if dated:
                apart[item] = min(apart[item], abs(dated - year))
        if apart:
            least = min(apart.values())
            nearest = [item for item, years in apart.items() if years == least]
            if least > self.tolerance or len(nearest) > 1:
                return None
            return Match(nearest[0], "year" if least else "exact")
        items = {item for item, _ in candidates}
        return Match(items.pop(), "title") if len(items) == 1 else None

    def _similar(self, key: str, year: int | None, article: int) -> Match | None:
        """The item with the most similar title, if it is similar enough and no other item ties with it."""
        assert self._grams is not None
        assert self.similarity is not None
        best: tuple[float, Match] | None = None
        for score, found in self._grams.nearest(key, self.similarity):
            if best is not None and score < best[0]:
                break
            match = self._among([name for name in self.store.names(found) if name[2] < SHORT], year, article)
            if match is None or not agree(key, found):
                continue
            if best is not None and best[1].item != match.item:
                return None
            best = score, Match(match.item, "fuzzy", score)
        return best[1] if best else None

    def _shortened(self, key: str, year: int | None) -> Match | None:
        """The only item whose title begins with these words."""
        assert self._prefixes is not None
        owners = self._prefixes.owners(key)
        if year is not None:
            owners = {one for one in owners if abs((self.store.year(one) or year) - year) <= self.tolerance}
        return Match(owners.pop(), "prefix") if len(owners) == 1 else None


def _store_of(items: Sequence[Item]) -> Store:
    builder = Builder()
    for number, item in enumerate(items):
        builder.add(number, item.id, item.title, item.year, item.aliases, "")
    return builder.finish(merge=False)
