"""Whose fault it is that a check ended its process: the proof's, or the machine's.

An undecided check costs a policy nothing, so a policy that learns how to end Lean's process would hide there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.task import ProofTask


def settle_crashes(backend: Backend, tasks: Sequence[ProofTask], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, where a check that ends its process a second time, alone, is rejected as ``crashed_twice``.

    Only while the same Lean accepts a gold proof under the task's own header and context; where it does not, or where
    the second check ends otherwise than by a crash, the verdict stays undecided or is the second one. Every backend
    replaces a process that has ended, so the second check runs in a new one.
    """
    settled = list(verdicts)
    for index, verdict in enumerate(verdicts):
        if (verdict.outcome, verdict.reason) == ("undecided", "crashed"):
            settled[index] = _settle(backend, tasks[index], verdict)
    return settled


def _settle(backend: Backend, task: ProofTask, first: Verdict) -> Verdict:
    gold = ProofTask("∀ p : Prop, p → p", "fun _ h => h", header=task.header, context=task.context)
    [again] = backend.check([task])
    if (again.outcome, again.reason) != ("undecided", "crashed"):
        return again
    [control] = backend.check([gold])
    if control.outcome != "accepted":
        return first
    said = "; ".join(map(str, again.evidence.get("messages", ())))
    messages = [f"the proof ended Lean's process twice, and a gold proof after it was accepted: {said}"]
    return replace(again, outcome="rejected", score=0.0, reason="crashed_twice", evidence={"messages": messages})
