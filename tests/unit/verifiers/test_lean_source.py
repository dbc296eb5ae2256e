"""The checked file and the lexical filter. Whether Lean agrees: tests/contract."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpost.errors import DataError
from rlpost_verifiers.lean.filter import find_forbidden
from rlpost_verifiers.lean.source import (
    FORBIDDEN_WORDS,
    MAX_PROOF_BYTES,
    build_source,
    check_statement,
    proof_start_line,
)
from rlpost_verifiers.lean.task import ProofTask

WORDS = sorted(word for words in FORBIDDEN_WORDS.values() for word in words)


def test_builds_the_file_around_the_proof() -> None:
    task = ProofTask("p → p", "fun h => h", name="other", header="open Nat\n", binders="(p : Prop)")
    expected = "prelude\nimport RLPre\nopen Nat\ntheorem X (p : Prop) : p → p :=\nfun h => h\n"
    assert build_source(task) == expected
    assert proof_start_line(task) == 5


@pytest.mark.parametrize(
    "proof",
    [
        "fun _ h => h",
        "by\n  intro p h\n  exact h",
        "fun _ _ h => ⟨h.2, h.1⟩",
        "by\n  induction n with\n  | zero => rfl\n  | succ k ih => exact congrArg Nat.succ ih",
        "fun h => (Classical.em p).elim id fun n => absurd h n",
        "by simp_all; trivial",
        "fun depend => depend",
        "fun opened trace_1 => opened",
        "fun trace eval exit h1end => exit",
        "by\n  -- the first half\n  exact h.1 /- and /- nothing -/ else -/",
        "by\n  set_option maxRecDepth 2000 in\n  open Nat in\n  exact h",
        "fun h => go h\nwhere go (h : p) : p := h",
        '(rfl : "a b" = "a b")',
    ],
)
def test_lets_honest_proofs_pass(proof: str) -> None:
    assert find_forbidden(proof) is None


@pytest.mark.parametrize(
    "frame", ["{}", "trivial\n{} Y : True := h", "h.{}", "1{}", "by\n  {} x", "⟨{}⟩", "'a'{}", '"s"{}']
)
def test_a_statement_may_hold_no_forbidden_word_wherever_lean_would_read_it(frame: str) -> None:
    for word in WORDS:
        with pytest.raises(DataError):
            check_statement(ProofTask(frame.format(word), ""))


@pytest.mark.parametrize(
    ("proof", "part"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("trivial\n#exit", "'#exit'"),
        ("@[simp] h", "'@['"),
        ("h /- x", "never closed"),
        ("-- nothing but a note", "empty"),
        ("by decide +native", "'native'"),
        ("by decide (config := { native := true })", "'native'"),
        ("by sleep 100000", "'sleep'"),
        ('(s!"{x}" : String)', "'\"'"),
        ('by -- "\n  rfl "', "'\"'"),
        ('r"\\" axiom a : False "', "'\"'"),
        ('r#"a" axiom a : False "b"#', "'\"'"),
        ("⟨1end⟩", "'1e'"),
        ("∘ₗ2end", "'2e'"),
        ("h ∘ₗend", "'ₗend'"),
        ("«axiom»", "'«'"),
        ("fun h =>\th", "U+0009"),
        ("h\r\n", "U+000D"),
        ("h\x00", "U+0000"),
        ("h\u202e", "U+202E"),
        ("h\u2028axiom", "U+2028"),
        ("h\ud800", "U+D800"),
        ("0xfopen", "'0x'"),
        ("endλ", "'end'"),
        ("x" * (MAX_PROOF_BYTES + 1), "65537 characters"),
        ("∀" * (MAX_PROOF_BYTES // 3 + 1), "65538 bytes"),
    ],
)
def test_rejects_and_says_what(proof: str, part: str) -> None:
    problem = find_forbidden(proof)
    assert problem is not None
    assert part in problem


@given(st.text())
def test_filter_has_an_answer_to_any_text(text: str) -> None:
    assert isinstance(find_forbidden(text), str | None)


@pytest.mark.parametrize(
    "task",
    [
        ProofTask("∀ p : Prop, p → p", ""),
        ProofTask("f (n := 3) = 3", ""),
        ProofTask("p ∧\n  q", "", binders="(p q : Prop) {n : Nat} [Decidable p] ⦃m : Nat⦄"),
        ProofTask("True", "", header="open Nat Classical\nuniverse u v\n"),
        ProofTask("True", "", header="set_option maxHeartbeats 0\nopen scoped Nat", binders="(exit trace : Prop)"),
    ],
)
def test_sound_tasks_pass(task: ProofTask) -> None:
    check_statement(task)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (ProofTask("True := trivial\ntheorem Y : True", "", "t7"), "task 't7': statement"),
        (ProofTask("True := trivial", ""), "':=' outside brackets"),
        (ProofTask("(True", ""), "'(' is never closed"),
        (ProofTask("True) ∧ (True", ""), "')' closes nothing"),
        (ProofTask("[True)", ""), "')' closes nothing"),
        (ProofTask("True -- really", ""), "opens a comment"),
        (ProofTask("Tr\u200bue", ""), "U+200B"),
        (ProofTask("e\u0301 = e\u0301", ""), "normal form C"),
        (ProofTask("True", "", binders="p : Prop"), "'p' stands outside brackets"),
        (ProofTask("True", "", binders="(p : Prop"), "binders '(p : Prop': '(' is never closed"),
        (ProofTask("True", "", binders="(p : Prop) : True := trivial theorem Y (q : Prop)"), "binders"),
        (ProofTask("True", "", header="import Mathlib"), "header line 'import Mathlib'"),
        (ProofTask("True", "", header="open Nat in axiom x : False"), "header line"),
        (ProofTask("True", "", header="set_option debug.skipKernelTC true"), "header line"),
    ],
)
def test_unsound_tasks_are_errors_of_the_data(task: ProofTask, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_statement(task)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
