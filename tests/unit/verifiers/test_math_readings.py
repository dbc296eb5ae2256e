"""What a text is: the grammar of finished numbers, units, intervals, names, and gold answers of every type."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from rlpost_verifiers.math.golds import NoGoldError, gold_text
from rlpost_verifiers.math.names import choice, name
from rlpost_verifiers.math.notation import normal
from rlpost_verifiers.math.numbers import Number, equal, number, rounds
from rlpost_verifiers.math.readings import read
from rlpost_verifiers.math.units import unit_of
from rlpost_verifiers.math.values import Bracketed, Clock, Equation, Formula, Many, Matrix, Range, Union, Words


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("84", 84), ("+7", 7), ("- 7", -7), ("(-7)", -7), ("1,234.5", Fraction(2469, 2)), ("10{,}000", 10000),
        ("10,\\!000", 10000), ("10\\,000", 10000), ("1 000 000", 10**6), (".5", Fraction(1, 2)), ("5.", 5),
        ("\\frac12", Fraction(1, 2)), ("\\tfrac{-1}{3}", Fraction(-1, 3)), ("3/4", Fraction(3, 4)),
        ("3\\frac12", Fraction(7, 2)), ("-1 1/2", Fraction(-3, 2)), ("1.5\\times10^6", 1500000), ("10^{-7}", Fraction(1, 10**7)),
        ("5e3", 5000), ("2.5 \\cdot 10^{-3}", Fraction(1, 400)), ("0.\\overline{3}", Fraction(1, 3)),
        ("0.1\\overline{6}", Fraction(1, 6)), ("\\$18.90", Fraction(189, 10)), ("1.2 million", 1200000), ("3 dozen", 36),
        ("seven", 7), ("2 hours 30 minutes", 9000), ("90^\\circ", 90), ("25 \\text{ cm}^2", 25), ("６", 6),
    ],
)  # fmt: skip
def test_a_finished_number_is_read_exactly(text: str, value: int | Fraction) -> None:
    found = number(normal(text))
    assert found is not None
    assert found.value == value


@pytest.mark.parametrize(
    "text",
    ["12*7", "80+4", "90-6", "4!", "\\sqrt{16}", "84/2", "2^3", "12 \\times 7", "\\frac{168}{2}", "3+\\frac12", "--7",
     "+-7", "12(7)", "7 x", "7x", "5^2 \\text{ cm}^2", "1,23", "10,00", "10 thousand or so", "6 or more", "5 squared",
     "1.2.3", "5 6", "10^{99999}", "3 4/2", "1/0", "e-05", "|5|", "4 \\pm 1"],
)  # fmt: skip
def test_what_is_left_to_be_calculated_is_no_finished_number(text: str) -> None:
    assert number(normal(text)) is None


@pytest.mark.parametrize(
    ("gold", "given", "same"),
    [
        ("50%", "0.5", True), ("50%", "50", True), ("0.5", "50%", True), ("50", "50%", False), ("50", "0.5%", False),
        ("5 cm", "50 mm", True), ("5 cm", "5 m", False), ("5", "5 m", True), ("5 cm", "5", True), ("6 apples", "6 pears", True),
        ("25 cm^2", "25 cm", False), ("30 km/h", "30 km per hour", True), ("\\$2", "200 cents", True), ("\\$2", "2 €", False),
        ("1/3", "0.33", False), ("1/3", "0.333333", True), ("0.0000001", "0.0000002", False), ("0.0000001", "0", False),
        ("10000000", "10000000.4", False), ("10^\\circ\\text{C}", "10^\\circ\\text{F}", False), ("2 hours", "120 min", True),
    ],
)  # fmt: skip
def test_numbers_are_compared_exactly_and_units_where_both_are_known(gold: str, given: str, same: bool) -> None:
    left, right = number(normal(gold)), number(normal(given))
    assert left is not None
    assert right is not None
    assert equal(left, right) is same


def test_a_decimal_stands_for_what_it_rounds_from_six_places_on() -> None:
    assert rounds(Fraction("0.333333"), 6, Fraction(1, 3))
    assert not rounds(Fraction("0.33333"), 5, Fraction(1, 3))
    assert not rounds(Fraction("0.333334"), 6, Fraction(1, 3))
    assert not rounds(Fraction("0.000001"), 6, Fraction(1, 10**6 + 1))


@pytest.mark.parametrize("text", ["apples", "km/h", "square feet", "m/s^2", "cm^{2}", "dollars per day", "°"])
def test_units_and_nouns_may_follow_a_number(text: str) -> None:
    assert unit_of(normal(text)) is not None


@pytest.mark.parametrize("text", ["or more", "thousand", "times as many", "and 7", "x", "a", "!", "squared", "to 7"])
def test_what_changes_the_number_is_no_unit(text: str) -> None:
    assert unit_of(text) is None


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("12:00", Clock), ("3 PM", Clock), ("1, 2", Many), ("1 and 2", Many), ("\\pm 2", Many), ("\\{1, 2\\}", Many),
        ("(1, 2)", Bracketed), ("]0, 1[", Bracketed), ("\\mathbb{R}", Bracketed), ("x \\le 5", Range), ("1 < x <= 2", Range),
        ("x != 3", Range), ("(1,2) \\cup (3,4)", Union), ("\\mathbb{R} \\setminus \\{1\\}", Union), ("y = 2x", Equation),
        ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", Matrix), ("silent", Words), ("\\text{no solution}", Words),
        ("3 \\pmod{7}", Words), ("H_2O", Words), ("2\\sqrt{3}", Formula), ("xy", Formula), ("x", Formula), ("7", Number),
    ],
)  # fmt: skip
def test_a_text_is_read_as_its_kind(text: str, kind: type) -> None:
    assert isinstance(read(text), kind)


def test_letters_and_names() -> None:
    assert [choice(text) for text in ("B", "(B)", "B) 12", "option B", "b", "A or B", "(A) (B)", "BAD", "A number")] == [
        "B", "B", "B", "B", None, None, None, None, None,
    ]  # fmt: skip
    assert [name(text) for text in ("x", "f(2)", "a_{10}", "P(X=1)", "\\theta", "2x", "4", "")] == [
        True, True, True, True, True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (72, "72"), (5.0, "5"), (-0.0, "0"), (1e-05, "0.00001"), (0.1, "0.1"), (1e21, "1000000000000000000000"),
        (0.1 + 0.2, "0.3"), (1e300, "1 \\times 10^{300}"), (Decimal("1.50"), "1.5"), (Fraction(1, 3), "1/3"),
        (np.float32(0.5), "0.5"), (np.int64(7), "7"), (" 72 ", "72"), ("48+24 = <<48+24=72>>72\n#### 72", "72"),
        ("a\n#### 1,024\n", "1,024"), ("so $\\boxed{\\frac{1}{2}}$.", "\\frac{1}{2}"), ("5.0", "5.0"),
    ],
)  # fmt: skip
def test_gold_answers_are_text_as_people_write_them(value: Any, text: str) -> None:
    assert gold_text(value) == text


@pytest.mark.parametrize(
    "value",
    [None, True, float("nan"), float("inf"), "", "  ", "NaN", "None", "null", [4], {"a": 4}, "a\n####", "\\boxed{}",
     np.float64("nan"), np.bool_(True), Decimal("NaN")],
)  # fmt: skip
def test_what_is_no_gold_answer_is_refused(value: Any) -> None:
    with pytest.raises(NoGoldError):
        gold_text(value)
