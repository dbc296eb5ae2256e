"""Differences of log-probabilities. Not covered: the tolerances (tests/unit/selfcheck)."""

from __future__ import annotations

import math

import pytest

from rlpost.algorithms.diagnostics import Mismatch, mismatch


def test_mean_and_maximum_by_hand() -> None:
    # |differences| 0.5, 0, 1: mean 0.5, maximum 1, over all tokens and not over completions
    found = mismatch([[-1.0, -2.0], [-3.0]], [[-1.5, -2.0], [-2.0]])
    assert found == Mismatch(0.5, 1.0, 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_nan_or_infinite_logprob_gives_an_infinite_mismatch(bad: float) -> None:
    assert mismatch([[0.0, bad]], [[0.0, 0.0]]) == Mismatch(math.inf, math.inf, 2)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_two_infinities_do_not_cancel() -> None:
    assert mismatch([[-math.inf]], [[-math.inf]]).mean == math.inf


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ([[0.0]], [], "1 completions against 0"),
        ([[0.0], [0.0, 1.0]], [[0.0], [0.0]], "completion 1: 2 log-probabilities against 1"),
        ([], [], "no tokens"),
        ([[]], [[]], "no tokens"),
    ],
)
def test_what_cannot_be_compared_is_refused(first: list, second: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mismatch(first, second)
