"""What every Lean offers: the verbs that the verifier, the conformance gate and the commands rely on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from rlpost.types import Verdict
from rlpost_verifiers.lean.messages import Reason
from rlpost_verifiers.lean.task import Mode, ProofTask


@runtime_checkable
class Backend(Protocol):
    """A Lean that checks proofs. Methods may be called from several threads.

    Attributes:
        modes: the task modes it can judge soundly.
    """

    modes: frozenset[Mode]

    @property
    def fingerprint(self) -> str:
        """Name, Lean's version, mode, and a hash of everything else a verdict could depend on."""
        ...

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order.

        An accepted proof proves the task's own statement. A task that Lean cannot be asked about, because the statement
        is unsound as text or means nothing to Lean, stays undecided with reason ``statement_mismatch``; a Lean that is
        away leaves it undecided with reason ``unavailable``. Nothing is raised for what a task holds.

        Raises:
            InfrastructureError: after `close`.
        """
        ...

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """For each task None if Lean reads its statement (with header and binders), else why not, in one line.

        Proofs are not looked at. Asked before training, so that a broken data set is refused and not trained on.

        Raises:
            InfrastructureError: if Lean cannot be asked.
        """
        ...

    def close(self) -> None:
        """End every process; checks in flight become undecided, repeated calls do nothing."""
        ...


def filtered(problem: str, fingerprint: str) -> Verdict:
    """The verdict on an answer that Lean is not even shown.

    >>> filtered("the proof is empty", "lean").score
    0.0
    """
    return Verdict(
        "rejected", 0.0, "filtered", assurance="lexical", evidence={"messages": [problem]}, backend=fingerprint
    )


def undecided(reason: Reason, detail: str, fingerprint: str, seconds: float = 0.0) -> Verdict:
    """The verdict of a Lean that could not judge.

    >>> undecided("unavailable", "connection refused", "lean").score is None
    True
    """
    return Verdict("undecided", None, reason, evidence={"messages": [detail]}, seconds=seconds, backend=fingerprint)
