"""What title cells of real catalogs say. Not covered: encodings of files (test_catalog_files.py)."""

from __future__ import annotations

from typing import Any

import pytest

from rlpost_verifiers.catalog.cells import clean_title, further_names, split_year
from rlpost_verifiers.catalog.index import CatalogIndex
from rlpost_verifiers.catalog.items import catalog_of


def read(raw: Any, year: Any = None) -> tuple[str, int | None, list[str]]:
    title = clean_title(raw, lambda *_: None)
    assert title is not None
    stem, found = split_year(title, year, lambda *_: None)
    return stem, found, further_names(raw, stem, found)


@pytest.mark.parametrize(
    ("raw", "title", "year", "names"),
    [
        ("Toy Story (1995)", "Toy Story", 1995, []),
        ("Lost (2004-2010)", "Lost", 2004, ["Lost (2004-2010)"]),
        ("Lost (2004–)", "Lost", 2004, ["Lost (2004–)"]),
        ("Crash (2004/I)", "Crash", 2004, ["Crash (2004/I)"]),
        ("Merlin (1998) (TV)", "Merlin", 1998, ["Merlin (1998) (TV)"]),
        ("The Office (TV Series 2005–2013)", "The Office", 2005, ["The Office (TV Series 2005–2013)"]),
        ("Alien (1979 film)", "Alien", 1979, ["Alien (1979 film)"]),
        ("Seven (a.k.a. Se7en) (1995)", "Seven (a.k.a. Se7en)", 1995, ["Seven", "Se7en"]),
        ("Postman, The (Postino, Il) (1994)", "Postman, The (Postino, Il)", 1994, ["Postman, The", "Postino, Il"]),
        ("Nightmare aka Scream (1999)", "Nightmare aka Scream", 1999, ["Nightmare", "Scream"]),
        ("Alien (Director's Cut) (1979)", "Alien (Director's Cut)", 1979, ["Alien"]),
        ("Stone (Harry Potter, #1)", "Stone (Harry Potter, #1)", None, ["Stone"]),
        ("AT&amp;T", "AT&T", None, ["AT&amp;T"]),
        ("<i>Up</i> (2009)", "Up", 2009, ["<i>Up</i> (2009)"]),
        ("AmÃ©lie (2001)", "Amélie", 2001, ["AmÃ©lie (2001)"]),
        ("MÃ\xadsterio", "Místerio", None, ["MÃ\xadsterio"]),
        # goods, and titles that look like what they are not
        ("1984 (Signet Classics)", "1984 (Signet Classics)", None, []),
        ("OK Computer [Vinyl]", "OK Computer [Vinyl]", None, []),
        ("2012 (2009)", "2012", 2009, []),
        ("(2012)", "(2012)", None, []),
        ("(500) Days of Summer (2009)", "(500) Days of Summer", 2009, []),
        ("Blade Runner 2049", "Blade Runner 2049", None, []),
        ("M&Ms; <3", "M&Ms; <3", None, []),
        ("AKA (2002)", "AKA", 2002, []),
        ("Chaka", "Chaka", None, []),
        (")", ")", None, []),
        (21.0, "21", None, []),
    ],
)
def test_title_year_and_further_names(raw: Any, title: str, year: int | None, names: list[str]) -> None:
    assert read(raw) == (title, year, names)


@pytest.mark.parametrize(
    "raw", ["Matrix, The (1999)", "King Kong (1933)", "AT&amp;T", "Lost (2004-2010)", " Up ", "LÈon"]
)
def test_the_files_own_string_is_found(raw: str) -> None:
    index = CatalogIndex(catalog_of([{"title": raw, "year": 2005 if "Kong" in raw else None}]).items)
    assert index.find(raw) is not None


def test_a_year_of_the_string_counts_for_the_string_alone() -> None:
    index = CatalogIndex(catalog_of([{"title": "King Kong (1933)", "year": 2005}]).items, tolerance=0)
    found = [index.find("King Kong", year) is not None for year in (2005, 1933, 1976)]
    assert found == [True, True, False]


@pytest.mark.parametrize("raw", ["Haine, La (1995)", "Avventura, L' (1960)", "Enfants perdus, Les (Lost, The) (1995)"])
def test_foreign_articles_behind_the_title(raw: str) -> None:
    item = catalog_of([{"title": raw}]).items
    asked = {"H": ("La haine", 1995), "A": ("L'avventura", 1960), "E": ("The Lost", 1995)}[raw[0]]
    assert CatalogIndex(item).find(*asked) is not None
