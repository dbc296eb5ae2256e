"""Rulings on finished processes: from the module that Lean compiled and from the kernel's answer."""

from __future__ import annotations

import json
import signal
from dataclasses import dataclass

from rlpost_verifiers.lean.embedded.audit import Wanted, audit
from rlpost_verifiers.lean.embedded.export import Export, export_module
from rlpost_verifiers.lean.embedded.olean import Olean, OleanError
from rlpost_verifiers.lean.embedded.replay import EXHAUSTED
from rlpost_verifiers.lean.messages import Ruling, Run, classify, parse_output


@dataclass(frozen=True, slots=True)
class Inspected:
    """The result of auditing a compiled module.

    Attributes:
        ruling: accepted if the audit found nothing to object to.
        axioms: names of the axioms that the theorem depends on.
        export: the module's declarations for the kernel, None where the audit objected.
    """

    ruling: Ruling
    axioms: tuple[str, ...] = ()
    export: Export | None = None


def inspect(compiled: bytes | None, prelude: Olean, wanted: Wanted) -> Inspected:
    """Audit the module that Lean compiled without an error; see `rlpost_verifiers.lean.embedded.audit.audit`.

    Args:
        compiled: the module that Lean wrote, None if it wrote none.
        prelude: the compiled prelude, which the module may build on.
        wanted: the theorem that it must hold.
    """
    if compiled is None:
        return Inspected(Ruling("undecided", "crashed", "Lean reported success and wrote no module"))
    try:
        module = Olean(compiled)
        ruling, axioms = audit(module, prelude, wanted)
        return Inspected(ruling, axioms, export_module(module) if ruling.outcome == "accepted" else None)
    except OleanError as error:
        return Inspected(Ruling("undecided", "crashed", f"the compiled module cannot be read: {error}"))


def judge_replay(run: Run, cpu_limit: float) -> Ruling:
    """The ruling that the kernel's answer to `rlpost_verifiers.lean.embedded.client.Zygote.replay` supports.

    A limit that the kernel runs into is the proof's own fault, as it is during elaboration. So is a stack overflow
    that the kernel does not detect: the depth of its recursion depends on the declarations only.
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
