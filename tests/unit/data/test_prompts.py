"""Rows into prompts, and JSON lines. Not covered: tokenisation (test_tokenizer.py), other formats (test_tables.py)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlpost.data.jsonl import read_jsonl
from rlpost.data.prompts import to_prompts
from rlpost.errors import DataError
from rlpost.types import Message


def one_line(caught: pytest.ExceptionInfo[DataError]) -> str:
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_jsonl_rows_in_order_with_blank_lines_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "∀"}\n\n  \n{"prompt": "b", "n": 1}\n', encoding="utf-8")
    assert read_jsonl(str(file)) == [{"prompt": "∀"}, {"prompt": "b", "n": 1}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": 1}\n{"a": \n', ":2: not valid JSON"),
        ('{"a": 1}\n\n[1]\n', ":3: expected a JSON object, got list"),
        ("3\n", ":1: expected a JSON object, got int"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text(text)
    with pytest.raises(DataError) as caught:
        read_jsonl(str(file))
    assert one_line(caught).startswith(f"{file}{expected}")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x1c"])
def test_only_a_newline_ends_a_line(tmp_path: Path, separator: str) -> None:
    """JSON allows these characters inside a string, and ``ensure_ascii=False`` writes most of them as they are."""
    file = tmp_path / "a.jsonl"
    row = {"prompt": f"one{separator}two"}
    written = json.dumps(row, ensure_ascii=False).replace("\\u001c", separator)
    file.write_text(written + "\n", encoding="utf-8")
    if separator == "\x1c":  # JSON requires control characters to be escaped: the line itself is wrong
        with pytest.raises(DataError, match=":1: not valid JSON"):
            read_jsonl(str(file))
    else:
        assert read_jsonl(str(file)) == [row]


def test_carriage_returns_of_another_system_are_no_part_of_a_row(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"a": 1}\r\n{"a": 2}\r\n')
    assert read_jsonl(str(file)) == [{"a": 1}, {"a": 2}]


def test_a_file_in_another_encoding_is_refused_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.jsonl"
    file.write_bytes(b'{"prompt": "caf\xe9"}\n')
    with pytest.raises(DataError) as caught:
        read_jsonl(str(file))
    assert "UTF-8" in one_line(caught)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.jsonl: no such file"):
        read_jsonl(str(tmp_path / "absent.jsonl"))


def test_text_prompts_keep_every_column_and_are_numbered_without_ids() -> None:
    rows = [{"prompt": "a", "answer": 1}, {"prompt": "b", "answer": 2}]
    prompts = to_prompts(rows)
    assert [(p.id, p.text, p.columns["answer"]) for p in prompts] == [("0", "a", 1), ("1", "b", 2)]


def test_ids_become_text() -> None:
    assert [p.id for p in to_prompts([{"id": 7, "prompt": "a"}, {"id": "x", "prompt": "b"}])] == ["7", "x"]


def test_an_absent_id_is_the_row_number_also_where_a_column_of_nulls_says_so() -> None:
    """In Parquet every row has every column: a missing id is None."""
    assert [p.id for p in to_prompts([{"id": None, "prompt": "a"}, {"id": None, "prompt": "b"}])] == ["0", "1"]


def test_a_template_is_filled_and_double_braces_are_braces() -> None:
    [prompt] = to_prompts([{"statement": "p → p", "n": 3}], template="theorem t{n} : {statement} := {{by}}")
    assert prompt.text == "theorem t3 : p → p := {by}"


def test_braces_in_a_column_are_left_alone() -> None:
    [prompt] = to_prompts([{"s": "{x} {{y}} {"}], template="{s}!")
    assert prompt.text == "{x} {{y}} {!"


def test_a_chat_template_makes_messages() -> None:
    [prompt] = to_prompts([{"q": "1+1"}], chat_template=[("system", "Be brief."), ("user", "{q}=?")])
    assert prompt.messages == (Message("system", "Be brief."), Message("user", "1+1=?"))
    assert prompt.text is None


def test_a_column_of_messages_is_a_chat() -> None:
    [prompt] = to_prompts([{"prompt": [{"role": "user", "content": "hi", "name": "Ann", "extra": None}]}])
    assert prompt.messages == (Message("user", "hi", {"name": "Ann"}),)


@pytest.mark.parametrize(
    ("rows", "options", "expected"),
    [
        ([], {}, "train: no rows"),
        ([{"id": 1, "prompt": "a"}, {"id": "1", "prompt": "b"}], {}, "train, row 1: id '1' is given twice"),
        ([{"question": "a", "x": 1}], {}, "train, row 0: no column 'prompt' (there are question, x)"),
        ([{"prompt": 3}], {}, "train, row 0: column 'prompt' holds 3, expected text or a list of chat messages"),
        ([{"prompt": []}], {}, "column 'prompt' holds []"),
        ([{"prompt": None}], {}, "column 'prompt' holds None"),
        ([{"prompt": [{"role": "user"}]}], {}, "expected a mapping with role and content"),
        ([{"prompt": ["hi"]}], {}, "holds 'hi', expected a mapping with role and content"),
        ([{"a": 1}], {"template": "{b}"}, "train, row 0: the template asks for 'b', columns are a"),
        ([{"a": 1}], {"chat_template": [("user", "{b}")]}, "the template asks for 'b'"),
        ([{"a": 1}], {"template": "{}"}, "the template asks for ''"),
        ([{"a": 1}], {"template": "{a.b}"}, "the template asks for 'a.b'"),
    ],
)
def test_a_bad_row_is_named_in_one_line(rows: list[dict[str, Any]], options: dict[str, Any], expected: str) -> None:
    with pytest.raises(DataError) as caught:
        to_prompts(rows, where="train", **options)
    assert expected in one_line(caught)


@pytest.mark.parametrize("template", ["{a", "a}", "{a!z}", "{a:d}", "{a:{b}}"])
def test_a_broken_template_is_the_users_mistake_and_says_so_in_one_line(template: str) -> None:
    """Lean and LaTeX are full of braces: forgetting to double one is the most common mistake."""
    with pytest.raises(DataError) as caught:
        to_prompts([{"a": "x"}], template=template, where="train")
    assert "template" in one_line(caught)
