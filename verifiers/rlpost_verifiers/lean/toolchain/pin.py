"""Builds the file that a full toolchain checks, and reads what its answer proves.

The statement is pinned between two trusted declarations whose names are drawn at random for each check, so that the
text in between can neither name, shadow nor forge them::

    section Rl_1f…                                  -- what follows ends here, whatever the model leaves open
    open Nat                                        -- the task's header
    def RlStatement_1f… : Prop :=
      ∀ (n : Nat), n + 0 = n                        -- elaborated before any of the model's text
    #print axioms RlStatement_1f…                   -- its message says that Lean read it, and on which line
    theorem X (n : Nat) : n + 0 = n :=
    by simp                                         -- the model's text
    end Rl_1f…
    theorem RlPin_1f… : _root_.RlStatement_1f… :=
      @_root_.X                                     -- checked by the kernel: X proves the statement
    #print axioms RlPin_1f…                         -- every axiom it depends on

In mode ``declarations`` the model's text stands in a namespace of its own, under the header and the task's context. In
file mode the section closes before the model's file, which is wrapped in a section of its own.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from rlpost_verifiers.lean.filter import FilteredError, admit, split_imports
from rlpost_verifiers.lean.messages import LeanMessage, LeanOutput
from rlpost_verifiers.lean.scopes import closing_lines, has_variables, opened_namespaces, scope_after
from rlpost_verifiers.lean.source import THEOREM, find_unreadable
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.text import CommentError, blank_comments, words
from rlpost_verifiers.lean.toolchain.restated import find_evasion

AXIOMS = frozenset({"propext", "Quot.sound", "Classical.choice"})
"""The axioms that a theorem of Lean's and Mathlib's classical mathematics may depend on."""

_AXIOMS_MESSAGE = re.compile(
    r"['`‘]?(?P<name>[\w.]+)['`’]? (?:does not depend on any axioms|depends on axioms: \[(?P<axioms>[^\]]*)\])\s*"
)


@dataclass(frozen=True, slots=True)
class Question:
    """One file for Lean. Lines of ``body`` count from 1.

    Attributes:
        imports: the lines before the body, e.g. ``import Mathlib``.
        body: the rest of the file.
        reference: name of the trusted statement.
        pin: name of the trusted theorem.
        reference_line: line that prints the statement's axioms.
        proof_line: first line of the model's text.
        end_line: first line after the model's text.
        theorem: name of the theorem that proves the pin.
        assumed: name of the axiom by which the theorem is only stated, else empty.
    """

    imports: str
    body: str
    reference: str
    pin: str
    reference_line: int
    proof_line: int
    end_line: int
    theorem: str
    assumed: str = ""

    @property
    def source(self) -> str:
        """The whole file."""
        return f"{self.imports}\n{self.body}"


@dataclass(frozen=True, slots=True)
class Finding:
    """The content of Lean's messages on one file.

    Attributes:
        statement_problem: why Lean cannot read the statement, empty if it can. Only errors before the model's text
            count, so that no answer can make its statement look bad.
        offset: number to subtract from a message's line to get the line of the body.
        axioms: axioms that the pin depends on, None unless Lean reported them exactly once and on the expected line.
        errors: Lean's errors up to the end of the model's text.
        pin_error: Lean's first error on the pin, empty if there is none.
    """

    statement_problem: str
    offset: int = 0
    axioms: tuple[str, ...] | None = None
    errors: tuple[LeanMessage, ...] = ()
    pin_error: str = ""


def build_question(task: ProofTask, imports: str) -> Question:
    """The file that Lean accepts exactly if the task's text proves its statement.

    Raises:
        FilteredError: if the text must not be passed to Lean.
    """
    text = task.proof
    if task.mode == "file":
        modules, text = split_imports(_without_comments(text))
        if strange := next((module for module in modules if not _is_imported(module, task, imports)), None):
            raise FilteredError(f"it imports {strange!r}; only what the task imports is there: {imports.splitlines()}")
    text = admit(text, task.mode)
    if task.mode != "proof" and (evasion := find_evasion(text, task)):
        raise FilteredError(evasion)
    nonce = secrets.token_hex(16)
    lines = _statement_lines(task, nonce)
    if task.mode == "proof":
        name = _theorem_name(task, nonce)
        lines += _signature(task, name, "theorem").split("\n")
        lines[-1] += " :="
        return _close(task, imports, nonce, lines, text.split("\n"), _qualified(task, name))
    if task.mode == "file":
        lines += [*closing_lines(blank_comments(task.context)), f"end Rl_{nonce}", f"section Rl_{nonce}"]
        return _close(task, imports, nonce, lines, [*text.split("\n"), *closing_lines(text)], THEOREM)
    # Like the names of statement and pin, the namespace is drawn at random, so that the text cannot leave and name it.
    space = f"{THEOREM}_{nonce}"
    lines += [*opened_namespaces(text).splitlines(), f"namespace {space}"]
    inside = [*text.split("\n"), *closing_lines(text), f"end {space}"]
    return _close(task, imports, nonce, lines, inside, _qualified(task, f"{space}.{task.theorem}"))


def build_reading(task: ProofTask, imports: str) -> Question:
    """The file that Lean accepts exactly if it can elaborate the task's statement, alone and as a theorem's type."""
    nonce = secrets.token_hex(16)
    name = f"RlTheorem_{nonce}"
    full = assumed = _qualified(task, name)
    text = _signature(task, name, "axiom")
    if has_variables(task.context):
        assumed = f"RlAssumed_{nonce}"
        text = f"{_signature(task, name, 'theorem')} := _root_.{assumed}"
    return _close(task, imports, nonce, _statement_lines(task, nonce), text.split("\n"), full, assumed)


def read_answer(question: Question, output: LeanOutput, header_lines: int = 0) -> Finding:
    """What Lean's messages say about the question; lines are taken relative to the statement's own message.

    Args:
        question: the file that Lean checked.
        output: Lean's messages.
        header_lines: lines before the body, used only where the statement's message is missing.
    """
    statement = _axiom_messages(output.messages, question.reference)
    if not statement:
        problem = next((_first_line(error) for error in output.errors), "Lean says nothing about it")
        return Finding(problem, header_lines)
    line, axioms = statement[0]
    offset = line - question.reference_line
    assumed = question.reference.rpartition(".")[2].replace("RlStatement", "RlAssumed")
    if strange := sorted(set(axioms) - AXIOMS - {assumed}):
        return Finding(f"it rests on {strange[0]!r}", offset)
    early = [error for error in output.errors if error.line - offset <= question.reference_line]
    if early:
        return Finding(_first_line(early[0]), offset)
    pins = _axiom_messages(output.messages, question.pin)
    last = question.body.rstrip("\n").count("\n") + 1
    found = pins[0][1] if len(pins) == 1 and pins[0][0] - offset == last else None
    errors = tuple(error for error in output.errors if error.line - offset <= question.end_line)
    pin_error = next((_first_line(error) for error in output.errors if error not in errors), "")
    return Finding("", offset, found, errors, pin_error)


def merge_imports(imports: str, header: str) -> tuple[str, str]:
    r"""The lines to import with, and the header without its own imports.

    >>> merge_imports("import Mathlib", "import Mathlib\nimport Aesop\nopen Nat")
    ('import Mathlib\nimport Aesop', 'open Nat')
    """
    modules, rest = split_imports(blank_comments(header))
    lines = imports.strip().splitlines()
    lines += [line for module in dict.fromkeys(modules) if (line := f"import {module}") not in lines]
    return "\n".join(lines), "\n".join(line for line in rest.splitlines() if line.strip())


def _statement_lines(task: ProofTask, nonce: str) -> list[str]:
    _, header = merge_imports("", task.header)
    binders = f"∀ {task.binders},\n  " if task.binders.strip() else ""
    before = "\n".join(part for part in (header, task.context.strip()) if part)
    if has_variables(task.context):
        # Which variables become arguments, Lean decides for theorems only. Whoever used the axiom would show it.
        text = f"axiom RlAssumed_{nonce} {{p : Prop}} : p\nsection Rl_{nonce}\n{before}\n"
        text += f"{_signature(task, f'RlStatement_{nonce}', 'theorem')} := _root_.RlAssumed_{nonce}"
    else:
        text = f"section Rl_{nonce}\n{before}\ndef RlStatement_{nonce} : Prop :=\n  {binders}{task.statement}"
    return [*text.split("\n"), f"#print axioms RlStatement_{nonce}"]


def _close(
    task: ProofTask, imports: str, nonce: str, opening: list[str], text: list[str], name: str, assumed: str = ""
) -> Question:
    reference, pin = _qualified(task, f"RlStatement_{nonce}"), f"RlPin_{nonce}"
    closers = closing_lines(blank_comments(task.context)) if task.mode != "file" else []
    body = [*opening, *text, *closers, f"end Rl_{nonce}"]
    end_line = len(body)
    stated = f"type_of% @_root_.{reference}" if has_variables(task.context) else f"_root_.{reference}"
    body += [f"theorem {pin} : {stated} := @_root_.{name}", f"#print axioms {pin}"]
    asked = next(index for index, line in enumerate(body, 1) if line == f"#print axioms RlStatement_{nonce}")
    merged, _ = merge_imports(imports, task.header)
    return Question(merged, "\n".join(body) + "\n", reference, pin, asked, len(opening) + 1, end_line, name, assumed)


def _qualified(task: ProofTask, name: str) -> str:
    return ".".join((*map(str, scope_after(task.context)), name))


def _signature(task: ProofTask, name: str, keyword: str) -> str:
    binders = f" {task.binders}" if task.binders.strip() else ""
    return f"{keyword} {name}{binders} : {task.statement}"


def _theorem_name(task: ProofTask, nonce: str) -> str:
    """``X``, unless the task may use that name for something else (say with ``open Polynomial``).

    Inside its own proof a theorem's name hides every other thing of that name.
    """
    # A namespace that the header opens may contain another X, which only the proof uses.
    proof = task.proof if "open" in task.header else ""
    named = {word.parts[0] for word in words(f"{task.statement} {task.binders} {proof}")}
    return f"RlTheorem_{nonce}" if THEOREM in named else THEOREM


def _without_comments(text: str) -> str:
    if problem := find_unreadable(text):
        raise FilteredError(problem)
    try:
        return blank_comments(text)
    except CommentError as error:
        raise FilteredError(str(error)) from error


def _is_imported(module: str, task: ProofTask, imports: str) -> bool:
    known = [line.split()[-1] for line in merge_imports(imports, task.header)[0].splitlines()]
    return any(module == name or module.startswith(f"{name}.") for name in known)


def _axiom_messages(messages: Sequence[LeanMessage], name: str) -> list[tuple[int, tuple[str, ...]]]:
    found: list[tuple[int, tuple[str, ...]]] = []
    for message in messages:
        match = _AXIOMS_MESSAGE.fullmatch(message.text)
        if match and match["name"] == name and message.severity == "information":
            axioms = sorted(part.strip() for part in (match["axioms"] or "").split(",") if part.strip())
            found.append((message.line, tuple(axioms)))
    return found


def _first_line(message: LeanMessage) -> str:
    return message.text.strip().partition("\n")[0][:200] or "Lean reports an error"
