"""Generates provable propositional theorems with proofs of chosen length and difficulty, to train and test on.

Random formulas are kept if their truth table is all true, which is cheap to check, and the prover then searches for an
intuitionistic proof. The train and eval splits are separated by a hash of the formula's *shape*, its atoms renamed in
order of first appearance, so no shape can occur in both, whatever the seeds and filters.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from rlpost.errors import UserError
from rlpost_verifiers.lean.problems.formulas import (
    Atom,
    Binary,
    Connective,
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
from rlpost_verifiers.lean.problems.notation import ATOMS, PROOF_TOKENS, render
from rlpost_verifiers.lean.problems.prover import BudgetError, prove
from rlpost_verifiers.lean.problems.tactics import script_tokens
from rlpost_verifiers.lean.problems.terms import Term, term_tokens

Split = Literal["train", "eval"]

_STYLES = ("term", "tactic", "mixed")
_ATOM_COUNTS = (2, 3, 3, 4)
_FEWEST_LEAVES, _MOST_LEAVES = 3, 14
_CONNECTIVES: tuple[Connective | Literal["¬"], ...] = ("→", "∧", "∨", "¬", "↔")
_WEIGHTS = (5.0, 3.0, 3.0, 1.5, 0.7)
_FALSUM_SHARE = 0.05
_IMPLICATION_SHARE = 0.7
# About a quarter of the formulas tried are provable; a filter that keeps one in a thousand of those still works.
_PATIENCE = 20_000
# Normal forms can be exponentially long; this is far below the longest proof a verifier reads.
_LONGEST_PROOF = 512
_KNOWN_PROOF_TOKENS = frozenset(PROOF_TOKENS)


@dataclass(frozen=True, slots=True)
class Theorem:
    """A statement with a proof Lean accepts, and how hard it is.

    Attributes:
        statement: e.g. ``∀ p q : Prop, (p → q) → ¬q → ¬p``.
        proof: e.g. ``fun p q h1 h2 h3 => h2 (h1 h3)``.
        shape: the formula with its atoms renamed in order of first appearance.
        hard: number of non-invertible steps in the proof, those that need a choice.
        tokens: number of tokens in the proof (`notation.tokenize`).
        statement_tokens: number of tokens in the statement.
        atoms: number of different atoms.
        size: number of connectives in the formula.
    """

    statement: str
    proof: str
    shape: str
    hard: int
    tokens: int
    statement_tokens: int
    atoms: int
    size: int


def generate(
    count: int,
    seed: int,
    split: Split = "train",
    eval_share: float = 0.1,
    min_tokens: int = 0,
    max_tokens: int | None = None,
    min_hard: int = 0,
    max_hard: int | None = None,
    max_statement_tokens: int | None = None,
) -> list[Theorem]:
    """``count`` theorems with distinct statements; the same arguments give the same list.

    Args:
        count: number of theorems.
        seed: seed of the random formulas.
        split: ``train`` or ``eval``; the two share no shape as long as ``eval_share`` is the same.
        eval_share: share of shapes that belong to ``eval``, 0 to 1.
        min_tokens: length of the shortest proof, in tokens.
        max_tokens: length of the longest proof, in tokens; None for no limit.
        min_hard: smallest number of non-invertible steps.
        max_hard: largest number of non-invertible steps; None for no limit.
        max_statement_tokens: length of the longest statement, in tokens; None for no limit.

    Raises:
        UserError: for arguments that contradict each other, or when 20,000 formulas in a row gave no new theorem.
    """
    limits = (min_tokens, max_tokens), (min_hard, max_hard)
    return [theorem for theorem, _ in _generate(count, seed, split, eval_share, *limits, max_statement_tokens)]


def _generate(
    count: int,
    seed: int,
    split: Split = "train",
    eval_share: float = 0.1,
    token_limits: tuple[int, int | None] = (0, None),
    hard_limits: tuple[int, int | None] = (0, None),
    max_statement_tokens: int | None = None,
) -> list[tuple[Theorem, Term]]:
    _check_arguments(count, split, eval_share, token_limits, hard_limits)
    (min_tokens, max_tokens), (min_hard, max_hard) = token_limits, hard_limits
    found: dict[str, tuple[Theorem, Term]] = {}
    misses = 0
    for formula in _random_formulas(random.Random(seed), _most_leaves(max_statement_tokens)):
        if len(found) == count:
            break
        misses += 1
        if misses > _PATIENCE:
            raise UserError(
                f"only {len(found)} of {count} theorems found, and none in the last {_PATIENCE} formulas; "
                "ask for fewer, or loosen the limits on tokens and hard steps"
            )
        if _belongs_to_eval(formula, eval_share) != (split == "eval") or not is_tautology(formula):
            continue
        proved = _prove(formula)
        if proved is None:
            continue
        theorem = proved[0]
        if (
            theorem.statement in found
            or not min_tokens <= theorem.tokens <= _or_infinite(max_tokens)
            or not min_hard <= theorem.hard <= _or_infinite(max_hard)
            or theorem.statement_tokens > _or_infinite(max_statement_tokens)
        ):
            continue
        found[theorem.statement] = proved
        misses = 0
    return list(found.values())


def rows(
    count: int,
    seed: int,
    split: Split = "train",
    eval_share: float = 0.1,
    min_tokens: int = 0,
    max_tokens: int | None = None,
    min_hard: int = 0,
    max_hard: int | None = None,
    max_statement_tokens: int | None = None,
    skip: int = 0,
    styles: Mapping[str, float] | None = None,
    proofs: int = 1,
) -> list[dict[str, Any]]:
    """The data source ``lean_theorems``: what `generate` makes, as rows with an ``id`` made from the statement.

    Args:
        count: number of theorems.
        seed: seed of the formulas and of the draws of styles.
        split: ``train`` or ``eval``; the two share no shape as long as ``eval_share`` is the same.
        eval_share: share of shapes that belong to ``eval``, 0 to 1.
        min_tokens: length of the shortest proof in tokens, written as a term.
        max_tokens: length of the longest proof in tokens, written as a term; None for no limit.
        min_hard: smallest number of non-invertible steps.
        max_hard: largest number of non-invertible steps; None for no limit.
        max_statement_tokens: length of the longest statement, in tokens; None for no limit.
        skip: number of theorems to leave out at the start. With equal seed and limits, ``skip=n`` shares no theorem
            with a call of ``count=n`` without ``skip``.
        styles: weight of each way to write proofs: ``term``, ``tactic`` (a script down to variables and applications),
            ``mixed`` (a script that may end in a term anywhere, so there are many). None: terms only.
        proofs: rows per theorem, each with a newly drawn proof; from 2 on ids end in ``#0``, ``#1``, …

    Raises:
        UserError: as `generate`, or for an unknown style, a negative ``skip`` or ``proofs`` below 1.
    """
    styles = {"term": 1.0} if styles is None else styles
    if not set(styles) <= set(_STYLES) or not styles or min(styles.values()) < 0 or not sum(styles.values()):
        raise UserError(f"styles is {dict(styles)!r}; give weights of {', '.join(_STYLES)}")
    if skip < 0:
        raise UserError(f"skip is {skip}; give 0 or more")
    if proofs < 1:
        raise UserError(f"proofs is {proofs}; give 1 or more rows per theorem")
    limits = (min_tokens, max_tokens), (min_hard, max_hard)
    rng = random.Random(f"styles {seed}")
    return [
        _row(theorem, term, rng.choices(list(styles), list(styles.values()))[0], rng, number if proofs > 1 else None)
        for theorem, term in _generate(skip + count, seed, split, eval_share, *limits, max_statement_tokens)[skip:]
        for number in range(proofs)
    ]


def refuted(count: int, seed: int) -> list[dict[str, Any]]:
    """Rows whose statement is false, each with the proof of some theorem over the same atoms.

    They are negative controls: a verifier or a reward that accepts one of them is broken.

    Args:
        count: number of rows.
        seed: seed of the random formulas and of the choice of proofs.

    Raises:
        UserError: for a negative count.
    """
    if count < 0:
        raise UserError(f"count is {count}; give 0 or more")
    proofs: dict[tuple[str, ...], list[str]] = {}
    false: dict[str, tuple[tuple[str, ...], Formula]] = {}
    for formula in _random_formulas(random.Random(seed)):
        if len(false) >= count and all(names in proofs for names, _ in false.values()):
            break
        names = tuple(sorted(atoms(formula)))
        if not is_tautology(formula):
            if len(false) < count:
                false.setdefault(_statement(formula), (names, formula))
        elif proved := _prove(formula):
            proofs.setdefault(names, []).append(proved[0].proof)
    rng = random.Random(seed)
    return [
        {
            "id": _identity(statement),
            "statement": statement,
            "proof": rng.choice(proofs[names]),
            "shape": _shape(formula),
            "atoms": len(names),
            "size": size(formula),
        }
        for statement, (names, formula) in false.items()
    ]


def _most_leaves(max_statement_tokens: int | None) -> int:
    """The most leaves that fit the limit: ``n`` leaves make at least ``2 n - 1`` tokens, after ``∀ p : Prop ,``."""
    if max_statement_tokens is None:
        return _MOST_LEAVES
    return max(_FEWEST_LEAVES, min(_MOST_LEAVES, (max_statement_tokens - 4) // 2))


def _random_formulas(rng: random.Random, most_leaves: int = _MOST_LEAVES) -> Iterator[Formula]:
    """Random formulas without end, each with at least one atom."""
    while True:
        leaves = rng.randint(_FEWEST_LEAVES, most_leaves)
        names = ATOMS[: rng.choice(_ATOM_COUNTS)]
        if rng.random() < _IMPLICATION_SHARE:
            # An implication at the top is far more often provable than the other connectives.
            formula: Formula = implies(_random(rng, leaves // 2, names), _random(rng, leaves - leaves // 2, names))
        else:
            formula = _random(rng, leaves, names)
        if atoms(formula):
            yield formula


def _random(rng: random.Random, leaves: int, names: tuple[str, ...]) -> Formula:
    if leaves <= 1:
        return Falsum() if rng.random() < _FALSUM_SHARE else Atom(rng.choice(names))
    kind = rng.choices(_CONNECTIVES, _WEIGHTS)[0]
    if kind == "¬":
        return Not(_random(rng, leaves - 1, names))
    left = rng.randint(1, leaves - 1)
    return Binary(kind, _random(rng, left, names), _random(rng, leaves - left, names))


def _prove(formula: Formula) -> tuple[Theorem, Term] | None:
    """The formula with its proof, or None if the prover finds none or the proof is too long to write."""
    try:
        proof = prove(formula)
    except BudgetError:
        return None
    if proof is None:
        return None
    names = tuple(sorted(atoms(formula)))
    tokens = term_tokens(proof.term, names)
    if len(tokens) > _LONGEST_PROOF or not _KNOWN_PROOF_TOKENS.issuperset(tokens):
        return None
    statement = _statement_tokens(formula)
    theorem = Theorem(
        statement=render(statement),
        proof=render(tokens),
        shape=_shape(formula),
        hard=proof.hard,
        tokens=len(tokens),
        statement_tokens=len(statement),
        atoms=len(names),
        size=size(formula),
    )
    return theorem, proof.term


def _statement_tokens(formula: Formula) -> list[str]:
    return ["∀", *sorted(atoms(formula)), ":", "Prop", ",", *formula_tokens(formula)]


def _statement(formula: Formula) -> str:
    return render(_statement_tokens(formula))


def _shape(formula: Formula) -> str:
    return render(formula_tokens(shape(formula, ATOMS)))


def _belongs_to_eval(formula: Formula, eval_share: float) -> bool:
    digest = hashlib.sha256(_shape(formula).encode()).digest()
    return int.from_bytes(digest[:8]) < eval_share * 2**64


def _identity(statement: str) -> str:
    return f"thm-{hashlib.sha256(statement.encode()).hexdigest()[:12]}"


def _row(theorem: Theorem, term: Term, style: str, rng: random.Random, number: int | None) -> dict[str, Any]:
    row = {"id": _identity(theorem.statement), **asdict(theorem), "style": style}
    if style != "term":
        names = tuple(_statement_atoms(theorem.statement))
        row["proof"] = render(script_tokens(term, names, rng if style == "mixed" else None))
    if number is not None:
        row["id"] += f"#{number}"
    return row


def _statement_atoms(statement: str) -> list[str]:
    """The names bound by the statement's ``∀``."""
    return statement.removeprefix("∀ ").partition(" :")[0].split()


def _or_infinite(limit: int | None) -> float:
    return float("inf") if limit is None else limit


def _check_arguments(
    count: int, split: str, eval_share: float, tokens: tuple[int, int | None], hard: tuple[int, int | None]
) -> None:
    if count < 0:
        raise UserError(f"count is {count}; give 0 or more")
    if split not in ("train", "eval"):
        raise UserError(f"split is {split!r}; use 'train' or 'eval'")
    if not 0 <= eval_share <= 1:
        raise UserError(f"eval_share is {eval_share!r}; give a share between 0 and 1")
    for name, (low, high) in (("tokens", tokens), ("hard", hard)):
        if low > _or_infinite(high):
            raise UserError(f"min_{name} is {low} and max_{name} {high}; no theorem can meet both")
