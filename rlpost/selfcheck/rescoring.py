"""Does an answer keep its reward when the answers of its group come in another order?

A scorer that mixes up answers pays the right rewards to the wrong ones: the mean looks healthy and nothing is learned.
No group shows that by itself; the same group in another order does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from rlpost.trajectory import GroupReceipt
from rlpost.types import Reward, Verdict


def worth_rescoring(groups: Sequence[GroupReceipt]) -> GroupReceipt | None:
    """The group whose members differ most in reward, None if none differ: order shows only there."""

    def distinct(group: GroupReceipt) -> int:
        return len({_values(reward) for reward in group.rewards if reward is not None})

    best = max(groups, key=distinct, default=None)
    return best if best is not None and distinct(best) > 1 else None


def reordered(group: GroupReceipt, trajectories: Sequence[Any], seed: int) -> tuple[GroupReceipt, list[int]]:
    """An unscored copy of a group whose members come in another order, and where each of them was.

    Args:
        group: a scored group of at least two.
        trajectories: its trajectories.
        seed: draws the order.
    """
    order = _order(len(trajectories), seed)
    return unscored(group, trajectories, order), order


def unscored(group: GroupReceipt, trajectories: Sequence[Any], order: Sequence[int]) -> GroupReceipt:
    """A copy of a group with its members in this order, and nothing that a scorer has said of them."""
    return replace(
        group,
        trajectories=tuple(group.trajectories[place] for place in order),
        tokens=tuple(trajectories[place] for place in order),
        verdicts=(),
        rewards=(),
        stage_rewards={},
        metrics={},
        evidence=None,
        proximal=None,
    )


def _order(count: int, seed: int) -> list[int]:
    """An order that shows rotations and reversals, the usual ways to mix up: it commutes with neither.

    Of two members there is no such order; the first one takes both places.
    """
    if count == 2:
        return [0, 0]
    if count == 3:
        return [[1, 0, 2], [0, 2, 1], [2, 1, 0]][seed % 3]
    source = np.random.default_rng(seed)
    while True:
        order = [int(place) for place in source.permutation(count)]
        steps = {(after - before) % count for before, after in pairwise([*order, order[0]])}
        if len(steps) > 1:  # rotations go up by 1 all around, reversals down
            return order


def difference(group: GroupReceipt, again: GroupReceipt, order: Sequence[int]) -> str | None:
    """What a member got the second time, in words, if it is something else; undecided ones are not compared.

    Args:
        group: the group as it was scored.
        again: the same group, scored in another order.
        order: where each member of ``again`` was in ``group``.
    """
    for place, member in enumerate(order):
        old, new = group.verdicts[member], again.verdicts[place]
        if old is not None and new is not None and _apart(old, new):
            return f"answer {member} was {old.outcome} ({old.reason}) and is {new.outcome} ({new.reason})"
        before, after = group.rewards[member], again.rewards[place]
        if before is not None and after is not None and not _close(before, after):
            return f"answer {member} got {_total(before):.6g} and gets {_total(after):.6g}"
    return None


def _apart(old: Verdict, new: Verdict) -> bool:
    decided = "undecided" not in (old.outcome, new.outcome)
    return decided and (old.outcome, old.score) != (new.outcome, new.score)


def _values(reward: Reward) -> tuple[tuple[str, int, float], ...]:
    return tuple((span.stage, span.index, span.value) for span in reward)


def _close(one: Reward, other: Reward) -> bool:
    return [(s.start, s.stop, s.index, s.stage) for s in one] == [
        (s.start, s.stop, s.index, s.stage) for s in other
    ] and np.allclose([s.value for s in one], [s.value for s in other], rtol=1e-6, atol=1e-9)


def _total(reward: Reward) -> float:
    return sum(span.value for span in reward if span.channel == "reward")
