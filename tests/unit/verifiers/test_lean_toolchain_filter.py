"""The filter of a model's text before a full toolchain checks it: Mathlib proofs pass, tricks do not."""

from __future__ import annotations

import re

import pytest

from rlpost_verifiers.lean.filter import FilteredError, admit, find_bad_part, split_imports
from rlpost_verifiers.lean.task import Mode, ProofTask

HONEST = (
    "by\n  -- first\n  norm_num [Nat.sub_def, Finset.mem_def] /- second -/\n  nlinarith [sq_nonneg (a - b), h.1.2.le]",
    "by\n  set_option maxHeartbeats 400000 in\n  open Finset in\n  simp [Polynomial.eval, Matrix.trace]",
    "by\n  classical\n  open scoped BigOperators in\n  exact ⟨fun x ↦ by aesop, fun ⟨a, ha⟩ ↦ by omega⟩",
    "fun n => go n\nwhere go : (n : Nat) → n = n\n  | 0 => rfl\n  | _ + 1 => rfl\ntermination_by n => n",
    "by\n  rcases h with ⟨x₁, hx₁'⟩ | h'\n  · exact (f '' s).elim x₁\n  · simpa using f ⁻¹' s",
    "by\n  have hπ : (0 : ℝ) < Real.pi := Real.pi_pos\n  calc a = b := by ring\n    _ ≤ c := by gcongr",
    "by\n  interval_cases x <;> simp (config := { decide := true }) at *",
    "by\n  have := #s; decide",
)
FILE = (
    "open Nat Real\n\nnamespace Foo\nsection\nvariable {α : Type*} [Group α]\n"
    "/-- A helper. -/\n@[simp, norm_cast] lemma helper (n : ℕ) : n = n := rfl\n"
    "noncomputable def f (x : ℝ) : ℝ := x\nattribute [local instance] Classical.propDecidable\n"
    "private theorem h : True := trivial\nend\nend Foo\n\nset_option maxRecDepth 2000\n"
    "theorem X : True := by\n  trivial\n"
)


@pytest.mark.parametrize("proof", HONEST)
def test_proofs_as_mathlib_users_write_them_pass(proof: str) -> None:
    shown = admit(proof, "proof")
    assert len(shown) == len(proof)
    assert "--" not in shown


def test_files_with_helpers_pass() -> None:
    assert admit(FILE, "file").count("\n") == FILE.count("\n")


@pytest.mark.parametrize(
    "text",
    [
        *("by sorry", "by admit", "sorryAx _", "by stop\n simp", "by exact (sorry : _)"),
        *("trivial\naxiom cheat : False", "trivial\n#exit", "by simp; #eval 1", "trivial\nunsafe def x := 1"),
        *("by native_decide", "by decide +native", "by simp (config := { native := true })", "Lean.ofReduceBool a b rfl"),
        "by { set_option debug.skipKernelTC true in decide }",
        "by { set_option\n  debug.skipKernelTC true in decide }",
        *("by run_tac pure ()", "by_elab return x", "eval% 1", "by run_cmd skip", "include_str x", "sudo set_option a b"),
        "by linarith (config := { preprocessors := [{ name := x, transform := f }] })",
        *("fun _ => (Lean.Meta.mkSorry : _)", "_root_.Lean.Environment.addDecl", "by open Lean in exact x"),
        *("IO.FS.writeFile x y", "by dbg_trace x; simp", "dbgTrace x fun _ => y", "unsafeCast x", "lcProof"),
        *("trivial /-", "trivial «axiom»", 'by trace "x"', "s!\"{by sorry}\"", "`(tactic| simp)"),
        *("1axiom", "'a'axiom", "λaxiom", "trivial\x00", "trivial\u200b", "", "  -- only a note"),
        *("trivial\nmacro x : term => y", "trivial\nnotation x => y", "trivial\nlocal infix x => y"),
        *("trivial\ninitialize x : y", "trivial\nregister_simp_attr x", "trivial\ndeclare_syntax_cat x"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["proof", "file"])
def test_tricks_are_refused(text: str, mode: Mode) -> None:
    with pytest.raises(FilteredError):
        admit(text, mode)


@pytest.mark.parametrize(
    "text",
    [
        *("trivial\ntheorem Y : False := X", "trivial\nend", "trivial\nnamespace Foo", "trivial\nopen Nat"),
        *("trivial\ninstance : A := b", "trivial\ndef x := 1", "trivial\nvariable (h : False)", "trivial\n@[simp] x"),
    ],
)
def test_commands_are_refused_in_proofs_only(text: str) -> None:
    with pytest.raises(FilteredError):
        admit(text, "proof")


@pytest.mark.parametrize(
    "text",
    [
        *("@[extern x] def f := 1", "@[implemented_by g] def f := 1", "@[simp, csimp] theorem t : a := b", "@[ macro x] def"),
        *("attribute [macro x] f", "attribute [simp, extern x] f", "@[export x] def f", "@[elab_rules] def", "@[simp [a]] def"),
        *("attribute\n  [tactic x] f", "@[aesop safe tactic] def f", "attribute simp f", "@[simp] import Foo"),
    ],
)  # fmt: skip
def test_attributes_that_run_code_are_refused_in_files(text: str) -> None:
    with pytest.raises(FilteredError):
        admit(text, "file")


def test_message_names_what_is_refused() -> None:
    with pytest.raises(FilteredError, match=r"'set_option debug\.skipKernelTC' may not be set"):
        admit("by\n  set_option debug.skipKernelTC true in\n  decide", "proof")
    with pytest.raises(FilteredError, match="attribute 'to_additive f' may not be set; use one of: simp"):
        admit("@[to_additive f] def g := 1", "file")


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        (ProofTask("True -- p", "x"), "statement .* holds a comment"),
        (ProofTask("True", "x", binders="(p : Prop) /-"), "binders .* holds a comment"),
        (ProofTask("True\ntheorem Y : False", "x"), "statement .* 'theorem' starts a command"),
        (ProofTask("(sorry : Prop)", "x"), "stands for a missing proof"),
        (ProofTask("ﬃ = e\u0301", "x"), "normal form C"),
        (ProofTask("True", "x", header="axiom cheat : False"), "header line 'axiom cheat : False': use only"),
        (ProofTask("True", "x", header="set_option debug.skipKernelTC true"), "header line"),
        (ProofTask("True", "x", header="open Nat\nimport Mathlib"), "header line 'import Mathlib'"),
        (ProofTask("True", "x", header="open Nat /-"), "header .* never closed"),
    ],
)
def test_tasks_that_cannot_be_asked_are_named(task: ProofTask, problem: str) -> None:
    assert re.search(problem, find_bad_part(task) or "")


@pytest.mark.parametrize(
    "task",
    [
        ProofTask("Polynomial.eval 2 (X ^ 2) = Matrix.trace A ∧ #s = 3", "x", header="open Polynomial Finset"),
        ProofTask("True", "x", header="import Mathlib\nimport Aesop\n-- usual\nset_option maxHeartbeats 400000\nopen scoped BigOperators"),
        ProofTask("a = a", "x", header="universe u v\nopen Nat (succ) \nopen Real hiding pi", binders="{α : Sort u} (a : α)"),
    ],
)  # fmt: skip
def test_tasks_as_data_sets_hold_them_pass(task: ProofTask) -> None:
    assert find_bad_part(task) is None


def test_imports_are_the_leading_lines() -> None:
    assert split_imports("import A\n\nimport B.C\nopen A\nimport D") == (("A", "B.C"), "\n\n\nopen A\nimport D")


@pytest.mark.parametrize(
    "text",
    [
        "def g : Bool := !1e5axiom Y : False\ntheorem X : True := trivial",
        "def g : Bool := !'a'run_cmd foo",
        "def g := f ''1e5run_cmd foo",
        "def g := f ∘ₗ1e5unsafe def h := 1",
        "def g : Bool := !0b1set_option foo true",
        "def g : Bool := !1e5Lean.addDecl",
        "def g := h'axiom Y : False",
        "def g := x₁run_cmd foo",
        "set_library_suggestions fun r => r",
        "set_premise_selector f",
        "theorem X : True := (s.env.addDeclCore 0 d)",
    ],
)
def test_no_keyword_passes_stuck_to_what_ends_a_symbol(text: str) -> None:
    with pytest.raises(FilteredError):
        admit(text, "file")


@pytest.mark.parametrize(
    "text",
    [
        "by\n  have h' := f '' s\n  simpa [h'] using (Set.image_subset f h1).trans h₂'",
        "by\n  rcases h with ⟨x₁, hx₁⟩ | ⟨y', hy'⟩ <;> exact ⟨_, f ⁻¹' t', x!⟩",
        "by\n  set_option maxHeartbeats 400000 in\n  nlinarith [sq_nonneg (a - b), h1.2.1]",
        "by\n  set x := 2 * y with hx\n  norm_num [hx']",
    ],
)
def test_primes_subscripts_and_marks_of_honest_proofs_pass(text: str) -> None:
    assert admit(text, "proof")
