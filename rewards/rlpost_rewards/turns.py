"""Turn credit: the environment's rewards of single turns, as one return for each turn."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.errors import UserError
from rlpost.trajectory import Group, Trajectory
from rlpost.types import Reward, RewardOutput, SpanReward


def returns_to_go(rewards: Sequence[float], gamma: float) -> list[float]:
    r"""G_t = Σ_{j ≥ t} γ^(j-t) r_j (Sutton and Barto 2018, "Reinforcement Learning", eq. 3.8).

    >>> returns_to_go([0.0, 0.0, 1.0], 0.5)
    [0.25, 0.5, 1.0]
    """
    found, after = [0.0] * len(rewards), 0.0
    for turn in reversed(range(len(rewards))):
        after = rewards[turn] + gamma * after
        found[turn] = after
    return found


class TurnReturns:
    r"""Replaces what a trajectory has by one span for each turn, worth the turn's return: all rewards from it on.

    The reward of turn t is the environment's (`rlpost.protocols.Reply.reward`, 0 where it gave none). What earlier
    stages gave for the whole trajectory, such as ``outcome``, counts as a reward of its last turn. The return
    G_t = Σ_{j ≥ t} γ^(j-t) r_j has the turn's number as its index, so it is compared with the same turn of the group's
    other trajectories: return first, baseline second. Normalising each turn's own reward and summing afterwards would
    be biased wherever the policy chooses how many turns it takes, since every further turn would then subtract another
    mean reward.

    A turn that a trajectory does not have counts as 0 in the baseline of that turn. Leaving it out would compare long
    trajectories with long ones only, and ending early with nothing. A trajectory that was cut at a limit has earned
    what it has earned, and the turn that was cut is worth 0; under ``scoring.truncated: reject`` each of its turns is
    worth no more than the same turn of the worst finished trajectory.

    List this stage last: ``rewards: [{name: outcome}, {name: turns, gamma: 0.9}]``.

    Args:
        gamma: discount γ in [0, 1].
        missing: ``zero``, as described; anything else is refused.

    Raises:
        UserError: for a discount outside [0, 1], or another value of ``missing``.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, gamma: float = 1.0, missing: str = "zero"):
        if not 0 <= gamma <= 1:
            raise UserError(f"turns: gamma is {gamma!r}; give a discount between 0 and 1")
        if missing != "zero":
            raise UserError(
                f"turns: missing is {missing!r}; only zero is unbiased: dropped turns would compare long trajectories "
                "with long ones only"
            )
        self.gamma = gamma

    def __call__(self, group: Group) -> RewardOutput:
        """See `rlpost.protocols.RewardStage`; logs the mean ``return`` of whole trajectories, and of ``turns``.

        Raises:
            UserError: if an earlier stage gave rewards to parts of a trajectory.
        """
        pairs = list(zip(group.trajectories, group.rewards, strict=True))
        found = [None if reward is None else self._credited(group, trajectory, reward) for trajectory, reward in pairs]
        firsts = [reward[0].value for reward in found if reward]
        figures = {"turns": sum(len(one.turns) for one, _ in pairs) / max(len(pairs), 1)}
        if firsts:
            figures["return"] = sum(firsts) / len(firsts)
        return RewardOutput(found, figures)

    def _credited(self, group: Group, trajectory: Trajectory, reward: Reward) -> Reward:
        turns = trajectory.turns
        rewards = [turn.reward or 0.0 for turn in turns]
        kept: list[SpanReward] = []
        for span in reward:
            if span.channel != "reward":
                kept.append(span)
            elif span.index != 0 or span.start > turns[0].start or span.stop < turns[-1].stop:
                raise UserError(
                    f"turns: an earlier stage rewards tokens {span.start} to {span.stop} (index {span.index}) of a "
                    "trajectory; only rewards of whole trajectories can become returns of turns; remove that stage"
                )
            else:
                rewards[-1] += span.value
        if trajectory.status == "done" and not reward and all(turn.reward is None for turn in turns):
            return ()  # nothing gave it a reward, which is not the reward 0
        return (*self._spans(group, trajectory, returns_to_go(rewards, self.gamma)), *kept)

    @staticmethod
    def _spans(group: Group, trajectory: Trajectory, values: Sequence[float]) -> Reward:
        turns, end = trajectory.turns, trajectory.length
        spans = [
            SpanReward(turn.start, turn.stop, value, index)
            for index, (turn, value) in enumerate(zip(turns, values, strict=True))
        ]
        longest = max(len(other.turns) for other in group.trajectories)
        return (*spans, *(SpanReward(end, end, 0.0, index) for index in range(len(turns), longest)))
