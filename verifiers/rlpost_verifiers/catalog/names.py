"""Canonical titles and years, the same for catalogs, ground truth, seen items and a model's text.

If only one of the four were normalised, the comparison would fail and the reward would silently be zero; so there is
one function for titles and one for years, and all four go through them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_APOSTROPHES = "'’‘`´ʼ"
_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()} | {
    ord("'"): None,
    ord("`"): None,
    ord("&"): " and ",
}
_ARTICLES = frozenset(("the", "a", "an"))
_WORDS = re.compile(r"[^\W_]+", re.UNICODE)
_YEAR = re.compile(r"(?<!\d)(?:1[89]|2[01])\d\d(?!\d)")
_SHORT_YEAR = re.compile(r"(?:^|[-/ ’'])(\d\d)$")
_SUBTITLE = re.compile(r"\s*(?::|\s[-–—]\s)\s*")

FIRST_YEAR, LAST_YEAR = 1870, 2030
"""Range of valid release years; years outside it are treated as errors."""


def canonical(title: str) -> str:
    """The form in which titles are compared.

    Unicode compatibility forms are decomposed (NFKD), accents, case and punctuation dropped, ``&`` becomes ``and``, and
    a leading article or a trailing one (in a title with a comma) is left out: ``The Thing`` equals ``Thing, The``, and
    ``Amélie`` equals ``AMELIE``. A title that consists of punctuation only stays as it is.

    >>> [canonical(t) for t in ("Matrix, The", "Schindler’s List", "Tom & Jerry", "300", "M*A*S*H", "$")]
    ['matrix', 'schindlers list', 'tom and jerry', '300', 'm a s h', '$']
    """
    if title.isascii():
        words = title.lower().translate(_ASCII).split()
    else:
        unfolded = unicodedata.normalize("NFKD", title.translate({ord(c): None for c in _APOSTROPHES}))
        plain = "".join(c for c in unfolded if not unicodedata.combining(c)).casefold().replace("&", " and ")
        words = _WORDS.findall(plain)
    if len(words) > 1:
        if words[0] in _ARTICLES:
            words = words[1:]
        elif words[-1] in _ARTICLES and "," in title:
            words = words[:-1]
    return " ".join(words) or title.strip().casefold()


def main_title(title: str) -> str | None:
    """The part of a title before its subtitle; None if there is no subtitle.

    >>> main_title("Alien: Resurrection"), main_title("Alien"), main_title("Star Wars - A New Hope")
    ('Alien', None, 'Star Wars')
    """
    parts = _SUBTITLE.split(title, maxsplit=1)
    return parts[0].strip() if len(parts) == 2 and parts[0].strip() and parts[1].strip() else None


def year_of(value: Any) -> int | None:
    """The year in a number, a date, or text in any of the usual forms; None if there is none.

    Two digits mean a year from 1931 to `LAST_YEAR`. A hundred years are subtracted from a year between `LAST_YEAR` and
    2100 (``Dec 31 2046``: a two-digit year put into the wrong century).

    >>> [year_of(v) for v in (1999, 1999.0, "(1999)", "1999-03-31", "Mar 31 1999", "1999–2003", "'99")]
    [1999, 1999, 1999, 1999, 1999, 1999, 1999]
    >>> [year_of(v) for v in ("n/a", None, 201)]
    [None, None, None]
    """
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, (int, float)):
        return _in_range(int(value)) if value == value and int(value) == value else None
    text = str(value).strip()
    if found := _YEAR.search(text):
        return _in_range(int(found[0]))
    short = _SHORT_YEAR.search(text)
    return None if short is None else _in_range(2000 + int(short[1]))


def _in_range(year: int) -> int | None:
    if year > LAST_YEAR and FIRST_YEAR <= year - 100 <= LAST_YEAR and year < 2100:
        year -= 100
    return year if FIRST_YEAR <= year <= LAST_YEAR else None
