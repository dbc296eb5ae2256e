"""The gate's questions, their order and its counts; tests/contract runs the cases themselves through real Lean."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlpost.errors import SelfCheckError
from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.lean.conformance.gate import Case, as_item, cases, examine
from rlpost_verifiers.lean.extract import Extract, ExtractSettings, Form, NoProofError, extract_proof
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.verifier import LeanVerifier

CASES = (Case(ProofTask("True", "trivial"), "gold"), Case(ProofTask("False", "cheat"), "cheat", "hopes"))
VERDICTS = {
    "accepted": Verdict("accepted", 1.0, "proved"),
    "rejected": Verdict("rejected", 0.0, "failed"),
    "undecided": Verdict("undecided", None, "timeout"),
}
RAW = ExtractSettings("raw")


class Scripted:
    """A verifier with scripted answers for each text, used up from the left, that records what it was asked."""

    fingerprint = "scripted/1"

    def __init__(self, **answers: str) -> None:
        self.answers = {text: said.split() for text, said in answers.items()}
        self.batches = list[list[str]]()

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        self.batches.append(sorted(item.text for item in items))
        return [VERDICTS[self.answers[item.text].pop(0)] for item in items]


@pytest.mark.parametrize(
    ("trivial", "cheat", "batches", "failures"),
    [
        ("accepted accepted", "rejected rejected", 1, []),
        # a cheat that is left undecided is not accepted
        ("accepted accepted", "undecided rejected", 1, []),
        # one of two is enough to fail
        ("accepted accepted", "rejected accepted", 1, ["cheat"]),
        ("accepted rejected", "rejected rejected", 1, ["trivial"]),
        ("undecided accepted accepted accepted", "rejected rejected", 2, []),
        ("undecided undecided undecided accepted", "rejected rejected", 2, ["trivial"]),
        ("undecided undecided rejected rejected", "rejected rejected", 2, ["trivial"]),
    ],
)
def test_every_case_is_asked_twice_and_gold_that_is_undecided_once_more(
    trivial: str, cheat: str, batches: int, failures: list[str]
) -> None:
    verifier = Scripted(trivial=trivial, cheat=cheat)
    report = examine(verifier, {"proof"}, RAW, CASES)
    asked = [["cheat", "cheat", "trivial", "trivial"], ["trivial", "trivial"]]
    assert verifier.batches == asked[:batches]
    assert [row.case.task.proof for row in report.failures] == failures
    assert len(report.rows) == 2


class Mapped:
    """A verifier that is right about every case, and gives its verdicts in an order of its own."""

    fingerprint = "mapped/1"

    def __init__(self, mixed: Callable[[list[Verdict]], list[Verdict]]):
        self.mixed = mixed
        self.gold = {(case.task.statement, case.task.proof) for case in cases() if case.kind == "gold"}

    def verify_batch(self, items: Sequence[VerifyItem]) -> list[Verdict]:
        right = [(item.columns["statement"], item.text) in self.gold for item in items]
        return self.mixed([VERDICTS["accepted" if one else "rejected"] for one in right])


MODES: set[Mode] = {"proof", "declarations", "file"}


def test_a_verifier_that_is_right_and_in_order_passes() -> None:
    report = examine(Mapped(lambda found: found), MODES, RAW)
    assert (report.failures, report.skipped) == ((), ())
    assert "accepted 16 of 16 gold proofs and 0 of" in report.summary()


@pytest.mark.parametrize(
    "mixed",
    [
        lambda found: found[::-1],
        lambda found: random.Random(1).sample(found, len(found)),
        lambda found: found[1:] + found[:1],
        # what finishes first comes first
        lambda found: sorted(found, key=lambda verdict: verdict.outcome),
        lambda found: sorted(found, key=lambda verdict: verdict.outcome, reverse=True),
    ],
    ids=["reversed", "shuffled", "one off", "accepted first", "rejected first"],
)
def test_verdicts_in_another_order_fail_the_gate(mixed: Any) -> None:
    report = examine(Mapped(mixed), MODES, RAW)
    kinds = {row.case.kind for row in report.failures}
    assert kinds == {"gold", "cheat"}


def test_equal_questions_that_are_answered_once_fail_the_gate() -> None:
    with pytest.raises(SelfCheckError, match=r"answered \d+ verdicts for \d+ items; one each is needed"):
        examine(Mapped(lambda found: found[: len(found) // 2]), MODES, RAW)


STRICT: dict[str, Any] = {"trailing": "reject", "fences": "only", "restated": "reject"}
LENIENT: dict[str, Any] = {"trailing": "allow", "fences": "last", "restated": "allow"}
EXTRACTS: tuple[Extract, ...] = ("raw", "fence", "continued")
FORMS: tuple[Form, ...] = ("any", "term", "tactic")
SETTINGS = [
    ExtractSettings(extract=extract, form=form, **rest)
    for extract in EXTRACTS
    for rest in (STRICT, LENIENT)
    for form in FORMS
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gold_is_written_in_the_form_that_the_settings_read(settings: ExtractSettings) -> None:
    for case in cases():
        item = as_item(case.task, settings)
        if case.kind == "cheat":
            continue
        found = extract_proof(item.text, case.task, settings)
        if settings.form == "tactic" and case.task.mode == "proof" and not case.task.proof.startswith("by"):
            assert found == f"by\n  exact {case.task.proof}"
        else:
            assert found == case.task.proof


def test_a_cheat_reaches_the_backend_as_it_is_where_answers_are_proofs() -> None:
    kept = 0
    for case in cases():
        try:
            kept += extract_proof(as_item(case.task, RAW).text, case.task, RAW) == case.task.proof
        except NoProofError:
            continue
    assert kept >= len(cases()) - 2


class FakeLean:
    """A backend that is right about every case, or answers as if it had sorted its questions."""

    fingerprint = "fake/1"
    modes = frozenset({"proof"})

    def __init__(self, mixed: bool = False):
        self.mixed, self.asked = mixed, 0
        self.gold = {case.task.proof for case in cases() if case.kind == "gold"}

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.asked += len(tasks)
        found = [VERDICTS["accepted" if task.proof in self.gold else "rejected"] for task in tasks]
        return found[::-1] if self.mixed else found

    def close(self) -> None: ...


def test_the_verifier_passes_the_gate_through_its_own_batches_without_earlier_verdicts(tmp_path: Path) -> None:
    for _ in range(2):  # the second one would find the verdicts of the first in the folder
        backend: Any = FakeLean()
        with LeanVerifier(backend, extract="raw", cache_dir=str(tmp_path)) as verifier:
            report = verifier.conformance()
            assert report.failures == ()
            assert len(report.rows) == backend.asked > 30
            assert {case.task.mode for case in report.skipped} == {"file", "declarations"}


def test_a_backend_that_mixes_its_verdicts_up_fails_the_gate() -> None:
    backend: Any = FakeLean(mixed=True)
    with LeanVerifier(backend) as verifier:
        report = verifier.conformance()
    assert {row.case.kind for row in report.failures} == {"gold", "cheat"}
