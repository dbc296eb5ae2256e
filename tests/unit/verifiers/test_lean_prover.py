"""Formulas, the prover and its terms. Whether Lean accepts the terms: tests/contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpost_verifiers.lean.problems.formulas import (
    Atom,
    Binary,
    Falsum,
    Formula,
    Not,
    atoms,
    formula_tokens,
    implies,
    is_tautology,
    shape,
    size,
)
from rlpost_verifiers.lean.problems.notation import render
from rlpost_verifiers.lean.problems.prover import BudgetError, prove
from rlpost_verifiers.lean.problems.terms import term_tokens

P, Q, R = Atom("p"), Atom("q"), Atom("r")
FORMULAS = st.recursive(
    st.sampled_from([P, Q, Falsum()]),
    lambda inner: st.builds(Not, inner) | st.builds(Binary, st.sampled_from(["→", "∧", "∨", "↔"]), inner, inner),
    max_leaves=6,
)


def iff(left: Formula, right: Formula) -> Binary:
    return Binary("↔", left, right)


def both(left: Formula, right: Formula) -> Binary:
    return Binary("∧", left, right)


def either(left: Formula, right: Formula) -> Binary:
    return Binary("∨", left, right)


def proof_of(formula: Formula) -> tuple[str, int] | None:
    proof = prove(formula)
    return None if proof is None else (render(term_tokens(proof.term)), proof.hard)


@pytest.mark.parametrize(
    ("formula", "text"),
    [
        (implies(P, implies(Q, R)), "p → q → r"),
        (implies(implies(P, Q), R), "(p → q) → r"),
        (both(both(P, Q), R), "(p ∧ q) ∧ r"),
        (both(P, both(Q, R)), "p ∧ q ∧ r"),
        (either(both(P, Q), R), "p ∧ q ∨ r"),
        (both(either(P, Q), R), "(p ∨ q) ∧ r"),
        (Not(both(P, Q)), "¬(p ∧ q)"),
        (both(Not(P), Not(Not(Q))), "¬p ∧ ¬¬q"),
        (iff(iff(P, Q), R), "(p ↔ q) ↔ r"),
        (iff(P, iff(Q, R)), "p ↔ (q ↔ r)"),
        (implies(iff(P, Q), Falsum()), "(p ↔ q) → False"),
        (iff(implies(P, Q), P), "p → q ↔ p"),
    ],
)
def test_notation_has_the_fewest_parentheses(formula: Formula, text: str) -> None:
    assert render(formula_tokens(formula)) == text


def test_atoms_size_and_shape_of_a_formula() -> None:
    formula = implies(Q, Not(either(P, Q)))
    assert atoms(formula) == ("q", "p")
    assert size(formula) == 3
    assert shape(formula, ["p", "q"]) == implies(P, Not(either(Q, P)))


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (either(P, Not(P)), True),
        (implies(implies(implies(P, Q), P), P), True),
        (implies(P, Q), False),
        (iff(P, Not(P)), False),
        (implies(Falsum(), P), True),
        (iff(both(P, Q), both(Q, P)), True),
    ],
)
def test_truth_tables(formula: Formula, expected: bool) -> None:
    assert is_tautology(formula) is expected


@pytest.mark.parametrize(
    ("formula", "expected"),
    [
        (implies(P, P), ("fun h1 => h1", 0)),
        (implies(both(P, Q), both(Q, P)), ("fun h1 => ⟨h1.2, h1.1⟩", 0)),
        (implies(P, either(Q, P)), ("fun h1 => Or.inr h1", 1)),
        (implies(either(P, Q), either(Q, P)), ("fun h1 => h1.elim (fun h2 => Or.inr h2) (fun h3 => Or.inl h3)", 2)),
        (implies(implies(P, Q), implies(Not(Q), Not(P))), ("fun h1 h2 h3 => h2 (h1 h3)", 0)),
        (implies(P, Not(Not(P))), ("fun h1 h2 => h2 h1", 0)),
        (implies(iff(P, Q), implies(P, Q)), ("fun h1 h2 => h1.1 h2", 0)),
        (implies(Falsum(), P), ("fun h1 => h1.elim", 0)),
        (implies(implies(both(P, Q), R), implies(P, implies(Q, R))), ("fun h1 h2 h3 => h1 ⟨h2, h3⟩", 0)),
        (Not(Not(either(P, Not(P)))), ("fun h1 => h1 (Or.inr (fun h2 => h1 (Or.inl h2)))", 1)),
    ],
)
def test_proofs_are_normal_and_counted(formula: Formula, expected: tuple[str, int]) -> None:
    assert proof_of(formula) == expected


@pytest.mark.parametrize(
    "formula",
    [
        either(P, Not(P)),
        implies(Not(Not(P)), P),
        implies(implies(implies(P, Q), P), P),
        implies(Not(both(P, Q)), either(Not(P), Not(Q))),
        implies(P, Q),
    ],
)
def test_what_is_not_intuitionistic_has_no_proof(formula: Formula) -> None:
    assert proof_of(formula) is None


def test_budget_is_kept() -> None:
    with pytest.raises(BudgetError):
        prove(implies(P, P), budget=1)


@given(FORMULAS)
def test_glivenko(formula: Formula) -> None:
    """A formula is classically true exactly if its double negation is intuitionistically provable."""
    assert (prove(Not(Not(formula)), budget=200_000) is not None) == is_tautology(formula)
