"""Gold answers as text, from what data sets hold: text, numbers of every type, GSM8K's whole solutions."""

from __future__ import annotations

import math
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from rlpost_verifiers.math.answers import AnswerSettings, NoAnswerError, final_answers

_MARK = "####"
_NOT_ANSWERS = frozenset({"nan", "NaN", "null", "None", "inf", "-inf", "Infinity", "-Infinity"})
"""What programs write for a value that is missing or has no bound."""
_FLOAT_DIGITS = 15
"""Decimal digits that a float keeps; more are noise of the calculation it comes from, as in 0.30000000000000004."""
_EXACT_BELOW = 2**53
_NOISY = re.compile(r"-?\d{1,9}\.\d{16,}")
"""A float that a program wrote with all its digits."""
_LONGEST_PLAIN = 40


class NoGoldError(Exception):
    """Raised for a value that is no gold answer; the message is the cause."""


def gold_text(value: Any) -> str:
    r"""The gold answer that a column holds, as people write it.

    Text is taken after the last ``####`` (GSM8K) or from its ``\boxed{…}`` (a whole solution), if it has one; numbers
    become decimals without an exponent.

    Raises:
        NoGoldError: for None, a truth value, NaN, an infinity, empty text, or another type.

    >>> gold_text(1e-05), gold_text(5.0), gold_text("48/2 = <<48/2=24>>24 clips\\n#### 1,024")
    ('0.00001', '5', '1,024')
    """
    item = getattr(value, "item", None)
    if callable(item) and not isinstance(value, (str, list, dict)):
        value = item()
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal, Fraction)):
        raise NoGoldError(f"{value!r} is neither text nor a number")
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, int):
        return str(value)
    if not math.isfinite(value):
        raise NoGoldError(f"{value!r} is not a finite number")
    if isinstance(value, Decimal):
        return _plain(value)
    if value.is_integer() and abs(value) < _EXACT_BELOW:
        return str(int(value))
    digits = Decimal(repr(value))
    return _plain(digits if len(digits.as_tuple().digits) <= _FLOAT_DIGITS else Decimal(f"{value:.{_FLOAT_DIGITS}g}"))


def _from_text(text: str) -> str:
    found = text
    if r"\boxed" in text:
        try:
            return final_answers(text, AnswerSettings("boxed", "last"))[0]
        except NoAnswerError as error:
            raise NoGoldError(f"{text[-60:]!r}: {error.args[1]}") from None
    if _MARK in found:
        found = found.rpartition(_MARK)[2].strip().partition("\n")[0]
    found = re.sub(r"<<[^<>]*>>", "", found).strip()
    if not found:
        raise NoGoldError(f"{text[-60:]!r} holds no answer" if text.strip() else "the text is empty")
    if found in _NOT_ANSWERS:
        raise NoGoldError(f"{found!r} stands for a missing value")
    return gold_text(float(found)) if _NOISY.fullmatch(found) else found


def _plain(value: Decimal) -> str:
    text = format(value, "f")
    if len(text) > _LONGEST_PLAIN:
        mantissa, _, exponent = f"{value.normalize():E}".partition("E")
        return f"{mantissa} \\times 10^{{{int(exponent)}}}"
    return text.rstrip("0").rstrip(".") if "." in text else text
