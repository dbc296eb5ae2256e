"""How a proof is cut from an answer, case by case. Random texts: tests/property/test_lean_extraction.py."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from dataclasses import fields

import pytest

from rlpost.errors import UserError
from rlpost_verifiers.lean.extract import ExtractSettings, NoProofError, extract_proof
from rlpost_verifiers.lean.filter import find_forbidden
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.verifier import LeanVerifier

TASK = ProofTask("p ∧ q → q", "", header="open Nat\nopen  Classical Foo", binders="(p q : Prop)")
RAW = ExtractSettings("raw")
FENCE = ExtractSettings("fence")
LOOSE = ExtractSettings("fence", trailing="allow")
TACTIC = ExtractSettings("raw", form="tactic")
RESTATED = ExtractSettings("raw", restated="allow")


def refusal(text: str, settings: ExtractSettings, task: ProofTask = TASK) -> str:
    with pytest.raises(NoProofError) as caught:
        extract_proof(text, task, settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        ("fun h => h.2", "fun h => h.2"),
        ("\n \n  by\n    trivial \n\n", "  by\n    trivial"),
        ("", ""),
        (" \n ", ""),
        ("Hm.\n</think>\n\nfun h => h.2", "fun h => h.2"),
        ("<think>a</think>b</think>rfl", "rfl"),
        ("\ufeffrfl", "rfl"),
        ("by\r\n  rfl\r\n", "by\n  rfl"),
        ("fun e\u0301 => e\u0301", "fun é => é"),
        ("h =\u0338 g", "h ≠ g"),
        ("e\u0301</think>e\u0301", "é"),
    ],
)
def test_raw_takes_what_follows_the_thought(text: str, proof: str) -> None:
    assert extract_proof(text, TASK, RAW) == proof


@pytest.mark.parametrize("text", ["<think>rfl", "<think>a</think>\n<think>\n```lean\nrfl\n```\n"])
@pytest.mark.parametrize("settings", [RAW, LOOSE, TACTIC, RESTATED])
def test_a_thought_without_end_holds_no_proof(text: str, settings: ExtractSettings) -> None:
    assert refusal(text, settings) == "the answer ends inside its thought: <think> is never closed"


@pytest.mark.parametrize(
    "mark", ["\t", "\r", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u200b", "\u2028", "\u202e", "\ud800", "\ue000"]
)
@pytest.mark.parametrize("frame", ["{}rfl", "rf{}l", "rfl{}", "by\n{}\nrfl", "by\n  simp{}\n  rfl"])
@pytest.mark.parametrize("settings", [RAW, TACTIC])
def test_invisible_characters_are_left_for_the_filter(mark: str, frame: str, settings: ExtractSettings) -> None:
    if mark == "\r":
        frame = frame.replace("}\n", "} \n")
    problem = find_forbidden(extract_proof(frame.format(mark), TASK, settings))
    assert problem is not None
    assert f"U+{ord(mark):04X}" in problem


def test_only_one_byte_order_mark_goes() -> None:
    assert extract_proof("\ufeff\ufeffrfl", TASK, RAW) == "\ufeffrfl"


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        ("```lean4\nfun h => h\n```", "fun h => h"),
        ("So:\n```lean\nby\n  trivial\n```\n \n", "by\n  trivial"),
        ("```\nrfl\n```", "rfl"),
        ("```LEAN4\r\nrfl\r\n```\r\n", "rfl"),
        ("``` Lean \nrfl\n``` ", "rfl"),
        ("~~~lean\nrfl\n~~~", "rfl"),
        ("~~~lean\n```\nrfl\n```\n~~~", "```\nrfl\n```"),
        ("`````lean\n```\n`````", "```"),
        ("```lean\nrfl\n`````", "rfl"),
        ("   ```lean\n   rfl\n   ```", "   rfl"),
        ("```lean\nfirst\n```\nno, better:\n```lean4\nsecond\n```", "second"),
        ("```lean\nrfl\n```\n", "rfl"),
        ("```python\n~~~\n```\n```lean\nrfl\n```", "rfl"),
        ("```rfl``` is it:\n```lean\nrfl\n```", "rfl"),
        ("    ```lean\n```lean\nrfl\n```", "rfl"),
        ("<think>\n```lean\nno\n```\n```lean\n</think>\n```lean\nrfl\n```", "rfl"),
        ("```lean\n```", ""),
        ("```lean\n\n\n```", ""),
    ],
)
def test_a_fence_is_read_as_markdown_does(text: str, proof: str) -> None:
    assert extract_proof(text, TASK, FENCE) == proof


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fun h => h", "the answer holds no closed ```lean block"),
        ("", "no closed"),
        ("```python\nx\n```", "no closed"),
        ("```lean extra\nx\n```", "no closed"),
        ("```lean rfl```", "no closed"),
        ("``\nrfl\n``", "no closed"),
        ("<think>\n```lean\nrfl\n```\n</think>\nDone.", "no closed"),
        ("```lean\nfun h => h", "cut off"),
        ("```lean\nrfl\n``` and more", "cut off"),
        ("````lean\nrfl\n```", "cut off"),
        ("```lean\nrfl\n~~~", "cut off"),
        ("```lean\nrfl\n```\n```lean", "cut off"),
        ("```lean\nrfl\n```\n~~~python\n", "cut off"),
        ("```lean\nrfl\n```\nI hope this is right.", "text follows the closing fence"),
        ("```lean\nrfl\n```\n```python\n```", "text follows"),
        ("```lean\nrfl\n```\n\u200b", "text follows"),
    ],
)
def test_a_fence_is_strict(text: str, message: str) -> None:
    assert message in refusal(text, FENCE)


def test_which_of_several_blocks_counts() -> None:
    text = "```lean\none\n```\nor\n```python\ntwo\n```\n```lean4\nthree\n```\nDone."
    assert extract_proof(text, TASK, LOOSE) == "three"
    assert extract_proof(text, TASK, ExtractSettings("fence", "allow", "first")) == "one"
    assert refusal(text, ExtractSettings("fence", "allow", "only")) == (
        "the answer holds 2 ```lean blocks; it should hold one"
    )
    assert extract_proof("```lean\none\n```\n```py\n```", TASK, ExtractSettings("fence", "allow", "only")) == "one"
    assert refusal(text, ExtractSettings("fence", "reject", "first")) == "text follows the closing fence"


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        ("simp", "by\n  simp"),
        (" simp", "by\n simp"),
        ("\n  intro h\n  exact h.2\n", "by\n  intro h\n  exact h.2"),
        (
            "intro h\n\ncases h with\n| intro a b =>\n  exact b",
            "by\n  intro h\n\n  cases h with\n  | intro a b =>\n    exact b",
        ),
        ("by simp", "by simp"),
        ("  by\n    simp", "  by\n    simp"),
        ("by", "by"),
        ("by(simp)", "by(simp)"),
        ("by_cases h : p", "by\n  by_cases h : p"),
        ("by' h", "by\n  by' h"),
        ("bye", "by\n  bye"),
        ("", ""),
        ("\n\n", ""),
    ],
)
def test_tactics_get_their_by_and_keep_their_layout(text: str, proof: str) -> None:
    assert extract_proof(text, TASK, TACTIC) == proof
    assert extract_proof(f"```lean\n{text}\n```", TASK, ExtractSettings("fence", form="tactic")) == proof


@pytest.mark.parametrize("form", ["any", "term"])
def test_other_forms_are_taken_as_they_stand(form: str) -> None:
    settings = ExtractSettings("raw", form=form)  # pyright: ignore[reportArgumentType]
    assert extract_proof("intro h\nexact h", TASK, settings) == "intro h\nexact h"


@pytest.mark.parametrize(
    "signature",
    [
        "theorem t (p q : Prop) : p ∧ q → q :=",
        "lemma A.b'_1₂ (p q : Prop) : p ∧ q → q :=",
        "theorem t(p q : Prop):p ∧ q → q:=",
        "theorem\n  t\n  (p  q : Prop) :\n    p ∧ q\n    → q\n  :=",
        "/- by /- h -/ := -/ -- theorem\n/-- Doc. -/ theorem t (p q : Prop) : p ∧ q → q :=",
        "open Nat\n\n  open   Classical  Foo\ntheorem t (p q : Prop) : p ∧ q → q :=",
    ],
)
def test_a_restated_theorem_gives_its_proof(signature: str) -> None:
    assert extract_proof(f"{signature} fun h => h.2", TASK, RESTATED) == "fun h => h.2"
    assert extract_proof(f"{signature}by\n  simp", TASK, RESTATED) == "by\n  simp"
    assert extract_proof(f"{signature}\n  by\n  simp", TASK, RESTATED) == "by\n  simp"
    assert extract_proof(f"{signature}", TASK, RESTATED) == ""
    fenced = ExtractSettings("fence", form="tactic", restated="allow")
    assert extract_proof(f"```lean\n{signature} id\n```", TASK, fenced) == "id"


def test_a_restated_theorem_keeps_the_columns_of_its_proof() -> None:
    task = ProofTask("True", "")
    text = "-- Hm.\ntheorem t : True := by skip\n                       trivial"
    assert extract_proof(text, task, RESTATED) == "                    by skip\n                       trivial"
    assert extract_proof("theorem t : True :=\n  f\n  x", task, RESTATED) == "  f\n  x"


@pytest.mark.parametrize(
    "text",
    [
        "theorem t (p q : Prop) : p ∧ q → p := h",
        "theorem t (p q : Prop) : p ∧ q → q ∨ p := h",
        "theorem t (p q : Prop) : p ∧ q := h",
        "theorem t (p q : Prop) : p ∧ q → := q := h",
        "theorem t (p q : Prop) : := p ∧ q → q := h",
        "theorem t (q p : Prop) : p ∧ q → q := h",
        "theorem t (p q : Prop) (h : False) : p ∧ q → q := h",
        "theorem t (h : False) (p q : Prop) : p ∧ q → q := h",
        "theorem t (pq : Prop) : p ∧ q → q := h",
        "theorem t (p q : Prop := True) : p ∧ q → q := h",
        "theorem t {p q : Prop} : p ∧ q → q := h",
        "theorem t : p ∧ q → q := h",
        "theorem t (p q : Prop) /- -/ : p ∧ q → q := h",
        "theorem t (p q : Prop) : p ∧ q -- really\n → q := h",
        "theorem t (p q : Prop) : (p ∧ q → q) := h",
        "theorem t (p q : Prop) : p∧q → q := h",
        "theorem t (p q : Prop) : p ∧ q → q",
        "theorem t (p q : Prop) : p ∧ q → q | h => h.2",
        "theorem t (p q : Prop) : p ∧ q → q : = h",
        "theorem t (p q : Prop) : p ∧ q → q' := h",
        "theorem t.{u} (p q : Prop) : p ∧ q → q := h",
        "theorem «t : False := h» (p q : Prop) : p ∧ q → q := h",
        "theorem (p q : Prop) : p ∧ q → q := h",
        "theorem t u (p q : Prop) : p ∧ q → q := h",
        "theorem",
        "theorem t",
    ],
)
def test_a_restated_theorem_must_be_the_tasks_own(text: str) -> None:
    assert refusal(text, RESTATED).startswith("the restated statement differs from the task's: ")


def test_the_message_shows_where_a_restated_theorem_differs() -> None:
    assert refusal("theorem t (p q : Prop) : p ∧ q → p := h", RESTATED) == (
        "the restated statement differs from the task's: 'p := h' where 'q' should be"
    )


@pytest.mark.parametrize(
    ("statement", "changed"),
    [
        ('"a  b" = "a b"', '"a b" = "a b"'),
        ("' ' = f", "'\n' = f"),
        ("let x := f\n  g\n  x = y", "let x := f g\n  x = y"),
        ("let x := 2; x = 2", "let x := 2 x = 2"),
        ("(by\n  exact f\n  x)", "(by\n  exact f x)"),
        ("{ f\n  y } = z", "{ f y } = z"),
        ("f (n := 3) = 3", "f (n :=  4) = 3"),
        ('s = ":= x"', 's = " := x"'),
        ('s = ":= x"', "s ="),
        ("1 = 1 -- x\n → p", "1 = 1 -- x → p"),
    ],
)
def test_spacing_that_means_something_must_be_equal(statement: str, changed: str) -> None:
    task = ProofTask(statement, "")
    assert extract_proof(f"theorem t : {statement} := h", task, RESTATED) == "h"
    assert "differs" in refusal(f"theorem t : {changed} := h", RESTATED, task)


def test_an_early_end_of_the_statement_does_not_count() -> None:
    task = ProofTask("let x := 3; x = 3", "", binders='(n : Nat := 3) (s : f = ":=")')
    signature = 'theorem t (n : Nat := 3) (s : f = ":=") : let x := 3; x = 3 :='
    assert extract_proof(f"{signature} rfl", task, RESTATED) == "rfl"
    for end in range(len("theorem"), signature.rindex("3")):
        assert "differs" in refusal(f"{signature[:end]} := rfl", RESTATED, task)


@pytest.mark.parametrize(
    "preamble",
    [
        "import Mathlib",
        "open Nat Real",
        "open Classical",
        "variable (h : False)",
        "set_option maxHeartbeats 0",
        "private",
        "@[simp]",
        "open Nat in",
        "Here it is:",
        "/- a /- b -/",
        "open Nat -- mine",
        "open\u00a0Nat",
        'notation "q" => True\n',
    ],
)
def test_what_else_stands_before_a_theorem_is_left_for_the_filter(preamble: str) -> None:
    text = f"open Nat\n{preamble}\ntheorem t (p q : Prop) : p ∧ q → q := h"
    assert extract_proof(text, TASK, RESTATED) == text
    assert find_forbidden(text) is not None


def test_a_restated_theorem_is_nothing_special_unless_allowed() -> None:
    text = "theorem t (p q : Prop) : p ∧ q → q := h"
    assert extract_proof(text, TASK, RAW) == text
    assert extract_proof("-- Hm.\nfun h => h.2", TASK, RESTATED) == "-- Hm.\nfun h => h.2"
    assert extract_proof("theorem_of h", TASK, RESTATED) == "theorem_of h"
    assert extract_proof("theorem.of h", TASK, RESTATED) == "theorem.of h"


def test_a_whole_file_is_taken_as_it_stands() -> None:
    task = ProofTask("True", "", mode="file")
    settings = ExtractSettings("fence", form="tactic", restated="allow")
    assert extract_proof("```lean\ntheorem X : False := h\n```", task, settings) == "theorem X : False := h"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extract": "json"}, "extract is 'json'; use 'declarations', 'raw', 'fence' or 'continued'"),
        ({"trailing": True}, "trailing is True; use 'reject' or 'allow'"),
        ({"fences": "all"}, "fences is 'all'; use 'last', 'first' or 'only'"),
        ({"form": ["any"]}, "form is ['any']; use 'any', 'term' or 'tactic'"),
        ({"restated": None}, "restated is None; use 'reject' or 'allow'"),
    ],
)
@pytest.mark.parametrize("make", [ExtractSettings, LeanVerifier])
def test_senseless_settings_are_refused(make: Callable[..., object], settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError) as caught:
        make(**settings)
    assert str(caught.value) == message


def test_the_verifier_offers_every_setting_with_the_same_default() -> None:
    offered = inspect.signature(LeanVerifier).parameters
    assert {field.name: field.default for field in fields(ExtractSettings)} == {
        field.name: offered[field.name].default for field in fields(ExtractSettings)
    }


MEGABYTE = 1_000_000
PIECES = [
    *("`", "~", "```\n", "~~~\n", "```lean\n", "```lean\n```\n", "```` `\n", "   ```", "\n", " ", " \n", "\r", "\r\n"),
    *("<think>", "</think>", "<think", "</", "\u0301", "\u0301a", "\u0f81", "\u0323\u0301", "\u00e9", "\u1100\u1161"),
    *("/-", "-/", "/--/", "/- -/ ", "/- -/", "-- x\n", "open Nat\n", "open Nat ", "theorem ", "theorem t :", ":=", "("),
    *("by ", "by", " by", "'", '"', "\x00", "\ud800", "a"),
]
ENDLESS = [
    *((piece, frame) for piece in PIECES for frame in ("{}x", "```lean\ne\u0301{}\n```")),
    *((piece, "theorem t (p q : Prop) :{}") for piece in (" ", "\n", "p", " p", "/- -/", ":=")),
]


@pytest.mark.parametrize(("piece", "frame"), ENDLESS, ids=ascii)
def test_a_megabyte_of_anything_takes_no_time(piece: str, frame: str) -> None:
    text = frame.format(piece * (MEGABYTE // len(piece)))
    # Linear time takes half a second at most; anything worse takes minutes.
    start = time.process_time()
    for settings in (RESTATED, ExtractSettings("fence", "allow", form="tactic", restated="allow")):
        try:
            extract_proof(text, TASK, settings)
        except NoProofError:
            continue
    assert time.process_time() - start < 4


CONTINUED = ExtractSettings("continued", form="tactic")


@pytest.mark.parametrize(
    ("text", "proof"),
    [
        ("  intro h\n  exact h.2\n```", "by\n  intro h\n  exact h.2"),
        ("  exact h.2\n```\n \n", "by\n  exact h.2"),
        ("  exact h.2\n```  \n", "by\n  exact h.2"),
    ],
)
def test_an_answer_goes_on_inside_the_block_that_the_prompt_opened(text: str, proof: str) -> None:
    assert extract_proof(text, TASK, CONTINUED) == proof


def test_a_continued_block_ends_the_answer() -> None:
    assert extract_proof("  exact h.2\n", TASK, CONTINUED) == "by\n  exact h.2"
    assert extract_proof("  exact h.2 ```", TASK, CONTINUED) == "by\n  exact h.2"
    assert "text follows" in refusal("  exact h.2\n```\nDone.", CONTINUED)
    allowing = ExtractSettings("continued", trailing="allow", form="tactic")
    assert extract_proof("  rfl\n```\nor\n```\n  sorry\n```", TASK, allowing) == "by\n  rfl"
