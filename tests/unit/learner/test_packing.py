"""The plan of an update by hand. Not covered: its general properties (tests/property/test_plans.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from rlpost.learner.packing import (
    Layout,
    SampleSize,
    Update,
    denominators,
    logprob_chunks,
    micro_batches,
    plan_updates,
    sample_indices,
    sizes_of,
    spread_over_ranks,
)
from rlpost.types import Denominators, TrainSample
from support import trajectories


def sample(mask: list[bool], spans: list[int], prompt: Sequence[int] = (1, 2), part: int = 0) -> TrainSample:
    return trajectories.sample(prompt, range(len(mask)), mask=mask, spans=spans, part=part)


def alone(*lengths: int) -> list[SampleSize]:
    """Samples with prompts of their own, one token each."""
    return [SampleSize(row, 1, length - 1) for row, length in enumerate(lengths)]


def padded(micro_tokens: int) -> Layout:
    return Layout(packed=False, micro_tokens=micro_tokens)


def shared(micro_tokens: int) -> Layout:
    return Layout(packed=True, share_prompts=True, micro_tokens=micro_tokens)


def test_samples_with_equal_prompts_get_the_same_prompt_number() -> None:
    a, b = sample([True], [0]), sample([True, True], [0, 0])
    c = sample([True, True], [0, 0], prompt=(1, 2, 3))
    d = dataclasses.replace(b, token_ids=b.token_ids.astype(np.int64))
    assert sizes_of([a, b, c, d]) == [
        SampleSize(0, 2, 1),
        SampleSize(0, 2, 2),
        SampleSize(1, 3, 2),
        SampleSize(0, 2, 2),
    ]


def test_the_prompt_of_a_sample_ends_before_its_first_trained_token() -> None:
    # prompt 1, 2; completions 0, 1, 2 of which 0 is observed; 0, 1, 2 of which 1 is; and nothing trained
    samples = [
        sample([False, True, True], [-1, 0, 0]),
        sample([True, False, True], [0, -1, 0]),
        sample([True, True], [0, 0], prompt=(1, 2, 0)),
        sample([False, False], [-1, -1]),
    ]
    assert sizes_of(samples) == [SampleSize(0, 3, 2), SampleSize(1, 2, 3), SampleSize(0, 3, 2), SampleSize(2, 4, 0)]


def test_the_longest_goes_to_the_rank_with_the_fewest_tokens() -> None:
    # 9 to rank 0, 7 to rank 1, 4 to rank 1 (7 < 9), 3 to rank 0 (9 < 11), 1 to rank 1 (11 < 12)
    parts = [(row,) for row in range(5)]
    assert spread_over_ranks(parts, alone(3, 9, 1, 7, 4), 2) == [[(1,), (0,)], [(3,), (4,), (2,)]]


def test_a_sequence_over_a_ranks_fair_share_is_cut() -> None:
    # three of 2 + 4 · 5 = 22 tokens on two ranks, 33 each. Of the third, one completion fits after the first
    # (22 + 7 = 29); of its rest, 2 + 15, one after the second (29); of the last two none fits, and they stay together
    sizes = [SampleSize(row // 4, 2, 5) for row in range(12)]
    parts = [(0, 1, 2, 3), (4, 5, 6, 7), (8, 9, 10, 11)]
    assert spread_over_ranks(parts, sizes, 2) == [[(0, 1, 2, 3), (8,), (10, 11)], [(4, 5, 6, 7), (9,)]]


def test_the_budget_counts_padding() -> None:
    # 5 · 2 = 10 fits, 5 · 3 does not; 3 · 2 = 6 fits; 20 is over the budget and goes alone
    parts, sizes = [(row,) for row in range(5)], alone(5, 3, 20, 5, 3)
    assert micro_batches(parts, sizes, padded(10)) == [(((2,),),), (((0,),), ((3,),)), (((1,),), ((4,),))]
    assert micro_batches([], [], padded(10)) == []


def test_short_sequences_share_a_row_and_long_ones_have_their_own() -> None:
    # rows of at most 10: 7 + 3, 5 + 4, 20 alone; 10 · 1 ≤ 10 lets one row into a micro-batch
    parts, sizes = [(row,) for row in range(5)], alone(5, 3, 20, 7, 4)
    packed = Layout(packed=True, micro_tokens=10)
    assert micro_batches(parts, sizes, packed) == [(((2,),),), (((3,), (1,)),), (((0,), (4,)),)]


def test_a_sequence_over_the_budget_is_cut_and_a_single_completion_is_not() -> None:
    # prompt 4, completions of 3: 4 + 3 + 3 = 10 fits; prompt 4 and completion 9 is over the budget alone
    sizes = [SampleSize(0, 4, 3), SampleSize(0, 4, 3), SampleSize(0, 4, 3), SampleSize(0, 4, 9)]
    assert micro_batches([(0, 1, 2, 3)], sizes, shared(10)) == [(((3,),),), (((0, 1),),), (((2,),),)]


def test_a_plan_for_two_ranks_by_hand() -> None:
    [update] = plan_updates(alone(4, 4, 4), epochs=1, minibatches=1, ranks=2, layout=padded(4), seed=(0,))
    assert update == Update((0, 1, 2), (((((0,),),), (((2,),),)), ((((1,),),), ())))


def test_all_ranks_compute_logits_in_as_many_chunks() -> None:
    # 5 + 3 and 4 completion tokens, then 4 and none, in chunks of at most 3
    sizes = alone(6, 4, 5, 5)
    passes = (((((0,),), ((1,),)), (((2,),),)), ((((3,),),), ()))
    assert logprob_chunks(passes, sizes, 3) == [3, 2]
    assert logprob_chunks(passes, sizes, None) == [1, 1]
    assert logprob_chunks(((), ()), sizes, 3) == []
    assert logprob_chunks((((),), ((),)), sizes, 3) == [1]


def test_prompts_are_shared_within_a_minibatch_only() -> None:
    sizes = [SampleSize(0, 4, 1)] * 4
    one = plan_updates(sizes, epochs=1, minibatches=1, ranks=1, layout=shared(64), seed=(0,))
    assert one == [Update((0, 1, 2, 3), (((((0, 1, 2, 3),),),),))]
    two = plan_updates(sizes, epochs=1, minibatches=2, ranks=1, layout=shared(64), seed=(0,))
    assert [len(sample_indices(update.micro[0][0])) for update in two] == [2, 2]


def test_more_minibatches_than_samples_give_fewer_updates() -> None:
    plan = plan_updates(alone(4, 4), epochs=2, minibatches=3, ranks=1, layout=padded(4), seed=(0,))
    assert [len(update.indices) for update in plan] == [1, 1, 1, 1]


def test_no_samples_give_no_update() -> None:
    assert plan_updates([], epochs=2, minibatches=2, ranks=2, layout=padded(4), seed=(0,)) == []


def test_passes_and_steps_are_shuffled_apart() -> None:
    def rows(seed: tuple[int, ...]) -> list[tuple[int, ...]]:
        sizes = alone(*[2] * 40)
        return [u.indices for u in plan_updates(sizes, epochs=2, minibatches=2, ranks=1, layout=padded(9), seed=seed)]

    first, second = rows((1, 0)), rows((1, 1))
    assert first[0] != first[2]
    assert first != second
    assert first == rows((1, 0))


def test_denominators_by_hand() -> None:
    samples = [
        sample([True, True, True, False], [0, 0, 1, 2]),  # 3 tokens, spans 0 and 1; span 2 is masked
        sample([True, False], [-1, -1]),  # a trained token outside every span
        sample([False, False], [0, 0]),  # nothing trained
    ]
    assert denominators(samples, [0, 1, 2], 8) == Denominators(tokens=4, sequences=2, spans=2, max_tokens=8)
    assert denominators(samples, [2], 8) == Denominators(0, 0, 0, 8)
    assert denominators(samples, [1], 8) == Denominators(1, 1, 0, 8)
    # every completion counts with three spans, however many it has
    assert denominators(samples, [0, 1, 2], 8, 3) == Denominators(tokens=4, sequences=2, spans=6, max_tokens=8)


def test_further_sequences_of_a_trajectory_count_tokens_and_spans_and_no_sequence_by_hand() -> None:
    samples = [sample([True, False, True], [0, 1, 1]), sample([True], [1], part=1), sample([True], [2], part=2)]
    # tokens 2 + 1 + 1; the first sample has spans 0 and 1, the others one each
    assert denominators(samples, [0, 1, 2], 8) == Denominators(tokens=4, sequences=1, spans=4, max_tokens=8)
    assert denominators(samples, [1], 8) == Denominators(1, 0, 1, 8)
