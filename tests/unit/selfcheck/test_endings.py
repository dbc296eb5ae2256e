"""How answers end, by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rlpost.config.load import from_dict
from rlpost.config.schema import RunConfig
from rlpost.errors import SelfCheckError
from rlpost.selfcheck.endings import check_ends, check_lengths, check_rejected
from rlpost.trajectory import Group, GroupReceipt, Trajectory, one_turn
from rlpost.types import Prompt, SpanReward
from support.trajectories import receipt


def configured(**rollout: Any) -> RunConfig:
    return from_dict({"model": {"path": "m"}, "rollout": {"max_tokens": 4, **rollout}, "scoring": {"verifier": "math"}})


def groups_of(*members: Trajectory, reward: float = 0.0) -> list[GroupReceipt]:
    rewards = tuple((SpanReward(0, one.length, reward),) for one in members)
    numbered = tuple(dataclasses.replace(one, index=i) for i, one in enumerate(members))
    return [receipt(Group(Prompt("p", text="x"), numbered, (None,) * len(members), rewards))]


def test_an_end_token_ends_every_answer_that_it_is_in() -> None:
    done, other = one_turn((1, 2), (7, 8, 2)), one_turn((2,), (8, 9, 2))
    cut = one_turn((1,), (7, 7, 9), finish="length")
    # 2 stands inside the prompt, 9 ends an answer that was cut: neither says anything
    check_ends([done, other, cut])
    for wrong in (
        one_turn((1,), (7, 2, 2)),  # twice
        one_turn((1,), (7, 8, 7)),  # stripped, or cut and named done
        one_turn((1,), (2, 8, 9), finish="length"),  # the engine went on
    ):
        with pytest.raises(SelfCheckError, match=r"^endings: token \d ends an answer, and stands inside") as caught:
            check_ends([done, other, wrong])
        assert "\n" not in str(caught.value)
    check_ends([])
    check_ends([one_turn((1,), ())])


def test_answers_are_cut_at_the_limit_alone() -> None:
    check_lengths(groups_of(one_turn((1,), (7, 8)), one_turn((1,), (7, 8, 9, 9), finish="length")), configured())
    with pytest.raises(SelfCheckError, match=r"has 3 tokens .status length. and was cut, with rollout.max_tokens 4"):
        check_lengths(groups_of(one_turn((1,), (7, 8, 9), finish="length")), configured())
    with pytest.raises(SelfCheckError, match=r"has 5 tokens .status done. and went on"):
        check_lengths(groups_of(one_turn((1,), (7, 8, 9, 9, 2))), configured())
    # the engine has room for five tokens in all
    check_lengths(groups_of(one_turn((1, 2), (7, 8, 9), finish="length")), configured(max_model_len=5))
    check_lengths(groups_of(one_turn((1,), (7,), finish="abort")), configured())


def test_rejected_answers_get_no_more_than_finished_ones() -> None:
    cut, whole = one_turn((1,), (7, 8), finish="length"), one_turn((1,), (7, 8), index=1)

    def paid(first: float, second: float) -> list[Any]:
        [group] = groups_of(cut, whole)
        return [dataclasses.replace(group, rewards=((SpanReward(0, 3, first),), (SpanReward(0, 3, second),)))]

    check_rejected(groups_of(cut))
    for pair in ((0.0, 1.0), (-0.5, -0.5), (0.0, 0.0)):
        check_rejected(paid(*pair))
    for pair in ((1.0, 0.5), (0.0, -0.5)):
        with pytest.raises(SelfCheckError, match="was cut and got the reward"):
            check_rejected(paid(*pair))
