"""Which groups enter an update."""

from __future__ import annotations

from typing import Literal

from rlpost.types import Group

GroupFilter = Literal["off", "binary"]


def total(group: Group, member: int) -> float | None:
    """Sum of the ``reward``-channel spans of one member, None if undecided."""
    reward = group.rewards[member]
    return None if reward is None else sum(span.value for span in reward if span.channel == "reward")


def keep(group: Group, rule: GroupFilter) -> bool:
    """Whether a group has anything to teach under ``rule``.

    ``off`` keeps every group with a decided member. ``binary`` (DAPO's dynamic sampling: Yu et al. 2025, section 3.2;
    "Rewarding the Unlikely", released code) keeps a group whose decided members differ: by verdict where there is a
    verifier, by reward where there is none. It looks at outcomes before any shaping.
    """
    decided = [i for i, reward in enumerate(group.rewards) if reward is not None]
    if rule == "off":
        return bool(decided)
    if any(group.verdicts[i] is not None for i in decided):
        kinds = {verdict.outcome if (verdict := group.verdicts[i]) is not None else None for i in decided}
    else:
        kinds = {total(group, i) for i in decided}
    return len(kinds) > 1
