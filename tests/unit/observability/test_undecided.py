"""Texts that stay undecided: shares, repeats, and what is told once."""

from __future__ import annotations

from rlpost.observability.metrics import check_names
from rlpost.observability.undecided import UndecidedTexts
from rlpost.plugins.normal_forms import normal_form


def test_the_largest_share_of_equal_texts_is_that_of_the_batch() -> None:
    texts = UndecidedTexts(3)
    found, told = texts.add(["a  b", "a b", "a\nb", "c"])
    assert found == {"undecided_same_share": 0.75, "undecided_repeated": 0.0}
    assert told == ["answers that begin 'a b' stayed undecided in 1 of the last 1 batches (3 in all)"]
    check_names(found)


def test_nothing_is_said_where_nothing_is_undecided() -> None:
    texts = UndecidedTexts(3)
    assert texts.add([]) == ({}, [])
    assert texts.add(["a"]) == ({"undecided_repeated": 0.0}, [])


def test_a_text_is_told_once_and_forgotten_after_the_window() -> None:
    texts = UndecidedTexts(2)
    told = [texts.add(batch)[1] for batch in (["a"], ["a"], ["a"], ["a", "a", "a"])]
    assert [len(lines) for lines in told] == [0, 1, 0, 0]
    repeated = [texts.add(batch)[0].get("undecided_repeated") for batch in (["b"], ["c"], [], ["a"], [], [])]
    assert repeated == [0.0, 0.0, 0.0, 0.0, 0.0, None]


def test_a_long_text_is_cut_and_keeps_to_one_line() -> None:
    [line] = UndecidedTexts(2).add(["theorem t :\n  True := by\n" + "  skip\n" * 90] * 3)[1]
    assert "'theorem t : True := by skip" in line
    assert len(line) < 160
    assert "\n" not in line


def test_answers_that_differ_in_what_the_verifier_does_not_read_are_the_same() -> None:
    texts = UndecidedTexts(2, normal_form("lean.embedded"))
    found, _ = texts.add(["by\n  rfl -- first", "by rfl -- second", "by\n rfl"])
    assert found["undecided_same_share"] == 1.0
    assert normal_form("no.such.verifier")(" a  b") == "a b"
