"""A decision procedure for intuitionistic propositional logic that writes its proofs as Lean terms.

The calculus is LJT (also called G4ip): R. Dyckhoff, "Contraction-free sequent calculi for intuitionistic logic",
Journal of Symbolic Logic 57(3), 1992. Each rule is read from conclusion to premises; every premise is smaller than
the conclusion in a well-founded order, so the search ends without loop checking. The rules:

    right          A → B, A ∧ B (invertible); A ∨ B (a choice, not invertible)
    left           False, A ∧ B, A ∨ B (invertible)
    left, A → D    by the form of A: an atom that is also assumed, False, B ∧ C, B ∨ C (invertible);
                   B → C (not invertible): prove B → C from C → D, then go on with D

``¬A`` is ``A → False``, which Lean unfolds on its own. ``A ↔ B`` behaves like ``(A → B) ∧ (B → A)`` but stays a
connective of its own, because Lean does not identify the two. Terms are normalised as they are built, so the
functions that rules introduce in place of hypotheses do not appear in the proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlpost_verifiers.lean.problems.formulas import Atom, Binary, Falsum, Formula, Not, implies
from rlpost_verifiers.lean.problems.terms import Absurd, Binders, Cases, Inject, Lam, Pair, Term, Var, part


@dataclass(frozen=True, slots=True)
class Proof:
    """A term with its number of non-invertible steps: the places where a prover has to choose."""

    term: Term
    hard: int


class BudgetError(RuntimeError):
    """The search used up its steps; the formula is neither proved nor shown unprovable."""


def prove(formula: Formula, budget: int = 4000) -> Proof | None:
    """An intuitionistic proof of ``formula``, or None if it has none.

    Args:
        formula: the formula to prove.
        budget: number of sequents that may be visited.

    Raises:
        BudgetError: when the budget is used up.

    >>> p = Atom("p")
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
        self._binders = Binders()

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

    def _under(self, assumed: Formula, context: _Context, goal: Formula) -> Proof | None:
        number = self._binders.fresh()
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
        a, b = self._binders.fresh(), self._binders.fresh()
        first = self.prove((*rest, (Var(a), left)), goal)
        second = first and self.prove((*rest, (Var(b), right)), goal)
        if first is None or second is None:
            return None
        return Proof(Cases(term, Lam(a, first.term), Lam(b, second.term)), first.hard + second.hard)

    def _simplify(self, term: Term, cause: Formula, effect: Formula, rest: _Context) -> _Context | None:
        """What replaces the hypothesis ``cause → effect``, or None where only the non-invertible rule applies."""
        match cause:
            case Atom():
                known = next((other for other, formula in rest if formula == cause), None)
                return None if known is None else ((self._binders.apply(term, known), effect),)
            case Falsum():
                return ()
            case Binary("∧", left, right):
                return ((self._curry(term), implies(left, implies(right, effect))),)
            case Binary("↔", left, right):
                halves = implies(implies(left, right), implies(implies(right, left), effect))
                return ((self._curry(term), halves),)
            case Binary("∨", left, right):
                a, b = self._binders.fresh(), self._binders.fresh()
                by_left = Lam(a, self._binders.apply(term, Inject(0, Var(a))))
                by_right = Lam(b, self._binders.apply(term, Inject(1, Var(b))))
                return ((by_left, implies(left, effect)), (by_right, implies(right, effect)))
            case _:
                return None

    def _curry(self, term: Term) -> Term:
        a, b = self._binders.fresh(), self._binders.fresh()
        return Lam(a, Lam(b, self._binders.apply(term, Pair(Var(a), Var(b)))))

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
                case Binary("→", Binary("→", _, middle) as inner, effect):
                    rest = context[:index] + context[index + 1 :]
                    x, ignored = self._binders.fresh(), self._binders.fresh()
                    shortcut = Lam(x, self._binders.apply(term, Lam(ignored, Var(x))))
                    first = self.prove((*rest, (shortcut, implies(middle, effect))), inner)
                    second = first and self.prove((*rest, (self._binders.apply(term, first.term), effect)), goal)
                    if first and second:
                        return Proof(second.term, first.hard + second.hard + 1)
        return None


def _unfold_not(formula: Formula) -> Formula:
    match formula:
        case Not(body):
            return implies(_unfold_not(body), Falsum())
        case Binary(connective, left, right):
            return Binary(connective, _unfold_not(left), _unfold_not(right))
        case _:
            return formula
