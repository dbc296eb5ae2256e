"""Texts as lists: every policy, and the character spans of entries. Not covered: tokens
(tests/property/test_list_spans.py).
"""

from __future__ import annotations

import pytest

from rlpost.errors import UserError
from rlpost_verifiers.catalog.lists import ListSettings, parse_list
from rlpost_verifiers.catalog.titles import parse_title

KEEP = ListSettings()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Alien (1979)", ("Alien", 1979)),
        ('"Alien" (1979)', ("Alien", 1979)),
        ("“Alien” (1979)", ("Alien", 1979)),
        ("**Alien** (1979)", ("Alien", 1979)),
        ("**Alien (1979)**", ("Alien", 1979)),
        ("*Alien* [1979]", ("Alien", 1979)),
        ("Alien (1979) - in space (2001) no one", ("Alien", 1979)),
        ("Alien ( 1979 )", ("Alien", 1979)),
        ("Fargo (2014–2024)", ("Fargo", 2014)),
        ("Alien, 1979", ("Alien", 1979)),
        ("Alien - 1979", ("Alien", 1979)),
        ("Precious (Based on the Novel) (2009)", ("Precious (Based on the Novel)", 2009)),
        ("2001: A Space Odyssey (1968)", ("2001: A Space Odyssey", 1968)),
        ("2012 (2009)", ("2012", 2009)),
        ("1984", ("1984", None)),
        ("(1979)", ("(1979)", None)),
        ("Alien (79)", ("Alien (79)", None)),
        ("M*A*S*H (1970)", ("M*A*S*H", 1970)),
        ("$ (1971)", ("$", 1971)),
        ("---", (None, None)),
    ],
)
def test_titles_and_years_of_lines(line: str, expected: tuple[str | None, int | None]) -> None:
    assert parse_title(line) == expected


def titles(text: str, settings: ListSettings = KEEP) -> list[str | None]:
    return [entry.title for entry in parse_list(text, settings)]


@pytest.mark.parametrize(
    "text",
    [
        "Alien (1979)\n300 (2006)\nUp (2009)",
        "1. Alien (1979)\n2. 300 (2006)\n3. Up (2009)\n",
        "1) Alien (1979)\n2) 300 (2006)\n3) Up (2009)",
        "- Alien (1979)\n- 300 (2006)\n- Up (2009)",
        "• Alien (1979)\n\n• 300 (2006)\n\n\n• Up (2009)\n\n",
        "Sure! Here you are:\n\n1. Alien (1979)\n2. 300 (2006)\n3. Up (2009)\n\nEnjoy!",
        "1. Alien (1979)\r\n2. 300 (2006)\r\n3. Up (2009)\r\n",
        "  1. Alien (1979)  \n  4. 300 (2006)\n  5. Up (2009)",
    ],
)
def test_the_same_list_however_it_is_written(text: str) -> None:
    assert titles(text) == ["Alien", "300", "Up"]


def test_a_number_that_does_not_go_on_belongs_to_the_title() -> None:
    assert titles("1. Alien (1979)\n300: Rise of an Empire (2014)") == ["Alien", "300: Rise of an Empire"]


def test_a_colon_is_no_end_of_a_number_inside_a_title() -> None:
    assert titles("Alien (1979)\n3:10 to Yuma (2007)\n2. Up (2009)") == ["Alien", "3:10 to Yuma", "Up"]
    assert titles("1.Alien (1979)\n2.Up (2009)") == ["Alien", "Up"]


def test_a_line_without_a_title_keeps_its_place_or_does_not() -> None:
    text = "Alien (1979)\nand then there is\nUp (2009)"
    assert titles(text) == ["Alien", None, "Up"]
    assert titles(text, ListSettings(unparsable="skip")) == ["Alien", "Up"]


def test_prose_around_the_list_is_ignored_or_counted() -> None:
    text = "I like these\nAlien (1979)\nBye"
    assert titles(text) == ["Alien"]
    assert titles(text, ListSettings(prose="keep_rank")) == [None, "Alien", None]


def test_a_title_without_a_year_is_accepted_or_not() -> None:
    assert titles("Alien\nUp (2009)", ListSettings(yearless="accept")) == ["Alien", "Up"]
    assert titles("Alien\nUp (2009)") == ["Up"]
    assert titles("Movies:\nAlien", ListSettings(yearless="accept")) == ["Alien"]


def test_entries_cover_the_text_from_the_first_to_the_end_of_the_last() -> None:
    text = "Hello\n1. Alien (1979)\n\n\n2. nonsense\n3. Up (2009)\n\nBye"
    entries = parse_list(text, KEEP)
    assert [text[e.start : e.stop] for e in entries] == ["1. Alien (1979)\n\n\n", "2. nonsense\n", "3. Up (2009)\n\n"]


@pytest.mark.parametrize(
    "text", ["", "\n\n", "nothing here", "1.\n2.\n", "()" * 50, "(" * 500 + "1999", "* * *\n" * 50]
)
def test_texts_without_a_list_have_no_entries(text: str) -> None:
    assert parse_list(text, KEEP) == []


def test_an_invalid_setting_is_named() -> None:
    with pytest.raises(UserError, match="unparsable is 'shift'; use 'keep_rank' or 'skip'"):
        ListSettings(unparsable="shift")  # type: ignore[arg-type]
