"""Remap, Reflect, Adjust by hand and by finite differences. Not covered: embeddings."""

from __future__ import annotations

import numpy as np
import pytest

from rlpost.errors import DataError
from rlpost_verifiers.catalog.remap import adjust, demonstration, positions, reflect, remap

S = np.array([[1.0, 0.2, 0.0], [0.0, 0.5, 0.4]])


def test_scores_by_hand() -> None:
    second = 1 / np.sqrt(2)
    plain = remap(S, [0, None])
    # similarity weighted by place, and 1 for the exact match of the first
    assert plain.tolist() == pytest.approx([1.0 + 1.0, 0.2 + 0.5 * second, 0.4 * second])
    talked = remap(S, [0, None], np.array([0.0, 0.1, 0.9]), weight=2.0)
    assert (talked - plain).tolist() == pytest.approx([0.0, 0.2, 1.8])
    rated = reflect(plain, {1: 2, 2: -1})
    assert (rated - plain).tolist() == pytest.approx([0.0, 1.0, -0.5])
    assert demonstration(rated, 2) == [0, 1]
    assert demonstration(rated, 5, left_out=[0]) == [1, 2]
    assert positions(0).tolist() == []


def test_equal_scores_keep_the_catalogs_order() -> None:
    assert demonstration(np.zeros(4), 3) == [0, 1, 2]


def drawn(seed: int = 0) -> tuple[np.ndarray, list[list[int]]]:
    """Users who want popular items more than the scores say: a bias that the fit can find."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(400, 6))
    logits = scores * np.array([1.0, 1.0, 2.0, 1.0, 1.0, 0.2]) + np.array([2.0, 0.0, 0.0, 0.0, -2.0, 0.0])
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return scores, [[int(rng.choice(6, p=row))] for row in chances]


def test_what_users_wanted_moves_scale_and_bias_towards_the_truth() -> None:
    scores, wanted = drawn()
    found = adjust(scores, wanted, penalty=1e-4)
    assert found.after < found.before
    bias = found.bias - found.bias.mean()
    assert bias[0] > 1.4 > 0.4 > abs(bias[1])
    assert bias[4] < -1.2
    assert found.scale[2] > 1.5 > 0.6 > found.scale[5]


def test_a_strong_penalty_leaves_the_scores_as_they_are() -> None:
    scores, wanted = drawn()
    found = adjust(scores, wanted, penalty=1e6)
    assert found(scores) == pytest.approx(scores, abs=1e-3)


def test_the_minimum_is_one_by_finite_differences() -> None:
    scores, wanted = drawn()
    found = adjust(scores[:50], wanted[:50])

    def loss(scale: np.ndarray, bias: np.ndarray) -> float:
        logits = scores[:50] * scale + bias
        logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        likelihood = np.mean([logs[q, items[0]] for q, items in enumerate(wanted[:50])])
        return float(-likelihood + 0.01 * (((scale - 1) ** 2).sum() + (bias**2).sum()))

    assert found.after == pytest.approx(loss(found.scale, found.bias), abs=1e-8)
    assert found.before == pytest.approx(loss(np.ones(6), np.zeros(6)), abs=1e-8)
    for item in range(6):
        step = np.zeros(6)
        step[item] = 1e-3
        for scale, bias in ((step, 0 * step), (0 * step, step)):
            assert loss(found.scale + scale, found.bias + bias) >= found.after - 1e-9
            assert loss(found.scale - scale, found.bias - bias) >= found.after - 1e-9


def test_users_who_want_nothing_take_no_part() -> None:
    scores, wanted = drawn()
    some = adjust(scores[:40], wanted[:40])
    more = adjust(scores[:50], [*wanted[:40], *[[]] * 10])
    assert more.bias == pytest.approx(some.bias, abs=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match="1 matches for a list of 2"):
        remap(S, [0])
    with pytest.raises(DataError, match="of 2 items, the catalog has 3"):
        remap(S, [0, None], np.zeros(2))
    with pytest.raises(DataError, match="rating 3"):
        reflect(np.zeros(3), {0: 3})
    with pytest.raises(DataError, match="nothing to adjust to"):
        adjust(np.zeros((2, 3)), [[], []])
    with pytest.raises(DataError, match="1 users for scores of 2"):
        adjust(np.zeros((2, 3)), [[0]])
