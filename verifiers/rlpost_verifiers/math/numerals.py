"""Numbers in English words: ``twenty-one``, ``one hundred and five``, ``two thirds``."""

from __future__ import annotations

import re
from fractions import Fraction

_SMALL = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen"""
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9}
_PARTS = {"half": 2, "halves": 2, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4, "fourths": 4,
          "fifth": 5, "fifths": 5, "sixth": 6, "sixths": 6, "eighth": 8, "eighths": 8, "tenth": 10,
          "tenths": 10}  # fmt: skip
NAMES = tuple(_SMALL.split())
"""The names of the integers from zero on."""
_VALUES = {name: value for value, name in enumerate(NAMES)} | {
    name: 10 * (place + 2) for place, name in enumerate(_TENS.split())
}


def spoken(text: str) -> Fraction | None:
    """The number that the whole of ``text`` names; None if it is none.

    >>> spoken("one hundred and five"), spoken("two thirds"), spoken("two apples")
    (Fraction(105, 1), Fraction(2, 3), None)
    """
    words = [word for word in re.split(r"[\s-]+", text.strip().lower()) if word]
    if not words or len(words) > 12:
        return None
    if words[-1] in _PARTS:
        count = spoken(" ".join(words[:-1])) if words[:-1] not in ([], ["a"]) else Fraction(1)
        return None if count is None else count / _PARTS[words[-1]]
    total, group, started = 0, 0, False
    for word in words:
        if word in _VALUES:
            # "six seven" offers two numbers, "twenty one" is one
            if started and group % 100 and not (group % 100 >= 20 and group % 10 == 0 and _VALUES[word] < 10):
                return None
            group += _VALUES[word]
        elif word == "hundred" and 0 < group < 10:
            group *= 100
        elif word in _SCALES and group:
            total, group = total + group * _SCALES[word], 0
        elif word != "and" or not started:
            return None
        started = True
    return Fraction(total + group) if words[-1] != "and" else None
