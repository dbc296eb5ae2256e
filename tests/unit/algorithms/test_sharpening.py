"""Ranks, uplift and flips by hand."""

from __future__ import annotations

import pytest

from rlpost.algorithms.sharpening import Rank, flips, likelihood_ranks, uplift_by_rank


def test_the_likeliest_has_rank_0_and_equals_keep_their_order() -> None:
    assert likelihood_ranks([-2.0, -1.0, -2.0, -0.5]) == [2, 1, 3, 0]
    assert likelihood_ranks([]) == []


def test_uplift_by_hand() -> None:
    found = uplift_by_rank([0, 3, 0, 1], before=[-1.0, -9.0, -2.0, -4.0], now=[-0.5, -9.0, -2.5, -1.0])
    assert found == [Rank(0, 2, 1, 0.0), Rank(1, 1, 1, 3.0), Rank(3, 1, 0, 0.0)]


def test_an_answer_as_likely_as_before_did_not_rise() -> None:
    assert uplift_by_rank([0], [-1.0], [-1.0])[0].rose == 0


def test_flips_count_both_ways() -> None:
    assert flips([True, True, False, False], [False, True, True, False]) == (0.25, 0.25)
    assert flips([True], [False]) == (1.0, 0.0)


@pytest.mark.parametrize(("a", "b"), [([True], []), ([], [])])
def test_flips_need_the_same_problems(a: list[bool], b: list[bool]) -> None:
    with pytest.raises(ValueError, match="the same ones"):
        flips(a, b)


def test_uplift_needs_as_many_of_each() -> None:
    with pytest.raises(ValueError, match="2 ranks, 1 and 2"):
        uplift_by_rank([0, 1], [0.0], [0.0, 1.0])
