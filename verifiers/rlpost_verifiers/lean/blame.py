"""Whose fault it is that a check ended its process or ran out of wall-clock time: the proof's, or the machine's.

An undecided check costs a policy nothing, so a policy that learns how to end Lean's process, or how to have it wait,
would hide there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.messages import Reason
from rlpost_verifiers.lean.task import ProofTask

_MOST_TIMEOUTS = 4
"""Timeouts of one batch that are looked into, since each takes the whole wall-clock limit once more."""

_QUICK = 4
"""A healthy backend accepts a gold proof in this fraction of the time that ran out."""

_LESS_CPU = 2
"""A proof that waits gets less than this fraction of the share of a core that the gold proof got beside it."""


def settle_crashes(backend: Backend, tasks: Sequence[ProofTask], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, where a check that ends its process twice more, alone, is rejected as ``crashed_twice``.

    Only while the same Lean accepts, in between, a gold proof under the task's own header and context; where it does
    not, or where a further check ends otherwise than by a crash, the verdict stays undecided or is that check's. Every
    backend replaces a process that has ended, so each check runs in a new one.
    """
    settled = list(verdicts)
    for index, verdict in enumerate(verdicts):
        if _ruled(verdict) == ("undecided", "crashed"):
            settled[index] = _settle(backend, tasks[index], verdict)
    return settled


def settle_timeouts(backend: Backend, tasks: Sequence[ProofTask], verdicts: Sequence[Verdict]) -> list[Verdict]:
    """The verdicts, where a check that runs out of wall-clock time once more, alone, is rejected as ``timeout_twice``.

    Only on a healthy machine, which a gold proof before it and one after it must show: each is accepted in a quarter
    of the time that ran out, and gets, where the backend measures CPU time, more than twice the share of a core that
    the proof got. On a busy machine all of them are slowed down alike; a proof that computes gets the same share as a
    gold proof, and is rejected for its CPU time (``timeout``) long before. Of a batch, the first four are looked into.
    """
    settled = list(verdicts)
    suspects = [i for i, verdict in enumerate(verdicts) if _ruled(verdict) == ("undecided", "timeout")]
    for index in suspects[:_MOST_TIMEOUTS]:
        task, first = tasks[index], verdicts[index]
        if not _is_quick(before := _check_gold(backend, task), first):
            break  # nor would it be a moment later
        [again] = backend.check([task])
        if _ruled(again) != ("undecided", "timeout"):
            settled[index] = again
        elif _is_quick(after := _check_gold(backend, task), again) and _waits(again, before, after):
            said = (
                f"it ran out of wall-clock time again, alone, and gold proofs before and after did not: {_said(again)}"
            )
            settled[index] = _rejected(again, "timeout_twice", said)
    return settled


def _settle(backend: Backend, task: ProofTask, first: Verdict) -> Verdict:
    [again] = backend.check([task])
    if _ruled(again) != ("undecided", "crashed"):
        return again
    if _check_gold(backend, task).outcome != "accepted":
        return first
    # Once more: where something ends processes at random, two in a row are not rare among many checks.
    [last] = backend.check([task])
    if _ruled(last) != ("undecided", "crashed"):
        return last
    said = f"the proof ended Lean's process every time, and a gold proof in between was accepted: {_said(last)}"
    return _rejected(last, "crashed_twice", said)


def _check_gold(backend: Backend, task: ProofTask) -> Verdict:
    """The verdict on a proof that is right, under the task's own header and context."""
    [verdict] = backend.check(
        [ProofTask("∀ p : Prop, p → p", "fun _ h => h", header=task.header, context=task.context)]
    )
    return verdict


def _is_quick(gold: Verdict, timed_out: Verdict) -> bool:
    return gold.outcome == "accepted" and gold.seconds * _QUICK <= timed_out.seconds


def _waits(again: Verdict, *golds: Verdict) -> bool:
    """Whether the proof got a much smaller share of a core than the gold proofs; True where no CPU time is known."""
    shares = [_share(verdict) for verdict in (again, *golds)]
    known = [share for share in shares if share is not None]
    return len(known) < len(shares) or known[0] * _LESS_CPU < min(known[1:])


def _share(verdict: Verdict) -> float | None:
    return None if verdict.cpu_seconds is None or verdict.seconds <= 0 else verdict.cpu_seconds / verdict.seconds


def _ruled(verdict: Verdict) -> tuple[str, str]:
    return verdict.outcome, verdict.reason


def _said(verdict: Verdict) -> str:
    return "; ".join(map(str, verdict.evidence.get("messages", ())))


def _rejected(verdict: Verdict, reason: Reason, said: str) -> Verdict:
    return replace(verdict, outcome="rejected", score=0.0, reason=reason, evidence={"messages": [said]})
