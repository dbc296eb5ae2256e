r"""What an answer is: a number, a clock time, a set, an interval, a matrix, words, or a formula.

`read` takes the text apart by its top-level signs, in a fixed order; only what is left is a formula, which
`formulas` gives to math-verify. Text only, no mathematics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import product

from rlpost_verifiers.math.notation import closed, normal, split
from rlpost_verifiers.math.numbers import Number, number
from rlpost_verifiers.math.units import Unit, unit_of


class UnreadableError(Exception):
    """Raised for a text that is no answer of any kind."""


@dataclass(frozen=True, slots=True)
class Clock:
    """A time of day; ``half`` is am, pm or empty."""

    hour: int
    minute: int
    second: int
    half: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """``2:3``."""

    parts: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Based:
    """A numeral with its base."""

    digits: str
    base: str


@dataclass(frozen=True, slots=True)
class Many:
    """Several values without an order: a list, or a ``braced`` set."""

    items: tuple[Value, ...]
    braced: bool = False


@dataclass(frozen=True, slots=True)
class Bracketed:
    """Values in an order between two brackets: a tuple or an interval."""

    left: str
    right: str
    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """Intervals and sets joined by a union."""

    items: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """The values that inequalities leave to a variable."""

    variable: str
    values: Value


@dataclass(frozen=True, slots=True)
class Equation:
    """Parts joined by equals signs."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class About:
    """An exact part and a rounded one."""

    exact: Value
    rounded: Value


@dataclass(frozen=True, slots=True)
class Matrix:
    """Rows of cells."""

    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Text, compared as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Formula:
    """Anything else, for math-verify; ``unit`` as in `Number`."""

    latex: str
    unit: Unit = Unit()


Value = (
    Number | Clock | Ratio | Based | Many | Bracketed | Union | Range | Equation | About | Matrix | Words | Formula
)

_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2}))?)?\s*(?:([aApP])\.?\s?[mM]\.?|(noon|midnight|o'clock))?")
_HALVES = {"noon": "pm", "midnight": "am", "o'clock": "", None: ""}
_BASES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen".split()
_BASED = re.compile(r"\(?\s*([0-9A-Fa-f][0-9A-Fa-f ]*)\s*\)?\s*(?:_\s*\{?\s*([0-9a-z]+)\s*\}?|\s(?:in )?base (\w+))")
_COMMA = re.compile(r",(?!(?<=\d,)\d{3}(?!\d))|;")
_AND = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:cr|&)")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")
_EQUALS = re.compile(r"(?<![<>!:=])=+")
_ABOUT = re.compile(r"\\(?:approx|approxeq|simeq)(?![a-zA-Z])|≈")
_RELATION = re.compile(r"\\(?:le|ge|ne)(?![a-zA-Z])|<|>")
_IN = re.compile(r"\\in(?![a-zA-Z])")
_CUP = re.compile(r"\\cup(?![a-zA-Z])|(?<=[\])])\s*U\s*(?=[\[(])")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])|\+/-|\+-(?=\d)")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{3,}")
_FUNCTIONS = frozenset("sin cos tan cot sec csc log exp max min gcd lcm mod abs sqrt arcsin arccos arctan det lim".split())
_PROSE = re.compile(r"[^\W\d_]['\"\w .,&/()!?-]*")
_PRODUCT = re.compile(r"[b-df-hj-np-tv-z]{2,3}|[a-d]{2,4}|[A-Za-z]")
_UNIT_AFTER = re.compile(r"(.*[\d})\]!]|.*\\pi)\s+([A-Za-z€][A-Za-z /^{}0-9]*|DEGREE)$")
_ELLIPSES = frozenset({r"\ldots", r"\cdots", "...", "…"})
_NO_FORMULA = re.compile(
    r"\\(?:neg|lnot|cap|subset|subseteq|supset|sim|cong|perp|parallel|gcd|lcm|ldots|cdots|vdots|mod|bmod|pmod|mid|nmid|forall|exists|to|implies|Rightarrow|rightarrow|iff|equiv|propto)"
    r"(?![a-zA-Z])|\.\.|…|'|->|[#?@&]|\b(?:gcd|lcm)\(|[A-Za-z]\([^()]*\|[^()]*\)"
)
"""What math-verify drops or misreads; compared by spelling."""
_REALS = re.compile(r"(?:\\mathbb\{R\}|\\R|all real numbers|all reals|the real numbers|\(-\\infty ?, ?\\infty ?\))")
_WITHOUT = re.compile(rf"{_REALS.pattern}\s*(?:\\(?:setminus|backslash)|-|except)\s*(?:\\\{{(.*)\\\}}|([^\\{{}}]+))")
_BARE_WORD = re.compile(r"[A-Za-z][a-z]+")
_CHEMICAL = re.compile(r"(?:\(?[A-Z][a-z]?\)?(?:_?\{?\d+\}?)?){2,}|[A-Z][a-z]?_?\{?\d+\}?")
_TRIGONOMETRY = re.compile(r"\\(?:sin|cos|tan|cot|sec|csc)")
_MOST = 100
"""Most values of a list that are read."""


def read(text: str) -> Value:
    r"""What ``text`` is.

    Raises:
        UnreadableError: if nothing is left of it, or it has more than 100 parts.

    >>> read("7\\text{ km/h}").value, read("east"), read("\\{1, 2\\}").braced
    (Fraction(7, 1), Words(text='east'), True)
    """
    return _read(normal(text))


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


def name(text: str) -> bool:
    r"""Whether the left side of an equation only names what the right side gives: it has no number of its own.

    >>> name("x"), name("f(2)"), name("2x"), name("a_{10}")
    (True, True, False, True)
    """
    text = re.sub(r"_\s*(?:\{[^{}]*\}|\w)|\^\{-1\}|\^\{?\\prime\}?", "", text)
    text = re.sub(r"(?<![\\A-Za-z])[A-Za-z]{1,2}\s*(?:\([^()]*\)|\[[^\[\]]*\])|\\[a-z]+\([^()]*\)", "f", text)
    return bool(text.strip()) and not re.search(r"\d|\\infty|\\pi(?![a-z])|\\emptyset", text)


def _read(text: str) -> Value:
    if not text:
        raise UnreadableError("nothing is left of it")
    for reader in (_clock, _based, number, _reals, _outward, _ratio, _excluded, _several, _about, _member, _range, _equation, _plus_minus, _union):
        found = reader(text)
        if found is not None:
            return found
    for reader in (_set, _bracketed, _matrix, _words):
        found = reader(text)
        if found is not None:
            return found
    return _formula(text)


def _clock(text: str) -> Clock | None:
    found = _CLOCK.fullmatch(text)
    if found is None or not (found[2] or found[4] or found[5]):
        return None
    hour, minute, second = (int(found[part] or 0) for part in (1, 2, 3))
    if hour > 24 or minute > 59 or second > 59:
        return None
    return Clock(hour, minute, second, f"{found[4].lower()}m" if found[4] else _HALVES[found[5]])


def _based(text: str) -> Based | None:
    found = _BASED.fullmatch(text)
    if found is None:
        return None
    base = found[2] or found[3]
    base = str(_BASES.index(base)) if base in _BASES else base
    if not base.isdigit() or not re.search(r"\d", found[1] + base):
        return None
    # C_4 is a name with an index
    if len(found[1].strip()) == 1 and found[1].strip().isalpha():
        return None
    return Based(found[1].replace(" ", "").upper(), base)


def _reals(text: str) -> Value | None:
    """All real numbers, perhaps without some."""
    if _REALS.fullmatch(text):
        return Bracketed("(", ")", (_LOW, _HIGH))
    found = _WITHOUT.fullmatch(text)
    if found is None:
        return None
    ends = _items((found[1] or found[2]).strip())
    if not all(isinstance(end, Number) for end in ends):
        return None
    inner = sorted((end for end in ends if isinstance(end, Number)), key=lambda end: end.value)
    whole = [_LOW, *inner, _HIGH]
    return Union(tuple(Bracketed("(", ")", pair) for pair in zip(whole, whole[1:], strict=False)))


def _excluded(text: str) -> Value | None:
    """``x \\ne 1, 2``: all real numbers without these."""
    parts = re.fullmatch(r"([^<>=]+?)\\ne(?![a-z])([^<>=]+,[^<>=]+)", text)
    if parts is None or not name(parts[1]):
        return None
    values = _reals(rf"\mathbb{{R}} \setminus \{{{parts[2].strip()}\}}")
    return Range(parts[1].strip(), values) if values else None


def _outward(text: str) -> Value | None:
    """``]0, 1[``: an open end as a bracket that turns outward."""
    found = re.fullmatch(r"([\[\]])([^\[\](){}]*(?:\{[^{}]*\}[^\[\](){}]*)*)([\[\]])", text)
    if found is None or (found[1], found[3]) == ("[", "]"):
        return None
    items = _items(found[2].strip())
    return Bracketed("(" if found[1] == "]" else "[", ")" if found[3] == "[" else "]", items) if len(items) == 2 else None


def _ratio(text: str) -> Ratio | None:
    parts = split(text, re.compile(r":| to ")) if len(text) < 80 else [text]
    if len(parts) < 2 or any(not re.fullmatch(r"[\w\s\\{}.,^+*/()-]+", part) or _WORD.search(part) for part in parts):
        return None
    return Ratio(tuple(_read(part.strip()) for part in parts))


def _several(text: str) -> Value | None:
    parts = [part for whole in split(text, _COMMA) for part in split(whole, _AND)]
    parts = [part.strip() for part in parts]
    if len(parts) < 2:
        return None
    # "1, 2, and 3" leaves an empty part between the comma and the word
    kept = [part for part in parts if part]
    if len(kept) > _MOST or not kept:
        raise UnreadableError(f"it has {len(kept)} parts")
    if len(kept) == 1:
        return None
    items = tuple(_read(part) for part in kept)
    if any(isinstance(item, Words) and item.text in _ELLIPSES for item in items):
        return Bracketed("", "", items)
    variables = {item.variable for item in items if isinstance(item, Range)}
    if all(isinstance(item, Range) for item in items) and len(variables) == 1 and len(split(text, _OR)) == len(kept):
        pieces = [item.values for item in items if isinstance(item, Range)]
        return Range(variables.pop(), _joined(pieces))
    return Many(_flat(items))


def _flat(items: tuple[Value, ...]) -> tuple[Value, ...]:
    r"""``3, \pm 1`` is one list."""
    return tuple(part for item in items for part in (item.items if isinstance(item, Many) and not item.braced else [item]))


def _about(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, _ABOUT)]
    if len(parts) < 2 or not parts[-1]:
        return None
    if not parts[0] or name(parts[0]):
        return _read(parts[-1])
    return About(_read(parts[0]), _read(parts[-1]))


def _member(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, _IN)]
    return _read(parts[1]) if len(parts) == 2 and parts[1] and name(parts[0]) else None


def _range(text: str) -> Value | None:
    signs = [found[0].strip() for found in _RELATION.finditer(text)]
    parts = [part.strip() for part in split(text, _RELATION)]
    if not signs or len(parts) != len(signs) + 1 or not all(parts):
        return None
    variables = [part for part in parts if name(part)]
    if len(variables) != 1 or len(parts) > 3 or (len(parts) == 3 and not name(parts[1])):
        return None
    if any(_EQUALS.search(part) for part in parts):
        return None
    at = parts.index(variables[0])
    if r"\ne" in signs:
        if len(parts) != 2:
            return None
        end = _read(parts[1 - at])
        return Range(variables[0], _joined([Bracketed("(", ")", (_LOW, end)), Bracketed("(", ")", (end, _HIGH))]))
    if len(parts) == 3:
        if {sign in (">", r"\ge") for sign in signs} == {True}:
            parts, signs = parts[::-1], [_FLIPPED[sign] for sign in signs[::-1]]
        if not all(sign in ("<", r"\le") for sign in signs):
            return None
        left, right = ("[" if signs[0] == r"\le" else "("), ("]" if signs[1] == r"\le" else ")")
        return Range(variables[0], Bracketed(left, right, (_read(parts[0]), _read(parts[2]))))
    sign, end = (signs[0] if at == 0 else _FLIPPED[signs[0]]), _read(parts[1 - at])
    if sign in ("<", r"\le"):
        return Range(variables[0], Bracketed("(", "]" if sign == r"\le" else ")", (_LOW, end)))
    return Range(variables[0], Bracketed("[" if sign == r"\ge" else "(", ")", (end, _HIGH)))


def _equation(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, _EQUALS)]
    if len(parts) < 2 or not all(parts) or _RELATION.search(text):
        return None
    # 5 = x
    if name(parts[-1]) and not name(parts[0]) and len(parts) == 2:
        parts.reverse()
    return Equation(tuple(parts))


def _plus_minus(text: str) -> Value | None:
    pieces = _PLUS_MINUS.split(text)
    if not 2 <= len(pieces) <= 4:
        return None
    found: list[Value] = []
    for signs in product("+-", repeat=len(pieces) - 1):
        whole = pieces[0] + "".join(sign + piece for sign, piece in zip(signs, pieces[1:], strict=True))
        found.append(_read(re.sub(r"^\s*\+\s*|(?<=[\[{(,])\s*\+\s*", "", whole).strip()))
    if all(isinstance(item, Many) and item.braced for item in found):
        return Many(tuple(part for item in found if isinstance(item, Many) for part in item.items), braced=True)
    if all(isinstance(item, Equation) for item in found):
        return Many(tuple(found))
    return Many(_flat(tuple(found)))


def _union(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, _CUP)]
    if len(parts) < 2 or not all(parts):
        return None
    return _joined([_read(part) for part in parts])


def _joined(pieces: list[Value]) -> Value:
    flat = [part for piece in pieces for part in (piece.items if isinstance(piece, Union) else [piece])]
    if flat and all(isinstance(piece, Many) and piece.braced for piece in flat):
        return Many(tuple(part for piece in flat if isinstance(piece, Many) for part in piece.items), braced=True)
    return Union(tuple(flat))


def _set(text: str) -> Value | None:
    if text in (r"\emptyset", r"\{\}", r"\{ \}"):
        return Many((), braced=True)
    if not (text.startswith(r"\{") and text.endswith(r"\}") and closed(text[1:-2] + "}")):
        return None
    inside = text[2:-2].strip()
    if re.search(r"\\mid|\||:", inside):
        return None
    return Many(_flat(_items(inside)), braced=True)


def _bracketed(text: str) -> Value | None:
    if not (text[0] in "([" and text[-1] in ")]" and closed(text)):
        return None
    inside = text[1:-1].strip()
    items = _items(inside) if inside else ()
    if len(items) == 1 and text[0] == "(" and text[-1] == ")":
        return items[0]
    return Bracketed(text[0], text[-1], items)


def _items(inside: str) -> tuple[Value, ...]:
    parts = [part.strip() for part in split(inside, _COMMA)]
    if len(parts) > _MOST:
        raise UnreadableError(f"it has {len(parts)} parts")
    return tuple(_read(part) for part in parts)


def _matrix(text: str) -> Value | None:
    found = _MATRIX.fullmatch(text)
    if found is None or r"\begin" in found[2]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found[2]) if row.strip(" \\")]
    return Matrix(tuple(tuple(_read(normal(cell)) for cell in row.split("&")) for row in rows))


def _words(text: str) -> Value | None:
    if _NO_FORMULA.search(text) and re.search(r"\w", text):
        return Words(text)
    if _CHEMICAL.fullmatch(text.replace(" ", "")) and not _BARE_WORD.fullmatch(text):
        return Words(re.sub(r"[_{} ]", "", text))
    plain = text.strip("\"'() ")
    words = [word for word in _WORD.findall(text) if word.lower() not in _FUNCTIONS]
    if _PROSE.fullmatch(plain) and not re.search(r"\d", plain):
        bare = plain.strip(".,!?")
        if not _PRODUCT.fullmatch(bare) and not (bare.lower() in _FUNCTIONS):
            return Words(bare)
        return None
    return Words(plain) if words and r"\text" not in text and not _UNIT_AFTER.fullmatch(text) else None


def _formula(text: str) -> Formula:
    found = _UNIT_AFTER.fullmatch(text)
    # the degrees of sin 30° belong to the angle
    if found and not (found[2] == "DEGREE" and _TRIGONOMETRY.search(text)):
        unit = unit_of(found[2])
        if unit is not None and (unit.powers is not None or len(found[2]) > 3) and len(found[2]) > 1:
            return Formula(found[1], unit)
    return Formula(text.replace("DEGREE", r"^\circ").replace("DOLLAR", ""))


_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", r"\ne": r"\ne"}
_HIGH, _LOW = Formula(r"\infty"), Formula(r"-\infty")
