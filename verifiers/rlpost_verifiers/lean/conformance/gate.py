"""The gate before training: a Lean that does not accept its gold proofs, or accepts a cheat, must not give rewards.

Every cheat comes from something that a public verifier was seen to accept or could be made to accept; ``cases.jsonl``
describes what each one tries. An undecided cheat is not accepted and so does no harm; an undecided gold proof means
that nothing can be verified here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import Backend
from rlpost_verifiers.lean.task import ProofTask, parse_task


@dataclass(frozen=True, slots=True)
class Case:
    """A task whose outcome is known.

    Attributes:
        task: the statement and the proof to check.
        kind: ``gold``, which must be accepted, or ``cheat``, which must not.
        cheat: short description of what a cheat tries; empty for gold.
    """

    task: ProofTask
    kind: Literal["gold", "cheat"]
    cheat: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """A case and the backend's verdict on it."""

    case: Case
    verdict: Verdict

    @property
    def held(self) -> bool:
        """Whether the verdict is the required one: gold accepted, a cheat not."""
        return (self.verdict.outcome == "accepted") == (self.case.kind == "gold")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all cases.

    Attributes:
        backend: fingerprint of the backend.
        rows: one for each case that the backend checked.
        skipped: cases in a mode that the backend does not support.
    """

    backend: str
    rows: tuple[Row, ...]
    skipped: tuple[Case, ...]

    @property
    def failures(self) -> tuple[Row, ...]:
        """Gold proofs that were not accepted and cheats that were."""
        return tuple(row for row in self.rows if not row.held)

    def summary(self) -> str:
        """One line with the counts and the first failure."""
        gold = [row for row in self.rows if row.case.kind == "gold"]
        cheats = [row for row in self.rows if row.case.kind == "cheat"]
        line = (
            f"{self.backend}: accepted {sum(row.held for row in gold)} of {len(gold)} gold proofs and "
            f"{sum(not row.held for row in cheats)} of {len(cheats)} cheats"
        )
        if not self.failures:
            return line
        case, verdict = self.failures[0].case, self.failures[0].verdict
        said = "; ".join(map(str, verdict.evidence.get("messages", ())))[:200]
        return f"{line}; first failure: {case.kind} {case.task.name!r} was {verdict.outcome} ({verdict.reason}: {said})"


@cache
def cases() -> tuple[Case, ...]:
    """The cases that ship, gold proofs first."""
    text = (resources.files("rlpost_verifiers.lean.conformance") / "cases.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    return tuple(Case(parse_task(row, f"case {row['name']!r}"), row["kind"], row.get("cheat", "")) for row in rows)


def examine(backend: Backend, chosen: Sequence[Case] | None = None) -> Report:
    """Run ``backend`` on every case in a mode that it supports, and once more on gold proofs left undecided.

    Raises:
        InfrastructureError: if the backend is closed.
    """
    given = cases() if chosen is None else tuple(chosen)
    asked = [case for case in given if case.task.mode in backend.modes]
    verdicts = backend.check([case.task for case in asked])
    # a machine that stalled for a moment should not end a run before it begins
    again = [i for i, v in enumerate(verdicts) if v.outcome == "undecided" and asked[i].kind == "gold"]
    if again:
        for i, verdict in zip(again, backend.check([asked[i].task for i in again]), strict=True):
            verdicts[i] = verdict
    rows = tuple(Row(case, verdict) for case, verdict in zip(asked, verdicts, strict=True))
    return Report(backend.fingerprint, rows, tuple(case for case in given if case.task.mode not in backend.modes))
