"""From finished processes to a ruling: what Lean printed, what it compiled, and what the kernel says to that."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

from rlpost_verifiers.lean.embedded.audit import audit
from rlpost_verifiers.lean.embedded.export import Export, export_module
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError
from rlpost_verifiers.lean.embedded.replay import EXHAUSTED
from rlpost_verifiers.lean.messages import Ruling, Run, classify, parse_output


@dataclass(frozen=True, slots=True)
class Inspected:
    """What a compiled module shows.

    Attributes:
        ruling: accepted if the audit found nothing to object to.
        axioms: what the theorem rests on.
        export: the module's declarations for the kernel, None where the audit objected.
    """

    ruling: Ruling
    axioms: tuple[str, ...] = ()
    export: Export | None = None


def inspect(compiled: bytes | None, prelude: Olean, statement: bytes | None) -> Inspected:
    """Audit what Lean compiled after it had no complaint; see `rlpost_verifiers.lean.embedded.audit.audit`.

    Args:
        compiled: the module it wrote, None if none.
        prelude: what the module may build on.
        statement: digest of what the theorem must state.
    """
    if compiled is None:
        return Inspected(Ruling("undecided", "crashed", "Lean reported success and wrote no module"))
    try:
        module = Olean(compiled)
        ruling, axioms = audit(module, prelude, statement)
        return Inspected(ruling, axioms, export_module(module) if ruling.outcome == "accepted" else None)
    except OleanError as error:
        return Inspected(Ruling("undecided", "crashed", f"the compiled module cannot be read: {error}"))


def judge_replay(run: Run, cpu_limit: float) -> Ruling:
    """What the kernel's answer to `rlpost_verifiers.lean.embedded.client.Zygote.replay` says about the proof.

    A limit that the kernel runs into is the proof's own fault, as it is during elaboration. So is a stack that
    overflows where the kernel does not look: nothing but the declarations decides how deep it gets.
    """
    if run.signal == signal.SIGSEGV:
        return Ruling("rejected", "memory", "the kernel's stack overflowed")
    ruling = classify(run, parse_output(run.output), cpu_limit)
    if ruling.reason in ("timeout", "memory"):
        return ruling
    try:
        problem = json.loads(run.output)["problem"]
    except (ValueError, KeyError, TypeError):
        return Ruling("undecided", "crashed", f"the kernel's replay ended with {run.output[:200]!r}")
    if problem and any(problem.endswith(limit) for limit in EXHAUSTED):
        return Ruling("rejected", "memory", problem)
    if problem:
        return Ruling("rejected", "kernel_rejected", problem)
    return Ruling("accepted", "proved")
