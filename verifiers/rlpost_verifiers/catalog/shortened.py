"""Titles without a part of their name, told by the year: ``Star Wars (1977)``, ``The Empire Strikes Back (1980)``.

Only a title whose year is the item's counts, and only where no other item of that year fits: a name that is shortened
may otherwise be that of another part. The shorter names stand in the catalog's table beside its titles (`SHORT` of
`rlpost_verifiers.catalog.store`), so that workers share them.
"""

from __future__ import annotations

import re

from rlpost_verifiers.catalog.names import canonical
from rlpost_verifiers.catalog.sequels import continues

_PARTS = re.compile(r"\s*[:：]\s+|\s+[-–—]\s+|,?\s+or:?\s+(?=[A-Z(])")


def title_without_rest(title: str) -> str | None:
    """The first part of a title, for one that is longer than the catalog's; None if the rest makes it a sequel.

    >>> title_without_rest("Borat: Cultural Learnings"), title_without_rest("Dune: Part Two")
    ('Borat', None)
    """
    parts = _PARTS.split(title)
    return parts[0] if len(parts) > 1 and continues(parts[1]) is not True else None


def shorter_names(title: str, key: str | None = None) -> set[str]:
    """Names of a title with parts left out: the first or last alone, both, all but the first, all but the last.

    Args:
        title: the title.
        key: its canonical form where it is known already.
    """
    if not _may_have_parts(title):
        return set()
    parts = [part for part in _PARTS.split(title) if part.strip()]
    if len(parts) < 2:
        return set()
    names = {parts[0], f"{parts[0]} {parts[-1]}", " ".join(parts[1:]), " ".join(parts[:-1])}
    if continues(parts[-1]) is None:
        names.add(parts[-1])
    return {canonical(name) for name in names} - {canonical(title) if key is None else key}


def _may_have_parts(title: str) -> bool:
    """Whether `_PARTS` may split a title; costs a tenth of asking it, which adds up over a million titles."""
    if ":" in title or "-" in title or ("or" in title and (" or" in title or not title.isprintable())):
        return True
    return not title.isascii() and ("\u2013" in title or "\u2014" in title or "\uff1a" in title)
