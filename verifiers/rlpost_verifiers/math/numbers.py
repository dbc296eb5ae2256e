r"""The grammar of a finished number: what people write when nothing is left to be calculated.

::

    number  := sign? currency? value multiplier? ("%" | "percent")? unit?
    value   := 1234 | 1,234 | 12.5 | .5 | 0.\overline{3}        decimal, thousands in groups of three
             | \frac{3}{4} | 3/4                                of integers, and not an integer itself
             | 3\frac{1}{2} | 3 1/2                             mixed: an integer and a proper fraction
             | 1.5 \times 10^6 | 10^{-7} | 1.5e6                scientific
    multiplier := hundred | thousand | million | billion | trillion | dozen

Anything else, such as ``12 \cdot 7``, ``84/2`` or ``\sqrt{49}``, is a formula: the question rather than its answer.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction

from rlpost_verifiers.math.numerals import spoken
from rlpost_verifiers.math.units import NO_UNIT, Unit, unit_of

_LARGEST_EXPONENT = 400
"""Powers of ten beyond it are left to the limits of the comparing process."""
_INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,3}(?: \d{3})+(?!\d)|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d*)?|\.\d+)"
_VALUE = re.compile(
    rf"(?P<whole>\d+)\s*(?:and\s*)?\\frac{{(?P<a>\d+)}}{{(?P<b>\d+)}}"
    rf"|(?P<whole2>\d+)(?:\s+|\s+and\s+|-)(?P<a2>\d+)\s*/\s*(?P<b2>\d+)"
    rf"|\\frac{{(?P<top>-?\s*{_INTEGER})}}{{(?P<bottom>-?\s*{_INTEGER})}}"
    rf"|(?P<top2>{_INTEGER})\s*/\s*(?P<bottom2>-?{_INTEGER})(?![\d.])"
    rf"|(?P<before>\d*)\.(?P<fixed>\d*)\\overline\s*{{(?P<again>\d+)}}"
    rf"|(?:(?P<mantissa>{_DECIMAL})\s*(?:\\times|\\cdot|\*|[xX])\s*)?(?<![\d.,])10\s*(?:\^|\*\*)\s*"
    rf"(?:{{\s*(?P<power>[-+]?\s*\d+)\s*}}|\((?P<power2>[-+]?\d+)\)|(?P<power3>-?\d+))"
    rf"|(?P<mantissa2>{_DECIMAL})[eE](?P<power4>[-+]?\d+)(?!\w)"
    rf"|(?P<decimal>{_DECIMAL})"
)
_SIGN = re.compile(r"\s*(?:(?P<sign>[-+])\s*)?(?P<money>DOLLAR|[€£¥₹])?\s*(?P<sign2>[-+])?\s*")
_ORDINAL = re.compile(r"\s*\^?\s*(?:\{\s*(?:st|nd|rd|th)\s*\}|(?:st|nd|rd|th)\b)")
_MULTIPLIER = re.compile(r"\s+(hundred|thousand|million|billion|trillion|dozen)(?:s)?\b")
_PERCENT = re.compile(r"\s*(?:%|percent(?:age points?)?\b|per cent\b)")
_FACTORS = {"hundred": 100, "thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12, "dozen": 12}
_PLACES = 6
"""Least number of decimal places of a decimal that may stand for a number that it rounds."""


@dataclass(frozen=True, slots=True)
class Number:
    """A finished number.

    Attributes:
        value: without the percent sign: 50 for ``50%``.
        places: decimal places as written; 0 for integers and fractions.
        percent: whether a percent sign follows.
        unit: what follows the number.
    """

    value: Fraction
    places: int = 0
    percent: bool = False
    unit: Unit = NO_UNIT


def number(text: str) -> Number | None:
    r"""The number that the whole of ``text`` is, in the spelling of `notation`; None if it is none.

    >>> number("3\\frac{1}{2}").value, number("12 \\cdot 7"), number("7 km/h").value
    (Fraction(7, 2), None, Fraction(7, 1))
    """
    text = re.sub(r"^(?:negative|minus)\s+(?=[\d.\\])", "-", text.strip(), flags=re.IGNORECASE)
    negative = re.fullmatch(r"([-+]?)\s*\(\s*([-+]?[^()]*)\)(.*)", text)
    if negative and not (negative[1] and negative[2][:1] in "+-"):
        text = f"{negative[1]}{negative[2]}{negative[3]}"
    found, end = _quantity(text, 0)
    if found is None:
        named = spoken(text) if text[:1].isalpha() else None
        return None if named is None else Number(named)
    if end == len(text):
        return found
    return _sum(text)


def equal(gold: Number, given: Number, asks_percent: bool = False) -> bool:
    """Whether two numbers are the same: exactly, or as a decimal of at least six places that rounds the other.

    ``50%`` is 0.5. It is 50 as well if the gold answer is a percentage, whose sign is often left out, or if the
    question asks for one.
    """
    left, right = gold, given
    if gold.unit.powers is not None and given.unit.powers is not None:
        if gold.unit.powers != given.unit.powers:
            return False
        left, right = _scaled(gold), _scaled(given)
    if gold.percent == given.percent or gold.percent or asks_percent:
        if _close(left, right):
            return True
        if gold.percent == given.percent:
            return False
    return _close(_fraction(left), _fraction(right))


def rounds(value: Fraction, places: int, other: Fraction) -> bool:
    """Whether ``value``, a decimal of ``places`` places, is ``other`` rounded to that many; never below six."""
    if places < _PLACES or abs(value) * 10**places < 10 ** (_PLACES - 1):
        return False
    return abs(value - other) * 2 * 10**places <= 1


def _quantity(text: str, at: int) -> tuple[Number | None, int]:
    """A number from ``at`` on with everything that belongs to it if the rest of the text is its unit."""
    head = _SIGN.match(text, at)
    assert head is not None
    found = _VALUE.match(text, head.end())
    if found is None or (head["sign"] and head["sign2"]):
        return None, at
    value = _value(found)
    if value is None:
        return None, at
    if "-" in (head["sign"], head["sign2"]):
        value = -value
    at = found.end()
    ordinal = _ORDINAL.match(text, at) if found["decimal"] else None
    if ordinal:
        at = ordinal.end()
    many = _MULTIPLIER.match(text, at)
    if many:
        value, at = value * _FACTORS[many[1]], many.end()
    percent = _PERCENT.match(text, at)
    if percent:
        at = percent.end()
    written = found["decimal"] or ""
    places = 0 if many else len(written.partition(".")[2])
    money = unit_of(head["money"]) if head["money"] else None
    rest = text[at:]
    # "$5 per day" and "$5 dollars" name the currency already
    unit = unit_of(rest, rest[:1].isspace() or at == found.end() == len(text) or not rest[:1].isalpha())
    if money is not None and (rest.strip(" .") == "" or (unit is not None and unit.powers is None)):
        unit = money
    elif money is not None and rest.strip().startswith("per "):
        unit = Unit()
    if unit is None:
        return Number(value, places, percent is not None), at
    return Number(value, places, percent is not None, unit), len(text)


def _sum(text: str) -> Number | None:
    """``2 hours 30 minutes``: quantities of one dimension, one after another."""
    total, powers, at = Fraction(0), None, 0
    for part in re.finditer(r"\s*(?:(?:,|and)\s+)?(\d[\d.,]*[^\d]*)(?=\d|$)", text):
        if part.start() != at:
            return None
        piece = part[1].strip().removesuffix(" and").rstrip(", ")
        found, read = _quantity(piece, 0)
        if (
            found is None
            or read < len(piece)
            or found.unit.powers is None
            or found.percent
            or powers not in (None, found.unit.powers)
        ):
            return None
        total, powers, at = total + found.value * found.unit.factor, found.unit.powers, part.end()
    return Number(total, unit=Unit(Fraction(1), powers)) if at == len(text) and powers else None


def _value(found: re.Match[str]) -> Fraction | None:
    whole, top, bottom = (found["whole"] or found["whole2"], found["a"] or found["a2"], found["b"] or found["b2"])
    if whole is not None:
        proper = 0 < int(top) < int(bottom)
        return int(whole) + Fraction(int(top), int(bottom)) if proper else None
    if found["top"] is not None or found["top2"] is not None:
        top, bottom = found["top"] or found["top2"], found["bottom"] or found["bottom2"]
        below = _integer(bottom)
        value = Fraction(_integer(top), below) if below else None
        return value if value is not None and (value.denominator != 1 or value == 0) else None
    if found["again"] is not None:
        return _repeating(found["before"] or "0", found["fixed"], found["again"])
    power = next((found[name] for name in ("power", "power2", "power3", "power4") if found[name] is not None), None)
    if power is not None:
        exponent = _integer(power)
        if abs(exponent) > _LARGEST_EXPONENT:
            return None
        return _decimal(found["mantissa"] or found["mantissa2"] or "1") * Fraction(10) ** exponent
    return _decimal(found["decimal"])


def _repeating(before: str, fixed: str, again: str) -> Fraction:
    scale = 10 ** len(fixed)
    return Fraction(int(before + fixed), scale) + Fraction(int(again), scale * (10 ** len(again) - 1))


def _decimal(text: str) -> Fraction:
    text = re.sub("[, ]", "", text)
    return Fraction(f"0{text}" if text.startswith(".") else text.rstrip(".") or "0")


def _integer(text: str) -> int:
    return int(re.sub(r"[\s,]", "", text))


def _scaled(found: Number) -> Number:
    factor = found.unit.factor
    return Number(found.value * factor, found.places if factor == 1 else 0, found.percent)


def _fraction(found: Number) -> Number:
    return Number(found.value / 100, found.places + 2 if found.places else 0) if found.percent else found


def _close(left: Number, right: Number) -> bool:
    return left.value == right.value or (
        rounds(left.value, left.places, right.value) or rounds(right.value, right.places, left.value)
    )
