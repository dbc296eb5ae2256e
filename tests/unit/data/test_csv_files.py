"""CSV files as people have them."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rlpost.config.schema import DataSection
from rlpost.data.csv_files import read_csv
from rlpost.data.load import prompts
from rlpost.errors import DataError


def written(tmp_path: Path, data: str | bytes, name: str = "a.csv") -> str:
    file = tmp_path / name
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return str(file)


@pytest.mark.parametrize(("data", "name", "expected"), [
    ("q,a\n2+2,4\n", "a.csv", [{"q": "2+2", "a": "4"}]),
    ("\ufeffq,a\r\n2+2,4\r\n", "a.csv", [{"q": "2+2", "a": "4"}]),
    ('q,a\n"1, 2\nand 3",6\n', "a.csv", [{"q": "1, 2\nand 3", "a": "6"}]),
    ('q,a\n"say ""hi""",1\n', "a.csv", [{"q": 'say "hi"', "a": "1"}]),
    ("q\ta\n1,5\t2\n", "a.tsv", [{"q": "1,5", "a": "2"}]),
    ("q,a\n\nx,007\n\n", "a.csv", [{"q": "x", "a": "007"}]),
    ("q, a\nx, 1\n", "a.csv", [{"q": "x", "a": " 1"}]),
    ("q,a\nx,\n", "a.csv", [{"q": "x", "a": None}]),
    ("q\nnur 1;5\n", "a.csv", [{"q": "nur 1;5"}]),
    ("q,a\n" + "x" * 200_000 + ",1\n", "a.csv", [{"q": "x" * 200_000, "a": "1"}]),
])  # fmt: skip
def test_usual_forms(tmp_path: Path, data: str, name: str, expected: list[dict[str, str | None]]) -> None:
    assert read_csv(written(tmp_path, data, name)) == expected


def test_a_delimiter_of_its_own(tmp_path: Path) -> None:
    assert read_csv(written(tmp_path, "q;a\nx;1,5\n"), delimiter=";") == [{"q": "x", "a": "1,5"}]


@pytest.mark.parametrize(("data", "said"), [
    ("q,a\n1, 2,6\n", r":2: 3 cells, and the first line names 2"),
    ("q,a\nonly\n", r":2: 1 cells"),
    ('q,a\n"open,1\n', "not valid CSV"),
    ('q,a\n"x"y,1\n', r":2: not valid CSV"),
    ("q,q\n1,2\n", "'q' is named twice"),
    ("q,,a\n1,2,3\n", "column 2 has no name"),
    ("q;a\nx;1\n", "separated by a semicolon"),
    ("q\ta\nx\t1\n", "separated by a tab"),
    ("q,a\nAmélie,1\n".encode("latin-1"), "not UTF-8"),
    ("q,a\nx,1\n".encode("utf-16"), "UTF-16"),
    (b"\x1f\x8b\x08abc", "gzip"),
])  # fmt: skip
def test_what_is_wrong_is_one_line(tmp_path: Path, data: str | bytes, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        read_csv(written(tmp_path, data))
    assert "\n" not in str(caught.value)


def test_a_bad_delimiter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="give one character"):
        read_csv(written(tmp_path, "q,a\n"), delimiter=", ")


def test_an_empty_cell_is_no_text(tmp_path: Path) -> None:
    path = written(tmp_path, "question,answer\n2+2?,4\n,5\n")
    section = DataSection(source="csv", train=path, template="{question} =")
    with pytest.raises(DataError, match="row 1: column 'question' holds None"):
        prompts(section, "train")


def test_damaged_files_are_rows_or_one_line(tmp_path: Path) -> None:
    source = random.Random(5)
    whole = 'id,question,answer\n1,"What is 1, and 2?",3\n2,"say ""x""",4\n3,é∑🙂,5\n'.encode()
    for _ in range(200):
        data = bytearray(whole)
        for _ in range(source.randint(1, 4)):
            at = source.randrange(len(data))
            data[at : at + source.randint(0, 3)] = source.choice([b"", b'"', b",", b"\n", b"\0", b"\r", b"\xff", b";"])
        try:
            rows = read_csv(written(tmp_path, bytes(data)))
        except DataError as error:
            assert "\n" not in str(error)  # noqa: PT017
        else:
            assert all(value is None or isinstance(value, str) for row in rows for value in row.values())
