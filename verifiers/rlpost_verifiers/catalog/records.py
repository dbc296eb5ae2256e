"""Records of a catalog: an item, and a defect of a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlpost_verifiers.catalog.names import LONGEST

DEFECTS: dict[str, str] = {
    "unreadable": "the line is no row (no JSON object, or another number of columns); left out",
    "line_not_utf8": "a line in another encoding than its file; read as Windows-1252",
    "no_title": "no title; left out",
    "title_not_text": "the title is a number, taken as text",
    "title_not_usable": "the title is neither text nor a number; left out",
    "title_too_long": f"the title has more than {LONGEST} characters; left out",
    "title_untidy": "white space or invisible characters in the title; removed",
    "title_html": "the title is written in HTML; its entities and tags are resolved",
    "title_misread": "the title was read in a wrong encoding, which is evident; mended",
    "title_damaged": "characters of the title were lost (U+FFFD); taken as it is",
    "year_in_title": "the title carries the year; moved to the year",
    "years_differ": "the title carries another year than the year column, which counts",
    "no_year": "no year, where other rows have one",
    "year_not_usable": "the year is none that a film can have; taken as missing",
    "year_mended": "the year lay in the future; a hundred years were taken off",
    "alias_not_usable": "an alias is no text; left out",
    "duplicate": "title and year of an earlier row; left out, its names and its id lead to the earlier one",
    "id_twice": "the id of an earlier row; the row number takes its place",
}
"""Defects of a row, and how each is handled."""
LEFT_OUT = frozenset(("unreadable", "no_title", "title_not_usable", "title_too_long", "duplicate"))


@dataclass(frozen=True, slots=True)
class Defect:
    """A defect of a row (0-based), with the value that has it.

    >>> Defect(3, "no_title", "None").reason
    'no_title'
    """

    row: int
    reason: str
    value: str


@dataclass(frozen=True, slots=True)
class Item:
    """An item of a catalog.

    Attributes:
        id: its id in the file, or its row number.
        title: its title as the file has it, without the year; mended only where that is evidenced.
        year: release year; None if there is none.
        aliases: further names, among them the file's own string where it differs from title and name.
        attributes: its other columns.

    >>> Item("7", "Alien", 1979).name
    'Alien (1979)'
    """

    id: str
    title: str
    year: int | None
    aliases: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def name(self) -> str:
        """The item as written in a recommendation list: ``Title (Year)``."""
        return self.title if self.year is None else f"{self.title} ({self.year})"
