"""Declarations taken apart, and files of them. Not covered: whether Mathlib accepts the statements."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from rlpost.config.schema import DataSection
from rlpost.data.load import make_prompts
from rlpost.errors import DataError
from rlpost.plugins import registry
from rlpost_verifiers.lean.source import check_statement
from rlpost_verifiers.lean.statements import rows, split_theorem
from rlpost_verifiers.lean.task import parse_task


@pytest.mark.parametrize(
    ("text", "binders", "statement"),
    [
        ("theorem t : 1 = 1 := by", "", "1 = 1"),
        ("theorem t : 1 = 1", "", "1 = 1"),
        (
            "lemma t.u' (n : ℕ) {m : ℕ} [Inhabited α] ⦃k : ℕ⦄ : n = m := sorry",
            "(n : ℕ) {m : ℕ} [Inhabited α] ⦃k : ℕ⦄",
            "n = m",
        ),
        ("theorem t (h : ∀ x : ℝ, x > 0) :\n  ∃ y : ℝ, y > 0 := by\n", "(h : ∀ x : ℝ, x > 0)", "∃ y : ℝ, y > 0"),
        ("theorem t (f : ℕ → ℕ := fun x => x) : f 0 = 0 := by sorry", "(f : ℕ → ℕ := fun x => x)", "f 0 = 0"),
        ("theorem t : let x := 1; x = 1 := by", "", "(let x := 1; x = 1)"),
        ("theorem t : (let x := 1; x = 1) := by", "", "(let x := 1; x = 1)"),
        ("/-- about theorem u : no /- nested -/ -/ theorem t -- : not this\n : True := by", "", "True"),
        ("theorem t (h : a = b -- why )\n) : b = a := by", "(h : a = b  \n)", "b = a"),
    ],
)
def test_parts_by_hand(text: str, binders: str, statement: str) -> None:
    found = split_theorem(text)
    assert (found.binders, found.statement) == (binders, statement)
    check_statement(parse_task({"statement": statement, "binders": " ".join(binders.split()), "proof": "rfl"}, "here"))


def test_the_header_keeps_what_a_backend_cannot_know() -> None:
    text = "import Mathlib\nset_option  maxHeartbeats 0\nset_option pp.all true\nopen Nat Real\nuniverse u\ntheorem t : True := by"
    assert split_theorem(text).header == "set_option maxHeartbeats 0\nopen Nat Real\nuniverse u"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def x : ℕ := 1", "0 theorems"),
        ("theorem a : True := by\ntheorem b : True := by", "2 theorems"),
        ("theorem a := by", "no colon"),
        ("theorem a (h : p : q := by", "'\\(' is never closed"),
        ("theorem a h) : q := by", "'\\)' closes nothing"),
        ("theorem a : True := by trivial", "a proof follows \\('by trivial'\\)"),
        ("theorem a : := by", "the type is empty"),
    ],
)
def test_what_is_no_statement_is_refused_with_the_reason(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        split_theorem(text)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    def put(name: str, *found: tuple[str, str, str]) -> str:
        lines = [json.dumps({"theorem_full_name": n, "theorem_statement": s, "split": split}) for n, s, split in found]
        (tmp_path / name).write_text("\n".join(lines))
        return str(tmp_path / name)

    return {
        "train": put(
            "train.jsonl",
            ("one", "theorem one (n : ℕ) : n = n := by\n", "train"),
            ("two", "theorem two (n :  ℕ) :\n  n = n := by\n", "train"),
            ("three", "theorem three : 1 = 1 := by\n", "train"),
            ("one", "theorem one : 2 = 2 := by\n", "valid"),
        ),
        "held_out": put("held_out.jsonl", ("other", "theorem other : 1   = 1 := by\n", "test")),
        "bad": put("bad.jsonl", ("x", "theorem x : True := by\n", "train"), ("y", "def y := 1", "train")),
    }


def test_duplicates_and_held_out_statements_are_left_out(
    files: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = rows(files["train"], exclude=files["held_out"])
    assert [(row["id"], row["statement"]) for row in found] == [("one", "n = n"), ("one#2", "2 = 2")]
    assert "1 rows stated before and 1 held out" in caplog.text
    assert len(rows(files["train"], duplicates="keep")) == 4
    assert [row["id"] for row in rows(files["train"], split="valid")] == ["one"]


def test_an_unreadable_row_is_named_or_left_out(files: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"bad.jsonl, row 1: 0 theorems .*unreadable: drop"):
        rows(files["bad"])
    assert [row["id"] for row in rows(files["bad"], unreadable="drop")] == ["x"]


def test_every_shipped_template_fills_from_these_rows(files: dict[str, str]) -> None:
    found = rows(files["train"], header="open Nat")
    for name in registry.names("templates"):
        prompts = make_prompts(DataSection(template=name), found, "data.train")
        text = prompts[0].text or "".join(m.content for m in prompts[0].messages or ())
        assert "theorem one (n : ℕ) : n = n := by" in text
    released = make_prompts(DataSection(template="lean.released"), found, "data.train")[0].text
    assert released is not None
    assert released.endswith("n = n := by\n<｜begin▁of▁sentence｜>")


@pytest.mark.parametrize(
    ("text", "header", "context"),
    [
        ("abbrev n : Nat := 3\n", "", "abbrev n : Nat := 3"),
        ("import Mathlib\nopen Nat\n\ndef f (x : ℕ) := x\n", "open Nat", "def f (x : ℕ) := x"),
        ("namespace A\nopen Nat\n", "", "namespace A\nopen Nat"),
        ("variable (p : Prop)\ninclude p\n", "", "variable (p : Prop)\ninclude p"),
        ("structure S where\n  x : Nat\n", "", "structure S where\n  x : Nat"),
        ("noncomputable section\nopen Real\n@[simp] private ", "open Real", ""),
        ("set_option autoImplicit false\nset_option linter.all false\n", "set_option autoImplicit false", ""),
        ("-- def f := 1\n/-- doc -/\n", "", ""),
        ('local notation "ℝ" => Nat\n', "", 'local notation "ℝ" => Nat'),
        ("open Nat in\n", "", "open Nat in"),
    ],
)
def test_what_stands_before_a_theorem_is_kept(text: str, header: str, context: str) -> None:
    found = split_theorem(f"{text}theorem t : True := by sorry\nend\n")
    assert (found.header, found.context, found.statement) == (header, context, "True")
    assert found.formal == (f"{context}\n\n" if context else "") + "theorem t : True := by"


STANDARD = "import Mathlib\nimport Aesop\n\nset_option maxHeartbeats 400000\n\nopen Nat Real\n"


def written_rows(tmp_path: Path, row: dict[str, str], **settings: str) -> dict[str, object]:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return rows(str(path), **settings)[0]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("row", "header", "code"),
    [
        # The columns of DeepSeek-Prover's miniF2F, of Goedel's files and of Kimina's prompt set.
        (
            {
                "header": f"{STANDARD}\n",
                "informal_prefix": "/-- One. -/\n",
                "formal_statement": "theorem t : 1 = 1 := by\n",
            },
            "",
            f"{STANDARD}\n/-- One. -/\ntheorem t : 1 = 1 := by",
        ),
        (
            {"formal_statement": f"{STANDARD}\ntheorem t : 1 = 1 := by\n  sorry\n"},
            "",
            f"{STANDARD}\ntheorem t : 1 = 1 := by",
        ),
        (
            {"formal_statement": "import Mathlib\n\n-- why\ntheorem t : 1 = 1 := by sorry"},
            "",
            "import Mathlib\n\n-- why\ntheorem t : 1 = 1 := by",
        ),
        ({"formal_statement": "theorem t : 1 = 1 := by"}, STANDARD, f"{STANDARD}\ntheorem t : 1 = 1 := by"),
        (
            {
                "header": "open Nat Real",
                "formal_statement": "import Mathlib.Tactic\ntheorem t : 1 = 1 := sorry -- done",
            },
            "import Mathlib\nset_option maxHeartbeats 0\nopen Nat Real",
            "import Mathlib\nimport Mathlib.Tactic\n\nset_option maxHeartbeats 0\n\nopen Nat Real\n\ntheorem t : 1 = 1 := by",
        ),
        (
            {"formal_statement": "set_option maxHeartbeats 400000\n@[simp] theorem t : 1 = 1 :=\nend"},
            "import Mathlib\nset_option maxHeartbeats 0",
            "import Mathlib\n\nset_option maxHeartbeats 400000\n@[simp] theorem t : 1 = 1 := by",
        ),
        (
            {"informal_prefix": "/-- Two -/", "formal_statement": "def f := 1\n@[simp]\ntheorem t : f = 1"},
            "",
            "def f := 1\n/-- Two -/\n@[simp]\ntheorem t : f = 1 := by",
        ),
    ],
)
def test_the_code_of_a_row_is_what_it_writes(tmp_path: Path, row: dict[str, str], header: str, code: str) -> None:
    found = written_rows(tmp_path, row, header=header)
    assert found["code"] == code
    assert found["statement"] in ("1 = 1", "f = 1")


def test_options_of_a_header_are_part_of_the_check_and_imports_if_asked(tmp_path: Path) -> None:
    row = {"header": STANDARD, "formal_statement": "theorem t : 1 = 1 := by"}
    assert written_rows(tmp_path, row)["header"] == "set_option maxHeartbeats 400000\nopen Nat Real"
    wanted = "import Mathlib\nimport Aesop\nset_option maxHeartbeats 400000\nopen Nat Real"
    assert written_rows(tmp_path, row, imports="rows")["header"] == wanted
    with pytest.raises(DataError, match="header holds a definition"):
        written_rows(tmp_path, row, header="def f := 1")


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"informal_prefix": "/-- Show it. -/\n"}, "Show it."),
        ({"natural_language": "Prove x.", "informal_prefix": "/-- y -/"}, "Prove x."),
        ({"problem": "None", "informal_stmt": " Find n. "}, "Find n."),
        ({}, ""),
    ],
)
def test_the_problem_in_words(tmp_path: Path, columns: dict[str, str], problem: str) -> None:
    assert written_rows(tmp_path, {**columns, "formal_statement": "theorem t : 1 = 1 := by"})["problem"] == problem


def test_a_context_with_a_gap_is_refused() -> None:
    with pytest.raises(DataError, match="'sorry' stands in the declarations before the theorem"):
        split_theorem("abbrev answer : Nat := sorry\ntheorem t : answer = 3 := by sorry")


def test_universes_in_a_name_become_header_lines() -> None:
    found = split_theorem("theorem t.{u, v} (α : Type u) (β : Type v) : True := by")
    assert (found.name, found.header, found.binders) == ("t", "universe u v", "(α : Type u) (β : Type v)")


def test_a_column_with_a_header_travels(tmp_path: Path) -> None:
    row = {"name": "a", "formal_statement": "theorem b (n : Nat) : succ n = n + 1 := by\n"}
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({**row, "header": "import Mathlib\n\nopen Nat\n\n"}) + "\n")
    [found] = rows(str(path))
    assert (found["header"], found["theorem"], found["name"], found["context"]) == ("open Nat", "b", "a", "")
    path.write_text(json.dumps({**row, "header": "open Nat\ndef f := 1\n"}) + "\n")
    with pytest.raises(DataError, match=r"column header holds a definition ..def f := 1"):
        rows(str(path))
    path.write_text(json.dumps({**row, "formal_statement": "def f := 1\ntheorem b : f = 1 := by"}) + "\n")
    assert rows(str(path))[0]["context"] == "def f := 1"
    with pytest.raises(DataError, match="declarations stand before the theorem"):
        rows(str(path), declarations="unreadable")
    assert rows(str(path), declarations="unreadable", unreadable="drop") == []
