"""Parses a model's text into a list of places, each with its character span.

A text is first read as data (JSON, a table, comma-separated values: `structured`), else line by line, else as running
prose (`prose`). Lines are compared with each other: what begins like the lines that hold titles is a place, what stands
below one explains it, and what holds no title displaces nothing. The catalog, where it is given, decides between
readings.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rlpost.config.choices import check_choices
from rlpost_verifiers.catalog.marks import Known
from rlpost_verifiers.catalog.outline import outline
from rlpost_verifiers.catalog.pieces import Part
from rlpost_verifiers.catalog.prose import mentions
from rlpost_verifiers.catalog.structured import read_json
from rlpost_verifiers.catalog.titles import Name
from rlpost_verifiers.catalog.titles import parse_title as parse_title
from rlpost_verifiers.thought import answer_start

Unparsable = Literal["keep_rank", "skip"]
Prose = Literal["ignore", "keep_rank"]
Yearless = Literal["listed", "accept", "reject"]
Thought = Literal["cut", "keep"]
Data = Literal["read", "lines"]
Inline = Literal["read", "ignore"]
Revised = Literal["last", "all"]

_REVISES = re.compile(
    r"\b(?:actually|correct(?:ed|ion)|let me (?:re|correct|fix|try|adjust|change)|revised?|updated list|wait\b"
    r"|scratch that|instead, here|my mistake|apolog|sorry)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ListSettings:
    """What counts as a place.

    Attributes:
        unparsable: a line of the list that is no title keeps its rank with relevance 0 (``keep_rank``), or is skipped
            (``skip``), which moves later places up.
        prose: text that is no place (introductions, headings, closings) is ignored (``ignore``), or each line of it
            keeps a rank (``keep_rank``).
        yearless: titles without a year count where the list shows that they are titles (``listed``: they have a mark
            as the other places have, or no title of the list has a year and the catalog knows some); ``accept``: every
            line that is no explanation counts; ``reject``: a title without a year is none.
        thought: what stands before ``</think>`` (and its kin) is cut (``cut``), and a text that ends inside its thought
            has no list; or is read like the rest (``keep``).
        data: JSON is read as data (``read``), or as lines of text (``lines``).
        inline: in a text without a list, titles in running prose count (``read``) or not (``ignore``).
        revised: a list behind words of correction (``Actually, …``) replaces those before (``last``), or follows
            them (``all``).

    Raises:
        UserError: for a value that is not one of these.
    """

    unparsable: Unparsable = "keep_rank"
    prose: Prose = "ignore"
    yearless: Yearless = "listed"
    thought: Thought = "cut"
    data: Data = "read"
    inline: Inline = "read"
    revised: Revised = "last"

    def __post_init__(self) -> None:
        check_choices(self, "list: ")


@dataclass(frozen=True, slots=True)
class Entry:
    """One place of a list. Its characters reach over its explanation and blank lines to the next line with text.

    Attributes:
        start: index of the first character.
        stop: one past the last character.
        title: title as written, without numbering, marks and year; None for a line without a title.
        year: release year in the line; None if there is none.
        names: all readings of title and year, the likeliest first.
    """

    start: int
    stop: int
    title: str | None
    year: int | None
    names: tuple[Name, ...] = ()


def parse_list(text: str, settings: ListSettings, known: Known | None = None) -> list[Entry]:
    r"""The places of a text, in order.

    Args:
        text: the answer.
        settings: what counts as a place.
        known: whether a title with this year (or without) is in the catalog; None: no catalog to ask.

    >>> [(e.title, e.year) for e in parse_list("Sure:\n1. **Alien** (1979)\n\n2. 1408 (2007) - a room", ListSettings())]
    [('Alien', 1979), ('1408', 2007)]
    """
    start = 0 if settings.thought == "keep" else answer_start(text)
    if start is None:
        return []
    asked = known or (lambda title, year: False)
    parts: Sequence[Part] = read_json(text, start, asked) if settings.data == "read" else ()
    if not parts:
        parts = outline(text, start, asked, settings.yearless)
    if settings.revised == "last":
        parts = _after_revision(text, parts)
    if settings.inline == "read" and not any(part.kind == "place" for part in parts):
        parts = mentions(text, start, asked) or parts
    return _entries(parts, settings)


def _after_revision(text: str, parts: Sequence[Part]) -> Sequence[Part]:
    """The parts from the last words of correction between two lists on."""
    places = [number for number, part in enumerate(parts) if part.kind == "place"]
    for number in reversed(range(len(parts))):
        part = parts[number]
        between = places and places[0] < number < places[-1]
        if between and part.kind == "text" and _REVISES.search(text[part.start : part.stop]):
            return parts[number:]
    return parts


def _entries(parts: Sequence[Part], settings: ListSettings) -> list[Entry]:
    found: list[Entry] = []
    counts: list[bool] = []
    for part in parts:
        if part.kind == "text" and settings.prose == "ignore":
            continue
        title, year = part.name if part.kind == "place" and part.name is not None else (None, None)
        if title is not None and year is None and settings.yearless == "reject":
            title = None
        counts.append(part.kind == "place" and (title is not None or part.name is None))
        found.append(Entry(part.start, part.stop, title, year, part.names if title is not None else ()))
    if settings.prose == "ignore" and found:
        first = next((number for number, one in enumerate(counts) if one), len(found))
        last = next((number for number, one in reversed([*enumerate(counts)]) if one), -1)
        found = found[first : last + 1]
    return [entry for entry in found if entry.title is not None or settings.unparsable == "keep_rank"]
