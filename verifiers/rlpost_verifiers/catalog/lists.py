"""Parses a model's text into a list of titles, each with its character span.

Entries do not depend on counting newlines: blank lines belong to the entry before them, and a line without a title is
distinguished from a title that is not in the catalog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rlpost.config.choices import check_choices
from rlpost_verifiers.catalog.names import year_of

Unparsable = Literal["keep_rank", "skip"]
Prose = Literal["ignore", "keep_rank"]
Yearless = Literal["accept", "reject"]

_NUMBER = re.compile(r"\s*(?:#\s*|\()?(\d{1,3})\s*(?:[.)\]](?!\d)|[:-](?=\s))\s*(?=\S)")
_BULLET = re.compile(r"\s*[-*•‣▪·–—+]\s+(?=\S)")
_WITH_YEAR = re.compile(r"(?P<title>.*?\S)\s*[(\[]\s*(?P<year>\d{4})\s*(?:[-–—/]\s*\d{0,4}\s*)?[)\]]")
_COMMA_YEAR = re.compile(r"(?P<title>.*\S)\s*[,–—-]\s*(?P<year>(?:1[89]|2[01])\d\d)\s*[.;,]?\s*$")
_WRAPPING = (
    *(("**", "**"), ("__", "__"), ("*", "*"), ("_", "_"), ("`", "`"), ('"', '"'), ("'", "'")),
    *(("“", "”"), ("‘", "’"), ("«", "»"), ("„", "“"), ("[", "]")),
)
_LONGEST_TITLE = 200
_LARGEST_GAP = 5
"""A number counts as a list number if it exceeds the previous one by at most this much."""


@dataclass(frozen=True, slots=True)
class ListSettings:
    """What counts as an entry.

    Attributes:
        unparsable: a line between entries that holds no title keeps its rank with relevance 0 (``keep_rank``), or is
            skipped (``skip``), which moves later entries up.
        prose: lines without a title before the first and after the last entry are ignored (``ignore``), or keep their
            ranks (``keep_rank``).
        yearless: whether a line without a year counts as a title (``accept``) or as a line without one (``reject``).

    Raises:
        UserError: for a value that is not one of these.
    """

    unparsable: Unparsable = "keep_rank"
    prose: Prose = "ignore"
    yearless: Yearless = "reject"

    def __post_init__(self) -> None:
        check_choices(self, "list: ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a list. Its characters reach to the start of the next line with text: blank lines are included.

    Attributes:
        start: index of the first character.
        stop: one past the last character.
        title: title as written, without numbering, marks and year; None for a line without a title.
        year: release year in the line; None if there is none.
    """

    start: int
    stop: int
    title: str | None
    year: int | None


def parse_list(text: str, settings: ListSettings) -> list[Entry]:
    r"""The entries of a text, in order.

    >>> [(e.title, e.year) for e in parse_list("Sure:\n1. **Alien** (1979)\n\n2. 1408 (2007) - a room", ListSettings())]
    [('Alien', 1979), ('1408', 2007)]
    """
    entries: list[Entry] = []
    numbered = 0
    for start, stop in _lines(text):
        line = text[start:stop]
        if not line.strip():
            if entries:
                last = entries[-1]
                entries[-1] = Entry(last.start, stop, last.title, last.year)
            continue
        body, number = _without_number(line, numbered)
        numbered = number or numbered
        title, year = parse_title(body)
        if year is None and (settings.yearless == "reject" or title is None or title.endswith(":")):
            title = None
        entries.append(Entry(start, stop, title, year if title is not None else None))
    if settings.prose == "ignore":
        while entries and entries[0].title is None:
            del entries[0]
        while entries and entries[-1].title is None:
            del entries[-1]
    if settings.unparsable == "skip":
        entries = [entry for entry in entries if entry.title is not None]
    return entries


def parse_title(body: str) -> tuple[str | None, int | None]:
    """Title and year of a line without its numbering; the first year in brackets counts, text after it is ignored.

    >>> parse_title('"The Thing" (1982)'), parse_title("Seven, 1995"), parse_title("300")
    (('The Thing', 1982), ('Seven', 1995), ('300', None))
    """
    text = _unwrap(body.strip())
    for pattern in (_WITH_YEAR, _COMMA_YEAR):
        found = pattern.match(text)
        if found and (year := year_of(found["year"])) is not None:
            return _tidy(found["title"]), year
    return _tidy(text), None


def _lines(text: str) -> Iterator[tuple[int, int]]:
    """Half-open character span of every line, its newline included."""
    start = 0
    while start < len(text):
        stop = text.find("\n", start) + 1 or len(text)
        yield start, stop
        start = stop


def _without_number(line: str, before: int) -> tuple[str, int | None]:
    """The line without bullet and list number, and that number; ``300: …`` is a title unless 295 to 299 came before."""
    bullet = _BULLET.match(line)
    rest = line[bullet.end() :] if bullet else line
    found = _NUMBER.match(rest)
    if found and (int(found[1]) == 1 or before < int(found[1]) <= before + _LARGEST_GAP):
        return rest[found.end() :], int(found[1])
    return rest, None


def _unwrap(text: str) -> str:
    """The text without marks that enclose all of it."""
    while True:
        for left, right in _WRAPPING:
            if len(text) > len(left) + len(right) and text.startswith(left) and text.endswith(right):
                inner = text[len(left) : -len(right)]
                if left not in inner and right not in inner:
                    text = inner.strip()
                    break
        else:
            return text


def _tidy(title: str) -> str | None:
    text = _unwrap(title.strip().strip("*_`").strip().rstrip(",;").strip())
    return text if text and len(text) <= _LONGEST_TITLE and any(c.isalnum() or c in "$!?" for c in text) else None
