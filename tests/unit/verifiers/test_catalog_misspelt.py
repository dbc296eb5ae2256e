"""Titles with one misspelling or without their hyphen count where the year is the item's, and no other item fits."""

from __future__ import annotations

import pytest

from rlpost.errors import UserError
from rlpost.types import VerifyItem
from rlpost_verifiers.catalog.items import catalog_of
from rlpost_verifiers.catalog.misspelt import one_edit
from rlpost_verifiers.catalog.verifier import CatalogVerifier

FILMS = [
    {"title": "The Shawshank Redemption", "year": 1994},
    {"title": "Inglourious Basterds", "year": 2009},
    {"title": "Old Boy", "year": 2003},
    {"title": "X-Men: Days of Future Past", "year": 2014},
    {"title": "Spider-Man: Into the Spider-Verse", "year": 2018},
    {"title": "Apollo 13", "year": 1995},
    {"title": "Man on Fire", "year": 2004},
    {"title": "Fright Night", "year": 1985},
    {"title": "The Others", "year": 2001},
    {"title": "Dark Waters", "year": 2019},
    {"title": "Sharknado Rising", "year": 2015},
    {"title": "Sharknada Rising", "year": 2015},
]


def found(name: str, **settings: object) -> str | None:
    verifier = CatalogVerifier(catalog_of(FILMS), relevant_required=False, **settings)  # pyright: ignore[reportArgumentType]
    return verifier.verify_batch([VerifyItem({}, f"1. {name}")])[0].evidence["items"][0]


@pytest.mark.parametrize(
    ("name", "item"),
    [
        ("The Shawshank Redemtion (1994)", "The Shawshank Redemption (1994)"),
        ("The Shawshank Redepmtion (1994)", "The Shawshank Redemption (1994)"),
        ("Inglorious Basterds (2009)", "Inglourious Basterds (2009)"),
        ("Oldboy (2003)", "Old Boy (2003)"),
        ("Xmen Days of Future Past (2014)", "X-Men: Days of Future Past (2014)"),
        ("Spiderman: Into the Spiderverse (2018)", "Spider-Man: Into the Spider-Verse (2018)"),
    ],
)
def test_one_misspelling_is_the_item(name: str, item: str) -> None:
    assert found(name) == item


@pytest.mark.parametrize(
    "name",
    [
        "The Shawshank Redemtion",  # no year
        "The Shawshank Redemtion (1995)",  # another one
        "The Shawshnk Redemtion (1994)",  # two misspellings
        "Apollo 18 (1995)",  # another number
        "Men on Fire (2004)",  # a short word is another word
        "Bright Night (1985)",  # so is one with another beginning
        "The Other (2001)",  # the singular
        "Sharknade Rising (2015)",  # two items fit
    ],
)
def test_what_may_be_another_title_is_none(name: str) -> None:
    assert found(name) is None


def test_misspellings_are_a_policy() -> None:
    assert found("Inglorious Basterds (2009)", misspelt="off") is None
    with pytest.raises(UserError, match="misspelt is 'often'; use 'dated' or 'off'"):
        found("Up (2009)", misspelt="often")


def test_an_edit_is_one_letter_or_a_swap() -> None:
    pairs = [("abc", "abc"), ("abc", "abcd"), ("abc", "bc"), ("abcd", "abdc"), ("abcd", "axcy"), ("ab", "abcd")]
    assert [one_edit(*pair) for pair in pairs] == [None, 3, 0, 2, None, None]
