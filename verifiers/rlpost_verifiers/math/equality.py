"""Whether an answer is the gold one, by the kinds of `readings`; formulas are left to a function that is passed in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Protocol

from rlpost_verifiers.math import numbers
from rlpost_verifiers.math.names import choice, letters, name
from rlpost_verifiers.math.notation import closed, normal
from rlpost_verifiers.math.numbers import Number
from rlpost_verifiers.math.numerals import spoken
from rlpost_verifiers.math.readings import read
from rlpost_verifiers.math.units import unit_of
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
    Union,
    Value,
    Words,
)

_ENDLESS = frozenset({r"\infty", r"-\infty"})
_ALONE = re.compile(r"[^+*/^-]+|\\frac\{d\w?\}\{d\w\}")
_MOST_MATCHED = 30
"""Longer lists are compared in their order."""


class UnevaluatedError(Exception):
    """Raised for an answer that leaves something to be calculated where the gold answer is a finished number."""


class Formulas(Protocol):
    """What the module `formulas` does."""

    def same(self, left: str | Fraction, right: str | Fraction, places: int = 0) -> bool:
        """Whether two formulas are equal."""
        ...

    def same_equations(self, left: tuple[str, str], right: tuple[str, str]) -> bool:
        """Whether two equations are."""
        ...

    def rounded(self, exact: str | Fraction, value: Fraction) -> bool:
        """Whether ``value`` is ``exact`` rounded."""
        ...


@dataclass(frozen=True, slots=True)
class Judge:
    """Compares answers with gold ones.

    Args:
        formulas: the module `formulas`, which needs sympy.
        strict: whether an answer for a number must be a finished number.
        asks_percent: whether the question asks for a percentage, so that ``50%`` may be 50.
    """

    formulas: Formulas
    strict: bool = True
    asks_percent: bool = False

    def accepts(self, gold: str, answer: str, shortcut: bool = True) -> bool:
        """Whether ``answer`` is ``gold``.

        Args:
            gold: the gold answer.
            answer: the answer of the model.
            shortcut: accept equal spelling without comparing values.

        Raises:
            UnevaluatedError: if the answer is a formula where the gold answer is a number.
            UnreadableError: if there is nothing to read.
        """
        letter = choice(gold)
        if letter is not None:
            return choice(answer) == letter
        several = letters(gold)
        if several is not None and several == letters(answer):
            return True
        wanted = _read(gold)
        if isinstance(wanted, Words):
            signs = re.search(r"[\\\d_^|]", gold)
            if _text(answer) == _text(gold) or (signs and _spelling(answer) == _spelling(gold)):
                return True
            shortcut = False
        if shortcut and not isinstance(wanted, Number) and _spelling(gold) == _spelling(answer):
            return True
        return self.same(wanted, read(answer))

    def same(self, gold: Value, given: Value) -> bool:
        """Whether two readings are the same answer.

        Raises:
            UnevaluatedError: if ``given`` is a formula where ``gold`` is a number.
        """
        unwrapped = self._unwrapped(gold, given)
        if unwrapped is not None:
            return unwrapped
        for kinds, test in self._tests():
            if isinstance(gold, kinds):
                return test(gold, given)
        return False

    def _tests(self) -> Sequence[tuple[type | tuple[type, ...], Callable[[Value, Value], bool]]]:
        return (
            (Number, self._number),
            (Clock, _same_clock),
            (Ratio, self._ratio),
            (Based, _same_numeral),
            (Many, self._many),
            (Bracketed, self._bracketed),
            (Union, self._union),
            (Matrix, self._matrix),
            (Words, _same_words),
            (Formula, self._formula),
        )

    def _unwrapped(self, gold: Value, given: Value) -> bool | None:
        """The comparison where one of the two is a value with something around it: ``x = 5``, ``x > 2``, ``≈``."""
        if isinstance(gold, About):
            return self.same(gold.exact, given) or self.same(gold.rounded, given)
        if isinstance(given, About):
            wanted = given.rounded if isinstance(gold, Number) and gold.places else given.exact
            return self._rounds(given) and self.same(gold, wanted)
        if isinstance(gold, Range) and isinstance(given, Range):
            return _spelling(gold.variable) == _spelling(given.variable) and self.same(gold.values, given.values)
        if isinstance(gold, Range):
            return isinstance(given, (Bracketed, Union)) and self.same(gold.values, given)
        if isinstance(given, Range):
            return isinstance(gold, (Bracketed, Union)) and self.same(gold, given.values)
        if isinstance(gold, Equation) and isinstance(given, Equation):
            return self._equations(gold, given)
        if isinstance(given, Equation):
            return self._holds(given) and self.same(gold, read(given.parts[-1]))
        if isinstance(gold, Equation):
            # x + y = 5 is an equation that 5 does not give
            left = gold.parts[0]
            named = (name(left) and _ALONE.fullmatch(left)) or not re.search(r"(?<![\\A-Za-z])[A-Za-z]", left)
            return bool(named) and self.same(read(gold.parts[-1]), given)
        return None

    def _rounds(self, given: About) -> bool:
        r"""Whether the second part of ``\frac{22}{7} ≈ 3.14`` is the first one rounded."""
        exact = given.exact.value if isinstance(given.exact, Number) else given.exact
        if not isinstance(given.rounded, Number) or not isinstance(exact, (Fraction, Formula)):
            return False
        return self.formulas.rounded(exact.latex if isinstance(exact, Formula) else exact, given.rounded.value)

    def _holds(self, given: Equation) -> bool:
        """Whether every part that is more than a name equals the last one: ``x = 6/2 = 3`` does, ``4 = 5`` does not."""
        last = given.parts[-1]
        lenient = Judge(self.formulas, strict=False)
        for part in given.parts[:-1]:
            if name(part) or isinstance(read(part), Words):
                continue
            left, right = read(part), read(last)
            if isinstance(left, Number) and isinstance(right, Number):
                left, right = (Number(side.value, side.places, side.percent) for side in (left, right))
            if not lenient.same(left, right) and not lenient.same(right, left):
                return False
        return True

    def _equations(self, gold: Equation, given: Equation) -> bool:
        if _spelling(gold.parts[0]) == _spelling(given.parts[0]) and name(gold.parts[0]):
            return self._holds(given) and self.same(read(gold.parts[-1]), read(given.parts[-1]))
        if len(gold.parts) != 2 or len(given.parts) != 2:
            return False
        return self.formulas.same_equations((gold.parts[0], gold.parts[1]), (given.parts[0], given.parts[1]))

    def _number(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Number)
        if isinstance(given, Number):
            return numbers.equal(gold, given, self.asks_percent)
        if isinstance(given, Many) and given.braced and len(given.items) == 1:
            return self.same(gold, given.items[0])
        if isinstance(given, Many) and not given.braced and len(set(given.items)) > 1:
            # one value in two spellings: "1/2 or 50%"
            return all(self._pair(gold, item) for item in given.items)
        if isinstance(given, Clock):
            return given.half != "" and (given.minute, given.second) == (0, 0) and gold.value == given.hour
        if isinstance(given, Based):
            return given.base == "10" and given.digits.isdigit() and gold.value == int(given.digits)
        if isinstance(given, Ratio):
            return gold.value.denominator != 1 and _as_fraction(given) == gold.value
        if isinstance(given, Words):
            return _counted(given.text) == gold.value
        if isinstance(given, Formula):
            if self.strict:
                raise UnevaluatedError(f"{given.latex!r} leaves something to be done, the answer is a plain number")
            return self.formulas.same(given.latex, gold.value / 100 if gold.percent else gold.value, gold.places)
        return False

    def _ratio(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Ratio)
        if isinstance(given, Number):
            return given.value.denominator != 1 and _as_fraction(gold) == given.value
        if not isinstance(given, Ratio) or len(gold.parts) != len(given.parts):
            return False
        pairs = list(zip(gold.parts, given.parts, strict=True))
        values = [(a.value, b.value) for a, b in pairs if isinstance(a, Number) and isinstance(b, Number)]
        if len(values) == len(pairs) and all(a and b for a, b in values):
            return len({a / b for a, b in values}) == 1
        return all(self.same(a, b) for a, b in pairs)

    def _many(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Many)
        if not isinstance(given, Many):
            if isinstance(given, Bracketed) and _named(gold):
                return self._in_order(_by_name(gold), given.items)
            # one value, perhaps in two spellings: "1/2 or 0.5"
            single = all(self._pair(gold.items[0], item) for item in gold.items[1:])
            return bool(gold.items) and single and self.same(gold.items[0], given)
        if _named(given) and not any(isinstance(item, Equation) for item in gold.items):
            return not gold.braced and self._in_order(gold.items, _by_name(given))
        return self._matched(gold.items, given.items) and _same_nouns(gold, given)

    def _bracketed(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Bracketed)
        if isinstance(given, Many) and not given.braced and (gold.left, gold.right) == ("(", ")"):
            return self._in_order(gold.items, _by_name(given) if _named(given) else given.items)
        if not isinstance(given, Bracketed) or not self._in_order(gold.items, given.items):
            return False
        left, right = gold.left == given.left, gold.right == given.right
        # no bracket includes an infinite end
        return (left or _endless(gold.items[0])) and (right or _endless(gold.items[-1]))

    def _union(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Union)
        return isinstance(given, Union) and self._matched(gold.items, given.items)

    def _matrix(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Matrix)
        if isinstance(given, Formula):
            return self.formulas.same(gold.latex, given.latex)
        if not isinstance(given, Matrix) or len(gold.rows) != len(given.rows):
            return False
        return all(self._in_order(ours, theirs) for ours, theirs in zip(gold.rows, given.rows, strict=True))

    def _formula(self, gold: Value, given: Value) -> bool:
        assert isinstance(gold, Formula)
        if isinstance(given, Many):
            return given.braced and len(given.items) == 1 and self.same(gold, given.items[0])
        if isinstance(given, Matrix):
            return self.formulas.same(gold.latex, given.latex)
        if not isinstance(given, (Number, Formula)):
            return False
        ours, theirs = gold.unit, given.unit
        if ours.powers is not None and theirs.powers is not None and ours != theirs:
            return False
        if isinstance(given, Number):
            return self.formulas.same(gold.latex, given.value / 100 if given.percent else given.value, given.places)
        return self.formulas.same(gold.latex, given.latex)

    def _in_order(self, gold: Sequence[Value], given: Sequence[Value]) -> bool:
        return len(gold) == len(given) and all(self._pair(a, b) for a, b in zip(gold, given, strict=True))

    def _pair(self, gold: Value, given: Value) -> bool:
        """`same` for values of a list, where an unfinished one is only not this one."""
        try:
            return self.same(gold, given)
        except UnevaluatedError:
            return False

    def _matched(self, gold: Sequence[Value], given: Sequence[Value]) -> bool:
        """Whether each value of one side is on the other; written twice, a value counts once."""
        if max(len(gold), len(given)) > _MOST_MATCHED:
            return self._in_order(gold, given)
        return all(any(self._pair(a, b) for b in given) for a in gold) and all(
            any(self._pair(a, b) for a in gold) for b in given
        )


@lru_cache(maxsize=1024)
def _read(gold: str) -> Value:
    return read(gold)


def _counted(text: str) -> Fraction | None:
    """The number of ``two apples``."""
    words, noun = text.rpartition(" ")[::2]
    return spoken(words) if words and unit_of(noun) else None


def _same_words(gold: Value, given: Value) -> bool:
    return isinstance(gold, Words) and isinstance(given, Words) and _text(given.text) == _text(gold.text)


def _same_clock(gold: Value, given: Value) -> bool:
    if not isinstance(gold, Clock) or not isinstance(given, Clock):
        return False
    if (gold.minute, gold.second) != (given.minute, given.second):
        return False
    halves = [clock.half in ("am", "pm") for clock in (gold, given)]
    if all(halves):
        return gold.half == given.half and gold.hour % 12 == given.hour % 12
    if not any(halves):
        return gold.hour == given.hour
    return gold.hour == given.hour or _hour(gold) == _hour(given)


def _hour(clock: Clock) -> int:
    return clock.hour if clock.half not in ("am", "pm") else clock.hour % 12 + (12 if clock.half == "pm" else 0)


def _same_numeral(gold: Value, given: Value) -> bool:
    assert isinstance(gold, Based)
    digits = gold.digits.lstrip("0")
    if isinstance(given, Based):
        return digits == given.digits.lstrip("0") and gold.base == given.base
    # a question that asks for a base often leaves it out of the answer
    return isinstance(given, Number) and given.places == 0 and str(given.value) == digits


def _as_fraction(ratio: Ratio) -> Fraction | None:
    values = [part.value for part in ratio.parts if isinstance(part, Number)]
    return values[0] / values[1] if len(values) == len(ratio.parts) == 2 and values[1] else None


def _same_nouns(gold: Many, given: Many) -> bool:
    """Whether the nouns of ``9 chickens and 10 rabbits`` go with the same numbers, as far as both sides give them."""
    wanted = {item.unit.noun: item.value for item in gold.items if isinstance(item, Number) and item.unit.noun}
    found = {item.unit.noun: item.value for item in given.items if isinstance(item, Number) and item.unit.noun}
    return all(wanted[noun] == value for noun, value in found.items() if noun in wanted)


def _named(many: Many) -> bool:
    """Whether each value has a name of its own; ``x_1`` and ``x_2`` are roots of one variable, whose order is free."""
    names = [item.parts[0] for item in many.items if isinstance(item, Equation) and len(item.parts) == 2]
    letters_only = {re.sub(r"_.*", "", name) for name in names}
    return len(letters_only) == len(many.items) > 1 and all(map(name, names))


def _by_name(many: Many) -> list[Value]:
    """The values of ``y = 2, x = 1`` in the order of the names."""
    pairs = sorted(item.parts for item in many.items if isinstance(item, Equation))
    return [read(parts[1]) for parts in pairs]


def _endless(value: Value) -> bool:
    return isinstance(value, Formula) and value.latex.replace(" ", "") in _ENDLESS


def _spelling(text: str) -> str:
    return re.sub(r"\s", "", normal(text))


def _text(text: str) -> str:
    """Words without case, articles, quotation marks and the punctuation at the end."""
    text = normal(text).strip("\"'`").casefold()
    text = text[1:-1] if text.startswith("(") and closed(text) else text
    text = re.sub(r"^(?:the|an?) ", "", " ".join(text.split()))
    return text.strip(" .,!?")
