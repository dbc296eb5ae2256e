"""Looking titles up. Not covered: how fast (scripts/bench_catalog.py)."""

from __future__ import annotations

import random

import pytest
from rapidfuzz import fuzz

from rlpost_verifiers.catalog.index import CatalogIndex, Match
from rlpost_verifiers.catalog.items import Item
from rlpost_verifiers.catalog.names import canonical

ITEMS = [
    Item("0", "King Kong", 1933), Item("1", "King Kong", 1976), Item("2", "King Kong", 2005),
    Item("3", "The Thing", 1982), Item("4", "Undated", None), Item("5", "300", 2006),
    Item("6", "Amélie", 2001, ("Le Fabuleux Destin d'Amélie Poulain",)), Item("7", "Solaris", 1972),
    Item("8", "Solaris", 1974), Item("9", "The Lord of the Rings: The Two Towers", 2002),
]  # fmt: skip


@pytest.mark.parametrize(
    ("title", "year", "expected"),
    [
        ("king kong", 1933, Match(0, "exact")),
        ("King Kong", 1977, Match(1, "year")),
        ("King Kong", 1990, None),
        ("King Kong", None, None),  # three of them
        ("Thing, The", 1983, Match(3, "year")),
        ("Thing", None, Match(3, "title")),
        ("Undated", 1950, Match(4, "title")),
        ("300", 2006, Match(5, "exact")),
        ("le fabuleux destin d'amelie poulain", 2001, Match(6, "exact")),
        ("Solaris", 1973, None),  # equally near to both
        ("Solaris", 1971, Match(7, "year")),
        ("Nothing", 2000, None),
    ],
)
def test_levels_by_hand(title: str, year: int | None, expected: Match | None) -> None:
    assert CatalogIndex(ITEMS, tolerance=2).find(title, year) == expected


def test_without_tolerance_the_year_must_be_right() -> None:
    index = CatalogIndex(ITEMS, tolerance=0)
    assert index.find("King Kong", 1977) is None
    assert index.find_all([("King Kong", 1976), ("300", 2005)]) == [Match(1, "exact"), None]


def test_a_misspelt_title_is_found_only_with_a_similarity_limit() -> None:
    slip = "The Lord of the Rings: The Too Towers"
    assert CatalogIndex(ITEMS).find(slip, 2002) is None
    found = CatalogIndex(ITEMS, similarity=90.0).find(slip, 2002)
    assert found is not None
    assert (found.item, found.level) == (9, "fuzzy")
    assert found.score == pytest.approx(fuzz.ratio(canonical(slip), canonical(ITEMS[9].title)))
    assert CatalogIndex(ITEMS, similarity=90.0).find(slip, 1990) is None
    assert CatalogIndex(ITEMS, similarity=99.0).find(slip, 2002) is None


def test_films_that_differ_by_an_article_stay_two() -> None:
    items = [
        Item("0", "The Hunt", 2012),
        Item("1", "Hunt", 2012),
        Item("2", "A Hunt", 2012),
        Item("3", "The Kid", 1921),
    ]
    index = CatalogIndex(items)
    found = [index.find(title, 2012) for title in ("The Hunt", "Hunt, The", "hunt", "A Hunt", "An Hunt")]
    assert [match and match.item for match in found] == [0, 0, 1, 2, None]
    assert index.find("Kid", 1921) == index.find("A Kid", 1921) == Match(3, "exact")
    assert index.sharing("hunt") == [0, 1, 2]


def test_a_title_goes_before_an_alias() -> None:
    items = [
        Item("0", "Hero (Ying xiong)", 2002, ("Hero", "Ying xiong")),
        Item("1", "Hero", 2002),
        Item("2", "Solo", None),
    ]
    index = CatalogIndex([*items, Item("3", "Solo", 2018)])
    assert [index.find(title, 2002) for title in ("Hero", "Ying xiong")] == [Match(1, "exact"), Match(0, "exact")]
    assert index.find("Solo") == Match(2, "title"), "without a year: the item that has none"
    assert index.find("Solo", 2018) == Match(3, "exact")


def test_a_year_in_the_title_counts() -> None:
    assert CatalogIndex(ITEMS).find("King Kong (1976)") == Match(1, "exact")


def test_shortened_names_and_ids_are_found_where_the_policy_says_so() -> None:
    goods = [
        Item("B1", "Logitech Mouse - Black", None), Item("B2", "Logitech Mouse - Grey", None),
        Item("B3", "1984 (Signet Classics)", None), Item("B4", "The Hobbit: Or There and Back Again", None),
    ]  # fmt: skip
    asked = ["1984", "The Hobbit", "Logitech Mouse", "Hob", "B3"]
    assert CatalogIndex(goods).find_all([(title, None) for title in asked]) == [None] * 5
    found = CatalogIndex(goods, prefix=True, ids=True).find_all([(title, None) for title in asked])
    assert found == [Match(2, "prefix"), Match(3, "prefix"), None, None, Match(2, "id")]


def test_titles_with_other_numbers_are_not_similar() -> None:
    items = [Item("0", "Adventures of Rocky II", 1979), Item("1", "Adventures of Toys 3", 2010)]
    index = CatalogIndex(items, similarity=80.0)
    assert index.find("Adventures of Rocky III", 1979) is None
    assert index.find("Adventures of Toys 4", 2010) is None
    assert index.find("Adventurs of Rocky II", 1979) is not None


def test_a_title_equally_similar_to_two_items_matches_neither() -> None:
    items = [Item("0", "Return to Planet Alpha", 2000), Item("1", "Return to Planet Alphe", 2000)]
    assert CatalogIndex(items, similarity=90.0).find("Return to Planet Alphi", 2000) is None


def test_slips_are_found_as_a_search_of_everything_finds_them() -> None:
    rng = random.Random(1)
    words = ["".join(rng.choices("abcdefghiklmnoprstu", k=rng.randint(3, 8))) for _ in range(300)]
    titles = list({" ".join(rng.choices(words, k=rng.randint(2, 5))) for _ in range(2000)})
    items = [Item(str(i), title, 2000) for i, title in enumerate(titles)]
    index = CatalogIndex(items, similarity=85.0)
    agreed = 0
    for title in rng.sample(titles, 200):
        place = rng.randrange(len(title))
        asked = title[:place] + rng.choice("abcdef") + title[place + 1 :]
        scores = sorted(((fuzz.ratio(canonical(asked), canonical(t)), t) for t in titles), reverse=True)
        best = scores[0] if scores[0][0] >= 85.0 and scores[0][0] > scores[1][0] else None
        found = index.find(asked, 2000)
        agreed += (None if found is None else titles[found.item]) == (None if best is None else best[1])
    assert agreed >= 197
