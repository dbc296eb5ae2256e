"""Extracts the final answer from a text, and refuses answers that must not be compared; text only, no mathematics."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Where = Literal["auto", "boxed", "equals", "text"]
Several = Literal["reject", "last"]

_BRACE = re.compile("[{}]")
_LONGEST = 200
"""Longest answer, in characters; longer ones are rejected."""
_BOX = r"\boxed"
_MARKS = re.compile(r"(?:####|(?:final )?answer(?: is|:| =))", re.IGNORECASE)
_EDGES = " \t\r\n$.`*_"
_WRAPPED = ((r"\(", r"\)"), (r"\[", r"\]"))
_SPACED_DIGITS = re.compile(r"(?<=[0-9])[ \t]+(?=[0-9])")
_PLAIN = re.compile(
    r"[-+]?\s*(?:[0-9][0-9,]*\.?[0-9]*|\.[0-9]+)\s*(?:\\?%)?|[-+]?\s*[0-9]+\s*/\s*[0-9]+|[-+]?\\d?frac\{[0-9]+\}\{[0-9]+\}"
)
_OPERATION = re.compile(r"\*|[+^!×·÷]|(?<=[\w)}\]])\s*[-−]|\\[a-zA-Z]+|[a-z]{3,}\s*\(")
_TOWER = r"\^[({]+[^(){}=,]*(?:\^|\*\*)|\^[0-9.]+\^|\*\*[\w.(]+\*\*"
_HUGE = r"(?:\^|\*\*)[({]*-?[0-9]{5,}|[0-9]{5,}[)}]*!|!!"
_BOMB = re.compile(f"{_TOWER}|{_HUGE}")
_HARMLESS = frozenset(
    {r"\frac", r"\dfrac", r"\tfrac", r"\left", r"\right", r"\text", r"\mathrm", r"\mathbf", r"\displaystyle"}
)


class NoAnswerError(Exception):
    """Raised for a text without an answer to compare; the arguments are the reason and a message."""

    @property
    def reason(self) -> str:
        """A reason from the closed set in `rlpost_verifiers.math.verifier`."""
        return self.args[0]


@dataclass(frozen=True, slots=True)
class AnswerSettings:
    r"""How the answer is extracted from a text.

    Attributes:
        where: ``boxed``, the content of ``\boxed{…}``; ``equals``, what follows the last ``=`` of the last line;
            ``text``, the whole text; ``auto``, the first of these that the text has: a box, what follows ``####`` or
            "answer is" or "answer:", what follows the last ``=`` of the last line, the last line.
        several: if boxes disagree, ``reject`` the text or take the ``last`` box.
        spaced_digits: read ``1 2`` as 12, for models whose tokens are single digits.

    >>> AnswerSettings().where
    'auto'
    """

    where: Where = "auto"
    several: Several = "reject"
    spaced_digits: bool = False


def final_answer(text: str, settings: AnswerSettings) -> str:
    r"""The final answer of a text; everything before the last ``</think>`` is ignored.

    Raises:
        NoAnswerError: if there is none (``no_answer``), boxes disagree (``several_answers``), or the answer is longer
            than 200 characters (``too_long``).

    >>> final_answer(r"so it is \boxed{\frac{1}{2}}.", AnswerSettings())
    '\\frac{1}{2}'
    >>> final_answer("( 3 + 4 ) * 2 = 7 * 2 = 1 4", AnswerSettings(spaced_digits=True))
    '14'
    """
    text = text.rpartition("</think>")[2]
    found = _find(text, settings)
    if settings.spaced_digits:
        found = _SPACED_DIGITS.sub("", found)
    if not found:
        raise NoAnswerError("no_answer", "the text holds no answer")
    if len(found) > _LONGEST:
        raise NoAnswerError("too_long", f"the answer has {len(found)} characters, {_LONGEST} are read")
    return found


def refuse_unevaluated(answer: str, gold: str) -> None:
    """Refuse an answer that still contains operations where the gold answer is a plain number.

    A program that evaluates both finds ``12 * 7`` equal to 84, but repeating the question is not an answer to it.

    Raises:
        NoAnswerError: with reason ``unevaluated``.

    >>> refuse_unevaluated("84", "84")
    >>> refuse_unevaluated("1/2", "0.5")
    """
    if not _PLAIN.fullmatch(gold):
        return
    operations = [word for word in _OPERATION.findall(answer) if word not in _HARMLESS]
    if gold.strip().lstrip("+-").replace(",", "").isdigit() and re.search(r"/|÷|frac", answer):
        operations.append("/")
    if operations:
        raise NoAnswerError(
            "unevaluated", f"{operations[0].strip()!r} is left to be done, the answer is a plain number"
        )


def refuse_bombs(answer: str) -> None:
    """Refuse towers of powers, and exponents and factorials of five digits or more, before they are evaluated.

    An answer that this check misses is stopped at the CPU limit; the check only saves that time.

    Raises:
        NoAnswerError: with reason ``too_big``.
    """
    if _BOMB.search(answer.replace(" ", "")):
        raise NoAnswerError("too_big", "a tower of powers, or a huge exponent or factorial")


def _find(text: str, settings: AnswerSettings) -> str:
    where = settings.where
    boxes = _boxes(text) if where in ("auto", "boxed") else []
    if boxes:
        if settings.several == "reject" and len({re.sub(r"\s", "", box) for box in boxes}) > 1:
            raise NoAnswerError("several_answers", f"{len(boxes)} boxes that do not agree")
        return _trim(boxes[-1])
    if where == "boxed":
        return ""
    if where == "text":
        return _trim(text)
    marked = list(_MARKS.finditer(text)) if where == "auto" else []
    lines = text[marked[-1].end() :].strip().splitlines()[:1] if marked else text.strip().splitlines()[-1:]
    line = lines[0] if lines else ""
    # this also splits at the = of <=, >=, != and ==
    _, sign, right = line.rpartition("=")
    return _trim(right if sign else line)


def _boxes(text: str) -> list[str]:
    """Contents of every box, with braces matched; a box that never closes is ignored."""
    found: list[str] = []
    at = text.find(_BOX)
    while at >= 0:
        start = at + len(_BOX)
        content = _braced(text, start)
        if content is not None:
            found.append(content)
        at = text.find(_BOX, start + len(content or ""))
    return found


def _braced(text: str, start: int) -> str | None:
    if text[start : start + 1] != "{":
        return None
    depth = 0
    # bounded, because a text of boxes that never close would take quadratic time
    for brace in _BRACE.finditer(text, start, start + 4 * _LONGEST):
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start + 1 : brace.start()]
    return None


def _trim(text: str) -> str:
    text = text.strip(_EDGES)
    for left, right in _WRAPPED:
        if text.startswith(left) and text.endswith(right):
            text = text[len(left) : -len(right)]
    return text.strip(_EDGES)
