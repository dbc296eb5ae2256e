"""The plan of an update by hand. Not covered: its general properties (tests/property/test_plans.py)."""

from __future__ import annotations

import numpy as np

from rlpost.data.packing import Update, count, micro_batches, plan_updates, spread_over_ranks
from rlpost.types import Denominators, TrainSample


def sample(mask: list[bool], spans: list[int]) -> TrainSample:
    n = len(mask)
    return TrainSample(np.array([1, 2]), np.arange(n), np.ones(n, np.float32), np.array(spans), np.array(mask), None, 0)


def test_the_longest_goes_to_the_rank_with_the_fewest_tokens() -> None:
    # 9 to rank 0, 7 to rank 1, 4 to rank 1 (7 < 9), 3 to rank 0 (9 < 11), 1 to rank 1 (11 < 12)
    assert spread_over_ranks(range(5), [3, 9, 1, 7, 4], 2) == [[1, 0], [3, 4, 2]]


def test_the_budget_counts_padding() -> None:
    # 5 · 2 = 10 fits, 5 · 3 does not; 3 · 2 = 6 fits; 20 is over the budget and goes alone
    assert micro_batches(range(5), [5, 3, 20, 5, 3], 10) == [(2,), (0, 3), (1, 4)]
    assert micro_batches([], [], 10) == []


def test_a_plan_for_two_ranks_by_hand() -> None:
    [update] = plan_updates([4, 4, 4], epochs=1, minibatches=1, ranks=2, micro_tokens=4, seed=(0,))
    assert update == Update((0, 1, 2), (((0,), (2,)), ((1,), ())))


def test_more_minibatches_than_samples_give_fewer_updates() -> None:
    plan = plan_updates([4, 4], epochs=2, minibatches=3, ranks=1, micro_tokens=4, seed=(0,))
    assert [len(update.rows) for update in plan] == [1, 1, 1, 1]


def test_no_samples_give_no_update() -> None:
    assert plan_updates([], epochs=2, minibatches=2, ranks=2, micro_tokens=4, seed=(0,)) == []


def test_passes_and_steps_are_shuffled_apart() -> None:
    def rows(seed: tuple[int, ...]) -> list[tuple[int, ...]]:
        return [u.rows for u in plan_updates([1] * 40, epochs=2, minibatches=2, ranks=1, micro_tokens=9, seed=seed)]

    first, second = rows((1, 0)), rows((1, 1))
    assert first[0] != first[2]
    assert first != second
    assert first == rows((1, 0))


def test_denominators_by_hand() -> None:
    samples = [
        sample([True, True, True, False], [0, 0, 1, 2]),  # 3 tokens, spans 0 and 1; span 2 is masked
        sample([True, False], [-1, -1]),  # a trained token outside every span
        sample([False, False], [0, 0]),  # nothing trained
    ]
    assert count(samples, [0, 1, 2], 8) == Denominators(tokens=4, sequences=2, spans=2, max_tokens=8)
    assert count(samples, [2], 8) == Denominators(0, 0, 0, 8)
    assert count(samples, [1], 8) == Denominators(1, 1, 0, 8)
