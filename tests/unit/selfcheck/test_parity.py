"""Splitting a difference by cause, worked out by hand. Real engines: tests/integration/test_vllm_engine.py."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from rlpost.errors import SelfCheckError
from rlpost.selfcheck.parity import Published, Scored, check_parity, check_reference
from rlpost.trajectory import Trajectory, one_turn


def engine(*logprobs: float, ids: Sequence[int] = (5, 6), prompt: Sequence[int] = (1, 2)) -> Trajectory:
    """What an engine answers, with its log-probabilities."""
    return one_turn(prompt, ids, "ab", logprobs=logprobs, finish="length", version=1)


ENGINE = engine(-1.0, -2.0)
UNMOVED = Published([np.array([-1.0])], [np.array([-1.0])])


def scored(completion: Trajectory, *learner: float) -> Scored:
    return Scored([completion], [np.array(learner)])


def test_each_part_by_hand() -> None:
    fresh = engine(-1.1, -2.3)
    found = check_parity(
        # |E - L| = 0.5, 0.5
        scored(ENGINE, -1.5, -2.5),
        # |F - L| = 0.4, 0.2: mean 0.3
        scored(fresh, -1.5, -2.5),
        # |P - L| = 0.1
        Published([np.array([-1.0, -3.0])], [np.array([-1.1, -2.9])]),
        tolerance=1.0,
        synchronous=True,
    )
    expected = {
        "parity/total": 0.5,
        "parity/numerics": 0.2,
        "parity/staleness": 0.1,
        # |E - F| = 0.1, 0.3
        "parity/stale_cache": 0.2,
    }
    assert found == pytest.approx(expected)


def test_equal_figures_are_no_difference() -> None:
    assert set(check_parity(scored(ENGINE, -1, -2), scored(ENGINE, -1, -2), UNMOVED, 1e-9, True).values()) == {0.0}


def test_staleness_explains_no_more_than_there_is() -> None:
    moved = Published([np.array([-1.0])], [np.array([-1.5])])
    found = check_parity(scored(ENGINE, -1.1, -2.1), scored(ENGINE, -1.1, -2.1), moved, 1.0, True)
    assert found["parity/numerics"] == 0.0


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        # the first token differs and counts, the second follows another token and does not
        (engine(-1.25, -9.0, ids=(7, 6)), 0.25),
        # one ended earlier
        (engine(-1.5, ids=(5,)), 0.5),
    ],
)
def test_the_cache_is_compared_on_common_context_only(second: Trajectory, expected: float) -> None:
    assert second.logprobs is not None
    fresh = Scored([second], [second.logprobs[second.mask]])
    found = check_parity(scored(ENGINE, -1, -2), fresh, UNMOVED, 1.0, True)
    assert found["parity/stale_cache"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("as_is", "fresh", "published", "blamed"),
    [
        (scored(ENGINE, -1.5, -2.5), scored(ENGINE, -1.5, -2.5), UNMOVED, "mostly numerics: the engine computes with"),
        (
            scored(ENGINE, -1.5, -2.5),
            scored(ENGINE, -1.5, -2.5),
            Published([np.array([-1.0])], [np.array([-1.5])]),
            "mostly staleness: the learner has moved",
        ),
        (
            scored(ENGINE, -1.5, -2.5),
            scored(engine(-1.5, -2.5), -1.5, -2.5),
            UNMOVED,
            "mostly stale_cache: the engine's prefix cache",
        ),
    ],
)
def test_the_largest_part_is_blamed(as_is: Scored, fresh: Scored, published: Published, blamed: str) -> None:
    with pytest.raises(SelfCheckError, match=f"engine 2 and learner differ by 0.5 nats per token .*{blamed}") as caught:
        check_parity(as_is, fresh, published, 0.3, True, engine=2)
    assert "\n" not in str(caught.value)
    assert "limit 0.3" in str(caught.value)


def test_staleness_is_expected_of_an_asynchronous_loop_and_nothing_else() -> None:
    moved = Published([np.array([-1.0])], [np.array([-1.5])])
    stale = scored(ENGINE, -1.5, -2.5)
    assert check_parity(stale, stale, moved, 0.1, False)["parity/total"] == pytest.approx(0.5)
    worse = scored(ENGINE, -1.75, -2.75)
    with pytest.raises(SelfCheckError, match="mostly numerics"):
        check_parity(worse, worse, moved, 0.1, False)


def test_a_tolerance_is_a_limit_and_not_a_strict_one() -> None:
    check_parity(scored(ENGINE, -1.5, -2.5), scored(ENGINE, -1.5, -2.5), UNMOVED, 0.5, True)


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_nan_and_infinity_exceed_any_limit(value: float) -> None:
    broken = scored(ENGINE, -1.0, value)
    moved = Published([np.array([-1.0])], [np.array([value])])
    for published in (UNMOVED, moved):
        with pytest.raises(SelfCheckError):
            check_parity(broken, broken, published, 1e9, False)


@pytest.mark.parametrize(
    ("as_is", "fresh", "published", "reason"),
    [
        (Scored([], []), Scored([], []), UNMOVED, "no tokens"),
        (scored(replace(ENGINE, logprobs=None), -1, -2), scored(ENGINE, -1, -2), UNMOVED, "no log-probabilities"),
        (scored(ENGINE, -1), scored(ENGINE, -1, -2), UNMOVED, "completion 0"),
        (scored(ENGINE, -1, -2), scored(engine(-1.0, -2.0, prompt=(3,)), -1, -2), UNMOVED, "different prompts"),
        (scored(ENGINE, -1, -2), scored(ENGINE, -1, -2), Published([], []), "no tokens"),
    ],
)
def test_what_cannot_be_compared_fails(as_is: Scored, fresh: Scored, published: Published, reason: str) -> None:
    with pytest.raises(SelfCheckError, match=f"cannot be compared: .*{reason}"):
        check_parity(as_is, fresh, published, 1.0, True)


def test_a_reference_that_moves_is_found() -> None:
    then = [np.array([-1.0, -2.0], np.float32)]
    assert check_reference(Published(then, [then[0] + 1e-6]), 1e-4)["parity/reference"] < 1e-5
    with pytest.raises(SelfCheckError, match=r"reference policy has moved by 0\.1 nats"):
        check_reference(Published(then, [then[0] - 0.1]), 1e-4)
