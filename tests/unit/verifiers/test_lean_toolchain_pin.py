"""The checked file and the verdict on Lean's answer to it: no Lean runs, the messages are written by hand."""

from __future__ import annotations

import pytest

from rlpost_verifiers.lean.filter import FilteredError
from rlpost_verifiers.lean.messages import LeanMessage, LeanOutput, Run
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.toolchain.pin import Question, build_question, build_reading, merge_imports
from rlpost_verifiers.lean.toolchain.records import RecordError, read_record
from rlpost_verifiers.lean.toolchain.ruling import Reply, rule

IMPORTS = "import Mathlib"
RUN = Run(0, 0, False, 1.0, 1.0, 100, "")


def lines(question: Question) -> list[str]:
    nonce = question.pin.partition("_")[2]
    assert len(nonce) == 32
    return question.source.replace(nonce, "N").splitlines()


def test_proof_stands_between_two_trusted_declarations() -> None:
    task = ProofTask("n + 0 = n", "by\n  simp", header="import Aesop\nopen Nat", binders="(n : Nat)")
    question = build_question(task, IMPORTS)
    assert lines(question) == [
        "import Mathlib",
        "import Aesop",
        "section Rl_N",
        "open Nat",
        "def RlStatement_N : Prop :=",
        "  ∀ (n : Nat),",
        "  n + 0 = n",
        "#print axioms RlStatement_N",
        "theorem X (n : Nat) : n + 0 = n :=",
        "by",
        "  simp",
        "end Rl_N",
        "theorem RlPin_N : _root_.RlStatement_N := @_root_.X",
        "#print axioms RlPin_N",
    ]
    body = question.body.splitlines()
    assert body[question.proof_line - 1] == "by"
    assert body[question.end_line - 1].startswith("end ")
    assert question.pin != build_question(task, IMPORTS).pin


def test_file_has_a_section_of_its_own_and_what_it_leaves_open_is_closed() -> None:
    file = "-- mine\nimport Mathlib\nopen Nat\nnamespace A.B\nsection\nsection C\nend C\nnoncomputable section\ntheorem X : True := trivial"
    question = build_question(ProofTask("True", file, header="open Real", mode="file"), IMPORTS)
    assert lines(question) == [
        *("import Mathlib", "section Rl_N", "open Real", "def RlStatement_N : Prop :=", "  True"),
        *("#print axioms RlStatement_N", "end Rl_N", "section Rl_N"),
        *("       ", "", "open Nat", "namespace A.B", "section", "section C", "end C", "noncomputable section"),
        *("theorem X : True := trivial", "end", "end", "end A.B", "end Rl_N"),
        *("theorem RlPin_N : _root_.RlStatement_N := @_root_.X", "#print axioms RlPin_N"),
    ]


def test_file_may_import_what_is_there_and_nothing_else() -> None:
    for module in ("Mathlib", "Mathlib.Tactic", "Aesop"):
        build_question(
            ProofTask("True", f"import {module}\ntheorem X : True := trivial", "X", "import Aesop", "", "file"), IMPORTS
        )
    for text in ("import Mathlib2\nx", "import Lean\nx", "open Nat\nimport Mathlib", "/- -/ import Lean\nx"):
        with pytest.raises(FilteredError, match="import"):
            build_question(ProofTask("True", text, mode="file"), IMPORTS)


@pytest.mark.parametrize(
    ("file", "why"),
    [
        ("def X : True := trivial", "X is declared by 'def'"),
        ("noncomputable def _root_.X : True := trivial", "X is declared by 'def'"),
        ("abbrev X.Goal := True\ntheorem X : X.Goal := trivial", "mentions 'X.Goal'"),
        ("namespace X\nabbrev Goal := True\nend X\nopen X\nlemma X : (Goal) := trivial", "mentions 'Goal'"),
        ("namespace A\ndef G := True\nend A\ntheorem X : A.G := trivial", "mentions 'A.G'"),
    ],
)
def test_file_must_state_what_it_proves(file: str, why: str) -> None:
    with pytest.raises(FilteredError, match=why):
        build_question(ProofTask("True", file, mode="file"), IMPORTS)


def test_file_may_share_names_with_the_task() -> None:
    file = "lemma f.mono : True := trivial\ndef f := 1\ntheorem X (f : Nat → Nat) : f = f := by\n  have := f.mono; rfl"
    build_question(ProofTask("f = f", file, "X", "", "(f : Nat → Nat)", "file"), IMPORTS)


def test_theorem_is_renamed_if_the_statement_uses_its_name() -> None:
    question = build_question(ProofTask("(X : ℝ[X]) = X", "rfl", header="open Polynomial"), IMPORTS)
    assert question.theorem.startswith("RlTheorem_")
    assert build_question(ProofTask("Polynomial.X = p.X", "rfl"), IMPORTS).theorem == "X"


def test_reading_states_the_theorem_and_proves_nothing() -> None:
    question = build_reading(ProofTask("True", "sorry"), IMPORTS)
    assert lines(question)[4:] == [
        *("  True", "#print axioms RlStatement_N", "axiom RlTheorem_N : True", "end Rl_N"),
        *("theorem RlPin_N : _root_.RlStatement_N := @_root_.RlTheorem_N", "#print axioms RlPin_N"),
    ]
    assert question.assumed == question.theorem


def test_imports_are_merged_once_and_a_prelude_stays_first() -> None:
    assert merge_imports("prelude\nimport A\n", "import A\nimport B\nimport B") == ("prelude\nimport A\nimport B", "")


QUESTION = build_question(ProofTask("True", "by\n  trivial"), IMPORTS)
LAST = QUESTION.body.rstrip("\n").count("\n") + 1


def info(text: str, line: int, severity: str = "information") -> LeanMessage:
    return LeanMessage(severity, text, line, 0)


def asked(name: str, line: int, axioms: str | None = None) -> LeanMessage:
    says = "does not depend on any axioms" if axioms is None else f"depends on axioms: [{axioms}]"
    return info(f"'{name}' {says}", line)


READ = asked(QUESTION.reference, QUESTION.reference_line)
PROVED = asked(QUESTION.pin, LAST)


def ruling(*messages: LeanMessage, header_lines: int = 0) -> tuple[str, str]:
    run = Run(int(any(m.severity == "error" for m in messages)), 0, False, 1.0, 1.0, 100, "")
    found, _ = rule(QUESTION, Reply(run, LeanOutput(messages, ()), header_lines), 10.0)
    return found.outcome, found.reason


@pytest.mark.parametrize("shift", [0, 1, 7])
@pytest.mark.parametrize("axioms", [None, "propext", "propext,\n Classical.choice,\n Quot.sound"])
def test_a_complete_answer_accepts_the_proof(shift: int, axioms: str | None) -> None:
    read = asked(QUESTION.reference, QUESTION.reference_line + shift)
    noise = info("'X' depends on axioms: [sorryAx]", 7 + shift)
    assert ruling(read, noise, asked(QUESTION.pin, LAST + shift, axioms)) == ("accepted", "proved")


def test_quotes_of_other_versions_are_read() -> None:
    read = info(f"`{QUESTION.reference}` does not depend on any axioms", QUESTION.reference_line)
    assert ruling(read, info(f"{QUESTION.pin} depends on axioms: [propext]", LAST)) == ("accepted", "proved")


ERROR = info("unsolved goals\n⊢ True", QUESTION.proof_line, "error")


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ((READ,), ("rejected", "failed")),
        ((READ, PROVED, PROVED), ("rejected", "failed")),
        ((READ, asked(QUESTION.pin, LAST - 2)), ("rejected", "failed")),
        ((READ, asked(QUESTION.pin + "0", LAST)), ("rejected", "failed")),
        ((READ, asked(QUESTION.pin, LAST), ERROR), ("rejected", "failed")),
        ((READ, info(PROVED.text, LAST, "warning")), ("rejected", "failed")),
        ((READ, info(f"note: {PROVED.text}", LAST)), ("rejected", "failed")),
        ((READ, asked(QUESTION.pin, LAST, "propext, sorryAx")), ("rejected", "sorry")),
        ((READ, asked(QUESTION.pin, LAST, "Lean.ofReduceBool")), ("rejected", "axiom")),
        ((READ, asked(QUESTION.pin, LAST, "MyPropext.propext")), ("rejected", "axiom")),
        ((READ, LeanMessage("warning", "declaration uses `sorry`", 9, 0, "hasSorry"), PROVED), ("rejected", "sorry")),
        ((READ, info("(deterministic) timeout at `whnf`", 6, "error")), ("rejected", "timeout")),
        ((READ, info("(kernel) deep recursion detected", 6, "error")), ("rejected", "kernel_rejected")),
        ((READ, info("Type mismatch", LAST - 1, "error")), ("rejected", "statement_mismatch")),
        ((READ, info("Unknown constant `_root_.X`", LAST - 1, "error")), ("rejected", "failed")),
        # The pin of a failed theorem fails too; the error in the model's text counts.
        ((READ, ERROR, info("(kernel) unknown constant 'X'", LAST - 1, "error")), ("rejected", "failed")),
        ((PROVED,), ("undecided", "statement_mismatch")),
        ((info("Unknown identifier `p`", 4, "error"), READ), ("undecided", "statement_mismatch")),
        ((asked(QUESTION.reference, QUESTION.reference_line, "sorryAx"), PROVED), ("undecided", "statement_mismatch")),
        ((), ("undecided", "statement_mismatch")),
    ],
)
def test_an_incomplete_answer_does_not_accept_the_proof(
    messages: tuple[LeanMessage, ...], expected: tuple[str, str]
) -> None:
    assert ruling(*messages) == expected


def test_an_error_in_the_imports_is_undecided() -> None:
    assert ruling(info("unknown module prefix", 1, "error"), header_lines=1) == ("undecided", "unavailable")


def test_answers_of_the_repl_are_read_strictly() -> None:
    place = {"pos": {"line": 1, "column": 2}}
    output = read_record({"env": 0, "messages": [{"severity": "info", "data": "x", **place}], "sorries": [{}]})
    assert [(m.severity, m.kind) for m in output.messages] == [("information", ""), ("warning", "hasSorry")]
    for wrong in (
        3,
        [3],
        [{"severity": "fatal", "data": "x", **place}],
        [{"severity": "info", "data": 3, **place}],
        [place],
    ):
        with pytest.raises(RecordError):
            read_record({"messages": wrong})
    with pytest.raises(RecordError, match="'sorries' is 'some', not a list"):
        read_record({"sorries": "some"})
