"""What reading a catalog leaves out to be fast changes nothing: each shortcut against the long way, over random texts
of the characters that matter. Does not cover the long ways themselves (test_catalog_names, test_catalog_cells).
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from rlpost_verifiers.catalog import cells, items, names, shortened
from rlpost_verifiers.catalog.building import Builder, _Blob
from rlpost_verifiers.catalog.items import load_catalog

PIECES = [
    *(
        "Alien",
        "or",
        "Or",
        "The",
        "the",
        "a",
        "an",
        "AKA",
        "a.k.a.",
        "also known as",
        "x",
        "300",
        "É",
        "ば",
        "ſ",
        "K",
        "ı",
    ),
    *(
        " ",
        " ",
        " ",
        ":",
        "：",
        "-",
        " - ",
        "–",
        "—",
        "\t",
        "\n",
        "\xa0",
        "\u3000",
        "&",
        "<i>",
        "#",
        "+",
        ",",
        "'",
        "’",
    ),
    *("(", ")", "$", "\u200b", "\ud800", "\x00", "  ", "_", "İ", "²"),
]


def texts(count: int = 20_000) -> list[str]:
    rng = random.Random(0)
    return ["".join(rng.choices(PIECES, k=rng.randint(0, 7))) for _ in range(count)]


def test_a_title_without_signs_of_parts_has_none() -> None:
    skipped = [text for text in texts() if not shortened._SHORTER.search(text)]
    assert len(skipped) > 5000
    assert all(len(shortened._PARTS.split(text)) == 1 for text in skipped)


def test_keys_of_canonical_forms() -> None:
    for text in texts():
        form = names.canonical(text)
        assert names.key_of_canonical(form) == names.key_of(form), text
        assert shortened.shorter_names(text, form) == shortened.shorter_names(text)


def test_words_of_plain_ascii_titles() -> None:
    for text in texts():
        if text.isascii() and not set(",#+") & set(text):
            words = text.lower().translate(names._ASCII).split()
            article = words[0] if len(words) > 1 and words[0] in ("the", "a", "an") else ""
            key = " ".join(words[bool(article) :]) or text.strip().casefold()
            assert names.key_of(text) == (key, article)


def test_plain_titles_have_nothing_odd() -> None:
    plain = [text for text in texts() if cells._plain(text)]
    assert len(plain) > 1000
    assert not any(cells._ODD.search(text) for text in plain)


def test_titles_that_may_hold_two_names() -> None:
    for text in texts():
        assert items._known_as(text) == (items._KNOWN_AS.search(text) is not None), text


@pytest.mark.parametrize("row", [{}, {"a": None}, {1: "x", None: None}, {"a": 1.5, "b": "x"}, {"a": True, "b": [None]}])
def test_rows_as_json(row: dict) -> None:
    assert items._as_json(row) == json.dumps(row, ensure_ascii=False)


def test_rows_of_texts_as_json() -> None:
    rng = random.Random(1)
    for text in texts(5000):
        row = {text: rng.choice([None, text]), "b": text[::-1], 'quoted "name"\n': None}
        assert items._as_json(row) == json.dumps(row, ensure_ascii=False)


@pytest.mark.parametrize("kept", [True, False])
def test_texts_one_after_the_other(tmp_path: Path, kept: bool) -> None:
    given = texts(2503)
    blob = _Blob(tmp_path / "blob" if kept else None)
    for text in given:
        blob.add(text)
    start, stop = blob.bounds()
    content = blob.close() or (tmp_path / "blob").read_bytes()
    read = [content[a:b].decode("utf-8", "surrogatepass") for a, b in zip(start.tolist(), stop.tolist(), strict=True)]
    assert read == given
    assert blob.read(int(start[7]), int(stop[7])).decode("utf-8", "surrogatepass") == given[7]
    assert (start.dtype, stop.dtype) == (np.uint64, np.uint64)
    assert [len(part) for part in _Blob(None).bounds()] == [0, 0]


def test_names_keep_item_year_and_kind() -> None:
    builder = Builder()
    for number in range(1200):  # more than are hashed at once
        builder.add(number, str(number), f"Film {number}: The End", 1870 + number % 160, [f"Also {number}"], "")
    store = builder.finish()
    assert store.names("film 1199 the end") == [(1199, 1870 + 1199 % 160, 0)]
    assert store.names("film 1199") == [(1199, 1870 + 1199 % 160, 8)]
    assert store.names("also 1199") == [(1199, 1870 + 1199 % 160, 4)]
    assert len(store.names("end")) == 1200


def test_a_movielens_file(tmp_path: Path) -> None:
    file = tmp_path / "movies.csv"
    file.write_text(
        'movieId,title,genres\n1,"Haine, La (1995)",Drama\n2,"Seven (a.k.a. Se7en) (1995)",\n'
        '3,"Postman, The (Postino, Il) (1994)",Drama|Comedy\n4,Up (2009),\\N\n\n5,"Star Wars: Episode IV - A New Hope (1977)",Action\n',
        encoding="utf-8",
    )
    catalog = load_catalog(str(file))
    assert [(one.id, one.name, one.aliases) for one in catalog.items] == [
        ("1", "Haine, La (1995)", ()),
        ("2", "Seven (a.k.a. Se7en) (1995)", ("Seven", "Se7en")),
        ("3", "Postman, The (Postino, Il) (1994)", ("Postman, The", "Postino, Il")),
        ("4", "Up (2009)", ()),
        ("5", "Star Wars: Episode IV - A New Hope (1977)", ()),
    ]
    assert [dict(one.attributes) for one in catalog.items][1:4] == [
        {"genres": None},
        {"genres": "Drama|Comedy"},
        {"genres": None},
    ]
