"""What the driver holds of random trajectories plans as the trajectories do. Not covered: chosen cases
(tests/unit/learner/test_received.py), filters of groups (tests/unit/algorithms/test_credit.py).
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.algorithms.credit import assign, train_samples
from rlpost.learner.received import received
from rlpost.learner.samples import Samples
from rlpost.trajectory import Group, Receipt, Segment, Trajectory
from rlpost.types import Prompt, SpanReward, TrainSample
from support.trajectories import receipt

MODES = settings(deadline=None, derandomize=True, max_examples=150)

# few different tokens and lengths, so that contexts are often equal or each other's beginning
TOKENS = st.lists(st.integers(0, 1), max_size=2)
SOME = st.lists(st.integers(0, 1), min_size=1, max_size=2)
SEQUENCE = st.tuples(SOME, TOKENS, st.lists(st.tuples(SOME, TOKENS), min_size=1, max_size=3))
"""A prompt, an observation before the first turn, and turns with the observations that answer them."""
GROUPS = st.lists(st.lists(st.lists(SEQUENCE, min_size=1, max_size=2), min_size=1, max_size=4), min_size=1, max_size=3)


def rolled(index: int, sequences: list) -> Trajectory:
    ids, segments, versions, turn = list[int](), list[Segment](), list[tuple[int, int, int]](), -1
    for prompt, first, turns in sequences:
        pieces = [("prompt", prompt), ("environment", first)]
        pieces += [piece for answer, seen in turns for piece in (("policy", answer), ("environment", seen))]
        for origin, piece in pieces:
            if origin == "environment" and not piece:
                continue
            turn += origin == "policy"
            segments.append(Segment(origin, len(ids), len(ids) + len(piece), turn))
            ids += piece
            if origin == "policy":
                versions.append((turn // 2, segments[-1].start, segments[-1].stop))
    logprobs = np.full(len(ids), np.nan, np.float32)
    for segment in segments:
        if segment.origin == "policy":
            logprobs[segment.start : segment.stop] = -np.arange(segment.start, segment.stop)
    token_ids = np.array(ids, np.int32)
    return Trajectory(None, index, token_ids, logprobs, tuple(versions), tuple(segments), "done")


@MODES
@given(GROUPS, st.data())
def test_a_batch_planned_by_receipts_is_the_batch_of_its_trajectories(shapes: list, data: st.DataObject) -> None:
    groups, expected = [], list[TrainSample]()
    for number, shape in enumerate(shapes):
        members = tuple(rolled(index, one) for index, one in enumerate(shape))
        rewards, known = [], []
        for member in members:
            cuts = sorted(data.draw(st.lists(st.integers(0, member.length), min_size=2, max_size=4)))
            # disjoint spans, some without credit
            spans = itertools.pairwise(cuts)
            rewards.append(tuple(SpanReward(a, b, float(a % 2), i) for i, (a, b) in enumerate(spans)))
            known.append(np.where(member.mask, -0.5, np.nan).astype(np.float32))
            made = train_samples(member, rewards[-1], [span.value for span in rewards[-1]])
            for one, (start, stop) in zip(made, member.sequences, strict=True):
                expected.append(dataclasses.replace(one, proximal_logprobs=known[-1][start:stop]))
        prompt = Prompt(str(number), text="p")
        groups.append(receipt(Group(prompt, members, rewards=tuple(rewards), learner_logprobs=tuple(known))))
    batch = assign(groups, lambda found: [[span.value for span in reward] for reward in found], step=0).batch
    fetched: list[int] = []

    def fetch(handle: object) -> object:
        fetched.append(id(handle))
        return handle

    found, whole = received(batch, fetch), Samples.of(expected)
    assert (found.sizes, found.credited) == (whole.sizes, whole.credited)
    assert fetched == []
    for one, other in zip(found, whole, strict=True):
        for field in dataclasses.fields(TrainSample):
            np.testing.assert_array_equal(getattr(one, field.name), getattr(other, field.name), err_msg=field.name)
    assert len(fetched) == len(set(fetched)) == 2 * len(groups)


@MODES
@given(st.lists(st.lists(SEQUENCE, min_size=1, max_size=2), min_size=2, max_size=4))
def test_contexts_of_receipts_are_equal_exactly_if_the_tokens_before_the_first_turn_are(shapes: list) -> None:
    members = [rolled(index, shape) for index, shape in enumerate(shapes)]
    contexts = [
        (digest, sample.token_ids[: sample.prompt_tokens].tolist())
        for member in members
        for digest, sample in zip(Receipt.of(member).contexts, train_samples(member), strict=True)
    ]
    for (one, ids), (other, others) in itertools.combinations(contexts, 2):
        assert (one == other) == (ids == others)


@MODES
@given(st.lists(SEQUENCE, min_size=1, max_size=3))
def test_a_receipt_counts_what_its_trajectory_holds(shape: list) -> None:
    whole = rolled(0, shape)
    found = Receipt.of(whole)
    assert (found.length, found.sampled) == (whole.length, int(whole.mask.sum()))
    assert (found.sequences, found.versions) == (whole.sequences, whole.versions)
    mask = np.zeros(whole.length, bool)
    for start, stop in found.turns:
        mask[start:stop] = True
    np.testing.assert_array_equal(mask, whole.mask)
