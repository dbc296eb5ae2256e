"""The interface of a Lean backend, on which the verifier, the conformance gate and the commands rely."""

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
        modes: task modes that it can verify soundly.
    """

    modes: frozenset[Mode]

    @property
    def fingerprint(self) -> str:
        """Name, Lean's version, mode, and a hash of everything else a verdict could depend on."""
        ...

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        """One verdict for each task, in order.

        An accepted proof proves the task's own statement. A task whose statement is malformed as text, or cannot be
        elaborated by Lean, stays undecided with reason ``statement_mismatch``; an unreachable Lean leaves it undecided
        with reason ``unavailable``. The content of a task never raises.

        Raises:
            InfrastructureError: after `close`.
        """
        ...

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        """For each task, None if Lean can read its statement (with header and binders), else a one-line reason.

        Proofs are ignored. Called before training, so that a broken data set is refused and not trained on.

        Raises:
            InfrastructureError: if Lean is unavailable.
        """
        ...

    def close(self) -> None:
        """End every process; checks in flight become undecided, repeated calls do nothing."""
        ...


def filtered(problem: str, fingerprint: str) -> Verdict:
    """The verdict on an answer that is rejected before Lean sees it.

    >>> filtered("the proof is empty", "lean").score
    0.0
    """
    return Verdict(
        "rejected", 0.0, "filtered", assurance="lexical", evidence={"messages": [problem]}, backend=fingerprint
    )


def undecided(reason: Reason, detail: str, fingerprint: str, seconds: float = 0.0) -> Verdict:
    """The verdict where Lean could not decide.

    >>> undecided("unavailable", "connection refused", "lean").score is None
    True
    """
    return Verdict("undecided", None, reason, evidence={"messages": [detail]}, seconds=seconds, backend=fingerprint)
