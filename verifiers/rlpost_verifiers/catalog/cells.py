"""What a catalog's title cell says: the title, the year that it carries, and the further names in it."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from typing import Any

from rlpost_verifiers.catalog.mojibake import repaired
from rlpost_verifiers.catalog.names import LONGEST, carried_year, key_of, year_of

Note = Callable[[str, Any], None]
"""Takes the reason and the value of a defect."""

_ODD = re.compile(
    "[\x00-\x1f\x7f-\xa0<&\u00ad\u1680\u2000-\u200f\u2028-\u202f\u205f-\u2064\u3000\ud800-\udfff\ufeff]|  |^ | $"
)
"""What sends a title the slow way."""
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\ufeff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_LARGEST = 1e15
"""Numbers above it are no titles."""
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#\d{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_TAG = re.compile(r"</?(?:i|b|em|strong|u|sup|sub|small|span|font|br|p)(?:\s[^<>]*)?/?>", re.IGNORECASE)
_KNOWN_AS = r"(?:a\.\s?k\.\s?a\.?|A\.K\.A\.?|aka|AKA|also known as)"
_BRACKET = re.compile(r"^(?P<title>.*\S)\s*\((?P<inner>[^()]*(?:\([^()]*\)[^()]*)*)\)$")
_AKA_INNER = re.compile(rf"^{_KNOWN_AS}[:\s]\s*(?P<name>\S.*)$")
_AKA = re.compile(rf"^(?P<title>.*\S)\s+{_KNOWN_AS}[:\s]\s*(?P<name>\S.*)$")
_SERIES = re.compile(r"#\s?\d+(?:\.\d+)?(?:\s?[-–,&]\s?#?\d+(?:\.\d+)?)*\s*$")
_REMARK = re.compile(
    r"\b(?:editions?|version|vol|volumes?|dvd|blu-?ray|u?hd|4k|3d|imax|remaster(?:ed)?|unrated|extended|cut|uncut|"
    r"books?|set|pack|box|seasons?|series|tv|vg?|video|game|import|widescreen|subtitled|dubbed|paperback|hardcover|"
    r"part|chapter|episodes?|live|remix|demo|beta|early access|new|used|\d+ (?:pieces|count|ounces?))\b",
    re.IGNORECASE,
)
"""Words of brackets that tell an edition, not another name."""


def clean_title(value: Any, note: Note) -> str | None:
    """The text of a title cell, mended where that is evidenced; None for none that can be used.

    Numbers become text; HTML entities and tags, misread encodings, invisible characters and surplus white space are
    mended. Each of these is noted as a defect.
    """
    if not isinstance(value, str):
        if value is None or value != value:  # NaN is what pandas writes for nothing
            note("no_title", value)
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or abs(value) > _LARGEST:
            note("title_not_usable", value)
            return None
        note("title_not_text", value)
        return f"{value:.15g}"
    title = value
    if not _plain(title) and (not title or _ODD.search(title)):
        title = _mended(title, note)
    if not title.isascii() and (found := repaired(title)) != title:
        note("title_misread", title)
        title = _mended(found, lambda *_: None)
    if not title:
        note("no_title", value)
        return None
    if len(title) > LONGEST:
        note("title_too_long", title)
        return None
    if "\ufffd" in title:
        note("title_damaged", title)
    return title


def _plain(title: str) -> bool:
    """Whether a title is ASCII text without anything of `_ODD`; most are, and this is told in half the time."""
    return (
        title.isascii()
        and title.isprintable()
        and title.strip() == title != ""
        and not ("  " in title or "&" in title or "<" in title)
    )


def _mended(title: str, note: Note) -> str:
    plain = title = _SURROGATE.sub("\ufffd", title)  # half of a character: no text can hold it
    for _ in range(2):  # "&amp;amp;" was escaped twice
        plain = _ENTITY.sub(lambda entity: html.unescape(entity[0]), plain)
    if "<" in plain:
        plain = _TAG.sub("", plain)
    if plain != title:
        note("title_html", title)
        title = plain
    found = title if title.isascii() else repaired(title)  # before its bytes are dropped as invisible
    if found != title:
        note("title_misread", title)
        title = found
    tidy = " ".join(_INVISIBLE.sub("", title).split())
    if tidy != title and tidy:
        note("title_untidy", title)
    return tidy


def split_year(title: str, value: Any, note: Note) -> tuple[str, int | None]:
    """The title without the year that it carries, and the year.

    Args:
        title: the clean title.
        value: cell of the year column, which counts where both give one; None: empty.
        note: takes the defects.
    """
    year = None
    if value is not None and value != "" and value == value:
        year = year_of(value)
        if year is None:
            note("year_not_usable", value)
        elif str(year) not in str(value):
            note("year_mended", value)
    else:
        value = None
    carried = carried_year(title) if title[-1] in ")]" else None
    if carried is not None:
        stem, inner = carried
        note("year_in_title" if year is None or year == inner else "years_differ", title)
        return stem, inner if year is None else year
    if value is None:
        note("no_year", title)
    return title, year


def further_names(raw: Any, title: str, year: int | None) -> list[str]:
    """Other names that a title cell gives for its item, none of them the title itself.

    The file's own string is one, as are both sides of ``a.k.a.``. For an item with a year, so are the title without
    what stands in brackets behind it, and the text in the brackets (MovieLens: ``Postman, The (Postino, Il)``) unless
    it tells an edition. Without a year, brackets belong to the name (``OK Computer [Vinyl]``), except for the place in
    a series (``(Harry Potter, #1)``).

    >>> further_names("Seven (a.k.a. Se7en) (1995)", "Seven (a.k.a. Se7en)", 1995)
    ['Seven', 'Se7en']
    >>> further_names("1984 (Signet Classics)", "1984 (Signet Classics)", None)
    []
    """
    found: list[str] = []
    stem = title
    while stem.endswith(")") and (bracket := _BRACKET.match(stem)) is not None:
        inner = bracket["inner"].strip()
        known_as = _AKA_INNER.match(inner)
        if known_as is None and year is None and not _SERIES.search(inner):
            break
        stem = bracket["title"]
        found.append(stem)
        if known_as is not None:
            found += _sides(known_as["name"])
        elif year is not None and not _REMARK.search(inner) and not _SERIES.search(inner) and _says(inner):
            found += _sides(inner)
    if "a.k.a" in stem or "aka" in stem.lower() or "also known" in stem:
        sides = _sides(stem)
        found += sides if len(sides) > 1 else []
    written = raw.strip() if isinstance(raw, str) else ""
    if written and not _SURROGATE.search(written) and written not in (title, f"{title} ({year})"):
        found.append(written)
    return [name for name in dict.fromkeys(found) if name != title and len(name) <= LONGEST]


def _sides(name: str) -> list[str]:
    """A name, or the names between which ``a.k.a.`` stands."""
    found = _AKA.match(name)
    return [name] if found is None else [*_sides(found["title"]), found["name"]]


def _says(inner: str) -> bool:
    """Whether a bracket's text can be a name: it has letters, and more than one."""
    return sum(c.isalpha() for c in key_of(inner)[0]) > 1
