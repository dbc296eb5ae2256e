"""Extracts the final answers from a text: where models of today write them. Text only, no mathematics."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Literal

from rlpost_verifiers.math.notation import split
from rlpost_verifiers.thought import answer_start

Where = Literal["auto", "boxed", "equals", "text"]
Several = Literal["reject", "last"]

_LONGEST = 200
"""Longest answer, in characters; longer ones are rejected."""
_LONGEST_LINE = 4000
_MOST_BOXES = 20
_BRACE = re.compile("[{}]")
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*")
_TAG = re.compile(r"<(answer|final_answer|solution)>(.*?)(?:</\1>|\Z)", re.DOTALL | re.IGNORECASE)
_MARK = re.compile(
    r"####|答案\s*(?:是|为)?\s*[:：]?|(?:^|(?<=\W))(?:answer|(?:correct|right) (?:choice|option))(?:s\s*(?=:))?"
    r"[*_`\"')\]]*\s*(?:to (?:this|the|your) [\w ]{1,40}?)?\s*"
    r"(?:(?:is|was|equals|must be|would be|will be|should be|=)(?![\w=])|:|：|(?:[*_#]*\s*\n))",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[\s:*_=#`}]|(?:thus|therefore|hence|then|simply|just|indeed|equal to|given by|exactly|so)\b[ ,]*)+"
)
_BLOCK = ((r"\[", r"\]"), ("$$", "$$"), (r"\(", r"\)"), ("```", "```"))
_SENTENCE_END = re.compile(r"(?:[.?]|(?<![\w)}])!)(?:[*_`\"')\]]*)(?=\s+[A-Z(]|\s*$)|[.!?]\s*\$?\s*(?=I hope)")
_REASON = re.compile(r",?\s+(?:because|since)\b", re.IGNORECASE)
_COMMENT = re.compile(r"(?<=[\d}%$*])\s+\([A-Za-z][A-Za-z ,-]{3,}\)$")
_DOLLAR = re.compile(r"(?<!\\)\$")
_EQUALS = re.compile(r"(?<![<>!:=\\])=(?!=)")
_SEVERAL_EQUATIONS = re.compile(r"=[^=]*(?:\bor\b|\band\b|[,;])[^=]*=", re.IGNORECASE)
_LEAD = re.compile(
    r"(?:so|thus|hence|therefore|then|finally|we (?:get|have|find|obtain|conclude)|which gives|that is|this gives)\b"
    r"[ ,:]*(?:that\b ?)?",
    re.IGNORECASE,
)
_LABEL = re.compile(r"^\W*(?:A|Ans|Result|Solution)\W*[:：]\s*", re.IGNORECASE)
_EDGES = " \t\r\n$`*"
_WRAPPED = ((r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("__", "__"), ('"', '"'), ("'", "'"))
_SPACED_DIGITS = re.compile(r"(?<=[0-9])[ \t]+(?=[0-9])")
_TOWER = r"\^[({]+[^(){}=,]*(?:\^|\*\*)|\^[0-9.]+\^|\*\*[\w.(]+\*\*"
_HUGE = r"(?:\^|\*\*)[({]*-?[0-9]{5,}|[0-9]{5,}[)}]*!|!!"
_BOMB = re.compile(f"{_TOWER}|{_HUGE}")


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
            ``text``, the whole text; ``auto``, the first of these that the text has: boxes and ``<answer>`` tags, what
            follows ``####`` or "answer is" or "answer:" or a heading "Answer", what follows the last ``=`` of the last
            line, the last line.
        several: if boxes disagree, ``reject`` the text or take the ``last`` box.
        spaced_digits: read ``1 2`` as 12, for models whose tokens are single digits.

    >>> AnswerSettings().where
    'auto'
    """

    where: Where = "auto"
    several: Several = "reject"
    spaced_digits: bool = False


def final_answers(text: str, settings: AnswerSettings) -> tuple[str, ...]:
    r"""The final answers of a text, each spelling once: more than one only where several boxes or tags differ.

    A thought (``<think>…</think>`` and its kin) is ignored; a text that ends inside one has no answer.

    Raises:
        NoAnswerError: if there is none (``no_answer``), it is longer than 200 characters (``too_long``), or there are
            more than 20 different boxes (``several_answers``).

    >>> final_answers(r"so it is \boxed{\frac{1}{2}}.", AnswerSettings())
    ('\\frac{1}{2}',)
    >>> final_answers("( 3 + 4 ) * 2 = 7 * 2 = 1 4", AnswerSettings(spaced_digits=True))
    ('14',)
    >>> final_answers("Final Answer: The final answer is $73$. I hope it is correct.", AnswerSettings())
    ('73',)
    """
    found = _find(_after_thought(text), settings)
    if settings.spaced_digits:
        found = [_SPACED_DIGITS.sub("", part) for part in found]
    found = list(dict.fromkeys(part for part in found if part))
    if not found:
        raise NoAnswerError("no_answer", "the text holds no answer")
    if len(found) > _MOST_BOXES:
        raise NoAnswerError("several_answers", f"{len(found)} boxes that do not agree")
    longest = max(map(len, found))
    if longest > _LONGEST:
        raise NoAnswerError("too_long", f"the answer has {longest} characters, {_LONGEST} are read")
    return tuple(found)


def refuse_bombs(answer: str) -> None:
    """Refuse towers of powers, and exponents and factorials of five digits or more, before they are evaluated.

    An answer that this check misses is stopped at the CPU limit; the check only saves that time.

    Raises:
        NoAnswerError: with reason ``too_big``.
    """
    if _BOMB.search(answer.replace(" ", "")):
        raise NoAnswerError("too_big", "a tower of powers, or a huge exponent or factorial")


def _after_thought(text: str) -> str:
    start = answer_start(text)
    if start is None:
        raise NoAnswerError("no_answer", "the text ends inside its thought")
    return text[start:]


def _find(text: str, settings: AnswerSettings) -> list[str]:
    where = settings.where
    if where == "text":
        return [_trim(text)]
    if where in ("auto", "boxed"):
        found, any_box = _boxes(text), bool(_BOX.search(text))
        if where == "auto":
            tags = list(_TAG.finditer(text))
            found += [tag[2] for tag in tags if not _BOX.search(tag[2])]
            any_box = any_box or bool(tags)
        found = [part for part in (_trim(_inside(part)) for part in found) if part]
        if any_box or where == "boxed":
            return found[-1:] if settings.several == "last" else found
    if where == "auto":
        marked = _after_mark(text)
        if marked is not None:
            return [marked]
    return [_last_line(text)]


def _inside(text: str) -> str:
    """The answer in a box or tag: what it holds, or what follows "answer is" there."""
    marked = _after_mark(text) if "answer" in text.lower() else None
    # of \\text{The answer is } 73 the mark leaves the closing brace
    return text if marked is None else marked.lstrip("} ")


def _after_mark(text: str) -> str | None:
    """The answer behind the last mark; None if there is no mark, empty if nothing follows it."""
    marks = list(_MARK.finditer(text))
    if not marks:
        return None
    mark = marks[-1]
    rest = text[mark.end() : mark.end() + 20 * _LONGEST].strip()
    if text[mark.start() - 1 : mark.start()] == '"' and '":' in mark[0].replace(" ", ""):
        return _trim(_json_value(rest))
    skipped = _FILLER.match(rest)
    if skipped and not rest.startswith("```"):
        rest = rest[skipped.end() :]
    for left, right in _BLOCK:
        if rest.startswith(left) and rest.find(right, len(left)) > 0:
            close = rest.find(right, len(left))
            after = rest[close + len(right) :].partition("\n")[0].strip(" .*")
            if left != r"\(" or not after:
                return _trim(
                    re.sub(r"^\w+\n", "", rest[len(left) : close]) if left == "```" else rest[len(left) : close]
                )
    line = _REASON.split(_sentence(rest.partition("\n")[0]), maxsplit=1)[0]
    return _trim(_COMMENT.sub("", _trim(line)))


def _json_value(rest: str) -> str:
    """The value behind ``"answer":`` in JSON."""
    try:
        return str(json.JSONDecoder().raw_decode(rest)[0])
    except ValueError:
        # TeX in JSON is often written with single backslashes
        found = re.match(r'"((?:[^"\\]|\\.)*)"', rest)
        return found[1] if found else rest


def _sentence(line: str) -> str:
    """The first sentence of a line; all of it if the rest holds a digit or a sign, and so may be another answer."""
    for found in _SENTENCE_END.finditer(line):
        if len(_DOLLAR.findall(line[: found.start()])) % 2 == 0 and not re.search(r"[0-9=\\]", line[found.end() :]):
            return line[: found.start()]
    return line


def _last_line(text: str) -> str:
    lines = text[-_LONGEST_LINE:].strip().splitlines()
    line = lines[-1].strip() if lines else ""
    if line.startswith((r"\]", "$$", "```")) and len(lines) > 1 and not line.strip("$`\\] .\t"):
        line = lines[-2].strip()
    line = _LEAD.sub("", line, count=2) if _LEAD.match(line) else line
    line = _LABEL.sub("", line)
    if _SEVERAL_EQUATIONS.search(line):
        return _trim(line)
    return _trim(split(line, _EQUALS)[-1])


def _boxes(text: str) -> list[str]:
    r"""Contents of every box, with braces matched; a box that never closes is ignored. ``\boxed 7`` holds one sign.

    Raises:
        NoAnswerError: if the last box never closes: the text ends in the middle of its answer.
    """
    found: list[str] = []
    at, open_end = 0, False
    while box := _BOX.search(text, at):
        start = box.end()
        content = _braced(text, start)
        if content is None and re.match(r"\d" if box[0] == box[0].rstrip() else "[^{]", text[start:]):
            bare = re.compile(r"\S+?(?=[$\s.,;]|\\[)\]]|$)").match(text, start)
            content = bare[0] if bare else None
        open_end = content is None and text[start : start + 1] == "{"
        if content is not None:
            nested = _boxes(content)
            found += nested or [content]
        at = start + len(content or "")
    if open_end:
        raise NoAnswerError("no_answer", "the last box never closes")
    return found


def _braced(text: str, start: int) -> str | None:
    if text[start : start + 1] != "{":
        return None
    depth = 0
    # bounded, because a text of boxes that never close would take quadratic time
    for brace in _BRACE.finditer(text, start, start + 4 * _LONGEST):
        if text[brace.start() - 1] == "\\":
            continue
        depth += 1 if brace[0] == "{" else -1
        if depth == 0:
            return text[start + 1 : brace.start()]
    return None


def _trim(text: str) -> str:
    text = _edges(text)
    for _ in range(2):
        for left, right in _WRAPPED:
            if text.startswith(left) and text.endswith(right) and text.find(right, len(left)) == len(text) - len(right):
                text = text[len(left) : -len(right)]
        text = _edges(text)
    return text


def _edges(text: str) -> str:
    # a dollar sign before a number is its currency, but a pair is TeX's
    return text.strip(_EDGES).rstrip(".,;:_。，" + _EDGES).lstrip(_EDGES + ":").strip()
