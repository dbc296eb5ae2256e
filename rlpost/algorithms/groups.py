"""Which groups enter an update."""

from __future__ import annotations

from typing import Literal

from rlpost.trajectory import Group, GroupReceipt

GroupFilter = Literal["off", "binary", "shaped"]


def total(group: Group | GroupReceipt, member: int) -> float | None:
    """Sum of the ``reward``-channel spans of one member, None if undecided."""
    reward = group.rewards[member]
    return None if reward is None else sum(span.value for span in reward if span.channel == "reward")


def paid(group: Group | GroupReceipt, member: int) -> float | None:
    """`total` of one member, None also if no reward stage gave it anything."""
    return total(group, member) if group.rewards[member] else None


def keep(group: Group | GroupReceipt, rule: GroupFilter) -> bool:
    """Whether a group is trained on under ``rule``.

    ``off`` keeps every group with a decided member. ``binary`` (DAPO's dynamic sampling: Yu et al. 2025, section 3.2;
    "Rewarding the Unlikely", released code) keeps a group whose decided members differ: by verdict where there is a
    verifier, by reward where there is none. It looks at outcomes before any shaping. ``shaped`` keeps a group whose
    decided members differ in reward after all stages, which includes correct answers with unequal rewards.
    """
    decided = [i for i, reward in enumerate(group.rewards) if reward is not None]
    if rule == "off":
        return bool(decided)
    if rule == "shaped":
        return len({_values(group, i) for i in decided}) > 1
    judged = all(group.verdicts[i] is not None for i in decided)
    kinds = {verdict.outcome if judged and (verdict := group.verdicts[i]) else total(group, i) for i in decided}
    return len(kinds) > 1


def correct(group: Group | GroupReceipt, member: int) -> bool | None:
    """Whether a trajectory is correct: by its verdict if it has one, else by a positive reward; None if undecided."""
    verdict = group.verdicts[member]
    if verdict is not None:
        return None if verdict.outcome == "undecided" else verdict.outcome == "accepted"
    value = total(group, member)
    return None if value is None else value > 0


def _values(group: Group | GroupReceipt, member: int) -> tuple[tuple[str, int, float], ...]:
    """A member's rewards span by span: totals would make two lists equal that differ rank by rank."""
    spans = group.rewards[member] or ()
    return tuple((span.stage, span.index, span.value) for span in spans if span.channel == "reward")
