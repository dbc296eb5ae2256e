"""Which groups are trained on and what stages paid, by hand."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from rlpost.algorithms import credit
from rlpost.config.schema import AlgorithmSection
from rlpost.errors import SelfCheckError
from rlpost.plugins.algorithm import advantage_settings, build_advantage
from rlpost.selfcheck.choice import check_groups, check_stages, chosen
from rlpost.selfcheck.independent import check_credit
from rlpost.trajectory import Group, GroupReceipt
from rlpost.types import Prompt, SpanReward, Verdict
from support.trajectories import answer, receipt
from unit.selfcheck.test_independent import configured

RIGHT, WRONG = Verdict("accepted", 1.0, "accepted"), Verdict("rejected", 0.0, "rejected")
OPEN = Verdict("undecided", None, "timeout")


def group(
    name: str,
    values: tuple[float | None, ...],
    verdicts: tuple[Verdict | None, ...] | None = None,
    finish: Any = "stop",
) -> GroupReceipt:
    members = tuple(answer("abc", i, finish=finish) for i in range(len(values)))
    rewards = tuple(
        None if value is None else (SpanReward(0, one.length, value),)
        for one, value in zip(members, values, strict=True)
    )
    return receipt(Group(Prompt(name, text="x"), members, verdicts or (None,) * len(values), rewards))


def test_each_filter_by_hand() -> None:
    groups = [
        group("mixed", (1.0, 0.0), (RIGHT, WRONG)),
        group("shaped", (1.0, 0.5), (RIGHT, RIGHT)),
        group("alike", (1.0, 1.0), (RIGHT, RIGHT)),
        group("open", (None, None), (OPEN, OPEN)),
        group("one left", (1.0, None), (RIGHT, OPEN)),
        group("by reward", (0.0, -1.0)),
    ]
    assert chosen(groups, AlgorithmSection(), None) == [0, 1, 2, 4, 5]
    assert chosen(groups, AlgorithmSection(filter="binary"), None) == [0, 5]
    assert chosen(groups, AlgorithmSection(filter="shaped"), None) == [0, 1, 5]
    assert chosen(groups, AlgorithmSection(filter="shaped"), 2) == [0, 1]
    assert chosen([], AlgorithmSection(), None) == []


@pytest.mark.parametrize("rule", ["off", "binary", "shaped"])
def test_a_batch_has_the_groups_that_the_filter_lets_pass(rule: Any) -> None:
    config = configured(filter=rule)
    groups = [group("a", (1.0, 0.0)), group("b", (1.0, 1.0)), group("c", (0.0, 2.0)), group("d", (3.0, 2.0))]
    batch = credit.assign(groups, build_advantage(config), step=0, group_filter=rule, most=3).batch
    check_groups(groups, batch, config.algorithm, 3, masks=False)
    first = dataclasses.replace(batch, samples=batch.samples[2:])
    with pytest.raises(SelfCheckError, match="the group of prompt 'a' is left out"):
        check_groups(groups, first, config.algorithm, 3, masks=False)
    if rule != "off":
        every = credit.assign(groups, build_advantage(config), step=0).batch
        with pytest.raises(SelfCheckError, match="the group of prompt 'b' is trained on"):
            check_groups(groups, every, config.algorithm, 4, masks=False)


def test_a_group_that_was_cut_as_a_whole_is_masked_and_counts_in_the_deviation_of_the_batch() -> None:
    config = configured(std="batch")
    groups = [group("a", (1.0, 0.0)), group("b", (5.0, 5.0), finish="length")]
    batch = credit.assign(
        groups, build_advantage(config), step=0, truncated="mask", batch_std=advantage_settings(config)
    ).batch
    check_groups(groups, batch, config.algorithm, 2, masks=True)
    # the rewards are 1, 0, 5 and 5: the sample deviation is √(20.75 / 3) = 2.63
    assert batch.samples[0].advantages[0] == pytest.approx(0.5 / 2.62996, rel=1e-4)
    check_credit(groups, batch, config.algorithm, "mask")


def test_every_stage_has_paid() -> None:
    one = dataclasses.replace(group("a", (1.5, 0.0)), stage_rewards={"outcome": (1.0, 0.0), "style": (0.5, 0.0)})
    check_stages([one], ["outcome", "style"], rejects=False)
    with pytest.raises(SelfCheckError, match=r"by the stages \['outcome', 'style'\], and configured are \['style'\]"):
        check_stages([one], ["style"], rejects=False)
    other = dataclasses.replace(one, stage_rewards={"outcome": (1.0, 0.0), "style": (0.0, 0.0)})
    with pytest.raises(SelfCheckError, match=r"has the reward 1\.5, and its stages paid 1"):
        check_stages([other], ["outcome", "style"], rejects=False)
    # an answer that was cut loses what stages paid, and an undecided one has nothing to compare
    cut = dataclasses.replace(group("a", (0.0, None), finish="length"), stage_rewards={"outcome": (None, None)})
    check_stages([cut], ["outcome"], rejects=True)
