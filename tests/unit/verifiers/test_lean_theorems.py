"""Generated theorems: reproducible, filtered, split by shape, in closed notation."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpost.errors import UserError
from rlpost.plugins.registry import resolve
from rlpost_verifiers.lean.filter import find_forbidden
from rlpost_verifiers.lean.problems.notation import PROOF_TOKENS, STATEMENT_TOKENS, TOKENS, render, tokenize
from rlpost_verifiers.lean.source import check_statement
from rlpost_verifiers.lean.task import parse_task
from rlpost_verifiers.lean.theorems import Theorem, generate, refuted, rows


def test_first_theorems_of_a_seed_never_change() -> None:
    """Trained models and published figures name their data by seed: do not adapt this test without a decision."""
    assert generate(3, seed=17) == [
        Theorem(
            statement="∀ p q r : Prop, (q ∧ r) ∧ p → (r → q) ∨ p ∨ q",
            proof="fun p q r h1 => Or.inl (fun h2 => h1.1.1)",
            shape="(p ∧ q) ∧ r → (q → p) ∨ r ∨ p",
            hard=1,
            tokens=15,
            statement_tokens=24,
            atoms=3,
            size=6,
        ),
        Theorem(
            statement="∀ p q r : Prop, ¬(¬p → r) → ¬¬(r ∧ q) → p",
            proof="fun p q r h1 h2 => (h1 (fun h3 => (h2 (fun h4 => h1 (fun h5 => h4.1))).elim)).elim",
            shape="¬(¬p → q) → ¬¬(q ∧ r) → p",
            hard=2,
            tokens=33,
            statement_tokens=24,
            atoms=3,
            size=8,
        ),
        Theorem(
            statement="∀ p q r : Prop, p ∧ (p ∨ q) → ¬r → q → q",
            proof="fun p q r h1 h2 h3 => h3",
            shape="p ∧ (p ∨ q) → ¬r → q → q",
            hard=0,
            tokens=9,
            statement_tokens=21,
            atoms=3,
            size=6,
        ),
    ]


def test_many_theorems_in_seconds_all_distinct_and_consistent() -> None:
    start = time.process_time()
    theorems = generate(3000, seed=1)
    assert time.process_time() - start < 20
    assert len({theorem.statement for theorem in theorems}) == 3000
    for theorem in theorems:
        assert len(tokenize(theorem.proof)) == theorem.tokens
        assert len(tokenize(theorem.statement)) == theorem.statement_tokens
        assert find_forbidden(theorem.proof) is None


def test_splits_share_no_shape_whatever_the_seed() -> None:
    train = {theorem.shape for theorem in generate(800, seed=1)} | {theorem.shape for theorem in generate(800, seed=2)}
    evaluation = {theorem.shape for theorem in generate(150, seed=1, split="eval")}
    assert not train & evaluation


def test_eval_share_divides_theorems_between_the_splits() -> None:
    assert generate(20, seed=1, split="eval", eval_share=1.0) == generate(20, seed=1, eval_share=0.0)


def test_filters_hold() -> None:
    limits: dict[str, Any] = {
        "min_tokens": 12,
        "max_tokens": 30,
        "min_hard": 1,
        "max_hard": 2,
        "max_statement_tokens": 24,
    }
    for theorem in generate(100, seed=5, **limits):
        assert 12 <= theorem.tokens <= 30
        assert 1 <= theorem.hard <= 2
        assert theorem.statement_tokens <= 24


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_tokens": 9, "max_tokens": 8}, "min_tokens is 9 and max_tokens 8"),
        ({"min_hard": 3, "max_hard": 1}, "min_hard is 3 and max_hard 1"),
        ({"split": "test"}, "split is 'test'"),
        ({"eval_share": 1.5}, "eval_share is 1.5"),
        ({"count": -1}, "count is -1"),
        ({"max_tokens": 2}, "only 0 of 5 theorems found"),
        ({"split": "eval", "eval_share": 0.0}, "only 0 of 5 theorems found"),
        ({"count": 5000, "max_statement_tokens": 9}, "of 5000 theorems found"),
    ],
)
def test_impossible_requests_end_with_an_error(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        generate(**{"count": 5, "seed": 1, **arguments})
    assert message in str(caught.value)


def test_rows_are_proof_tasks_with_stable_ids() -> None:
    source = resolve("sources", "lean_theorems")
    made = source(count=50, seed=4)
    assert made == rows(count=50, seed=4)
    assert len({row["id"] for row in made}) == 50
    for row in made:
        check_statement(parse_task(row, row["id"]))
    assert set(made[0]) == {
        *("id", "statement", "proof", "shape", "hard", "tokens", "statement_tokens", "atoms", "size", "style"),
    }


def test_refuted_rows_are_reproducible_bait() -> None:
    bait = refuted(100, seed=3)
    assert bait == refuted(100, seed=3)
    assert len({row["statement"] for row in bait}) == 100
    true = {theorem.statement for theorem in generate(1000, seed=3)}
    for row in bait:
        assert row["statement"] not in true
        binders = row["statement"].removeprefix("∀ ").split(" :")[0]
        assert row["proof"].startswith(f"fun {binders} ")


@given(st.integers(0, 10_000))
def test_text_is_made_of_the_documented_tokens_in_their_one_spacing(seed: int) -> None:
    for theorem in generate(2, seed=seed):
        assert set(tokenize(theorem.statement)) <= set(STATEMENT_TOKENS)
        assert set(tokenize(theorem.proof)) <= set(PROOF_TOKENS)
        assert render(tokenize(theorem.statement)) == theorem.statement
        assert render(tokenize(theorem.proof)) == theorem.proof


def test_token_set_is_closed_and_small() -> None:
    assert len(TOKENS) == len(set(TOKENS)) == 60
    assert [token for token in TOKENS if tokenize(token) != [token]] == []


@pytest.mark.parametrize("text", ["h25", "p x", "fun q => sorry", "pq", "h1.3"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="no token"):
        tokenize(text)


def test_styles_change_how_a_proof_is_written_and_nothing_else() -> None:
    terms, scripts = rows(count=30, seed=4), rows(count=30, seed=4, styles={"tactic": 1})
    assert [row["statement"] for row in terms] == [row["statement"] for row in scripts]
    assert all(row["proof"].startswith("fun ") and row["style"] == "term" for row in terms)
    assert all(row["proof"].startswith("by intro ") and row["style"] == "tactic" for row in scripts)
    for row in rows(count=30, seed=4, styles={"mixed": 1}, proofs=5):
        assert set(tokenize(row["proof"])) <= set(TOKENS)
        assert render(tokenize(row["proof"])) == row["proof"]
        check_statement(parse_task(row, row["id"]))
        assert find_forbidden(row["proof"]) is None


def test_several_proofs_of_a_theorem_have_ids_and_frequencies_of_their_own() -> None:
    made = rows(count=40, seed=4, styles={"term": 0.9, "mixed": 0.1}, proofs=50)
    assert made == rows(count=40, seed=4, styles={"term": 0.9, "mixed": 0.1}, proofs=50)
    assert len({row["id"] for row in made}) == 2000
    assert made[51]["id"].endswith("#1")
    share = sum(row["style"] == "term" for row in made) / 2000
    assert abs(share - 0.9) < 0.03


def test_skipping_leaves_a_set_that_shares_nothing_with_what_came_before() -> None:
    development, final = rows(count=20, seed=3, split="eval"), rows(count=20, seed=3, split="eval", skip=20)
    assert not {row["statement"] for row in development} & {row["statement"] for row in final}
    assert development + final == rows(count=40, seed=3, split="eval")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"styles": {"poem": 1.0}}, "styles is {'poem': 1.0}"),
        ({"styles": {"term": 0.0}}, "styles is {'term': 0.0}"),
        ({"styles": {"term": -1.0, "mixed": 2.0}}, "give weights of term, tactic, mixed"),
        ({"proofs": 0}, "proofs is 0"),
        ({"skip": -1}, "skip is -1"),
    ],
)
def test_senseless_ways_of_writing_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        rows(count=2, seed=1, **arguments)
