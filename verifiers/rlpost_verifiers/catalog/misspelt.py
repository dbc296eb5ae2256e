"""Titles with one misspelling, told by the year: ``The Shawshank Redemtion (1994)``.

One letter is left out, added or changed, or two neighbours are swapped, in a word of five letters or more and not at
its start: so ``Bright`` is not ``Fright`` and ``Man`` not ``Men``; or two words are one (``Oldboy``, ``Old Boy``). The
year must be the item's, the numbers of both titles must agree, and no other item may fit. Further misspellings are the
business of ``similarity``.
"""

from __future__ import annotations

from collections import defaultdict

from rlpost_verifiers.catalog.names import key_of
from rlpost_verifiers.catalog.sequels import agree
from rlpost_verifiers.catalog.store import Store

_SHORTEST_WORD = 5
_SHORTEST = 8
"""Characters of the shortest title that may be misspelt."""
_SHORTEST_JOINED = 6
"""Characters of the shortest title of which a space may be left out or added."""
MOST_ITEMS = 100_000
"""Items of the largest catalog whose titles are compared: each worker holds their canonical forms."""


def one_edit(one: str, other: str) -> int | None:
    """Where two texts differ by one letter left out, added or changed, or by two neighbours swapped; None if they are
    equal or differ by more.

    >>> one_edit("redemtion", "redemption"), one_edit("godfather", "godfahter"), one_edit("heat", "heist")
    (5, 5, None)
    """
    short, long = sorted((one, other), key=len)
    if short == long or len(long) - len(short) > 1:
        return None
    place = next((number for number, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), len(short))
    if len(short) < len(long):
        return place if short[place:] == long[place + 1 :] else None
    swapped = short[place : place + 2] == long[place : place + 2][::-1] and short[place + 2 :] == long[place + 2 :]
    return place if swapped or short[place + 1 :] == long[place + 1 :] else None


class Misspelt:
    """The titles of a catalog by year and length.

    Args:
        store: the catalog. Of one with more than `MOST_ITEMS` items none is found.
    """

    def __init__(self, store: Store):
        self._store = store
        self._titles: dict[tuple[int, int], list[tuple[str, int]]] | None = None

    def owner(self, title: str, year: int | None) -> int | None:
        """The only item of a year whose title is this one with one misspelling; None if none or several are."""
        key = key_of(title)[0]
        if year is None or len(key) < _SHORTEST_JOINED or len(self._store) > MOST_ITEMS:
            return None
        if self._titles is None:
            self._titles = self._sorted()
        near = [one for length in (-1, 0, 1) for one in self._titles.get((year, len(key) + length), ())]
        found = {number for known, number in near if _is_misspelt(key, known)}
        return found.pop() if len(found) == 1 else None

    def _sorted(self) -> dict[tuple[int, int], list[tuple[str, int]]]:
        found: dict[tuple[int, int], list[tuple[str, int]]] = defaultdict(list)
        for number in range(len(self._store)):
            if (year := self._store.year(number)) is not None:
                key = key_of(self._store.title(number))[0]
                found[year, len(key)].append((key, number))
        return found


def _is_misspelt(key: str, known: str) -> bool:
    place = one_edit(key, known)
    if place is None:
        return False
    if " " in (key[place : place + 1], known[place : place + 1]):  # "Oldboy", "Old Boy"
        return key.replace(" ", "") == known.replace(" ", "")
    if len(key) < _SHORTEST:
        return False
    begin = known.rfind(" ", 0, place) + 1
    word = known[begin:].partition(" ")[0]
    changed = key[place : place + 1] + known[place : place + 1]
    return place > begin and len(word) >= _SHORTEST_WORD and changed.isalpha() and agree(key, known)
