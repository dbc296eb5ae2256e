"""Between what the driver holds of a group and the group itself, in the process where its tokens are needed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from rlpost.trajectory import Group, GroupReceipt


def opened(group: GroupReceipt, fetch: Callable[[Any], Any]) -> Group:
    """The group itself: trajectories, full verdicts and the learner's log-probabilities, as far as they are there.

    Args:
        group: what the driver holds.
        fetch: resolves its handles.
    """
    return Group(
        prompt=group.prompt,
        trajectories=tuple(fetch(group.tokens)),
        verdicts=group.verdicts if group.evidence is None else tuple(fetch(group.evidence)),
        rewards=group.rewards,
        learner_logprobs=() if group.proximal is None else tuple(fetch(group.proximal)),
        stage_rewards=group.stage_rewards,
        metrics=group.metrics,
        extras=group.extras,
    )


def receipt_of(before: GroupReceipt, scored: Group) -> GroupReceipt:
    """What the driver gets back of a scored group: verdicts without their evidence, rewards and metrics."""
    return dataclasses.replace(
        before,
        verdicts=tuple(None if verdict is None else verdict.without_evidence() for verdict in scored.verdicts),
        rewards=scored.rewards,
        stage_rewards=scored.stage_rewards,
        metrics=scored.metrics,
        extras=scored.extras,
    )


def answers_of(
    group: GroupReceipt, members: Sequence[int], fetch: Callable[[Any], Any]
) -> list[tuple[str, tuple[str, ...]]]:
    """Texts of some members' last turns, each with the messages in the evidence of its verdict."""
    trajectories, verdicts = fetch(group.tokens), fetch(group.evidence)
    found: list[tuple[str, tuple[str, ...]]] = []
    for member in members:
        said = verdicts[member].evidence.get("messages") or ()
        found.append((trajectories[member].answer, tuple(map(str, said))))
    return found
