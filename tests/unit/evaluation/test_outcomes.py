"""Figures, files and comparisons of outcomes by hand. Not covered: sampling (tests/unit/loop/test_evaluate.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlpost.errors import DataError, InfrastructureError
from rlpost.evaluation import compare, outcomes
from rlpost.evaluation.lists import Listed
from rlpost.evaluation.outcomes import Outcome, figures


def test_figures_by_hand() -> None:
    found = figures(
        [Outcome("a", "1100", 2, "1"), Outcome("b", "0000", 0, "0"), Outcome("c", "1??1", 1, "?")], [1, 2, 4]
    )
    assert found["pass@1"] == pytest.approx((0.5 + 0 + 1) / 3)
    assert found["pass@2"] == pytest.approx((5 / 6 + 0 + 1) / 3)
    assert found["pass@4"] == pytest.approx(0.5)  # c has two decided samples
    assert found["greedy"] == 0.5
    assert (found["prompts"], found["distinct"]) == (3.0, 1.0)
    assert found["undecided"] == pytest.approx(2 / 12)
    assert found["pass@1_low"] <= found["pass@1"] <= found["pass@1_high"]


def test_nothing_decided_is_a_failure() -> None:
    with pytest.raises(InfrastructureError, match="no prompt has 2 decided"):
        figures([Outcome("a", "1?", 1)], [2])
    with pytest.raises(InfrastructureError, match="no greedy answer"):
        figures([Outcome("a", "1", 1, "?")], [1])


def test_flips_look_at_the_prompts_and_samples_that_both_have() -> None:
    before = [Outcome("a", "0010", 1), Outcome("b", "0000", 0), Outcome("c", "1000", 1), Outcome("d", "1111", 1)]
    after = [Outcome("a", "00", 0), Outcome("b", "01", 1), Outcome("c", "00", 0), Outcome("e", "11", 1)]
    # the first two samples of a, b, c: a was not solved before, b is solved now, c is lost
    assert outcomes.compare(before, after) == pytest.approx({"negative_flips": 1 / 3, "positive_flips": 1 / 3})
    assert outcomes.compare(before, [Outcome("z", "1", 1)]) == {}


def test_what_was_recorded_before_a_failure_stays(tmp_path: Path) -> None:
    file, one = tmp_path / "new" / "outcomes.jsonl", Outcome("ü", "1?0", 1, "1", Listed("h", 1, ("a",), (2.0,), 3))

    def fail() -> None:
        with outcomes.recorder(file) as record:
            record(one)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert outcomes.read(file) == [one]


@pytest.mark.parametrize("text", ["{}", "nothing", '{"id": "a", "samples": "1", "distinct": 1, "more": 2}'])
def test_another_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "f").write_text(text)
    with pytest.raises(DataError, match="no outcomes"):
        outcomes.read(tmp_path / "f")
    with pytest.raises(DataError, match="no outcomes"):
        outcomes.read(tmp_path / "absent")


def run(*marks: str) -> list[Outcome]:
    return [Outcome(str(i), mark, 0) for i, mark in enumerate(marks)]


def test_a_difference_pairs_prompts_and_seeds() -> None:
    first, second = [run("11", "10"), run("11", "00")], [run("10", "10"), run("10", "00")]
    found = compare.difference(first, second, compare.passes(1))
    # by prompt 0.5 and 0; by seed 0.25 and 0.25
    assert found.mean == pytest.approx(0.25)
    assert found.seeds == pytest.approx((0.25, 0.25))
    assert found.problems == pytest.approx((0.0, 0.5))
    assert compare.mean(first, compare.passes(2)).mean == pytest.approx((1 + 1 + 1 + 0) / 4)
    assert compare.mean(first[:1], compare.passes(1)).seeds is None


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([run("1")], [run("1"), run("1")], "1 runs against 2"),
        ([run("1")], [[Outcome("other", "1", 1)]], "different prompts"),
        ([run("1"), [Outcome("other", "1", 1)]], [run("1"), run("1")], "different prompts"),
        ([run("?")], [run("1")], "0 decided samples, pass@1 needs 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: list, second: list, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare.difference(first, second, compare.passes(1))


def test_a_measure_of_lists() -> None:
    first = [[Outcome("a", "1", 1, "1", Listed("h", 1)), Outcome("b", "0", 0, "0", Listed("mh", 1))]]
    second = [[Outcome("a", "0", 0, "0", Listed("mh", 1)), Outcome("b", "0", 0, "0", Listed("mm", 1))]]
    found = compare.difference(first, second, compare.of_list(lambda one: one.recall(1)))
    assert (found.mean, found.seeds) == (0.5, None)
    with pytest.raises(DataError, match="no judged list"):
        compare.mean([[Outcome("a", "1", 1)]], compare.of_list(lambda one: one.recall(1)))
