"""Exposure: models of attention, distances and their noise, by hand, and against exact enumeration of all swaps."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import sparse

from rlpost.algorithms.exposure import (
    attention,
    exceedance,
    jensen_shannon,
    normalised,
    simultaneous_intervals,
    sparse_exposure,
    swap_error,
    swaps,
    total_variation,
)


def test_attention_of_the_first_ranks() -> None:
    assert attention(3).tolist() == pytest.approx([1.0, 1 / math.log2(3), 0.5])
    assert attention(3, "rbp", 0.8).tolist() == pytest.approx([1.0, 0.8, 0.64])
    assert attention(4, "log", cut=2).tolist() == pytest.approx([1.0, 1 / math.log2(3), 0.0, 0.0])
    assert attention(0).tolist() == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "dcg"}, "attention is 'dcg'"),
        ({"model": "rbp", "patience": 1.0}, "patience is 1.0"),
        ({"model": "rbp", "patience": 0.0}, "patience is 0.0"),
        ({"cut": 0}, "cut is 0"),
    ],
)
def test_attention_refuses_what_is_no_model(options: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        attention(3, **options)


def test_distances_by_hand() -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.25, 0.25, 0.5])
    assert float(total_variation(p, q)) == 0.5
    # m = (3/8, 3/8, 1/4); ½ [log2(4/3)] + ½ [½ log2(2/3) + ½ log2(2)]
    expected = 0.5 * math.log2(4 / 3) + 0.5 * (0.5 * math.log2(2 / 3) + 0.5)
    assert float(jensen_shannon(p, q)) == pytest.approx(expected)
    assert float(jensen_shannon(p, p)) == 0.0
    assert jensen_shannon(np.stack([p, p]), np.stack([q, p])).tolist() == pytest.approx([expected, 0.0])


def test_lists_become_a_matrix_of_users_and_items() -> None:
    found = sparse_exposure([[0, None, 1], [1, 1]], [0, 0], (2, 2), np.array([1.0, 0.5, 0.25]))
    assert found.toarray().tolist() == [[1.0, 0.25 + 1.5], [0.0, 0.0]]
    assert sparse_exposure([[None]], [0], (1, 1), np.ones(1)).toarray().tolist() == [[0.0]]


def test_swaps_follow_the_enumeration_of_all_of_them() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, 3, (4, 5)).astype(float), rng.integers(0, 3, (4, 5)).astype(float)
    exact: list[tuple[float, float]] = []
    error = np.sqrt(np.square(a - b).sum(axis=0)) / ((a + b).sum() / 2)
    for turned in itertools.product([False, True], repeat=4):
        first = np.where(np.array(turned)[:, None], b, a).sum(axis=0)
        second = (a + b).sum(axis=0) - first
        p, q = first / first.sum(), second / second.sum()
        exact.append((0.5 * np.abs(p - q).sum(), float(np.abs((p - q) / error).max())))
    found = swaps(sparse.csr_matrix(a), sparse.csr_matrix(b), draws=4000, seed=1)
    assert {round(value, 9) for value in found.variation} == {round(value, 9) for value, _ in exact}
    assert found.variation.mean() == pytest.approx(np.mean([value for value, _ in exact]), abs=0.005)
    assert {round(value, 9) for value in found.largest} == {round(value, 9) for _, value in exact}
    assert swap_error(sparse.csr_matrix(a), sparse.csr_matrix(b)).tolist() == pytest.approx(error.tolist())


def test_equal_lists_have_no_noise_and_no_evidence() -> None:
    same = sparse.csr_matrix(np.ones((3, 2)))
    found = swaps(same, same, draws=99)
    assert found.variation.max() == found.divergence.max() == found.largest.max() == 0.0
    assert exceedance(0.0, found.variation) == 1.0


def test_a_p_value_counts_the_observed_draw() -> None:
    drawn = np.array([0.1, 0.2, 0.3])
    assert exceedance(np.array([0.35, 0.2, 0.0]), drawn).tolist() == [0.25, 0.75, 1.0]


def test_intervals_of_shares_by_hand_of_two_kinds_of_users() -> None:
    """Every user gives the same difference, so no resample can give another."""
    first, second = np.tile([1.0, 3.0], (5, 1)), np.tile([2.0, 2.0], (5, 1))
    low, high = simultaneous_intervals(first, second)
    assert low.tolist() == pytest.approx([-0.25, 0.25])
    assert high.tolist() == pytest.approx([-0.25, 0.25])
    mixed = np.array([[1.0, 0.0], [0.0, 1.0]] * 20)
    low, high = simultaneous_intervals(mixed, np.ones((40, 2)))
    # the share is a proportion of 40 coins: standard error sqrt(0.25 / 40); one degree of freedom, as shares sum to 1
    assert high.tolist() == pytest.approx([1.96 * math.sqrt(0.25 / 40)] * 2, rel=0.08)
    assert low.tolist() == pytest.approx([-1.96 * math.sqrt(0.25 / 40)] * 2, rel=0.08)


def test_intervals_need_two_users_and_a_level() -> None:
    with pytest.raises(ValueError, match="1 users say nothing"):
        simultaneous_intervals(np.ones((1, 2)), np.ones((1, 2)))
    with pytest.raises(ValueError, match="level is 1"):
        simultaneous_intervals(np.ones((3, 2)), np.ones((3, 2)), level=1)


def test_nothing_to_share_is_shared_by_nobody() -> None:
    assert normalised(np.array([[0.0, 0.0], [1.0, 3.0]])).tolist() == [[0.0, 0.0], [0.25, 0.75]]
