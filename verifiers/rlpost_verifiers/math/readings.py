r"""What an answer is: a number, a clock time, a set, an interval, a matrix, words, or a formula.

`read` takes the text apart by its top-level signs, in a fixed order; only what is left is a formula, which
`formulas` gives to math-verify. Text only, no mathematics.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product

from rlpost_verifiers.math.intervals import (
    RELATION,
    between,
    excluded,
    inequality,
    joined,
    member,
    outward,
    reals,
    union,
)
from rlpost_verifiers.math.names import name
from rlpost_verifiers.math.notation import COMMA, EQUALS, closed, normal, split
from rlpost_verifiers.math.numbers import number
from rlpost_verifiers.math.numerals import NAMES
from rlpost_verifiers.math.units import is_function_word, unit_of
from rlpost_verifiers.math.values import (
    About,
    Based,
    Bracketed,
    Clock,
    Equation,
    Formula,
    Many,
    Matrix,
    Range,
    Ratio,
    Value,
    Words,
)


class UnreadableError(Exception):
    """Raised for a text that is no answer of any kind."""


_CLOCK = re.compile(r"(\d{1,2})(?::(\d{2})(?::(\d{2}))?)?\s*(?:([aApP])\.?\s?[mM]\.?|(noon|midnight|o'clock))?")
_HALVES = {"noon": "pm", "midnight": "am", "o'clock": "o'clock", None: ""}
_BASED = re.compile(r"\(?\s*([0-9A-Fa-f][0-9A-Fa-f ]*)\s*\)?\s*(?:_\s*\{?\s*([0-9a-z]+)\s*\}?|\s(?:in )?base (\w+))")
_AND = re.compile(r"(?<![A-Za-z\\])(?:and|or)(?![A-Za-z])|\\(?:cr|&)")
_OR = re.compile(r"(?<![A-Za-z\\])or(?![A-Za-z])")
_ABOUT = re.compile(r"\\(?:approx|approxeq|simeq)(?![a-zA-Z])|≈")
_PLUS_MINUS = re.compile(r"\\pm(?![a-zA-Z])|\+/-|\+-(?=\d)")
_MATRIX = re.compile(r"\\begin\{([pbB]?matrix|smallmatrix|array)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
_WORD = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{3,}")
_FUNCTION_NAMES = "sin cos tan cot sec csc log exp max min gcd lcm mod abs sqrt arcsin arccos arctan det lim"
_FUNCTIONS = frozenset(_FUNCTION_NAMES.split())
_PROSE = re.compile(r"[^\W\d_]['\"\w .,&/()!?-]*")
_PRODUCT = re.compile(r"[b-df-hj-np-tv-z]{2,3}|[a-d]{2,4}|[A-Za-z]")
_UNIT_AFTER = re.compile(r"(.*[\d})\]!]|.*\\pi)\s+([A-Za-z€][A-Za-z /^{}0-9]*|DEGREE)$")
_COMMENT = re.compile(r"(?<=[\d})%])\s+\(\s*(?:((?:since|because)\b[^()]*)|([A-Za-z][A-Za-z ,-]{3,}))\)$")
_LABELLED = re.compile(r"([A-Za-z][A-Za-z ]{2,}):\s*(\S.*)")
_ROWS = re.compile(r"\\begin\{(cases|aligned|gathered)\}(.*)\\end\{\1\}", re.DOTALL)
_HARMLESS = frozenset({"by", "with", "about", "is", "are", "was", "were", "so", "then", "yes", "true", "at", "if"})
_ELLIPSES = frozenset({r"\ldots", r"\cdots", "...", "…"})
_NO_FORMULA = re.compile(
    r"\\(?:neg|lnot|cap|subset|subseteq|supset|sim|cong|perp|parallel|gcd|lcm|ldots|cdots|vdots|mod|bmod|pmod|mid|nmid"
    r"|forall|exists|to|implies|Rightarrow|rightarrow|iff|equiv|propto)(?![a-zA-Z])"
    r"|\.\.|…|'|->|[#?@&]|\b(?:gcd|lcm)\(|[A-Za-z]\([^()]*\|[^()]*\)"
)
"""What math-verify drops or misreads; compared by spelling."""
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
    text = normal(text)
    comment = _COMMENT.search(text)
    if comment and (comment[1] or not any(map(_unsettles, comment[2].split()))):
        text = text[: comment.start()]
    return _read(text)


def _read(text: str) -> Value:
    if not text:
        raise UnreadableError("nothing is left of it")
    for reader in _READERS:
        found = reader(text)
        if found is not None:
            return found
    return _formula(text)


def _unsettles(word: str) -> bool:
    """Whether a word in brackets may change the answer before it: ``5 (or six)``, not ``5 (by symmetry)``."""
    return is_function_word(word) and word not in _HARMLESS


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
    base = str(NAMES.index(base)) if base in NAMES else base
    if not base.isdigit() or not re.search(r"\d", found[1] + base):
        return None
    # C_4 is a name with an index
    if len(found[1].strip()) == 1 and found[1].strip().isalpha():
        return None
    return Based(found[1].replace(" ", "").upper(), base)


def _ratio(text: str) -> Ratio | None:
    parts = split(text, re.compile(r":| to ")) if len(text) < 80 else [text]
    if len(parts) < 2 or any(not re.fullmatch(r"[\w\s\\{}.,^+*/()-]+", part) or _WORD.search(part) for part in parts):
        return None
    return Ratio(tuple(_read(part.strip()) for part in parts))


def _rows(text: str) -> Value | None:
    """Lines of a system of equations, as a list."""
    found = _ROWS.fullmatch(text)
    if found is None:
        return None
    rows = [normal(row.replace("&", "")) for row in re.split(r"\\\\", found[2])]
    return Many(tuple(_read(row) for row in rows if row))


def _labelled(text: str) -> Value | None:
    """``Total: 5``."""
    found = _LABELLED.fullmatch(text)
    return Equation((found[1], found[2])) if found else None


def _several(text: str) -> Value | None:
    parts = [part for whole in split(text, COMMA) for part in split(whole, _AND)]
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
        return Range(variables.pop(), joined(pieces))
    if len(items) == 2 and isinstance(items[0], Range) and isinstance(items[1], Range):
        return between(items[0], items[1]) or Many(items)
    return Many(_flat(items))


def _flat(items: tuple[Value, ...]) -> tuple[Value, ...]:
    r"""``3, \pm 1`` is one list."""
    return tuple(
        part for item in items for part in (item.items if isinstance(item, Many) and not item.braced else [item])
    )


def _about(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, _ABOUT)]
    if len(parts) < 2 or not parts[-1]:
        return None
    if not parts[0] or name(parts[0]):
        return _read(parts[-1])
    return About(_read(parts[0]), _read(parts[-1]))


def _equation(text: str) -> Value | None:
    parts = [part.strip() for part in split(text, EQUALS)]
    if len(parts) < 2 or not all(parts) or RELATION.search(text):
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
    if len(items) == 1 and ((text[0] == "(" and text[-1] == ")") or isinstance(items[0], Matrix)):
        return items[0]
    return Bracketed(text[0], text[-1], items)


def _items(inside: str) -> tuple[Value, ...]:
    parts = [part.strip() for part in split(inside, COMMA)]
    if len(parts) > _MOST:
        raise UnreadableError(f"it has {len(parts)} parts")
    return tuple(_read(part) for part in parts)


def _matrix(text: str) -> Value | None:
    found = _MATRIX.fullmatch(text)
    if found is None or r"\begin" in found[2]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found[2]) if row.strip(" \\")]
    return Matrix(text, tuple(tuple(_read(normal(cell)) for cell in row.split("&")) for row in rows))


def _words(text: str) -> Value | None:
    if r"\begin" in text:
        return None
    if _NO_FORMULA.search(text) and re.search(r"\w", text):
        return Words(text)
    if _CHEMICAL.fullmatch(text.replace(" ", "")) and not _BARE_WORD.fullmatch(text):
        return Words(re.sub(r"[_{} ]", "", text))
    plain = text.strip("\"'() ")
    words = [word for word in _WORD.findall(text) if word.lower() not in _FUNCTIONS]
    if _PROSE.fullmatch(plain) and not re.search(r"\d", plain):
        bare = plain.strip(".,!?")
        if not _PRODUCT.fullmatch(bare) and bare.lower() not in _FUNCTIONS:
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


def _reader(reader: Callable[[str, Callable[[str], Value]], Value | None]) -> Callable[[str], Value | None]:
    return lambda text: reader(text, _read)


_READERS: tuple[Callable[[str], Value | None], ...] = (
    _clock,
    _based,
    number,
    _reader(reals),
    _reader(outward),
    _rows,
    _labelled,
    _ratio,
    _reader(excluded),
    _several,
    _about,
    _reader(member),
    _reader(inequality),
    _equation,
    _plus_minus,
    _reader(union),
    _set,
    _bracketed,
    _matrix,
    _words,
)
"""In the order in which they are asked: what splits a text comes before what it splits into."""
