"""Samples into tensors by hand. Not covered: a model's pass over them (tests/property/test_learner_invariance.py)."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from rlpost.learner.collate import collate, prefetch, visible
from support.trajectories import sample

CPU = torch.device("cpu")
NAN = float("nan")


def test_one_sample_per_row_by_hand() -> None:
    samples = [sample([1, 2, 3], [4, 5]), sample([6], [7, 8, 9], mask=[True, False, True])]
    micro = collate(samples, (((1,),), ((0,),)), CPU)
    assert micro.input_ids.tolist() == [[6, 7, 8, 9, 0], [1, 2, 3, 4, 5]]
    assert micro.attention_mask.tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert micro.position_ids is None
    # the position before a token predicts it; 8 is not trained on; the second row begins at 5
    assert micro.index.tolist() == [0, 2, 7, 8]
    assert micro.token_ids.tolist() == [7, 9, 4, 5]
    assert micro.cells.tolist() == [0, 2, 3, 4]
    assert micro.mask.tolist() == [[True, False, True], [True, True, False]]
    assert micro.indices == (1, 0)
    assert [mask.tolist() for mask in micro.masks] == [[False, True, False, True], [False, False, False, True, True]]


def test_a_shared_prompt_and_another_sequence_in_one_row_by_hand() -> None:
    samples = [sample([1, 2], [3]), sample([1, 2], [4, 5]), sample([6], [7]), sample([8], [9])]
    micro = collate(samples, (((0, 1), (2,)), ((3,),)), CPU)
    assert micro.input_ids.tolist() == [[1, 2, 3, 4, 5, 6, 7], [8, 9, 0, 0, 0, 0, 0]]
    assert micro.position_ids is not None
    assert micro.position_ids.tolist() == [[0, 1, 2, 2, 3, 0, 1], [0, 1, 0, 0, 0, 0, 0]]
    # the prompt's last token, at 1, predicts the first token of both completions
    assert micro.index.tolist() == [1, 1, 3, 5, 7]
    assert micro.token_ids.tolist() == [3, 4, 5, 7, 9]
    assert micro.cells.tolist() == [0, 2, 3, 4, 6]
    assert micro.table(torch.arange(1.0, 6.0)).tolist() == [[1, 0], [2, 3], [4, 0], [5, 0]]
    np.testing.assert_equal(
        micro.by_sample(torch.arange(1.0, 6.0)),
        {0: [NAN, NAN, 1], 1: [NAN, NAN, 2, 3], 2: [NAN, 4], 3: [NAN, 5]},
    )
    assert micro.attention_mask.shape == (2, 1, 7, 7)
    assert micro.attention_mask[0, 0].int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0],
        [1, 1, 0, 1, 0, 0, 0],  # the second completion does not attend to the first
        [1, 1, 0, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 1, 0],  # another sequence does not attend to this one
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_observed_tokens_are_read_and_neither_predicted_nor_trained_on_by_hand() -> None:
    """Tokens of an environment in the middle and at the end, and one before the first turn, which joins the prompt."""
    on, off = True, False
    samples = [
        sample([1, 2], [3, 20, 21, 4, 22], mask=[on, off, off, on, off]),
        sample([1, 2], [5, 6, 23, 7], mask=[on, on, off, on]),
        sample([1], [2, 8], mask=[off, on]),
    ]
    assert [s.prompt_tokens for s in samples] == [2, 2, 2]
    micro = collate(samples, (((0, 1, 2),),), CPU)
    assert micro.input_ids.tolist() == [[1, 2, 3, 20, 21, 4, 22, 5, 6, 23, 7, 8]]
    assert micro.position_ids is not None
    assert micro.position_ids.tolist() == [[0, 1, 2, 3, 4, 5, 6, 2, 3, 4, 5, 2]]
    # 3, 5 and 8 follow the prompt, at 1; 4 follows 21, at 4; 6 follows 5, at 7; 7 follows 23, at 9
    assert micro.index.tolist() == [1, 4, 1, 7, 9, 1]
    assert micro.token_ids.tolist() == [3, 4, 5, 6, 7, 8]
    assert micro.cells.tolist() == [0, 3, 5, 6, 8, 10]
    assert micro.mask.int().tolist() == [[1, 0, 0, 1, 0], [1, 1, 0, 1, 0], [1, 0, 0, 0, 0]]
    values = torch.arange(1.0, 7.0)
    assert micro.table(values).tolist() == [[1, 0, 0, 2, 0], [3, 4, 0, 5, 0], [6, 0, 0, 0, 0]]
    expected = {0: [NAN, NAN, 1, NAN, NAN, 2, NAN], 1: [NAN, NAN, 3, 4, NAN, 5], 2: [NAN, NAN, 6]}
    np.testing.assert_equal(micro.by_sample(values), expected)
    # a turn attends to the observations before it
    assert micro.attention_mask[0, 0, 5].int().tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]
    assert micro.attention_mask[0, 0, 10].int().tolist() == [1, 1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0]


def test_padding_is_seen_by_padding_only() -> None:
    seen = visible(np.array([[0, 0, -1, -1]]), np.array([[0, 1, -1, -1]]))[0]
    assert seen.astype(int).tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]]


def test_the_mask_comes_from_positions_and_not_from_token_ids() -> None:
    # token 0 is also the padding value
    micro = collate([sample([0], [0, 0]), sample([0], [1])], (((0,),), ((1,),)), CPU)
    assert micro.mask.tolist() == [[True, True], [True, False]]
    assert micro.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]


def test_a_rank_without_work_has_one_masked_token() -> None:
    micro = collate([], (), CPU)
    assert not micro.mask.any()
    assert micro.table(torch.tensor([-3.0])).tolist() == [[-3.0]]
    assert micro.by_sample(torch.tensor([-3.0])) == {}


@pytest.mark.parametrize("on", [True, False])
def test_what_is_prefetched_comes_in_order_and_one_at_a_time(on: bool) -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number * number

    found = []
    for value in prefetch(make, range(5), on):
        if on:
            until = time.monotonic() + 5
            while len(made) < min(len(found) + 2, 5) and time.monotonic() < until:
                time.sleep(0.001)
        found.append(value)
        assert len(made) == min(len(found) + on, 5)
    assert found == [0, 1, 4, 9, 16]


def test_an_error_in_prefetching_is_raised_where_its_result_is_taken_and_no_thread_stays() -> None:
    def make(number: int) -> float:
        return 1 / number

    taken: list[float] = []
    with pytest.raises(ZeroDivisionError):
        taken.extend(prefetch(make, [2, 1, 0]))
    assert taken == [0.5, 1.0]
    for _ in prefetch(make, [1, 1, 1]):
        break
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("collate")]
