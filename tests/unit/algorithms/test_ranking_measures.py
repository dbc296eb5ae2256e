"""Measures of ranked lists by hand. Not covered: the verifier of the lists."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlpost.algorithms.ranking import (
    coverage,
    dcg,
    exposure,
    gini,
    ndcg,
    recall,
    self_information,
    weighted_recall,
)

ONE, TWO, THREE = 1.0, 1 / math.log2(3), 0.5


def test_measures_by_hand() -> None:
    gains, relevant = [0.0, 1.0, 1.0], [1.0, 1.0, 1.0]
    assert dcg(gains) == pytest.approx(TWO + THREE)
    assert ndcg(gains, relevant, 3) == pytest.approx((TWO + THREE) / (ONE + TWO + THREE))
    assert ndcg(gains, relevant, 2) == pytest.approx(TWO / (ONE + TWO))
    assert (recall(gains, relevant, 1), recall(gains, relevant, 3)) == (0.0, pytest.approx(2 / 3))


def test_a_short_list_is_measured_against_a_short_ideal_only_by_the_released_protocol() -> None:
    assert ndcg([1.0], [1.0, 1.0], 5, "released") == 1.0
    assert ndcg([1.0], [1.0, 1.0], 5, "strict") == pytest.approx(ONE / (ONE + TWO))
    assert ndcg([], [1.0], 5, "released") == 0.0


def test_the_ideal_list_is_sorted_by_gain() -> None:
    assert ndcg([1.0, 3.0], [3.0, 1.0], 2) == pytest.approx((1 + 3 * TWO) / (3 + TWO))


@given(st.permutations([1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]), st.integers(1, 9))
def test_measures_lie_between_nothing_and_the_ideal(gains: list[float], k: int) -> None:
    for protocol in ("strict", "released"):
        assert 0.0 <= ndcg(gains, [1.0] * 3, k, protocol) <= 1.0 + 1e-12  # type: ignore[arg-type]
    assert recall(gains, [1.0] * 3, k) <= recall(gains, [1.0] * 3, k + 1)


@pytest.mark.parametrize(("relevant", "k", "message"), [([], 3, "undecided"), ([1.0], 0, "k is 0")])
def test_what_cannot_be_measured_is_refused(relevant: list[float], k: int, message: str) -> None:
    for measure in (ndcg, recall):
        with pytest.raises(ValueError, match=message):
            measure([1.0], relevant, k)


def test_coverage_and_its_error_by_hand() -> None:
    assert coverage([["a", "b"], ["b"]], 4) == (0.5, 0.125)
    assert coverage([["a", "a"]], 2) == (0.5, 0.0)
    # three equal lists: leaving one out changes nothing
    assert coverage([["a"]] * 3, 2) == (0.5, 0.0)


def test_rare_items_are_surprising() -> None:
    assert self_information([6.0, 2.0]) == pytest.approx([math.log2(8 / 6), 2.0])
    assert self_information([8.0, 0.0])[1] == pytest.approx(3.0)
    assert self_information([0.0, 0.0]) == [0.0, 0.0]


def test_gini_by_hand_and_by_its_definition_as_mean_difference() -> None:
    assert gini([5.0, 5.0, 5.0], 3) == pytest.approx(0.0)
    assert gini([1.0, 3.0], 2) == pytest.approx(0.25)  # (2·1-3)·1 + (2·2-3)·3 = 2 over 2 · 4
    counts = [4.0, 1.0, 2.0, 0.0, 0.0]
    # G = Σ_i Σ_j |x_i - x_j| / (2 n² mean)
    pairs = sum(abs(a - b) for a in counts for b in counts)
    assert gini([4.0, 1.0, 2.0], 5) == pytest.approx(pairs / (2 * 25 * (7 / 5)))
    for wrong in ([], [1.0, 1.0]):
        with pytest.raises(ValueError, match="recommended of 1"):
            gini(wrong, 1)


def test_exposure_weighs_places_by_attention() -> None:
    found = exposure([["a", "b", None], ["b"]])
    assert found == {"a": pytest.approx(ONE / (2 * ONE + TWO)), "b": pytest.approx((ONE + TWO) / (2 * ONE + TWO))}
    assert exposure([[None]]) == {}


def test_recall_of_clicks_weighs_them_by_inverse_propensity() -> None:
    # a click at a rank that is examined a quarter of the time stands for four
    assert weighted_recall([4.0, 0.0, 1.0], [4.0, 1.0, 2.0], 2) == pytest.approx(4 / 7)
    assert weighted_recall([1.0, 0.0], [1.0, 1.0], 2) == recall([1.0, 0.0], [1.0, 1.0], 2)
    with pytest.raises(ValueError, match="undecided"):
        weighted_recall([], [], 1)
