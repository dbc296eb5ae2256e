"""Intervals against values worked out by hand or looked up. Not covered: coverage in the long run."""

from __future__ import annotations

import numpy as np
import pytest

from rlpost.algorithms.intervals import over_problems, over_seeds, with_errors


def test_a_mean_of_equal_values_is_certain() -> None:
    assert over_problems([0.5] * 7) == (0.5, 0.5)
    assert over_seeds([0.5, 0.5]) == (0.5, 0.5)


def test_the_bootstrap_of_many_coin_flips_is_the_normal_interval() -> None:
    values = [1.0] * 120 + [0.0] * 280
    half = 1.96 * np.sqrt(0.3 * 0.7 / 400)
    assert over_problems(values) == pytest.approx((0.3 - half, 0.3 + half), abs=0.004)


def test_the_bootstrap_stays_among_the_values_and_repeats_itself() -> None:
    rare = [1.0] + [0.0] * 99
    low, high = over_problems(rare)
    assert low == 0.0
    assert 0.0 < high <= 0.05
    assert over_problems(rare) == (low, high)
    narrow = over_problems(rare, level=0.5)
    assert low <= narrow[0] <= narrow[1] <= high


def test_seeds_by_hand() -> None:
    # mean 2, s = 1, t(2) = 4.302653: 4.302653 / √3 = 2.484138
    assert over_seeds([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.484138, 2 + 2.484138), abs=1e-5)
    # t(1) = 12.706205, s / √2 = 0.5
    assert over_seeds([0.0, 1.0]) == pytest.approx((0.5 - 6.353102, 0.5 + 6.353102), abs=1e-5)


def test_nothing_and_one_run_have_no_interval() -> None:
    with pytest.raises(ValueError, match="no values"):
        over_problems([])
    with pytest.raises(ValueError, match="one run says nothing"):
        over_seeds([0.5])
    with pytest.raises(ValueError, match="level is 1"):
        over_problems([0.5], level=1.0)


def test_answers_to_one_conversation_count_as_one() -> None:
    values = [0.2, 0.4, 0.9, 0.5]
    alone = with_errors("x", values, ["a", "b", "c", "d"])
    assert alone["x_se"] == pytest.approx(with_errors("x", values)["x_se"])
    # each conversation four times says no more than once
    names = [name for name in "abcd" for _ in range(4)]
    fourfold = with_errors("x", [value for value in values for _ in range(4)], names)
    assert fourfold["x"] == pytest.approx(alone["x"])
    assert fourfold["x_se"] == pytest.approx(alone["x_se"])
    assert (fourfold["x_low"], fourfold["x_high"]) == pytest.approx((alone["x_low"], alone["x_high"]))
    assert with_errors("x", [value for value in values for _ in range(4)])["x_se"] < 0.6 * alone["x_se"]
    # one conversation leaves its spread unknown
    assert with_errors("x", values, ["a"] * 4) | {"x": 0} == {"x": 0, "x_se": 0.0, "x_low": 0.5, "x_high": 0.5}
    with pytest.raises(ValueError, match="4 values and 1 clusters"):
        with_errors("x", values, ["a"])


def test_unequal_conversations_by_hand() -> None:
    # x̄ = 0.5; sums of deviations 0.5 and -0.5; √(2/1 · 0.5) / 4
    found = with_errors("x", [1.0, 0.0, 0.5, 0.5], ["a", "b", "a", "b"])
    assert found["x_se"] == pytest.approx((2 * (0.5**2 + 0.5**2)) ** 0.5 / 4)
