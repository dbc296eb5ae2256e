"""Canonical titles and years, the same for catalogs, ground truth, seen items and a model's text.

If only one of the four were normalised, the comparison would fail and the reward would silently be zero; so there is
one function for titles and one for years, and all four go through them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

_APOSTROPHES = "'’‘`´ʼʻ‛′＇"
_ASCII = {code: " " for code in range(128) if not chr(code).isalnum()} | {
    ord("'"): None,
    ord("`"): None,
    ord("&"): " and ",
}
_SPELT_OUT = {
    **dict.fromkeys(map(ord, _APOSTROPHES)),
    **dict.fromkeys(map(ord, "™®©℠"), " "),
    **{ord(c): f" {unicodedata.normalize('NFKC', c).replace('⁄', ' ')}" for c in "¹²³⁴⁵⁶⁷⁸⁹½⅓⅔¼¾⅕⅛"},
    **{ord(one): plain for one, plain in zip("øØłŁđĐðÐıħĦŧŦŋŊ", "oOlLdDdDihHtTnN", strict=True)},
    **{ord(one): plain for one, plain in zip("æÆœŒþÞ", ("ae", "AE", "oe", "OE", "th", "TH"), strict=True)},
}
"""Characters that compatibility decomposition leaves, or would join to the word before (``Alien³`` is ``Alien 3``)."""
ARTICLES = ("", "the", "a", "an")
"""Leading articles that people add and leave out; the first stands for none."""
_ARTICLES = frozenset(ARTICLES[1:])
_BEGINNINGS = tuple(f"{article} " for article in ARTICLES[1:])
_BEHIND = re.compile(
    r"^(?P<title>.*\S)\s*,\s*(?P<article>the|a|an|l[ae]s?|el|los|il|lo|i|gli|un[ae]?|uno|der|die|das|den|det?|eine?|"
    r"het|een|ett?|en|os?|as|uma?|l['’])\s*$",
    re.IGNORECASE,
)
_SIGNS = re.compile(r"(?<=[A-Za-z])(?:\+\+|#)")
_YEAR = re.compile(r"(?<!\d)(?:1[89]|2[01])\d\d(?!\d)")
_SHORT_YEAR = re.compile(r"(?:^|[-/ ’'])(\d\d)$")
_SUBTITLE = re.compile(r"\s*(?::|\s[-–—]\s)\s*")
_MEDIUM = (
    r"(?:TV|V|VG|film|movie|video|short"
    r"|(?:TV|web)[ -]?(?:series|movie|film|mini[ -]?series|special|short|episode))"
)
_CARRIED = re.compile(
    rf"^(?P<title>.*\S)\s*[(\[]\s*(?:{_MEDIUM}[,:\s]+)?(?P<year>\d{{4}})"
    rf"(?:\s*[-–—/]\s*(?:\d{{2,4}}|[IVXLC]+|present|\?+)?)?(?:[,\s]+{_MEDIUM})?\s*[)\]](?:\s*[(\[]{_MEDIUM}[)\]])*\s*$",
    re.IGNORECASE,
)

FIRST_YEAR, LAST_YEAR = 1870, 2030
"""Range of valid release years; years outside it are treated as errors."""
LONGEST = 500
"""Most characters of a title."""


def canonical(title: str) -> str:
    """The form in which titles are compared; `key_of` without the article.

    >>> [canonical(t) for t in ("Matrix, The", "Schindler’s List", "Tom & Jerry", "300", "M*A*S*H", "$")]
    ['matrix', 'schindlers list', 'tom and jerry', '300', 'm a s h', '$']
    """
    return key_of(title)[0]


def key_of(title: str) -> tuple[str, str]:
    """The canonical form of a title, and the English article that it leaves out (one of `ARTICLES`).

    Unicode compatibility forms are decomposed (NFKD); case, punctuation and the accents of Latin and Greek letters are
    dropped, while marks that make another letter stay (ば is not は, й is not и); ``&`` becomes ``and``; ø æ ł ı become
    o ae l i. An article behind a comma, in any of eight languages, is moved to the front; an English one in front is
    split off: ``The Thing`` equals ``Thing, The``. A title that consists of punctuation only stays as it is.

    >>> key_of("Matrix, The"), key_of("Haine, La"), key_of("Avventura, L'"), key_of("Børning")
    (('matrix', 'the'), ('la haine', ''), ('lavventura', ''), ('borning', ''))
    """
    moved = title
    if "," in title and (behind := _BEHIND.match(title)):
        article = behind["article"]
        moved = f"{article}{'' if article[-1] in _APOSTROPHES else ' '}{behind['title']}"
    if "#" in moved or "+" in moved:  # C++ and C# are neither C
        moved = _SIGNS.sub(lambda sign: "plusplus" if sign[0] == "++" else "sharp", moved)
    if moved.isascii():
        small = moved.lower()
        words = (small if small.replace(" ", "").isalnum() else small.translate(_ASCII)).split()
    else:
        words = (moved.translate(_LATIN) if _LATIN_ONLY.match(moved) else _folded(moved)).split()
    if len(words) > 1 and words[0] in _ARTICLES:
        return " ".join(words[1:]), words[0]
    return " ".join(words) or title.strip().casefold(), ""


def key_of_canonical(text: str) -> tuple[str, str]:
    """`key_of` for a canonical form, which is its own key unless it begins with an article.

    >>> key_of_canonical("alien 3"), key_of_canonical("the the")
    (('alien 3', ''), ('the', 'the'))
    """
    if text.isascii() and not text.startswith(_BEGINNINGS) and text.replace(" ", "").isalnum():
        return text, ""
    return key_of(text)


def _folded(title: str) -> str:
    """Words in small letters without accents, other characters as spaces."""
    found: list[str] = []
    base = ""
    for character in unicodedata.normalize("NFKD", title.translate(_SPELT_OUT)):
        kind = unicodedata.category(character)
        if kind[0] == "M":
            if not _is_accent(base, character):
                found.append(character)
        elif kind != "Cf":  # joiners and direction marks
            base = character
            found.append(character if character.isalnum() else " and " if character == "&" else " ")
    return unicodedata.normalize("NFC", "".join(found)).casefold()


def _is_accent(base: str, mark: str) -> bool:
    """Whether a mark may be left out: every mark on Latin and Greek letters, points of Hebrew and Arabic, ё and the
    stress of Cyrillic; in other scripts a mark makes another letter.
    """
    code = ord(base) if base else 0
    if 0x400 <= code < 0x530:
        return (mark == "\u0308" and base in "еЕ") or (mark == "\u0301" and base in "аеиоуыэюяАЕИОУЫЭЮЯ")
    return code < 0x700 or 0x1E00 <= code < 0x2000 or mark in "\ufe0e\ufe0f"


_LATIN = {code: _folded(chr(code)) for code in (*range(128, 0x250), *range(0x2010, 0x2028))}
_LATIN |= {code: chr(code).lower() for code in range(128)} | _ASCII
"""`_folded` of each character, for titles in which it does not depend on the one before."""
_LATIN_ONLY = re.compile("[\x00-\u024f\u2010-\u2027]*\\Z")


def main_title(title: str) -> str | None:
    """The part of a title before its subtitle; None if there is no subtitle.

    >>> main_title("Alien: Resurrection"), main_title("Alien"), main_title("Star Wars - A New Hope")
    ('Alien', None, 'Star Wars')
    """
    parts = _SUBTITLE.split(title, maxsplit=1)
    return parts[0].strip() if len(parts) == 2 and parts[0].strip() and parts[1].strip() else None


def carried_year(title: str) -> tuple[str, int] | None:
    """A title without the year that it carries in brackets at its end, and that year; None if it carries none.

    >>> [carried_year(t) for t in ("Lost (2004-2010)", "Crash (2004/I)", "Merlin (1998) (TV)", "Alien")]
    [('Lost', 2004), ('Crash', 2004), ('Merlin', 1998), None]
    """
    if title[-1:] == ")" and title[-6:-5] == "(" and title[-5:-1].isdecimal():  # nearly all that carry one
        stem, year = title[:-6].rstrip(), _in_range(int(title[-5:-1]))
        return (stem, year) if stem and year is not None else None
    if title[-1:] not in (")", "]", " ") or (found := _CARRIED.match(title)) is None:
        return None
    year = year_of(int(found["year"]))
    return None if year is None else (found["title"], year)


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
        return _in_range(int(value)) if abs(value) < 1e6 and int(value) == value else None
    text = str(value).strip()
    if found := _YEAR.search(text):
        return _in_range(int(found[0]))
    short = _SHORT_YEAR.search(text)
    return None if short is None else _in_range(2000 + int(short[1]))


def _in_range(year: int) -> int | None:
    if year > LAST_YEAR and FIRST_YEAR <= year - 100 <= LAST_YEAR and year < 2100:
        year -= 100
    return year if FIRST_YEAR <= year <= LAST_YEAR else None
