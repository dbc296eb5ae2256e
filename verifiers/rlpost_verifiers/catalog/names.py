"""One way of writing titles and years, for catalogs, ground truth, seen items and a model's text alike.

Where the four are compared, a difference in spelling that only one of them went through is a reward of zero that nobody
sees; so there is one function for each, and everything goes through it.
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
"""Years that a film can have; others are taken for mistakes."""


def canonical(title: str) -> str:
    """The form in which titles are compared.

    Unicode's compatibility forms are unfolded and accents dropped, case and punctuation go, ``&`` is ``and``, and a
    leading or trailing article is left out: ``The Thing`` and ``Thing, The`` are one, ``Amélie`` and ``AMELIE`` too.
    A title that is nothing but punctuation stays as it is.

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
    """What stands before a subtitle, None where there is none.

    >>> main_title("Alien: Resurrection"), main_title("Alien"), main_title("Star Wars - A New Hope")
    ('Alien', None, 'Star Wars')
    """
    parts = _SUBTITLE.split(title, maxsplit=1)
    return parts[0].strip() if len(parts) == 2 and parts[0].strip() and parts[1].strip() else None


def year_of(value: Any) -> int | None:
    """The year in a number, a date, or text in any of the usual forms; None where there is none.

    A year of two digits, and one after `LAST_YEAR` that a hundred years earlier is none (``Dec 31 2046``: a date of two
    digits read wrongly), belongs to the century that makes it past.

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
