"""A decision procedure for intuitionistic propositional logic that writes its proofs as Lean terms.

The calculus is LJT (also called G4ip): R. Dyckhoff, "Contraction-free sequent calculi for intuitionistic logic",
Journal of Symbolic Logic 57(3), 1992. Each rule is read from conclusion to premises; every premise is smaller than
the conclusion in a well-founded order, so the search ends without loop checking. The rules:

    right          A → B, A ∧ B (invertible); A ∨ B (a choice, not invertible)
    left           False, A ∧ B, A ∨ B (invertible)
    left, A → D    by the form of A: an atom that is also assumed, False, B ∧ C, B ∨ C (invertible);
                   B → C (not invertible): prove B → C from C → D, then go on with D

``¬A`` is ``A → False``, which Lean unfolds on its own. ``A ↔ B`` behaves like ``(A → B) ∧ (B → A)`` but stays a
connective of its own, because Lean does not identify the two.

Terms are kept in beta-normal form: hypotheses that a rule invents as functions disappear where they are applied.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rlpost_verifiers.lean.formulas import Binary, Falsum, Formula, Not, implies
from rlpost_verifiers.lean.formulas import Atom as AtomFormula


@dataclass(frozen=True, slots=True)
class Var:
    """A bound variable, by a number that no other binder of the term has."""

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


@dataclass(frozen=True, slots=True)
class Proof:
    """A term with the number of non-invertible steps in it: the places where a prover has to choose."""

    term: Term
    hard: int


class BudgetError(RuntimeError):
    """The search used up its steps; the formula is neither proved nor shown unprovable."""


def prove(formula: Formula, budget: int = 4000) -> Proof | None:
    """An intuitionistic proof of ``formula``, or None if it has none.

    Args:
        formula: what to prove.
        budget: sequents that may be visited.

    Raises:
        BudgetError: when they are used up.

    >>> p = AtomFormula("p")
    >>> prove(implies(p, p))
    Proof(term=Lam(number=1, body=Var(number=1)), hard=0)
    >>> prove(Binary("∨", p, Not(p))) is None
    True
    """
    return _Search(budget).prove((), _unfold_not(formula))


_Hypothesis = tuple[Term, Formula]
_Context = tuple[_Hypothesis, ...]


class _Search:
    def __init__(self, budget: int) -> None:
        self._left = budget
        self._binders = 0

    def prove(self, context: _Context, goal: Formula) -> Proof | None:
        self._left -= 1
        if self._left < 0:
            raise BudgetError("the proof search used up its steps")
        for term, formula in context:
            if formula == goal:
                return Proof(term, 0)
        match goal:
            case Binary("→", left, right):
                return self._under(left, context, right)
            case Binary("∧", left, right):
                return self._both(context, left, right)
            case Binary("↔", left, right):
                return self._both(context, implies(left, right), implies(right, left))
            case _:
                return self._use_context(context, goal)

    def _fresh(self) -> int:
        self._binders += 1
        return self._binders

    def _under(self, assumed: Formula, context: _Context, goal: Formula) -> Proof | None:
        number = self._fresh()
        proof = self.prove((*context, (Var(number), assumed)), goal)
        return proof and Proof(Lam(number, proof.term), proof.hard)

    def _both(self, context: _Context, left: Formula, right: Formula) -> Proof | None:
        first = self.prove(context, left)
        second = first and self.prove(context, right)
        return first and second and Proof(Pair(first.term, second.term), first.hard + second.hard)

    def _use_context(self, context: _Context, goal: Formula) -> Proof | None:
        """The goal is an atom, False or a disjunction; apply the first invertible left rule, else choose."""
        for index, (term, formula) in enumerate(context):
            rest = context[:index] + context[index + 1 :]
            match formula:
                case Falsum():
                    return Proof(Absurd(term), 0)
                case Binary("∧", left, right):
                    return self.prove((*rest, (part(term, 1), left), (part(term, 2), right)), goal)
                case Binary("↔", left, right):
                    halves = ((part(term, 1), implies(left, right)), (part(term, 2), implies(right, left)))
                    return self.prove((*rest, *halves), goal)
                case Binary("∨", left, right):
                    return self._cases(term, left, right, rest, goal)
                case Binary("→", cause, effect):
                    simpler = self._simplify(term, cause, effect, rest)
                    if simpler is not None:
                        return self.prove((*rest, *simpler), goal)
                case _:
                    continue
        return self._choose_side(context, goal) or self._choose_implication(context, goal)

    def _cases(self, term: Term, left: Formula, right: Formula, rest: _Context, goal: Formula) -> Proof | None:
        a, b = self._fresh(), self._fresh()
        first = self.prove((*rest, (Var(a), left)), goal)
        second = first and self.prove((*rest, (Var(b), right)), goal)
        if first is None or second is None:
            return None
        return Proof(Cases(term, Lam(a, first.term), Lam(b, second.term)), first.hard + second.hard)

    def _simplify(self, term: Term, cause: Formula, effect: Formula, rest: _Context) -> _Context | None:
        """What replaces the hypothesis ``cause → effect``, or None where only the non-invertible rule applies."""
        match cause:
            case AtomFormula():
                known = next((other for other, formula in rest if formula == cause), None)
                return None if known is None else ((apply(term, known), effect),)
            case Falsum():
                return ()
            case Binary("∧", left, right):
                return ((self._curry(term), implies(left, implies(right, effect))),)
            case Binary("↔", left, right):
                halves = implies(implies(left, right), implies(implies(right, left), effect))
                return ((self._curry(term), halves),)
            case Binary("∨", left, right):
                a, b = self._fresh(), self._fresh()
                by_left = Lam(a, apply(term, Inject(0, Var(a))))
                by_right = Lam(b, apply(term, Inject(1, Var(b))))
                return ((by_left, implies(left, effect)), (by_right, implies(right, effect)))
            case _:
                return None

    def _curry(self, term: Term) -> Term:
        a, b = self._fresh(), self._fresh()
        return Lam(a, Lam(b, apply(term, Pair(Var(a), Var(b)))))

    def _choose_side(self, context: _Context, goal: Formula) -> Proof | None:
        match goal:
            case Binary("∨", left, right):
                for side, wanted in enumerate((left, right)):
                    if proof := self.prove(context, wanted):
                        return Proof(Inject(side, proof.term), proof.hard + 1)
        return None

    def _choose_implication(self, context: _Context, goal: Formula) -> Proof | None:
        for index, (term, formula) in enumerate(context):
            match formula:
                case Binary("→", Binary("→", cause, middle) as inner, effect):
                    rest = context[:index] + context[index + 1 :]
                    x, ignored = self._fresh(), self._fresh()
                    shortcut = Lam(x, apply(term, Lam(ignored, Var(x))))
                    first = self.prove((*rest, (shortcut, implies(middle, effect))), inner)
                    second = first and self.prove((*rest, (apply(term, first.term), effect)), goal)
                    if first and second:
                        return Proof(second.term, first.hard + second.hard + 1)
        return None


def apply(function: Term, argument: Term) -> Term:
    """``function argument`` in beta-normal form."""
    return substitute(function.body, function.number, argument) if isinstance(function, Lam) else App(function, argument)


def part(pair: Term, index: int) -> Term:
    """``pair.index`` in normal form."""
    return (pair.left, pair.right)[index - 1] if isinstance(pair, Pair) else Part(pair, index)


def substitute(term: Term, number: int, value: Term) -> Term:
    """``term`` with ``value`` for the variable, normalised on the way; binders are unique, so nothing is captured."""
    match term:
        case Var(own):
            return value if own == number else term
        case Lam(own, body):
            return Lam(own, substitute(body, number, value))
        case App(function, argument):
            return apply(substitute(function, number, value), substitute(argument, number, value))
        case Pair(left, right):
            return Pair(substitute(left, number, value), substitute(right, number, value))
        case Part(pair, index):
            return part(substitute(pair, number, value), index)
        case Inject(side, body):
            return Inject(side, substitute(body, number, value))
        case Cases(either, Lam(a, left), Lam(b, right)):
            branches = Lam(a, substitute(left, number, value)), Lam(b, substitute(right, number, value))
            return Cases(substitute(either, number, value), *branches)
        case Absurd(contradiction):
            return Absurd(substitute(contradiction, number, value))


def _unfold_not(formula: Formula) -> Formula:
    match formula:
        case Not(body):
            return implies(_unfold_not(body), Falsum())
        case Binary(connective, left, right):
            return Binary(connective, _unfold_not(left), _unfold_not(right))
        case _:
            return formula


def term_tokens(term: Term, prefix: tuple[str, ...] = ()) -> list[str]:
    """The term in Lean's notation, its variables numbered h1, h2, … in order of appearance.

    Args:
        term: a closed term.
        prefix: names bound by the same outermost ``fun``, before the term's own.

    >>> " ".join(term_tokens(Lam(7, Var(7)), ("p",)))
    'fun p h1 => h1'
    """
    names: dict[int, str] = {}
    return list(_write_fun(term, prefix, names) if prefix or isinstance(term, Lam) else _write(term, names))


def _write_fun(term: Term, prefix: tuple[str, ...], names: dict[int, str]) -> Iterator[str]:
    yield from ("fun", *prefix)
    while isinstance(term, Lam):
        names[term.number] = f"h{len(names) + 1}"
        yield names[term.number]
        term = term.body
    yield "=>"
    yield from _write(term, names)


def _write(term: Term, names: dict[int, str]) -> Iterator[str]:
    match term:
        case Var(number):
            yield names[number]
        case Lam():
            yield from _write_fun(term, (), names)
        case App(function, argument):
            # Application associates to the left: only the argument can need parentheses.
            yield from _write(function, names) if isinstance(function, App) else _write_closed(function, names)
            yield from _write_closed(argument, names)
        case Pair(left, right):
            yield from ("⟨", *_write(left, names), ",", *_write(right, names), "⟩")
        case Part(pair, index):
            yield from (*_write_closed(pair, names), f".{index}")
        case Inject(side, body):
            yield from (("Or.inl", "Or.inr")[side], *_write_closed(body, names))
        case Cases(either, left, right):
            yield from (*_write_closed(either, names), ".elim")
            yield from (*_write_closed(left, names), *_write_closed(right, names))
        case Absurd(contradiction):
            yield from (*_write_closed(contradiction, names), ".elim")


def _write_closed(term: Term, names: dict[int, str]) -> Iterator[str]:
    """In parentheses unless it is one word, a pair or a chain of suffixes."""
    if isinstance(term, Var | Pair | Part):
        yield from _write(term, names)
    else:
        yield from ("(", *_write(term, names), ")")
