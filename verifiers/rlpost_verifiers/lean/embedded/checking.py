"""One check on one fork server, from elaboration through audit and replay to the verdict."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from rlpost.errors import DataError, InfrastructureError
from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import undecided
from rlpost_verifiers.lean.embedded import installation
from rlpost_verifiers.lean.embedded.audit import Wanted, statement_digest
from rlpost_verifiers.lean.embedded.judge import inspect, judge_replay
from rlpost_verifiers.lean.embedded.lacks import describe_missing
from rlpost_verifiers.lean.embedded.olean import Olean, dotted
from rlpost_verifiers.lean.embedded.server import Server
from rlpost_verifiers.lean.messages import LeanOutput, Ruling, Run, classify, open_goals, parse_output
from rlpost_verifiers.lean.source import (
    ASSUMED,
    build_diagnosis,
    build_source,
    build_statement,
    check_statement,
    own_names,
    proof_start_line,
    theorem_name,
)
from rlpost_verifiers.lean.task import ProofTask

Assurance = Literal["elaborated", "axioms_checked", "kernel_replayed"]
"""How far a check got: Lean's elaborator, the audit of the compiled module, the kernel's second check."""

_MAX_MESSAGES = 8
_MAX_MESSAGE_LENGTH = 500
_KEPT_STATEMENTS = 100_000


class UnreadableStatementError(DataError):
    """Lean cannot read the statement, so no proof of it can be verified."""


class StatementLostError(InfrastructureError):
    """Lean failed before it could tell whether it can read the statement, which is not the proof's doing."""


class Statements:
    """A cache of what statements mean, each compiled once by itself; shared by all workers.

    For the text of each of the last 100,000 it holds a digest of 32 bytes and the names that its context declares, or
    why Lean cannot read it.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[str, Wanted | str] = OrderedDict()
        self._lock = threading.Lock()

    def wanted(self, server: Server, task: ProofTask) -> Wanted:
        """What the module compiled from a proof of the task's statement must hold.

        Raises:
            UnreadableStatementError: if Lean cannot read the statement, with Lean's first error.
            StatementLostError: if Lean failed before it could tell.
        """
        source = build_statement(task)
        with self._lock:
            found = self._known.get(source)
        if found is None:
            found = self._compile(server, source, task)
            with self._lock:
                self._known[source] = found
                if len(self._known) > _KEPT_STATEMENTS:
                    self._known.popitem(last=False)
        if isinstance(found, str):
            raise UnreadableStatementError(f"Lean cannot read the statement {task.statement!r}: {found}")
        return found

    def _compile(self, server: Server, source: str, task: ProofTask) -> Wanted | str:
        run = server.run(source)
        ruling = classify(run, parse_output(run.output), server.limits.cpu_seconds)
        compiled = server.compiled()
        if ruling.outcome == "rejected":
            said = [error.text for error in parse_output(run.output).errors]
            return "; ".join((ruling.detail, *describe_missing("", said)))
        if ruling.outcome == "undecided" or compiled is None:
            raise StatementLostError(f"the statement could not be compiled: {ruling.detail or 'no module was written'}")
        module, theorem = Olean(compiled), theorem_name(task)
        if theorem not in module.constants:
            return f"its name comes out as something else than {dotted(theorem)}"
        context = {name: constant.kind for name, constant in module.constants.items()}
        for name in (theorem, tuple(ASSUMED.split("."))):
            context.pop(name, None)
        if other := next((name for name, kind in context.items() if kind not in ("theorem", "definition")), None):
            return f"its context declares {dotted(other)} ({context[other]}), which this backend cannot check again"
        return Wanted(statement_digest(module, theorem), theorem, own_names(task), frozenset(context))


def check_proof(server: Server, task: ProofTask, statements: Statements, backend: str, explain: bool = True) -> Verdict:
    """The verdict on one task; ``explain``: see `rlpost_verifiers.lean.embedded.backend.EmbeddedLean`.

    Raises:
        ZygoteLostError: if the server died; the task may be retried on another.
    """
    try:
        check_statement(task)
        return _check_proof(server, task, statements, backend, explain)
    except DataError as error:
        return undecided("statement_mismatch", str(error), backend)


def _check_proof(server: Server, task: ProofTask, statements: Statements, backend: str, explain: bool) -> Verdict:
    run = server.run(build_source(task))
    # Read now: the next run on this server empties its folder.
    output, compiled = parse_output(run.output), server.compiled()
    runs, axioms = [run], ()
    assurance: Assurance = "elaborated"
    ruling = classify(run, output, server.limits.cpu_seconds)
    if ruling.outcome == "accepted":
        assurance = "axioms_checked"
        found = inspect(compiled, server.prelude, statements.wanted(server, task))
        ruling, axioms = found.ruling, found.axioms
        if found.export is not None:
            assurance = "kernel_replayed"
            runs.append(server.replay(found.export))
            ruling = judge_replay(runs[-1], server.limits.cpu_seconds)
    elif ruling.reason == "failed" and any(error.line < proof_start_line(task) for error in output.errors):
        # The error is before the proof; if the statement itself cannot be read, the proof is not to blame.
        statements.wanted(server, task)
    line = proof_start_line(task)
    if explain and ruling.reason == "failed" and not output.errors and task.mode != "file":
        output, line = diagnose(server, task, output, line, runs)
    evidence = _evidence(ruling, output, line, runs)
    if ruling.outcome == "rejected":
        evidence["messages"] += describe_missing(task.proof, (error.text for error in output.errors))
    if axioms or ruling.reason == "proved":
        evidence["axioms"] = list(axioms)
    return Verdict(
        outcome=ruling.outcome,
        score={"accepted": 1.0, "rejected": 0.0, "undecided": None}[ruling.outcome],
        reason=ruling.reason,
        assurance="" if ruling.outcome == "undecided" else assurance,
        evidence=evidence,
        seconds=sum(each.seconds for each in runs),
        cpu_seconds=sum(each.cpu_seconds for each in runs),
        backend=backend,
    )


def diagnose(server: Server, task: ProofTask, output: LeanOutput, line: int, runs: list[Run]) -> tuple[LeanOutput, int]:
    """The errors of a rejected proof of which Lean said nothing, and the line at which the proof begins for them.

    They are for people and policies to read; the verdict is not theirs. What was said before stays if there are none.
    """
    runs.append(server.run(build_diagnosis(task)))
    errors = parse_output(runs[-1].output).errors
    return (LeanOutput(errors, ()), line + 1) if errors else (output, line)


def read_statements(server: Server, tasks: Sequence[ProofTask], statements: Statements) -> list[str | None]:
    """For each task why Lean cannot read its statement, or None.

    All statements are tried in one file first, which is several times faster.

    Raises:
        ZygoteLostError: if the server died.
        InfrastructureError: if Lean failed before it could tell.
    """
    problems: list[str | None] = [_find_unsound(task) for task in tasks]
    tasks = [replace(task, mode="proof") for task in tasks]
    sound = [index for index, problem in enumerate(problems) if problem is None]
    # Contexts may declare the same names, and what they declare is looked at.
    simple = [index for index in sound if not tasks[index].context.strip()]
    if len(simple) > 1 and _read_together(server, [tasks[index] for index in simple]):
        sound = [index for index in sound if index not in set(simple)]
    for index in sound:
        try:
            statements.wanted(server, tasks[index])
        except UnreadableStatementError as error:
            problems[index] = str(error)
    return problems


def _read_together(server: Server, tasks: Sequence[ProofTask]) -> bool:
    """Whether Lean accepts all statements, each in a section of its own."""
    opening = build_statement(ProofTask("True", "")).partition("axiom ")[0]
    blocks = [build_statement(task).removeprefix(opening) for task in tasks]
    sections = (f"section\n{block.replace('axiom X', f'axiom X{number}')}end\n" for number, block in enumerate(blocks))
    run = server.run(opening + "".join(sections))
    return classify(run, parse_output(run.output), server.limits.cpu_seconds).outcome == "accepted"


def _find_unsound(task: ProofTask) -> str | None:
    try:
        check_statement(task)
    except DataError as error:
        return str(error)
    return None


def _evidence(ruling: Ruling, output: LeanOutput, proof_line: int, runs: Sequence[Run]) -> dict[str, Any]:
    """The evidence for people to read; positions count from the first line of the proof."""
    messages = [ruling.detail] if ruling.detail and not output.errors else []
    # Errors first: a proof full of warnings must not hide what is wrong with it.
    # What a proof prints could pose as Lean's word, so it is left out.
    said = [message for message in output.messages if message.severity != "information"]
    for message in sorted(said, key=lambda each: each.severity != "error")[:_MAX_MESSAGES]:
        text = message.text.strip()[:_MAX_MESSAGE_LENGTH]
        line = message.line - proof_line + 1
        place = f"{line}:{message.column}" if line > 0 else "the theorem"
        messages.append(f"{message.severity} at {place}: {text}")
    evidence: dict[str, Any] = {"messages": messages, "lean_version": installation.VERSION}
    if goals := open_goals(output):
        evidence["goals"] = goals
    return {**evidence, "peak_rss_mb": max(run.peak_rss_mb for run in runs)}
