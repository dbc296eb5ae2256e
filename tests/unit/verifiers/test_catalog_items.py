"""Catalogs with planted defects: each is reported, none crashes, nothing is dropped silently."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from rlpost.errors import DataError
from rlpost_verifiers.catalog.items import DEFECTS, LEFT_OUT, catalog_of, load_catalog

PLANTED: list[tuple[object, str | None]] = [
    ({"title": "Alien", "year": 1979}, None),
    ({"title": "Alien", "year": 1979}, "duplicate"),
    ({"title": "ALIEN", "year": "1979-05-25"}, "duplicate"),
    ({"title": "Alien, The", "year": 1979.0}, None),
    ({"title": "The Alien", "year": "1979"}, "duplicate"),
    ({"title": None, "year": 1979}, "no_title"),
    ({"year": 1979}, "no_title"),
    ({"title": "", "year": 1979}, "no_title"),
    ({"title": " \t", "year": 1979}, "no_title"),
    ({"title": "\u200b\u200b", "year": 1979}, "no_title"),
    ({"title": 300, "year": 2006}, "title_not_text"),
    ({"title": 21.0, "year": 2008}, "title_not_text"),
    ({"title": ["Up"], "year": 2009}, "title_not_usable"),
    ({"title": True, "year": 2009}, "title_not_usable"),
    ({"title": "x" * 600, "year": 2009}, "title_too_long"),
    ({"title": "Two  spaces", "year": 2001}, "title_untidy"),
    ({"title": "zero\u200bwidth", "year": 2001}, "title_untidy"),
    ({"title": "Line\nbreak", "year": 2001}, "title_untidy"),
    ({"title": "LÈon", "year": 1994}, "title_misread"),
    ({"title": "AmÃ©lie", "year": 2001}, "title_misread"),
    ({"title": "Lolita (1962)", "year": None}, "year_in_title"),
    ({"title": "Metropolis (2002)", "year": 2002}, "year_in_title"),
    ({"title": "King Kong (1933)", "year": 2005}, "years_differ"),
    ({"title": "Undated", "year": None}, "no_year"),
    ({"title": "Undated too"}, "no_year"),
    ({"title": "When", "year": "tba"}, "year_not_usable"),
    ({"title": "Early", "year": 201}, "year_not_usable"),
    ({"title": "Late", "year": "Dec 31 2046"}, "year_mended"),
    ({"title": "Other names", "year": 1990, "aliases": ["fine", 7]}, "alias_not_usable"),
    ({"title": "Twice", "year": 1991, "id": "same"}, None),
    ({"title": "Thrice", "year": 1992, "id": "same"}, "id_twice"),
    ({"title": "Tom &amp; Jerry", "year": 1992}, "title_html"),
    ({"title": "Ta\ufffd", "year": 1992}, "title_damaged"),
    ("no object", "unreadable"),
    ("{broken", "unreadable"),
    ({"title": "300", "year": 2014}, None),
    ({"title": "Alien", "year": 2003}, None),
]


@pytest.fixture
def planted(tmp_path: Path) -> str:
    lines = [row if isinstance(row, str) else json.dumps(row) for row, _ in PLANTED]
    (tmp_path / "catalog.jsonl").write_text("\n".join(lines) + "\n\n")
    return str(tmp_path / "catalog.jsonl")


def test_every_planted_defect_is_reported_with_its_row_and_nothing_else(planted: str) -> None:
    found = load_catalog(planted)
    expected = [(row, reason) for row, (_, reason) in enumerate(PLANTED) if reason is not None]
    assert len(expected) >= 30
    assert [(defect.row, defect.reason) for defect in found.defects] == expected
    assert {reason for _, reason in expected} == set(DEFECTS) - {"line_not_utf8"}
    left_out = Counter(reason in LEFT_OUT for _, reason in expected)[True]
    assert len(found.items) == len(PLANTED) - left_out
    assert "3 duplicate" in found.summary()


def test_kept_items_are_repaired(planted: str) -> None:
    names = {item.name for item in load_catalog(planted).items}
    assert {"300 (2006)", "300 (2014)", "21 (2008)", "Two spaces (2001)", "zerowidth (2001)", "Léon (1994)"} <= names
    assert {"Amélie (2001)", "Lolita (1962)", "King Kong (2005)", "Undated", "Late (1946)", "Alien (2003)"} <= names
    [other] = [item for item in load_catalog(planted).items if item.title == "Other names"]
    assert other.aliases == ("fine",)
    ids = [item.id for item in load_catalog(planted).items]
    assert len(ids) == len(set(ids))


def test_csv_and_parquet_are_read_alike(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "c.csv").write_text(
        'Movie,Release Date,genre\n"Alien, the first",1979-05-25,horror\nbroken,row\nUp,,\n'
    )
    pq.write_table(
        pa.table(
            {"Movie": ["Alien, the first", "Up"], "Release Date": ["1979-05-25", None], "genre": ["horror", None]}
        ),
        tmp_path / "c.parquet",
    )
    one, two = (load_catalog(str(tmp_path / f"c.{suffix}")) for suffix in ("csv", "parquet"))
    assert [item.name for item in one.items] == [item.name for item in two.items] == ["Alien, the first (1979)", "Up"]
    assert one.items[0].attributes == two.items[0].attributes == {"genre": "horror"}
    assert [(d.row, d.reason) for d in one.defects] == [(1, "unreadable"), (2, "no_year")]


def test_columns_can_be_named_and_missing_ones_are_told() -> None:
    rows = [{"what": "Alien", "when": 1979}]
    assert catalog_of(rows, {"title": "what", "year": "when"}).items[0].name == "Alien (1979)"
    with pytest.raises(DataError, match=r"no column for the title \(there are what, when\)"):
        catalog_of(rows)
    with pytest.raises(DataError, match="no column 'which' for title"):
        catalog_of(rows, {"title": "which"})


def test_a_file_without_items_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        load_catalog(str(tmp_path / "absent.jsonl"))
    (tmp_path / "c.jsonl").write_text('{"title": null}\n')
    with pytest.raises(DataError, match="no usable item in 1 rows"):
        load_catalog(str(tmp_path / "c.jsonl"))
