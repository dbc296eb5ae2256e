"""The math verifier on the real math-verify: the gate, lost and stuck processes, order, gold answers."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from rlpost.errors import DataError, InfrastructureError, MissingPackageError, UserError
from rlpost.protocols import SelfTestingVerifier, Verifier
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.math import comparer as comparing
from rlpost_verifiers.math.answers import AnswerSettings
from rlpost_verifiers.math.comparer import Comparer
from rlpost_verifiers.math.conformance import examine
from rlpost_verifiers.math.verifier import MathVerifier

pytest.importorskip("math_verify")


@pytest.fixture(scope="module")
def math() -> Iterator[MathVerifier]:
    with MathVerifier(timeout_s=10, workers=2) as verifier:
        yield verifier


@pytest.fixture(scope="module")
def comparer() -> Iterator[Comparer]:
    found = Comparer(timeout_s=1.0, memory_mb=1024)
    with pytest.MonkeyPatch.context() as patch:
        # machines stall, and only one test is about wall clock
        patch.setattr(comparing, "_WALL_FACTOR", 300.0)
        yield found
    found.close()


def test_gold_answers_are_accepted_and_no_cheat_is(math: MathVerifier) -> None:
    assert isinstance(math, Verifier)
    assert isinstance(math, SelfTestingVerifier)
    report = math.conformance()
    assert [row for row in report.rows if not row.held] == []
    assert not [row for row in report.rows if row.verdict.outcome == "undecided"]
    assert report.summary().startswith("math-verify/")
    assert "accepted 15 of 15 gold answers and 0 of 27 cheats" in report.summary()


@pytest.mark.parametrize("where", ["equals", "text"])
def test_the_gate_holds_in_other_settings(where: str) -> None:
    with MathVerifier(timeout_s=10, where=where, spaced_digits=True, gold_key="target") as verifier:  # pyright: ignore
        assert verifier.conformance().failures == ()


def test_verdicts_keep_the_order_and_equal_questions_are_asked_once(math: MathVerifier) -> None:
    items = [VerifyItem({"answer": gold}, text) for gold, text in [(4, "2 + 2 = 4"), ("4", "5"), (4, ""), ("4", "4")]]
    verdicts = math.verify_batch(items)
    assert [v.outcome for v in verdicts] == ["accepted", "rejected", "rejected", "accepted"]
    assert [v.reason for v in verdicts] == ["correct", "wrong", "no_answer", "correct"]
    assert [v.reason for v in math.verify_batch(items[::-1])] == ["correct", "no_answer", "wrong", "correct"]
    assert verdicts[1].evidence == {"answer": "5", "gold": "4", "messages": ["5 against 4"]}
    again = math.verify_batch(items[1:2])[0]
    assert (again.cached, again.seconds) == (True, 0.0)


def test_gold_answers_that_cannot_be_read_are_a_fault_of_the_data(math: MathVerifier) -> None:
    good = Prompt("a", text="x", columns={"answer": "4"})
    math.check_prompts([good])
    bad = [Prompt(name, text="x", columns={"answer": r"\frac{"}) for name in ("b", "c")]
    with pytest.raises(DataError, match=r"1 of 2 gold answers cannot be used; first, prompt 'b': gold answer .* read"):
        math.check_prompts([good, *bad])
    with pytest.raises(DataError, match=r"prompt 'd': column 'answer' holds None, .*gold_key \(columns are solution\)"):
        math.check_prompts([Prompt("d", text="x", columns={"solution": "4"})])
    # without a check beforehand, the failure is undecided and not the answer's fault
    [verdict] = math.verify_batch([VerifyItem({"answer": r"\frac{"}, "4")])
    assert (verdict.outcome, verdict.reason) == ("undecided", "bad_gold")


def test_an_answer_that_uses_up_its_cpu_is_rejected_and_the_next_one_checked(comparer: Comparer) -> None:
    # one call of C that no signal interrupts
    found = comparer.ask("x^2", "9^{9^{9^{9}}}")
    assert (found.reason, found.own_fault) == ("timeout", True)
    assert found.cpu_seconds is not None
    assert found.cpu_seconds >= 0.9
    assert comparer.ask("4", "4").reason == "correct"


def test_a_process_that_is_killed_leaves_its_question_undecided(comparer: Comparer) -> None:
    assert comparer.ask("4", "4").reason == "correct"
    assert comparer._process is not None
    os.kill(comparer._process.pid, signal.SIGKILL)
    comparer._process.wait()
    # the death is noticed before the next question, which a new process answers
    assert comparer.ask("4", "4").reason == "correct"


def test_wall_clock_without_cpu_says_nothing_about_the_answer(
    comparer: Comparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparer.ask("4", "4").reason == "correct"
    assert comparer._process is not None
    monkeypatch.setattr(comparing, "_WALL_FACTOR", 1.0)
    os.kill(comparer._process.pid, signal.SIGSTOP)
    found = comparer.ask("4", "5")
    assert (found.reason, found.own_fault) == ("timeout", False)
    monkeypatch.undo()
    assert comparer.ask("4", "5").reason == "wrong"


def test_a_process_that_is_lost_under_way_leaves_its_question_undecided(
    comparer: Comparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparer.ask("4", "4").reason == "correct"
    process = comparer._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    line = comparer._line

    def lost(asked: object, seconds: float) -> object:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return line(process, seconds)

    monkeypatch.setattr(comparer, "_line", lost)
    found = comparer.ask("4", "4")
    assert (found.reason, found.own_fault) == ("crashed", False)
    assert "lost" in found.said


def test_the_fingerprint_follows_versions_and_settings() -> None:
    with MathVerifier() as one, MathVerifier(several="last") as other:
        assert one.fingerprint.startswith("math-verify/")
        assert one.fingerprint != other.fingerprint


def test_close_leaves_no_process_and_a_closed_verifier_raises() -> None:
    verifier = MathVerifier(workers=2)
    pids = [c._process.pid for c in verifier._comparers if c._process is not None]
    verifier.close()
    verifier.close()
    assert not [pid for pid in pids if psutil.pid_exists(pid)]
    with pytest.raises(InfrastructureError, match="closed"):
        verifier.verify_batch([VerifyItem({"answer": 4}, "4")])


@pytest.mark.parametrize("settings", [{"where": "there"}, {"several": "all"}, {"unevaluated": "x"}, {"workers": 0}])
def test_settings_that_make_no_sense(settings: dict) -> None:
    with pytest.raises(UserError, match=next(iter(settings))):
        MathVerifier(**settings)


def test_an_absent_package_comes_with_its_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comparing.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=r"rlpost\[math\]"):
        MathVerifier()


@pytest.mark.parametrize("mixed", ["reversed", "sorted"])
def test_verdicts_in_another_order_fail_the_gate(math: MathVerifier, mixed: str) -> None:
    class Mixed:
        fingerprint = "mixed/1"

        def verify_batch(self, items: list[VerifyItem]) -> list[Verdict]:
            found = math.verify_batch(items)
            return found[::-1] if mixed == "reversed" else sorted(found, key=lambda verdict: verdict.outcome)

    report = examine(Mixed(), "answer", AnswerSettings(), strict=True)
    assert {row.kind for row in report.failures} == {"gold", "cheat"}
