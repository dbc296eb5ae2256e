"""Figures of lists by hand, in both protocols. Their verifier: tests/unit/verifiers/test_catalog_verifier.py."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from rlpost.evaluation.lists import Listed, leads, list_figures, listed, popularity_shift
from rlpost.evaluation.outcomes import Outcome, compare, figures
from rlpost.types import ItemVerdict, Verdict

TWO, THREE = 1 / math.log2(3), 0.5


def test_a_list_by_hand_in_both_protocols() -> None:
    found = list_figures([Listed("shoh", 3)], [2, 5])
    # strict: hits at 2 and 4 of an ideal of three at 1, 2, 3
    assert found["recall@2"] == pytest.approx(1 / 3)
    assert found["ndcg@2"] == pytest.approx(TWO / (1 + TWO))
    assert found["ndcg@5"] == pytest.approx((TWO + 1 / math.log2(5)) / (1 + TWO + THREE))
    # released: "hh", measured against a list of two
    assert Listed("shoh", 3).gains("released") == [1.0, 1.0]
    assert found["recall@2 released"] == pytest.approx(2 / 3)
    assert found["ndcg@5 released"] == 1.0
    assert (found["in_catalog"], found["duplicates"], found["places"]) == (0.75, 0.0, 4.0)


def test_shares_are_taken_over_the_places_of_a_list_and_averaged_over_lists() -> None:
    found = list_figures([Listed("hddd", 1), Listed("uo", 1), Listed("", 1)], [1])
    assert found["recall@1"] == pytest.approx(1 / 3)
    assert found["recall@1_se"] == pytest.approx(1 / 3)
    # a list without places has no shares
    assert (found["in_catalog"], found["duplicates"], found["places"]) == (0.5, 0.375, 2.0)
    assert found["duplicates_se"] == pytest.approx(0.375)
    assert not {"novelty", "coverage"} & set(found)


def test_novelty_and_coverage_by_hand() -> None:
    one = Listed("hm", 1, ("a", "b"), (1.0, 3.0), 4)
    two = Listed("ho", 1, ("a", None), (1.0, None), 4)
    found = list_figures([one, two], [1])
    assert (found["novelty"], found["novelty_se"]) == (1.5, 0.5)
    assert (found["coverage"], found["coverage_se"]) == (0.5, 0.125)
    assert Listed("o", 1, (None,), (None,), 4).novelty is None


def test_a_shift_towards_popular_items_is_positive_and_paired() -> None:
    rare, common, none = (Listed("m", 1, ("x",), (bits,), 4) for bits in (5.0, 2.0, None))
    found = popularity_shift([rare, rare, none], [common, rare, common])
    assert (found["popularity_shift"], found["popularity_shift_se"]) == (1.5, 1.5)
    assert popularity_shift([none], [common]) == {}
    before, after = Outcome("a", "1", 1, "1", rare), Outcome("a", "1", 1, "1", common)
    assert compare([before], [after])["popularity_shift"] == 3.0
    assert "popularity_shift" not in compare([Outcome("a", "1", 1)], [after])


def test_answers_that_are_no_lists_have_no_such_figures() -> None:
    assert list_figures([], [5]) == {}
    assert not [name for name in figures([Outcome("a", "1", 1, "1")], [1], [5]) if name.startswith(("recall", "ndcg"))]
    assert listed(None) is None
    assert listed(Verdict("accepted", 1.0, "proved")) is None
    assert listed(Verdict("rejected", 0.0, "no_list", evidence={"relevant": 0})) is None


def test_a_verdict_is_read_place_by_place() -> None:
    reasons = ("hit", "miss", "relevant_elsewhere", "seen", "duplicate", "out_of_catalog", "unparsable", "of one's own")
    items = tuple(ItemVerdict(i, i + 1, "rejected", 0.0, reason, i) for i, reason in enumerate(reasons))
    found = listed(Verdict("accepted", 0.5, "hits", items, evidence={"relevant": 2, "items": ["a"], "catalog": 9}))
    assert found == Listed("hmesdoum", 2, ("a",), (), 9)
    assert Listed.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_weights_of_clicks_count_in_the_measures_as_in_the_reward() -> None:
    items = (ItemVerdict(0, 1, "rejected", 0.0, "miss"), ItemVerdict(2, 3, "accepted", 4.0, "hit", 1))
    evidence = {"relevant": 2, "relevances": [4.0, 1.0], "items": ["b", "a"], "catalog": 3}
    found = listed(Verdict("accepted", 0.5, "hits", items, evidence=evidence))
    assert found is not None
    assert (found.gains(), found.recall(2)) == ([0.0, 4.0], pytest.approx(4 / 5))
    assert found.ndcg(2) == pytest.approx(4 * TWO / (4 + TWO))
    assert Listed.from_json(json.loads(json.dumps(dataclasses.asdict(found)))) == found


def test_exact_length_seen_places_spread_and_exposure() -> None:
    lists = [
        Listed("hs", 1, ("a", "b"), catalog=4, groups=("old", "new")),
        Listed("m", 1, ("a",), catalog=4, groups=("old",)),
    ]
    found = list_figures(lists, [], size=2)
    assert (found["exact_length"], found["seen"]) == (0.5, 0.25)
    assert found["gini"] == pytest.approx((1 * 1 + 3 * 2) / (4 * 3))  # counts 0, 0, 1, 2
    assert found["exposure/old"] == pytest.approx(2 / (2 + TWO))
    assert not {"exact_length", "gini", "exposure/old"} & set(list_figures([Listed("h", 1)], [1]))
    many = [Listed("m" * 12, 1, groups=tuple(f"g{n:02}" for n in range(12)))]
    shares = {name: value for name, value in list_figures(many, []).items() if name.startswith("exposure/")}
    assert (len(shares), sum(shares.values())) == (9, pytest.approx(1.0))


def test_the_lead_is_taken_against_the_best_baseline_prompt_by_prompt() -> None:
    own = [Listed("hm", 1), Listed("mm", 1), Listed("hm", 1)]
    good, bad = [Listed("hm", 1), Listed("hm", 1), Listed("hm", 1)], [Listed("mm", 1)] * 3
    found = leads(own, {"bad": bad, "good": good}, [1])
    assert found["recall@1 lead"] == pytest.approx(-1 / 3)
    assert found["recall@1 lead_high"] <= 0 <= leads(own, {"bad": bad}, [1])["ndcg@1 lead_low"]
    assert leads(own, {}, [1]) == leads([], {"bad": []}, [1]) == {}


def test_intervals_are_taken_over_conversations() -> None:
    outcomes = [
        Outcome(f"{name}{n}", "1", 1, "1", Listed(marks, 1), cluster=name)
        for name, marks in (("a", "h"), ("b", "m"), ("c", "h"))
        for n in range(5)
    ]
    by_conversation = figures(outcomes, [1], [1])
    alone = figures([dataclasses.replace(one, cluster="") for one in outcomes], [1], [1])
    for name in ("ndcg@1", "in_catalog"):
        assert by_conversation[name] == pytest.approx(alone[name])
    assert by_conversation["ndcg@1_se"] > 1.8 * alone["ndcg@1_se"]
    assert by_conversation["ndcg@1_low"] == 0.0 < alone["ndcg@1_low"]
