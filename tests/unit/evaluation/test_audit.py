"""Audits of exposure: values by hand, noise and confidence on lists of which the truth is known. The mathematics is
tested in tests/unit/algorithms/test_exposure.py.
"""

from __future__ import annotations

import numpy as np
import pytest

from rlpost.commands.audit import document, render, statement
from rlpost.errors import DataError, UserError
from rlpost.evaluation.audit import NO_GROUP, AuditSettings, audit
from rlpost.evaluation.ranked import Ranking

QUICK = AuditSettings(draws=199)
TWO = 1 / np.log2(3)


def drawn(users: int, worth: np.ndarray, seed: int, places: int = 5) -> list[Ranking]:
    rng = np.random.default_rng(seed)
    p = worth / worth.sum()
    return [
        Ranking(f"u{n}", tuple(f"i{i}" for i in rng.choice(len(worth), places, replace=False, p=p)))
        for n in range(users)
    ]


def test_shares_of_groups_and_items_by_hand() -> None:
    first = [Ranking("q1", ("a", "b")), Ranking("q2", ("a", None))]
    second = [Ranking("q2", ("b", "a")), Ranking("q1", ("c", "b"))]
    found = audit(first, second, QUICK, {"a": ["old"], "b": ["new"], "c": ["new", "old"]})
    assert (found.users, found.queries, found.items) == (2, 2, 3)
    old, new = (next(one for one in found.groups if one.name == name) for name in ("old", "new"))
    # first: a 2, b TWO of 2 + TWO; second: b 1 + TWO, a TWO, c 1 of 2 + 2 TWO, c counting half in each group
    assert old.first == pytest.approx(2 / (2 + TWO))
    assert old.second == pytest.approx((TWO + 0.5) / (2 + 2 * TWO))
    assert new.difference == pytest.approx(-old.difference)
    assert found.group_variation is not None
    assert found.group_variation.value == pytest.approx(abs(old.difference))
    assert found.unnamed == (pytest.approx(TWO / (2 + 2 * TWO)), 0.0)
    moved = {one.name: one.difference for one in found.movers}
    assert moved["c"] == pytest.approx(1 / (2 + 2 * TWO))
    assert found.variation.value == pytest.approx(sum(abs(value) for value in moved.values()) / 2)
    assert [abs(one.difference) for one in found.movers] == sorted(map(abs, moved.values()), reverse=True)


def test_two_samples_of_one_recommender_differ_by_chance_only() -> None:
    worth = np.arange(1.0, 31.0)
    groups = {f"i{i}": [f"g{i % 3}"] for i in range(30)}
    found = [audit(drawn(60, worth, 2 * n), drawn(60, worth, 2 * n + 1), QUICK, groups) for n in range(20)]
    assert sum(one.variation.p <= 0.05 for one in found) <= 4
    assert sum(one.moved > 0 for one in found) <= 4
    assert sum(any(g.low > 0 or g.high < 0 for g in one.groups) for one in found) <= 4
    assert all(one.variation.value > 0.05 for one in found), "the distance itself is not 0: that is what noise is for"
    assert np.mean([one.variation.value / one.variation.noise for one in found]) == pytest.approx(1.0, abs=0.1)


def test_a_repetition_shows_nothing() -> None:
    first = [Ranking(f"q{n}", ("a", "a", "b", None)) for n in range(2)]
    second = [Ranking(f"q{n}", ("a", None, "b", None)) for n in range(2)]
    found = audit(first, second, QUICK)
    assert found.variation.value == 0.0
    missing = (TWO + 1 / np.log2(5)) / (1 + TWO + 0.5 + 1 / np.log2(5))
    assert found.unnamed == (pytest.approx(missing), pytest.approx(missing))


def test_a_pushed_group_is_found_and_its_interval_holds_the_truth() -> None:
    worth, pushed = np.ones(40), np.ones(40)
    pushed[:10] = 3.0
    groups = {f"i{i}": ["pushed" if i < 10 else "rest"] for i in range(40)}
    truth = audit(drawn(20000, worth, 1), drawn(20000, pushed, 2), AuditSettings(draws=99), groups).groups
    expected = next(one.difference for one in truth if one.name == "pushed")
    hits = 0
    for n in range(20):
        found = audit(drawn(80, worth, 50 + n), drawn(80, pushed, 150 + n), QUICK, groups)
        group = next(one for one in found.groups if one.name == "pushed")
        assert group.low > 0
        assert group.p == pytest.approx(1 / 200)
        hits += group.low <= expected <= group.high
        assert "the share of exposure of 'pushed' differs by +" in statement(found)
    assert hits >= 17


def test_users_with_several_queries_are_one_user() -> None:
    """Ten copies of each list say no more than one."""
    worth, n = np.arange(1.0, 21.0), 30
    a, b = drawn(n, worth, 3), drawn(n, worth[::-1].copy(), 4)
    many = [
        [Ranking(f"{one.query}-{copy}", one.items, one.query) for one in lists for copy in range(10)]
        for lists in (a, b)
    ]
    groups = {f"i{i}": ["low" if i < 10 else "high"] for i in range(20)}
    once, often = audit(a, b, QUICK, groups), audit(many[0], many[1], QUICK, groups)
    assert (often.users, often.queries) == (n, 10 * n)
    assert [one.low for one in often.groups] == pytest.approx([one.low for one in once.groups])
    assert often.variation.noise == pytest.approx(once.variation.noise)


def test_lists_without_a_partner_are_told_and_left_out() -> None:
    lists = drawn(40, np.ones(10), 1)
    found = audit([*lists, Ranking("alone", ("x",))], lists[1:], QUICK)
    assert found.queries == 39
    assert found.notes[0] == "2 of 41 queries have a list of the first only ('u0'); left out"
    assert found.groups == ()
    assert found.group_variation is None


def test_groups_come_from_the_lists_and_items_without_one_are_a_group() -> None:
    first = [Ranking(f"q{n}", ("a", "b"), groups=("x", None)) for n in range(3)]
    second = [Ranking(f"q{n}", ("b", "a"), groups=(None, "x")) for n in range(3)]
    assert [one.name for one in audit(first, second, QUICK).groups] == [NO_GROUP, "x"]
    told = audit(first, second, QUICK, {"a": ["x"]})
    assert "1 of 2 items have no group; they are (no group)" in told.notes
    assert any("3 users are few" in note for note in told.notes)


def test_ids_of_two_worlds_are_told() -> None:
    first = [Ranking(f"q{n}", ("Alien (1979)",)) for n in range(40)]
    second = [Ranking(f"q{n}", ("tt0078748",)) for n in range(40)]
    found = audit(first, second, QUICK)
    assert found.variation.value == 1.0
    assert any("no item in common" in note for note in found.notes)


def test_what_cannot_be_compared_is_refused() -> None:
    one, other = [Ranking("q1", ("a",)), Ranking("q2", ("b",))], [Ranking("x", ("a",))]
    with pytest.raises(DataError, match="no query has a list of both"):
        audit(one, other)
    with pytest.raises(DataError, match="all lists are of one user"):
        audit(one[:1], one[:1])
    with pytest.raises(DataError, match="the second shows no item"):
        audit(one, [Ranking("q1", ()), Ranking("q2", (None,))])
    for wrong, said in (({"draws": 5}, "draws is 5"), ({"cut": 0}, "cut is 0"), ({"movers": -1}, "movers is -1")):
        with pytest.raises(UserError, match=said):
            AuditSettings(**wrong)


def test_the_report_says_what_the_document_says() -> None:
    found = audit(drawn(50, np.ones(6), 1, 3), drawn(50, np.ones(6), 2, 3), QUICK, {"i0": ["a|b\nc"]})
    plain, text = document(found, QUICK, ("A", "B")), render(found, QUICK, ("A", "B"))
    assert plain["statement"] in text
    assert "no group's share of exposure differs by more than" in plain["statement"]
    assert {"users", "variation", "groups", "movers", "moved", "notes", "attention", "level"} <= set(plain)
    assert plain["groups"][0]["difference"] == pytest.approx(found.groups[0].difference)
    assert "| a\\|b c |" in text, "a name cannot break the table"
    assert text.split("## Items")[1].count("\n| i") == 1 + len(found.movers), "the head and every item"
