"""The sampler by hand. Not covered: its general properties (tests/property/test_plans.py)."""

from __future__ import annotations

import pytest

from rlpost.data.sampler import order, rows


def test_without_shuffling_the_rows_go_round() -> None:
    assert [rows(first, 2, 3, seed=0, shuffle=False) for first in (0, 2, 4)] == [[0, 1], [2, 0], [1, 2]]


def test_a_step_may_span_several_epochs() -> None:
    assert rows(0, 7, 3, seed=0, shuffle=False) == [0, 1, 2, 0, 1, 2, 0]
    assert rows(7, 7, 3, seed=0, shuffle=False) == [1, 2, 0, 1, 2, 0, 1]


def test_epochs_and_seeds_differ() -> None:
    assert order(0, 50, 1, True) != order(1, 50, 1, True)
    assert order(0, 50, 1, True) != order(0, 50, 2, True)
    assert order(0, 50, 1, True) == order(0, 50, 1, True)


@pytest.mark.parametrize(("first", "number", "count"), [(-1, 1, 1), (0, 0, 1), (0, 1, 0)])
def test_what_cannot_be_sampled_is_refused(first: int, number: int, count: int) -> None:
    with pytest.raises(ValueError, match="need first"):
        rows(first, number, count, seed=0)
