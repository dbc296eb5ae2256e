"""Formulas, read by math-verify and compared by value; used in the comparing process only, because it imports sympy.

Two formulas are equal if they have the same variables and agree, to more digits than a coincidence has, at points that
are no special ones. math-verify's own comparison rounds to a fixed number of decimal places and takes letters in any
order for the same word, so it is asked only for what has no value at a point.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from rlpost_verifiers.math.numbers import rounds

_POINTS = (
    (Fraction(37, 29), Fraction(71, 23), Fraction(97, 61), Fraction(13, 59)),
    (Fraction(83, 19), Fraction(11, 53), Fraction(29, 17), Fraction(67, 41)),
    (Fraction(-53, 31), Fraction(19, 43), Fraction(-3, 47), Fraction(89, 37)),
    (Fraction(23, 73), Fraction(-61, 27), Fraction(101, 39), Fraction(-43, 33)),
)
"""Values of the variables: positive ones first, because roots and logarithms may have no others."""
_DECIMAL = re.compile(r"(?<![\d.])(\d*)\.(\d+)")
_DEGREES = re.compile(r"(\\(?:sin|cos|tan|cot|sec|csc)(?:\^\{?\d\}?)?)\s*[({]*\s*([\d.]+)\s*\^\\circ\s*[)}]*")
_LETTER = re.compile(r"\\[A-Za-z]+|[A-Za-z]")
_DIGITS = 25
_MOST_DIGITS = 400
"""Digits to which a difference is computed before it counts as zero."""
_LEAST_COMPARED = 2


class UnparsableError(Exception):
    """Raised for a formula that math-verify does not understand."""


def same(left: str | Fraction, right: str | Fraction, places: int = 0) -> bool:
    """Whether two formulas are equal.

    Args:
        left: LaTeX, or an exact number.
        right: likewise.
        places: decimal places of ``right`` if it is a decimal, which may then round ``left``; see `numbers.rounds`.

    Raises:
        UnparsableError: if math-verify does not understand one of them.
    """
    from sympy import Basic, MatrixBase, Number

    one, other = _expression(left), _expression(right)
    if not _same_letters(left, right, one):
        return False
    if isinstance(one, MatrixBase) or isinstance(other, MatrixBase):
        return _same_matrices(one, other)
    if _valued(one) and _valued(other):
        if _equal(one, other):
            return True
        if places and isinstance(right, Fraction) and not one.free_symbols:
            value = one.evalf(_DIGITS)
            return isinstance(value, Number) and rounds(right, places, Fraction(str(value)))
        return False
    if isinstance(one, Basic) and isinstance(other, Basic) and type(one) is type(other):
        return _same_otherwise(one, other)
    return False


def same_equations(left: tuple[str, str], right: tuple[str, str]) -> bool:
    """Whether two equations, each as its two sides, have a constant ratio: ``y = 2x`` and ``2x - y = 0``.

    Raises:
        UnparsableError: if math-verify does not understand a side.
    """
    sides = [_expression(side) for side in (*left, *right)]
    if not all(_valued(side) for side in sides):
        return False
    one, other = sides[0] - sides[1], sides[2] - sides[3]
    if one.free_symbols != other.free_symbols or not one.free_symbols:
        return False
    points = list(_points(one))
    first = [(one.subs(point), other.subs(point)) for point in points]
    if any(_is_zero(value) for pair in first for value in pair):
        return False
    return all(_is_zero(a * first[0][1] - b * first[0][0]) for a, b in first[1:])


def rounded(exact: str | Fraction, value: Fraction) -> bool:
    """Whether ``value`` is ``exact`` rounded to the last of its decimal digits that is not 0.

    Raises:
        UnparsableError: if math-verify does not understand ``exact``.
    """
    from sympy import Number, Rational

    found = _expression(exact)
    found = found.evalf(_DIGITS) if _valued(found) and not found.free_symbols else None
    if not isinstance(found, Number):
        return False
    unit = Fraction(1)
    while value % unit:
        unit /= 10
    while value and not value % (unit * 10):
        unit *= 10
    distance = abs(found - Rational(value.numerator, value.denominator))
    return bool(2 * distance <= Rational(unit.numerator, unit.denominator))


@lru_cache(maxsize=1024)
def _expression(text: str | Fraction) -> Any:
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Float, I, Rational, Symbol

    if isinstance(text, Fraction):
        return Rational(text.numerator, text.denominator)
    if re.search(r"\d\s+\d", re.sub(r"_\s*\d+", "_", text)) or not _balanced(text):
        # the parser reads past either: "1 7" as 17, "x}{7" as x
        raise UnparsableError(f"{text!r} cannot be read")
    # units=True would drop a last variable that is also a unit: the h of \pi r^2 h
    spelling = NormalizationConfig(basic_latex=True, units=False, malformed_operators=True, nits=False, boxed="last")
    whole = [LatexExtractionConfig(False, boxed_match_priority=0, normalization_config=spelling)]
    try:
        found = parse(
            f"\\boxed{{{_exact(text)}}}",
            whole,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
    except MemoryError:
        raise
    except Exception as error:
        said = str(error).splitlines()[0][:120] if str(error) else "no message"
        raise UnparsableError(f"{text!r} cannot be read ({type(error).__name__}: {said})") from None
    # a string alone means that the formula was found but not understood
    parsed = [part for part in found if not isinstance(part, str)]
    if not parsed:
        raise UnparsableError(f"{text!r} cannot be read")
    value = parsed[0].doit()
    # the parser's assumptions depend on what else is in the formula, and equal letters must be equal
    exact: dict[Any, Any] = {
        symbol: I if symbol.name == "i" else Symbol(symbol.name) for symbol in value.free_symbols if symbol.is_Symbol
    }
    exact |= {number: Rational(str(number)) for number in value.atoms(Float)}
    return value.xreplace(exact) if exact else value


def _exact(text: str) -> str:
    """Decimals as fractions, because floats lose digits; degrees of angles in radians."""

    def fraction(found: re.Match[str]) -> str:
        digits = f"{int(found[1] + found[2])}"
        whole = f"\\frac{{{digits}}}{{{10 ** len(found[2])}}}"
        return f"{{{whole}}}" if text[found.start() - 1 : found.start()] == "^" else whole

    text = _DEGREES.sub(r"\1(\\frac{\2 \\pi}{180})", text)
    return _DECIMAL.sub(fraction, text)


def _balanced(text: str) -> bool:
    depth = 0
    for character in re.sub(r"\\[{}]", "", text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth < 0:
            return False
    return depth == 0


def _same_letters(left: str | Fraction, right: str | Fraction, parsed: Any) -> bool:
    """Whether variables that the parser writes in lower case are the same letters: R is not r."""
    if not isinstance(left, str) or not isinstance(right, str):
        return True
    names = {str(symbol) for symbol in parsed.free_symbols}
    letters = [{found.lstrip("\\") for found in _LETTER.findall(text)} for text in (left, right)]
    ours, theirs = ({letter for letter in found if letter.lower() in names} for found in letters)
    return ours == theirs or {letter.lower() for letter in ours} != {letter.lower() for letter in theirs}


def _valued(value: Any) -> bool:
    from sympy import Expr

    return isinstance(value, Expr)


def _equal(one: Any, other: Any) -> bool:
    from sympy import I, nan, oo, zoo

    if one == other:
        return not one.has(nan, zoo)
    if one.has(oo, -oo, nan, zoo) or other.has(oo, -oo, nan, zoo) or one.free_symbols != other.free_symbols:
        return False
    if not one.free_symbols:
        return _is_zero(one - other)
    compared = 0
    for point in _points(one):
        a, b = one.subs(point), other.subs(point)
        if _is_zero(a - b):
            compared += 1
        elif one.has(I) or not (_is_complex(a) or _is_complex(b)):
            # where one leaves the real numbers, branches differ: sqrt(1/n) and 1/sqrt(n) for n < 0
            return False
    return compared >= _LEAST_COMPARED


def _points(expression: Any) -> Any:
    """Points, each a value for every variable."""
    from sympy import Rational

    names = sorted(expression.free_symbols, key=str)
    for values in _POINTS:
        yield {
            symbol: Rational(*values[place % len(values)].as_integer_ratio()) + place // len(values)
            for place, symbol in enumerate(names)
        }


def _is_complex(value: Any) -> bool:
    return not value.is_real and not _is_zero(value.as_real_imag()[1])


def _is_zero(value: Any) -> bool:
    from sympy import Float, nan, oo, zoo

    if value.is_Rational:
        return bool(value == 0)
    if value.has(oo, -oo, nan, zoo):
        return False
    for part in value.as_real_imag():
        if part.is_Rational:
            if part != 0:
                return False
            continue
        found = part.evalf(_DIGITS, maxn=_MOST_DIGITS)
        # a Float of precision 1 is one whose digits all cancelled
        if found != 0 and not (isinstance(found, Float) and found._prec == 1):
            return False
    return True


def _same_matrices(one: Any, other: Any) -> bool:
    from sympy import MatrixBase

    if not (isinstance(one, MatrixBase) and isinstance(other, MatrixBase)) or one.shape != other.shape:
        return False
    return all(_valued(a) and _valued(b) and _equal(a, b) for a, b in zip(one.flat(), other.flat(), strict=True))


def _same_otherwise(one: Any, other: Any) -> bool:
    """Values without a value at a point: sets, relations, logic."""
    from math_verify import verify

    return verify([one], [other], timeout_seconds=None, raise_on_error=True)
