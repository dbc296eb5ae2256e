r"""Intervals in all their spellings: brackets, inequalities, unions, all real numbers but some.

Functions take the text in the spelling of `notation` and `read`, which reads its parts; they return None for another
kind of text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

from rlpost_verifiers.math.names import name
from rlpost_verifiers.math.notation import COMMA, EQUALS, split
from rlpost_verifiers.math.numbers import Number
from rlpost_verifiers.math.values import Bracketed, Formula, Many, Range, Union, Value

Read = Callable[[str], Value]

RELATION = re.compile(r"\\(?:le|ge|ne)(?![a-zA-Z])|<|>")
_IN = re.compile(r"\\in(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[\])])\s*U\s*(?=[\[(])")
_REALS = re.compile(r"(?:\\mathbb\{R\}|\\R|all real numbers|all reals|the real numbers|\(-\\infty ?, ?\\infty ?\))")
_WITHOUT = re.compile(rf"{_REALS.pattern}\s*(?:\\(?:setminus|backslash)|-|except)\s*(?:\\\{{(.*)\\\}}|([^\\{{}}]+))")
_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_HIGH, _LOW = Formula(r"\infty"), Formula(r"-\infty")


def reals(text: str, read: Read) -> Value | None:
    """All real numbers, perhaps without some."""
    if _REALS.fullmatch(text):
        return Bracketed("(", ")", (_LOW, _HIGH))
    found = _WITHOUT.fullmatch(text)
    if found is None:
        return None
    ends = _parts(found[1] or found[2], read)
    if not all(isinstance(end, Number) for end in ends):
        return None
    inner = sorted((end for end in ends if isinstance(end, Number)), key=lambda end: end.value)
    whole = [_LOW, *inner, _HIGH]
    return Union(tuple(Bracketed("(", ")", pair) for pair in pairwise(whole)))


def excluded(text: str, read: Read) -> Value | None:
    r"""``x \ne 1, 2``: all real numbers without these."""
    parts = re.fullmatch(r"([^<>=]+?)\\ne(?![a-z])([^<>=]+,[^<>=]+)", text)
    if parts is None or not name(parts[1]):
        return None
    values = reals(rf"\mathbb{{R}} \setminus \{{{parts[2].strip()}\}}", read)
    return Range(parts[1].strip(), values) if values else None


def outward(text: str, read: Read) -> Value | None:
    """``]0, 1[``: an open end as a bracket that turns outward."""
    found = re.fullmatch(r"([\[\]])([^\[\](){}]*(?:\{[^{}]*\}[^\[\](){}]*)*)([\[\]])", text)
    if found is None or (found[1], found[3]) == ("[", "]"):
        return None
    items = _parts(found[2], read)
    if len(items) != 2:
        return None
    return Bracketed("(" if found[1] == "]" else "[", ")" if found[3] == "[" else "]", items)


def member(text: str, read: Read) -> Value | None:
    r"""``x \in [1, 2]``: what the variable is in."""
    parts = [part.strip() for part in split(text, _IN)]
    return read(parts[1]) if len(parts) == 2 and parts[1] and name(parts[0]) else None


def inequality(text: str, read: Read) -> Value | None:
    r"""``x < 3``, ``1 \le x < 3``, ``x \ne 3`` as the values that they leave to the variable."""
    signs = [found[0].strip() for found in RELATION.finditer(text)]
    parts = [part.strip() for part in split(text, RELATION)]
    if not signs or len(parts) != len(signs) + 1 or not all(parts) or any(EQUALS.search(part) for part in parts):
        return None
    variables = [part for part in parts if name(part)]
    if len(variables) != 1:
        return None
    at = parts.index(variables[0])
    if len(parts) == 2:
        values = _one_sided(signs[0] if at == 0 else _FLIPPED[signs[0]], read(parts[1 - at]))
    elif len(parts) == 3 and at == 1:
        values = _two_sided(signs, read(parts[0]), read(parts[2]))
    else:
        values = None
    return Range(variables[0], values) if values else None


def _one_sided(sign: str, end: Value) -> Value:
    if sign == r"\ne":
        return joined([Bracketed("(", ")", (_LOW, end)), Bracketed("(", ")", (end, _HIGH))])
    if sign in ("<", r"\le"):
        return Bracketed("(", "]" if sign == r"\le" else ")", (_LOW, end))
    return Bracketed("[" if sign == r"\ge" else "(", ")", (end, _HIGH))


def _two_sided(signs: list[str], low: Value, high: Value) -> Value | None:
    if all(sign in (">", r"\ge") for sign in signs):
        signs, low, high = [_FLIPPED[sign] for sign in signs[::-1]], high, low
    if not all(sign in ("<", r"\le") for sign in signs):
        return None
    return Bracketed("[" if signs[0] == r"\le" else "(", "]" if signs[1] == r"\le" else ")", (low, high))


def between(one: Range, other: Range) -> Value | None:
    """``x > 1 and x < 3``: the interval between a lower and an upper end; None if they are not these two."""
    for low, high in ((one.values, other.values), (other.values, one.values)):
        if (
            one.variable == other.variable
            and isinstance(low, Bracketed)
            and isinstance(high, Bracketed)
            and low.items[1] == _HIGH
            and high.items[0] == _LOW
        ):
            return Range(one.variable, Bracketed(low.left, high.right, (low.items[0], high.items[1])))
    return None


def union(text: str, read: Read) -> Value | None:
    r"""``(1, 2) \cup (3, 4)``."""
    parts = [part.strip() for part in split(text, _CUP)]
    if len(parts) < 2 or not all(parts):
        return None
    return joined([read(part) for part in parts])


def joined(pieces: list[Value]) -> Value:
    """The union of pieces; of finite sets, one set."""
    flat = [part for piece in pieces for part in (piece.items if isinstance(piece, Union) else [piece])]
    if flat and all(isinstance(piece, Many) and piece.braced for piece in flat):
        return Many(tuple(part for piece in flat if isinstance(piece, Many) for part in piece.items), braced=True)
    return Union(tuple(flat))


def _parts(text: str, read: Read) -> tuple[Value, ...]:
    return tuple(read(part.strip()) for part in split(text, COMMA))
