"""Catalog files in the encodings and formats that people have: read right, or refused with one line."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from rlpost.errors import DataError
from rlpost_verifiers.catalog.items import Catalog, load_catalog

FILMS = (
    'movieId,title,genres\n1,"Misérables, Les (1998)",Drama\n2,Amélie (2001),Comedy\n3,Schindler’s List (1993),Drama\n'
)
NAMES = ["Misérables, Les (1998)", "Amélie (2001)", "Schindler’s List (1993)"]


def loaded(folder: Path, name: str, data: bytes) -> Catalog:
    (folder / name).write_bytes(data)
    return load_catalog(str(folder / name))


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"]
)
def test_encodings_are_read(tmp_path: Path, encoding: str) -> None:
    text, wanted = FILMS, NAMES
    if encoding == "latin-1":
        text, wanted = FILMS.replace("’", "'"), [name.replace("’", "'") for name in NAMES]
    catalog = loaded(tmp_path, "films.csv", text.encode(encoding))
    assert [item.name for item in catalog.items] == wanted
    assert [item.id for item in catalog.items] == ["1", "2", "3"]
    assert catalog.defects.counts() == {"year_in_title": 3}


@pytest.mark.parametrize(
    ("encoding", "titles"),
    [
        ("mac_roman", ["Les Misérables", "Amélie"]),
        ("cp1251", ["Иван Васильевич меняет профессию"]),
        ("cp1253", ["Ακούσματα"]),
        ("cp1250", ["Krótki film o miłości", "Dzień świra", "Wałęsa"]),
        ("shift_jis", ["東京物語", "七人の侍"]),
        ("gbk", ["霸王别姬", "活着"]),
        ("euc-kr", ["기생충", "올드보이"]),
    ],
)
def test_encodings_that_cannot_be_told_are_refused(tmp_path: Path, encoding: str, titles: list[str]) -> None:
    text = "title\n" + "\n".join(titles) + "\n"
    with pytest.raises(DataError, match=r"neither UTF-8 nor a Western encoding .* convert it: iconv"):
        loaded(tmp_path, "films.csv", text.encode(encoding))
    assert [item.title for item in loaded(tmp_path, "films.csv", text.encode()).items] == titles


def test_a_line_in_another_encoding_is_read_and_reported(tmp_path: Path) -> None:
    catalog = loaded(tmp_path, "films.csv", FILMS.encode() + "4,Café (2002),x\n".encode("latin-1"))
    assert catalog.items[3].name == "Café (2002)"
    assert [(one.row, one.value) for one in catalog.defects if one.reason == "line_not_utf8"] == [
        (3, "4,Café (2002),x")
    ]


@pytest.mark.parametrize(
    ("name", "data", "wanted"),
    [
        ("a.csv", b"id;title;year\r\n1;Alien;1979\r\n2;Up;2009\r\n", ["Alien (1979)", "Up (2009)"]),
        ("a.csv", b"title\rAlien\rUp\r", ["Alien", "Up"]),
        ("a.csv", b'id,title,plot\n1,Alien,"a\nb, c"\n2,"Say ""Hi""",x\n', ["Alien", 'Say "Hi"']),
        ("a.csv", b'id,title,plot\n1,Alien,x\n2,Up,"unclosed\n3,Down,x\n', ["Alien", "Up", "Down"]),
        ("a.csv", b"title,year\nAl\0ien,1979\n", ["Alien (1979)"]),
        ("a.jsonl", b'{"title":"Al\0ien","year":1979}\n', ["Alien (1979)"]),
        ("a.tsv", b'tconst\tprimaryTitle\tstartYear\ntt1\t"Rome\t2005\ntt2\tUp\t\\N\n', ['"Rome (2005)', "Up"]),
        ("a.json", b'[{"title":"Alien"},\n {"title":"Up"}]', ["Alien", "Up"]),
        ("a.jsonl", b"{'asin': 'B1', 'title': \"Bob's\"}\n{'asin': 'B2', 'title': 'Up'}\n", ["Bob's", "Up"]),
        ("a.jsonl.gz", gzip.compress(b'{"title":"Alien"}\n', mtime=0), ["Alien"]),
        ("a.jsonl", b'{"title":"Up \\ud83d"}\n{"title":"Down \\ud83d\\ude00"}\n', ["Up \ufffd", "Down 😀"]),
        ("a.csv", b"title\nAlien\n", ["Alien"]),
        ("a.csv", b"title\n)\n", [")"]),
        ("a.csv", b"sep=;\r\nTitle;Year\r\nAlien;1979\r\n", ["Alien (1979)"]),
        ("a.csv", b'"ISBN";"Book-Title"\n"1";"Flu: \\"The\\" Story"\n"2";"Up"\n', ['Flu: "The" Story', "Up"]),
        ("a.csv", b"Nr;Titel;Jahr\n1;Das Fest;1998\n", ["Das Fest (1998)"]),
        ("a.csv", "片名,年份\n活着,1994\n".encode(), ["活着 (1994)"]),
        (
            "a.dat",
            b"1::Up (2009)::Drama\n2::Mis\xe9rables, Les (1995)::Drama|War\n",
            ["Up (2009)", "Misérables, Les (1995)"],
        ),
        (
            "u.item",
            b"1|Up (2009)|01-Jan-2009||http://a|0|0\n2|Her (2013)|01-Jan-2013||http://b|0|0\n",
            ["Up (2009)", "Her (2013)"],
        ),
        (
            "a.txt",
            b"1,2003,Dinosaur Globe\n2,NULL,Up\n3,1997,Character, or Not\n",
            ["Dinosaur Globe (2003)", "Up", "Character, or Not (1997)"],
        ),
        (
            "a.json",
            b'{"applist": {"apps": [{"appid": 5, "name": "Hades"}, {"appid": 7, "name": "Portal"}]}}',
            ["Hades", "Portal"],
        ),
        ("a.json", b'{\n "730": {"name": "Hades"},\n "570": {"name": "Portal"}\n}', ["Hades", "Portal"]),
        ("a.json", b'{\n "title": "Alien",\n "year": 1979\n}', ["Alien (1979)"]),
        (
            "a.csv",
            b"title,year\nAlien,1979\nAl\x81ens,1986\nUp,2009\n",
            ["Alien (1979)", "Al\ufffdens (1986)", "Up (2009)"],
        ),
        ("a.jsonl", '{"title":"Бег"}\n'.encode() + b'{"title":"Caf\xe9"}\n', ["Бег", "Café"]),
    ],
)
def test_formats_are_read(tmp_path: Path, name: str, data: bytes, wanted: list[str]) -> None:
    assert [item.name for item in loaded(tmp_path, name, data).items] == wanted


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.csv", b"title,title\na,b\n", "column 'title' is there twice"),
        ("a.csv", b"Title,title\na,b\n", "columns 'Title' and 'title' for title; name one"),
        ("a.csv", b"a,b\n1,2\n", r"no column for the title \(there are a, b\)"),
        ("a.csv", b"title,year\n", "no row that can be read"),
        ("a.csv", b"\n \n", "an empty file"),
        ("a.dat", b"m1::Toy Story::Animation\n", "no row that can be read"),
        ("a.csv", b"PK\x03\x04xx", "a zip archive"),
        ("a.jsonl.gz", gzip.compress(b'{"title":"Alien"}\n', mtime=0)[:20], "cannot be read"),
        ("a.json", b'[{"title":"Alien"},', "not valid JSON"),
        ("a.jsonl", b'{"title":null}\n', "no usable item in 1 rows"),
        ("a.jsonl", b'{"title":"Up","year":' + b"9" * 5000 + b"}\n", "no row that can be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        loaded(tmp_path, name, data)
    assert "\n" not in str(caught.value)


def test_files_without_names_of_columns_have_ids(tmp_path: Path) -> None:
    old = loaded(tmp_path, "movies.dat", b"7::Up (2009)::Drama\n9::Her (2013)::Drama\n")
    assert [(item.id, item.attributes) for item in old.items] == [
        ("7", {"column 3": "Drama"}),
        ("9", {"column 3": "Drama"}),
    ]
    apps = loaded(tmp_path, "games.json", b'{"730": {"name": "Hades"}, "570": {"name": "Portal"}}')
    assert [item.id for item in apps.items] == ["730", "570"]


def test_papers_are_not_dated_by_their_last_change(tmp_path: Path) -> None:
    papers = loaded(tmp_path, "a.jsonl", b'{"id":"1706.1","title":"Attention","update_date":"2023-08-03"}\n')
    assert papers.items[0].year is None


def test_columns_have_their_usual_names(tmp_path: Path) -> None:
    tmdb = loaded(
        tmp_path, "t.csv", "id,original_title,title,release_date\n9,千と千尋,Spirited Away,2001-07-20\n".encode()
    )
    assert (tmdb.items[0].id, tmdb.items[0].name, tmdb.items[0].aliases) == ("9", "Spirited Away (2001)", ("千と千尋",))
    goods = loaded(tmp_path, "g.jsonl", b'{"title":"Cup","parent_asin":"B1","price":2}\n')
    assert (goods.items[0].id, goods.items[0].attributes) == ("B1", {"price": 2})
    games = loaded(tmp_path, "s.jsonl", '{"app_name":"Half-Life™ 2","appid":220.0}\n'.encode())
    assert (games.items[0].id, games.items[0].title) == ("220", "Half-Life™ 2")
    with pytest.raises(DataError, match="columns names 'titel'; give title, year, aliases or id"):
        load_catalog(str(tmp_path / "g.jsonl"), {"titel": "title"})
