"""The learning rate by hand. Not covered: counting updates (tests/unit/learner/test_policy_learner.py)."""

from __future__ import annotations

import math
from typing import Any

import pytest

from rlpost.optim.schedule import learning_rate


def rate(update: int, kind: Any = "constant", warmup: int = 0, total: int = 10, floor: float = 0.0) -> float:
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
