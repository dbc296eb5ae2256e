"""pass@k against counting. Not covered: which samples are decided (tests/unit/evaluation)."""

from __future__ import annotations

import itertools
import math

import pytest

from rlpost.algorithms.passk import mean_and_error, pass_at_k


@pytest.mark.parametrize(
    ("n", "c", "k", "expected"),
    [
        (4, 1, 1, 1 / 4),
        (4, 1, 2, 1 / 2),  # 3 of 6 pairs hold the correct one
        (4, 2, 2, 5 / 6),  # 1 of 6 pairs misses both
        (5, 0, 3, 0.0),
        (5, 3, 3, 1.0),  # any 3 of 5 hold one of 3
        (5, 5, 1, 1.0),
        (1, 1, 1, 1.0),
        (1, 0, 1, 0.0),
    ],
)
def test_by_hand(n: int, c: int, k: int, expected: float) -> None:
    assert pass_at_k(n, c, k) == pytest.approx(expected, abs=1e-15)


def test_agreement_with_counting_every_subset() -> None:
    for n in range(1, 8):
        for c in range(n + 1):
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(range(n), k))
                share = sum(any(i < c for i in subset) for subset in subsets) / len(subsets)
                assert pass_at_k(n, c, k) == pytest.approx(share, abs=1e-12)


def test_large_counts_do_not_overflow() -> None:
    # one correct of 10000: k of n subsets hold it
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 1, 4), (3, 1, 0), (0, 0, 1), (3, 4, 1), (3, -1, 1)])
def test_impossible_counts_are_refused(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match="samples"):
        pass_at_k(n, c, k)


def test_mean_and_standard_error_by_hand() -> None:
    # 1, 0, 0, 1: mean 1/2, sample variance 4 · 1/4 / 3 = 1/3, error sqrt(1/3 / 4)
    assert mean_and_error([1, 0, 0, 1]) == pytest.approx((0.5, math.sqrt(1 / 12)))
    assert mean_and_error([0.25]) == (0.25, 0.0)


def test_a_mean_over_nothing_is_not_zero() -> None:
    with pytest.raises(ValueError, match="no values"):
        mean_and_error([])
