"""What a trajectory that was cut at a limit is worth where it counts as wrong (``scoring.truncated: reject``).

0 is no bad reward: among rewards of -1 and 1, or where length is punished, it is the best of the group. A cut
trajectory is therefore worth what the worst finished one of its group is, or less: for the whole, and for each part
that a stage pays for. Parts are compared one by one; the mean over a trajectory's tokens also depends on how many
tokens no part covers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence

from rlpost.trajectory import Group, Trajectory
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
        laid: for each of them, the spans that the stages which pay for parts lay over it. Their places say which tokens
            are worth what. Of their values the least of a part counts for all cut members, where it is below the worst
            finished one's (an environment's costs of many turns); an advantage is kept where it is negative. Tokens
            after the last part belong to the first part that is missing.
        floors: by stage, the least that it pays (`rlpost.protocols.RewardStage`); stages that do not say pay 0 or
            more. The floor f of the whole is their sum.
    """
    least = lowest(group, cut)
    for spans in laid.values():
        least |= {key: min(least[key], value) for key, value in amounts(spans).items() if key in least and key != WHOLE}
    whole = min(sum(floors.values()), least.get(WHOLE, float("inf")))
    rewards = list(group.rewards)
    for member in cut:
        length = group.trajectories[member].length
        spans = [_lowered(span, least, floors) for span in laid.get(member, ())]
        spans += _missing(group.trajectories[member], spans, least, floors)
        if WHOLE in least or not spans:
            spans.insert(0, SpanReward(0, length, whole))
        rewards[member] = tuple(spans)
    return dataclasses.replace(group, rewards=tuple(rewards))


def _missing(
    trajectory: Trajectory, spans: Sequence[SpanReward], least: Mapping[Key, float], floors: Mapping[str, float]
) -> list[SpanReward]:
    """Spans for the parts that finished members have and a cut one has not.

    The first of each stage lies over the tokens that follow what there is: a part without tokens moves nothing, and an
    answer that is cut before it says anything would be left alone while finished ones are pushed down.
    """
    had = {(span.stage, span.index) for span in spans}
    found: list[SpanReward] = []
    reached: dict[str, int] = {}
    for span in spans:
        if span.channel == "reward" and span.start < span.stop:
            reached[span.stage] = max(reached.get(span.stage, 0), span.stop)
    for (stage, index), value in sorted(least.items()):
        if not stage or (stage, index) in had:
            continue
        start = trajectory.length
        if index >= 0:
            start, reached[stage] = max(reached.get(stage, 0), trajectory.prompt_tokens), trajectory.length
        found.append(SpanReward(start, trajectory.length, min(floors.get(stage, 0.0), value), index, stage=stage))
    return found


def _lowered(span: SpanReward, least: Mapping[Key, float], floors: Mapping[str, float]) -> SpanReward:
    if span.channel == "exempt":
        return span
    if span.channel == "advantage":
        return dataclasses.replace(span, value=min(span.value, 0.0))
    floor = floors.get(span.stage, 0.0)
    return dataclasses.replace(span, value=min(floor, least.get((span.stage, span.index), floor)))
