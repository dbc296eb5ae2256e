"""The gate before training: a Lean that does not accept its gold proofs, or accepts a cheat, must not give rewards.

Every cheat comes from something that a public verifier was seen to accept or could be made to accept; ``cases.jsonl``
describes what each one tries. An undecided cheat is not accepted and so does no harm; an undecided gold proof means
that nothing can be verified here.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Literal, Protocol

from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.lean.extract import ExtractSettings
from rlpost_verifiers.lean.task import Mode, ProofTask, parse_task
from rlpost_verifiers.mixed_batch import ask_mixed, decisive


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
    """A case and the verdict on it; of the two in a batch, the one that is wrong."""

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
        backend: fingerprint of the verifier.
        rows: one for each case that was verified.
        skipped: cases in a mode that is not supported.
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


class Judge(Protocol):
    """The part of a verifier that the gate uses, which is also the one that training uses."""

    @property
    def fingerprint(self) -> str:
        """Name and version of the verifier."""
        ...

    def verify_batch(self, items: Sequence[VerifyItem]) -> Sequence[Verdict]:
        """One verdict for each item."""
        ...


def examine(
    judge: Judge, modes: Collection[Mode], settings: ExtractSettings, chosen: Sequence[Case] | None = None
) -> Report:
    """Have ``judge`` verify every case in a mode that it supports, in one batch in a shuffled order, each case twice.

    Gold proofs left undecided are asked about once more.

    Args:
        judge: the verifier to examine.
        modes: modes of tasks that it can check.
        settings: how it extracts proofs, which determines the form of the answers.
        chosen: the cases; None for those that ship.

    Raises:
        InfrastructureError: if the verifier is closed.
        SelfCheckError: if it gives another number of verdicts than it is asked for.
    """
    given = cases() if chosen is None else tuple(chosen)
    asked = [case for case in given if case.task.mode in modes]
    items = [as_item(case.task, settings) for case in asked]
    verdicts = ask_mixed(judge.verify_batch, items)
    # a machine that stalled for a moment should not end a run before it begins
    again = [
        i
        for i, found in enumerate(verdicts)
        if asked[i].kind == "gold" and any(verdict.outcome == "undecided" for verdict in found)
    ]
    if again:
        for i, found in zip(again, ask_mixed(judge.verify_batch, [items[i] for i in again]), strict=True):
            verdicts[i] = found
    rows = tuple(Row(case, decisive(found, case.kind == "gold")) for case, found in zip(asked, verdicts, strict=True))
    return Report(judge.fingerprint, rows, tuple(case for case in given if case.task.mode not in modes))


def as_item(task: ProofTask, settings: ExtractSettings) -> VerifyItem:
    r"""A task as a row of data and an answer from which these settings extract the task's proof.

    >>> as_item(ProofTask("True", "trivial"), ExtractSettings("fence", form="tactic")).text
    '```lean\nexact trivial\n```'
    """
    text = task.proof
    if settings.form == "tactic" and task.mode == "proof" and text and not text.startswith("by"):
        text = f"exact {text}"
    if settings.extract != "raw":
        text = f"{text}\n```" if settings.extract == "continued" else f"```lean\n{text}\n```"
    columns = {"statement": task.statement, "header": task.header, "binders": task.binders, "mode": task.mode}
    columns |= {"context": task.context, "theorem": task.theorem}
    return VerifyItem({**columns, "name": task.name}, text)
