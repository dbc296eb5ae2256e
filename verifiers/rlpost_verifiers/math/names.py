"""Letters of multiple-choice answers, and what only names a value: text only, no mathematics."""

from __future__ import annotations

import re

from rlpost_verifiers.math.notation import normal


def choice(text: str) -> str | None:
    r"""The letter of a multiple-choice answer: ``B``, ``(B)``, ``B) 12`` or ``option B``; None if it is none.

    >>> choice("\\textbf{(B)}\\ 12"), choice("A or B"), choice("BAD")
    ('B', None, None)
    """
    text = re.sub(r"^(?:the )?(?:option|choice|answer)\s*:?\s*", "", normal(text), flags=re.IGNORECASE)
    found = re.fullmatch(r"(?:\(\s*([A-Z])\s*\)|\[([A-Z])\]|([A-Z])\s*[).:](?=\s|$)|([A-Z])$)(.*)", text, re.DOTALL)
    if found is None:
        return None
    letter, rest = found[1] or found[2] or found[3] or found[4], found[5].strip()
    # another letter in brackets, or a conjunction, offers two
    if re.match(r"(?:and|or|,|/|&|\()", rest) or re.search(r"\(\s*[A-Z]\s*\)|\b[A-Z]\)", rest):
        return None
    return letter


def letters(text: str) -> frozenset[str] | None:
    """The letters of a question with several right choices: ``AC``, ``A, C``, ``(A) and (C)``; None if it is none.

    >>> letters("AC") == letters("(C), (A)"), letters("BAD")
    (True, None)
    """
    text = normal(text)
    found = re.fullmatch(r"[A-H]{2,8}|\(?[A-H]\)?(?:\s*(?:,|and|&|,\s*and)\s*\(?[A-H]\)?)+", text)
    if found is None:
        return None
    one = re.findall("[A-H]", re.sub("and", "", found[0]))
    return frozenset(one) if len(text) > len(one) or one == sorted(set(one)) else None


def name(text: str) -> bool:
    r"""Whether the left side of an equation only names what the right side gives: it has no number of its own.

    >>> name("x"), name("f(2)"), name("2x"), name("a_{10}")
    (True, True, False, True)
    """
    text = re.sub(r"_\s*(?:\{[^{}]*\}|\w)|\^\{-1\}|\^\{?\\prime\}?", "", text)
    text = re.sub(r"(?<![\\A-Za-z])[A-Za-z]{1,2}\s*(?:\([^()]*\)|\[[^\[\]]*\])|\\[a-z]+\([^()]*\)", "f", text)
    return bool(text.strip()) and not re.search(r"\d|\\infty|\\pi(?![a-z])|\\emptyset", text)
