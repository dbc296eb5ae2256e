"""Extraction, deduplication and caching of `LeanVerifier`, on a stand-in for Lean that records what it was asked."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from rlpost.errors import DataError, UserError
from rlpost.types import Prompt, Verdict, VerifyItem
from rlpost_verifiers.cache import VerdictCache
from rlpost_verifiers.lean import verifier as module
from rlpost_verifiers.lean.backend import undecided
from rlpost_verifiers.lean.task import Mode, ProofTask
from rlpost_verifiers.lean.verifier import LeanCommand, LeanVerifier


class FakeLean:
    """Accepts the proof ``good``, cannot decide ``lost``, rejects the rest."""

    fingerprint = "fake/1"

    modes: frozenset[Mode] = frozenset({"proof"})

    def __init__(self, **settings: object) -> None:
        self.settings = settings
        self.unavailable = 0
        self.asked: list[ProofTask] = []
        self.closed = False

    def check(self, tasks: Sequence[ProofTask]) -> list[Verdict]:
        self.asked.extend(tasks)
        if self.unavailable:
            self.unavailable -= 1
            return [undecided("unavailable", "away", self.fingerprint) for _ in tasks]
        return [self._verdict(task.proof) for task in tasks]

    def _verdict(self, proof: str) -> Verdict:
        if proof == "lost":
            return Verdict("undecided", None, "crashed", backend=self.fingerprint)
        accepted = proof == "good"
        outcome, reason = ("accepted", "proved") if accepted else ("rejected", "failed")
        return Verdict(outcome, float(accepted), reason, seconds=0.5, cpu_seconds=0.4, backend=self.fingerprint)

    def read_statements(self, tasks: Sequence[ProofTask]) -> list[str | None]:
        return ["unknown identifier" if "?" in task.statement else None for task in tasks]

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def fake() -> FakeLean:
    return FakeLean()


def items(*texts: str) -> list[VerifyItem]:
    return [VerifyItem({"id": "t1", "statement": "True", "difficulty": 3}, text) for text in texts]


def test_settings_reach_the_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setattr(module, "resolve", lambda kind, target: lambda **settings: made.append(settings) or FakeLean())
    LeanVerifier(timeout_s=3.0, workers=2, memory_mb=8192)
    LeanCommand(project="here")
    assert made == [
        {"cpu_seconds": 3.0, "workers": 2, "memory_mb": 8192},
        {"cpu_seconds": 10.0, "workers": 1, "project": "here"},
    ]


def test_unknown_backend_is_named() -> None:
    with pytest.raises(UserError, match="backend is 'isabelle'; use 'embedded', 'cli', 'repl', 'kimina'"):
        LeanVerifier("isabelle")


def test_verdicts_keep_the_order_and_equal_items_are_checked_once(fake: FakeLean) -> None:
    verdicts = LeanVerifier(fake).verify_batch(items("bad", "good", "bad", "good", "good"))
    assert [verdict.score for verdict in verdicts] == [0.0, 1.0, 0.0, 1.0, 1.0]
    assert [verdict.cached for verdict in verdicts] == [False, False, True, True, True]
    assert [task.proof for task in fake.asked] == ["bad", "good"]


def test_decided_verdicts_are_remembered_and_cost_nothing_again(fake: FakeLean) -> None:
    verifier = LeanVerifier(fake)
    first = verifier.verify_batch(items("good"))[0]
    again = verifier.verify_batch(items("good"))[0]
    assert (first.cached, first.seconds) == (False, 0.5)
    assert (again.cached, again.seconds, again.cpu_seconds) == (True, 0.0, 0.0)
    assert len(fake.asked) == 1


def test_undecided_is_asked_again(fake: FakeLean) -> None:
    verifier = LeanVerifier(fake, retries=0)
    verdicts = [*verifier.verify_batch(items("lost", "lost")), *verifier.verify_batch(items("lost"))]
    assert [(verdict.score, verdict.cached) for verdict in verdicts] == [(None, False)] * 3
    # Each time the question, the question alone, and a gold proof, which this Lean does not accept.
    assert [task.proof for task in fake.asked] == ["lost", "lost", "fun _ h => h"] * 2


def test_a_backend_that_was_unavailable_is_asked_again_about_open_items(fake: FakeLean) -> None:
    fake.unavailable = 1
    verdicts = LeanVerifier(fake).verify_batch(items("good", "bad"))
    assert [verdict.score for verdict in verdicts] == [1.0, 0.0]
    assert len(fake.asked) == 4


def test_retries_end_and_closing_ends_their_pause(fake: FakeLean) -> None:
    fake.unavailable = 9
    verifier = LeanVerifier(fake, retries=2)
    assert verifier.verify_batch(items("good"))[0].reason == "unavailable"
    assert len(fake.asked) == 3
    verifier.close()
    assert verifier.verify_batch(items("good"))[0].reason == "unavailable"
    assert len(fake.asked) == 4


def test_verdicts_outlive_the_verifier_in_a_file(fake: FakeLean, tmp_path: Path) -> None:
    for expected in (False, True):
        with LeanVerifier(fake, cache_dir=str(tmp_path)) as verifier:
            verdicts = verifier.verify_batch(items("good", "bad", "lost"))
        assert [verdict.score for verdict in verdicts] == [1.0, 0.0, None]
        assert [verdict.cached for verdict in verdicts] == [expected, expected, False]


def test_async_calls_answer_like_the_others(fake: FakeLean) -> None:
    verifier = LeanVerifier(fake)

    async def both() -> list[Verdict]:
        first, second = await asyncio.gather(
            verifier.averify_batch(items("good")), verifier.averify_tasks([ProofTask("True", "bad")])
        )
        return [*first, *second]

    assert [verdict.score for verdict in asyncio.run(both())] == [1.0, 0.0]


def test_unreadable_statements_are_refused_before_training(fake: FakeLean) -> None:
    prompts = [Prompt("t1", "prove", columns={"statement": "True"}), Prompt("t2", "prove", columns={"statement": "?"})]
    LeanVerifier(fake).check_prompts(prompts[:1])
    with pytest.raises(DataError, match="1 of 2 statements cannot be read; first, prompt 't2': unknown identifier"):
        LeanVerifier(fake).check_prompts(prompts)


def test_label_does_not_matter_but_statement_header_and_binders_do(fake: FakeLean) -> None:
    verifier = LeanVerifier(fake)
    tasks = [
        *(ProofTask("True", "good"), ProofTask("True", "good", name="other"), ProofTask("True ∧ True", "good")),
        *(ProofTask("True", "good", header="open Nat"), ProofTask("True", "good", binders="(p : Prop)")),
    ]
    verdicts = verifier.verify_tasks(tasks)
    assert [verdict.cached for verdict in verdicts] == [False, True, False, False, False]


def test_columns_become_the_task(fake: FakeLean) -> None:
    columns = {"statement": "p → p", "binders": "(p : Prop)", "header": "open Nat", "name": "t9", "proof": "ignored"}
    LeanVerifier(fake).verify_batch([VerifyItem(columns, "\ngood\n")])
    assert fake.asked == [ProofTask("p → p", "good", "t9", "open Nat", "(p : Prop)")]


def test_answer_without_a_block_is_filtered(fake: FakeLean) -> None:
    texts = ["```lean\ngood\n```", "good", "```lean\ngood\n```\nso there"]
    verdicts = LeanVerifier(fake, extract="fence").verify_batch(items(*texts))
    assert [verdict.reason for verdict in verdicts] == ["proved", "filtered", "filtered"]
    assert verdicts[1].evidence["messages"] == ["the answer holds no closed ```lean block"]
    assert LeanVerifier(fake, extract="fence", trailing="allow").verify_batch(items(texts[2]))[0].score == 1.0


def test_faults_of_the_data_are_errors_naming_the_prompt(fake: FakeLean) -> None:
    with pytest.raises(DataError, match="prompt 't1': no 'statement'"):
        LeanVerifier(fake).verify_batch([VerifyItem({"id": "t1"}, "good")])


def test_the_same_text_as_proof_and_as_file_are_two_questions(fake: FakeLean) -> None:
    LeanVerifier(fake).verify_tasks([ProofTask("True", "good"), ProofTask("True", "good", mode="file")])
    assert [task.mode for task in fake.asked] == ["proof", "file"]


def test_surrogate_halves_are_another_question_than_the_character_they_encode(fake: FakeLean) -> None:
    verdicts = LeanVerifier(fake).verify_tasks([ProofTask("True", "\ud835\udce4"), ProofTask("True", "\U0001d4e4")])
    assert [verdict.cached for verdict in verdicts] == [False, False]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extract": "json"}, "extract is 'json'"),
        ({"trailing": "keep"}, "trailing is"),
        ({"cache_size": -1}, "cache_size is -1"),
        ({"retries": -1}, "retries is -1"),
    ],
)
def test_senseless_settings_are_refused(fake: FakeLean, settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        LeanVerifier(fake, **settings)  # pyright: ignore[reportArgumentType]


def test_context_manager_closes(fake: FakeLean) -> None:
    with LeanVerifier(fake):
        assert not fake.closed
    assert fake.closed


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


def test_rows_that_are_no_decided_verdict_count_as_absent(tmp_path: Path) -> None:
    cache = VerdictCache(0, tmp_path)
    cache.put("a", Verdict("accepted", 1.0, "proved", evidence={"axioms": []}))
    assert cache.get("a") == Verdict("accepted", 1.0, "proved", evidence={"axioms": []}, cached=True, cpu_seconds=0.0)
    rows = sqlite3.connect(tmp_path / "verdicts.sqlite")
    for row in ("", "{}", "[1]", '{"outcome": "accepted", "score": 0.0}', "null"):
        rows.execute("UPDATE verdicts SET verdict = ?", (row,))
        rows.commit()
        assert cache.get("a") is None
    rows.close()
    cache.close()


def test_a_file_that_is_no_cache_is_refused_and_one_that_breaks_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "verdicts.sqlite").write_text("no database " * 100)
    with pytest.raises(UserError, match=r"cache_dir .* cannot be used \(file is not a database\)"):
        VerdictCache(1, tmp_path)
    cache = VerdictCache(1, tmp_path / "new")
    assert cache._file is not None
    assert cache._file._rows is not None
    cache._file._rows.execute("DROP TABLE verdicts")
    with pytest.warns(RuntimeWarning, match="no longer kept"):
        cache.put("a", Verdict("rejected", 0.0, "failed"))
    assert cache.get("a") is not None
