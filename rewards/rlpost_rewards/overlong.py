"""DAPO's soft punishment of overlong answers."""

from __future__ import annotations

from collections.abc import Sequence

from rlpost.errors import UserError
from rlpost.trajectory import Group
from rlpost.types import Reward, SpanReward
from rlpost_rewards.combine import add


def punishment(length: int, max_tokens: int, buffer: int) -> float:
    r"""R(y) = 0 for |y| ≤ L_max - L_cache, (L_max - L_cache - |y|) / L_cache up to L_max, and -1 beyond.

    Yu et al. 2025, "DAPO" (arXiv 2503.14476), eq. 13.

    Args:
        length: number |y| of tokens of the answer, its end token included.
        max_tokens: L_max.
        buffer: L_cache, from 1 to L_max: how many tokens before the limit the punishment begins.

    Returns:
        A number in [-1, 0].

    >>> [punishment(n, 20, 4) for n in (16, 17, 20, 21)]
    [0.0, -0.25, -1.0, -1.0]
    """
    return max(min((max_tokens - buffer - length) / buffer, 0.0), -1.0)


class Overlong:
    """Adds ``weight`` · `punishment` to the reward of the whole trajectory, whatever earlier stages gave.

    Under ``scoring.truncated: reject`` an answer that was cut counts as wrong and is punished in full; ``keep`` pays it
    for what it is, less the punishment; ``mask`` takes it out of the loss and leaves it in the baseline.
    ``rewards: [{name: outcome}, {name: overlong, max_tokens: 1024, buffer: 256}]``.

    Args:
        max_tokens: L_max, ``rollout.max_tokens`` or less.
        buffer: L_cache, from 1 to ``max_tokens`` (paper: 4096 of 20480).
        weight: factor > 0 (verl's ``penalty_factor``).

    Raises:
        UserError: for a buffer that is not within the limit, or a weight that is not positive.
    """

    needs: tuple[str, ...] = ()

    def __init__(self, max_tokens: int, buffer: int, weight: float = 1.0):
        if not 1 <= buffer <= max_tokens:
            raise UserError(
                f"overlong: buffer is {buffer}, max_tokens {max_tokens}; give a buffer between 1 and max_tokens"
            )
        if not weight > 0:
            raise UserError(f"overlong: weight is {weight}; give more than 0, the punishment itself is negative")
        self.max_tokens, self.buffer, self.weight = max_tokens, buffer, weight
        self.floor = -weight

    def __call__(self, group: Group) -> Sequence[Reward | None]:
        """See `rlpost.protocols.RewardStage`; an undecided trajectory stays undecided."""
        result: list[Reward | None] = []
        for trajectory, reward in zip(group.trajectories, group.rewards, strict=True):
            if reward is None:
                result.append(None)
                continue
            length = int(trajectory.mask.sum())
            value = self.weight * punishment(length, self.max_tokens, self.buffer)
            result.append(add(reward, SpanReward(0, trajectory.length, value)))
        return result
