"""Propositional formulas: their notation, their truth tables and their shapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Connective = Literal["→", "∧", "∨", "↔"]

# Lean's precedences; an operand on the right may have the same one without parentheses, except for ↔.
_STRENGTH: dict[Connective, int] = {"↔": 20, "→": 25, "∨": 30, "∧": 35}
_NOT_STRENGTH = 40


@dataclass(frozen=True, slots=True)
class Atom:
    """A propositional variable."""

    name: str


@dataclass(frozen=True, slots=True)
class Falsum:
    """``False``."""


@dataclass(frozen=True, slots=True)
class Not:
    """``¬body``."""

    body: Formula


@dataclass(frozen=True, slots=True)
class Binary:
    """``left → right`` and the other connectives with two sides."""

    connective: Connective
    left: Formula
    right: Formula


Formula = Atom | Falsum | Not | Binary


def implies(left: Formula, right: Formula) -> Binary:
    """``left → right``."""
    return Binary("→", left, right)


def atoms(formula: Formula) -> tuple[str, ...]:
    """The names of the atoms in order of first appearance, left to right.

    >>> atoms(implies(Atom("q"), Not(Atom("p"))))
    ('q', 'p')
    """
    match formula:
        case Atom(name):
            return (name,)
        case Falsum():
            return ()
        case Not(body):
            return atoms(body)
        case Binary(_, left, right):
            return tuple(dict.fromkeys((*atoms(left), *atoms(right))))


def size(formula: Formula) -> int:
    """The number of connectives, negations included."""
    match formula:
        case Not(body):
            return 1 + size(body)
        case Binary(_, left, right):
            return 1 + size(left) + size(right)
        case _:
            return 0


def is_tautology(formula: Formula) -> bool:
    """Whether every row of the truth table makes the formula true.

    >>> p = Atom("p")
    >>> is_tautology(Binary("∨", p, Not(p))), is_tautology(implies(p, Not(p)))
    (True, False)
    """
    names = atoms(formula)
    rows = 1 << len(names)
    # Bit r of a column is the value in row r, so one pass over the formula evaluates the whole table.
    columns = {name: sum(1 << row for row in range(rows) if row >> i & 1) for i, name in enumerate(names)}
    every = (1 << rows) - 1
    return _column(formula, columns, every) == every


def _column(formula: Formula, columns: dict[str, int], every: int) -> int:
    match formula:
        case Atom(name):
            return columns[name]
        case Falsum():
            return 0
        case Not(body):
            return every ^ _column(body, columns, every)
        case Binary(connective, left, right):
            a, b = _column(left, columns, every), _column(right, columns, every)
            table = {"→": every ^ a | b, "∧": a & b, "∨": a | b, "↔": every ^ a ^ b}
            return table[connective]


def formula_tokens(formula: Formula, strength: int = 0) -> list[str]:
    """The formula in Lean's notation with the fewest parentheses.

    Args:
        formula: the formula to write.
        strength: binding strength (precedence) of the context; a weaker formula is put in parentheses.

    >>> p, q = Atom("p"), Atom("q")
    >>> " ".join(formula_tokens(implies(implies(p, q), implies(p, Not(q)))))
    '( p → q ) → p → ¬ q'
    """
    match formula:
        case Atom(name):
            return [name]
        case Falsum():
            return ["False"]
        case Not(body):
            # ¬ takes an operand at its own strength: ¬¬p needs no parentheses, ¬(p ∧ q) does.
            return ["¬", *formula_tokens(body, _NOT_STRENGTH)]
        case Binary(connective, left, right):
            own = _STRENGTH[connective]
            # ↔ does not associate; the others associate to the right.
            right_strength = own + (connective == "↔")
            tokens = [*formula_tokens(left, own + 1), connective, *formula_tokens(right, right_strength)]
            return ["(", *tokens, ")"] if own < strength else tokens


def rename(formula: Formula, names: dict[str, str]) -> Formula:
    """The formula with its atoms renamed."""
    match formula:
        case Atom(name):
            return Atom(names[name])
        case Falsum():
            return formula
        case Not(body):
            return Not(rename(body, names))
        case Binary(connective, left, right):
            return Binary(connective, rename(left, names), rename(right, names))


def shape(formula: Formula, names: Sequence[str]) -> Formula:
    """The formula up to the choice of its atoms: the first to appear becomes ``names[0]``, and so on.

    >>> shape(implies(Atom("q"), Atom("p")), ["p", "q"]) == implies(Atom("p"), Atom("q"))
    True
    """
    return rename(formula, dict(zip(atoms(formula), names, strict=False)))
