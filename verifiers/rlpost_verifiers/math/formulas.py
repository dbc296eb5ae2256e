"""Formulas, read by math-verify and compared by value; used in the comparing process only, because it imports sympy.

Two formulas are equal if they have the same variables and agree, to more digits than a coincidence has, at points that
are no special ones. math-verify's own comparison rounds to a fixed number of decimal places and takes letters in any
order for the same word, so it is asked only for what has no value at a point.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import Any

from rlpost_verifiers.math.numbers import rounds

_POINTS = (Fraction(37, 29), Fraction(-53, 31), Fraction(71, 23), Fraction(-19, 43), Fraction(97, 61), Fraction(-3, 47))
_DIGITS = 25
_MOST_DIGITS = 400
"""Digits to which a difference is computed before it counts as zero."""


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


@lru_cache(maxsize=1024)
def _expression(text: str | Fraction) -> Any:
    from math_verify import LatexExtractionConfig, parse
    from sympy import Float, Rational

    if isinstance(text, Fraction):
        return Rational(text.numerator, text.denominator)
    whole = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]
    try:
        found = parse(
            f"\\boxed{{{text}}}",
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
    exact = {number: Rational(str(number)) for number in value.atoms(Float)}
    return value.xreplace(exact) if exact else value


def _valued(value: Any) -> bool:
    from sympy import Expr

    return isinstance(value, Expr)


def _equal(one: Any, other: Any) -> bool:
    from sympy import nan, oo, zoo

    if one == other:
        return one not in (nan, zoo)
    if one.has(oo, -oo, nan, zoo) or other.has(oo, -oo, nan, zoo) or one.free_symbols != other.free_symbols:
        return False
    difference = one - other
    if not difference.free_symbols:
        return _is_zero(difference)
    return all(_is_zero(difference.subs(point)) for point in _points(difference))


def _points(expression: Any) -> Any:
    """Three points, each a value for every variable, none of them the same."""
    names = sorted(expression.free_symbols, key=str)
    from sympy import Rational

    for start in range(3):
        yield {
            symbol: Rational(point.numerator + 2 * place, point.denominator)
            for place, symbol in enumerate(names)
            for point in [_POINTS[(start + place) % len(_POINTS)]]
        }


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
