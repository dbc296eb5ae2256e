"""Rejected answers that are asked again, in the loop: order, share, resuming, refilling, checks and metrics.

Fakes stand for engines and learner. Not covered: tokenizers (unit/data/test_repair_prompts.py), Ray (tests/ray).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from rlpost.config.load import from_dict
from rlpost.data.repair import FailedAnswer, Pool
from rlpost.data.repair_prompts import RepairPrompts
from rlpost.data.sampler import rows
from rlpost.errors import RolloutsLostError, SelfCheckError
from rlpost.loop.checkpoint import RunState, read_pool, read_state, write_pool, write_state
from rlpost.loop.session import Session
from rlpost.loop.sync import ScoredBatch, collect, learn
from rlpost.observability.metrics import check_names
from rlpost.plugins.algorithm import build_advantage
from rlpost.scoring.score import Scorer
from rlpost.selfcheck.memory import MemoryWatch
from rlpost.selfcheck.samples import Repeats
from rlpost.trajectory import Ticket
from rlpost.types import Prompt
from support.fakes import FakeEngine, FakeLearner, FakeRollouts, FakeScoring, FakeSupervision, FakeTranscripts, same
from support.trajectories import tokenized

NAMES = "abcdefghijklmnop"
VERIFIER = """
from rlpost.types import Verdict

class Even:
    '''Accepts texts of even length that do not begin with a question mark.'''
    fingerprint = "even"

    def verify_batch(self, items):
        return [self._verdict(item.text) for item in items]

    def _verdict(self, text):
        if text.startswith("?"):
            return Verdict("undecided", None, "unavailable", evidence={"messages": ["down"]})
        if len(text) % 2:
            return Verdict("rejected", 0.0, "odd", evidence={"messages": [f"error: {len(text)} is odd", "second"]})
        return Verdict("accepted", 1.0, "even")

    def close(self): ...
"""


class Characters:
    """A codec with one token per character."""

    special: dict[int, str] = {}  # noqa: RUF012 - as the real one

    def encode(self, prompt: Prompt, quotation: Any = None) -> tuple[int, ...]:
        return tuple(map(ord, prompt.text or ""))

    class tokenizer:
        unk_token_id, eos_token_id = ord(":"), None


def word(context: str, source: random.Random) -> str:
    """One to five letters, by chance; a repair is answered with its prompt's name."""
    return context[0] * source.randint(1, 5)


def started(folder: Path, answer: Any = word, limit: int = 1000, repair: Any = None, **sections: Any) -> Session:
    (folder / "even.py").write_text(VERIFIER)
    config = from_dict(
        {
            "run": {"steps": 8},
            "model": {"path": "m", "dtype": "float32"},
            "data": {"repair": {"template": "{prompt}:{proof}:{messages}", "share": 0.5, **(repair or {})}},
            "rollout": {"group_size": 4, "prompts_per_step": 4, "max_tokens": 8},
            "scoring": {"verifier": f"{folder}/even.py:Even", "max_undecided_share": 1.0},
            "selfcheck": {"parity_every": 0, "canary": False, "invariance": False},
            **sections,
        }
    )
    train = [tokenized(name, [ord(name)], text=name) for name in NAMES]
    section = config.data.repair
    assert section is not None
    return Session(
        config=config,
        rollouts=FakeRollouts(FakeEngine(answer)),
        scoring=FakeScoring(Scorer(config.scoring)),
        learner=FakeLearner(),
        train=train,
        held_out=[],
        advantages=build_advantage(config),
        supervision=FakeSupervision(),
        watch=MemoryWatch(config.selfcheck.memory_window),
        fetch=same,
        transcripts=FakeTranscripts(),
        repairs=RepairPrompts(section, Characters(), train, limit),  # type: ignore[arg-type]
    )


def walk(session: Session, steps: Sequence[int], state: RunState | None = None, pool: Pool = ()) -> list[ScoredBatch]:
    """Steps one after another, as the run makes them."""
    at, found = state or RunState(0), []
    for number in steps:
        scored = collect(session, number, at.tickets, at.next_row, pool)
        learn(session, scored)
        at = RunState(number + 1, at.tickets + len(scored.groups), rows=at.next_row + scored.rows)
        pool = scored.pool
        found.append(scored)
    return found


def prompts(batches: Sequence[ScoredBatch]) -> list[list[str]]:
    return [[group.prompt.id for group in batch.groups] for batch in batches]


def test_every_row_of_the_data_set_is_asked_in_its_order_and_tickets_count_on(tmp_path: Path) -> None:
    session = started(tmp_path)
    found = walk(session, range(8))
    fresh = [group.prompt.id for batch in found for group in batch.groups if group.prompt.repairs is None]
    expected = rows(0, len(fresh), len(NAMES), session.config.run.seed)
    assert fresh == [NAMES[place] for place in expected]
    assert [group.ticket.number for batch in found for group in batch.groups if group.ticket] == list(range(32))
    counts = [sum(group.prompt.repairs is not None for group in batch.groups) for batch in found]
    assert counts[0] == 0
    assert max(counts) == 2
    assert sum(counts) > 8
    # first the data set's prompts, then those of the pool
    for batch in found:
        kinds = [group.prompt.repairs is not None for group in batch.groups]
        assert kinds == sorted(kinds)


def test_a_repair_asks_a_rejected_answer_of_an_earlier_step_with_its_message(tmp_path: Path) -> None:
    session = started(tmp_path, repair={"max_messages": 1})
    first, second = walk(session, range(2))
    assert first.pool
    assert all(len(one.text) % 2 for one in first.pool)
    by_id = {one.id: one for one in first.pool}
    again = [group for group in second.groups if group.prompt.repairs is not None]
    assert again
    for group in again:
        failed = by_id[group.prompt.id]
        assert group.prompt.repairs == failed.prompt_id == failed.text[0]
        assert group.prompt.text == f"{failed.prompt_id}:{failed.text}:error: {len(failed.text)} is odd"
        assert failed.id not in {one.id for one in second.pool}  # asked at most once
        answered = first.groups[failed.ticket]
        assert answered.tokens[failed.member].text == failed.text
    # what was rejected again answers the data set's prompt, whatever it was asked with
    assert {one.prompt_id for one in second.pool} <= set(NAMES)


def test_undecided_and_cut_answers_are_not_asked_again_and_equal_ones_once(tmp_path: Path) -> None:
    def answer(context: str, source: random.Random) -> str:
        return {0: "?", 1: "aaaaaaaaaaaa", 2: "aaa", 3: "aaa"}[source.randint(0, 3)]

    session = started(tmp_path, answer, repair={"per_prompt": 4})
    [batch] = walk(session, range(1))
    assert {one.text for one in batch.pool} == {"aaa"}
    assert len({one.prompt_id for one in batch.pool}) == len(batch.pool)


def test_an_answer_that_is_the_rejected_one_again_is_counted_and_not_asked_a_second_time(tmp_path: Path) -> None:
    def answer(context: str, source: random.Random) -> str:
        return context.split(":")[1] if ":" in context else context * 3

    first, second = walk(started(tmp_path, answer), range(2))
    assert len(first.pool) == 4
    assert second.checked["repair/identical"] == 1.0
    fresh = {group.prompt.id for group in second.groups if group.prompt.repairs is None}
    assert {one.prompt_id for one in second.pool if one.step == 1} == fresh


@pytest.mark.parametrize(("unsolved", "expected"), [(False, 1), (True, 0)])
def test_groups_with_an_accepted_answer_may_be_left_out(tmp_path: Path, unsolved: bool, expected: int) -> None:
    def answer(context: str, source: random.Random) -> str:
        return "a" * source.choice((2, 3))

    session = started(tmp_path, answer, repair={"unsolved_only": unsolved})
    [batch] = walk(session, range(1))
    mixed = [g for g in batch.groups if {v.outcome for v in g.verdicts if v} == {"accepted", "rejected"}]
    assert mixed
    assert sum(one.prompt_id == mixed[0].prompt.id for one in batch.pool) == expected


@pytest.mark.parametrize("filter_batches", [1, 3])
def test_a_run_that_goes_on_from_a_checkpoint_is_the_uninterrupted_one(tmp_path: Path, filter_batches: int) -> None:
    algorithm = {"filter": "binary", "filter_batches": filter_batches} if filter_batches > 1 else {}
    whole = walk(started(tmp_path, algorithm=algorithm), range(6))
    begun = walk(started(tmp_path, algorithm=algorithm), range(3))
    state = RunState(3, sum(len(batch.groups) for batch in begun), rows=sum(batch.rows for batch in begun))
    write_state(tmp_path, state)
    write_pool(tmp_path, begun[-1].pool)
    assert read_state(tmp_path, 4) == state
    assert read_pool(tmp_path) == begun[-1].pool != ()
    resumed = walk(started(tmp_path, algorithm=algorithm), range(3, 6), read_state(tmp_path, 4), read_pool(tmp_path))
    assert prompts([*begun, *resumed]) == prompts(whole)
    for one, other in zip(resumed, whole[3:], strict=True):
        assert [(g.ticket, g.tokens, g.rewards) for g in one.groups] == [
            (g.ticket, g.tokens, g.rewards) for g in other.groups
        ]
        assert one.pool == other.pool
        assert one.checked == other.checked
    if filter_batches > 1:
        assert any(batch.rows > 4 for batch in whole)  # some step did ask for more
    # and the pool matters: without it other prompts are asked
    assert prompts(walk(started(tmp_path, algorithm=algorithm), range(3, 6), state)) != prompts(whole[3:])


def test_a_checkpoint_without_a_pool_goes_on(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"step": 2, "tickets": 8, "best": null, "best_step": null, "format": 2}')
    state = read_state(tmp_path, 4)
    assert (state.next_row, read_pool(tmp_path)) == (8, ())
    found = walk(started(tmp_path), range(2, 4), state, read_pool(tmp_path))
    fresh = [group.prompt.id for group in found[0].groups]
    assert fresh == [NAMES[place] for place in rows(8, 4, len(NAMES), 17)]
    # a run that has no pool writes what earlier versions read
    write_state(tmp_path, RunState(4, 16))
    assert '"rows"' not in (tmp_path / "state.json").read_text()


def test_a_step_that_is_rolled_out_again_asks_the_same(tmp_path: Path) -> None:
    undisturbed = walk(started(tmp_path), range(3))
    session = started(tmp_path)
    begun = walk(session, range(2))
    stream, lost = session.rollouts.stream, [True]

    def losing(requests: Any, settings: Any) -> Any:
        yield from stream(requests, settings)
        if lost:
            lost.pop()
            raise RolloutsLostError("a node is gone")

    session.rollouts.stream = losing  # type: ignore[method-assign]
    state = RunState(2, 8, rows=sum(batch.rows for batch in begun))
    [again] = walk(session, [2], state, begun[-1].pool)
    assert prompts([again]) == prompts(undisturbed[2:])
    assert again.pool == undisturbed[2].pool


def test_answers_whose_prompt_would_be_too_long_are_dropped_and_counted(tmp_path: Path) -> None:
    session = started(tmp_path, limit=22)  # "a:aaa:error: 3 is odd" fits with one letter less
    batches = walk(session, range(3))
    assert sum(batch.checked["repair/dropped_long"] for batch in batches) > 0
    for batch in batches:
        assert all(len(group.prompt.text or "") <= 22 for group in batch.groups)
    # limits that are tighter after a resume: what is in the pool and too long is dropped when it is drawn
    roomy = walk(started(tmp_path), range(1))
    [tight] = walk(started(tmp_path, limit=3), [1], RunState(1, 4), roomy[0].pool)
    assert tight.checked["repair/share"] == 0.0
    assert tight.rows == 4
    assert tight.checked["repair/dropped_long"] >= 2


def test_answers_to_prompts_that_are_gone_are_dropped_and_counted(tmp_path: Path) -> None:
    gone = tuple(FailedAnswer(f"gone{i}", i, 0, 0, "x", "no") for i in range(4))
    [batch] = walk(started(tmp_path), [1], RunState(1, 4), gone)
    assert batch.checked["repair/dropped_unknown"] == 2.0
    assert batch.rows == 4


def test_age_and_size_limit_the_pool(tmp_path: Path) -> None:
    batches = walk(started(tmp_path, repair={"max_age": 1, "size": 3, "per_prompt": 4}), range(4))
    for number, batch in enumerate(batches):
        assert len(batch.pool) <= 3
        assert all(number + 1 - one.step <= 1 for one in batch.pool)
    assert sum(batch.checked["repair/dropped_full"] for batch in batches) > 0


def test_metrics_tell_repairs_from_fresh_prompts(tmp_path: Path) -> None:
    def answer(context: str, source: random.Random) -> str:
        return "aa" if ":" in context else "aaa"  # repairs are always right, first answers never

    first, second = walk(started(tmp_path, answer), range(2))
    assert first.checked["repair/pool"] == 4.0
    assert "repair/pass_rate" not in first.checked
    wanted = {"share": 0.5, "pass_rate": 1.0, "fresh_pass_rate": 0.0, "reward_mean": 1.0, "fresh_reward_mean": 0.0}
    assert {name: second.checked[f"repair/{name}"] for name in wanted} == wanted
    assert second.checked["repair/identical"] == 0.0
    text = "a:aaa:error: 3 is odd\nsecond"  # of this form, in which ":" plays the unknown token
    assert second.checked["repair/unknown"] == pytest.approx(text.count(":") / len(text))
    check_names(second.checked)


def test_a_verifier_that_says_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "judge.py").write_text("def never(text, columns): return False\n")
    scoring = {"verifier": "function", "verifier_args": {"function": f"{tmp_path}/judge.py:never"}}
    session = started(tmp_path, scoring=scoring)
    [batch] = walk(session, range(1))
    assert batch.pool == ()
    assert batch.checked["repair/dropped_silent"] > 0
    assert any("says nothing of the answers" in line for line in session.supervision.lines)  # type: ignore[attr-defined]


def test_an_answer_that_is_asked_again_twice_ends_the_run(tmp_path: Path) -> None:
    repeats = Repeats()
    repeats.check_repairs([Ticket(4, "a+repair0.1", (1,), 0)])
    repeats.check_repairs([Ticket(4, "a+repair0.1", (1,), 0)])  # rolled out again after a loss
    with pytest.raises(SelfCheckError, match="asked by ticket 9, after ticket 4"):
        repeats.check_repairs([Ticket(9, "a+repair0.1", (2,), 0)])
    repeats.forget()
    repeats.check_repairs([Ticket(9, "a+repair0.1", (2,), 0)])
    # a pool that does not lose what is asked is found in the loop
    session = started(tmp_path)
    [batch] = walk(session, range(1))
    walk(session, [1], RunState(1, 4), batch.pool)

    def with_a_pool_that_stays() -> None:
        for number in range(2, 6):
            walk(session, [number], RunState(number, 4 * number, rows=4 * number), batch.pool)

    with pytest.raises(SelfCheckError, match="the pool does not lose what is asked"):
        with_a_pool_that_stays()


def test_the_order_of_the_data_is_still_watched_with_a_pool(tmp_path: Path) -> None:
    session = started(tmp_path)

    def the_same_rows_again_and_again() -> None:
        for number in range(6):
            collect(session, number, 4 * number, 0, ())

    with pytest.raises(SelfCheckError, match="the order of the data stands still"):
        the_same_rows_again_and_again()
