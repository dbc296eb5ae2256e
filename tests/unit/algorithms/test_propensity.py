"""Propensities by hand, and estimated from clicks that were drawn from them."""

from __future__ import annotations

import numpy as np
import pytest

from rlpost.algorithms.propensity import estimate, inverse_weights


def test_weights_by_hand() -> None:
    assert inverse_weights([1, 2, 2, 7], [1.0, 0.5]) == [1.0, 2.0, 2.0, 2.0]
    assert inverse_weights([2], [1.0, 0.001], least=0.1) == [10.0]
    assert inverse_weights([], [1.0]) == []


@pytest.mark.parametrize(
    ("ranks", "propensities", "least"), [([0], [1.0], 0.1), ([1], [], 0.1), ([1], [1.5], 0.1), ([1], [1.0], 0.0)]
)
def test_numbers_that_are_no_propensities_are_refused(
    ranks: list[int], propensities: list[float], least: float
) -> None:
    with pytest.raises(ValueError, match=r"rank|propensities"):
        inverse_weights(ranks, propensities, least)


def drawn(theta: np.ndarray, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    gamma = rng.uniform(0.1, 0.9, 40)
    items, ranks = rng.integers(0, 40, count), rng.integers(1, len(theta) + 1, count)
    return items, ranks, rng.random(count) < theta[ranks - 1] * gamma[items]


def test_propensities_are_found_again_in_clicks_drawn_from_them() -> None:
    theta = np.array([1.0, 0.7, 0.5, 0.3])
    items, ranks, clicks = drawn(theta, 60_000)
    assert estimate(items, ranks, clicks) == pytest.approx(theta, abs=0.05)


def test_clicks_divided_by_propensities_are_right_on_average() -> None:
    theta = np.array([1.0, 0.5, 0.25])
    items, ranks, clicks = drawn(theta, 200_000, seed=1)
    weights = np.array(inverse_weights(ranks.tolist(), theta.tolist()))
    liked = [float((clicks * weights)[(items == 3) & (ranks == rank)].mean()) for rank in (1, 2, 3)]
    assert liked == pytest.approx([liked[0]] * 3, abs=0.08)


def test_logs_that_cannot_tell_rank_from_relevance_are_refused() -> None:
    with pytest.raises(ValueError, match="cannot be told apart"):
        estimate([0, 1, 0], [1, 2, 1], [True, False, True])
    with pytest.raises(ValueError, match="give one of each"):
        estimate([0], [1, 2], [True])
