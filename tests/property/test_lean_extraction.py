"""Properties of extraction from any answer. Chosen cases and time: tests/unit/verifiers/test_lean_extract.py."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rlpost_verifiers.lean.extract import ExtractSettings, NoProofError, extract_proof
from rlpost_verifiers.lean.task import ProofTask

MODES = settings(deadline=None, derandomize=True, max_examples=400)

TASKS = [
    ProofTask("p ∧ q → q", "", header="open Nat", binders="(p q : Prop)"),
    ProofTask("let x := 3; f (n := x) = 3", "", binders="(n : Nat := 3) {s : f = 2}"),
    ProofTask('s ≠ ":= a  b" ∧ {x | p x} = [1]', ""),
    ProofTask("True", ""),
]
PIECES = [
    *(
        "```lean\n",
        "```\n",
        "\n```",
        "\n",
        "\n\n",
        "~~~Lean4\n",
        "~~~\n",
        "````\n",
        "```python\n",
        "   ",
        "  ",
        " ",
        "\r\n",
    ),
    *("<think>", "</think>", "by", "by\n", "by_cases h", "exact h", "fun h => h.2", "h₁", "⟨a, b⟩", "\t", "\r"),
    *(
        "theorem t",
        "lemma",
        "open Nat\n",
        "-- c\n",
        "/-",
        "-/",
        ":=",
        " : ",
        '"',
        "e",
        "\u0301",
        "=",
        "\u0338",
        "\u1100",
    ),
    *("\u1161", "\ufeff", "\x00", "\ud800", "\u200b", "\u2126", "(p q : Prop)", "p ∧ q → q", "True", "(h : False)"),
]
CHANGES = [
    *(
        "(h : False)",
        "{h : False}",
        "q",
        "p",
        ":=",
        ":= x",
        " ",
        "\n",
        "'",
        ".",
        "/- a -/",
        "-- a\n",
        "let x := 1;",
        "¬",
    ),
    *("(n : Nat := 3)", '":="', "⟨:=⟩", "∧ False", "→ p", "| h => h", "«t»", ".{u}", "\u200b", "\u00a0", "\u0338"),
]
ANY_TEXT = st.text(st.characters(exclude_categories=()))
ANSWERS = st.lists(st.sampled_from(PIECES) | ANY_TEXT, max_size=12).map("".join)
BLOCKS = st.tuples(ANSWERS, ANSWERS).map(lambda parts: f"{parts[0]}\n```lean\n{parts[1]}\n```\n")
SIGNATURES = [f"theorem t {task.binders} : {task.statement} := " for task in TASKS]
RESTATEMENTS = st.tuples(st.sampled_from(["", "-- c\n", "open Nat\n", "/- a -/"]), st.sampled_from(SIGNATURES), ANSWERS)
TEXTS = ANSWERS | BLOCKS | RESTATEMENTS.map("".join)
SETTINGS = st.builds(ExtractSettings)


def extract(text: str, task: ProofTask, chosen: ExtractSettings) -> str:
    """The proof; an example without one is discarded."""
    try:
        return extract_proof(text, task, chosen)
    except NoProofError:
        assume(False)
        raise


def normalised(text: str) -> str:
    return unicodedata.normalize("NFC", text.removeprefix("\ufeff").replace("\r\n", "\n"))


def tokens(text: str) -> list[str]:
    return re.findall(r"[\w']+|[^\w\s]", text)


def dedented(text: str) -> str:
    return "\n".join(line.removeprefix("  ") for line in text.split("\n"))


@MODES
@given(TEXTS, st.sampled_from(TASKS), SETTINGS)
def test_any_text_holds_a_proof_or_says_why_not(text: str, task: ProofTask, chosen: ExtractSettings) -> None:
    try:
        proof = extract_proof(text, task, chosen)
    except NoProofError:
        return
    assert unicodedata.is_normalized("NFC", proof)
    assert proof == proof.rstrip(" \n")
    assert not re.match(r" *\n", proof)


@MODES
@given(TEXTS, st.sampled_from(TASKS), SETTINGS)
def test_a_proof_is_a_contiguous_part_of_the_answer(text: str, task: ProofTask, chosen: ExtractSettings) -> None:
    proof = extract(text, task, replace(chosen, form="any"))
    assert proof.lstrip(" ") in normalised(text)
    if chosen.restated == "reject":
        assert proof in normalised(text)


@MODES
@given(TEXTS, st.sampled_from(TASKS), SETTINGS)
def test_a_tactic_form_adds_a_by_and_two_columns_at_most(text: str, task: ProofTask, chosen: ExtractSettings) -> None:
    plain = extract(text, task, replace(chosen, form="term", restated="reject"))
    proof = extract_proof(text, task, replace(chosen, form="tactic", restated="reject"))
    assert plain in (proof, proof.removeprefix("by\n"), dedented(proof.removeprefix("by\n")))


@MODES
@given(TEXTS, st.sampled_from(TASKS), SETTINGS)
def test_a_proof_put_into_a_block_is_found_again(text: str, task: ProofTask, chosen: ExtractSettings) -> None:
    proof = extract(text, task, chosen)
    # A lone carriage return, which no filter passes, would become part of a line break; a theorem that proves a
    # theorem would be unpacked once more.
    assume("\r" not in proof and not re.search("theorem|lemma", proof))
    fence = "~" * (3 + max(map(len, re.findall("~+", proof)), default=0))
    block = f"{fence}lean4\n{proof}\n{fence}\n"
    assert extract_proof(block, task, replace(chosen, extract="fence")) == proof


def assert_only_the_signature_is_cut(text: str, task: ProofTask) -> None:
    """The text before the proof must end with the task's own binders and statement, token by token."""
    whole = extract(text, task, ExtractSettings())
    proof = extract(text, task, ExtractSettings(restated="allow"))
    wanted = tokens(f"{task.binders} : {task.statement} :=")
    assert proof == whole or tokens(whole.removesuffix(proof.lstrip(" ")))[-len(wanted) :] == wanted


@MODES
@given(TEXTS, st.sampled_from(TASKS))
def test_only_the_tasks_signature_is_cut_from_any_text(text: str, task: ProofTask) -> None:
    assert_only_the_signature_is_cut(text, task)


@MODES
@given(st.data(), st.sampled_from(TASKS))
def test_a_changed_signature_is_not_cut(data: st.DataObject, task: ProofTask) -> None:
    signature = f"theorem t {task.binders} : {task.statement} := "
    words = re.findall(r"\s+|[\w']+|:=|[^\w\s]", signature)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(4, len(words)))
        stop = data.draw(st.integers(start, min(start + 2, len(words))))
        words[start:stop] = data.draw(st.lists(st.sampled_from([*words, *CHANGES]), max_size=2))
    assert extract_proof(signature + "rfl", task, ExtractSettings(restated="allow")) == "rfl"
    assert_only_the_signature_is_cut("".join(words) + "rfl", task)


@MODES
@given(st.sampled_from(TASKS), st.sampled_from([" ", "\n", "  ", "\n  "]))
def test_a_statement_with_words_added_before_or_after_differs_from_the_tasks(task: ProofTask, gap: str) -> None:
    for other in CHANGES:
        for binders, statement in (
            *((f"{task.binders} {other}", task.statement), (f"{other} {task.binders}", task.statement)),
            *((task.binders, f"{other}{gap}{task.statement}"), (task.binders, f"{task.statement}{gap}{other}")),
        ):
            if other.startswith((":=", " ", "\n")):
                continue
            with pytest.raises(NoProofError, match="differs"):
                extract_proof(f"theorem t {binders} : {statement} := h", task, ExtractSettings(restated="allow"))
