"""Figures of lists by hand, in both protocols. Not covered: judging them (tests/unit/verifiers/test_catalog_verifier.py)."""

from __future__ import annotations

import math

import pytest

from rlpost.evaluation.lists import compact, list_figures, places
from rlpost.evaluation.outcomes import Outcome, figures
from rlpost.types import ItemVerdict, Verdict

TWO, THREE = 1 / math.log2(3), 0.5


def test_a_list_by_hand_in_both_protocols() -> None:
    found = list_figures([("shoh", 3)], [2, 5])
    # strict: hits at 2 and 4 of an ideal of three at 1, 2, 3
    assert found["recall@2"] == pytest.approx(1 / 3)
    assert found["ndcg@2"] == pytest.approx(TWO / (1 + TWO))
    assert found["ndcg@5"] == pytest.approx((TWO + 1 / math.log2(5)) / (1 + TWO + THREE))
    # released: "hh", measured against a list of two
    assert compact("shoh") == "hh"
    assert found["recall@2 released"] == pytest.approx(2 / 3)
    assert found["ndcg@5 released"] == 1.0
    assert (found["in_catalog"], found["duplicates"], found["places"]) == (0.75, 0.0, 4.0)


def test_shares_are_over_places_and_means_over_lists() -> None:
    found = list_figures([("hd", 1), ("uo", 1), ("", 1), ("h", 0)], [1])
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert (found["in_catalog"], found["duplicates"], found["places"]) == (0.5, 0.25, pytest.approx(4 / 3))
    assert found["recall@1_se"] == pytest.approx(1 / 3)


def test_answers_that_are_no_lists_have_no_such_figures() -> None:
    assert list_figures([("", 0)], [5]) == {}
    assert not [name for name in figures([Outcome("a", "1", 1, "1")], [1], [5]) if name.startswith(("recall", "ndcg"))]
    assert places(None) == ("", 0)
    assert places(Verdict("accepted", 1.0, "proved")) == ("", 0)


def test_a_verdict_is_read_place_by_place() -> None:
    reasons = ("hit", "miss", "relevant_elsewhere", "seen", "duplicate", "out_of_catalog", "unparsable", "of one's own")
    items = tuple(ItemVerdict(i, i + 1, "rejected", 0.0, reason, i) for i, reason in enumerate(reasons))
    assert places(Verdict("accepted", 0.5, "hits", items, evidence={"relevant": 2})) == ("hmesdoum", 2)
