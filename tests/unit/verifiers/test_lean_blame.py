"""Who is to blame for a check that ended Lean's process, on a stand-in for Lean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import undecided
from rlpost_verifiers.lean.blame import settle_crashes
from rlpost_verifiers.lean.task import Mode, ProofTask

CRASHED = undecided("crashed", "signal 11", "fake")
AWAY = undecided("unavailable", "away", "fake")
PROVED = Verdict("accepted", 1.0, "proved", backend="fake")
FAILED = Verdict("rejected", 0.0, "failed", backend="fake")


class FakeLean:
    """Gives each proof its verdict, and every other one (the gold proof) ``gold``."""

    fingerprint = "fake/1"
    modes: frozenset[Mode] = frozenset({"proof"})

    def __init__(self, gold: Verdict, **verdicts: Verdict) -> None:
        self.gold, self.verdicts = gold, verdicts
        self.asked: list[list[ProofTask]] = []

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.asked.append(list(tasks))
        return [self.verdicts.get(task.proof, self.gold) for task in tasks]

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        return [None for _ in tasks]

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("again", "gold", "reason"),
    [
        (CRASHED, PROVED, "crashed_twice"),
        # the machine's fault: not even a gold proof is accepted
        (CRASHED, CRASHED, "crashed"),
        (CRASHED, AWAY, "crashed"),
        (CRASHED, FAILED, "crashed"),
        # the second check decides
        (PROVED, PROVED, "proved"),
        (FAILED, CRASHED, "failed"),
        (AWAY, PROVED, "unavailable"),
    ],
)
def test_a_second_crash_is_the_proofs_own_if_lean_is_well(again: Verdict, gold: Verdict, reason: str) -> None:
    lean = FakeLean(gold, bad=again)
    [verdict] = settle_crashes(lean, [ProofTask("True", "bad")], [CRASHED])
    assert verdict.reason == reason
    assert (verdict.score is None) == (verdict.outcome == "undecided")


def test_only_crashes_are_asked_about_and_each_alone() -> None:
    lean = FakeLean(PROVED, a=CRASHED, b=CRASHED)
    tasks = [ProofTask("True", proof, header="open Nat", context="def n := 1") for proof in ("a", "fine", "b")]
    verdicts = settle_crashes(lean, tasks, [CRASHED, PROVED, CRASHED])
    assert [verdict.reason for verdict in verdicts] == ["crashed_twice", "proved", "crashed_twice"]
    assert [len(asked) for asked in lean.asked] == [1, 1, 1, 1]
    gold = lean.asked[1][0]
    assert (gold.header, gold.context) == ("open Nat", "def n := 1")
    assert "signal 11" in verdicts[0].evidence["messages"][0]


def test_verdicts_other_than_a_crash_stay() -> None:
    given = [AWAY, FAILED, PROVED, undecided("timeout", "slow", "fake")]
    assert settle_crashes(FakeLean(CRASHED), [ProofTask("True", "x")] * 4, given) == given
