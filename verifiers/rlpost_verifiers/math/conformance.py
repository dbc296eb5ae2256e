r"""Conformance check before training: answers with a known outcome, verified under the settings of the run.

Each answer is written in every usual form that the settings read (`rlpost_verifiers.math.forms`; ten of them under
``auto``). A cheat that stays undecided passes the check, because it is not accepted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.math.answers import AnswerSettings
from rlpost_verifiers.math.forms import in_usual_forms
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
    ("90", r"90^\circ"),
    ("25", r"25\text{ cm}^2"),
    (r"5\text{ cm}", r"50\text{ mm}"),
    ("10000", r"10,\!000"),
    ("1500000", r"1.5\times10^6"),
    (r"\frac{7}{2}", r"3\frac12"),
    ("-2, 2", r"\pm 2"),
    ("[3, 5)", r"3 \le x < 5"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"),
    ("2516_8", "2516_{8}"),
    ("9:30", "9:30 AM"),
    ("silent", r"\text{Silent}"),
    ("B", r"\textbf{(B)}"),
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
    ("0.0000001", "0.0000002", "a tiny number for another"),
    ("2516_8", "2516_9", "another base"),
    ("12:00", "1:00", "another time"),
    ("silent", "listen", "the same letters"),
    ("B", "A or B", "several answers"),
    ("5", r"5\text{ thousand}", "a number word for a unit"),
    (r"5\text{ cm}", r"5\text{ m}", "another unit"),
    ("3", r"x \ne 3", "the opposite"),
    ("3", r"x \le 3", "an inequality"),
    (r"\frac{3}{2}", r"3\frac12", "a mixed number for a product"),
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
    """A text with the answer of a case, and its verdict; of the two in a batch, the one that is wrong."""

    kind: Kind
    gold: str
    text: str
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
            f"{line}; first failure: {first.kind} {first.text[:60]!r} for {first.gold!r} was {first.verdict.outcome} "
            f"({first.verdict.reason}: {said})"
        )


def examine(judge: Judge, gold_key: str, settings: AnswerSettings, strict: bool) -> Report:
    """Have ``judge`` verify every case in every usual form, in one batch in a shuffled order, each text twice.

    Args:
        judge: the verifier to examine.
        gold_key: column from which it reads the gold answer.
        settings: how it extracts answers, which determines the forms of the texts.
        strict: whether it rejects unevaluated answers; if not, those cases are left out.
    """
    cases: list[tuple[Kind, str, str]] = [("gold", gold, answer) for gold, answer in GOLD]
    for gold, answer, what in CHEATS:
        if strict or what != "the question for its answer":
            cases.append(("cheat", gold, answer))
    asked = [(case, text) for case in cases for text in in_usual_forms(case[2], settings)]
    verdicts = ask_mixed(judge.verify_batch, [VerifyItem({gold_key: gold}, text) for (_, gold, _), text in asked])
    rows = (
        Row(kind, gold, text, decisive(found, kind == "gold"))
        for ((kind, gold, _), text), found in zip(asked, verdicts, strict=True)
    )
    return Report(judge.fingerprint, tuple(rows))
