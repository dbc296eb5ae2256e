"""The kinds of answers that `readings` tells apart, beside `numbers.Number`."""

from __future__ import annotations

from dataclasses import dataclass

from rlpost_verifiers.math.numbers import Number
from rlpost_verifiers.math.units import NO_UNIT, Unit


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
    """Rows of cells, and how they are written."""

    latex: str
    rows: tuple[tuple[Value, ...], ...]


@dataclass(frozen=True, slots=True)
class Words:
    """Text, compared as text."""

    text: str


@dataclass(frozen=True, slots=True)
class Formula:
    """Anything else, for math-verify; ``unit`` as in `Number`."""

    latex: str
    unit: Unit = NO_UNIT


Value = Number | Clock | Ratio | Based | Many | Bracketed | Union | Range | Equation | About | Matrix | Words | Formula
