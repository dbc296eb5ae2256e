"""Extraction, deduplication and caching of `LeanVerifier`, on a stand-in for Lean that says what it was asked."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from rlpost.errors import DataError, UserError
from rlpost.types import Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache
from rlpost_verifiers.lean import verifier as module
from rlpost_verifiers.lean.task import ProofTask
from rlpost_verifiers.lean.verifier import LeanVerifier


class FakeLean:
    """Accepts the proof ``good``, cannot decide ``lost``, rejects the rest."""

    fingerprint = "fake/1"

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.asked: list[ProofTask] = []
        self.closed = False

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.asked.extend(tasks)
        return [self._verdict(task.proof) for task in tasks]

    def _verdict(self, proof: str) -> Verdict:
        if proof == "lost":
            return Verdict("undecided", None, "crashed", backend=self.fingerprint)
        accepted = proof == "good"
        outcome, reason = ("accepted", "proved") if accepted else ("rejected", "failed")
        return Verdict(outcome, float(accepted), reason, seconds=0.5, cpu_seconds=0.4, backend=self.fingerprint)

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> list[FakeLean]:
    made: list[FakeLean] = []

    def make(**settings: object) -> FakeLean:
        made.append(FakeLean(**settings))
        return made[-1]

    monkeypatch.setattr(module, "EmbeddedLean", make)
    return made


def items(*texts: str) -> list[VerifyItem]:
    return [VerifyItem({"id": "t1", "statement": "True", "difficulty": 3}, text) for text in texts]


def test_settings_reach_lean(fake: list[FakeLean]) -> None:
    LeanVerifier(timeout_s=3.0, workers=2, memory_mb=8192)
    assert fake[0].settings == {"cpu_seconds": 3.0, "workers": 2, "memory_mb": 8192}


def test_verdicts_keep_the_order_and_equal_items_are_checked_once(fake: list[FakeLean]) -> None:
    verdicts = LeanVerifier().verify_batch(items("bad", "good", "bad", "good", "good"))
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0, 0.0, 1.0, 1.0]
    assert [verdict.cached for verdict in verdicts] == [False, False, True, True, True]
    assert [task.proof for task in fake[0].asked] == ["bad", "good"]


def test_decided_verdicts_are_remembered_and_cost_nothing_again(fake: list[FakeLean]) -> None:
    verifier = LeanVerifier()
    first = verifier.verify_batch(items("good"))[0]
    again = verifier.verify_batch(items("good"))[0]
    assert (first.cached, first.seconds) == (False, 0.5)
    assert (again.cached, again.seconds, again.cpu_seconds) == (True, 0.0, 0.0)
    assert len(fake[0].asked) == 1


def test_undecided_is_asked_again(fake: list[FakeLean]) -> None:
    verifier = LeanVerifier()
    verdicts = [*verifier.verify_batch(items("lost", "lost")), *verifier.verify_batch(items("lost"))]
    assert [(verdict.score, verdict.cached) for verdict in verdicts] == [(None, False)] * 3
    assert len(fake[0].asked) == 2


def test_label_does_not_matter_but_statement_header_and_binders_do(fake: list[FakeLean]) -> None:
    verifier = LeanVerifier()
    tasks = [
        *(ProofTask("True", "good"), ProofTask("True", "good", name="other"), ProofTask("True ∧ True", "good")),
        *(ProofTask("True", "good", header="open Nat"), ProofTask("True", "good", binders="(p : Prop)")),
    ]
    verdicts = verifier.verify_tasks(tasks)
    assert [verdict.cached for verdict in verdicts] == [False, True, False, False, False]


def test_columns_become_the_task(fake: list[FakeLean]) -> None:
    columns = {"statement": "p → p", "binders": "(p : Prop)", "header": "open Nat", "name": "t9", "proof": "ignored"}
    LeanVerifier().verify_batch([VerifyItem(columns, "\ngood\n")])
    assert fake[0].asked == [ProofTask("p → p", "good", "t9", "open Nat", "(p : Prop)")]


def test_answer_without_a_block_is_filtered(fake: list[FakeLean]) -> None:
    texts = ["```lean\ngood\n```", "good", "```lean\ngood\n```\nso there"]
    verdicts = LeanVerifier(extract="fence").verify_batch(items(*texts))
    assert [verdict.reason for verdict in verdicts] == ["proved", "filtered", "filtered"]
    assert verdicts[1].evidence["messages"] == ["the answer holds no closed ```lean block"]
    assert LeanVerifier(extract="fence", trailing="allow").verify_batch(items(texts[2]))[0].score == 1.0


def test_faults_of_the_data_are_errors_naming_the_prompt(fake: list[FakeLean]) -> None:
    with pytest.raises(DataError, match="prompt 't1': no 'statement'"):
        LeanVerifier().verify_batch([VerifyItem({"id": "t1"}, "good")])


def test_file_mode_is_refused(fake: list[FakeLean]) -> None:
    with pytest.raises(UserError, match="mode 'file' is not supported by the embedded backend"):
        LeanVerifier().verify_tasks([ProofTask("True", "theorem X : True := trivial", mode="file")])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extract": "json"}, "extract is 'json'"),
        ({"trailing": "keep"}, "trailing is"),
        ({"cache_size": -1}, "cache_size is -1"),
    ],
)
def test_senseless_settings_are_refused(fake: list[FakeLean], settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeanVerifier(**settings)  # pyright: ignore[reportArgumentType]


def test_context_manager_closes(fake: list[FakeLean]) -> None:
    with LeanVerifier():
        assert not fake[0].closed
    assert fake[0].closed


def test_cache_forgets_the_least_recently_used() -> None:
    cache = VerdictCache(2)
    verdict = Verdict("rejected", 0.0, "failed")
    cache.put("a", verdict)
    cache.put("b", verdict)
    assert cache.get("a") is not None
    cache.put("c", verdict)
    assert (cache.get("a") is not None, cache.get("b"), len(cache)) == (True, None, 2)


def test_cache_keeps_nothing_undecided() -> None:
    cache = VerdictCache(2)
    cache.put("a", Verdict("undecided", None, "timeout"))
    assert cache.get("a") is None
