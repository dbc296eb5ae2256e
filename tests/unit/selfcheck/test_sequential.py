"""The boundary of the sequential test: by hand, and by many runs that are looked at after every step."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlpost.selfcheck import sequential
from rlpost.selfcheck.sequential import boundary, excess_over_chance


def test_the_boundary_by_hand() -> None:
    # V = s = 1: sqrt(2 log(2 / α²))
    expected = math.sqrt(2 * math.log(2 / sequential.ALPHA**2))
    assert boundary(1.0, 1.0) == pytest.approx(expected)
    assert boundary(100.0, 25.0) > boundary(10.0, 25.0)


def test_nothing_and_not_a_number() -> None:
    assert excess_over_chance(0.0, 0.0, 0.0) == 0.0
    assert excess_over_chance(1.0, 0.25, 0.0) == 0.75
    assert excess_over_chance(math.nan, 0.0, 1.0) == math.inf


def test_looking_after_every_step_keeps_the_error_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    """With α = 0.05, of 2,000 fair walks of 300 steps at most about 5 % are ever stopped; looking each time with the
    usual bound of 1.96 √V would stop four in ten.
    """
    monkeypatch.setattr(sequential, "ALPHA", 0.05)
    steps = np.random.default_rng(0).normal(size=(2000, 300)).cumsum(1)
    variances = np.arange(1, 301)
    bound = np.array([boundary(v, 20.0) for v in variances])
    ever = (np.abs(steps) > bound).any(1).mean()
    usual = (np.abs(steps) > 1.96 * np.sqrt(variances)).any(1).mean()
    assert ever < 0.05 < 0.4 < usual
