"""Titles and years in their many spellings. Not covered: catalogs (test_catalog_items.py)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpost_verifiers.catalog.names import canonical, main_title, year_of


@pytest.mark.parametrize(
    "spellings",
    [
        ("The Matrix", "the matrix", "Matrix, The", "MATRIX", " The  Matrix "),
        ("Schindler's List", "Schindler’s List", "Schindlers List", "SCHINDLER`S LIST"),
        ("Amélie", "Amelie", "AMÉLIE", "Ame\u0301lie"),
        ("Tom & Jerry", "Tom and Jerry", "tom AND jerry"),
        ("M*A*S*H", "M-A-S-H", "m a s h"),
        ("Se7en", "SE7EN"),
        ("Spider-Man: Homecoming", "Spider Man Homecoming", "spider-man - homecoming"),
        ("Ｔｒｏｎ", "Tron"),
        ("Straße", "Strasse"),
        ("A Bug's Life", "Bugs Life, A"),
        ("La haine", "Haine, La", "LA HAINE"),
        ("L'avventura", "Avventura, L'", "L’Avventura"),
        ("Das Boot", "Boot, Das"),
        ("Bjørn Ægir Łódź", "Bjorn Aegir Lodz"),
        ("Kırmızı", "Kirmizi", "KIRMIZI"),
        ("Alien³", "Alien 3", "ALIEN 3"),
        ("8½", "8 1/2"),
        ("WALL·E", "Wall-E", "WALL•E"),
        ("Half-Life™ 2", "Half-Life 2", "HALF-LIFE® 2"),
        ("ばば", "は\u3099は\u3099"),
        ("강남", "강남"),
        ("Ёлки", "Елки"),
        ("２００１", "2001"),
    ],
)
def test_spellings_of_one_title_are_one(spellings: tuple[str, ...]) -> None:
    assert len({canonical(title) for title in spellings}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        *(
            ("はは", "ばば"),
            ("はは", "ぱぱ"),
            ("мой", "мои"),
            ("їх", "іх"),
            ("हिन्दी", "हन्द"),
            ("C++", "C"),
            ("C#", "C"),
        ),
        *(("ที่", "ทู"), ("கா", "கி")),
        ("300", "3000"),
        ("Alien", "Aliens"),
        ("Rocky", "Rocky II"),
        ("The", "A"),
        ("$", "!!!"),
        ("東京物語", "七人の侍"),
    ],
)
def test_different_titles_stay_apart(one: str, other: str) -> None:
    assert canonical(one) != canonical(other)


@given(st.text(max_size=40))
def test_canonicalising_twice_changes_nothing(title: str) -> None:
    once = canonical(title)
    assert canonical(once) == once or len(once.split()) > 1  # "a the x" loses one article per pass


@given(st.text(alphabet=st.characters(codec="ascii"), max_size=40))
def test_the_fast_way_for_plain_text_is_the_slow_way(title: str) -> None:
    """A character outside ASCII that folds to nothing makes the same text take the slow way."""
    assert canonical(title) == canonical("\u0301" + title) or not any(c.isalnum() for c in title)


@pytest.mark.parametrize(
    ("value", "year"),
    [
        (1999, 1999), (1999.0, 1999), ("1999", 1999), ("(1999)", 1999), ("[1999]", 1999), ("1999-03-31", 1999),
        ("Mar 31 1999", 1999), ("31.03.1999", 1999), ("1999–2003", 1999), ("'99", 1999), ("31-Mar-99", 1999),
        ("'05", 2005), ("Dec 31 2046", 1946), (2046, 1946), ("c. 1895", 1895),
        (None, None), ("", None), ("n/a", None), (201, None), (19999, None), (float("nan"), None), (1999.5, None),
        (True, None), ("tba", None), ([1999], 1999), (-5, None), ("1066", None),
    ],
)  # fmt: skip
def test_years_in_their_many_forms(value: Any, year: int | None) -> None:
    assert year_of(value) == year


def test_subtitles() -> None:
    assert main_title("Star Wars: Episode IV - A New Hope") == "Star Wars"
    assert main_title("Spider-Man") is None
    assert main_title(": nothing before") is None
