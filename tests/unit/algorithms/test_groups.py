"""Which groups are trained on. Not covered: the verdicts of a scorer (tests/unit/scoring)."""

from __future__ import annotations

import pytest

from rlpost.algorithms.groups import keep, total
from rlpost.trajectory import Group, GroupReceipt, one_turn
from rlpost.types import Prompt, Reward, SpanReward, Verdict
from support.trajectories import receipt

YES, NO = Verdict("accepted", 1.0, "ok"), Verdict("rejected", 0.0, "no")
LOST = Verdict("undecided", None, "crashed")


def group(verdicts: list[Verdict | None], values: list[float | None]) -> GroupReceipt:
    members = tuple(one_turn((1,), (2,), "x", index=i) for i in range(len(verdicts)))
    rewards: tuple[Reward | None, ...] = tuple(None if v is None else (SpanReward(0, 2, v),) for v in values)
    return receipt(Group(Prompt("p", text="x"), members, tuple(verdicts), rewards))


@pytest.mark.parametrize(
    ("verdicts", "values", "kept"),
    [
        ([YES, NO], [1.0, 0.0], True),
        ([YES, YES], [1.0, 1.0], False),
        ([NO, NO], [0.0, 0.0], False),
        # shaped rewards differ, outcomes do not: the filter looks before any shaping
        ([YES, YES], [1.0, 0.8], False),
        # an undecided member gives no contrast
        ([YES, LOST], [1.0, None], False),
        ([YES, LOST, NO], [1.0, None, 0.0], True),
        ([LOST, LOST], [None, None], False),
        ([None, None], [0.2, 0.7], True),
        ([None, None], [0.2, 0.2], False),
        ([None, None], [0.2, None], False),
    ],
)
def test_the_binary_filter_keeps_groups_whose_decided_members_differ(
    verdicts: list[Verdict | None], values: list[float | None], kept: bool
) -> None:
    assert keep(group(verdicts, values), "binary") is kept


def test_off_keeps_every_group_with_a_decided_member() -> None:
    assert keep(group([YES, YES], [1.0, 1.0]), "off")
    assert keep(group([YES, LOST], [1.0, None]), "off")
    assert not keep(group([LOST, LOST], [None, None]), "off")


def test_members_without_a_verdict_are_compared_by_reward_next_to_a_truncated_one() -> None:
    cut = Verdict("rejected", 0.0, "truncated")
    assert not keep(group([cut, None, None], [0.0, 0.0, 0.0]), "binary")
    assert keep(group([cut, None], [0.0, 1.0]), "binary")


def test_the_total_leaves_the_advantage_channel_out() -> None:
    reward = (SpanReward(0, 1, 1.0), SpanReward(0, 1, 0.5), SpanReward(0, 1, 9.0, channel="advantage"))
    one = Group(Prompt("p", text="x"), (), (), (reward, None))
    assert total(one, 0) == 1.5
    assert total(one, 1) is None
