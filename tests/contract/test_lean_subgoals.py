"""Steps of rejected proofs, as models write them, judged by the real embedded Lean. Not covered: full Lean and Mathlib."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.schema import ScoringSection
from rlpost.scoring.score import Scorer
from rlpost.trajectory import Group
from rlpost.types import ItemVerdict, Prompt, SpanReward, Verdict, VerifyItem
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.lean_toolchain import PRELUDE_IMPORTS, build
from support.trajectories import answer as answered

pytestmark = pytest.mark.lean

BINDERS = "(p q r s : Prop) (h : p ∨ q) (hr : q → r) (hp : p → r)"
GOAL = "(q ∨ p) ∧ s"
SIGNATURE = f"theorem foo {BINDERS} : {GOAL}"
SWAP = "have h₁ : q ∨ p := h.elim Or.inr Or.inl"


@pytest.fixture(scope="module")
def lean() -> Iterator[LeanVerifier]:
    with LeanVerifier(workers=2, timeout_s=5, subgoals=True) as verifier:
        yield verifier


def judged(lean: LeanVerifier, answer: str, statement: str = GOAL, binders: str = BINDERS) -> Verdict:
    columns = {"statement": statement, "binders": binders, "theorem": "foo", "id": "foo"}
    [verdict] = lean.verify_batch([VerifyItem(columns, answer)])
    return verdict


def steps(answer: str, items: tuple[ItemVerdict, ...]) -> list[tuple[str, str]]:
    """First line of each step, and what is said of it."""
    return [(answer[item.start : item.stop].split("\n")[0], item.reason) for item in items]


CASES: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "a filled skeleton in a fence": (
        f"### Plan\n1. swap -- easily\n2. `s`\n\n```lean4\nimport Mathlib\nset_option maxHeartbeats 400000\nopen Nat\n\n"
        f"{SIGNATURE} := by\n  have h₁ : q ∨ p := by\n    cases h with\n    | inl a => exact Or.inr a\n"
        "    | inr b => exact Or.inl b\n  have h₂ : s := by\n    exact h\n  exact ⟨h₁, h₂⟩\n```\nDone.",
        [("have h₁ : q ∨ p := by", "needed"), ("have h₂ : s := by", "unproved")],
    ),
    "a hole left as sorry": (
        "by\n  have h₁ : q ∨ p := by\n    exact h.elim Or.inr Or.inl\n  have h₂ : s := by sorry\n  exact ⟨h₁, h₂⟩",
        [("have h₁ : q ∨ p := by", "needed"), ("have h₂ : s := by sorry", "unproved")],
    ),
    "steps without a name": (
        "by\n  have : q ∨ p := h.elim Or.inr Or.inl\n  have h₂ : s := hr\n  exact ⟨this, h₂⟩",
        [("have : q ∨ p := h.elim Or.inr Or.inl", "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a second this shadows the first": (
        "by\n  have : q ∨ p := h.elim Or.inr Or.inl\n  have : s := hr\n  exact ⟨this, this⟩",
        [("have : q ∨ p := h.elim Or.inr Or.inl", "open"), ("have : s := hr", "unproved")],
    ),
    "a pattern ends the steps": (
        f"by\n  {SWAP}\n  have ⟨a, b⟩ : s ∧ s := hr\n  exact ⟨h₁, a⟩",
        [(SWAP, "open")],
    ),
    "obtain ends the steps": (
        f"by\n  {SWAP}\n  obtain ⟨a, b⟩ : s ∧ s := hr\n  have h₃ : r := h.elim hp hr\n  exact ⟨h₁, a⟩",
        [(SWAP, "open")],
    ),
    "obtain comes first": (f"by\n  obtain a | b := h\n  {SWAP}\n  exact ⟨h₁, hr⟩", []),
    "comments between and inside": (
        "by\n  -- swap, have : q ∨ p\n  have h₁ : q ∨ p := by -- by cases\n    /- a\n  have z : s := hr -/\n"
        "    exact h.elim Or.inr Or.inl\n\n  -- s\n  have h₂ : s := hr -- no\n  exact ⟨h₁, h₂⟩",
        [("have h₁ : q ∨ p := by -- by cases", "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "calc inside": (
        "by\n  have h₁ : (q ∨ p) ↔ (q ∨ p) := by\n    calc\n      (q ∨ p) ↔ (p ∨ q) := ⟨fun a => a.elim Or.inr Or.inl, fun a"
        " => a.elim Or.inr Or.inl⟩\n      _ ↔ (q ∨ p) := ⟨fun a => a.elim Or.inr Or.inl, fun a => a.elim Or.inr Or.inl⟩"
        "\n  have h₂ : s := hr\n  exact ⟨h₁.1 (h.elim Or.inr Or.inl), h₂⟩",
        [("have h₁ : (q ∨ p) ↔ (q ∨ p) := by", "trivial"), ("have h₂ : s := hr", "unproved")],
    ),
    "names of other alphabets": (
        "by\n  have hαβ' : q ∨ p := h.elim Or.inr Or.inl\n  have h_σ₂ : s := hr\n  exact ⟨hαβ', h_σ₂⟩",
        [("have hαβ' : q ∨ p := h.elim Or.inr Or.inl", "needed"), ("have h_σ₂ : s := hr", "unproved")],
    ),
    "a name used twice": (
        f"by\n  {SWAP}\n  have h₁ : s := hr\n  exact ⟨h₁, h₁⟩",
        [(SWAP, "open"), ("have h₁ : s := hr", "unproved")],
    ),
    "a step that shadows a hypothesis": (
        "by\n  have h : q ∨ p := h.elim Or.inr Or.inl\n  have h₂ : s := hr\n  exact ⟨h, h₂⟩",
        [("have h : q ∨ p := h.elim Or.inr Or.inl", "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a step that a later one needs": (
        "by\n  have h₀ : r := h.elim hp hr\n  have h₁ : r ∧ (q ∨ p) := ⟨h₀, h.elim Or.inr Or.inl⟩\n"
        "  have h₂ : s := h₀\n  exact ⟨h₁.2, h₂⟩",
        [
            ("have h₀ : r := h.elim hp hr", "needed"),
            ("have h₁ : r ∧ (q ∨ p) := ⟨h₀, h.elim Or.inr Or.inl⟩", "needed"),
            ("have h₂ : s := h₀", "unproved"),
        ],
    ),
    "a chain that nothing needs": (
        f"by\n  have a : r := h.elim hp hr\n  have b : r ∨ s := Or.inl a\n  {SWAP}\n  have h₂ : s := b\n  exact ⟨h₁, h₂⟩",
        [
            ("have a : r := h.elim hp hr", "idle"),
            ("have b : r ∨ s := Or.inl a", "idle"),
            (SWAP, "needed"),
            ("have h₂ : s := b", "unproved"),
        ],
    ),
    "a step with arguments": (
        "by\n  have h₁ (t : Prop) (ht : t) : q ∨ p := h.elim Or.inr Or.inl\n  have h₂ : s := hr\n"
        "  exact ⟨h₁ True trivial, h₂⟩",
        [("have h₁ (t : Prop) (ht : t) : q ∨ p := h.elim Or.inr Or.inl", "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a step without a type": (
        f"by\n  {SWAP}\n  have h₃ := hr\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩",
        [(SWAP, "open")],
    ),
    "nothing but steps": (f"by\n  {SWAP}\n  have h₂ : s := hr", [(SWAP, "open"), ("have h₂ : s := hr", "unproved")]),
    "a step within a step": (
        "by\n  have h₁ : q ∨ p := by\n    have h₃ : q ∨ p := h.elim Or.inr Or.inl\n    exact h₃\n  have h₂ : s := by\n"
        "    have h₄ : r := h.elim hp hr\n    exact h₄\n  exact ⟨h₁, h₂⟩",
        [("have h₁ : q ∨ p := by", "needed"), ("have h₂ : s := by", "unproved")],
    ),
    "one line": (
        f"by {SWAP}; have h₂ : s := hr; exact ⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "semicolons within a step": (
        f"by\n  {SWAP}\n  have h₂ : s := by skip; exact hr\n  exact ⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := by skip; exact hr", "unproved")],
    ),
    "tactics after a prompt that ends with by": (
        f"\n  {SWAP}\n  have h₂ : s := by\n    exact hr\n  exact ⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := by", "unproved")],
    ),
    "tactics without a margin": (
        f"{SWAP}\nhave h₂ : s := by\n  exact hr\nexact ⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := by", "unproved")],
    ),
    "a term": (
        f"{SWAP}\nhave h₂ : s := hr\n⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a term on one line": (
        f"{SWAP}; have h₂ : s := hr; ⟨h₁, h₂⟩",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "the same text in a thought before it": (
        f"<think>\n```lean\n{SIGNATURE} := by\n  {SWAP}\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩\n```\n</think>\n"
        f"```lean\n{SIGNATURE} := by\n  {SWAP}\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩\n```",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a lemma before the theorem": (
        f"```lean\nlemma swap {{a b : Prop}} (h : a ∨ b) : b ∨ a := h.elim Or.inr Or.inl\n\n{SIGNATURE} := by\n"
        "  have h₁ : q ∨ p := swap h\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩\n```",
        [("have h₁ : q ∨ p := swap h", "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a namespace opened for the theorem alone": (
        f"```lean4\nopen Nat in\n@[simp] theorem foo {BINDERS} :\n    {GOAL} := by\n  {SWAP}\n  have h₂ : s := hr\n"
        "  exact ⟨h₁, h₂⟩\n```",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "another theorem than the task's": (f"theorem foo (p : Prop) : p := by\n  {SWAP}\n  exact h₁", []),
    "a step inside a case": (
        "by\n  constructor\n  · have h₁ : q ∨ p := h.elim Or.inr Or.inl\n    exact h₁\n  · exact hr",
        [],
    ),
    "a rest that closes nothing": (f"by\n  {SWAP}\n  exact ⟨h₁, hr⟩", [(SWAP, "open")]),
    "an unknown name in a statement": (
        "by\n  have h₁ : zz = zz := rfl\n  have h₂ : s := hr\n  exact ⟨h.elim Or.inr Or.inl, h₂⟩",
        [],
    ),
    "a statement that runs on": (
        "by\n  have h₁ : True := trivial theorem foo : True := trivial\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩",
        [],
    ),
    "a statement that sets options": (
        "by\n  have h₁ : (set_option debug.skipKernelTC true in True) := trivial\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩",
        [],
    ),
    "lines as Windows ends them": (
        f"by\r\n  {SWAP}\r\n  have h₂ : s := hr\r\n  exact ⟨h₁, h₂⟩\r\n",
        [(SWAP, "needed"), ("have h₂ : s := hr", "unproved")],
    ),
    "a step mentioned for its own sake": (
        f"by\n  have t : True ∧ True := ⟨trivial, trivial⟩\n  {SWAP}\n  have h₂ : s := hr\n"
        "  exact (fun _ => ⟨h₁, h₂⟩ : True ∧ True → _) t",
        [
            ("have t : True ∧ True := ⟨trivial, trivial⟩", "trivial"),
            (SWAP, "needed"),
            ("have h₂ : s := hr", "unproved"),
        ],
    ),
    "no step at all": ("by\n  exact hr", []),
    "nothing": ("by", []),
}


@pytest.mark.parametrize("name", CASES)
def test_steps_are_judged_as_theorems_of_their_own(lean: LeanVerifier, name: str) -> None:
    answer, expected = CASES[name]
    verdict = judged(lean, answer)
    assert verdict.outcome == "rejected"
    assert steps(answer, verdict.items) == expected
    for item in verdict.items:
        assert item.score == (item.reason == "needed")
        assert item.outcome == ("rejected" if item.reason == "unproved" else "accepted")


UNBOUND = "∀ p q s : Prop, p ∨ q → (q ∨ p) ∧ s"
INTRODUCED: dict[str, tuple[str, str, list[str]]] = {
    "as the statement names them": (UNBOUND, "intro p q s h", ["needed", "unproved"]),
    "in two goes": (UNBOUND, "intro p q\n  intro s h", ["needed", "unproved"]),
    "renamed": (UNBOUND.replace("p", "a").replace("Proa", "Prop"), "intro p q s h", ["needed", "unproved"]),
    "by rintro": (UNBOUND, "rintro p q s h", ["needed", "unproved"]),
    "with arrows in brackets": ("∀ (p q s : Prop), (p ∨ q) → ((q ∨ p) ∧ s)", "intro p q s h", ["needed", "unproved"]),
    "implicit ones": ("∀ {p q s : Prop} (_ : p ∨ q), (q ∨ p) ∧ s", "intro p q s h", ["needed", "unproved"]),
    "too many": (UNBOUND, "intro p q s h t", []),
    "without names": (UNBOUND, "intros", []),
    "one of them nameless": (UNBOUND, "intro p q s _", []),
    "by pattern": ("∀ p q s : Prop, (p ∨ q) ∧ s → (q ∨ p) ∧ s", "intro p q s ⟨h, _⟩", []),
    "behind a negation": ("∀ p q s : Prop, ¬(p ∨ q)", "intro p q s h", []),
    "of an arrow that binds looser than it looks": ("∀ p q s : Prop, p ∨ q → s ↔ s", "intro p q s h", []),
}


@pytest.mark.parametrize("name", INTRODUCED)
def test_what_a_proof_introduces_is_in_scope_or_nothing_is_said(lean: LeanVerifier, name: str) -> None:
    statement, line, expected = INTRODUCED[name]
    answer = f"by\n  {line}\n  {SWAP}\n  have h₂ : s := h\n  exact ⟨h₁, h₂⟩"
    verdict = judged(lean, answer, statement, "")
    assert verdict.outcome == "rejected"
    assert [item.reason for item in verdict.items] == expected


def test_a_function_introduces_too(lean: LeanVerifier) -> None:
    answer = f"fun p q => fun s h => {SWAP}; have h₂ : s := h; ⟨h₁, h₂⟩"
    assert [item.reason for item in judged(lean, answer, UNBOUND, "").items] == ["needed", "unproved"]


def test_an_accepted_proof_has_no_items(lean: LeanVerifier) -> None:
    verdict = judged(lean, f"by\n  {SWAP}\n  exact h₁", "q ∨ p")
    assert (verdict.outcome, verdict.items) == ("accepted", ())


def test_steps_beyond_the_limit_belong_to_the_rest() -> None:
    answer = f"by\n  {SWAP}\n  have h₃ : r := h.elim hp hr\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩"
    with LeanVerifier(timeout_s=5, subgoals=True, max_subgoals=1) as lean:
        assert steps(answer, judged(lean, answer).items) == [(SWAP, "open")]


def test_padding_changes_nothing_for_the_steps_that_were_there(lean: LeanVerifier) -> None:
    padding = ["have t : True := trivial", "have t₂ : r := h.elim hp hr", "have : True ∧ True := ⟨trivial, trivial⟩"]
    draw = random.Random(0)
    for _ in range(4):
        lines = [SWAP, "have h₂ : s := hr"]
        for line in draw.sample(padding, 2):
            lines.insert(draw.randint(0, len(lines)), line)
        answer = "by\n  " + "\n  ".join([*lines, "exact ⟨h₁, h₂⟩"])
        found = dict(steps(answer, judged(lean, answer).items))
        assert found.pop(SWAP) == "needed"
        assert found.pop("have h₂ : s := hr") == "unproved"
        assert set(found.values()) <= {"idle", "trivial"}


def test_a_check_that_stays_undecided_leaves_its_step_undecided(
    lean: LeanVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = lean.verify_tasks
    lost = Verdict("undecided", None, "unavailable")

    def verify_tasks(tasks: Any) -> list[Verdict]:
        return [lost if one.statement == "q ∨ p" else v for one, v in zip(tasks, real(tasks), strict=True)]

    monkeypatch.setattr(lean, "verify_tasks", verify_tasks)
    answer = f"by\n  {SWAP}\n  have h₂ : s := hr\n  exact ⟨h₁, h₂⟩"
    first, second = judged(lean, answer).items
    assert (first.outcome, first.reason, first.score) == ("undecided", "unavailable", 0.0)
    assert second.outcome == "rejected"


def test_the_scorer_takes_the_blame_from_the_needed_step_alone() -> None:
    spec = {"verifier": "lean.embedded", "verifier_args": {"subgoals": True}, "timeout_s": 5}
    section = ScoringSection.model_validate({**spec, "rewards": [{"name": "outcome"}, {"name": "subgoals"}]})
    texts = [f"by\n  {SWAP}\n  have h₂ : q ∨ p := hr\n  exact ⟨h₁, h₂⟩", "⟨h.elim Or.inr Or.inl, h.elim Or.inr Or.inl⟩"]
    columns = {"statement": "(q ∨ p) ∧ (q ∨ p)", "binders": BINDERS}
    members = tuple(answered(text, number) for number, text in enumerate(texts))
    scorer = Scorer(section)
    try:
        [found] = scorer.score([Group(Prompt("p", text="?", columns=columns), members)])
    finally:
        scorer.close()
    failed, proved = found.rewards
    assert failed is not None
    assert [(span.channel, span.value) for span in failed] == [("reward", 0.0), ("exempt", 0.0)]
    assert texts[0][failed[1].start - 1 : failed[1].stop - 1] == SWAP  # after a prompt of one token
    assert proved == (SpanReward(0, members[1].length, 1.0),)
    assert found.metrics["subgoals/steps"] == 2.0


@pytest.mark.long
def test_a_toolchain_says_the_same(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"command": build(tmp_path), "imports": PRELUDE_IMPORTS, "workers": 2, "timeout_s": 20}
    with LeanVerifier("cli", subgoals=True, **settings) as lean:
        for name, (answer, expected) in CASES.items():
            assert steps(answer, judged(lean, answer).items) == expected, name
