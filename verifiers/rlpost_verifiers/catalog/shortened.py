"""Titles without a part of their name, told by the year: ``Star Wars (1977)``, ``The Empire Strikes Back (1980)``.

Only a title whose year is the item's counts, and only where no other item of that year fits: a name that is shortened
may otherwise be that of another part. The shorter names stand in the catalog's table beside its titles (`SHORT` of
`rlpost_verifiers.catalog.store`), so that workers share them.
"""

from __future__ import annotations

import re

from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.sequels import continues

_SHORTER = re.compile(r"[:：–—‐‑·-]|\bor\b|(?:one|1|i)$", re.IGNORECASE)
"""What every title with a shorter name has."""
_FIRST = re.compile(r"[,:]?\s+(?:part|chapter|vol\.?|volume|book|episode)\s+(?:one|1|i)$", re.IGNORECASE)
_HYPHEN = re.compile(r"\w[-‐‑·–]\w")
_PARTS = re.compile(r"\s*[:：]\s+|\s+[-–—]\s+|,?\s+or:?\s+(?=[A-Z(])")


def title_without_rest(title: str) -> str | None:
    """The first part of a title, for one that is longer than the catalog's; None if the rest makes it a sequel.

    >>> title_without_rest("Borat: Cultural Learnings"), title_without_rest("Dune: Part Two")
    ('Borat', None)
    """
    parts = _PARTS.split(title)
    return parts[0] if len(parts) > 1 and continues(parts[1]) is not True else None


def shorter_names(title: str, key: str | None = None) -> set[str]:
    """Names of a title with parts left out: the first or last alone, both, all but the first, all but the last; of one
    with a hyphen also without any space, as ``X-Men`` and ``Xmen`` are one; of a first part without ``Part One``.

    Args:
        title: the title.
        key: its canonical form where it is known already.
    """
    if not _SHORTER.search(title):  # nearly all titles
        return set()
    known = canonical(title) if key is None else key
    parts = [part for part in _PARTS.split(title) if part.strip()]
    first = {_FIRST.sub("", title)} - {title}
    joined = {known.replace(" ", "")} if _HYPHEN.search(title) else set[str]()
    if len(parts) < 2:
        return ({canonical(name) for name in first} | joined) - {known}
    names = first | {parts[0], f"{parts[0]} {parts[-1]}", " ".join(parts[1:]), " ".join(parts[:-1])}
    if continues(parts[-1]) is None:
        names.add(parts[-1])
    return ({canonical(name) for name in names} | joined) - {known}
