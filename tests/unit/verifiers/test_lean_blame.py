"""Who is to blame for a check that ended Lean's process, on a stand-in for Lean."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlpost.types import Verdict
from rlpost_verifiers.lean.backend import undecided
from rlpost_verifiers.lean.blame import settle_crashes, settle_timeouts
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.toolchain.cli import LeanCli
from rlpost_verifiers.lean.verifier import LeanVerifier

CRASHED = undecided("crashed", "signal 11", "fake")
AWAY = undecided("unavailable", "away", "fake")
PROVED = Verdict("accepted", 1.0, "proved", backend="fake")
FAILED = Verdict("rejected", 0.0, "failed", backend="fake")

# Accepts every theorem by the messages that the pin needs, and sleeps where the proof says "wait".
SLEEPING = f"""#!{sys.executable} -S
import json, re, sys, time
if "--version" in sys.argv:
    sys.exit(print("Lean (version 4.35.0, commit 0)"))
text = open(sys.argv[-1]).read()
time.sleep(60 * ("wait" in text))
for number, line in enumerate(text.split("\\n"), 1):
    if found := re.match(r"#print axioms (\\w+)", line):
        said = f"'{{found[1]}}' does not depend on any axioms"
        place = {{"line": number, "column": 0}}
        print(json.dumps({{"severity": "information", "data": said, "pos": place}}))
"""


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
    assert [len(asked) for asked in lean.asked] == [1] * 6
    gold = lean.asked[1][0]
    assert (gold.header, gold.context) == ("open Nat", "def n := 1")
    assert "signal 11" in verdicts[0].evidence["messages"][0]


def test_verdicts_other_than_a_crash_stay() -> None:
    given = [AWAY, FAILED, PROVED, undecided("timeout", "slow", "fake")]
    assert settle_crashes(FakeLean(CRASHED), [ProofTask("True", "x")] * 4, given) == given


def timed_out(seconds: float = 30.0, cpu_seconds: float | None = 0.1) -> Verdict:
    return replace(undecided("timeout", "30 s passed", "fake", seconds), cpu_seconds=cpu_seconds)


def gold(seconds: float, cpu_seconds: float | None) -> Verdict:
    return Verdict("accepted", 1.0, "proved", seconds=seconds, cpu_seconds=cpu_seconds, backend="fake")


@pytest.mark.parametrize(
    ("again", "control", "reason"),
    [
        # it waits (0.3 % of a core) while a gold proof gets 90 % of one
        (timed_out(), gold(0.01, 0.009), "timeout_twice"),
        # a busy machine: both get a tenth of a core
        (timed_out(cpu_seconds=3.0), gold(0.1, 0.01), "timeout"),
        # it computes, with half a core of the gold proof's whole one
        (timed_out(cpu_seconds=15.0), gold(0.01, 0.01), "timeout"),
        # a slow machine: the gold proof takes more than a quarter of the time that ran out
        (timed_out(), gold(8.0, 8.0), "timeout"),
        (timed_out(), FAILED, "timeout"),
        (timed_out(), AWAY, "timeout"),
        # no CPU time known: by the seconds alone
        (timed_out(cpu_seconds=None), gold(2.0, None), "timeout_twice"),
        (timed_out(cpu_seconds=None), gold(9.0, None), "timeout"),
        # the second check decides
        (FAILED, gold(0.01, 0.009), "failed"),
        (PROVED, gold(0.01, 0.009), "proved"),
        (CRASHED, gold(0.01, 0.009), "crashed"),
    ],
)
def test_a_check_that_waits_is_rejected_on_a_healthy_machine_only(
    again: Verdict, control: Verdict, reason: str
) -> None:
    lean = FakeLean(control, bad=again)
    [verdict] = settle_timeouts(lean, [ProofTask("True", "bad")], [timed_out()])
    assert verdict.reason == reason
    assert (verdict.score is None) == (verdict.outcome == "undecided")


def test_a_machine_that_gets_busy_during_the_second_check_is_to_blame() -> None:
    lean = FakeLean(PROVED, bad=timed_out())
    controls = iter([gold(0.01, 0.009), gold(0.4, 0.009)])
    check = lean.check
    lean.check = lambda tasks: check(tasks) if tasks[0].proof == "bad" else [next(controls)]  # type: ignore[method-assign]
    [verdict] = settle_timeouts(lean, [ProofTask("True", "bad")], [timed_out(cpu_seconds=0.5)])
    assert verdict.reason == "timeout_twice"
    controls = iter([gold(0.01, 0.009), gold(0.9, 0.009)])
    lean.verdicts["bad"] = timed_out(cpu_seconds=0.5)
    [verdict] = settle_timeouts(lean, [ProofTask("True", "bad")], [timed_out()])
    assert verdict.reason == "timeout"


def test_few_timeouts_of_a_batch_are_looked_into_and_none_on_a_busy_machine() -> None:
    tasks = [ProofTask("True", "bad", name=str(i)) for i in range(9)]
    lean = FakeLean(gold(0.01, 0.009), bad=timed_out())
    reasons = [verdict.reason for verdict in settle_timeouts(lean, tasks, [timed_out()] * 9)]
    assert reasons == ["timeout_twice"] * 4 + ["timeout"] * 5
    lean = FakeLean(gold(20.0, 0.009), bad=timed_out())
    assert {verdict.reason for verdict in settle_timeouts(lean, tasks, [timed_out()] * 9)} == {"timeout"}
    assert len(lean.asked) == 1


def test_a_check_that_waits_is_rejected_by_the_verifier(tmp_path: Path) -> None:
    """A real process that sleeps where the text says so, on a command line with a limit of two seconds."""
    path = tmp_path / "lean"
    path.write_text(SLEEPING, encoding="utf-8")
    path.chmod(0o755)
    lean = LeanCli(str(path), imports="", leanchecker="off", cpu_seconds=1, wall_seconds=2)
    with LeanVerifier(lean, retries=0) as verifier:
        waits, _ = verifier.verify_tasks([ProofTask("True", "wait"), ProofTask("True", "trivial")])
    assert (waits.outcome, waits.reason, waits.score) == ("rejected", "timeout_twice", 0.0)
    assert "gold proofs before and after did not" in waits.evidence["messages"][0]


def test_a_check_that_crashed_by_chance_twice_is_not_rejected() -> None:
    lean = FakeLean(PROVED)
    answers = iter([CRASHED, PROVED, FAILED])
    lean.check = lambda tasks: [next(answers)]  # type: ignore[method-assign]
    [verdict] = settle_crashes(lean, [ProofTask("True", "bad")], [CRASHED])
    assert verdict.reason == "failed"
