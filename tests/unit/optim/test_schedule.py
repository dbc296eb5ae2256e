"""The learning rate by hand. Not covered: counting updates (tests/unit/learner/test_policy_learner.py)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlpost.optim.schedule import learning_rate, position


def rate(update: float, kind: Any = "constant", warmup: int = 0, total: int = 10, floor: float = 0.0) -> float:
    return learning_rate(update, peak=2.0, warmup=warmup, total=total, kind=kind, floor=floor)


def test_the_warmup_rises_in_equal_steps_and_never_from_zero() -> None:
    # (u + 1) / 4 of the peak, then the peak
    assert [rate(u, warmup=3) for u in range(5)] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])


def test_linear_decay_by_hand() -> None:
    # from 2 at update 2 to 0 at update 10, in 8 steps of 1/4
    assert [rate(u, "linear", warmup=2) for u in (2, 3, 6, 10, 50)] == pytest.approx([2.0, 1.75, 1.0, 0.0, 0.0])


def test_cosine_decay_by_hand() -> None:
    # a quarter of the way: (1 + cos 45°) / 2
    quarter = (1 + math.sqrt(0.5)) / 2
    found = [rate(u, "cosine", total=8) for u in (0, 2, 4, 8, 9)]
    assert found == pytest.approx([2.0, 2 * quarter, 1.0, 0.0, 0.0], abs=1e-12)


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_floor_is_a_share_of_the_peak(kind: str) -> None:
    # half way: 0.1 + 0.9 / 2
    assert rate(5, kind, floor=0.1) == pytest.approx(2 * 0.55)
    assert rate(10, kind, floor=0.1) == pytest.approx(0.2)


@pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])
def test_a_run_shorter_than_its_warmup_still_has_a_rate(kind: str) -> None:
    assert [rate(u, kind, warmup=5, total=3) for u in range(3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_a_batch_with_all_its_updates_has_the_numbers_of_its_updates() -> None:
    found = [position(step, update, 3, 3) for step in range(400) for update in range(3)]
    assert found == list(range(1200))
    # and the rates are those of counted updates, bit by bit
    assert [rate(float(n), "cosine", warmup=2, total=1200) for n in range(1200)] == [
        rate(n, "cosine", warmup=2, total=1200) for n in range(1200)
    ]


def test_a_batch_with_fewer_or_more_updates_spreads_them_over_its_share_of_the_run() -> None:
    assert [position(2, update, 1, 4) for update in range(1)] == [8.0]
    assert [position(2, update, 3, 4) for update in range(3)] == pytest.approx([8.0, 8 + 4 / 3, 8 + 8 / 3])
    assert [position(2, update, 8, 4) for update in range(8)] == [8 + n / 2 for n in range(8)]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_a_run_that_leaves_half_its_updates_out_still_ends_near_the_floor(kind: str) -> None:
    # 50 steps of nominally 4 updates, of which 2 are made: the last is at 198 of 200, counted it would be at 99
    last = position(49, 1, 2, 4)
    assert last == 198
    assert rate(last, kind, total=200) < 0.0201  # of a peak of 2
    assert rate(99, kind, total=200) > 2 * 0.49
