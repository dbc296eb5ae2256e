"""Lean proof terms of propositional logic: built in normal form, written in Lean's notation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Var:
    """A bound variable, by its binder's number."""

    number: int


@dataclass(frozen=True, slots=True)
class Lam:
    """``fun x => body``."""

    number: int
    body: Term


@dataclass(frozen=True, slots=True)
class App:
    """``function argument``."""

    function: Term
    argument: Term


@dataclass(frozen=True, slots=True)
class Pair:
    """``⟨left, right⟩``, of a conjunction or an equivalence."""

    left: Term
    right: Term


@dataclass(frozen=True, slots=True)
class Part:
    """``pair.1`` or ``pair.2``."""

    pair: Term
    index: int


@dataclass(frozen=True, slots=True)
class Inject:
    """``Or.inl body`` (side 0) or ``Or.inr body`` (side 1)."""

    side: int
    body: Term


@dataclass(frozen=True, slots=True)
class Cases:
    """``either.elim left right`` with both branches functions."""

    either: Term
    left: Lam
    right: Lam


@dataclass(frozen=True, slots=True)
class Absurd:
    """``contradiction.elim`` of a proof of False."""

    contradiction: Term


Term = Var | Lam | App | Pair | Part | Inject | Cases | Absurd


class Binders:
    """Numbers for bound variables, and the operations on terms that need new ones."""

    def __init__(self) -> None:
        self._last = 0

    def fresh(self) -> int:
        """A number that no binder has used."""
        self._last += 1
        return self._last

    def apply(self, function: Term, argument: Term) -> Term:
        """``function argument`` in normal form."""
        if isinstance(function, Lam):
            return self._substitute(function.body, {function.number: argument})
        return App(function, argument)

    def _substitute(self, term: Term, values: dict[int, Term]) -> Term:
        """Substitute ``values`` for variables, normalising on the way.

        Every binder on the way gets a fresh number, which no value can mention: nothing is captured, even though
        copies of one term, and with them their binders' numbers, can end up nested in each other.
        """
        match term:
            case Var(number):
                return values.get(number, term)
            case Lam():
                return self._substitute_under(term, values)
            case App(function, argument):
                return self.apply(self._substitute(function, values), self._substitute(argument, values))
            case Pair(left, right):
                return Pair(self._substitute(left, values), self._substitute(right, values))
            case Part(pair, index):
                return part(self._substitute(pair, values), index)
            case Inject(side, body):
                return Inject(side, self._substitute(body, values))
            case Cases(either, left, right):
                branches = self._substitute_under(left, values), self._substitute_under(right, values)
                return Cases(self._substitute(either, values), *branches)
            case Absurd(contradiction):
                return Absurd(self._substitute(contradiction, values))

    def _substitute_under(self, function: Lam, values: dict[int, Term]) -> Lam:
        number = self.fresh()
        return Lam(number, self._substitute(function.body, {**values, function.number: Var(number)}))


def part(pair: Term, index: int) -> Term:
    """``pair.index`` in normal form."""
    return (pair.left, pair.right)[index - 1] if isinstance(pair, Pair) else Part(pair, index)


def term_tokens(term: Term, prefix: tuple[str, ...] = ()) -> list[str]:
    """The term in Lean's notation, its variables named h1, h2, … in order of appearance.

    Args:
        term: a closed term.
        prefix: names bound by the same outermost ``fun``, before the term's own.

    >>> " ".join(term_tokens(Lam(7, Var(7)), ("p",)))
    'fun p h1 => h1'
    """
    writer = Writer()
    return list(writer.write_fun(term, {}, prefix) if prefix else writer.write(term, {}))


class Writer:
    """Writes one term; ``names`` holds the variables in scope."""

    def __init__(self) -> None:
        self._named = 0

    def write(self, term: Term, names: dict[int, str]) -> Iterator[str]:
        """The tokens of a term."""
        match term:
            case Var(number):
                yield names[number]
            case Lam():
                yield from self.write_fun(term, names)
            case App(function, argument):
                # Application associates to the left: only the argument can need parentheses.
                yield from (self.write if isinstance(function, App) else self.write_closed)(function, names)
                yield from self.write_closed(argument, names)
            case Pair(left, right):
                yield from ("⟨", *self.write(left, names), ",", *self.write(right, names), "⟩")
            case Part(pair, index):
                yield from (*self.write_closed(pair, names), f".{index}")
            case Inject(side, body):
                yield from (("Or.inl", "Or.inr")[side], *self.write_closed(body, names))
            case Cases(either, left, right):
                yield from (*self.write_closed(either, names), ".elim")
                yield from (*self.write_closed(left, names), *self.write_closed(right, names))
            case Absurd(contradiction):
                yield from (*self.write_closed(contradiction, names), ".elim")

    def write_fun(self, term: Term, names: dict[int, str], prefix: tuple[str, ...] = ()) -> Iterator[str]:
        """``fun`` with all the variables that nested functions bind at once."""
        introduced, body, names = self.bind(term, names)
        yield from ("fun", *prefix, *introduced, "=>")
        yield from self.write(body, names)

    def bind(self, term: Term, names: dict[int, str]) -> tuple[list[str], Term, dict[int, str]]:
        """Names for the variables that nested functions bind, their body, and the variables in scope there."""
        introduced: list[str] = []
        while isinstance(term, Lam):
            self._named += 1
            introduced.append(f"h{self._named}")
            names = {**names, term.number: introduced[-1]}
            term = term.body
        return introduced, term, names

    def write_closed(self, term: Term, names: dict[int, str]) -> Iterator[str]:
        """The term's tokens, in parentheses unless it is one word, a pair or a chain of suffixes."""
        if isinstance(term, Var | Pair | Part):
            yield from self.write(term, names)
        else:
            yield from ("(", *self.write(term, names), ")")
