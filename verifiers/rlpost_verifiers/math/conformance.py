r"""Conformance check before training: answers with a known outcome, verified under the settings of the run.

Each answer is written in the form that the settings read: in a box, after an equals sign, or alone. A cheat that stays
undecided passes the check, because it is not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.math.answers import AnswerSettings
from rlpost_verifiers.mixed_batch import ask_mixed, decisive

Kind = Literal["gold", "cheat"]

GOLD = (
    ("4", "4"),
    ("0", "0.0"),
    ("-3", "-3"),
    ("1/2", "0.5"),
    ("0.5", r"\frac{1}{2}"),
    ("1/2", "2/4"),
    ("50%", "0.5"),
    ("0.5", r"50\%"),
    ("1234", "1,234"),
    ("3", r"3 \text{ cm}"),
    (r"\frac{\sqrt{3}}{2}", r"\sqrt{3}/2"),
    ("(1,2]", "(1, 2]"),
    (r"\{1,2\}", r"\{2, 1\}"),
    ("x^2+2x+1", "(x+1)^2"),
    (r"\infty", r"\infty"),
)
"""(gold, answer) that must be accepted."""

CHEATS = (
    ("4", "5", "another number"),
    ("-3", "3", "the sign"),
    ("4", "", "nothing"),
    ("4", "3, 4", "several answers"),
    ("4", "3 or 4", "several answers"),
    ("4", r"4 \pm 1", "several answers"),
    ("84", "12*7", "the question for its answer"),
    ("84", r"12 \cdot 7", "the question for its answer"),
    ("24", "4!", "the question for its answer"),
    ("42", "84/2", "the question for its answer"),
    ("4", r"\sqrt{16}", "the question for its answer"),
    ("1/3", "0.33", "rounding"),
    ("10000000", "10000000.4", "rounding"),
    ("50", r"50\%", "a percentage for a number"),
    ("(1,2]", "[1,2]", "another interval"),
    ("(1,2)", "(2,1)", "another order"),
    (r"\{1,2\}", r"\{1,2,3\}", "more than the set"),
    ("4", r"\infty", "infinity"),
    ("4", "x", "a letter"),
    ("4", "the answer", "words"),
    ("4", "4=5", "a false equation"),
    ("4", "9**9**9**9", "a number that fills the memory"),
    ("x^2", "9^{9^{9^{9}}}", "a number that fills the memory"),
    ("x^2", "99999999!", "a number that takes years"),
    ("4", "4" * 5000, "a number of 5,000 digits"),
    ("4", "(" * 150, "brackets that never close"),
    ("4", "import os; os._exit(0)", "a program"),
)
"""(gold, answer, what the cheat tries) that must not be accepted."""


class Judge(Protocol):
    """The part of a verifier that the check uses."""

    @property
    def fingerprint(self) -> str:
        """Name and version of the verifier."""
        ...

    def verify_batch(self, items: list[VerifyItem]) -> list[Verdict]:
        """One verdict for each item."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """A case and its verdict; of the two in a batch, the one that is wrong."""

    kind: Kind
    gold: str
    answer: str
    verdict: Verdict

    @property
    def held(self) -> bool:
        """Whether the verdict is right: gold answers are accepted, cheats are not."""
        return (self.verdict.outcome == "accepted") == (self.kind == "gold")


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of all cases."""

    verifier: str
    rows: tuple[Row, ...]

    @property
    def failures(self) -> tuple[Row, ...]:
        """Gold answers that were not accepted and cheats that were."""
        return tuple(row for row in self.rows if not row.held)

    def summary(self) -> str:
        """One line: the counts and the first failure."""
        gold = [row for row in self.rows if row.kind == "gold"]
        cheats = [row for row in self.rows if row.kind == "cheat"]
        line = (
            f"{self.verifier}: accepted {sum(row.held for row in gold)} of {len(gold)} gold answers and "
            f"{sum(not row.held for row in cheats)} of {len(cheats)} cheats"
        )
        if not self.failures:
            return line
        first = self.failures[0]
        said = "; ".join(map(str, first.verdict.evidence.get("messages", ())))[:200]
        return (
            f"{line}; first failure: {first.kind} {first.answer[:40]!r} for {first.gold!r} was {first.verdict.outcome} "
            f"({first.verdict.reason}: {said})"
        )


def examine(judge: Judge, gold_key: str, settings: AnswerSettings, strict: bool) -> Report:
    """Have ``judge`` verify every case, in one batch in a shuffled order, each case twice.

    Args:
        judge: the verifier to examine.
        gold_key: column from which it reads the gold answer.
        settings: how it extracts answers, which determines the form of the texts.
        strict: whether it rejects unevaluated answers; if not, those cases are left out.
    """
    cases: list[tuple[Kind, str, str]] = [("gold", gold, answer) for gold, answer in GOLD]
    for gold, answer, what in CHEATS:
        if strict or what != "the question for its answer":
            cases.append(("cheat", gold, answer))
    verdicts = ask_mixed(
        judge.verify_batch, [VerifyItem({gold_key: gold}, _as_text(answer, settings)) for _, gold, answer in cases]
    )
    rows = (Row(*case, decisive(found, case[0] == "gold")) for case, found in zip(cases, verdicts, strict=True))
    return Report(judge.fingerprint, tuple(rows))


def _as_text(answer: str, settings: AnswerSettings) -> str:
    if settings.where == "equals":
        return f"x = {answer}"
    return f"\\boxed{{{answer}}}" if settings.where in ("auto", "boxed") else answer
