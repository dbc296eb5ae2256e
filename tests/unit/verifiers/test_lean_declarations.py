"""How the theorem and its helpers are taken out of a model's text. Whether Lean agrees: tests/contract."""

from __future__ import annotations

import contextlib
import time

import pytest

from rlpost_verifiers.lean.blocks import cut_tail, find_blocks
from rlpost_verifiers.lean.declarations import NoTheoremError, find_declarations, read_declarations
from rlpost_verifiers.lean.extract import ExtractSettings, NoProofError, extract_task
from rlpost_verifiers.lean.filter import FilteredError, admit
from rlpost_verifiers.lean.forms import as_proof
from rlpost_verifiers.lean.scopes import closing_lines, opened_namespaces, scope_after
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import blank_comments

TASK = ProofTask("p → p", "", "t", binders="(p : Prop)", theorem="t")


def taken(text: str, task: ProofTask = TASK) -> ProofTask:
    found = read_declarations(text, task)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("text", "name", "proof"),
    [
        ("theorem t : a := b", "t", "theorem t : a := b"),
        ("lemma t : a := b", "t", "theorem t : a := b"),
        ("theorem other : a := b", "other", "theorem other : a := b"),
        ("theorem _root_.t : a := b", "t", "theorem        t : a := b"),
        ("import A\npublic import B\ntheorem t : a := b", "t", "\n\ntheorem t : a := b"),
        ("@[simp]\nprotected theorem t : a := b", "t", "theorem\n                  t : a := b"),
        ("/-- doc -/ theorem t : a := b -- end", "t", "           theorem t : a := b"),
        ("theorem h : c := d\ntheorem t : a := b\ntheorem z : e := f", "t", "theorem h : c := d\ntheorem t : a := b"),
        ("theorem t : a := b\n\n#print axioms t\n#exit", "t", "theorem t : a := b"),
        ("#check Nat\n  .succ\ntheorem t : a := b", "t", "\n\ntheorem t : a := b"),
        ("set_option pp.all true\ntheorem t : a := b", "t", "\ntheorem t : a := b"),
        ("set_option maxRecDepth 9 in\ntheorem t : a := b", "t", "set_option maxRecDepth 9 in\ntheorem t : a := b"),
        ("namespace A.B\ntheorem t : a := b\nend A.B", "A.B.t", "namespace A.B\ntheorem t : a := b"),
        ("section\ntheorem t : a := b\nend", "t", "section\ntheorem t : a := b"),
        ("theorem t.{u} : a := b", "t", "theorem t.{u} : a := b"),
        ("theorem t : a := by\n  simp\n  where g := 1", "t", "theorem t : a := by\n  simp\n  where g := 1"),
        ("mutual\ntheorem t : a := b\ntheorem s : a := t\nend\nx", "t", "mutual\ntheorem t : a := b\ntheorem s : a := t\nend"),
        ("attribute [instance] foo\ntheorem t : a := b", "t", "attribute [instance] foo\ntheorem t : a := b"),
        ("theorem x : (p → p) := h\ntheorem y (p : Prop) : p → p := x\ntheorem z : c := d", "y", "theorem x : (p → p) := h\ntheorem y (p : Prop) : p → p := x"),
        ("theorem a : b := c\ntheorem A.t : d := e", "A.t", "theorem a : b := c\ntheorem A.t : d := e"),
    ],
)  # fmt: skip
def test_the_theorem_and_what_stands_before_it(text: str, name: str, proof: str) -> None:
    found = taken(text)
    kept = [line.rstrip() for line in found.proof.split("\n")]
    assert (found.theorem, "\n".join(kept)) == (name, proof)
    assert found.mode == "declarations"


@pytest.mark.parametrize(
    "text", ["by simp", "fun h => h", "", "-- theorem t : a := b", "h.theorem", "exact lemma_of h"]
)
def test_a_bare_proof_declares_nothing(text: str) -> None:
    assert read_declarations(text, TASK) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("theorem t : a := b\ntheorem t : c := d", "2 theorems are called 't'; one must be"),
        ("theorem t : a := b\nnamespace A\ntheorem t : c := d", "2 theorems are called 't'; one must be"),
        ("def t : a := b", "'t' is declared by 'def'; prove it as a theorem"),
        ("axiom t : a", "'t' is declared by 'axiom'; prove it as a theorem"),
        ("theorem x : a := b\ntheorem y : c := d", "none of the 2 theorems is called 't'"),
        ("def f := 1\nexample : a := b", "none of the 0 theorems is called 't'"),
        ("theorem t : a := b /- never closed", "opened by '/-' and never closed"),
        ("theorem t : a := b +--", "may or may not open a comment"),
    ],
)
def test_what_could_be_meant_in_two_ways_is_refused(text: str, message: str) -> None:
    with pytest.raises(NoTheoremError) as caught:
        read_declarations(text, TASK)
    assert message in str(caught.value)
    with pytest.raises(NoProofError):
        extract_task(f"```lean\n{text}\n```", TASK, ExtractSettings())


def test_every_line_keeps_its_number_and_the_body_its_columns() -> None:
    text = "import Mathlib\n/- a\nb -/\n@[simp] lemma h : c := by\n  simp\n\nprivate lemma t : a := by\n  exact h -- so"
    found = taken(text).proof.split("\n")
    assert found[6].startswith("theorem ")
    assert (found[4], found[7]) == ("  simp", "  exact h")


def test_what_the_task_declares_itself_is_not_declared_twice() -> None:
    task = ProofTask("n = 3", "", "t", context="namespace A\nabbrev n : Nat := 3")
    text = "namespace A\nabbrev  n : Nat :=\n  3\nabbrev m := 4\ntheorem t : n = 3 := rfl"
    found = taken(text, task)
    assert [line.rstrip() for line in found.proof.split("\n")] == [
        "",
        "",
        "",
        "abbrev m := 4",
        "theorem t : n = 3 := rfl",
    ]
    assert found.theorem == "t"
    changed = taken("abbrev n : Nat := 4\ntheorem t : n = 3 := rfl", task)
    assert changed.proof.startswith("abbrev n : Nat := 4")


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("```lean4\na\n```", ["a\n"]),
        ("```lean 4\na\n```", ["a\n"]),
        ("```Lean-4\na\n```", ["a\n"]),
        ("```\na\n```", ["a\n"]),
        ("```tactics\na\n```", ["a\n"]),
        ('```lean4 title="x"\na\n```', ["a\n"]),
        ("````lean\na\n```\nb\n````", ["a\n```\nb\n"]),
        ("~~~lean\na\n~~~", ["a\n"]),
        ("1. x\n\n    ```lean\n    a\n      b\n    ```", ["a\n  b\n"]),
        ("> ```lean\n> a\n> ```", ["a\n"]),
        ("```lean\na```", ["a"]),
        ("```lean\na\nb ```\ntalk", ["a\nb"]),
        ("```lean\na", ["a"]),
        ("```python\nx\n```\n```lean\na\n```", ["a\n"]),
        ("```json\nx\n```", []),
        ("  a\n```\ntalk", ["  a\n"]),
        ("  a\n```", ["  a\n"]),
        ("  a```", ["  a"]),
        ("a", ["a"]),
        ("", [""]),
        ("```a``` inline\n```lean\nb\n```", ["b\n"]),
        ("talk\n```\na\n```", ["a\n"]),
    ],
)
def test_blocks_as_models_write_them(text: str, blocks: list[str]) -> None:
    assert [block.text for block in find_blocks(text)] == blocks


@pytest.mark.parametrize("tail", ["<|im_end|>", "</s>", "<|endoftext|>\n", " <|eot_id|><|end_of_text|>", "<｜end▁of▁sentence｜>", "<end_of_turn>", "\n<|im_end|>\n</s>"])  # fmt: skip
def test_special_tokens_at_the_end_are_no_code(tail: str) -> None:
    assert cut_tail(f"rfl\n```{tail}") == "rfl\n```"
    assert cut_tail(f"{tail} rfl") == f"{tail} rfl"


@pytest.mark.parametrize(
    ("text", "form", "proof"),
    [
        ("exact h", "any", "by\n  exact h"),
        ("  constructor\n  · simp", "any", "by\n  constructor\n  · simp"),
        ("have k := h\nexact k", "any", "by\n  have k := h\n  exact k"),
        ("have k := h\nk", "any", "have k := h\nk"),
        ("fun h => by\n  exact h", "any", "fun h => by\n  exact h"),
        ("by simp", "any", "by simp"),
        ("⟨h, k⟩", "any", "⟨h, k⟩"),
        ("exact_of h", "any", "exact_of h"),
        ("exact h", "term", "exact h"),
        ("h", "tactic", "by\n  h"),
        ("", "any", ""),
    ],
)
def test_a_tactic_block_gets_its_by(text: str, form: str, proof: str) -> None:
    assert as_proof(text, form) == proof  # pyright: ignore[reportArgumentType]


def test_the_last_block_that_declares_the_theorem_counts() -> None:
    answer = (
        "```lean\ntheorem t : a := sorry\n```\nso\n```lean\ntheorem t : a := b\n```\nfor example\n```lean\n#eval 1\n```"
    )
    assert extract_task(answer, TASK, ExtractSettings()).proof == "theorem t : a := b"
    hidden = f"<think>\n{answer}\n</think>\n```lean\nexact h\n```"
    assert extract_task(hidden, TASK, ExtractSettings()).proof == "by\n  exact h"


def test_a_whole_file_is_not_searched_for_declarations() -> None:
    task = ProofTask("True", "", mode="file")
    found = extract_task("```lean\ntheorem X : True := h\n#print X\n```", task, ExtractSettings())
    assert (found.mode, found.proof) == ("file", "theorem X : True := h\n#print X")


@pytest.mark.parametrize(
    "text",
    [
        *("theorem t : a := b\nend Foo axiom c : d", "macro x : term => y\ntheorem t : a := b"),
        *("@[extern \"f\"] def g := 1\ntheorem t : a := b", "set_option debug.skipKernelTC true in\ntheorem t : a := b"),
        *("open Lean Elab in\ntheorem t : a := b", "run_cmd x\ntheorem t : a := b", "#exit\ntheorem t : a := b"),
        *("theorem «t» : a := b", "initialize x : y\ntheorem t : a := b", "theorem t : a := by native_decide"),
        *("unsafe def x := 1\ntheorem t : a := b", "@[implemented_by x] def y := 1\ntheorem t : a := b"),
    ],
)  # fmt: skip
def test_nothing_that_runs_code_comes_through(text: str) -> None:
    try:
        found = read_declarations(text, TASK)
    except NoTheoremError:
        return
    assert found is not None
    if "end Foo" in text:  # cut with everything after the theorem
        assert found.proof == "theorem t : a := b"
        return
    with pytest.raises(FilteredError):
        admit(found.proof, found.mode)


def test_scopes_are_read_from_words() -> None:
    text = "namespace A.B -- namespace C\nsection\nnamespace D end D"
    assert scope_after(text) == ("A", "B")
    assert closing_lines(blank_comments(text)) == ["end", "end A.B"]
    assert opened_namespaces("open Nat Real in\nopen scoped Topology\nopen Finset (sum)\n  h.open x") == (
        "namespace Nat end Nat namespace Real end Real namespace Topology end Topology namespace Finset end Finset\n"
    )
    assert [each.full for each in find_declarations("section S def a := 1 end S instance : B := c")] == ["a", ""]


MEGABYTE = 1_000_000
PIECES = ["theorem t : a := b\n", "```lean\na```\n", "instance ", "@[simp] ", "private ", "/-", "-- x\n", "namespace A\n", "end\n", "```\n", "```lean\n", " ```", "open A ", "set_option pp.x ", "#print ", "def ", "mutual\n", "(", " ", "\n", "<|im_end|>", "h1end", "import A\n", "> "]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES, ids=ascii)
@pytest.mark.parametrize("frame", ["{}", "```lean\n{}theorem t : a := b\n```", "theorem t : a := b{}"])
def test_a_tenth_of_a_megabyte_of_anything_takes_no_time(piece: str, frame: str) -> None:
    text = frame.format(piece * (MEGABYTE // 10 // len(piece)))
    start = time.process_time()
    with contextlib.suppress(NoProofError):
        extract_task(text, TASK, ExtractSettings())
    assert time.process_time() - start < 2


def test_ten_megabytes_are_refused_in_one_line() -> None:
    text = "```lean\n" + "theorem t : a := b\n" * 500_000 + "```"
    with pytest.raises(NoProofError, match=r"the code is \d+ characters long; the limit is 262144"):
        extract_task(text, TASK, ExtractSettings())
