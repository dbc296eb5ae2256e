"""What advantages do not depend on. Not covered: their values (tests/unit/algorithms/test_advantages.py)."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlpost.algorithms.advantages import AdvantageSettings, group_advantages, normalise, spread_over_tokens
from rlpost.types import Reward, SpanReward

MODES = settings(deadline=None, derandomize=True, max_examples=100)
NUMBERS = st.integers(-40, 40).map(lambda n: n / 8)
SETTINGS = st.builds(
    AdvantageSettings,
    baseline=st.sampled_from(["mean", "leave_one_out"]),
    std=st.booleans(),
    ddof=st.sampled_from([0, 1]),
    eps=st.just(1e-6),
)


def flat(rows: list[list[float] | None]) -> list[float]:
    return [math.inf if row is None else value for row in rows for value in (row or [0.0])]


def rewards(values: list[list[float] | None]) -> list[Reward | None]:
    return [
        None if row is None else tuple(SpanReward(i, i + 1, v, index=i) for i, v in enumerate(row)) for row in values
    ]


GROUPS = st.lists(st.none() | st.lists(NUMBERS, max_size=3), min_size=1, max_size=6)


@MODES
@given(GROUPS, NUMBERS, SETTINGS)
def test_a_constant_on_all_rewards_changes_nothing(values: list, constant: float, how: AdvantageSettings) -> None:
    moved = [None if row is None else [v + constant for v in row] for row in values]
    # eighths up to 10 are exact in floating point, and so are their sums
    assert flat(group_advantages(rewards(moved), how)) == pytest.approx(
        flat(group_advantages(rewards(values), how)), abs=1e-9
    )


@MODES
@given(GROUPS, SETTINGS, st.randoms(use_true_random=False))
def test_permuting_a_group_permutes_its_advantages(values: list, how: AdvantageSettings, shuffle) -> None:
    order = list(range(len(values)))
    shuffle.shuffle(order)
    whole = group_advantages(rewards(values), how)
    permuted = group_advantages(rewards([values[i] for i in order]), how)
    assert flat(permuted) == pytest.approx(flat([whole[i] for i in order]), abs=1e-12)


@MODES
@given(st.lists(NUMBERS, min_size=2, max_size=8), SETTINGS)
def test_the_advantages_of_a_group_sum_to_zero(values: list[float], how: AdvantageSettings) -> None:
    assert sum(normalise(values, how)) == pytest.approx(0.0, abs=1e-8)


@MODES
@given(st.lists(NUMBERS, min_size=2, max_size=8), SETTINGS)
def test_an_undecided_member_changes_nothing_for_the_others(values: list[float], how: AdvantageSettings) -> None:
    group: list[list[float] | None] = [[v] for v in values]
    with_one = group_advantages(rewards([group[0], None, *group[1:]]), how)
    assert with_one.pop(1) is None
    assert with_one == group_advantages(rewards(group), how)


@MODES
@given(st.lists(NUMBERS, min_size=2, max_size=8))
def test_leave_one_out_is_the_centred_reward_times_n_over_n_minus_one(values: list[float]) -> None:
    n = len(values)
    plain = normalise(values, AdvantageSettings(std=False))
    others = normalise(values, AdvantageSettings(baseline="leave_one_out", std=False))
    assert others == pytest.approx([a * n / (n - 1) for a in plain], abs=1e-9)


@MODES
@given(st.lists(NUMBERS, min_size=2, max_size=8).filter(lambda v: max(v) > min(v)), st.integers(1, 6))
def test_the_scale_of_rewards_does_not_matter_with_std(values: list[float], power: int) -> None:
    how = AdvantageSettings(eps=1e-12)
    assert normalise([v * 2**power for v in values], how) == pytest.approx(normalise(values, how), rel=1e-6, abs=1e-9)


@MODES
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), NUMBERS), max_size=6))
def test_spread_agrees_with_a_slow_loop(spans: list[tuple[int, int, float]]) -> None:
    reward = tuple(SpanReward(min(a, b), max(a, b), 0.0, index=i) for i, (a, b, _) in enumerate(spans))
    tokens, ids = spread_over_tokens(reward, [v for *_, v in spans], 9)
    for t in range(9):
        inside = [v for s, (*_, v) in zip(reward, spans, strict=True) if s.start <= t < s.stop]
        assert tokens[t] == sum(inside)
        assert (ids[t] == -1) == (not inside)
