"""Titles without a part of their name, told by the year: ``Star Wars (1977)``, ``The Empire Strikes Back (1980)``.

Only a title whose year is the item's counts, and only where no other item of that year fits: a name that is shortened
may otherwise be that of another part.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.sequels import continues

_PARTS = re.compile(r"\s*[:：]\s+|\s+[-–—]\s+|,?\s+or:?\s+(?=[A-Z(])")


class Shortened:
    """The shorter names of a catalog's titles, by year.

    Args:
        titles: title and year of each item, in catalog order.

    >>> films = Shortened([("Star Wars: Episode V - The Empire Strikes Back", 1980), ("Borat", 2006)])
    >>> films.find("The Empire Strikes Back", 1980), films.find("Borat: Cultural Learnings", 2006)
    (0, 1)
    >>> films.find("Star Wars", 1977) is None
    True
    """

    def __init__(self, titles: Iterable[tuple[str, int | None]]):
        self._names: dict[tuple[str, int], set[int]] = {}
        for number, (title, year) in enumerate(titles):
            if year is None:
                continue
            for name in (canonical(title), *_shorter(title)):
                self._names.setdefault((name, year), set()).add(number)

    def find(self, title: str, year: int | None) -> int | None:
        """The only item of that year of which a title is a shorter or longer name; None if none or several are."""
        if year is None:
            return None
        found = self._names.get((canonical(title), year), set())
        if not found:
            parts = _PARTS.split(title)
            if len(parts) > 1 and continues(parts[1]) is not True:
                found = self._names.get((canonical(parts[0]), year), set())
        return next(iter(found)) if len(found) == 1 else None


def _shorter(title: str) -> set[str]:
    """Names of a title with parts left out: the first or last alone, both, all but the first, all but the last."""
    parts = [part for part in _PARTS.split(title) if part.strip()]
    if len(parts) < 2:
        return set()
    names = {parts[0], f"{parts[0]} {parts[-1]}", " ".join(parts[1:]), " ".join(parts[:-1])}
    if continues(parts[-1]) is None:
        names.add(parts[-1])
    return {canonical(name) for name in names} - {canonical(title)}
