"""The gate's questions and counts; tests/contract runs the cases themselves through real Lean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rlpost.types import Verdict
from rlpost_verifiers.lean.conformance.gate import Case, examine
from rlpost_verifiers.lean.task import ProofTask

CASES = (Case(ProofTask("True", "trivial"), "gold"), Case(ProofTask("False", "cheat"), "cheat", "hopes"))
VERDICTS = {
    "accepted": Verdict("accepted", 1.0, "proved"),
    "rejected": Verdict("rejected", 0.0, "failed"),
    "undecided": Verdict("undecided", None, "timeout"),
}


class Scripted:
    """A backend with scripted answers that records what it was asked."""

    def __init__(self, *answers: str) -> None:
        self.answers, self.asked = list(answers), list[str]()
        self.modes, self.fingerprint = frozenset({"proof"}), "scripted/1"

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.asked += [task.proof for task in tasks]
        return [VERDICTS[self.answers.pop(0)] for _ in tasks]


@pytest.mark.parametrize(
    ("answers", "asked", "failures"),
    [
        (("accepted", "rejected"), ["trivial", "cheat"], []),
        # a cheat that is left undecided is not accepted
        (("accepted", "undecided"), ["trivial", "cheat"], []),
        (("accepted", "accepted"), ["trivial", "cheat"], ["cheat"]),
        (("rejected", "rejected"), ["trivial", "cheat"], ["trivial"]),
        (("undecided", "undecided", "accepted"), ["trivial", "cheat", "trivial"], []),
        (("undecided", "rejected", "undecided"), ["trivial", "cheat", "trivial"], ["trivial"]),
        (("undecided", "rejected", "rejected"), ["trivial", "cheat", "trivial"], ["trivial"]),
    ],
)
def test_gold_that_is_undecided_is_asked_about_once_more(
    answers: tuple[str, ...], asked: list[str], failures: list[str]
) -> None:
    backend: Any = Scripted(*answers)
    report = examine(backend, CASES)
    assert backend.asked == asked
    assert [row.case.task.proof for row in report.failures] == failures
