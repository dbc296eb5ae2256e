"""What a trajectory that was cut at a limit is worth where it counts as wrong (``scoring.truncated: reject``).

0 is no bad reward: among rewards of -1 and 1, or where length is punished, it is the best of the group. A cut
trajectory is therefore worth what the worst finished one of its group is, or less: for the whole, and for each part
that a stage pays for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping

from rlpost.trajectory import Group
from rlpost.types import Reward, SpanReward, Verdict

CUT = ("length", "turns")
"""How trajectories end that are cut."""

TRUNCATED = Verdict("rejected", 0.0, "truncated", assurance="cut at a limit, not checked")

Key = tuple[str, int]
"""What is compared within a group: stage and index of a part; an empty stage and 0 for the whole."""
WHOLE: Key = ("", 0)


def amounts(reward: Reward) -> dict[Key, float]:
    """What a reward pays for the whole, which stages add up, and for each part; of several spans of a part the least.

    >>> amounts((SpanReward(0, 9, 1.0),
    ...          SpanReward(2, 4, -0.5, 1, stage="ends"), SpanReward(4, 5, 0.5, 1, stage="ends")))
    {('', 0): 1.0, ('ends', 1): -0.5}
    """
    found: dict[Key, float] = {}
    for span in reward:
        if span.channel != "reward":
            continue
        key = (span.stage, span.index)
        known = found.get(key)
        if known is None:
            found[key] = span.value
        else:
            found[key] = known + span.value if key == WHOLE else min(known, span.value)
    return found


def lowest(group: Group, cut: Collection[int]) -> dict[Key, float]:
    """The least that a finished member got, for the whole and for each part that any of them got something for."""
    found: dict[Key, float] = {}
    for member, reward in enumerate(group.rewards):
        if member not in cut:
            for key, value in amounts(reward or ()).items():
                found[key] = min(value, found.get(key, value))
    return found


def reject(group: Group, cut: Collection[int], laid: Mapping[int, Reward], floors: Mapping[str, float]) -> Group:
    r"""The group with the rewards of its cut members: min(f, min over finished members) for the whole and each part.

    Without a finished member, all cut ones are worth f.

    Args:
        group: a group after its reward stages, whose finished members have their rewards.
        cut: numbers of the members that were cut.
        laid: for each of them, the spans that the stages which pay for parts lay over it. Their values do not count,
            their places say which tokens are worth what; an advantage among them is kept where it is negative.
        floors: by stage, the least that it pays (`rlpost.protocols.RewardStage`); stages that do not say pay 0 or
            more. The floor f of the whole is their sum.
    """
    least = lowest(group, cut)
    whole = min(sum(floors.values()), least.get(WHOLE, float("inf")))
    rewards = list(group.rewards)
    for member in cut:
        length = group.trajectories[member].length
        spans = [_lowered(span, least, floors) for span in laid.get(member, ())]
        had = {(span.stage, span.index) for span in spans}
        spans += [
            SpanReward(length, length, min(floors.get(stage, 0.0), value), index, stage=stage)
            for (stage, index), value in sorted(least.items())
            if stage and (stage, index) not in had
        ]
        if WHOLE in least or not spans:
            spans.insert(0, SpanReward(0, length, whole))
        rewards[member] = tuple(spans)
    return dataclasses.replace(group, rewards=tuple(rewards))


def _lowered(span: SpanReward, least: Mapping[Key, float], floors: Mapping[str, float]) -> SpanReward:
    if span.channel == "advantage":
        return dataclasses.replace(span, value=min(span.value, 0.0))
    floor = floors.get(span.stage, 0.0)
    return dataclasses.replace(span, value=min(floor, least.get((span.stage, span.index), floor)))
