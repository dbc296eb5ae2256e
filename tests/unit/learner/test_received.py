"""Samples from receipts, made on demand. Not covered: random trajectories (tests/property/test_receipts.py), Ray's
handles (tests/ray).
"""

from __future__ import annotations

import dataclasses
import pickle
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from rlpost.algorithms.credit import assign, train_samples
from rlpost.errors import SelfCheckError
from rlpost.learner.packing import SampleSize
from rlpost.learner.received import received
from rlpost.learner.samples import Samples
from rlpost.trajectory import (
    BatchReceipt,
    Group,
    GroupReceipt,
    Origin,
    Segment,
    Ticket,
    Trajectory,
    one_turn,
)
from rlpost.types import Prompt, Reward, SpanReward, TrainSample
from support.trajectories import answer, receipt


@dataclasses.dataclass(frozen=True)
class Handle:
    """Stands for something that is elsewhere."""

    name: str


class Store:
    """Resolves handles and counts how often."""

    def __init__(self, held: dict[Handle, Any]):
        self.held, self.asked = held, Counter[str]()

    def __call__(self, handle: Handle) -> Any:
        self.asked[handle.name] += 1
        return self.held[handle]


def dialogue(index: int) -> Trajectory:
    """Two turns with an observation between them, and a further sequence of one turn; sampled by versions 2 and 3."""
    nan = np.nan
    return Trajectory(
        ticket=Ticket(0, "b", (0, 1), 2),
        index=index,
        token_ids=np.array([1, 2, 5, 6, 20, 21, 7, 9, 8, 9], np.int32),
        logprobs=np.array([nan, nan, -1, -2, nan, nan, -3, nan, -4, -5], np.float32),
        versions=((2, 2, 3), (3, 3, 4), (3, 6, 7), (3, 8, 10)),
        segments=(
            Segment("prompt", 0, 2, -1),
            Segment("policy", 2, 4, 0, finish="stop"),
            Segment("environment", 4, 6, 0),
            Segment("policy", 6, 7, 1, finish="stop"),
            Segment("prompt", 7, 8, 1),
            Segment("policy", 8, 10, 2, finish="stop"),
        ),
        status="done",
    )


GROUPS = {
    "a": (answer("xy", 0, prompt=(3, 4)), answer("z", 1, prompt=(3, 4))),
    "b": (dialogue(0), dialogue(1)),
    # the prompt of group "a" again, and an answer that was aborted before its first token
    "c": (answer("xyz", 0, prompt=(3, 4)), one_turn((3, 4), (), finish="abort", index=1)),
}
REWARDS: dict[str, tuple[Reward, ...]] = {
    "a": ((SpanReward(0, 4, 1.0),), (SpanReward(0, 3, 0.0),)),
    "b": ((SpanReward(0, 7, 1.0), SpanReward(7, 10, 0.5, 1)), (SpanReward(0, 10, 0.0),)),
    "c": ((SpanReward(0, 5, 1.0),), (SpanReward(0, 2, 0.0),)),
}


def stored(proximal: bool = False) -> tuple[BatchReceipt, Store]:
    """The batch of all groups, whose tokens and log-probabilities the store has. A reward is its own advantage."""
    held: dict[Handle, Any] = {}
    groups: list[GroupReceipt] = []
    for name, members in GROUPS.items():
        whole = receipt(Group(Prompt(name, text=name), members, rewards=REWARDS[name]))
        held[Handle(name)] = members
        held[Handle(f"{name} proximal")] = tuple(known(member) for member in members)
        handles = {"tokens": Handle(name), "proximal": Handle(f"{name} proximal") if proximal else None}
        groups.append(dataclasses.replace(whole, **handles))

    def as_they_are(rewards: Any) -> list[list[float] | None]:
        return [[span.value for span in reward] for reward in rewards]

    return assign(groups, as_they_are, step=3).batch, Store(held)


def known(trajectory: Trajectory) -> np.ndarray:
    """Log-probabilities by the position in the trajectory."""
    return np.where(trajectory.mask, -np.arange(trajectory.length), np.nan).astype(np.float32)


def made(proximal: bool = False) -> list[TrainSample]:
    """All samples, from the trajectories themselves."""
    found: list[TrainSample] = []
    for name, members in GROUPS.items():
        for member, reward in zip(members, REWARDS[name], strict=True):
            samples = train_samples(member, reward, [span.value for span in reward])
            for sample, (start, stop) in zip(samples, member.sequences, strict=True):
                values = known(member)[start:stop] if proximal else None
                found.append(dataclasses.replace(sample, proximal_logprobs=values))
    return [sample for sample in found if sample.mask.any()]


def same(found: TrainSample, expected: TrainSample) -> None:
    for field in dataclasses.fields(TrainSample):
        one, other = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(one, other, err_msg=field.name)
        assert getattr(one, "dtype", None) == getattr(other, "dtype", None), field.name


def test_a_batch_is_planned_without_its_tokens() -> None:
    batch, store = stored(proximal=True)
    found = received(batch, store)
    # the first parts of the dialogues have 2 tokens before the first turn and 5 from there on, the second 1 and 2
    assert found.sizes == [
        SampleSize(0, 2, 2),
        SampleSize(0, 2, 1),
        SampleSize(1, 2, 5),
        SampleSize(2, 1, 2),
        SampleSize(1, 2, 5),
        SampleSize(2, 1, 2),
        SampleSize(0, 2, 3),
    ]
    assert found.credited == [True, False, True, True, False, False, True]
    assert (len(found), found.lacking("proximal_logprobs")) == (7, [])
    assert found.lacking("ref_logprobs") == list(range(7))
    assert store.asked == {}


def test_a_sample_is_made_when_it_is_used_and_once() -> None:
    batch, store = stored()
    found = received(batch, store)
    one = found[3]
    assert store.asked == {"b": 1}
    assert found[3] is one
    assert one.token_ids.tolist() == [9, 8, 9]


@pytest.mark.parametrize("sent", [False, True])
def test_a_group_is_fetched_once_however_many_of_its_samples_are_used(sent: bool) -> None:
    """Also after the batch was sent to another process, where its handles are other objects."""
    batch, store = stored(proximal=True)
    found = received(pickle.loads(pickle.dumps(batch)) if sent else batch, store)
    for index in (5, 2, 4, 3):
        assert found[index].mask.any()
    assert store.asked == {"b": 1, "b proximal": 1}
    assert len(list(found)) == 7
    assert store.asked == dict.fromkeys(["a", "a proximal", "b", "b proximal", "c", "c proximal"], 1)


@pytest.mark.parametrize("proximal", [False, True])
def test_received_samples_are_those_made_from_the_trajectories(proximal: bool) -> None:
    batch, store = stored(proximal)
    found, expected = received(batch, store), Samples.of(made(proximal))
    assert found.sizes == expected.sizes
    assert found.credited == expected.credited
    for column in ("proximal_logprobs", "ref_logprobs"):
        assert found.lacking(column) == expected.lacking(column)
    for one, other in zip(found, expected, strict=True):
        same(one, other)


def test_the_samples_of_a_dialogue_by_hand() -> None:
    batch, store = stored(proximal=True)
    first, second = received(batch, store)[2:4]
    nan = np.nan
    same(
        first,
        TrainSample(
            token_ids=np.array([1, 2, 5, 6, 20, 21, 7], np.int32),
            mask=np.array([0, 0, 1, 1, 0, 0, 1], bool),
            advantages=np.array([0, 0, 1, 1, 0, 0, 1], np.float32),
            span_ids=np.array([-1, -1, 0, 0, -1, -1, 0], np.int32),
            versions=np.array([-1, -1, 2, 3, -1, -1, 3], np.int32),
            rollout_logprobs=np.array([nan, nan, -1, -2, nan, nan, -3], np.float32),
            proximal_logprobs=np.array([nan, nan, -2, -3, nan, nan, -6], np.float32),
        ),
    )
    same(
        second,
        TrainSample(
            token_ids=np.array([9, 8, 9], np.int32),
            mask=np.array([0, 1, 1], bool),
            advantages=np.array([0, 0.5, 0.5], np.float32),
            span_ids=np.array([-1, 1, 1], np.int32),
            versions=np.array([-1, 3, 3], np.int32),
            rollout_logprobs=np.array([nan, -4, -5], np.float32),
            proximal_logprobs=np.array([nan, -8, -9], np.float32),
            part=1,
            ended=True,
        ),
    )


def test_a_sample_whose_mask_contradicts_the_engines_report_is_refused_when_it_is_made() -> None:
    batch, store = stored()
    whole = dialogue(0)
    turned = dataclasses.replace(whole.segments[2], origin="policy")
    wrong = dataclasses.replace(whole, segments=(*whole.segments[:2], turned, *whole.segments[3:]))
    store.held[Handle("b")] = (wrong, dialogue(1))
    found = received(batch, store)
    with pytest.raises(SelfCheckError, match=r"2 tokens of a sample are trained on that the policy did not sample"):
        found[2]
    assert found[4].mask.any()


def test_a_batch_without_samples_is_empty() -> None:
    found = received(BatchReceipt((), 0), Store({}))
    assert (len(found), list(found), found.sizes) == (0, [], [])


Piece = tuple[Origin, Sequence[int]]


def rolled(index: int, *pieces: Piece) -> Trajectory:
    """The trajectory of these segments."""
    ids, segments, turn = list[int](), list[Segment](), -1
    for origin, piece in pieces:
        turn += origin == "policy"
        segments.append(Segment(origin, len(ids), len(ids) + len(piece), turn))
        ids += piece
    turns = [(0, segment.start, segment.stop) for segment in segments if segment.origin == "policy"]
    versions = tuple(turn for turn in turns if turn[1] < turn[2])
    return Trajectory(None, index, np.array(ids, np.int32), None, versions, tuple(segments), "done")


EMPTY: dict[str, tuple[tuple[Piece, ...], ...]] = {
    # an observation belongs to the prompt of the one, and the other was asked without it
    "before the first token": (
        (("prompt", [1, 2]), ("policy", []), ("environment", [5]), ("policy", [6, 7])),
        (("prompt", [1, 2]), ("policy", [6, 7])),
    ),
    # the second sequences have different prompts
    "at the end of a sequence": (
        (("prompt", [1]), ("policy", [3]), ("environment", [4]), ("policy", []), ("prompt", [5, 6]), ("policy", [7])),
        (("prompt", [1]), ("policy", [3]), ("environment", [4]), ("policy", []), ("prompt", [8]), ("policy", [7])),
    ),
}


@pytest.mark.parametrize("pieces", EMPTY.values(), ids=EMPTY.keys())
def test_samples_with_an_empty_turn_share_a_prompt_only_if_their_tokens_are_equal(pieces: Any) -> None:
    """An engine that does not hand the end token back may sample nothing in a turn that the environment answers."""
    members = tuple(rolled(index, *one) for index, one in enumerate(pieces))
    rewards = tuple((SpanReward(0, member.length, 1.0),) for member in members)
    group = receipt(Group(Prompt("p", text="p"), members, rewards=rewards))
    batch = assign([group], lambda found: [[1.0] for _ in found], step=0).batch
    expected = [
        s for m, reward in zip(members, rewards, strict=True) for s in train_samples(m, reward, [1.0]) if s.mask.any()
    ]
    assert received(batch, lambda handle: handle).sizes == Samples.of(expected).sizes
