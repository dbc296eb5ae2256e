"""The math verifier on the real math-verify: the gate, lost and stuck processes, order, gold answers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from rlpost.errors import DataError, InfrastructureError, MissingPackageError, UserError
from rlpost.protocols import SelfTestingVerifier, Verifier
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.math import comparer as comparing
from rlpost_verifiers.math.answers import AnswerSettings
from rlpost_verifiers.math.comparer import Comparer, Question
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
    assert "accepted 280 of 280 gold answers and 0 of 370 cheats" in report.summary()


@pytest.mark.parametrize(
    "settings",
    [{"where": "equals", "spaced_digits": True}, {"where": "text"}, {"where": "boxed", "several": "last"},
     {"unevaluated": "allow"}],
)  # fmt: skip
def test_the_gate_holds_in_other_settings(settings: dict) -> None:
    with MathVerifier(timeout_s=10, gold_key="target", **settings) as verifier:
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
    with pytest.raises(DataError, match=r"2 of 3 gold answers cannot be used; first, prompt 'b': gold answer .* read"):
        math.check_prompts([good, *bad])
    with pytest.raises(DataError, match=r"prompt 'd': column 'answer' holds None, .*gold_key \(columns are solution\)"):
        math.check_prompts([Prompt("d", text="x", columns={"solution": "4"})])
    # a row of another type is not hidden by those before it
    with pytest.raises(
        DataError, match=r"1 of 2 .*first, prompt 'e': column 'answer' holds nan, .*not a finite number"
    ):
        math.check_prompts([good, Prompt("e", text="x", columns={"answer": float("nan")})])
    # without a check beforehand, the failure is undecided and not the answer's fault
    [verdict] = math.verify_batch([VerifyItem({"answer": r"\frac{"}, "4")])
    assert (verdict.outcome, verdict.reason) == ("undecided", "bad_gold")


def test_an_answer_that_uses_up_its_cpu_is_rejected_and_the_next_one_checked(comparer: Comparer) -> None:
    # one call of C that no signal interrupts
    found = comparer.ask(Question("x^2", ("9^{9^{9^{9}}}",)))
    assert (found.reason, found.own_fault) == ("timeout", True)
    assert found.cpu_seconds is not None
    assert found.cpu_seconds >= 0.9
    assert comparer.ask(Question("4", ("4",))).reason == "correct"


def test_a_process_that_is_killed_leaves_its_question_undecided(comparer: Comparer) -> None:
    assert comparer.ask(Question("4", ("4",))).reason == "correct"
    assert comparer._process is not None
    os.kill(comparer._process.pid, signal.SIGKILL)
    comparer._process.wait()
    # the death is noticed before the next question, which a new process answers
    assert comparer.ask(Question("4", ("4",))).reason == "correct"


def test_wall_clock_without_cpu_says_nothing_about_the_answer(
    comparer: Comparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparer.ask(Question("4", ("4",))).reason == "correct"
    assert comparer._process is not None
    monkeypatch.setattr(comparing, "_WALL_FACTOR", 1.0)
    os.kill(comparer._process.pid, signal.SIGSTOP)
    found = comparer.ask(Question("4", ("5",)))
    assert (found.reason, found.own_fault) == ("timeout", False)
    monkeypatch.undo()
    assert comparer.ask(Question("4", ("5",))).reason == "wrong"


def test_a_process_that_is_lost_under_way_leaves_its_question_undecided(
    comparer: Comparer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert comparer.ask(Question("4", ("4",))).reason == "correct"
    process = comparer._process
    assert process is not None
    os.kill(process.pid, signal.SIGSTOP)
    line = comparer._line

    def lost(asked: object, seconds: float) -> object:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        return line(process, seconds)

    monkeypatch.setattr(comparer, "_line", lost)
    found = comparer.ask(Question("4", ("4",)))
    assert (found.reason, found.own_fault) == ("crashed", False)
    assert "lost" in found.said


def test_an_answer_that_brings_its_process_down_twice_is_rejected(monkeypatch: pytest.MonkeyPatch) -> None:
    with MathVerifier(timeout_s=10) as verifier:
        [process] = verifier._comparers
        ask, line = process.ask, process._line
        poison = {"now": False}

        def asked(question: Question) -> object:
            poison["now"] = "poison" in question.answers
            return ask(question)

        def fatal(child: subprocess.Popen[bytes], seconds: float) -> object:
            if poison["now"] and process._ready:
                child.kill()
                child.wait()
                return None  # not what it may have answered before
            return line(child, seconds)

        monkeypatch.setattr(process, "ask", asked)
        monkeypatch.setattr(process, "_line", fatal)
        verdicts = verifier.verify_batch([VerifyItem({"answer": 4}, rf"\boxed{{{text}}}") for text in ("poison", "4")])
    assert [(verdict.outcome, verdict.reason) for verdict in verdicts] == [
        ("rejected", "crashed"),
        ("accepted", "correct"),
    ]


def test_boxes_that_agree_are_one_answer_and_a_list_may_be_in_several(math: MathVerifier) -> None:
    rows = [
        ("1/2", r"\boxed{0.5}, that is \boxed{\frac12}", "correct"),
        ("5", r"\boxed{4} or \boxed{5}", "several_answers"),
        ("5", r"\boxed{5} or \boxed{4}", "several_answers"),
        ("1, 2", r"$x = \boxed{1}$ or $x = \boxed{2}$", "correct"),
        ("1, 2, 3", r"$x = \boxed{1}$ or $x = \boxed{2}$", "several_answers"),
    ]
    verdicts = math.verify_batch([VerifyItem({"answer": gold}, text) for gold, text, _ in rows])
    assert [verdict.reason for verdict in verdicts] == [reason for *_, reason in rows]


@pytest.mark.parametrize(
    ("question", "outcome"),
    [
        ("What percentage of the eggs is brown?", "accepted"),
        ("By what percent did the price rise?", "accepted"),
        ("How many eggs are brown?", "rejected"),
        ("After a 20% discount, what is the price?", "rejected"),
        ([{"role": "user", "content": "Find the percent increase."}], "accepted"),
        (None, "rejected"),
    ],
)
def test_a_percentage_is_its_number_where_the_question_asks_for_one(
    math: MathVerifier, question: object, outcome: str
) -> None:
    [found] = math.verify_batch([VerifyItem({"question": question, "answer": "50"}, r"\boxed{50\%}")])
    assert found.outcome == outcome
    [found] = math.verify_batch([VerifyItem({"question": question, "answer": "0.5"}, r"\boxed{50\%}")])
    assert found.outcome == "accepted"


def test_unfinished_answers_are_allowed_where_the_settings_say_so() -> None:
    rows = [("84", r"12 \cdot 7", True), ("84", "12 * 8", False), ("8", "2^3", True), ("84", "x", False)]
    with MathVerifier(unevaluated="allow") as verifier:
        verdicts = verifier.verify_batch([VerifyItem({"answer": gold}, rf"\boxed{{{text}}}") for gold, text, _ in rows])
    assert [verdict.outcome == "accepted" for verdict in verdicts] == [right for *_, right in rows]


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
