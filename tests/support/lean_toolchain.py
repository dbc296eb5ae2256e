"""A small Lean toolchain made of the embedded Lean, and the checks that every backend on a toolchain must pass.

Its library is the prelude and a module with declarations that a full toolchain has and the prelude omits on purpose:
``sorryAx``, which ``sorry`` needs, and an axiom that proves anything, as ``Lean.ofReduceBool`` can.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.task import ProofTask, parse_task

SUPPORT = Path(__file__).parent
DATA = SUPPORT.parent / "data"
IMPORTS = "import RLPre\nimport RLUnsound"
PRELUDE_IMPORTS = f"prelude\n{IMPORTS}"
IDENTITY = "∀ p : Prop, p → p"
ENDLESS = "by repeat (first | skip)"
_UNSOUND = """prelude
import RLPre
universe u
axiom sorryAx (α : Sort u) (synthetic : Bool) : α
axiom RLUnsound.cheat (p : Prop) : p
"""


def build(folder: Path) -> tuple[str, ...]:
    """The command that runs this toolchain's ``lean``; its library is compiled into ``folder``."""
    library = installation.find_library()
    prelude = installation.compile_prelude(library).parent
    program = (sys.executable, "-S", "-E", str(SUPPORT / "lean_executable.py"), str(library))
    (folder / "RLUnsound.lean").write_text(_UNSOUND, encoding="utf-8")
    compiling = [*program, str(prelude), "-R", str(folder), "-o", str(folder / "RLUnsound.olean")]
    subprocess.run([*compiling, str(folder / "RLUnsound.lean")], check=True, capture_output=True)
    return (*program, f"{prelude}:{folder}")


def tasks_from(name: str) -> list[ProofTask]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [parse_task(json.loads(line), f"{name} line {number}") for number, line in enumerate(lines, 1)]


def ruled(verdict: Verdict) -> tuple[str, str]:
    return verdict.outcome, verdict.reason


HONEST: tuple[ProofTask, ...] = (
    ProofTask("∀ {α : Sort u} (a : α), a = a", "fun _ => rfl", header="universe u\nopen Nat"),
    ProofTask("a = a", "rfl", header="universe u", binders="{α : Sort u} (a : α)"),
    ProofTask("Nat.succ n ≠ 0", "succ_ne_zero n", header="import RLPre\nopen Nat", binders="(n : Nat)"),
    ProofTask(IDENTITY, "by\n  -- by hand /- not a comment\n  intro p /- a /- b -/ -/ h\n  exact h"),
    ProofTask(IDENTITY, "by\n  set_option maxRecDepth 1000 in\n  open Nat in\n  intro p h; exact h"),
    ProofTask("∀ p : Prop, p ∨ ¬ p", "fun p => Classical.em p"),
    # "X" is a variable of the statement here, and must stay so inside the proof.
    ProofTask("X = X ∧ X = 0", "And.intro (rfl : X = X) h", binders="(X : Nat) (h : X = 0)"),
    ProofTask(
        IDENTITY,
        "/- A file\nwith a comment -/\nimport RLPre\n\nnamespace Foo\nsection Bar\nvariable (q : Prop)\n"
        "@[simp] theorem helper (p : Prop) : p → p := fun h => h\n"
        "theorem _root_.X : ∀ p : Prop, p → p := helper",
        mode="file",
    ),
    ProofTask(
        "a = a",
        "universe u\ntheorem X {α : Sort u} (a : α) : a = a := rfl",
        "X",
        "universe u",
        "{α : Sort u} (a : α)",
        "file",
    ),
    ProofTask(
        "q ∧ p",
        "open Nat Topology\nprivate theorem right {p q : Prop} (h : p ∧ q) : q := h.2\n"
        "theorem A.t (a b : Prop) : a ∧ b → b ∧ a := fun h => ⟨right h, h.1⟩",
        binders="(p q : Prop) (h : p ∧ q)",
        mode="declarations",
        theorem="A.t",
    ),
    ProofTask("Two = 2", "by simp [Two]", context="namespace Numbers\ndef Two : Nat := 2"),
    ProofTask(
        "p", "theorem t : p := h", context="variable (p : Prop) (h : p)\ninclude h", mode="declarations", theorem="t"
    ),
)

# Cheats that the filter lets pass and Lean's own answer must refute, mostly of False.
CHEATS: tuple[tuple[ProofTask, str], ...] = (
    (ProofTask("False", "RLUnsound.cheat _"), "axiom"),
    (ProofTask("False", "X"), "failed"),
    (ProofTask("False", "by\n  have h : False := by assumption\n  exact h"), "failed"),
    (ProofTask("False", "theorem X : True := trivial", mode="file"), "statement_mismatch"),
    (ProofTask("False", "variable (h : False)\ninclude h\ntheorem X : False := h", mode="file"), "statement_mismatch"),
    (ProofTask("False", "theorem X {p : Prop} (h : p) : p := h", mode="file"), "statement_mismatch"),
    (ProofTask("False", "namespace A\ndef False : Prop := True\ntheorem _root_.X : False := trivial", mode="file"), "statement_mismatch"),
    (ProofTask("2 + 2 = 5", "instance (priority := 9999) five : OfNat Nat 5 := ⟨4⟩\ntheorem X : 2 + 2 = 5 := rfl", mode="file"), "statement_mismatch"),
    (ProofTask("False", "theorem X : False := RLUnsound.cheat _", mode="file"), "axiom"),
    (ProofTask("False", "theorem Y : True := trivial", mode="file"), "failed"),
    (ProofTask("True", "namespace A\ntheorem X : True := trivial\nend A", mode="file"), "failed"),
    (ProofTask("True", "theorem X : True := trivial\nend\nend", mode="file"), "failed"),
    (ProofTask("True", "theorem X : True := trivial\ntheorem Y : False := trivial", mode="file"), "failed"),
    (ProofTask("False", "theorem t : True := trivial", mode="declarations", theorem="t"), "statement_mismatch"),
    (ProofTask("False", "theorem t : False := RLUnsound.cheat _", mode="declarations", theorem="t"), "axiom"),
    (ProofTask("False", "variable (h : False)\ninclude h\ntheorem t : False := h", mode="declarations", theorem="t"), "statement_mismatch"),
    (ProofTask("2 + 2 = 5", "instance (priority := 9999) five : OfNat Nat 5 := ⟨4⟩\ntheorem t : 2 + 2 = 5 := rfl", mode="declarations", theorem="t"), "statement_mismatch"),
    (ProofTask("p", "theorem t : p := RLUnsound.cheat _", context="variable (p : Prop)", mode="declarations", theorem="t"), "axiom"),
    (ProofTask("True", "theorem u : True := trivial", mode="declarations", theorem="t"), "failed"),
)  # fmt: skip

# Cheats that the filter stops; without the filter Lean's answer must still refute them.
FILTERED: tuple[tuple[ProofTask, str], ...] = (
    (ProofTask("False", "sorry"), "sorry"),
    (ProofTask("False", "by sorry"), "sorry"),
    (ProofTask("False", "sorryAx _ true"), "sorry"),
    (ProofTask("False", "RLUnsound.cheat _\n#exit"), "failed"),
    (ProofTask("False", "RLUnsound.cheat _ /-"), "failed"),
    (ProofTask("True", "trivial\naxiom cheat : False\ntheorem Z : False := X"), "failed"),
    (ProofTask("False", "axiom X : False", mode="file"), "axiom"),
    (ProofTask("False", "axiom cheat : False\ntheorem X : False := cheat", mode="file"), "axiom"),
    (ProofTask("False", "theorem X : False := sorry\n#exit", mode="file"), "sorry"),
    (ProofTask("False", "set_option warn.sorry false\ntheorem X : False := sorry", mode="file"), "sorry"),
)
UNREADABLE = (
    "p → p",
    "∀ p : Prop, p →",
    "∀ x, x = x",
    "2 + 2",
    "True := trivial",
    "True) ∧ (True",
    "sorry",
    "(RLNowhere : Prop)",
)


def require_gold(lean: Backend) -> None:
    tasks = [*tasks_from("theorems.jsonl"), *HONEST]
    verdicts = lean.check(tasks)
    assert [(t.name, t.proof, v.evidence) for t, v in zip(tasks, verdicts, strict=True) if v.reason != "proved"] == []
    assert {verdict.assurance for verdict in verdicts} == {"axioms_checked"}
    assert {verdict.backend for verdict in verdicts} == {lean.fingerprint}
    axioms = {task.name: verdict.evidence["axioms"] for task, verdict in zip(tasks, verdicts, strict=True)}
    assert axioms["imp_refl"] == []
    assert axioms["peirce"] == ["Classical.choice", "Quot.sound", "propext"]


def require_rejections(lean: Backend) -> None:
    tasks = tasks_from("theorems_broken.jsonl")
    verdicts = lean.check(tasks)
    assert [(t.name, v.evidence) for t, v in zip(tasks, verdicts, strict=True) if v.outcome != "rejected"] == []
    verdicts = lean.check([task for task, _ in FILTERED])
    assert {ruled(verdict) for verdict in verdicts} == {("rejected", "filtered")}
    assert {verdict.assurance for verdict in verdicts} == {"lexical"}


def require_refuted(lean: Backend, cheats: tuple[tuple[ProofTask, str], ...]) -> None:
    verdicts = lean.check([task for task, _ in cheats])
    found = [(task.proof, verdict.outcome, verdict.reason) for (task, _), verdict in zip(cheats, verdicts, strict=True)]
    assert found == [(task.proof, "rejected", reason) for task, reason in cheats]


def require_statements_read(lean: Backend) -> None:
    tasks = [*HONEST, *(ProofTask(statement, "by simp") for statement in UNREADABLE)]
    problems = lean.read_statements(tasks)
    assert problems[: len(HONEST)] == [None] * len(HONEST)
    assert [s for s, problem in zip(UNREADABLE, problems[len(HONEST) :], strict=True) if not problem] == []
    verdicts = lean.check(tasks[len(HONEST) :])
    assert {ruled(verdict) for verdict in verdicts} == {("undecided", "statement_mismatch")}


def require_evidence(lean: Backend) -> None:
    [verdict] = lean.check([ProofTask(IDENTITY, "by\n  intro p h\n  exact q")])
    assert verdict.evidence["messages"] == ["error at 3:8: Unknown identifier `q`"]
    [verdict] = lean.check([ProofTask("∀ p q : Prop, p → p ∧ q", "by\n  intro p q h\n  constructor")])
    assert (*ruled(verdict), verdict.assurance) == ("rejected", "failed", "elaborated")
    assert verdict.evidence["goals"] == ["case left\np q : Prop\nh : p\n⊢ p", "case right\np q : Prop\nh : p\n⊢ q"]
    hinted = ProofTask("True", "theorem X : True := trivial\nend Foo", mode="file")
    first, again = lean.check([hinted] * 2)
    assert first.evidence["messages"] == again.evidence["messages"]
