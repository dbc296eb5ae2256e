"""The queue of a best-first search, by values worked out by hand and against an exhaustive search."""

from __future__ import annotations

import math
import random

import pytest

from rlpost.algorithms.best_first import Frontier, score


def order(frontier: Frontier[str]) -> list[str]:
    found = []
    while (node := frontier.pop()) is not None:
        found.append(node.state)
    return found


def test_the_largest_cumulative_log_probability_comes_first() -> None:
    frontier: Frontier[str] = Frontier()
    for name, logprob, depth in (("shallow", -3.0, 1), ("deep", -2.5, 5), ("best", -1.0, 2), ("last", -9.0, 1)):
        assert frontier.push(name, name, logprob, depth)
    assert order(frontier) == ["best", "deep", "shallow", "last"]


@pytest.mark.parametrize(("alpha", "first"), [(0.0, "shallow"), (0.5, "shallow"), (1.0, "deep")])
def test_length_normalisation_favours_deep_states(alpha: float, first: str) -> None:
    # Σ log p / L^α: -2 / 1 against -4.2 / 4^α, which is -4.2, -2.1 and -1.05
    frontier: Frontier[str] = Frontier(alpha)
    frontier.push("deep", "deep", -4.2, 4)
    frontier.push("shallow", "shallow", -2.0, 1)
    assert order(frontier)[0] == first
    assert score(-4.2, 4, 0.5) == pytest.approx(-2.1)
    assert score(0.0, 0, alpha) == 0.0


def test_ties_go_to_the_state_that_came_first_and_states_need_no_order() -> None:
    frontier: Frontier[object] = Frontier()
    states = [object() for _ in range(5)]
    for number, state in enumerate(states):
        frontier.push((number, None) if number % 2 else str(number), state, -1.0, 1)
    found = []
    while (node := frontier.pop()) is not None:
        found.append(node.state)
    assert found == states


def test_equal_states_are_expanded_once_by_the_best_way_known() -> None:
    frontier: Frontier[str] = Frontier()
    assert frontier.push("goal", "long way", -5.0, 3)
    assert frontier.push("goal", "short way", -1.0, 1)
    assert not frontier.push("goal", "same", -1.0, 1)
    assert not frontier.push("goal", "worse", -2.0, 1)
    assert len(frontier) == 1
    assert order(frontier) == ["short way"]
    assert not frontier.push("goal", "a better way, too late", -0.1, 1)
    assert frontier.pop() is None
    assert list(frontier.expanded) == ["goal"]


@pytest.mark.parametrize("logprob", [math.nan, -math.inf])
def test_what_has_no_probability_is_not_kept(logprob: float) -> None:
    frontier: Frontier[str] = Frontier()
    assert not frontier.push("a", "a", logprob, 1)
    assert frontier.pop() is None


def test_states_below_the_depth_limit_are_not_kept() -> None:
    frontier: Frontier[str] = Frontier(max_depth=2)
    assert [frontier.push(str(depth), "", -1.0, depth) for depth in range(4)] == [True, True, True, False]


@pytest.mark.parametrize(("alpha", "depth"), [(-0.1, 1), (math.nan, 1), (0.0, 0)])
def test_settings_without_a_meaning_are_refused(alpha: float, depth: int) -> None:
    with pytest.raises(ValueError, match="alpha is"):
        Frontier(alpha, depth)


def test_reopened_states_come_in_order_again() -> None:
    frontier: Frontier[str] = Frontier()
    for name, logprob in (("b", -2.0), ("a", -1.0)):
        frontier.push(name, name, logprob, 1)
    assert order(frontier) == ["a", "b"]
    assert frontier.reopen() == 2
    assert not frontier.push("a", "again", -3.0, 1)
    assert order(frontier) == ["a", "b"]


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("alpha", [0.0, 0.7])
def test_every_state_that_is_given_out_is_the_best_of_those_that_wait(seed: int, alpha: float) -> None:
    rng = random.Random(seed)
    frontier: Frontier[int] = Frontier(alpha)
    waiting: dict[int, float] = {}
    given: set[int] = set()
    for _ in range(300):
        if rng.random() < 0.6:
            key, logprob, depth = rng.randrange(40), -rng.random() * 10, rng.randint(1, 6)
            value = logprob / depth**alpha
            kept = frontier.push(key, key, logprob, depth)
            assert kept == (key not in given and value > waiting.get(key, -math.inf))
            if kept:
                waiting[key] = value
        else:
            node = frontier.pop()
            assert (node is None) == (not waiting)
            if node is not None:
                assert waiting.pop(node.state) == max([score(node.logprob, node.depth, alpha), *waiting.values()])
                given.add(node.state)
        assert len(frontier) == len(waiting)
