"""Samples by number. Not covered: samples whose tokens are elsewhere (test_received.py)."""

from __future__ import annotations

import numpy as np
import pytest

from rlpost.learner.packing import SampleSize
from rlpost.learner.samples import Samples
from rlpost.types import TrainSample
from support.trajectories import sample

GIVEN = [
    sample([1, 2], [3], advantages=1.0, proximal=[-1.0]),
    sample([1, 2], [4, 5], advantages=[1.0, 0.0], mask=[False, True]),
    sample([6], [7], reference=[-2.0]),
]


def lazy() -> tuple[Samples, list[int]]:
    """The given samples, and the numbers of those that have been made, in order."""
    made: list[int] = []

    def make(number: int) -> TrainSample:
        made.append(number)
        return GIVEN[number]

    whole = Samples.of(GIVEN)
    return Samples(whole.sizes, make, whole.credited, frozenset([0]), frozenset([2])), made


def test_of_samples_that_are_there_sizes_credit_and_what_is_known_are_read_off() -> None:
    found = Samples.of(GIVEN)
    # the second sample's first token is not trained on, nor is its advantage there a credit
    assert found.sizes == [SampleSize(0, 2, 1), SampleSize(1, 3, 1), SampleSize(2, 1, 1)]
    assert found.credited == [True, False, False]
    assert (found.lacking("proximal_logprobs"), found.lacking("ref_logprobs")) == ([1, 2], [0, 1])
    assert (list(found), found[1:]) == (GIVEN, GIVEN[1:])
    assert Samples.of(found) is found
    with pytest.raises(IndexError):
        found[3]


def test_what_is_filled_in_is_seen_by_samples_made_before_and_after_and_given_values_are_kept() -> None:
    found, made = lazy()
    early = found[1]
    values = {number: np.full(one.length, -9.0, np.float32) for number, one in enumerate(GIVEN)}
    found.fill("proximal_logprobs", values)
    assert made == [1]
    assert found[0].proximal_logprobs is GIVEN[0].proximal_logprobs
    assert found[1].proximal_logprobs is values[1]
    assert found[2].proximal_logprobs is values[2]
    assert (made, early.proximal_logprobs) == ([1, 0, 2], None)
    assert found.lacking("proximal_logprobs") == []
    found.fill("proximal_logprobs", {1: values[0]})
    assert found[1].proximal_logprobs is values[1]
    found.fill("ref_logprobs", {0: values[0]})
    assert (found[0].ref_logprobs is values[0], found.lacking("ref_logprobs")) == (True, [1])
    assert GIVEN[1].proximal_logprobs is None


def test_a_subset_is_numbered_anew_and_makes_and_fills_for_itself() -> None:
    found, made = lazy()
    some = found.subset([2, 0])
    assert (some.sizes, some.credited) == ([found.sizes[2], found.sizes[0]], [False, True])
    assert (some.lacking("proximal_logprobs"), some.lacking("ref_logprobs")) == ([0], [1])
    assert made == []
    some.fill("ref_logprobs", {1: np.zeros(3, np.float32)})
    assert some[1].ref_logprobs is not None
    assert (some[1].token_ids is GIVEN[0].token_ids, made) == (True, [0])
    assert (found[0].ref_logprobs, found.lacking("ref_logprobs")) == (None, [0, 1])
