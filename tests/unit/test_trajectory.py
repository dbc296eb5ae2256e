"""Trajectories and what the driver holds of them, by hand. Not covered: how they come about (tests/unit/rollout), what is
made of them (tests/unit/algorithms/test_credit.py).
"""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.credit import train_samples
from rlpost.trajectory import (
    Completion,
    GroupReceipt,
    Receipt,
    SampleReceipt,
    Segment,
    Ticket,
    TokenizedPrompt,
    Trajectory,
    one_turn,
)
from rlpost.types import Prompt, Verdict

NAN = float("nan")
TICKET = Ticket(4, "t1", (16, 17), 2)


def made(*segments: Segment, ids: Sequence[int] | None = None, **options: Any) -> Trajectory:
    """A trajectory of these segments; tokens are numbered unless given."""
    size = segments[-1].stop if segments else 0
    given = np.arange(size, dtype=np.int32) if ids is None else np.array(ids, np.int32)
    return Trajectory(**{  # pyright: ignore[reportArgumentType]
        "ticket": None, "index": 0, "token_ids": given, "logprobs": None, "versions": (), "segments": segments,
        "status": "done", **options,
    })  # fmt: skip


def played(**options: Any) -> Trajectory:
    """Two turns with an observation between them, then a second sequence with an observation and a third turn."""
    return made(
        Segment("prompt", 0, 2, -1),
        Segment("policy", 2, 4, 0, "ab", np.array([[0, 1], [1, 2]], np.int32), "stop", 0.5),
        Segment("environment", 4, 7, 0, " higher "),
        Segment("policy", 7, 8, 1, "c", np.array([[0, 1]], np.int32), "stop"),
        Segment("prompt", 8, 11, 1),
        Segment("environment", 11, 12, 1, " lower "),
        Segment("policy", 12, 14, 2, "d", np.array([[0, 1], [1, 1]], np.int32), "length"),
        **{
            "ticket": TICKET,
            "index": 1,
            "logprobs": np.float32([NAN] * 2 + [-1.0, -2.0] + [NAN] * 3 + [-3.0] + [NAN] * 4 + [-4.0, -5.0]),
            "versions": ((2, 2, 4), (3, 7, 8), (3, 12, 14)),
            "status": "length",
            "verdict": Verdict("rejected", 0.0, "wrong"),
            **options,
        },
    )


def test_only_what_the_policy_sampled_is_in_the_mask() -> None:
    one = played()
    assert np.flatnonzero(one.mask).tolist() == [2, 3, 7, 12, 13]
    assert (one.mask.dtype, one.mask.shape) == (np.bool_, (14,))
    # tokens of an observation may be those of an answer: the mask follows from the origin alone
    assert np.flatnonzero(played(token_ids=np.full(14, 7, np.int32)).mask).tolist() == [2, 3, 7, 12, 13]


def test_what_follows_from_the_segments() -> None:
    one = played()
    assert (one.length, one.prompt_tokens, one.sampled) == (14, 2, 5)
    assert [(turn.start, turn.stop, turn.turn) for turn in one.turns] == [(2, 4, 0), (7, 8, 1), (12, 14, 2)]
    assert (one.text, one.answer) == ("ab higher c lower d", "d")
    assert one.sequences == ((0, 8), (8, 14))


def test_a_prompt_with_one_answer_is_a_trajectory_of_one_turn() -> None:
    one = one_turn(np.array([1, 2]), (7, 3), "ok", offsets=((0, 1), (1, 2)), logprobs=(-0.5, -0.25), version=3, index=1)
    assert (one.token_ids.tolist(), one.token_ids.dtype) == ([1, 2, 7, 3], np.int32)
    assert one.logprobs is not None
    assert one.logprobs.dtype == np.float32
    np.testing.assert_array_equal(one.logprobs, [NAN, NAN, -0.5, -0.25])
    assert (one.versions, one.sequences, one.index, one.text) == (((3, 2, 4),), ((0, 4),), 1, "ok")
    assert one.turns[0].offsets is not None
    assert (one.turns[0].offsets.tolist(), one.turns[0].offsets.dtype) == ([[0, 1], [1, 2]], np.int32)
    assert [one_turn((1,), (2,), finish=f).status for f in ("stop", "length", "abort")] == ["done", "length", "aborted"]


def test_an_answer_without_tokens_is_an_empty_turn() -> None:
    one = one_turn((1, 2), (), offsets=(), logprobs=())
    assert [(turn.start, turn.stop) for turn in one.turns] == [(2, 2)]
    assert (one.sampled, one.mask.any(), one.versions, one.length) == (0, False, (), 2)


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ((Segment("prompt", 0, 2, -1), Segment("policy", 3, 4, 0)), "segments end at"),
        ((Segment("prompt", 0, 2, -1), Segment("policy", 1, 4, 0)), "segments end at"),
        ((Segment("prompt", 0, 2, -1), Segment("policy", 2, 3, 0)), r"segments end at \[2, 3\] in .* of 4 tokens"),
        ((Segment("prompt", 0, 2, -1), Segment("policy", 2, 5, 0)), r"segments end at \[2, 5\] in .* of 4 tokens"),
        ((Segment("prompt", 1, 2, -1), Segment("policy", 2, 4, 0)), "segments end at"),
        ((Segment("policy", 0, 4, 0),), "begins with its prompt"),
        ((), "segments end at"),
    ],
    ids=["a gap", "an overlap", "too short", "too long", "a gap at the start", "no prompt", "nothing"],
)
def test_segments_cover_the_tokens_and_begin_with_the_prompt(segments: tuple[Segment, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made(*segments, ids=range(4))


def test_there_is_a_logprob_for_every_token_or_none() -> None:
    with pytest.raises(ValueError, match="14 tokens and 5 log-probabilities"):
        played(logprobs=np.zeros(5, np.float32))


def test_records_with_arrays_are_equal_by_value_and_nan_equals_nan() -> None:
    assert played() == played()
    assert played().segments == played().segments
    assert Completion(np.array([7]), np.float32([NAN]), "stop", ((0, 0, 1),)) == Completion(
        np.array([7]), np.float32([NAN]), "stop", ((0, 0, 1),)
    )
    prompt = Prompt("t1", text="x")
    assert TokenizedPrompt(prompt, np.array([5, 6])) == TokenizedPrompt(prompt, np.array([5, 6]))
    assert TokenizedPrompt(prompt, np.array([5, 6])) != TokenizedPrompt(prompt, np.array([5, 7]))


@pytest.mark.parametrize(
    "change",
    [
        {"ticket": None},
        {"index": 0},
        {"token_ids": np.arange(1, 15, dtype=np.int32)},
        {"token_ids": np.arange(14, dtype=np.int64)},
        {"logprobs": None},
        {"logprobs": np.zeros(14, np.float32)},
        {"versions": ((2, 2, 4),)},
        {"status": "turns"},
        {"verdict": None},
        {"segments": (Segment("prompt", 0, 14, -1),)},
    ],
    ids=lambda change: " ".join(change),
)
def test_a_record_that_differs_in_one_field_is_another(change: dict[str, Any]) -> None:
    other = dataclasses.replace(played(), **change)
    assert other != played()
    assert played() != other


def test_a_segment_with_other_offsets_is_another_and_no_record_equals_another_kind() -> None:
    one = Segment("policy", 0, 1, 0, "a", np.array([[0, 1]], np.int32))
    assert one != dataclasses.replace(one, offsets=np.array([[0, 0]], np.int32))
    assert one != dataclasses.replace(one, offsets=None)
    assert dataclasses.replace(one, offsets=None) != one
    assert one != "policy"
    assert played() != Receipt.of(played())
    with pytest.raises(TypeError, match="unhashable"):
        hash(played())


@pytest.mark.parametrize(
    ("logprobs", "versions", "message"),
    [
        (np.float32([-1.0]), ((0, 0, 2),), "2 tokens and 1 log-probabilities"),
        (np.float32([-1.0] * 3), ((0, 0, 2),), "2 tokens and 3 log-probabilities"),
        (None, (), "do not cover its 2 tokens"),
        (None, ((0, 0, 1),), "do not cover its 2 tokens"),
        (None, ((0, 1, 2),), "do not cover its 2 tokens"),
        (None, ((0, 0, 3),), "do not cover its 2 tokens"),
        (None, ((1, 1, 2), (0, 0, 1)), "do not cover its 2 tokens"),
    ],
)
def test_a_completion_whose_parts_do_not_fit_is_refused(
    logprobs: np.ndarray | None, versions: tuple[tuple[int, int, int], ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Completion(np.array([7, 2], np.int32), logprobs, "stop", versions)


def test_a_completion_may_be_of_several_versions_or_empty() -> None:
    one = Completion(np.array([7, 2], np.int32), np.float32([-1, -2]), "stop", ((0, 0, 1), (1, 1, 2)))
    assert one.versions == ((0, 0, 1), (1, 1, 2))
    assert len(Completion(np.zeros(0, np.int32), np.zeros(0, np.float32), "abort", ()).token_ids) == 0


def test_a_receipt_says_where_what_was_sampled() -> None:
    found = Receipt.of(played())
    assert (found.index, found.status, found.versions) == (1, "length", ((2, 2, 4), (3, 7, 8), (3, 12, 14)))
    assert (found.sequences, found.turns) == (((0, 8), (8, 14)), ((2, 4), (7, 8), (12, 14)))
    assert (found.length, found.sampled, len(found.contexts)) == (14, 5, 2)
    first, second = (SampleReceipt(found, (), part, (), ()) for part in (0, 1))
    assert (first.span, first.turns, first.sampled) == ((0, 8), [(2, 4), (7, 8)], 3)
    assert (second.span, second.turns, second.sampled) == ((8, 14), [(12, 14)], 2)
    assert (first.context, second.context) == found.contexts


def begun(observed: Sequence[int], *after: int, prompt: Sequence[int] = (1, 2)) -> Receipt:
    """The receipt of a trajectory that begins with an observation, if there are tokens of it, and goes on thus."""
    start, turn = len(prompt), len(prompt) + len(observed)
    environment = [Segment("environment", start, turn, 0)] if observed else []
    parts = Segment("prompt", 0, start, -1), *environment, Segment("policy", turn, turn + len(after), 0)
    return Receipt.of(made(*parts, ids=(*prompt, *observed, *after)))


def test_the_context_is_what_comes_before_the_first_sampled_token() -> None:
    [plain] = begun((), 7).contexts
    # an observation before the first turn is part of the context, and so are answers not
    assert begun((5,), 7).contexts != begun((6,), 7).contexts
    assert begun((5,), 7).contexts != (plain,)
    assert begun((5,), 7).contexts == begun((5,), 8, 9).contexts
    assert begun((), 8, 9).contexts == (plain,)
    # the same tokens are the same context, whoever wrote them
    assert begun((5,), 7, prompt=(1,)).contexts == begun((), 7, prompt=(1, 5)).contexts
    assert begun((), 7, prompt=(1, 3)).contexts != (plain,)
    # whatever integers the tokens came as
    assert Receipt.of(one_turn(np.array([1, 2], np.int64), (7,))).contexts == (plain,)


def test_every_sequence_has_its_own_context_and_later_observations_are_in_none() -> None:
    def contexts(at: int | None = None) -> tuple[bytes, ...]:
        ids = np.arange(14, dtype=np.int32)
        if at is not None:
            ids[at] = 99
        return Receipt.of(played(token_ids=ids)).contexts

    first, second = contexts()
    assert first != second
    for at in range(14):
        changed = tuple(now != then for now, then in zip(contexts(at), (first, second), strict=True))
        assert changed == (at < 2, 8 <= at < 12), at
    # a second sequence that begins with the same tokens shares its context with another trajectory's first
    assert second == Receipt.of(one_turn((8, 9, 10, 11), (5,))).contexts[0]


def test_a_turn_without_tokens_does_not_end_the_context() -> None:
    """Samples with equal contexts share the computation of all tokens before the first sampled one."""

    def found(observed: int) -> Receipt:
        return Receipt.of(
            made(
                Segment("prompt", 0, 2, -1),
                Segment("policy", 2, 2, 0),
                Segment("environment", 2, 3, 0),
                Segment("policy", 3, 4, 1),
                ids=(1, 2, observed, 7),
            )
        )

    assert found(5).contexts != found(6).contexts
    assert found(5).contexts == begun((5,), 7).contexts


def test_a_turn_without_tokens_at_the_end_of_a_sequence_is_not_in_the_next() -> None:
    def found(second: int) -> Receipt:
        return Receipt.of(
            made(
                Segment("prompt", 0, 1, -1),
                Segment("policy", 1, 1, 0),
                Segment("prompt", 1, 3, 0),
                Segment("policy", 3, 4, 1),
                ids=(1, 2, second, 7),
            )
        )

    assert found(5).contexts[1] != found(6).contexts[1]


def test_a_sequence_in_which_nothing_was_sampled_is_all_context() -> None:
    assert begun((5,)).contexts == begun((5,), 7).contexts


def test_receipts_tell_distinct_texts_apart() -> None:
    texts = [Receipt.of(one_turn((1,), (7,), text)).text for text in ("a", "b", "a", "\ud800")]
    assert texts[0] == texts[2]
    assert len(set(texts)) == 3
    # the prompt is no part of it
    assert Receipt.of(one_turn((9,), (7,), "a")).text == texts[0]


@pytest.mark.parametrize("protocol", [2, 5])
def test_trajectories_and_receipts_survive_pickling(protocol: int) -> None:
    one = played()
    held = GroupReceipt(TICKET, Prompt("t1", text="x"), (Receipt.of(one),), (one,), proximal=(one.logprobs,))
    for record in (one, Receipt.of(one), TICKET, TokenizedPrompt(Prompt("t1", text="x"), one.token_ids)):
        again = pickle.loads(pickle.dumps(record, protocol))
        assert again == record
        assert type(again) is type(record)
    again = pickle.loads(pickle.dumps(held, protocol))
    assert (again.trajectories, again.tokens, again.ticket) == (held.trajectories, held.tokens, TICKET)
    assert pickle.loads(pickle.dumps(one, protocol)).token_ids.dtype == np.int32


def long(tokens: int) -> Trajectory:
    """A trajectory of so many tokens, the first of which is the prompt, with a letter for each further one."""
    size = tokens - 1
    offsets = [(i, i + 1) for i in range(size)]
    return one_turn((1,), range(size), "x" * size, offsets=offsets, logprobs=[-1.0] * size, ticket=TICKET)


def test_a_trajectory_takes_few_bytes_for_a_token() -> None:
    one = long(4096)
    # 4 for its id, 4 for its log-probability, 8 for its characters; the text is what it is
    assert len(pickle.dumps(one)) - len(one.text) <= 16 * 4096 + 4096


def test_a_receipt_is_no_larger_for_more_tokens() -> None:
    small, large = (len(pickle.dumps(Receipt.of(long(tokens)))) for tokens in (300, 4096))
    assert large == small < 1024


def test_a_training_sample_takes_few_bytes_for_a_token() -> None:
    one = long(4096)
    [sample] = train_samples(one)
    full = dataclasses.replace(sample, proximal_logprobs=one.logprobs, ref_logprobs=one.logprobs)
    arrays = [getattr(full, field.name) for field in dataclasses.fields(full) if field.name not in ("part", "ended")]
    assert len(arrays) == 8
    assert sum(array.nbytes for array in arrays) <= 32 * 4096
