"""What becomes text, and what is refused. Not covered: chats (test_messages.py)."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rlpost.data.prompts import to_prompts
from rlpost.data.text import as_text
from rlpost.errors import DataError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("x", "x"),
        ("", ""),
        (np.str_("x"), "x"),
        (3, "3"),
        (-7, "-7"),
        (10**30, "1" + "0" * 30),
        (0.1, "0.1"),
        (5.0, "5.0"),
        (-0.5, "-0.5"),
        (1e-05, "0.00001"),
        (1.5e-7, "0.00000015"),
        (1e16, "10000000000000000.0"),
        (123456789.125, "123456789.125"),
        (1e300, "1e+300"),
        (np.int64(3), "3"),
        (np.uint8(255), "255"),
        (np.float32(0.1), "0.1"),
        (np.float64(0.1), "0.1"),
        (np.float16(0.5), "0.5"),
        (Decimal("3.50"), "3.50"),
        (Decimal("1E-7"), "0.0000001"),
        (json.loads("1e-3"), "0.001"),
        (json.loads("2.50"), "2.5"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: Any, expected: str) -> None:
    assert as_text(value, "here") == expected


NO_TEXT = [
    None, float("nan"), float("inf"), -float("inf"), np.float64("nan"), Decimal("NaN"), Decimal("Infinity"), b"x",
    bytearray(b"x"), [], ["a"], {}, {"a": 1}, ("a",), {"a"}, np.array([1, 2]), pd.NA, pd.NaT, pd.Timestamp("2024-01-01"),
    datetime.date(2024, 1, 1), 1j, Fraction(1, 3), object, 10**5000,
]  # fmt: skip


@pytest.mark.parametrize("value", NO_TEXT, ids=lambda value: str(type(value).__name__))
def test_what_is_no_text_is_refused_with_row_and_column_in_one_line(value: Any) -> None:
    with pytest.raises(DataError) as caught:
        to_prompts([{"q": "fine"}, {"q": value}], template="{q} =", where="data.train")
    assert str(caught.value).startswith("data.train, row 1: column 'q' holds")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("value", [True, False, np.bool_(True)])
def test_truth_values_are_refused_because_people_write_them_in_several_ways(value: Any) -> None:
    with pytest.raises(DataError, match=r"column 'q' holds (True|False).*write it as text"):
        to_prompts([{"q": value}], template="{q}")


def test_columns_stay_as_they_are() -> None:
    row = {"q": 1e-05, "answer": None, "extra": [1, None]}
    [prompt] = to_prompts([row], template="{q}?")
    assert prompt.text == "0.00001?"
    assert prompt.columns == row


def test_a_format_of_the_templates_own_is_kept() -> None:
    [prompt] = to_prompts([{"price": 3.14159, "n": 7}], template="{price:.2f} {n:03d} {n!r}")
    assert prompt.text == "3.14 007 7"
    with pytest.raises(DataError, match="column 'price' holds None"):
        to_prompts([{"price": None}], template="{price:>10}")


@pytest.mark.parametrize("text", ["\ud83d", "a \udc00 b", "\ud83d x \ude00", json.loads('"\\ud83d"')])
@pytest.mark.parametrize("row", [{"prompt": "T"}, {"prompt": [{"role": "user", "content": "T"}]}, {"q": "T"}])
def test_half_a_character_is_refused_wherever_it_stands(text: str, row: dict[str, Any]) -> None:
    [given] = [{key: text if one == "T" else [{**one[0], "content": text}] for key, one in row.items()}]
    with pytest.raises(DataError, match=r"data, row 0: column '\w+'.*lone surrogate"):
        to_prompts([given], template="{q}" if "q" in row else None)


def test_whole_characters_outside_the_basic_plane_are_fine() -> None:
    assert to_prompts([{"prompt": json.loads('"\\ud83d\\ude42"')}])[0].text == "🙂"


@pytest.mark.parametrize("text", ["", " ", "\n\t", "\u00a0"])
def test_an_empty_prompt_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="row 0: the prompt is empty"):
        to_prompts([{"prompt": text}])
    with pytest.raises(DataError, match="row 0: the prompt is empty"):
        to_prompts([{"q": text}], template="{q}")
    assert to_prompts([{"q": text}], template="Q: {q}")[0].text == f"Q: {text}"


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ([1, 2], ["1", "2"]),
        ([None, None], ["0", "1"]),
        ([float("nan"), "x"], ["0", "x"]),
        ([1.0, "1"], ["1.0", "1"]),
        ([np.int64(4), "b"], ["4", "b"]),
    ],
)
def test_ids_are_text(ids: list[Any], expected: list[str]) -> None:
    assert [p.id for p in to_prompts([{"id": one, "prompt": "x"} for one in ids])] == expected


@pytest.mark.parametrize("ids", [[1, "1"], [1.0, "1.0"], ["1", None], [np.int64(0), 0]])
def test_equal_ids_are_refused_however_they_are_written(ids: list[Any]) -> None:
    with pytest.raises(DataError, match=r"row 1: id .* is given twice"):
        to_prompts([{"id": one, "prompt": "x"} for one in ids])


@pytest.mark.parametrize("one", [[1], {"a": 1}, True, b"x", "\ud83d"])
def test_an_id_that_is_no_text_is_refused(one: Any) -> None:
    with pytest.raises(DataError, match="row 0: column 'id'"):
        to_prompts([{"id": one, "prompt": "x"}])


@pytest.mark.parametrize("template", ["{}", "{0}", "f(x) = {x + 1}", "\\frac{a b}{2}"])
def test_braces_that_are_no_field_are_told_how_to_be_written(template: str) -> None:
    with pytest.raises(DataError, match=r"\{\{ and \}\}"):
        to_prompts([{"a": "x"}], template=template)
