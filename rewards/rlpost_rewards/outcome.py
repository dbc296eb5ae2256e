"""The reward that pays for the verifier's verdict."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.trajectory import Group
from rlpost.types import Reward, SpanReward
from rlpost_rewards.combine import add


class Outcome:
    """Adds ``weight · score`` of the verdict, one span over the whole trajectory.

    A rejected answer scores 0, an accepted one 1 (or the verifier's grade); an undecided one has no reward at all.

    Args:
        weight: factor on the verdict's score.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, weight: float = 1.0):
        self.weight = weight

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`."""
        result: list[Reward | None] = []
        for trajectory, verdict, reward in zip(group.trajectories, group.verdicts, group.rewards, strict=True):
            if reward is None or verdict is None or verdict.score is None:
                result.append(None)
            else:
                result.append(add(reward, SpanReward(0, trajectory.length, self.weight * verdict.score)))
        return result
