"""Group-relative advantages by hand. Not covered: which groups are kept (test_groups), token masks (test_credit)."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rlpost.algorithms.advantages import (
    AdvantageSettings,
    divide_by_batch_std,
    divide_by_mean,
    focal_weight,
    group_advantages,
    normalise,
    spread_over_tokens,
    weigh,
)
from rlpost.types import SpanReward

MEAN = AdvantageSettings(std=False)
LEAVE_ONE_OUT = AdvantageSettings(baseline="leave_one_out", std=False)
NONE = AdvantageSettings(baseline="none", std=False)


def whole(value: float, length: int = 2) -> tuple[SpanReward, ...]:
    return (SpanReward(0, length, value),)


def test_the_mean_baseline_subtracts_the_groups_mean() -> None:
    # mean of 1, 0, 0, 0 is 1/4
    assert normalise([1, 0, 0, 0], MEAN) == pytest.approx([0.75, -0.25, -0.25, -0.25])


def test_leave_one_out_subtracts_the_mean_of_the_others() -> None:
    # 1 - (0+3)/2 = -0.5; 0 - (1+3)/2 = -2; 3 - (1+0)/2 = 2.5
    assert normalise([1, 0, 3], LEAVE_ONE_OUT) == pytest.approx([-0.5, -2.0, 2.5])


def test_no_baseline_leaves_the_rewards() -> None:
    assert normalise([1, 0, 3], NONE) == [1.0, 0.0, 3.0]
    assert normalise([2.5], NONE) == [2.5]


@pytest.mark.parametrize(
    ("ddof", "deviation"),
    # centred 1, 0, 0, 0 has squares 9/16 + 3/16 = 3/4; over n - 1 = 3: 1/4; over n = 4: 3/16
    [(1, 0.5), (0, math.sqrt(3) / 4)],
)
def test_the_standard_deviation_follows_ddof(ddof: int, deviation: float) -> None:
    found = normalise([1, 0, 0, 0], AdvantageSettings(ddof=ddof, eps=0.0))
    assert found == pytest.approx([0.75 / deviation, *[-0.25 / deviation] * 3])


def test_eps_is_added_to_the_deviation_not_to_the_variance() -> None:
    # deviation 0.5 (above), so 0.75 / (0.5 + 0.5) = 0.75
    assert normalise([1, 0, 0, 0], AdvantageSettings(eps=0.5))[0] == pytest.approx(0.75)


def test_the_deviation_is_about_the_mean_also_under_leave_one_out() -> None:
    # values 0, 2: mean 1, sample deviation sqrt(2); leave-one-out differences -2, 2
    found = normalise([0, 2], AdvantageSettings(baseline="leave_one_out", eps=0.0))
    assert found == pytest.approx([-math.sqrt(2), math.sqrt(2)])


@pytest.mark.parametrize("value", [0.0, 1.0, 0.1, 1e9, 0.1 + 0.2])
@pytest.mark.parametrize("baseline", ["mean", "leave_one_out"])
@pytest.mark.parametrize("std", [True, False])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_equal_rewards_and_groups_of_one_give_exactly_zero(value: float, baseline: str, std: bool, count: int) -> None:
    found = normalise([value] * count, AdvantageSettings(baseline=baseline, std=std))  # type: ignore[arg-type]
    assert found == [0.0] * count


def test_an_empty_group_has_no_advantages() -> None:
    assert normalise([], AdvantageSettings()) == []
    assert normalise([], AdvantageSettings(baseline="none")) == []


def test_a_group_of_one_without_a_baseline_keeps_its_reward() -> None:
    """The docstring: a group of one gets exactly 0 "unless there is no baseline at all". `check_group` sends people
    with group_size 1 here, and `std` is on by default.
    """
    assert normalise([1.0], AdvantageSettings(baseline="none")) == [1.0]


@pytest.mark.parametrize("ddof", [0, 1])
def test_equal_rewards_without_a_baseline_are_not_blown_up_by_eps(ddof: int) -> None:
    # deviation 0: 1 / (0 + 1e-6) would be an advantage of a million
    assert max(normalise([1.0, 1.0], AdvantageSettings(baseline="none", ddof=ddof))) <= 10.0


def test_undecided_members_take_no_part_in_the_baseline() -> None:
    # decided: 1 and 0, mean 1/2; counting the undecided one as 0 would give 1/3
    assert group_advantages([whole(1.0), None, whole(0.0)], MEAN) == [[0.5], None, [-0.5]]


def test_a_group_with_one_decided_member_gives_zero() -> None:
    assert group_advantages([None, whole(1.0), None], AdvantageSettings()) == [None, [0.0], None]


def test_values_are_compared_with_values_of_the_same_index_only() -> None:
    first = (SpanReward(0, 2, 1.0, index=0), SpanReward(2, 4, 10.0, index=1))
    second = (SpanReward(0, 3, 0.0, index=0), SpanReward(3, 5, 30.0, index=1))
    # index 0: 1, 0 around 1/2; index 1: 10, 30 around 20
    assert group_advantages([first, second], MEAN) == [[0.5, -10.0], [-0.5, 10.0]]


def test_ragged_groups_normalise_each_index_over_those_who_have_it() -> None:
    three = tuple(SpanReward(i, i + 1, v, index=i) for i, v in enumerate([3.0, 4.0, 9.0]))
    two = tuple(SpanReward(i, i + 1, v, index=i) for i, v in enumerate([1.0, 0.0]))
    # index 0: 3, 1 around 2; index 1: 4, 0 around 2; index 2 has one member and no other to compare with
    assert group_advantages([three, two, ()], MEAN) == [[1.0, 2.0, 0.0], [-1.0, -2.0], []]


def test_a_span_without_tokens_takes_part_in_the_baseline() -> None:
    missing = (SpanReward(4, 4, 0.0, index=2),)
    there = (SpanReward(1, 4, 1.0, index=2),)
    assert group_advantages([missing, there], MEAN) == [[-0.5], [0.5]]


def test_the_advantage_channel_passes_through_and_joins_no_baseline() -> None:
    first = (SpanReward(0, 2, 1.0), SpanReward(1, 2, -7.0, channel="advantage"))
    assert group_advantages([first, whole(0.0)], MEAN) == [[0.5, -7.0], [-0.5]]
    alone = (SpanReward(0, 1, 0.25, channel="advantage"),)
    assert group_advantages([alone, alone], AdvantageSettings()) == [[0.25], [0.25]]


def test_spread_lays_values_over_tokens_and_adds_overlaps() -> None:
    reward = (SpanReward(0, 4, 1.0), SpanReward(2, 3, 5.0, channel="advantage"))
    tokens, span_ids = spread_over_tokens(reward, [0.5, -0.25], 5)
    np.testing.assert_array_equal(tokens, np.float32([0.5, 0.5, 0.25, 0.5, 0.0]))
    np.testing.assert_array_equal(span_ids, [0, 0, 0, 0, -1])
    assert (tokens.dtype, span_ids.dtype) == (np.float32, np.int32)


def test_span_ids_count_spans_in_the_order_of_their_start() -> None:
    reward = (SpanReward(3, 5, 1.0, index=1), SpanReward(0, 2, 1.0), SpanReward(4, 4, 1.0, index=2))
    _, span_ids = spread_over_tokens(reward, [0.0, 0.0, 0.0], 6)
    np.testing.assert_array_equal(span_ids, [0, 0, -1, 1, 1, -1])


def test_two_rewards_of_the_same_place_are_one_span() -> None:
    reward = (SpanReward(0, 2, 1.0), SpanReward(0, 2, 1.0, index=3), SpanReward(2, 4, 1.0))
    tokens, span_ids = spread_over_tokens(reward, [1.0, 2.0, 4.0], 4)
    np.testing.assert_array_equal(tokens, np.float32([3, 3, 4, 4]))
    np.testing.assert_array_equal(span_ids, [0, 0, 1, 1])


@pytest.mark.parametrize("inner", [(0, 3), (4, 7), (7, 10)])
def test_an_inner_span_stays_separate_at_any_position(inner: tuple[int, int]) -> None:
    """A reward for one part, besides an outcome over the whole completion: its span must not depend on its position."""
    reward = (SpanReward(0, 10, 1.0), SpanReward(*inner, 1.0, index=1))
    _, span_ids = spread_over_tokens(reward, [0.0, 0.0], 10)
    inside = set(span_ids[inner[0] : inner[1]].tolist())
    outside = set(np.delete(span_ids, np.arange(*inner)).tolist())
    assert len(inside) == 1
    assert inside.isdisjoint(outside)


def test_a_span_beyond_the_completion_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 4\) ends beyond a trajectory of 3 tokens"):
        spread_over_tokens((SpanReward(1, 4, 1.0),), [1.0], 3)


def slow_normalise(values: list[float], settings: AdvantageSettings) -> list[float]:
    n, result = len(values), []
    mean = sum(values) / n
    for i, value in enumerate(values):
        others = [v for j, v in enumerate(values) if j != i]
        base = {"mean": mean, "leave_one_out": sum(others) / len(others), "none": 0.0}[settings.baseline]
        scale = 1.0
        if settings.std:
            scale = math.sqrt(sum((v - mean) ** 2 for v in values) / (n - settings.ddof)) + settings.eps
        result.append((value - base) / scale)
    return result


@pytest.mark.parametrize("baseline", ["mean", "leave_one_out", "none"])
@pytest.mark.parametrize("std", [True, False])
@pytest.mark.parametrize("ddof", [0, 1])
def test_agreement_with_a_slow_loop(baseline: str, std: bool, ddof: int) -> None:
    rng = np.random.default_rng(0)
    settings = AdvantageSettings(baseline=baseline, std=std, ddof=ddof, eps=1e-4)  # type: ignore[arg-type]
    for _ in range(20):
        values = rng.normal(size=int(rng.integers(2, 9))).tolist()
        assert normalise(values, settings) == pytest.approx(slow_normalise(values, settings), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 0.0, 0.0, 0.0], [3.0, -1.0, -1.0, -1.0]),
        ([1.0, 1.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3, -1.0]),
        ([0.0, 0.0], [0.0, 0.0]),
        ([1.0, 1.0], [0.0, 0.0]),
        ([0.3], [0.0]),
        ([], []),
        ([0.5, 1.5, 1.0], [-0.5, 0.5, 0.0]),
        # the smallest mean there is: bounded by n - 1
        ([1e-300, 0.0], [1.0, -1.0]),
    ],
)
def test_maxrl_by_hand(values: list[float], expected: list[float]) -> None:
    assert divide_by_mean(values, AdvantageSettings()) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[-1.0, 1.0], [-1.0, -1.0], [2.0, 1.0, -0.25]])
def test_maxrl_refuses_negative_rewards_which_would_turn_advantages_round(values: list[float]) -> None:
    with pytest.raises(ValueError, match=r"maxrl divides by the mean reward .* a reward is -"):
        divide_by_mean(values, AdvantageSettings())


@pytest.mark.parametrize("n", [1, 2, 6, 40])
def test_maxrls_gradient_nears_that_of_the_log_of_the_pass_rate(n: int) -> None:
    # a choice of two, right with probability p, whose log-probabilities have slopes 1/p and -1/(1 - p) in p
    p, found = 0.3, 0.0
    for right in range(n + 1):
        chance = math.comb(n, right) * p**right * (1 - p) ** (n - right)
        rows = divide_by_mean([1.0] * right + [0.0] * (n - right), AdvantageSettings())
        slopes = [1 / p] * right + [-1 / (1 - p)] * (n - right)
        found += chance * sum(a * s for a, s in zip(rows, slopes, strict=True)) / n
    # right answers give (1 - (1 - p)^n) / p, groups with a right answer a baseline of (1 - p)^(n - 1); 1/p as n grows
    assert found == pytest.approx((1 - (1 - p) ** n) / p - (1 - p) ** (n - 1), abs=1e-12)


def group_of(*values: float | None) -> list:
    return [None if v is None else (SpanReward(0, 4, v),) for v in values]


def test_the_deviation_of_the_batch_by_hand() -> None:
    # rewards 1, 0 | 4, 3: group means 0.5 and 3.5; mean 2, squares 1 + 4 + 4 + 1 = 10, sample variance 10/3
    groups = [group_of(1.0, 0.0, None), group_of(4.0, 3.0)]
    rows = [group_advantages(group, AdvantageSettings(std=False)) for group in groups]
    found = divide_by_batch_std(groups, rows, ddof=1, eps=1e-4)
    scale = math.sqrt(10 / 3) + 1e-4
    assert found[0] == [[pytest.approx(0.5 / scale)], [pytest.approx(-0.5 / scale)], None]
    assert found[1] == [[pytest.approx(0.5 / scale)], [pytest.approx(-0.5 / scale)]]
    population = divide_by_batch_std(groups, rows, ddof=0, eps=1e-4)
    assert population[1][0] == [pytest.approx(0.5 / (math.sqrt(2.5) + 1e-4))]


def test_the_deviation_of_the_batch_is_that_of_each_index_and_leaves_shaping_alone() -> None:
    group = [
        (SpanReward(0, 2, 1.0), SpanReward(2, 4, 100.0, 1), SpanReward(3, 4, -0.1, -1, "advantage")),
        (SpanReward(0, 2, 0.0), SpanReward(2, 4, -100.0, 1)),
    ]
    rows = group_advantages(group, AdvantageSettings(std=False))
    [found] = divide_by_batch_std([group], [rows], ddof=1, eps=1e-9)
    # ± 0.5 over √0.5, ± 100 over √20000
    assert found == [[pytest.approx(math.sqrt(0.5)), pytest.approx(math.sqrt(0.5)), -0.1],
                     [pytest.approx(-math.sqrt(0.5)), pytest.approx(-math.sqrt(0.5))]]  # fmt: skip


@pytest.mark.parametrize("groups", [[group_of(1.0, 1.0), group_of(1.0)], [group_of(0.5)], [group_of(None)], []])
def test_a_batch_without_spread_is_not_divided(groups: list) -> None:
    rows = [group_advantages(group, AdvantageSettings(std=False)) for group in groups]
    assert divide_by_batch_std(groups, rows) == rows


def test_focal_weights_by_hand() -> None:
    # a quarter of four decided members is correct: (3/4)^γ
    judged = [True, False, None, False, False]
    assert focal_weight(judged, 1.0) == pytest.approx(0.75)
    assert focal_weight(judged, 0.5) == pytest.approx(math.sqrt(0.75))
    assert (focal_weight(judged, 0.0), focal_weight([True, True], 0.0)) == (1.0, 1.0)
    assert (focal_weight([True, True], 0.5), focal_weight([False], 2.0), focal_weight([None], 2.0)) == (0.0, 1.0, 1.0)
    reward = (SpanReward(0, 2, 1.0), SpanReward(1, 2, -0.1, -1, "advantage"))
    assert weigh(reward, [0.8, -0.1], 0.5) == [0.4, -0.1]


def test_the_deviation_of_the_batch_is_that_of_each_stage() -> None:
    group = [
        (SpanReward(0, 4, 1.0), SpanReward(0, 2, 50.0, stage="ranking")),
        (SpanReward(0, 4, 0.0), SpanReward(0, 2, -50.0, stage="ranking")),
    ]
    rows = group_advantages(group, AdvantageSettings(std=False))
    [found] = divide_by_batch_std([group], [rows], ddof=1, eps=1e-9)
    assert found == [[pytest.approx(math.sqrt(0.5))] * 2, [pytest.approx(-math.sqrt(0.5))] * 2]
